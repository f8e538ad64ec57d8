"""The best polynomial on a grid by an interior-point method in float64: where the exchange creeps.

Of a target with many more turns than p has degrees, many polynomials are nearly best. The multipliers of the best
reference then span sixteen decades and more, and points that hardly count decide where the exchange goes. The linear
program min lam, w_i |f_i - p(t_i)| <= lam, has no such trouble: its central path ends inside the set of the nearly
best, after some 30 steps whatever the target.

The equations of a step have the matrix sum_k d_k T_i(t_k) T_j(t_k), which T_i T_j = (T_(i+j) + T_|i-j|)/2 makes a
Toeplitz and a Hankel matrix of 2m + 1 sums: all but its factors costs next to nothing. On several intervals the
polynomials are another basis, and the products are made (`orthogonal.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.polynomial import chebyshev
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.linalg.lapack import dtpqrt  # pyright: ignore

from approx.fit.series import Nodes

_STEPS = 80
_HEAVY = 1e9  # times the usual weight of a row, that of one which products would let drown the others
_LEAST = 1e-12  # of the level, the distance to the best one on the grid that float64 can reach


class Grid(Protocol):
    """Points and weights w_k, and a basis of the polynomials of degree m: rows w_k q_i(x_k), i = 0..m."""

    m: int
    w: np.ndarray
    #: how far the rows, before they are weighted, and how far a sum of them, in units of itself, may be off
    rounding: tuple[float, float]

    def rows(self, k: np.ndarray) -> np.ndarray:
        """Some of them, shape (size, m + 1)."""
        ...

    def values(self, c: np.ndarray) -> np.ndarray:
        """All of them times coefficients."""
        ...

    def sums(self, d: np.ndarray) -> np.ndarray:
        """The transpose of `values`."""
        ...

    def squares(self, d: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The rows' products, weighted with d and summed, shape (m + 1, m + 1)."""
        ...


