"""The best coefficients of a format: lattice reduction, then a local search in the maximum norm.

With the denominator's constant term held at 1, the weighted error w (f - p/q) is nearly linear in the coefficients: it
is w (f q - p)/q* with q* the real denominator. Coefficients k_i 2^(e_i) with whole k_i make a lattice. The vector
nearest to the real solution is found by Babai's method on a basis that LLL has reduced (Brisebarre and Chevillard,
fpminimax, 2007), under weights that follow the largest errors. Then the reduced vectors, and sums of two, are the steps
of a descent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import frexp
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_poly, fmpz_mat

from approx.dyadic import dyadic, precision, to_float
from approx.fit.error import honest_error, measured_error, target_values
from approx.fit.grid import sample
from approx.fit.holding import poles_inside
from approx.fit.result import Fit, Verdict
from approx.floating_point import BITS, known_dtype
from approx.forms import horner
from approx.rational import Rational
from approx.target import Target
from approx.zeros import divided, divided_rational, zeros_of

# exponent of the smallest number, largest number
_FORMATS = {
    "float64": (-1074, np.finfo(np.float64).max),
    "float32": (-149, float(np.finfo(np.float32).max)),
    "float16": (-24, 65504.0),
    "bfloat16": (-133, 3.3895313892515355e38),
}
_MOST = 64  # coefficients that a lattice may have
_SIZES = 5  # how often the sizes of the coefficients may grow, and their last places with them
_LOOK = 48  # largest errors that a move is judged by at first
_ROUNDS = 6  # lattices, each with weights that follow the errors of the last


@dataclass(frozen=True)
class _Format:
    bits: int
    lowest: int
    largest: float

    @classmethod
    def of(cls, coefficients: str | int) -> _Format:
        if isinstance(coefficients, int) and not isinstance(coefficients, bool):
            if not 2 <= coefficients <= 53:
                raise ValueError(
                    f"coefficients={coefficients}: expected 2 to 53 bits, or the name of a format"
                )
            return cls(coefficients, -1074, np.finfo(np.float64).max)
        name = known_dtype(coefficients, "coefficients")
        return cls(BITS[name], *_FORMATS[name])

    def unit(self, value: float) -> int:
        """The exponent of the last place of a number of this size."""
        return max(frexp(value)[1] - self.bits, self.lowest)

    def reaches(self, value: fmpq) -> bool:
        """Whether a number of this size does not overflow."""
        return abs(value) <= dyadic(self.largest)

    def holds(self, value: fmpq) -> bool:
        return self.reaches(value) and value == self.rounded(value)

    def rounded(self, value: fmpq) -> fmpq:
        if value == 0:
            return value
        unit = fmpq(2) ** self.unit(to_float(value))
        k = value / unit
        whole = (k + fmpq(1, 2)).floor()
        if k + fmpq(1, 2) == whole and int(whole) % 2:
            whole -= 1  # a tie goes to the even one
        return whole * unit


@dataclass(frozen=True)
class _Linear:
    """The weighted error on points as a linear function of the coefficients, k_i 2^(e_i) off the real ones."""

    error: np.ndarray
    """Of the real coefficients, shape (points,)."""
    columns: np.ndarray
    """What one unit of each does to it, shape (points, coefficients)."""

    def at(self, k: np.ndarray) -> np.ndarray:
        return self.error + self.columns @ k


def check_format(coefficients: str | int) -> None:
    """Refuse what names no format.

    Args:
        coefficients: the argument that a user gave.

    Raises:
        ValueError: for another name, or a number of bits outside 2 to 53.
    """
    _Format.of(coefficients)


def in_format(fit: Fit, coefficients: str | int, fixed: Mapping[tuple[str, int], fmpq] | None = None) -> Fit:
    """The fit with the best monomial coefficients of a format that are found.

    The variable is x; or where the hull of the domain does not hold 0 and that is better, x - c, c being the number of
    the format nearest to the middle. The denominator's constant term is 1.

    Args:
        fit: a fit with real coefficients.
        coefficients: "float64", "float32", "bfloat16" or "float16", or a number of bits.
        fixed: coefficients that stay what they are, as {("p", 1): 1}; the variable is x then.

    Returns:
        The new fit. Its error is that of the exact function with these coefficients. It is at most the error of the
        coefficients rounded one by one, of x or of x - c.

    Raises:
        ValueError: for another format, more coefficients than a lattice can hold, real ones that overflow, or where
            every rounding that was tried has a pole or lacks a zero.
    """
    kind = _Format.of(coefficients)
    target = fit.target
    low, high = target.hull
    fixed = fixed or {}
    if fixed.get(("q", 0), 1) != 1 or (any(fixed.values()) and ("q", 0) not in fixed):
        raise ValueError(
            "coefficients= with fixed= needs q0 = 1 among the fixed ones: that is the scale here"
        )
    found: list[Fit] = []
    refused: list[ValueError] = []
    for centre in (
        [fmpq(0)] if low <= 0 <= high or fixed else [kind.rounded((dyadic(low) + dyadic(high)) / 2), fmpq(0)]
    ):
        try:
            found.append(_about(fit, coefficients, kind, fixed, centre))
        except ValueError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return min(found, key=lambda one: one.error)


def _about(
    fit: Fit, coefficients: str | int, kind: _Format, fixed: Mapping[tuple[str, int], fmpq], centre: fmpq
) -> Fit:
    """`in_format` in powers of x - centre."""
    target = fit.target
    low, high = target.hull
    if not kind.reaches(centre):
        raise ValueError(f"coefficients={coefficients!r}: the middle of the domain overflows in this format")
    num, den = (p(fmpq_poly([centre, 1])) for p in fit.rational.exact())
    if den[0] == 0:
        raise ValueError(
            "coefficients=: the denominator vanishes at the origin of its powers; use another domain"
        )
    num, den = num / den[0], den / den[0]
    reach = max(abs(dyadic(low) - centre), abs(dyadic(high) - centre))
    least = fmpq(1, 1 << min(kind.bits + 20, 50))
    exact = [*_significant(num, reach, least), *_significant(den, reach, least)[1:]]
    names = [
        *(("p", i) for i in range(max(num.degree(), 0) + 1)),
        *(("q", j) for j in range(1, den.degree() + 1)),
    ]
    exact = [fixed.get(name, c) for name, c in zip(names, exact, strict=True)]
    places = [i for i, c in enumerate(exact) if c != 0 and names[i] not in fixed]
    if len(places) > _MOST:
        raise ValueError(
            f"coefficients=: {len(places)} coefficients; a lattice of {_MOST} at most is reduced here"
        )
    split = max(num.degree(), 0) + 1

    def made(values: list[fmpq]) -> Rational:
        return Rational.from_monomial(
            values[:split] or [0], [fmpq(1), *values[split:]], target.domain, centre
        )

    zeros = zeros_of(target) if target.weight == "relative" else ()
    plain_target = divided(target, zeros) if zeros else target

    def judged(values: list[fmpq]) -> tuple[float, Rational]:
        rational = made(values)
        part = divided_rational(rational, zeros) if zeros else rational
        # the zero function vanishes everywhere: it is none to take for one that is met
        if part is None or (zeros and not part.exact()[0] and fit.error < 1):
            lacking.add("zero")
            return np.inf, rational
        if rational.form.exact()[1].degree() > 0 and poles_inside(rational):
            lacking.add("pole")
            return np.inf, rational
        known = measured_error(part, plain_target, fit.reference)
        return honest_error(part, plain_target, known, fit.reference), rational

    lacking: set[str] = set()
    plain = [c if name in fixed else kind.rounded(c) for name, c in zip(names, exact, strict=True)]
    found = [judged(plain)] if all(kind.reaches(plain[i]) for i in places) else []
    one_by_one = found[0][0] if found else np.inf
    sizes, tried = list(exact), {tuple(plain)}
    for _ in range(_SIZES if places else 0):
        units = [kind.unit(to_float(sizes[i])) for i in places]
        base = list(plain)
        for i, e in zip(places, units, strict=True):
            base[i] = (exact[i] / fmpq(2) ** e + fmpq(1, 2)).floor() * fmpq(2) ** e
        start = np.array(
            [float(arb((base[i] - exact[i]) / fmpq(2) ** e)) for i, e in zip(places, units, strict=True)]
        )
        fine = _linear(target, exact, split, centre, places, units, sample(target, 1200, fit.reference))
        coarse = _linear(
            target, exact, split, centre, places, units, _few(target, len(places), fit.reference)
        )
        larger = list(sizes)
        for k in _searched(coarse, fine, start):
            values = list(base)
            for i, e, step in zip(places, units, np.round(k - start), strict=True):
                values[i] = base[i] + int(step) * fmpq(2) ** e
            if all(kind.holds(values[i]) for i in places):
                if tuple(values) not in tried:
                    tried.add(tuple(values))
                    found.append(judged(values))
            elif all(kind.reaches(values[i]) for i in places):
                # a coefficient has grown out of its last place: again with the places of these
                larger = [max(size, value, key=abs) for size, value in zip(larger, values, strict=True)]
        if larger == sizes:
            break
        sizes = larger
    error, rational = min(found, key=lambda f: f[0], default=(np.inf, fit.rational))
    if not np.isfinite(error):
        top = max((abs(exact[i]) for i in places), default=fmpq(0))
        where = ", ".join(f"{zero.place:g}" for zero in zeros)
        if not found:
            reason = f"a coefficient, {to_float(top):.3g}, overflows in this format; use another one"
        elif "pole" in lacking:
            reason = (
                "every rounding that was tried has a pole in the domain; use a finer format or type (m, 0)"
            )
        else:
            reason = (
                f"no function that was tried vanishes with the target at {where}, as a relative error needs; use the "
                "absolute error, or a domain= that ends before"
            )
        raise ValueError(f"coefficients={coefficients!r}: {reason}")
    gain = f"; rounding one by one gives {one_by_one:.6g}" if error < one_by_one else ""
    shift = to_float(centre)
    powers = f" of x {'-' if shift > 0 else '+'} {abs(shift)!r}" if shift else ""
    detail = f"coefficients={coefficients!r}{powers}, real ones reach {fit.error:.6g}{gain}"
    verdict = Verdict.IN_FORMAT if fit.converged else fit.verdict
    return replace(fit, rational=rational, error=max(error, fit.levelled), verdict=verdict, detail=detail)


def _significant(poly: fmpq_poly, reach: fmpq, least: fmpq) -> list[fmpq]:
    """The coefficients; those that are rounding beside the others, as an odd function's even ones, are 0."""
    coefficients = poly.coeffs() or [fmpq(0)]
    sizes = [abs(c) * reach**i for i, c in enumerate(coefficients)]
    return [c if s > least * max(sizes) else fmpq(0) for c, s in zip(coefficients, sizes, strict=True)]


