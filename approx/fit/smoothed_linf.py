"""`smoothed_linf`: a near-minimax fit with any denominator, by a p-norm that grows towards the maximum
norm.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from approx.fit.least_squares import best_of
from approx.fit.measure import measured_error
from approx.fit.pade import Grid, Model
from approx.fit.record import Fit, check_type, check_weight
from approx.target import Target

_POWERS = (4, 8, 16, 32, 64, 128, 256)


def smoothed_linf(
    target: Target,
    type: tuple[int, int],
    denominator: str = "standard",
    *,
    grid: int = 4001,
    lawson: int = 10,
    progress: bool = False,
) -> Fit:
    """A rational function whose maximal error on a grid is close to least, with the denominators of
    `least_squares`.

    The least-squares fit comes first. Lawson's iteration (1961) then multiplies the weight of each grid
    point by its share of the error and fits again. Last, (sum |w e|^p)^(1/p) is minimised over all
    parameters for p = 4, 8, ..., 256 by Levenberg and Marquardt, each the start of the next; at p = 256 the
    norm is within 1.04 of the maximum on 4001 points. The best of all iterates in the maximum norm is kept,
    so the result is never worse than the least-squares fit. For standard denominators `minimax` is exact and
    far faster; this is for the safe ones.

    `history`: the largest error on the grid after each stage. `converged`: whether the last two stages
    changed it by less than 2%. Raises ValueError for a malformed type or denominator.
    """
    m, n = check_type(type)
    check_weight(target)
    sampled = Grid.of(target, grid)
    model, (theta, c, _), _ = best_of(sampled, (m, n), denominator, progress)
    best = _Best(model, theta, c)
    history = [best.error]
    with tqdm(
        total=1 + len(_POWERS), desc="smoothed maximum", disable=not progress, leave=False, delay=2
    ) as bar:
        weight = np.ones(grid)
        for _ in range(lawson):
            error = np.abs(model.residual(theta, c))
            weight = weight * np.maximum(error / error.max(), 1e-12) if error.max() > 0 else weight
            weight /= weight.max()
            theta, c, _value = model.minimise(theta, sampled.w * np.sqrt(weight), iterations=8)
            best.see(theta, c)
        history.append(best.error)
        bar.update()
        for p in _POWERS:
            best.see(*_p_norm(model, best.theta, best.c, p))
            history.append(best.error)
            bar.update()
    rational = model.rational(best.theta, best.c)
    converged = history[-1] >= 0.98 * history[-2]
    message = (
        "" if converged else "the largest error was still falling when the p-norm reached its last power"
    )
    return Fit(
        rational,
        measured_error(rational, target),
        np.zeros(0),
        converged,
        history,
        f"smoothed_linf({denominator})",
        target,
        (m, n),
        message=message,
    )


class _Best:
    """The parameters with the smallest maximal error seen."""

    def __init__(self, model: Model, theta: np.ndarray, c: np.ndarray) -> None:
        self.model, self.error = model, np.inf
        self.see(theta, c)

    def see(self, theta: np.ndarray, c: np.ndarray) -> None:
        error = float(np.max(np.abs(self.model.residual(theta, c))))
        if error < self.error:
            self.theta, self.c, self.error = theta, c, error


def _p_norm(
    model: Model, theta: np.ndarray, c: np.ndarray, p: int, steps: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise sum |w e|^p from (theta, c): Gauss-Newton on sign(e) |w e|^(p/2), damped, all parameters at
    once.
    """
    w = model.grid.w
    damping = 1e-2
    error = model.residual(theta, c)
    top = np.max(np.abs(error))
    if top == 0:
        return theta, c
    value = np.sum((np.abs(error) / top) ** p)
    for _ in range(steps):
        # the common factor |e|^(p/2 - 1) p/2 weights the ordinary Jacobian; the step then solves for e (2/p)
        share = (np.abs(error) / top) ** (p / 2 - 1)
        columns = np.hstack([model.basis(theta), model.slopes(theta, c)]) * (w * share)[:, None]
        J, y = model.reduced(columns, error * share * 2 / p)
        size = np.maximum(np.linalg.norm(J, axis=0), 1e-300)
        while damping < 1e12:
            rows = np.vstack([J / size, np.sqrt(damping) * np.eye(len(size))])
            move = np.linalg.lstsq(rows, np.r_[y, np.zeros(len(size))], rcond=None)[0] / size
            new_c, new_theta = c + move[: len(c)], theta + move[len(c) :]
            with np.errstate(all="ignore"):
                new_error = model.residual(new_theta, new_c)
                new = np.sum((np.abs(new_error) / top) ** p)
            if new < value:
                gain = (value - new) / value
                theta, c, error, value, damping = new_theta, new_c, new_error, new, damping / 4
                break
            damping *= 4
        else:
            break
        if gain < 1e-3:
            break
    return theta, c
