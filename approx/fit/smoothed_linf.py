"""`smoothed_linf`: a near-minimax fit with any denominator, by a p-norm that grows towards the maximum
norm.
"""

from __future__ import annotations

import numpy as np

from approx.fit.least_squares import levels
from approx.fit.measure import measured_error, sample
from approx.fit.pade import Grid, Model, model
from approx.fit.record import Fit, check_target, check_type
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
    """A rational function whose maximal error is close to least, with the denominators of `least_squares`.

    The least-squares fit comes first. Lawson's iteration (1961) then multiplies the weight of each grid
    point by its share of the error and fits again. Last, (sum |w e|^p)^(1/p) is minimised over all
    parameters for p = 4, 8, ..., 256 by Levenberg and Marquardt, each the start of the next; at p = 256 the
    norm is within 1.04 of the maximum on 4001 points. These points crowd at ends, kinks and jumps, where the
    error peaks; those of the least-squares fit are equally spaced.

    A second start of the last stage is the result for type (m-2, n-2) with its new parameters at rest. The
    best of all iterates in the maximum norm on the grid is kept: it is never worse than the least-squares
    fit, and cannot grow along (m, n), (m+2, n+2), ... For standard denominators `minimax` is exact and far
    faster; this is for the safe ones.

    `history`: the largest error on the grid after each stage. `converged`: whether the last two stages
    changed it by less than 2%. Raises ValueError for a malformed type or denominator.
    """
    m, n = check_type(type)
    check_target(target)
    best: _Best | None = None
    fine = Grid.at(target, sample(target, grid))
    for coarse, (theta, c, _), _ in levels(Grid.of(target, grid), (m, n), denominator, progress):
        the_model = model(fine, coarse.type, denominator)
        starts = [_Best(the_model, theta, c, lawson)]
        if best:
            theta = the_model.extended(best.theta, best.model)
            values = best.model.basis(best.theta) @ best.c
            starts.append(_Best(the_model, theta, the_model.project(theta, fine.w, values)[0]))
        for start in starts:
            start.continued()
        best = min(starts, key=lambda s: s.error)
    assert best is not None
    rational = best.model.rational(best.theta, best.c)
    converged = best.history[-1] >= 0.98 * best.history[-2]
    message = (
        "" if converged else "the largest error was still falling when the p-norm reached its last power"
    )
    return Fit(
        rational,
        measured_error(rational, target),
        np.zeros(0),
        converged,
        best.history,
        f"smoothed_linf({denominator})",
        target,
        (m, n),
        message=message,
    )


class _Best:
    """The parameters with the smallest maximal error seen, from a start that Lawson's iteration improves."""

    def __init__(self, model: Model, theta: np.ndarray, c: np.ndarray, lawson: int = 0) -> None:
        self.model, self.error = model, np.inf
        self.see(theta, c)
        self.history = [self.error]
        weight = np.ones(len(model.grid.x))
        for _ in range(lawson):
            error = np.abs(model.residual(theta, c))
            weight = weight * np.maximum(error / error.max(), 1e-12) if error.max() > 0 else weight
            weight /= weight.max()
            theta, c, _value = model.minimise(theta, model.grid.w * np.sqrt(weight), iterations=8)
            self.see(theta, c)
        self.history.append(self.error)

    def see(self, theta: np.ndarray, c: np.ndarray) -> None:
        error = float(np.max(np.abs(self.model.residual(theta, c))))
        if error < self.error:
            self.theta, self.c, self.error = theta, c, error

    def continued(self) -> None:
        """Minimise p-norms of growing p, each from the best that is known."""
        for p in _POWERS:
            self.see(*_p_norm(self.model, self.theta, self.c, p))
            self.history.append(self.error)


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
        with np.errstate(all="ignore"):  # a denominator may overflow where it drops out
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
