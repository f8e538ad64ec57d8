"""f - p for a polynomial p, with some 30 digits: what remains of a function after float64 has fitted it.

A double-double is a pair of float64 arrays (high, low) whose sum is the number (Dekker, Numer. Math. 18, 1971).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flint import arb

from approx.dyadic import precision
from approx.target import Target

Pair = tuple[np.ndarray, np.ndarray]
_SPLIT = 134217729.0  # 2^27 + 1


def _sum(a: np.ndarray, b: np.ndarray) -> Pair:
    """a + b exactly."""
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


def _add(a: Pair, b: Pair) -> Pair:
    high, low = _sum(a[0], b[0])
    return _sum(high, low + a[1] + b[1])


def _product(a: np.ndarray, b: np.ndarray) -> Pair:
    """a b exactly."""
    high = a * b
    scaled_a, scaled_b = _SPLIT * a, _SPLIT * b
    ah, bh = scaled_a - (scaled_a - a), scaled_b - (scaled_b - b)
    al, bl = a - ah, b - bh
    return high, ((ah * bh - high) + ah * bl + al * bh) + al * bl


def _multiply(a: Pair, b: Pair) -> Pair:
    high, low = _product(a[0], b[0])
    return _sum(high, low + (a[0] * b[1] + a[1] * b[0]))


def in_unit(x: np.ndarray, hull: tuple[float, float]) -> Pair:
    """(2 x - (low + high))/(high - low), the variable of a Chebyshev series.

    Args:
        x: points, shape (size,).
        hull: (low, high).
    """
    low, high = (np.array(end) for end in hull)
    centre, half = _sum(low, high), _sum(high, -low)  # twice the centre, twice the half-width
    above = _add((2 * x, 0 * x), (-centre[0] + 0 * x, -centre[1] + 0 * x))
    guess = above[0] / half[0]  # and one step of refinement
    back = _multiply((guess, 0 * x), (half[0] + 0 * x, half[1] + 0 * x))
    rest = _add(above, (-back[0], -back[1]))
    return _sum(guess, (rest[0] + rest[1]) / half[0])


def chebyshev_residual(target: Target, coefficients: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function f - p on float64 points, accurate to some 1e-30 of f.

    Args:
        target: f, enclosed.
        coefficients: Chebyshev coefficients of p over the hull of the domain, float64, shape (m + 1,).

    Returns:
        A function of float64 arrays, shape (size,).
    """

    def residual(x: np.ndarray) -> np.ndarray:
        t = in_unit(x, target.hull)
        twice = (2 * t[0], 2 * t[1])
        b1, b2 = (0 * x, 0 * x), (0 * x, 0 * x)
        for c in coefficients[:0:-1]:
            b1, b2 = _add(_add(_multiply(twice, b1), (-b2[0], -b2[1])), (c + 0 * x, 0 * x)), b1
        p = _add(_add(_multiply(t, b1), (-b2[0], -b2[1])), (coefficients[0] + 0 * x, 0 * x))
        f = np.empty((2, len(x)))
        with precision(160):
            for k, value in enumerate(target(arb(float(v))).mid() for v in x):
                f[0, k] = first = float(value)
                f[1, k] = float(value - first)
        rest = _add((f[0], f[1]), (-p[0], -p[1]))
        return rest[0] + rest[1]

    return residual
