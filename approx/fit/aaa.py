"""Complex samples, such as frequency responses: AAA, Lawson's iteration, and poles with residues.

SciPy's AAA (Nakatsukasa, Sete and Trefethen, SIAM J. Sci. Comput. 40, 2018) finds a rational function near the samples.
Lawson's iteration brings its largest error down (Nakatsukasa and Trefethen, SIAM J. Sci. Comput. 42, 2020). The poles,
mirrored into conjugate pairs or into the left half-plane where that is asked for, then get the best residues. A pole at
infinity is a power of z: the barycentric form has them far away, and they become a polynomial part.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from scipy.interpolate import AAA
from scipy.linalg import eigvals

from approx.rational import Rational

_FEW = 2000  # samples that take part in the iterations; the others are looked at
_ROUNDS = 6
_BLOCK = 1 << 16
_MOST = 100  # poles
_NEAR = 20.0  # times the wanted error: AAA's own, where the least degree is looked for from
# steps of Lawson's iteration, after which an error is to be within a factor of the wanted one
_STEPS, _LATER = 3, 3.0
# in units of the largest |z|:
_FAR = 3.0  # poles beyond may stand for powers of z
_REACH = 1e8  # there a pole and a constant cannot be told apart


@dataclass(frozen=True, eq=False)
class ComplexFit:
    """r(z) = polynomial(z) + sum residues/(z - poles), fitted to complex samples."""

    poles: np.ndarray
    """The poles, complex128, shape (n,)."""
    residues: np.ndarray
    """Their residues, shape (n,)."""
    polynomial: np.ndarray
    """The coefficients of 1, z, z^2, ... of the polynomial part, complex128: [R, L] of an impedance R + sL + ...; one
    coefficient for a proper function."""
    error: float
    """max w |y - r(z)| over all samples, of this very form in float64."""
    real: bool
    """Whether r has real coefficients: conjugate poles have conjugate residues."""

    def __call__(self, z: Any) -> Any:
        """r at z.

        Args:
            z: complex numbers, any shape.

        Returns:
            complex128 of the same shape.
        """
        z = np.asarray(z, dtype=complex)
        with np.errstate(all="ignore"):
            value = polyval(z, self.polynomial)
            for pole, residue in zip(self.poles, self.residues, strict=True):
                value += residue / (z - pole)
        return value[()]

    @property
    def constant(self) -> complex:
        """The constant term: of a proper function, its value at infinity."""
        return complex(self.polynomial[0])

    @property
    def stable(self) -> bool:
        """Whether every finite pole lies in the open left half-plane."""
        return bool(np.all(np.real(self.poles) < 0))

    def rational(self, domain: Any = (-1, 1)) -> Rational:
        """The same function with real coefficients as a `Rational`, to export it or to write it to a file.

        Args:
            domain: where it is to be used, real intervals.

        Returns:
            Partial fractions in float64; it runs on complex arrays too.

        Raises:
            ValueError: unless the fit was made with real=True.
        """
        if not self.real:
            raise ValueError("the coefficients are complex: fit with real=True")
        upper, axis = np.imag(self.poles) > 0, np.imag(self.poles) == 0
        # rho/(z - p) + conj = (2 Re(rho) (z - u) - 2 Im(rho) v)/((z - u)^2 + v^2)
        pairs = [
            (2 * rho.real, -2 * rho.imag * p.imag, p.real, p.imag)
            for p, rho in zip(self.poles[upper], self.residues[upper], strict=True)
        ]
        real = [(rho.real, p.real) for p, rho in zip(self.poles[axis], self.residues[axis], strict=True)]
        return Rational.from_partial_fractions(np.real(self.polynomial), pairs, real, domain)


def aaa(
    z: Any,
    y: Any,
    degree: int | None = None,
    *,
    tolerance: float = 1e-10,
    weight: Any = None,
    lawson: int = 30,
    real: bool = False,
    stable: bool = False,
) -> ComplexFit:
    """A rational function of type (n, n) near complex samples, its largest error brought down, with poles and residues.

    Poles at infinity count among the n: 2 + 0.1 z + 1/(z + 1) has degree 2, and `polynomial` holds 2 and 0.1. The
    polynomial part has the least degree that the tolerance allows. Where no degree does, as in noise, powers of z
    take the place of poles farther out than three times the samples, unless that raises the error by a tenth.

    Nothing is proven: no bound on the best error of complex rational functions is known that is as cheap as the
    alternation of real ones. `error` is what was measured at the samples.

    Args:
        z: the points, complex or real, shape (size,); j times the angular frequency for a frequency response.
        y: the values, shape (size,).
        degree: n; None for as many as the tolerance needs, 100 at most.
        tolerance: the error that is wanted, relative to the largest w |y|; noisy samples need one above their noise.
        weight: of each sample, positive, shape (size,); 1 by default.
        lawson: steps of Lawson's iteration; 0 for AAA's own function, which is near best and often enough.
        real: make the coefficients real: r(conj z) = conj r(z).
        stable: move poles into the open left half-plane, by reflection at the imaginary axis, before the residues are
            fitted.

    Returns:
        The fit.

    Raises:
        ValueError: for arrays of other shapes, numbers that are not finite, or a degree below 0.
    """
    if any(np.ma.is_masked(a) for a in (z, y, weight)):
        raise ValueError("z, y: some are masked; leave them out, as z[~y.mask] and y.compressed() do")
    z, y = np.asarray(z, dtype=complex), np.asarray(y, dtype=complex)
    if z.ndim != 1 or z.shape != y.shape or len(z) < 2:
        raise ValueError(
            f"z, y: expected arrays of one shape (size,) with two samples at least, got {z.shape}, {y.shape}"
        )
    if np.iscomplexobj(weight):
        raise ValueError("weight: expected real numbers, such as np.abs(weight)")
    w = np.ones(len(z)) if weight is None else np.broadcast_to(np.asarray(weight, dtype=float), z.shape)
    if not (np.all(np.isfinite(z)) and np.all(np.isfinite(y)) and np.all(np.isfinite(w) & (w > 0))):
        raise ValueError("z, y: expected finite numbers, and weights that are positive; leave the others out")
    if degree is not None and not (isinstance(degree, Integral) and 0 <= degree <= 1000):
        raise ValueError(f"degree={degree}: expected a whole number from 0 to 1000")
    if real:
        z, y, w = np.r_[z, z.conj()], np.r_[y, y.conj()], np.r_[w, w]
    given, (z, place) = (y, w), np.unique(z, return_inverse=True)
    total = np.bincount(place, w)  # of samples at one point their weighted mean
    y = np.bincount(place, w * y.real) / total + 1j * np.bincount(place, w * y.imag) / total
    w = np.maximum.reduceat(
        w[np.argsort(place, kind="stable")], np.unique(np.sort(place), return_index=True)[1]
    )
    chosen = _spread(z, y)
    best: ComplexFit | None = None
    for _ in range(_ROUNDS):
        found = _fitted(z[chosen], y[chosen], w[chosen], degree, tolerance, lawson, real, stable)
        values = _in_blocks(found, z)
        error = w * np.abs(y - values)
        top = float(np.max(given[1] * np.abs(given[0] - values[place])))
        found = replace(found, error=top)
        if best is None or top < best.error:
            best = found
        if len(chosen) == len(z) or float(np.max(error)) <= 1.1 * float(np.max(error[chosen])):
            break
        chosen = np.union1d(chosen, np.argsort(-error)[: _FEW // 4])
    assert best is not None
    return best


def _in_blocks(fit: ComplexFit, z: np.ndarray) -> np.ndarray:
    return np.concatenate([fit(z[k : k + _BLOCK]) for k in range(0, len(z), _BLOCK)])


def _spread(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of samples for the first round: evenly spread, and more where the values change."""
    if len(z) <= 2 * _FEW:
        return np.arange(len(z))
    order = np.lexsort((np.real(z), np.imag(z)))
    way = np.cumsum(np.r_[0.0, np.abs(np.diff(y[order]))])
    way = way / max(float(way[-1]), 1e-300) + np.linspace(0, 1, len(z))
    return np.unique(order[np.searchsorted(way, np.linspace(0, way[-1], _FEW)).clip(0, len(z) - 1)])