def _few(target: Target, count: int, reference: np.ndarray) -> np.ndarray:
    """The reference and Chebyshev points: enough of them for a lattice."""
    shares = (1 - np.cos(np.pi * (np.arange(3 * count + 8) + 0.5) / (3 * count + 8))) / 2
    return np.unique(np.r_[reference, *(a + (b - a) * shares for a, b in target.domain)])


def _linear(
    target: Target,
    exact: list[fmpq],
    split: int,
    centre: fmpq,
    places: list[int],
    units: list[int],
    x: np.ndarray,
) -> _Linear:
    f = target_values(target)
    num, den = exact[:split], [fmpq(1), *exact[split:]]
    rows: list[list[float]] = []
    errors: list[float] = []
    with np.errstate(all="ignore"):
        weights = np.broadcast_to(np.asarray(target.weight_at(x), dtype=float), x.shape)
    # at a zero that r shares with the target a relative weight is infinite, and the error 0
    x, weights = x[np.isfinite(weights)], weights[np.isfinite(weights)]
    with precision(192):
        points = [arb(float(v)) for v in x]
        for point, value, weight in zip(points, f(points), weights, strict=True):
            t = point - centre
            q = horner(den, t)
            scale = arb(float(weight)) / q
            errors.append(float(scale * (value * q - horner(num, t))))
            row: list[float] = []
            for i, e in zip(places, units, strict=True):
                power = -(t**i) if i < split else value * t ** (i - split + 1)
                row.append(float(scale * power * arb(2) ** e))
            rows.append(row)
    return _Linear(np.array(errors), np.array(rows))