class Listed:
    """Any basis, by its rows."""

    def __init__(self, rows: np.ndarray, w: np.ndarray, rounding: float = 1e-15) -> None:
        """Weigh them.

        Args:
            rows: q_i at the points, shape (size, m + 1).
            w: weights, positive, shape (size,).
            rounding: how far the rows may be off.
        """
        self.m, self.w, self._rows = rows.shape[1] - 1, w, rows * w[:, None]
        self.rounding = rounding, 1e-15 + rounding * np.sqrt(rows.shape[1])

    def rows(self, k: np.ndarray) -> np.ndarray:
        """See `Grid`."""
        return self._rows[k]

    def values(self, c: np.ndarray) -> np.ndarray:
        """See `Grid`."""
        return self._rows @ c

    def sums(self, d: np.ndarray) -> np.ndarray:
        """See `Grid`."""
        return d @ self._rows

    def squares(self, d: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """See `Grid`."""
        return np.matmul((self._rows * d[:, None]).T, self._rows, out=out)


class ChebyshevGrid:
    """Chebyshev's polynomials on [-1, 1]."""

    def __init__(self, t: tuple[np.ndarray, np.ndarray], w: np.ndarray, m: int) -> None:
        """Place the points.

        Args:
            t: points in [-1, 1], ascending, and what their rounding left out, each of shape (size,).
            w: weights, positive, shape (size,).
            m: the degree.
        """
        self.t, self.nodes, self.w, self.m = t[0], Nodes(*t, 2 * m), w, m
        self.rounding = 1e-15, 1e-15

    def rows(self, k: np.ndarray) -> np.ndarray:
        """See `Grid`."""
        return chebyshev.chebvander(self.t[k], self.m) * self.w[k, None]

    def values(self, c: np.ndarray) -> np.ndarray:
        """See `Grid`."""
        return self.w * self.nodes.values(c)

    def sums(self, d: np.ndarray) -> np.ndarray:
        """See `Grid`."""
        return self.nodes.sums(self.w * d, self.m + 1)

    def squares(self, d: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """See `Grid`: a Toeplitz and a Hankel matrix."""
        size = self.m + 1
        sums = self.nodes.sums(self.w * self.w * d, 2 * self.m + 1) / 2
        mirrored = np.r_[sums[self.m : 0 : -1], sums[:size]]
        return np.add(sliding_window_view(mirrored, size)[::-1], sliding_window_view(sums, size), out=out)


@dataclass(frozen=True)
class _Place:
    """A point of the path: slacks lam -+ (g - p) and multipliers y of both sides of each constraint, shape (2, size).

    The multipliers have the sum 1, and y_0 - y_1 is orthogonal to every p.
    """

    grid: Grid
    slack: np.ndarray
    y: np.ndarray

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and difference of y/slack on both sides."""
        ratio = self.y / self.slack
        return ratio[0] + ratio[1], ratio[0] - ratio[1]

    @cached_property
    def solved(self) -> Callable[[np.ndarray], np.ndarray]:
        """The equations for the step of (c, lam).

        Near the end the rows that count most outweigh the others by more than float64's digits, so that they are left
        out of the products, and joined to their factor by reflections.
        """
        (total, difference), n = self.sides, self.grid.m + 2
        heavy = np.flatnonzero(total > _HEAVY * np.median(total))
        light = total.copy(), difference.copy()
        for column in light:
            column[heavy] = 0.0
        beside = self.grid.sums(light[1])
        corner = light[0].sum() + np.sum(4 * np.prod((self.y / self.slack)[:, heavy], axis=0) / total[heavy])
        matrix = np.empty((n, n))
        self.grid.squares(light[0], out=matrix[:-1, :-1])
        matrix[-1, :-1] = matrix[:-1, -1] = beside
        matrix[-1, -1] = corner
        factor, unit = _factor(matrix)
        if len(heavy):
            root = np.sqrt(total[heavy])
            rows = np.c_[self.grid.rows(heavy) * root[:, None], difference[heavy] / root] * unit
            factor = dtpqrt(0, min(32, n), factor, rows)[0]
        return lambda right: unit * cho_solve((factor, False), unit * right, check_finite=False)

    def step(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The change of (c, lam), of the slacks and of y after which y ds + slack dy is as wanted."""
        total, difference = self.sides
        part = wanted / self.slack
        right = np.r_[
            self.grid.sums(self.y[0] - self.y[1] + part[0] - part[1]), np.sum(part) + np.sum(self.y) - 1
        ]
        change, at = np.zeros(len(right)), np.zeros(len(total))
        for _ in range(3):
            # with refinement, of `at` itself: what the rounding of a large change did there would be magnified in y
            up = change[-1]
            image = np.r_[self.grid.sums(total * at + difference * up), difference @ at + total.sum() * up]
            more = self.solved(right - image)
            change, at = change + more, at + self.grid.values(more[:-1])
        up = change[-1]
        ds = np.array([up + at, up - at])
        return change, ds, part - self.y / self.slack * ds


def _factor(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper factor of a positive matrix that rounding may have made indefinite, and the scale of each row.

    The matrix is overwritten by one of diagonal 1, which the factor belongs to.
    """
    unit = 1 / np.sqrt(np.diag(matrix))
    matrix *= unit[:, None]
    matrix *= unit
    for more in (1e-15, 1e-14, 1e-13, 1e-12, 1e-11):  # directions that rounding decides about are left alone
        matrix[np.diag_indices_from(matrix)] = 1 + more
        try:
            # symmetric: as its transpose it needs no copy in another order
            return cholesky(matrix.T, check_finite=False), unit
        except LinAlgError:
            continue
    raise LinAlgError("no rounding makes a matrix as indefinite")


@dataclass(frozen=True)
class Solved:
    """The best polynomial on a grid, or nearly."""

    c: np.ndarray
    """Coefficients of p in the grid's basis, shape (m + 1,)."""
    y: np.ndarray
    """Multipliers of both sides of each constraint near it, shape (2, size)."""
    gap: float
    """How far these are from the best ones at most, relatively."""


def best_on_grid(grid: Grid, f: np.ndarray, enough: float = _LEAST) -> Solved:
    """The polynomial of degree m with the least max w |f - p| on a grid.

    Args:
        grid: more than m points.
        f: values there, shape (size,).
        enough: how far from the best one on the grid its error may be, relatively, at about most.

    Source:
        S. Mehrotra, SIAM J. Optim. 2 (1992): predictor and corrector.
    """
    w = grid.w
    c = _solver(grid.squares(np.ones(len(f))))(grid.sums(w * f))
    lam = 1.1 * float(np.max(np.abs(w * f - grid.values(c))))
    y = np.full((2, len(f)), 0.5 / len(f))
    best, least, last = c, np.inf, (y, np.inf)
    for _ in range(_STEPS):
        rest = w * f - grid.values(c)
        if (top := float(np.max(np.abs(rest)))) < least:
            best, least = c, top
        slack = np.array([lam - rest, lam + rest])
        gap = float(np.sum(slack * y))
        if not (np.all(slack > 0) and gap > enough * lam):
            break
        last = y, gap / lam
        place = _Place(grid, slack, y)
        try:
            _, ds, dy = place.step(-slack * y)
            ahead = np.sum((slack + _reach(slack, ds) * ds) * (y + _reach(y, dy) * dy)) / gap
            dx, ds, dy = place.step(ahead**3 * gap / y.size - slack * y - ds * dy)
        except (LinAlgError, ValueError):  # the rounding of float64
            break
        c, lam = c + 0.995 * _reach(slack, ds) * dx[:-1], lam + 0.995 * _reach(slack, ds) * dx[-1]
        y = y + 0.995 * _reach(y, dy) * dy
    return Solved(best, *last)


def level_proven(y: np.ndarray, grid: Grid, f: np.ndarray, c: np.ndarray, top: float) -> float:
    """A lower bound on max w |f - p| over the domain for all p of a degree, by the multipliers on a grid.

    Let mu = y_0 - y_1, p_0 near the best polynomial, r_i = sum_k mu_k w_k T_i(t_k). For each p of the degree

        sum_k mu_k w_k (f - p)(t_k) = sum_k mu_k w_k (f - p_0)(t_k) - sum_i r_i c_i(p - p_0)

    is at most sum |mu| times the error of p. One that is better than p_0 has |p - p_0| <= 2 top/min w, so that Parseval
    bounds the last sum by |r| 2 sqrt(2) top/min w: r need only be small. No m + 2 points need be chosen, which are not
    to be told from the multipliers where these span more than float64's digits. T_i may be any polynomials that are
    orthonormal for a measure of 1 on the domain.

    Args:
        y: multipliers of both sides, shape (2, size).
        grid: its points.
        f: values there.
        c: coefficients of p_0 in the grid's basis, shape (m + 1,).
        top: its error on the whole domain.
    """
    m, w, mu = grid.m, grid.w, y[0] - y[1]
    values, size = grid.values(c), float(np.sum(np.abs(mu)))
    of_row, of_sum = grid.rounding
    r = np.asarray(grid.sums(mu), float)
    off = float(np.linalg.norm(r)) + of_row * np.sqrt(m + 1) * float(np.sum(np.abs(mu) * w))
    lost = of_sum * float(np.max(w * np.abs(f) + np.abs(values)))
    return max(abs(float(mu @ (w * f - values))) / size - 3 * off / size * top / float(np.min(w)) - lost, 0.0)


def _solver(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """x of matrix x = right, for a positive matrix that rounding may have made indefinite."""
    factor, unit = _factor(matrix)
    return lambda right: unit * cho_solve((factor, False), unit * right)


def _reach(value: np.ndarray, change: np.ndarray) -> float:
    """How far a positive array may follow its change, 1 at most."""
    down = change < 0
    return min(1.0, float(np.min(-value[down] / change[down]))) if np.any(down) else 1.0
