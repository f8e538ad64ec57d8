"""What remains of a function after most of it has been taken off as a polynomial: float64 sees that well again.

The best polynomial of degree m is any polynomial of degree m, plus the best one for what remains. Two ways to take one
off: of an analytic function on one interval the first m + 1 Chebyshev coefficients, computed in arbitrary precision,
so that what remains is the series beyond; of any other a polynomial that float64 found, to some 30 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flint import acb, arb, fmpq
from numpy.polynomial import chebyshev
from scipy.fft import dct

from approx.dyadic import dyadic, precision
from approx.fit.double_double import chebyshev_residual
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


def after_float64(target: Target, coefficients: np.ndarray) -> Remainder:
    """What a polynomial that float64 found leaves over, to some 1e-30 of f.

    Args:
        target: f, enclosed.
        coefficients: Chebyshev coefficients over the hull, shape (m + 1,).
    """
    lost = 1e-31 * len(coefficients) ** 2 * float(np.sum(np.abs(coefficients)))
    return Remainder([dyadic(c) for c in coefficients], chebyshev_residual(target, coefficients), 0, lost)


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
    terms, bits = 1 << (m + 64).bit_length(), 128
    while terms <= _MOST_TERMS and bits <= _MOST_BITS:
        a = _coefficients(target, terms, bits)
        if a is None:
            bits *= 2
            continue
        sizes = [abs(c) for c in a]
        beyond, last = max(sizes[m + 1 :]), max(sizes[-terms // 8 :])
        if beyond <= max(sizes) * arb(2) ** (_CLEAR + 16 - bits):
            bits *= 2
        elif last > beyond * arb(2) ** -_CLEAR:
            # the terms fall by a factor each, or there are too many
            fall = float((max(sizes[m + 1 : m + 17]) / last).log()) / (terms - m)
            if not fall * (_MOST_TERMS - m) > _CLEAR * np.log(2):
                return None
            terms *= 2
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
    low, high = hull
    centre, half = (low + high) / 2, (high - low) / 2
    return lambda x: chebyshev.chebval((x - centre) / half, series)


def _coefficients(target: Target, terms: int, bits: int) -> list[arb] | None:
    """The Chebyshev coefficients of the interpolant on terms + 1 points; None where f needs more bits."""
    low, high = (arb(end) for end in target.hull)
    with precision(bits):
        roots = [acb(arb(k) / terms).exp_pi_i() for k in range(terms)]  # of 1, of the order 2 terms
        centre, half = (low + high) / 2, (high - low) / 2
        points = [low if z == -1 else (centre + half * z.real).mid() for z in (*roots, acb(-1))]
        points[0] = high
        f = [target(x) for x in points]
        size = max((abs(v).mid() for v in f), default=arb(0))
        if not all(v.is_finite() and v.rad() <= size * arb(2) ** (32 - bits) for v in f):
            return None
        around = _transform([acb(v.mid()) for v in (*f, *f[-2:0:-1])], roots)
        a = [(c.real / terms).mid() for c in around[: terms + 1]]
        a[0], a[-1] = a[0] / 2, a[-1] / 2
        return a


def _transform(values: list[acb], roots: list[acb]) -> list[acb]:
    """sum_j v_j w^(jk) for k < len(v), a power of two, with w^k = roots[k s]; by halves (Cooley and Tukey)."""
    size = len(values)
    if size == 1:
        return values
    even, odd = (_transform(values[k::2], roots) for k in (0, 1))
    step = 2 * len(roots) // size
    turned = [o * roots[k * step] for k, o in enumerate(odd)]
    return [a + b for a, b in zip(even, turned, strict=True)] + [
        a - b for a, b in zip(even, turned, strict=True)
    ]
