"""The best polynomial on a grid by an interior-point method in float64: where the exchange creeps.

Of a target with many more turns than p has degrees, many polynomials are nearly best. The multipliers of the best
reference then span sixteen decades, and points that hardly count decide where the exchange goes. The linear program
min lam, w_i |f_i - p(t_i)| <= lam, has no such trouble: its central path ends inside the set of the nearly best, after
some 25 steps whatever the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import chebyshev
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

_STEPS = 80
_LEAST = 1e-12  # of the level, the distance to the best one on the grid that float64 can reach
_NEAR = 1e-4  # of the level, the distance from which on the equations are solved by QR


@dataclass(frozen=True)
class _Place:
    """A point of the path: slacks lam -+ (g - Q c) and multipliers y of both sides of each constraint, shape (2, size).

    The multipliers have the sum 1, and Q^T (y_0 - y_1) = 0.
    """

    Q: np.ndarray
    slack: np.ndarray
    y: np.ndarray
    near: bool

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and difference of y/slack on both sides."""
        ratio = self.y / self.slack
        return ratio[0] + ratio[1], ratio[0] - ratio[1]

    @cached_property
    def factors(self) -> tuple[np.ndarray, tuple[np.ndarray, bool]]:
        """The equations for the step of (c, lam): units of the unknowns, and the factors in these."""
        total, difference = self.sides
        if self.near:
            # the square of the condition would be beyond float64; both sides of a point make one row, and one for all
            rows = np.zeros((len(total) + 1, self.Q.shape[1] + 1))
            rows[:-1, :-1] = np.sqrt(total)[:, None] * self.Q
            rows[:-1, -1] = difference / np.sqrt(total)
            rows[-1, -1] = np.sqrt(np.sum(4 * np.prod(self.y / self.slack, axis=0) / total))
            unit = 1 / np.linalg.norm(rows, axis=0)
            factor: np.ndarray = np.linalg.qr(rows * unit, mode="r")  # pyright: ignore
            return unit, (factor, False)
        beside = self.Q.T @ difference
        corner = np.full((1, 1), total.sum())
        matrix = np.block([[self.Q.T @ (self.Q * total[:, None]), beside[:, None]], [beside[None], corner]])
        unit = 1 / np.sqrt(np.diag(matrix))
        return unit, cho_factor(matrix * unit[:, None] * unit)

    def step(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The change of (c, lam), of the slacks and of y after which y ds + slack dy is as wanted."""
        (total, difference), (unit, factor) = self.sides, self.factors
        part = wanted / self.slack
        right = np.r_[
            self.Q.T @ (self.y[0] - self.y[1] + part[0] - part[1]), np.sum(part) + np.sum(self.y) - 1
        ]
        change = np.zeros(len(right))
        for _ in range(3):  # with refinement
            at, up = self.Q @ change[:-1], change[-1]
            image = np.r_[self.Q.T @ (total * at + difference * up), difference @ at + total.sum() * up]
            change += unit * cho_solve(factor, unit * (right - image))
        at, up = self.Q @ change[:-1], change[-1]
        ds = np.array([up + at, up - at])
        return change, ds, part - self.y / self.slack * ds


def best_on_grid(t: np.ndarray, f: np.ndarray, w: np.ndarray, m: int, enough: float = _LEAST) -> np.ndarray:
    """The polynomial of degree m with the least max w |f - p| on a grid.

    Args:
        t: points in [-1, 1], shape (size,), more than m of them.
        f: values there.
        w: weights, positive.
        m: the degree.
        enough: how far from the best one on the grid its error may be, relatively, at about most.

    Returns:
        Its Chebyshev coefficients, shape (m + 1,).

    Source:
        S. Mehrotra, SIAM J. Optim. 2 (1992): predictor and corrector.
    """
    Q, R = np.linalg.qr(chebyshev.chebvander(t, m) * w[:, None])
    size = max(float(np.max(np.abs(w * f))), 1e-300)
    g = w * f / size
    x = np.r_[Q.T @ g, 0.0]
    best, least = x, float(np.max(np.abs(g - Q @ x[:-1])))
    x[-1] = 1.1 * least
    y = np.full((2, len(t)), 0.5 / len(t))
    for _ in range(_STEPS):
        rest, lam = g - Q @ x[:-1], x[-1]
        if (top := float(np.max(np.abs(rest)))) < least:
            best, least = x, top
        slack = np.array([lam - rest, lam + rest])
        gap = float(np.sum(slack * y))
        if not (np.all(slack > 0) and gap > enough * lam):
            break
        place = _Place(Q, slack, y, gap < _NEAR * lam)
        try:
            _, ds, dy = place.step(-slack * y)
            ahead = np.sum((slack + _reach(slack, ds) * ds) * (y + _reach(y, dy) * dy)) / gap
            dx, ds, dy = place.step(ahead**3 * gap / y.size - slack * y - ds * dy)
        except (LinAlgError, ValueError):  # the rounding of float64
            break
        x = x + 0.995 * _reach(slack, ds) * dx
        y = y + 0.995 * _reach(y, dy) * dy
    return solve_triangular(R, best[:-1] * size)


def _reach(value: np.ndarray, change: np.ndarray) -> float:
    """How far a positive array may follow its change, 1 at most."""
    down = change < 0
    return min(1.0, float(np.min(-value[down] / change[down]))) if np.any(down) else 1.0
