"""`least_squares`: the best fit in the mean square on a grid, with a standard or a pole-free (safe)
denominator.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from tqdm import tqdm

from approx.fit.measure import measured_error
from approx.fit.minimax import minimax
from approx.fit.pade import Grid, Model, Safe, SafeB, model
from approx.fit.record import Fit, check_type, check_weight
from approx.rational import Rational
from approx.target import Target

Solution = tuple[np.ndarray, np.ndarray, float]


def least_squares(
    target: Target,
    type: tuple[int, int],
    denominator: str = "standard",
    *,
    grid: int = 4001,
    progress: bool = False,
) -> Fit:
    """The rational function of least mean square error, mean of (w (f - r))^2 over an equally spaced grid.

    denominator, in t = (x - centre)/half-width:
        "standard": 1 + sum b_j t^j, signed. Poles in the convex hull are excluded here.
        "safe": 1 + sum |b_j| |t|^j (arXiv 2606.14990, eq. 3). For an odd power of |t| the result is two
            rational functions that meet in the middle (`Rational.branches`).
        "safe-b": 1 + |sum b_j t^j|.

    The numerator is projected out (Golub and Pereyra 1973) and the denominator found by Levenberg and
    Marquardt from several starts: the minimax denominator, the linearised fit (safe only), and the solution
    of type (m-2, n-2) with its new parameters at rest, so that the error cannot grow along (m, n), (m+2,
    n+2), ... `history` holds the mean square errors reached from the starts, `converged` whether two of them
    agree or the best is a stationary point to 1e-6. A local minimum cannot be told from the global one:
    `converged` says no more than that.

    Raises ValueError for a malformed type or denominator, or fewer grid points than parameters.
    """
    m, n = check_type(type)
    check_weight(target)
    if grid < 2 * (m + n + 1):
        raise ValueError(
            f"grid={grid} must have at least twice as many points as parameters, {2 * (m + n + 1)}"
        )
    sampled = Grid.of(target, grid)
    the_model, (theta, c, _), history = best_of(sampled, (m, n), denominator, progress)
    rational = the_model.rational(theta, c)
    converged = stationary(the_model, theta, sampled.w)
    message = "" if converged else "the gradient has not vanished: a better fit may be near"
    return Fit(
        rational,
        measured_error(rational, target),
        np.zeros(0),
        converged,
        history,
        f"least_squares({denominator})",
        target,
        (m, n),
        message=message,
    )


def best_of(
    grid: Grid, type: tuple[int, int], denominator: str, progress: bool = False
) -> tuple[Model, Solution, list[float]]:
    """The best local minimum over the starts, climbing in steps of (2, 2); and the mean square error of
    each.
    """
    m, n = type
    below = min(m, n) // 2
    known: Solution | None = None
    history: list[float] = []
    the_model = model(grid, type, denominator)
    for k in tqdm(
        range(below, -1, -1), desc=f"least squares, {denominator}", disable=not progress, leave=False, delay=2
    ):
        the_model = model(grid, (m - 2 * k, n - 2 * k), denominator)
        known, history = _best(the_model, known, iterations=60 if k else 300)
    assert known is not None
    return the_model, known, history


def _best(the_model: Model, below: Solution | None, iterations: int) -> tuple[Solution, list[float]]:
    starts: list[np.ndarray | None] = []
    with suppress(RuntimeError):  # no minimax fit of this type: the other starts remain
        starts.append(
            the_model.start(minimax(the_model.grid.target, the_model.type, tolerance=1e-3).rational)
        )
    if isinstance(the_model, Safe) and not isinstance(the_model, SafeB):
        starts.append(the_model.linearised())
    if below is not None:
        starts.append(the_model.extended(below[0]))
    if not any(s is not None for s in starts):
        starts.append(the_model.start(Rational.from_monomial([1.0])))
    w = the_model.grid.w
    found = [the_model.minimise(s, w, iterations) for s in starts if s is not None]
    history = [value / len(w) for *_, value in found]
    return min(found, key=lambda s: s[2]), history


def stationary(the_model: Model, theta: np.ndarray, w: np.ndarray) -> bool:
    """Whether the projected gradient is small against what each parameter could do: |g_k| <= 1e-4 |J_k| |r|,
    or the residual itself is rounding."""
    if not len(theta):
        return True
    with np.errstate(all="ignore"):
        J, y = the_model.step(theta, w)
        _, value = the_model.project(theta, w)
    rounding = len(w) * (np.finfo(float).eps * np.max(np.abs(w * the_model.grid.f), initial=0.0)) ** 2
    size = np.linalg.norm(J, axis=0) * np.sqrt(value)
    return value <= 100 * rounding or bool(np.all(np.abs(J.T @ y) <= 1e-4 * size + 1e-300))