def _fitted(
    z: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    degree: int | None,
    tolerance: float,
    lawson: int,
    real: bool,
    stable: bool,
) -> ComplexFit:
    scale, size = (2.0 ** np.ceil(np.log2(max(float(np.max(np.abs(v))), 1e-300))) for v in (z, y))
    z, y = z / scale, y / size  # exactly; the pencil of the poles is a bad one where |z| is not about 1
    enough = max(tolerance, 1e-13) * float(np.max(w * np.abs(y)))
    # AAA knows no weights: where they are largest the error is to be small enough, too
    level = max(enough / float(np.max(w)), 1e-13 * float(np.max(np.abs(y))))

    def started(degree: int, clean_up: bool) -> AAA:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the tolerance was not reached is told by the error
            return AAA(
                z, y, rtol=level / max(np.max(np.abs(y)), 1e-300), max_terms=degree + 1, clean_up=clean_up
            )

    def fitted(start: AAA, steps: int = lawson) -> ComplexFit:
        return _of_start(start, z, y, w, enough, min(steps, lawson), real, stable)

    found = fitted(started(degree, False)) if degree is not None else _least(started, fitted, level, enough)
    return ComplexFit(
        found.poles * scale,
        found.residues * (scale * size),
        found.polynomial * (size / scale ** np.arange(len(found.polynomial))),
        found.error * size,
        real,
    )


