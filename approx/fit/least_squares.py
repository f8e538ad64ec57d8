"""`least_squares`: the best fit in the mean square on a grid, with a standard or a pole-free (safe)
denominator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from tqdm import tqdm

from approx.dyadic import precision
from approx.fit.denominators import Model, Safe, SafeB, Standard, model
from approx.fit.error import measured_error
from approx.fit.grid import Grid
from approx.fit.minimax import minimax
from approx.fit.result import Fit, Verdict, check_target, check_type
from approx.rational import Rational
from approx.samples import Samples, opened_target
from approx.target import Target, check_kind

Solution = tuple[np.ndarray, np.ndarray, float]

_MOST = 20000  # samples that the search looks at one by one; of more it takes means of neighbours first


@precision(53)
def least_squares(
    target: Target | Sequence[Any],
    type: tuple[int, int],
    denominator: str = "standard",
    *,
    grid: int = 4001,
    progress: bool = False,
) -> Fit:
    """The rational function of least mean square error, mean of (w (f - r))^2 over an equally spaced grid, or samples.

    denominator, in t = (x - centre)/half-width:
        "standard": 1 + sum b_j t^j, signed. Poles in the convex hull are excluded here.
        "safe": 1 + sum |b_j| |t|^j (arXiv 2606.14990, eq. 3). For an odd power of |t| the result is two
            rational functions that meet in the middle (`Rational.branches`).
        "safe-b": 1 + |sum b_j t^j|.

    The numerator is projected out (Golub and Pereyra 1973) and the denominator found by Levenberg and
    Marquardt from several starts: the minimax denominator, the linearised fit (safe only), and the solution
    of type (m-2, n-2) with its new parameters at rest, so that the error cannot grow along (m, n), (m+2,
    n+2), ... A standard denominator has pairs of conjugate poles, and one real pole if n is odd; where the minimax
    denominator has more real poles, those are a start too. The result is never worse than that denominator's.
    `history` holds the mean square errors reached from the starts, and last that of the result. Of more than 20000
    points it is this one alone: the starts are judged by means of neighbours, whose own scatter is not in them.
    `converged` says whether the result is a stationary point to 1e-4. A local minimum cannot be told from the global
    one: `converged` says no more than that.

    Args:
        target: the function to approximate; or samples: `approx.Samples`, (x, y) or (x, y, error bars).
        type: (m, n), the degrees of numerator and denominator.
        denominator: "standard", "safe" or "safe-b", as above.
        grid: number of points, evenly spaced; samples are their own grid.
        progress: show a progress bar.

    Raises:
        ValueError: for a malformed type or denominator, or fewer grid points than parameters.
    """
    m, n = check_type(type)
    problem: Target = opened_target(target)
    check_kind(problem)
    size = len(problem.x) if isinstance(problem, Samples) else grid
    if not isinstance(problem, Samples):
        check_target(problem)
    if size < 2 * (m + n + 1):
        raise ValueError(
            f"grid={size} must have at least twice as many points as parameters, {2 * (m + n + 1)}"
        )
    sampled = Grid.of(problem, grid)
    coarse = sampled.thinned(_MOST)
    the_model, (theta, c, value), history = best_of(coarse, (m, n), denominator, progress)
    start = _minimax_start(coarse, (m, n)) if denominator == "standard" else None
    if (
        start is not None
        and (more := _with_real_poles(coarse, (m, n), start)) is not None
        and more[1][2] < value
    ):
        the_model, (theta, c, value) = more
        history = [*history, value / len(coarse.x)]
    if coarse is not sampled:
        the_model = the_model.on(sampled)
        theta, c, _ = the_model.minimise(theta, sampled.w, iterations=5)
        history = []
    rational = the_model.rational(theta, c)
    verdict = Verdict.STATIONARY if stationary(the_model, theta, sampled.w) else Verdict.UNSETTLED
    if (
        start is not None
        and start.type[0] <= m
        and start.type[1] <= n
        and sampled.mse(start) < sampled.mse(rational)
    ):
        rational, verdict = start, Verdict.START
        rounding = 8 * np.finfo(float).eps * np.max(np.abs(sampled.w * sampled.f))
        if np.max(np.abs(sampled.w * (sampled.f - start(sampled.x)))) <= rounding:
            verdict = Verdict.EXACT
    return Fit(
        rational,
        float(np.max(np.abs(sampled.w * (sampled.f - rational(sampled.x)))))
        if isinstance(problem, Samples)
        else measured_error(rational, problem),
        np.zeros(0),
        verdict,
        [*history, sampled.mse(rational)],
        f"least_squares({denominator})",
        problem,
        (m, n),
    )


def best_of(
    grid: Grid, type: tuple[int, int], denominator: str, progress: bool = False
) -> tuple[Model, Solution, list[float]]:
    """The best local minimum over the starts, and the mean square error of each.

    Args:
        grid: the sampled target.
        type: (m, n), the degrees of numerator and denominator.
        denominator: "standard", "safe" or "safe-b".
        progress: show a progress bar.
    """
    *_, last = levels(grid, type, denominator, progress)
    return last


def levels(
    grid: Grid, type: tuple[int, int], denominator: str, progress: bool = False
) -> Iterator[tuple[Model, Solution, list[float]]]:
    """`best_of` for types that climb to `type`, each a start for the next: the last steps are (2, 2).

    Args:
        grid: the sampled target.
        type: the last (m, n).
        denominator: "standard", "safe" or "safe-b".
        progress: show a progress bar.
    """
    m, n = type
    m0, n0 = (k - min(m, n) // 2 * 2 for k in type)
    path = [(m0, n0)]
    if n0 == 1:
        path = [(k, n0) for k in range(m0 + 1)]
    elif n0 > 1:
        path = [(m0, k) for k in range(n0 + 1)]
    path += [(m0 + k, n0 + k) for k in range(2, min(m, n) + 1, 2)]
    below: tuple[Model, Solution] | None = None
    for step in tqdm(path, f"least squares, {denominator}", disable=not progress, leave=False, delay=2):
        the_model = model(grid, step, denominator)
        known, history = _best(the_model, below)
        yield the_model, known, history
        below = the_model, known


def _best(the_model: Model, below: tuple[Model, Solution] | None) -> tuple[Solution, list[float]]:
    starts: list[np.ndarray | None] = []
    if (start := _minimax_start(the_model.grid, the_model.type)) is not None:
        starts.append(the_model.start(start))
    if isinstance(the_model, Safe) and not isinstance(the_model, SafeB):
        starts.append(the_model.linearised())
    if isinstance(the_model, Standard) and isinstance(the_model.grid.target, Samples) and the_model.n:
        starts.append(the_model.start(the_model.linearised()))
    if below is not None:
        starts.append(the_model.extended(below[1][0], below[0]))
    if the_model.n == 1:  # at rest: the polynomial of type (m, 0)
        polynomial = the_model.__class__(the_model.grid, (the_model.m, 0))
        starts.append(the_model.extended(np.zeros(0), polynomial))
    if not any(s is not None for s in starts):
        starts.append(the_model.start(Rational.from_monomial([1.0])))
    w = the_model.grid.w
    found = [the_model.minimise(s, w) for s in starts if s is not None]
    history = [value / len(w) for *_, value in found]
    return min(found, key=lambda s: s[2]), history


def _minimax_start(grid: Grid, type: tuple[int, int]) -> Rational | None:
    """The best approximation in the maximum norm; None where none is found: other starts remain."""
    target = grid.target
    if isinstance(target, Samples):
        target = Samples(grid.x, grid.f, weight=grid.w)
    with suppress(RuntimeError):
        return minimax(target, type, tolerance=1e-3).rational
    return None


def _with_real_poles(grid: Grid, type: tuple[int, int], start: Rational) -> tuple[Model, Solution] | None:
    """The local minimum with as many real poles as a start has; None where these are the usual number."""
    n = type[1]
    reals = int(np.sum(np.imag(start.poles()) == 0))
    reals -= (n - reals) % 2
    if not n % 2 < reals <= n:
        return None
    the_model = Standard(grid, type, reals)
    theta = the_model.start(start)
    return None if theta is None else (the_model, the_model.minimise(theta, grid.w))


def stationary(the_model: Model, theta: np.ndarray, w: np.ndarray) -> bool:
    """Whether the projected gradient is small against what each parameter could do: |g_k| <= 1e-4 |J_k| |r|,
    or the residual itself is rounding.

    Args:
        the_model: the model.
        theta: parameters of the denominator.
        w: weights on the grid, shape (size,).
    """
    if not len(theta):
        return True
    with np.errstate(all="ignore"):
        J, y = the_model.step(theta, w)
        _, value = the_model.project(theta, w)
    rounding = len(w) * (np.finfo(float).eps * np.max(np.abs(w * the_model.grid.f), initial=0.0)) ** 2
    size = np.linalg.norm(J, axis=0) * np.sqrt(value)
    return value <= 100 * rounding or bool(np.all(np.abs(J.T @ y) <= 1e-4 * size + 1e-300))
