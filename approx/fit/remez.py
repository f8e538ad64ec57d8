"""`remez`: the paper's relaxed exchange as published, on a grid and in float64, so that its plateau can be
seen.
"""

from __future__ import annotations

import warnings

import numpy as np

from approx.fit.error import measured_error
from approx.fit.grid import grid_of
from approx.fit.result import Fit, Verdict, check_target, check_type
from approx.rational import Rational
from approx.target import Target


def remez(
    target: Target, type: tuple[int, int], grid: int = 4001, iterations: int = 100, tolerance: float = 1e-6
) -> Fit:
    """Standard-Pade minimax by the relaxed Remez exchange of the RSAE paper (arXiv 2606.14990, section 3.2;
    it cites Chen et al. 2018, arXiv 1808.10073).

    The choices, where the paper leaves them open:

    - P = sum a_i t^i and Q = 1 + sum b_j t^j in monomials of t = (x - centre)/half-width, solved in float64.
      That, and nothing in the problem, makes the error flat from about type (15, 14) on: `minimax` has no
      such plateau.
    - The levelled equations P(x_i) - f(x_i) Q(x_i) = (-1)^i E Q(x_i)/w(x_i) are linear but for the product E
      Q, which is replaced by Q_k E, Q_k the last denominator; the first one is 1. One solve a step, for m + n
      + 2 unknowns.
    - The first reference are Chebyshev points, moved to the grid by an irrational share of their spacing: on
      a symmetric reference the levelled error of an odd or even function vanishes and the exchange would stop
      at once.
    - The exchange is relaxed: each step takes the largest error of every run of one sign on the grid; where
      runs are missing, points of the last reference fill up; where there are too many, the ends with the
      smaller error go.
    - The best iterate that has a positive denominator on the grid is returned, not the last. `converged` says
      whether its error on the grid is within `tolerance` (relative) of the levelled error.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        grid: number of points, evenly spaced.
        iterations: the largest number of steps.
        tolerance: relative excess of the largest error on the grid at which it counts as levelled.

    Raises:
        ValueError: for a malformed type, or a grid of fewer than m + n + 2 points.
    """
    m, n = check_type(type)
    check_target(target)
    count = m + n + 2
    if grid < count:
        raise ValueError(f"grid={grid} must have at least m + n + 2 = {count} points")
    x = grid_of(target, grid)
    low, high = target.hull
    centre, half = (low + high) / 2, (high - low) / 2
    t = (x - centre) / half
    f, w = (np.broadcast_to(np.asarray(v, dtype=float), x.shape) for v in (target(x), target.weight_at(x)))
    powers = np.vander(t, max(m, n) + 1, increasing=True)
    signs = (-1.0) ** np.arange(count)

    places = (1 - np.cos(np.pi * (np.arange(count) + 0.5 / np.sqrt(2)) / count)) / 2
    reference = np.unique(np.round(places * (grid - 1)).astype(int))
    reference = _filled(reference, np.arange(0, grid, max(1, grid // (2 * count))), count)
    last = np.ones(grid)
    best: tuple[float, float, np.ndarray, np.ndarray, np.ndarray] | None = None
    history: list[float] = []
    for _ in range(iterations):
        rows = np.hstack(
            [
                powers[reference, : m + 1],
                -f[reference, None] * powers[reference, 1 : n + 1],
                -(signs * last[reference] / w[reference])[:, None],
            ]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the ill-conditioning is the subject of this fitter
            solution = np.linalg.lstsq(rows, f[reference], rcond=None)[0]
        a, b, level = solution[: m + 1], np.r_[1.0, solution[m + 1 : -1]], abs(solution[-1])
        history.append(float(level))
        last = powers[:, : n + 1] @ b
        with np.errstate(all="ignore"):
            error = w * (f - powers[:, : m + 1] @ a / last)
        top = float(np.max(np.abs(error))) if np.all(last > 0) and np.all(np.isfinite(error)) else np.inf
        if best is None or top < best[0]:
            best = (top, float(level), a, b, reference)
        if top <= level * (1 + tolerance):
            break
        if not np.all(np.isfinite(error)):
            break
        last = np.where(last > 0, last, 1.0)
        new = _runs(error, count)
        new = _filled(new, reference, count)
        if (
            np.array_equal(new, reference)
            and len(history) > 2
            and abs(history[-1] - history[-2]) <= 1e-14 * level
        ):
            break
        reference = new
    assert best is not None
    top, level, a, b, reference = best
    rational = Rational.from_monomial(a, b, target.domain, centre, half)
    error = measured_error(rational, target) if np.isfinite(top) else np.inf
    verdict = Verdict.GRID_LEVELLED if top <= level * (1 + tolerance) else Verdict.GRID_UNLEVELLED
    detail = "" if verdict.converged else f"{top:.3e} where {level:.3e} is levelled"
    return Fit(rational, error, x[reference], verdict, history, "remez", target, (m, n), detail=detail)


def _runs(error: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest |error| in each run of one sign; the smaller end leaves while there are too
    many.
    """
    sign = np.where(error >= 0, 1, -1)
    edges = np.flatnonzero(np.diff(sign)) + 1
    peaks = [k[np.argmax(np.abs(error[k]))] for k in np.split(np.arange(len(error)), edges)]
    while len(peaks) > count:
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return np.array(peaks)


def _filled(points: np.ndarray, reserve: np.ndarray, count: int) -> np.ndarray:
    """`points` with members of `reserve`, the farthest from all others first, until there are `count`."""
    chosen = list(points)
    reserve = np.setdiff1d(reserve, points)
    while len(chosen) < count:
        distance = (
            np.min(np.abs(reserve[:, None] - np.array(chosen)), axis=1) if chosen else np.ones(len(reserve))
        )
        k = int(np.argmax(distance))
        chosen.append(reserve[k])
        reserve = np.delete(reserve, k)
    return np.sort(chosen)[:count]
