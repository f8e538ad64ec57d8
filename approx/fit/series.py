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


class Series:
    """sum_i c_i T_i on float64 points of [-1, 1], shape (size,)."""

    def __init__(self, coefficients: np.ndarray) -> None:
        """Transform it.

        Args:
            coefficients: c, shape (m + 1,).
        """
        self._c, m = coefficients, len(coefficients) - 1
        if m < _SHORT:
            return
        self._steps: int = next_fast_len(4 * m, real=True)  # pyright: ignore
        order = np.arange(_TERMS)[:, None]
        # derivatives by m a: of cos(i a) cos, -sin, -cos, sin times (i/m)^k; over k! for Taylor's series
        signs = np.array([1.0, -1.0, -1.0, 1.0])[order % 4]
        factorials = np.cumprod(np.maximum(order, 1), axis=0)
        terms = np.zeros((_TERMS, self._steps + 1))
        terms[:, : m + 1] = signs / factorials * (np.arange(m + 1) / m) ** order * coefficients / 2
        terms[0, 0] *= 2
        self._taylor = np.zeros((self._steps + 1, _TERMS))
        self._taylor[:, ::2] = np.asarray(dct(terms[::2], type=1)).T  # pyright: ignore
        self._taylor[1:-1, 1::2] = np.asarray(dst(terms[1::2, 1:-1], type=1)).T  # pyright: ignore

    def __call__(self, t: np.ndarray, below: np.ndarray | float = 0.0) -> np.ndarray:
        """The values.

        Args:
            t: points of [-1, 1], or beyond by rounding, shape (size,).
            below: what the rounding of t left out, shape (size,).
        """
        if len(self._c) <= _SHORT:
            return chebyshev.chebval(t, self._c)
        t = np.clip(t, -1, 1)
        sign = np.where(t < 0, -1.0, 1.0)
        # from the nearer end
        angle = 2 * np.arcsin(np.sqrt(np.maximum((1 - sign * t) - sign * below, 0) / 2))
        nearest = np.rint(angle * (self._steps / np.pi)).astype(int)
        rest = sign * (angle - nearest * (np.pi / self._steps))
        nearest = np.where(t < 0, self._steps - nearest, nearest)
        cosine, lower, sine = (column[nearest] for column in _circle(self._steps))
        # from there to t: by an angle that is good to its own rounding, not to that of arccos(t)
        turn = np.sin(rest)
        off = (t - cosine) + (below - lower) + cosine * 2 * np.sin(rest / 2) ** 2 + sine * turn
        bend = turn * cosine + np.cos(rest) * sine
        rest = (rest - off / np.maximum(bend, 1e-8)) * (len(self._c) - 1)
        rows = self._taylor[nearest]
        value = rows[:, -1]
        for column in rows.T[-2::-1]:
            value = value * rest + column
        return value