def _least(
    started: Callable[[int, bool], AAA], fitted: Callable[..., ComplexFit], level: float, enough: float
) -> ComplexFit:
    """The fit of the least degree whose error is small enough, or the best that was met.

    AAA meets each sample that it takes, and so in noise it needs ever more of them. What comes after it needs no more
    than the noise leaves: it is tried from the degree on where AAA is near, in steps that double, then by bisection.
    """
    met: dict[int, ComplexFit] = {}

    def meets(degree: int) -> bool:
        start = started(degree, False)
        met[degree] = fitted(start, _STEPS)
        if met[degree].error <= _LATER * enough:
            met[degree] = fitted(start)
        return met[degree].error <= enough

    most, low, step = 8, -1, 1
    while True:
        start = started(most, True)
        top, reached = len(start.errors) - 1, bool(start.errors[-1] <= level)
        low = max(low, int(np.argmax(np.r_[start.errors <= _NEAR * level, True])) - 1)
        while low + step < top and not meets(low + step):
            low, step = low + step, 2 * step
        if low + step < top or reached or most == _MOST:
            break
        most = min(2 * most, _MOST)
    high = min(low + step, top)
    if high == top:
        met[high] = fitted(start)
    while high - low > 1 and met[high].error <= enough:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return met[high] if met[high].error <= enough else min(met.values(), key=lambda one: one.error)


def _of_start(
    start: AAA,
    z: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    enough: float,
    lawson: int,
    real: bool,
    stable: bool,
) -> ComplexFit:
    """What Lawson's iteration and residues make of AAA's function."""
    nodes, num, den = start.support_points, start.weights * start.support_values, start.weights
    if lawson and len(nodes) > 1:
        num, den = _lawson(z, y, w, nodes, num, den, lawson)
    poles, count = _poles(nodes, den)
    if stable:
        poles = np.where(np.real(poles) > 0, -poles.conj(), poles)
        poles = np.where(np.real(poles) == 0, poles - 1e-12, poles)
    tried: list[tuple[float, int, np.ndarray]] = []
    for degree_at_infinity in range(count - int(np.sum(np.abs(poles) <= _FAR)) + 1):
        near = poles[: count - degree_at_infinity]
        near = near[np.abs(near) < _REACH]
        near = _conjugate(near) if real else near
        top = _with_residues(z, y, w, near, degree_at_infinity, real, 1).error
        tried.append((top, degree_at_infinity, near))
        if top <= enough:
            break
    else:
        # in noise a far pole is as good as a power of z, but it has a huge residue, and may be unstable
        least = min(tried)[0]
        tried = [one for one in tried if one[0] <= 1.1 * least]
    _, degree_at_infinity, near = tried[-1]
    return _with_residues(z, y, w, near, degree_at_infinity, real, lawson)


