"""Differential correction: the best rational function on a grid, by linear programs in float64.

From any p/q with q > 0 on the grid and the error D, the program min lam over (p, q, lam), |q_j| <= 1, with
|w (f q - p)| - D q <= lam q_last at every point lowers D until p/q is best on the grid, whatever the start
(Cheney and Loeb 1961; Barrodale, Powell and Roberts, SIAM J. Numer. Anal. 9, 1972). It gives the exchange a
reference where the climb in degree finds none. Its reach are errors above some 1e-8 of the function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_poly
from numpy.polynomial import chebyshev
from scipy.optimize import linprog

from approx.dyadic import dyadic
from approx.fit.exchange import Level, Problem, mid

_POINTS = 240
_CLEAR = 1e-6  # how far q stays from 0 in a gap, in units of its largest coefficient


@dataclass(frozen=True)
class Points:
    """What is to be approximated at points t of [-1, 1]."""

    t: np.ndarray
    """The points, ascending, shape (size,)."""
    f: np.ndarray
    """Values of the target."""
    w: np.ndarray
    """Weights."""
    side: np.ndarray
    """The sign that q has to have."""

    def error(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """w (f - p/q); infinite where q has the wrong sign.

        Args:
            p: Chebyshev coefficients of the numerator.
            q: Chebyshev coefficients of the denominator.
        """
        below = chebyshev.chebval(self.t, q) * self.side
        with np.errstate(all="ignore"):
            value = self.w * (self.f - self.side * chebyshev.chebval(self.t, p) / below)
        return np.where(below > 0, value, np.inf)


@dataclass(frozen=True)
class Sampled(Points):
    """A problem on points, in t = (s - centre)/half."""

    problem: Problem
    """The problem."""
    s: list[arb]
    """The points in its own variable, shape (size,)."""

    @classmethod
    def of(cls, problem: Problem, s: list[arb]) -> Sampled:
        """The problem at the points s."""
        a, b = problem.intervals[0][0], problem.intervals[-1][1]
        t = np.array([float((2 * x - a - b) / (b - a)) for x in s])
        f = np.array([float(v) for v in problem.f(s)])
        w = np.array([float(v) for v in problem.weights(s)])
        return cls(t, f, w, np.array([float(problem.side(x)) for x in s]), problem, s)


@dataclass(frozen=True)
class Corrected:
    """What differential correction found."""

    p: np.ndarray
    """Chebyshev coefficients of the numerator in t."""
    q: np.ndarray
    """Chebyshev coefficients of the denominator in t."""
    top: float
    """The largest error on the points that were looked at."""
    extrema: list[arb]
    """Local extrema of the error, alternating, ascending."""
    heights: np.ndarray
    """The error at these, in size."""

    def alternating(self, count: int) -> list[arb] | None:
        """`count` neighbouring extrema, the highest kept; None where there are fewer."""
        points, heights = list(self.extrema), list(self.heights)
        while len(points) > count:
            low = int(np.argmin(heights))
            if len(points) == count + 1 or low in (0, len(points) - 1):
                drop = [0 if heights[0] < heights[-1] else len(points) - 1]
            else:
                drop = sorted((low, low - 1 if heights[low - 1] < heights[low + 1] else low + 1))
            for i in reversed(drop):
                del points[i], heights[i]
        return points if len(points) == count else None

    def level(self, problem: Problem) -> Level:
        """The function as a level of its problem, of value 0."""
        p, q = (arb_poly([dyadic(c) for c in chebyshev.cheb2poly(series)]) for series in (self.p, self.q))
        return Level(p, q, arb(0), self.extrema, problem.frame(), 128, 256)


def corrected(problem: Problem, type: tuple[int, int], rounds: int = 4) -> Corrected | None:
    """The best function of a type on a grid, refined where its error peaks between the points.

    Args:
        problem: what to solve.
        type: (m, n), the degrees of numerator and denominator.
        rounds: how often the grid is refined at most.

    Returns:
        What was found, or None where the programs fail.
    """
    m, n = type
    points = places(problem, _POINTS + 10 * (m + n))
    fine = Sampled.of(problem, places(problem, 5 * (_POINTS + 10 * (m + n))))
    found: Corrected | None = None
    start: tuple[np.ndarray, np.ndarray] | None = None
    for _ in range(rounds):
        grid = Sampled.of(problem, points)
        if not (np.all(np.isfinite(grid.f)) and np.all(np.isfinite(grid.w)) and np.ptp(grid.t) > 0):
            return None
        gaps = _gap_rows(problem, n) if not problem.sides else np.zeros((0, n + 1))
        pair = best_at(grid, start or _first(grid, m, n), gaps)
        if pair is None:
            break
        error = fine.error(*pair)
        extrema, heights = _alternating(fine, error)
        top = float(np.max(np.abs(error)))
        if found is None or top < found.top or not np.isfinite(found.top):
            found = Corrected(*pair, top, extrema, heights)
        reached = float(np.max(np.abs(grid.error(*pair))))
        if top <= reached * (1 + 1e-3):
            break
        peaks = np.flatnonzero((np.abs(error) > reached * (1 + 1e-4)) & _local(np.abs(error)))
        near = {int(k) + j for k in peaks for j in (-1, 0, 1) if 0 <= k + j < len(fine.s)}
        points = _ordered([*points, *(fine.s[k] for k in sorted(near))])
        if not np.isfinite(top):  # q changes its sign between two points: look closer
            fine = Sampled.of(problem, _ordered([*fine.s, *_closer(fine.s, peaks)]))
        start = pair if np.all(np.isfinite(Sampled.of(problem, points).error(*pair))) else None
    return found


def weighted(problem: Problem, type: tuple[int, int], steps: int = 60) -> Corrected | None:
    """A near-best function of a type by Lawson's iteration: least squares whose weights follow the error.

    Each step minimises sum_i v_i |w (f q - p)|^2 over all p and q with sum_i v_i q^2 = 1 (the smallest singular value
    of the part of w f q that no p meets), and multiplies each v_i by the error there. It is AAA-Lawson's step for any
    type, in Chebyshev polynomials.

    Args:
        problem: what to solve.
        type: (m, n), the degrees of numerator and denominator.
        steps: how many.

    Returns:
        The best function met, or None where q changed its sign each time.

    Source:
        Nakatsukasa and Trefethen, SIAM J. Sci. Comput. 42 (2020); Zhang, Yang, Yang and Zhang, Math. Comp. 94 (2025).
    """
    m, n = type
    grid = Sampled.of(problem, places(problem, _POINTS + 10 * (m + n)))
    fine = Sampled.of(problem, places(problem, 5 * (_POINTS + 10 * (m + n))))
    if not all(np.all(np.isfinite(v)) for v in (grid.f, grid.w)) or not np.ptp(grid.t) > 0:
        return None
    P, Q = (chebyshev.chebvander(grid.t, degree) for degree in (m, n))
    share = np.full(len(grid.t), 1 / len(grid.t))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(steps):
        root = np.sqrt(share)[:, None]
        over, above = np.linalg.qr(root * grid.w[:, None] * P)
        under, below = np.linalg.qr(root * Q)
        fq = (grid.w * grid.f)[:, None] * under
        inner = over.T @ fq
        b = np.linalg.svd(fq - over @ inner, full_matrices=False)[2][-1]
        q = np.linalg.lstsq(below, b, rcond=None)[0]
        p = np.linalg.lstsq(above, inner @ b, rcond=None)[0]
        if np.sum((Q @ q) * grid.side) < 0:
            p, q = -p, -q
        with np.errstate(all="ignore"):
            error = np.abs(grid.w * (grid.f - (P @ p) / (Q @ q)))
        if not np.all(np.isfinite(error)) or not (size := float(np.max(error))) > 0:
            break
        top = float(np.max(np.abs(fine.error(p, q))))
        if np.isfinite(top) and (best is None or top < best[0]):
            best = top, p, q
        share = np.maximum(share * error / size, 1e-18)
        share /= share.sum()
    if best is None:
        return None
    extrema, heights = _alternating(fine, fine.error(*best[1:]))
    return Corrected(best[1], best[2], best[0], extrema, heights)


def _closer(s: list[arb], peaks: np.ndarray) -> list[arb]:
    """Points between those at the peaks and their neighbours."""
    pairs = {(int(k) + j, int(k) + j + 1) for k in peaks for j in (-1, 0) if 0 <= k + j < len(s) - 1}
    return [mid(s[i] + (s[j] - s[i]) * arb(u) / 8) for i, j in sorted(pairs) for u in range(1, 8)]


def best_at(
    grid: Points, start: tuple[np.ndarray, np.ndarray], positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """The best p/q at points, from any p/q whose q has the right signs there.

    Args:
        grid: the points.
        start: Chebyshev coefficients of p and q, of the lengths that are wanted.
        positive: rows of Chebyshev polynomials, shape (rows, n + 1), where q has to be positive too.

    Returns:
        The coefficients, or None where the programs fail.
    """
    p, q = start
    m, n = len(p) - 1, len(q) - 1
    # p in units of the function, so that the tolerances of the solver mean the same everywhere
    size = max(float(np.max(np.abs(grid.f))), 1e-300)
    P = chebyshev.chebvander(grid.t, m) * (grid.w * grid.side * size)[:, None]
    Q = chebyshev.chebvander(grid.t, n) * grid.side[:, None]
    fQ = Q * (grid.w * grid.f)[:, None]
    reached = float(np.max(np.abs(grid.error(p, q))))
    unit = max(float(np.max(np.abs(grid.w * grid.f))), 1e-300)
    for _ in range(50):
        below = Q @ q
        if not np.all(below > 0):
            return None
        scale, ones = (1 / (below * unit))[:, None], np.ones((len(below), 1))
        with np.errstate(all="ignore"):
            rows = np.vstack(
                [
                    np.hstack([scale * (-P), scale * (fQ - reached * Q), -ones]),
                    np.hstack([scale * P, scale * (-fQ - reached * Q), -ones]),
                ]
            )
        bound = np.zeros(len(rows))
        if len(positive):
            more = np.hstack([np.zeros((len(positive), m + 1)), -positive, np.zeros((len(positive), 1))])
            rows = np.vstack([rows, more])
            bound = np.r_[bound, np.full(len(positive), -_CLEAR)]
        if not np.all(np.isfinite(rows)):  # values that float64 has no room for
            break
        cost = np.r_[np.zeros(m + n + 2), 1.0]
        limits = [(None, None)] * (m + 1) + [(-1.0, 1.0)] * (n + 1) + [(None, 0.0)]
        options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        solved = linprog(cost, rows, bound, bounds=limits, method="highs", options=options)
        if solved.x is None:
            break
        largest = float(np.max(np.abs(solved.x[m + 1 : -1])))
        if largest == 0:
            break
        new_p, new_q = size * solved.x[: m + 1] / largest, solved.x[m + 1 : -1] / largest
        top = float(np.max(np.abs(grid.error(new_p, new_q))))
        if not top < reached * (1 - 1e-9):
            break
        last, reached, p, q = reached, top, new_p, new_q
        if last - top < 1e-7 * top:
            break
    return p, q


def _first(grid: Sampled, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A polynomial of least squares over q = 1, or over a q with the wanted signs."""
    q = np.zeros(n + 1)
    q[0] = 1.0
    if np.any(grid.side < 0):
        edges = [e for interval in grid.problem.intervals for e in interval]
        a, b = edges[0], edges[-1]
        changes = [
            float((x + y - a - b) / (b - a))
            for x, y, s, t in zip(
                edges[1:-1:2], edges[2::2], grid.problem.sides, grid.problem.sides[1:], strict=False
            )
            if s != t
        ]
        roots = chebyshev.chebfromroots(changes) * (-1) ** len(changes) * grid.problem.sides[0]
        q = np.r_[roots / np.max(np.abs(roots)), np.zeros(n + 1 - len(roots))]
    below = chebyshev.chebval(grid.t, q)
    apart = np.abs(below) > 1e-14  # a gap of a few floats has none between its ends for the root
    columns = chebyshev.chebvander(grid.t[apart], m) * (grid.w[apart] / below[apart])[:, None]
    return np.linalg.lstsq(columns, (grid.w * grid.f)[apart], rcond=None)[0], q