def _searched(coarse: _Linear, fine: _Linear, start: np.ndarray) -> list[np.ndarray]:
    """Vectors near the real solution whose largest error is small; each differs from `start` by whole ones."""
    weights = np.ones(len(coarse.error))
    found: list[np.ndarray] = []
    moves = [*np.eye(len(start)), *-np.eye(len(start))]
    k = _descent(fine, start, np.array(moves))
    found.append(k)
    for _ in range(_ROUNDS):
        basis = _reduced(weights[:, None] * coarse.columns)
        if basis is None:
            break
        k = _nearest(weights[:, None] * coarse.columns, weights * coarse.error, basis, start)
        signed = np.vstack([basis, -basis, np.eye(len(start)), -np.eye(len(start))])
        near = signed[: 2 * min(len(start), 16)]
        pairs = np.array([a + b for i, a in enumerate(near) for b in near[:i] if np.any(a + b)])
        k = _descent(fine, k, np.vstack([signed, pairs]) if len(pairs) else signed)
        found.append(k)
        error = np.abs(coarse.at(k))
        weights = weights * np.sqrt(np.maximum(error / max(float(error.max()), 1e-300), 1e-3))
        weights /= weights.max()
    found.sort(key=lambda k: float(np.max(np.abs(fine.at(k)))))
    return found[:3]