def _cauchy(z: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """1/(z - nodes); at a node the row of the identity, which is what remains after multiplication by z - node."""
    gaps = z[:, None] - nodes
    with np.errstate(all="ignore"):
        matrix = 1 / gaps
    hits = gaps == 0
    matrix[np.any(hits, axis=1)] = 0
    matrix[hits] = 1
    return matrix


def _lawson(
    z: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    nodes: np.ndarray,
    num: np.ndarray,
    den: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of the barycentric form with a smaller largest error."""
    cauchy = _cauchy(z, nodes)
    rows = np.hstack([cauchy, -y[:, None] * cauchy])
    norms = np.linalg.norm(rows, axis=0)
    rows = rows / norms

    def error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(w * np.abs(y - cauchy @ a / (cauchy @ b)), nan=np.inf)

    e = error(num, den)
    best, share = (float(np.max(e)), num, den), np.ones(len(z))
    below = np.abs(cauchy @ den)
    for _ in range(steps):
        # |y q - p| is |q| times the error: divide by the last |q|
        weights = np.sqrt(share) * w / np.maximum(below, 1e-300)
        _, _, v = np.linalg.svd(weights[:, None] * rows, full_matrices=False)
        both = v[-1].conj() / norms
        a, b = both[: len(nodes)], both[len(nodes) :]
        e = error(a, b)
        below = np.abs(cauchy @ b)
        top = float(np.max(e))
        if not np.isfinite(top) or top == 0:
            break
        if top < best[0]:
            best = (top, a, b)
        share = np.maximum(share * e / top, 1e-15)
        share /= share.max()
    return best[1], best[2]


def _poles(nodes: np.ndarray, den: np.ndarray) -> tuple[np.ndarray, int]:
    """The finite roots of sum den/(z - nodes) by an arrowhead pencil, nearest first, and how many there are in all."""
    keep = den != 0
    nodes, den = nodes[keep], den[keep]
    if len(nodes) < 2:
        return np.zeros(0, dtype=complex), 0
    size = len(nodes) + 1
    left, right = np.zeros((size, size), dtype=complex), np.eye(size, dtype=complex)
    right[0, 0] = 0
    left[0, 1:], left[1:, 0] = den, 1
    left[np.arange(1, size), np.arange(1, size)] = nodes
    with np.errstate(all="ignore"):
        found = np.asarray(eigvals(left, right))
    found = found[np.isfinite(found)]
    return found[np.argsort(np.abs(found), kind="stable")], len(nodes) - 1


def _conjugate(poles: np.ndarray) -> np.ndarray:
    """The poles made symmetric about the real axis: real ones, and pairs."""
    left, real, pairs = list(range(len(poles))), list[complex](), list[complex]()
    gaps = np.abs(poles[:, None] - poles.conj())  # on the diagonal twice the distance from the axis
    while left:
        i, j = min(((i, j) for i in left for j in left if i <= j), key=lambda ij: gaps[ij])
        left = [k for k in left if k not in (i, j)]
        if i == j:
            real.append(complex(poles[i].real))
            continue
        middle = (poles[i] + poles[j].conjugate()) / 2
        pairs.append(complex(middle.real, abs(middle.imag)))
    return np.array([*real, *pairs, *(p.conjugate() for p in pairs)], dtype=complex)


def _with_residues(
    z: np.ndarray, y: np.ndarray, w: np.ndarray, poles: np.ndarray, degree: int, real: bool, lawson: int
) -> ComplexFit:
    """The polynomial and the residues of least squares, and with Lawson's weights those of a small largest error."""
    upper = np.imag(poles) > 0
    with np.errstate(all="ignore"):
        parts = 1 / (z[:, None] - poles)
    powers = z[:, None] ** np.arange(degree + 1)
    if real:
        pair = parts[:, upper], 1 / (z[:, None] - poles[upper].conj())
        columns = np.hstack(
            [powers, parts[:, np.imag(poles) == 0], pair[0] + pair[1], 1j * (pair[0] - pair[1])]
        )
        rows, right = np.vstack([np.real(columns), np.imag(columns)]), np.r_[np.real(y), np.imag(y)]
    else:
        columns = np.hstack([powers, parts])
        rows, right = columns, y
    keep = np.all(np.isfinite(rows), axis=1)
    norms = np.linalg.norm(rows[keep], axis=0)
    share, best = np.ones(len(z)), (np.inf, np.zeros(rows.shape[1], dtype=rows.dtype))
    for _ in range(max(lawson, 1)):
        weights = np.sqrt(share) * w
        weights = np.r_[weights, weights] if real else weights
        scaled = (weights[:, None] * rows / norms)[keep]
        c = np.linalg.lstsq(scaled, (weights * right)[keep], rcond=1e-14)[0] / norms
        # huge terms that cancel, as far poles have in place of a power of z, cost digits
        rounding = np.finfo(float).eps * (np.abs(columns) @ np.abs(c))
        error = np.nan_to_num(w * (np.abs(y - columns @ c) + rounding), nan=np.inf)
        top = float(np.max(error))
        if top < best[0]:
            best = (top, c)
        if not 0 < top < np.inf:
            break
        share = np.maximum(share * error / top, 1e-15)
        share /= share.max()
    top, c = best
    polynomial, c = c[: degree + 1].astype(complex), c[degree + 1 :]
    if not real:
        return ComplexFit(poles, c, polynomial, top, real)
    axis = poles[np.imag(poles) == 0]
    first, count = len(axis), int(np.sum(upper))
    half = c[first : first + count] + 1j * c[first + count :]
    ordered = np.r_[axis, poles[upper], poles[upper].conj()]
    return ComplexFit(ordered, np.r_[c[:first], half, half.conj()], polynomial, top, real)