def _gap_rows(problem: Problem, n: int) -> np.ndarray:
    """q at points of the gaps: there it must be positive too."""
    a, b = problem.intervals[0][0], problem.intervals[-1][1]
    t = [
        float((2 * (lo + (hi - lo) * arb(k) / 9) - a - b) / (b - a))
        for (_, lo), (hi, _) in zip(problem.intervals[:-1], problem.intervals[1:], strict=True)
        for k in range(1, 9)
    ]
    return chebyshev.chebvander(np.array(t), n) if t else np.zeros((0, n + 1))


def places(problem: Problem, count: int) -> list[arb]:
    """Points of the domain: Chebyshev points of each interval, some by ratio towards ends, kinks, landmarks.

    Args:
        problem: what is to be solved.
        count: about how many.
    """
    found: list[arb] = [*problem.corners, *problem.landmarks]
    for a, b in problem.intervals:
        size = max(40, count // len(problem.intervals))
        shares = (1 - np.cos(np.linspace(0, np.pi, size))) / 2
        close = np.geomspace(1e-7, 0.05, size // 12)
        found += [mid(a + (b - a) * arb(float(u))) for u in (*shares, *close, *(1 - close))]
        for c in problem.corners:
            if a < c and c < b:
                found += [mid(c + (e - c) * arb(float(u))) for e in (a, b) for u in close]
    inside = [x for x in found if any(a <= x and x <= b for a, b in problem.intervals)]
    return _ordered(inside)


def _ordered(points: list[arb]) -> list[arb]:
    by_value = sorted({float(x): x for x in points}.items())
    return [x for _, x in by_value]


def _local(height: np.ndarray) -> np.ndarray:
    return np.r_[True, height[1:] >= height[:-1]] & np.r_[height[:-1] >= height[1:], True]


def _alternating(grid: Sampled, error: np.ndarray) -> tuple[list[arb], np.ndarray]:
    """The highest extremum of each run of one sign of the error."""
    sign = np.where(error >= 0, 1, -1)
    runs = np.split(np.arange(len(error)), np.flatnonzero(np.diff(sign)) + 1)
    best = [int(run[np.argmax(np.abs(error[run]))]) for run in runs]
    return [grid.s[k] for k in best], np.abs(error[best])
