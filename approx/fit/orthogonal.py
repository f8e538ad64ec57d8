"""Polynomials that are orthonormal on several intervals.

Between the intervals a polynomial may be as large as it likes, so that Chebyshev's of the hull, which are small there,
need coefficients that float64 does not hold: e^(degree times Green's function of the gap) times the values. In the
basis that Stieltjes' procedure makes on points of the equilibrium measure, coefficients are as large as the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_poly, fmpq, fmpq_poly
from scipy.linalg import solve_triangular

from approx.conversions import chebyshev_series
from approx.dyadic import precision
from approx.fit.equilibrium import equilibrium

_LONG = np.longdouble
_CELLS = 1 << 17  # entries of the largest matrix held at once
_POINTS = 6  # a degree: the discrete measure is the equilibrium's to the last digit then


@dataclass(frozen=True)
class Orthonormal:
    """q_0, ..., q_m with beta_(k+1) q_(k+1) = (t - alpha_k) q_k - beta_k q_(k-1), t = (x - centre)/half over the hull.

    Source:
        W. Gautschi, Orthogonal Polynomials (2004), section 2.2.3: the Stieltjes procedure.
    """

    hull: tuple[float, float]
    #: half of the shortest interval, in t
    shortest: float
    alpha: np.ndarray
    beta: np.ndarray

    @classmethod
    def on(cls, domain: Sequence[tuple[float, float]], m: int) -> Orthonormal:
        """The basis of some intervals.

        Args:
            domain: the intervals, ascending.
            m: the degree.
        """
        low, high = domain[0][0], domain[-1][1]
        shortest = min(b - a for a, b in domain) / (high - low)
        made = cls((low, high), shortest, np.zeros(m), np.zeros(m + 1))
        t = made._t(equilibrium(domain, _POINTS * (m + 1)))
        before, q = np.zeros(len(t)), np.ones(len(t))
        for k in range(m):
            made.alpha[k] = np.mean(t * q * q)
            following = (t - made.alpha[k]) * q - made.beta[k] * before
            made.beta[k + 1] = np.sqrt(np.mean(following * following))
            before, q = q, following / made.beta[k + 1]
        return made

    def rows(self, x: np.ndarray) -> np.ndarray:
        """q_0, ..., q_m at points of the intervals, shape (size, m + 1), as sharp as the machine's longest floats.

        Args:
            x: the points, shape (size,).
        """
        t, q_m = self._t(x.astype(_LONG)), np.ones((len(self.beta), len(x)), _LONG)
        for k, (alpha, beta) in enumerate(zip(self.alpha, self.beta, strict=False)):
            following = (t - alpha) * q_m[k]
            if k:
                following -= beta * q_m[k - 1]
            np.divide(following, self.beta[k + 1], out=q_m[k + 1])
        return q_m.T

    @property
    def rounding(self) -> float:
        """How far `rows` may be off: by Markov's inequality for that of t, and as much for the recurrence's own."""
        return 4 * float(np.finfo(_LONG).eps) * len(self.beta) ** 2 * (1 + 1 / self.shortest)

    def values(self, c: np.ndarray, x: np.ndarray) -> np.ndarray:
        """sum_k c_k q_k at points of the intervals, float64, shape (size,).

        Args:
            c: coefficients, shape (m + 1,).
            x: the points.
        """
        step = max(1, _CELLS // len(c))
        parts = [self.rows(x[i : i + step]) @ c for i in range(0, len(x), step)]
        return np.concatenate([np.zeros(0), *parts]).astype(float)

    def through(self, x: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Coefficients of the polynomial with given values at points of the intervals, shape (m + 1,).

        Args:
            x: the points, m + 1 of them, or more where the values are those of such a polynomial.
            values: the values, shape (size,).
        """
        rows = self.rows(x)
        q, r = np.linalg.qr(rows.astype(float))
        c = np.zeros(rows.shape[1])
        for _ in range(3):  # what rounding left of the values
            c = c + solve_triangular(r, q.T @ (values - rows @ c).astype(float))
        return c

    def series(self, c: np.ndarray, unit: fmpq) -> list[fmpq]:
        """The Chebyshev coefficients over the hull of sum_k c_k q_k, each within a unit and a multiple of it.

        Args:
            c: coefficients, shape (m + 1,).
            unit: what may be rounded.
        """
        m = len(c) - 1
        bits = 128 + 2 * m  # powers of t are 1.3 m bits larger than what they sum to
        while True:
            with precision(bits):
                following, after = arb_poly(), arb_poly()
                for k in range(m, -1, -1):  # Clenshaw
                    now = arb_poly([float(c[k])])
                    if k < m:
                        now += (
                            arb_poly([-float(self.alpha[k]), 1])
                            * following
                            * (1 / arb(float(self.beta[k + 1])))
                        )
                    if k < m - 1:
                        now -= after * (arb(float(self.beta[k + 1])) / arb(float(self.beta[k + 2])))
                    following, after = now, following
                powers = [following[k] for k in range(m + 1)]
                lost = sum((abs(p.rad()) for p in powers), arb(0))
            if lost < arb(unit):
                break
            bits *= 2
        exact = chebyshev_series(fmpq_poly([p.mid().fmpq() for p in powers]))
        exact += [fmpq(0)] * (m + 1 - len(exact))
        return [(a / unit + fmpq(1, 2)).floor() * unit for a in exact]

    def _t(self, x: np.ndarray) -> np.ndarray:
        low, high = self.hull
        return (2 * x - low - high) / (high - low)
