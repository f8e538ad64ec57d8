"""Complex minimax approximation on a disc, an arc, a rectangle: Lawson's iteration on the dual problem, and its bounds.

Take weights w_j >= 0 of points z_j, sum w = 1, and the smallest s with sum w |f q - p|^2 = s^2 sum w |q|^2 for some
p, q. No p/q of the type has an error below s on the points: sum w |f q - p|^2 <= max |f - p/q|^2 sum w |q|^2. So
each step of Lawson's iteration, whose next weights are w |f - p/q|, comes with a lower bound; where it reaches the
error, the function is best (Zhang, Yang, Yang and Zhang, Math. Comp. 94, 2025; the duality is Ruttan's, 1985).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from flint import acb, acb_poly, acb_series, arb, ctx

from approx.dyadic import precision
from approx.fit.result import check_type, refuse_weight
from approx.formulas import expression
from approx.functions import BALLS
from approx.region import Part, Region
from approx.target import Target

_STEPS = 400  # of Lawson's iteration
#: Share of the largest value below which an error may be nothing but rounding
_NEAR = 1e-10
_ROUNDS = 4  # how often the points where the error peaks between others join them
_ZOOMS = 3  # looks at a peak, each eight times closer
_CLOSE = 1e-4  # how far, relatively, a proven bound may lie above the error


@dataclass(frozen=True, eq=False)
class ComplexBounds:
    """What is proven about a complex fit."""

    lower: float
    """The error is this at a point."""
    upper: float
    """The error is nowhere on the curve above it."""
    pole_free: bool
    """Whether no pole lies in the region, if it is filled; then the bound holds inside too, where f is analytic."""


@dataclass(frozen=True, eq=False)
class ComplexMinimax:
    """r = p/q with complex coefficients, near the best on a region."""

    numerator: np.ndarray
    """Coefficients of p in the basis, complex128, shape (m + 1,)."""
    denominator: np.ndarray
    """Coefficients of q, shape (n + 1,)."""
    recurrence: np.ndarray
    """H with z Q_k = sum_j H_jk Q_j, Q_0 = 1: the basis of both, shape (max(m, n) + 1, max(m, n))."""
    region: Region
    """Where it was fitted."""
    error: float
    """The largest |f - r| that was found on the curve."""
    levelled: float
    """No function of the type has a smaller error there, up to rounding (1e-14 of f is taken off)."""
    converged: bool
    """Whether the two are as close as was asked for, but for that rounding."""
    enclose: Any = None
    """The target on acb and acb_series; None for a callable."""

    @property
    def type(self) -> tuple[int, int]:
        """(m, n)."""
        return len(self.numerator) - 1, len(self.denominator) - 1

    def __call__(self, z: Any) -> Any:
        """r at z.

        Args:
            z: complex numbers of any shape; or acb and acb_series.

        Returns:
            complex128 of the same shape, or a ball.
        """
        if isinstance(z, BALLS):
            basis = self._basis(z)
            one = 0 * z + 1
            p, q = (
                sum((acb(complex(c)) * b for c, b in zip(series, basis, strict=False)), 0 * one)
                for series in (self.numerator, self.denominator)
            )
            return p / q
        z = np.asarray(z, dtype=complex)
        basis = _arnoldi_values(self.recurrence, z.ravel())
        with np.errstate(all="ignore"):
            value = (basis[:, : len(self.numerator)] @ self.numerator) / (
                basis[:, : len(self.denominator)] @ self.denominator
            )
        return value.reshape(z.shape)[()]

    def _basis(self, z: Any) -> list[Any]:
        found = [0 * z + 1]
        for k in range(self.recurrence.shape[1]):
            column = [acb(complex(h)) for h in self.recurrence[: k + 2, k]]
            following = z * found[k]
            for h, b in zip(column, found, strict=False):
                following = following - h * b
            found.append(following * (1 / column[-1]))
        return found

    @cached_property
    def poles(self) -> np.ndarray:
        """The poles, complex128, shape (n,)."""
        return _zeros(self.recurrence, self.denominator)

    @cached_property
    def zeros(self) -> np.ndarray:
        """The zeros, complex128, shape (m,)."""
        return _zeros(self.recurrence, self.numerator)

    @property
    def residues(self) -> np.ndarray:
        """The residues at the poles, simple ones, shape (n,)."""
        poles = self.poles
        others = poles[:, None] - poles + np.eye(len(poles))
        # q = lead prod (z - p_j): its slope at a pole
        basis = _arnoldi_values(self.recurrence, poles)
        size = np.prod(np.diag(self.recurrence, -1)[: len(poles)]) if len(poles) else 1.0
        slope = self.denominator[-1] / size * np.prod(others, axis=1)
        return (basis[:, : len(self.numerator)] @ self.numerator) / slope

    def certify(self) -> ComplexBounds:
        """Proven bounds of the error on the curve, by Taylor series of f - r with enclosed remainders.

        Coefficients of the series and remainders are enclosed in balls; the polynomial between is bounded in float64,
        and what that may lose is added. That f is analytic inside a filled region is taken on trust.

        Returns:
            The bounds.

        Raises:
            ValueError: for a callable, which has no enclosure: give a formula.
            ArithmeticError: where f is not analytic on the curve, or r has a pole on it.
        """
        f = self.enclose
        if f is None:
            raise ValueError(
                "f has no enclosure: give a formula, or a target with enclose= on acb and acb_series"
            )
        bits = 160 + int(max(0.0, -np.log2(max(self.error, 1e-300))))
        with precision(bits):
            z = self.region.sample(200)
            lower = max(abs(acb(f(acb(complex(v)))) - self(acb(complex(v)))).lower() for v in z)
            order = sum(self.type) + 24
            parts = self.region.parts
            upper = max(supremum(lambda s: f(s) - self(s), part, self.error, order) for part in parts)
            free = True
            if self.region.filled and len(self.denominator) > 1:
                basis = self._basis(acb_poly([0, 1]))
                q = sum(
                    (acb_poly([acb(complex(c))]) * b for c, b in zip(self.denominator, basis, strict=False)),
                    acb_poly(),
                )
                free = all(self.region.surely_outside(root) for root in q.roots())
        return ComplexBounds(float(lower) * (1 - 1e-15), upper, free)


def complex_minimax(
    f: Callable[[np.ndarray], Any] | str | Target,
    type: tuple[int, int],
    region: Region,
    *,
    tolerance: float = 5e-3,
) -> ComplexMinimax:
    """A rational function of type (m, n) that is near the best on a region of the complex plane.

    On a disc or a rectangle f has to be analytic inside: then the error is largest on the boundary, and r has no pole
    inside. On a circle, an arc or a segment poles may lie anywhere beside the curve. There may be several best
    functions, and a gap between bound and error that no weights close: then `converged` is False, and both stand.

    Args:
        f: a formula in x such as "exp(x)", an enclosed target, or a callable on complex arrays. `certify` needs one of
            the first two.
        type: (m, n), the degrees of numerator and denominator.
        region: `Region.disc()`, `circle`, `arc`, `segment` or `rectangle`.
        tolerance: stop when the error exceeds the lower bound by this share of it.

    Returns:
        The fit.

    Raises:
        ValueError: for a type or a region of another kind, or values that are not finite on the curve.
        RuntimeError: if every function that was met has a pole inside a filled region.

    Source:
        L.-H. Zhang, L. Yang, W. H. Yang, Y.-N. Zhang, Math. Comp. 94 (2025); Y. Nakatsukasa and L. N. Trefethen,
        SIAM J. Sci. Comput. 42 (2020).
    """
    m, n = check_type(type)
    if not isinstance(region, Region):
        raise ValueError(f"region={region!r}: expected an approx.Region such as approx.Region.disc()")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must lie in (0, 1)")
    enclose = _enclosure(f)
    values = _values(f, enclose)
    count = 24 * (m + n + 4) + 100
    z, dense = region.sample(count), region.sample(12 * count)
    f_dense = _checked(values(dense), dense)
    best: ComplexMinimax | None = None
    levelled, share = 0.0, np.full(len(z), 1 / len(z))
    for _ in range(_ROUNDS):
        found, bound, share = _lawson(z, _checked(values(z), z), m, n, share, region, tolerance)
        levelled = max(levelled, bound)
        if found is None:
            break
        error = np.abs(f_dense - found(dense))
        top = float(np.max(error))
        on_points = found.error
        if best is None or top < best.error:
            best = replace(found, error=max(top, on_points))
        if top <= on_points * (1 + tolerance / 4):
            break
        peaks = dense[(error > on_points) & (error >= np.roll(error, 1)) & (error >= np.roll(error, -1))]
        places = np.r_[z, peaks]
        z, first = np.unique(places, return_index=True)
        share = np.r_[share, np.full(len(peaks), np.mean(share))][first]
        share /= share.sum()
    if best is not None:
        held = best
        highest = _peaks(region, lambda at: np.abs(values(at) - held(at)), 6 * count)
        best = replace(best, error=max(best.error, float(np.max(np.abs(values(highest) - best(highest))))))
        if enclose is not None:  # float64 sees its own rounding too
            highest = np.r_[highest, dense[np.argsort(np.abs(f_dense - best(dense)))[-32:]]]
            with precision(128):
                signed = [acb(enclose(acb(complex(v)))) - best(acb(complex(v))) for v in highest]
                best = replace(best, error=max(float(abs(e).mid()) for e in signed))
    fit = None if best is None else _judged(best, levelled, f_dense, tolerance)
    if fit is None or (not fit.converged and fit.error <= _NEAR * float(np.max(np.abs(f_dense)))):
        # where a smaller type is as good, the poles that it lacks may lie anywhere
        with suppress(RuntimeError):
            smaller = complex_minimax(f, (m, n - 1), region, tolerance=tolerance) if n else None
            if smaller is not None and (fit is None or smaller.error < fit.error):
                fit = _judged(smaller, levelled, f_dense, tolerance)
    if fit is None or (best is None and not fit.converged):
        raise RuntimeError(
            f"complex_minimax of type {(m, n)} on the {region.name}: every function that was met has a pole "
            "inside; take a smaller n"
        )
    return replace(fit, enclose=enclose)


def _peaks(region: Region, off: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """The points of a curve where an error is nearly at its largest, each looked for between its neighbours."""
    found = []
    for part in region.parts:
        u = np.linspace(0, 1, count)
        error = off(part.at(u))
        beside = np.pad(error, 1, constant_values=-np.inf)
        at = np.flatnonzero((error >= beside[:-2]) & (error >= beside[2:]) & (error > 0.99 * np.max(error)))
        low, high = u[np.maximum(at - 1, 0)], u[np.minimum(at + 1, count - 1)]
        for _ in range(_ZOOMS):
            finer = low + (high - low) * np.linspace(0, 1, 17)[:, None]
            best = np.argmax(off(part.at(finer.ravel())).reshape(finer.shape), axis=0)
            columns = np.arange(len(at))
            low, high = finer[np.maximum(best - 1, 0), columns], finer[np.minimum(best + 1, 16), columns]
        found.append(part.at((low + high) / 2))
    return np.concatenate(found)


def _judged(fit: ComplexMinimax, levelled: float, f: np.ndarray, tolerance: float) -> ComplexMinimax:
    """The fit beside a lower bound; `f` are values that say what rounding is."""
    levelled = min(levelled, fit.error)
    rounding = 1e-14 * float(np.max(np.abs(f)))
    return replace(fit, levelled=levelled, converged=fit.error <= levelled * (1 + tolerance) + rounding)


def _enclosure(f: Any) -> Any:
    """f on acb and acb_series, or None for a callable."""
    if isinstance(f, str):
        return expression(f)
    if not isinstance(f, Target):
        if not callable(f):
            raise ValueError(f"f={f!r:.60}: expected a formula, a target or a callable on complex arrays")
        return None
    refuse_weight(f, "complex_minimax")
    if not f.enclosed or f.breaks:
        raise ValueError(f"target {f.name!r}: expected one with an enclosure, and without kinks and jumps")
    return f


def _values(f: Any, enclose: Any) -> Callable[[np.ndarray], np.ndarray]:
    if enclose is None:
        return lambda z: np.broadcast_to(np.asarray(f(z), dtype=complex), z.shape)

    def at(z: np.ndarray) -> np.ndarray:
        with precision(128):
            return np.array([complex(acb(enclose(acb(complex(v))))) for v in z])

    return at


def _checked(values: np.ndarray, z: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(values)):
        raise ValueError(f"f is not finite at z = {z[~np.isfinite(values)][0]}, which lies in the region")
    return values


def _arnoldi(z: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Polynomials orthogonal on the points, shape (size, degree + 1), and their recurrence."""
    Q = np.ones((len(z), degree + 1), dtype=complex)
    H = np.zeros((degree + 1, degree), dtype=complex)
    for k in range(degree):
        v = z * Q[:, k]
        for _ in range(2):  # twice is enough
            c = Q[:, : k + 1].conj().T @ v / len(z)
            H[: k + 1, k] += c
            v = v - Q[:, : k + 1] @ c
        H[k + 1, k] = np.linalg.norm(v) / np.sqrt(len(z))
        Q[:, k + 1] = v / H[k + 1, k]
    return Q, H


