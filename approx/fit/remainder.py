"""What remains of a function after most of it has been taken off as a polynomial: float64 sees that well again.

The best polynomial of degree m is any polynomial of degree m, plus the best one for what remains. Two ways to take one
off: of an analytic function on one interval the first m + 1 Chebyshev coefficients, computed in arbitrary precision,
so that what remains is the series beyond; of any other a polynomial that float64 found, to some 30 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flint import arb, fmpq
from scipy.fft import dct

from approx.dyadic import dyadic, precision
from approx.fit.double_double import chebyshev_residual, in_unit
from approx.fit.series import Series
from approx.forms import EXACT, Chebyshev
from approx.target import Target

_MOST_TERMS = 1 << 13
_MOST_BITS = 1 << 15
_LIMIT = 1e-6  # of the function, the error below which float64 does not tell when it is levelled
_CLEAR = 64  # bits between what remains and the rounding of the coefficients, and the terms that are left out


@dataclass(frozen=True)
class Remainder:
    """f minus a polynomial, in units of 2^exponent."""

    coefficients: list[fmpq]
    """Chebyshev coefficients of the polynomial over the hull, exact, as many as were asked for."""
    values: Callable[[np.ndarray], np.ndarray]
    """f minus it, in these units, of float64 points."""
    exponent: int
    """Of the unit."""
    lost: float
    """How far the values may be off, in these units."""

    def added(self, coefficients: np.ndarray) -> list[fmpq]:
        """The whole polynomial, rounded where it no longer counts.

        Args:
            coefficients: of a polynomial for what remains, in these units, shape (m + 1,).

        Returns:
            The sum; each coefficient is off by half of 2^exponent/(2^38 (m + 1)) at most.
        """
        unit = fmpq(2) ** (self.exponent - 38 - len(coefficients).bit_length())
        both = zip(self.coefficients, coefficients, strict=True)
        return [
            ((a + dyadic(float(b)) * fmpq(2) ** self.exponent) / unit + fmpq(1, 2)).floor() * unit
            for a, b in both
        ]


def smooth(target: Target, m: int) -> bool:
    """Whether the Chebyshev coefficients of a function have fallen so far at a degree that float64 is the limit.

    Args:
        target: f.
        m: the degree.
    """
    if len(target.domain) > 1 or target.breaks:
        return False
    low, high = target.hull
    count = 2 * m + 2
    x = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * np.arange(count + 1) / count)
    with np.errstate(all="ignore"):
        a = np.abs(np.asarray(dct(np.clip(target(x), -1e300, 1e300), type=1)))  # pyright: ignore
    return bool(np.max(a[m + 1 :]) < _LIMIT * np.max(a))


def after_float64(target: Target, coefficients: np.ndarray, size: float) -> Remainder:
    """What a polynomial that float64 found leaves over, to some 1e-30 of f.

    Args:
        target: f, enclosed.
        coefficients: Chebyshev coefficients over the hull, shape (m + 1,).
        size: about how much is left, positive.
    """
    exponent, residual = int(np.floor(np.log2(size))), chebyshev_residual(target, coefficients)
    lost = 1e-31 * len(coefficients) ** 2 * float(np.sum(np.abs(coefficients)))

    def values(x: np.ndarray) -> np.ndarray:
        return np.ldexp(residual(x), -exponent)

    exact = [dyadic(c) for c in coefficients]
    return Remainder(exact, values, exponent, float(np.ldexp(lost, -exponent)))


def after_series(target: Target, m: int) -> Remainder | None:
    """What is left of an analytic function beyond its first m + 1 Chebyshev coefficients.

    Args:
        target: f, enclosed.
        m: the degree.

    Returns:
        The remainder, or None for a function that is not analytic on one interval, or hardly so.
    """
    if len(target.domain) > 1 or target.breaks:
        return None
    terms, bits = _sized(m + 32), 128
    while terms <= _MOST_TERMS and bits <= _MOST_BITS:
        a = _coefficients(target, terms, bits)
        if a is None:
            bits *= 2
            continue
        sizes = [abs(c) for c in a]
        beyond, last = max(sizes[m + 1 :]), max(sizes[-(terms - m) // 4 :])
        if beyond <= max(sizes) * arb(2) ** (_CLEAR + 16 - bits):
            bits = _enough(sizes, m, bits)
        elif last > beyond * arb(2) ** -_CLEAR:
            # the terms fall by a factor each, or there are too many
            fall = max(float((beyond / last).log()) / (terms - m), float((max(sizes) / last).log()) / terms)
            if not fall * (_MOST_TERMS - m) > _CLEAR * np.log(2):
                return None
            terms = max(_sized(terms + 1), _sized(int(m + 1.5 * _CLEAR * np.log(2) / fall)))
        elif not _sums_up(target, a, bits, beyond * arb(2) ** (16 - _CLEAR)):
            # a series with gaps, and more behind one
            terms = _sized(2 * terms)
        else:
            exponent = int(np.floor(float(beyond.log()) / np.log(2)))
            unit = arb(2) ** exponent
            series = np.array([0.0] * (m + 1) + [float(c / unit) for c in a[m + 1 :]])
            while len(series) > m + 2 and abs(series[-1]) < 1e-20:
                series = series[:-1]
            # the series that is left out, and the rounding of this one
            lost = 1e-19 * terms + 1e-16 * len(series) * float(np.sum(np.abs(series)))
            values = _sum(series, target.hull)
            return Remainder([c.fmpq() for c in a[: m + 1]], values, exponent, lost)
    return None


def _sum(series: np.ndarray, hull: tuple[float, float]) -> Callable[[np.ndarray], np.ndarray]:
    values = Series(series)
    return lambda x: values(*in_unit(x, hull))


def _sized(least: int) -> int:
    """A number that is hardly larger and can be halved often."""
    unit = 1 << max(least.bit_length() - 4, 0)
    return -(-least // unit) * unit


def _enough(sizes: list[arb], m: int, bits: int) -> int:
    """How many bits show the coefficient m + 1, by how they fall as far as `bits` shows it."""
    logs = np.array([float(s.log()) if s > 0 else -np.inf for s in sizes]) / np.log(2)
    envelope = np.maximum.accumulate(logs[::-1])[::-1]
    seen = int(np.sum(envelope > envelope[0] + _CLEAR - bits))
    depth = envelope[0] - envelope[[seen // 2, seen - 1]]
    # k (a + b log k) bits at k: poles beside the domain, or an entire function
    slope = depth / np.maximum([seen // 2, seen - 1], 1)
    needed = (m + 2) * (slope[1] + max(slope[1] - slope[0], 0.0) * np.log2((m + 2) / max(seen, 1)))
    return int(min(max(1.5 * bits, 1.05 * needed + 3 * _CLEAR), 16 * bits))


def _coefficients(target: Target, terms: int, bits: int) -> list[arb] | None:
    """The Chebyshev coefficients of the interpolant on terms + 1 points; None where f needs more bits."""
    low, high = (arb(end) for end in target.hull)
    # sums and recurrences of exact numbers lose these at most
    with precision(bits + 24 + terms.bit_length() * (terms.bit_length() + 1) // 2):
        cosines = _cosines(terms)
        centre, half = (low + high) / 2, (high - low) / 2
        f = [target(x) for x in (high, *((centre + half * c).mid() for c in cosines[1:-1]), low)]
        size = max((abs(v).mid() for v in f), default=arb(0))
        if not all(v.is_finite() and v.rad() <= size * arb(2) ** (32 - bits) for v in f):
            return None
        a = [(2 * v / terms).mid() for v in _transform([v.mid() for v in f], cosines)]
        a[0], a[-1] = a[0] / 2, a[-1] / 2
        return a


def _sums_up(target: Target, a: list[arb], bits: int, limit: arb) -> bool:
    """Whether f is the sum of its series but for a limit, where it was not interpolated."""
    whole = Chebyshev(tuple(c.fmpq() for c in a), (fmpq(1),))
    low, high = (arb(end) for end in target.hull)
    with precision(bits + 32):
        for t in np.cos(np.pi * (np.pi * np.arange(1, 11) % 1)).tolist():
            x = (low + high) / 2 + (high - low) / 2 * arb(t)
            if not abs(target(x) - whole.evaluate(arb(t), EXACT)) < limit:
                return False
    return True


def _cosines(count: int) -> list[arb]:
    """cos(pi k/count) for k = 0..count, exact arbs near them."""
    first = (arb(1) / count).cos_pi().mid()
    values = [arb(1), first]
    while len(values) <= count // 2:
        values.append((2 * first * values[-1] - values[-2]).mid())
    if count % 2 == 0:
        values[count // 2] = arb(0)
    values = values[: count // 2 + 1]
    return values + [-v for v in reversed(values[: (count + 1) // 2])]


def _transform(v: list[arb], cosines: list[arb]) -> list[arb]:
    """sum_j v_j cos(pi j k/n) for k = 0..n with halves of the first and the last term, n = len(v) - 1.

    Args:
        v: exact arbs, shape (n + 1,).
        cosines: cos(pi k/n), k = 0..n, or of a multiple of n.

    Source:
        By halves, in real numbers: B. G. Lee, IEEE Trans. ASSP 32 (1984), transposed.
    """
    n = len(v) - 1
    step = (len(cosines) - 1) // n
    if n % 2:
        v = [v[0] / 2, *v[1:-1], v[-1] / 2]
        turn = [cosines[step * min(k, 2 * n - k)] for k in range(2 * n)]
        return [sum((x * turn[j * k % (2 * n)] for j, x in enumerate(v)), arb(0)).mid() for k in range(n + 1)]
    pairs = list(zip(v[: n // 2 + 1], v[: n // 2 - 1 : -1], strict=True))
    even = _transform([(x + y).mid() for x, y in pairs], cosines)
    # 2 cos(a) cos((2 k + 1) a) = cos(2 k a) + cos((2 k + 2) a): sums of neighbouring odd terms
    both = _transform([(2 * (x - y) * cosines[step * j]).mid() for j, (x, y) in enumerate(pairs)], cosines)
    found, odd = [even[0]], (both[0] / 2).mid()
    for k in range(n // 2):
        if k:
            odd = (both[k] - odd).mid()
        found += [odd, even[k + 1]]
    return found
