"""A Chebyshev series at many points in float64: cosine transforms, and Taylor's series between their points.

sum_i c_i T_i(cos a) = sum_i c_i cos(i a) is known on M + 1 equal steps of a, with its derivatives, by one transform
each. With M >= 4 m no a is further than pi/(8 m) from a step, and by Bernstein's inequality the k-th term of Taylor's
series is at most (pi/8)^k/k! of the largest value.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from flint import arb
from numpy.polynomial import chebyshev
from scipy.fft import dct, dst, next_fast_len

from approx.dyadic import precision

_TERMS = 14  # (pi/8)^14/14! is below 1e-16
_SHORT = 64  # coefficients, below which Clenshaw's recurrence is as fast


@lru_cache(maxsize=4)
def _circle(steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """cos(pi k/steps) in two parts, and the sine, k = 0..steps."""
    with precision(128):
        exact = [(arb(k) / steps).cos_pi() for k in range(steps + 1)]
        cosine = np.array([float(c) for c in exact])
        below = np.array([float(e - c) for e, c in zip(exact, cosine.tolist(), strict=True)])
    return (
        cosine,
        below,
        np.sin(np.pi / steps * np.minimum(np.arange(steps + 1), steps - np.arange(steps + 1))),
    )


def _steps(degree: int) -> int:
    return next_fast_len(4 * max(degree, 1), real=True)  # pyright: ignore


def _factors(count: int, scale: int) -> np.ndarray:
    """What the k-th derivative of cos(i a) by scale a, over k!, has before its cosine or sine, (_TERMS, count)."""
    order = np.arange(_TERMS)[:, None]
    signs = np.array([1.0, -1.0, -1.0, 1.0])[order % 4]
    return signs / np.cumprod(np.maximum(order, 1), axis=0) * (np.arange(count) / scale) ** order


def _table(coefficients: np.ndarray, steps: int, scale: int) -> np.ndarray:
    """Taylor's coefficients of a series, in scale a, at each step of a, shape (steps + 1, _TERMS)."""
    count = len(coefficients)
    terms = np.zeros((_TERMS, steps + 1))
    terms[:, :count] = _factors(count, scale) * coefficients / 2
    terms[0, 0] *= 2
    table = np.zeros((steps + 1, _TERMS))
    table[:, ::2] = np.asarray(dct(terms[::2], type=1)).T  # pyright: ignore
    table[1:-1, 1::2] = np.asarray(dst(terms[1::2, 1:-1], type=1)).T  # pyright: ignore
    return table


def _placed(t: np.ndarray, below: np.ndarray | float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The step nearest to arccos(t), and how far beyond it that is."""
    t = np.clip(t, -1, 1)
    sign = np.where(t < 0, -1.0, 1.0)
    # from the nearer end
    angle = 2 * np.arcsin(np.sqrt(np.maximum((1 - sign * t) - sign * below, 0) / 2))
    nearest = np.rint(angle * (steps / np.pi)).astype(int)
    rest = sign * (angle - nearest * (np.pi / steps))
    nearest = np.where(t < 0, steps - nearest, nearest)
    cosine, lower, sine = (column[nearest] for column in _circle(steps))
    # from there to t: by an angle that is good to its own rounding, not to that of arccos(t)
    turn = np.sin(rest)
    off = (t - cosine) + (below - lower) + cosine * 2 * np.sin(rest / 2) ** 2 + sine * turn
    bend = turn * cosine + np.cos(rest) * sine
    return nearest, rest - off / np.maximum(bend, 1e-8)


def _summed(table: np.ndarray, nearest: np.ndarray, rest: np.ndarray) -> np.ndarray:
    rows = table[nearest]
    value = rows[:, -1]
    for column in rows.T[-2::-1]:
        value = value * rest + column
    return value


class Series:
    """sum_i c_i T_i on float64 points of [-1, 1], shape (size,)."""

    def __init__(self, coefficients: np.ndarray) -> None:
        """Transform it.

        Args:
            coefficients: c, shape (m + 1,).
        """
        self._c, m = coefficients, len(coefficients) - 1
        if m >= _SHORT:
            self._steps = _steps(m)
            self._taylor = _table(coefficients, self._steps, m)

    def __call__(self, t: np.ndarray, below: np.ndarray | float = 0.0) -> np.ndarray:
        """The values.

        Args:
            t: points of [-1, 1], or beyond by rounding, shape (size,).
            below: what the rounding of t left out, shape (size,).
        """
        if len(self._c) <= _SHORT:
            return chebyshev.chebval(t, self._c)
        nearest, rest = _placed(t, below, self._steps)
        return _summed(self._taylor, nearest, rest * (len(self._c) - 1))


class Nodes:
    """Points of [-1, 1] on which many series are summed, or the T_i summed over the points."""

    def __init__(self, t: np.ndarray, below: np.ndarray | float, degree: int) -> None:
        """Place them.

        Args:
            t: the points, shape (size,).
            below: what the rounding of t left out, shape (size,).
            degree: the highest of the series.
        """
        self._scale, self._steps = max(degree, 1), _steps(degree)
        self._nearest, rest = _placed(t, below, self._steps)
        self._rest = rest * self._scale
        self._order = np.argsort(self._nearest, kind="stable")
        self._met, self._starts = np.unique(self._nearest[self._order], return_index=True)
        self._powers = self._rest[self._order] ** np.arange(_TERMS)[:, None]

    def values(self, coefficients: np.ndarray) -> np.ndarray:
        """sum_i c_i T_i at each point, shape (size,).

        Args:
            coefficients: c, shape (m + 1,).
        """
        return _summed(_table(coefficients, self._steps, self._scale), self._nearest, self._rest)

    def sums(self, weights: np.ndarray, count: int) -> np.ndarray:
        """sum_k d_k T_i(t_k) for i below count, shape (count,): the transpose of `values`.

        Args:
            weights: d, shape (size,).
            count: how many.
        """
        near = np.zeros((_TERMS, self._steps + 1))
        near[:, self._met] = np.add.reduceat(weights[self._order] * self._powers, self._starts, axis=1)
        near[:, 1:-1] /= 2
        sums = np.zeros_like(near)
        sums[::2] = dct(near[::2], type=1)  # pyright: ignore
        sums[1::2, 1:-1] = dst(near[1::2, 1:-1], type=1)  # pyright: ignore
        return np.sum(_factors(count, self._scale) * sums[:, :count], axis=0)