def _arnoldi_values(H: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The basis at other points, shape (size, degree + 1)."""
    Q = np.ones((len(z), H.shape[0]), dtype=complex)
    for k in range(H.shape[1]):
        Q[:, k + 1] = (z * Q[:, k] - Q[:, : k + 1] @ H[: k + 1, k]) / H[k + 1, k]
    return Q


def _zeros(H: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The zeros of a sum of the basis: eigenvalues of its recurrence with the leading term replaced."""
    degree = len(coefficients) - 1
    while degree > 0 and abs(coefficients[degree]) <= 1e-14 * np.max(np.abs(coefficients)):
        degree -= 1
    if degree < 1:
        return np.zeros(0, dtype=complex)
    matrix = H[:degree, :degree].copy()
    matrix[:, -1] -= H[degree, degree - 1] * coefficients[:degree] / coefficients[degree]
    return np.linalg.eigvals(matrix)


def _lawson(
    z: np.ndarray,
    f: np.ndarray,
    m: int,
    n: int,
    share: np.ndarray,
    region: Region,
    tolerance: float,
) -> tuple[ComplexMinimax | None, float, np.ndarray]:
    """The best function met on the points, the best bound, and the weights that gave it."""
    V, H = _arnoldi(z, max(m, n))
    best: ComplexMinimax | None = None
    bound, kept = 0.0, share
    rounding = 1e-14 * float(np.max(np.abs(f)))
    for _ in range(_STEPS):
        root = np.sqrt(share)[:, None]
        Q, R = np.linalg.qr(root * V)
        P, D = Q[:, : m + 1], Q[:, : n + 1]
        fD = f[:, None] * D
        inner = P.conj().T @ fD
        _, s, rows = np.linalg.svd(fD - P @ inner, full_matrices=False)
        if s[-1] - rounding > bound:
            bound, kept = float(s[-1] - rounding), share
        b = rows[-1].conj()
        q = np.linalg.solve(R[: n + 1, : n + 1], b)
        p = np.linalg.solve(R[: m + 1, : m + 1], inner @ b)
        below = V[:, : n + 1] @ q
        with np.errstate(all="ignore"):
            error = np.abs(f - V[:, : m + 1] @ p / below)
        error = np.where(np.isfinite(error), error, np.nanmax(np.where(np.isfinite(error), error, 0)))
        top = float(np.max(error))
        if best is None or top < best.error:
            norm = np.max(np.abs(q))
            found = ComplexMinimax(p / norm, q / norm, H, region, top, 0.0, False)
            if not region.filled or not _inside(region, found.poles):
                best = found
        if top <= rounding or (best is not None and best.error <= bound * (1 + tolerance / 2)):
            break
        share = share * np.maximum(error / top, 1e-8)
        share = np.maximum(share / share.sum(), 1e-18)
        share /= share.sum()
    return best, max(bound, 0.0), kept


def _inside(region: Region, z: np.ndarray) -> bool:
    return any(not region.surely_outside(acb(complex(v))) for v in z)


def supremum(error: Callable[[Any], Any], part: Part, known: float, order: int) -> float:
    """An upper bound of |error| on a part of a curve, by Taylor series on pieces of it.

    Args:
        error: the error, an analytic function that runs on acb and acb_series, at the working precision.
        part: the part of the curve.
        known: about how large it is.
        order: of the series.

    Returns:
        The bound.

    Raises:
        ArithmeticError: where the function is not analytic on the curve.
    """
    pieces = [(k / 16, (k + 1) / 16) for k in range(16)]
    largest = 0.0
    before = ctx.cap
    ctx.cap = order + 1
    try:
        while pieces:
            low, high = pieces.pop()
            if high - low < 1e-6:
                raise ArithmeticError("f - r is not analytic on the curve: f is not, or r has a pole there")
            middle = complex(part.at(np.array([(low + high) / 2]))[0])
            centre = acb(middle)
            radius = float(abs(part.ball(low, high) - centre).upper()) * (1 + 1e-12)
            wide = acb(arb(middle.real, radius), arb(middle.imag, radius))
            remainder = _coefficient(error, wide, order) * arb(radius) ** order
            if not (remainder.is_finite() and remainder <= 0.25 * _CLOSE * known):
                half = (low + high) / 2
                pieces += [(low, half), (half, high)]
                continue
            series = error(acb_series([centre, 1], order))
            c = np.array([complex(series[k]) for k in range(order)])
            off = [float(abs(series[k] - acb(v)).upper()) for k, v in enumerate(c.tolist())]
            beside = float(remainder) + float(np.sum(np.array(off) * radius ** np.arange(order)))
            largest = max(largest, beside + _polynomial_bound(c, part, low, high, middle, radius))
    finally:
        ctx.cap = before
    return largest * (1 + 1e-10)


def _coefficient(error: Callable[[Any], Any], ball: acb, order: int) -> arb:
    """A bound of a Taylor coefficient at the points of a ball; infinite where the ball is too wide for it."""
    try:
        return abs(error(acb_series([ball, 1], order + 1))[order]).upper()
    except (ValueError, ZeroDivisionError):  # a denominator that may vanish
        return arb("inf")


def _polynomial_bound(
    c: np.ndarray, part: Part, low: float, high: float, middle: complex, radius: float
) -> float:
    """A bound of |sum c_j (z(u) - middle)^j|: its largest value on a grid, what its square may gain between, and what
    float64 may lose in Horner's scheme and in z(u)."""
    powers = np.arange(len(c))
    sizes = [
        np.sum(np.abs(np.polynomial.polynomial.polyder(c, k)) * radius ** powers[: len(c) - k])
        for k in range(3)
    ]
    bend = 2 * (sizes[1] ** 2 * part.speed**2 + sizes[0] * (sizes[2] * part.speed**2 + sizes[1] * part.bend))
    eps = np.finfo(float).eps
    lost = eps * (8 * len(c) * sizes[0] + 32 * (abs(middle) + radius + part.speed) * sizes[1])
    count = 64
    while True:
        u = np.linspace(low, high, count + 1)
        top = float(np.max(np.abs(np.polynomial.polynomial.polyval(part.at(u) - middle, c))))
        gain = float(bend) * ((high - low) / count) ** 2 / 8
        if gain <= _CLOSE * top**2 or count >= 1 << 16:
            return float(np.sqrt((top + lost) ** 2 + gain))
        count *= 2