def _reduced(columns: np.ndarray) -> np.ndarray | None:
    """An LLL-reduced basis of all whole k, in the norm of columns @ k; its vectors are rows."""
    size = np.max(np.abs(columns), axis=0)
    if not np.all(np.isfinite(columns)) or not np.all(size > 0):
        return None
    columns = columns / float(size.max())  # a weight may have any unit
    size = size / float(size.max())
    # 40 bits below the smallest column, so that rounding to whole numbers changes no decision
    scale = 2.0**40 / float(size.min())
    count = columns.shape[1]
    rows = [[_whole(v * scale) for v in columns[:, i]] for i in range(count)]
    reduced: Any = fmpz_mat(rows).lll(transform=True)  # pyright: ignore[reportCallIssue]
    transform = reduced[1]
    return np.array([[float(int(transform[i, j])) for j in range(count)] for i in range(count)])


def _whole(value: float) -> int:
    return int(value) if abs(value) >= 2.0**53 else round(value)


def _nearest(columns: np.ndarray, error: np.ndarray, basis: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Babai's nearest plane: start + whole combination of the basis, with error + columns @ k small."""
    vectors = columns @ basis.T
    q, r = np.linalg.qr(vectors)
    rest = q.T @ -(error + columns @ start)
    whole = np.zeros(len(start))
    for i in range(len(start) - 1, -1, -1):
        if r[i, i] == 0:
            continue
        whole[i] = np.round((rest[i] - r[i, i + 1 :] @ whole[i + 1 :]) / r[i, i])
    return start + whole @ basis


def _descent(linear: _Linear, k: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The steepest descent of the largest error by single moves."""
    steps = np.ascontiguousarray((linear.columns @ moves.T).T)
    error = linear.at(k)
    top = float(np.max(np.abs(error)))
    for _ in range(1000):
        # what a move leaves of the largest errors bounds what it leaves of all: most moves need no second look
        largest = np.argpartition(np.abs(error), -_LOOK)[-_LOOK:] if len(error) > _LOOK else slice(None)
        bounds = np.max(np.abs(error[largest] + steps[:, largest]), axis=1)
        best, least = -1, top * (1 - 1e-12)
        for move in np.argsort(bounds, kind="stable").tolist():
            if not bounds[move] < least:
                break
            if (left := float(np.max(np.abs(error + steps[move])))) < least:
                best, least = move, left
        if best < 0:
            break
        k, error, top = k + moves[best], error + steps[best], least
    return k
