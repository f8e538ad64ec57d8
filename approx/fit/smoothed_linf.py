"""`smoothed_linf`: a near-minimax fit with any denominator, by a p-norm that grows towards the maximum
norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from approx.fit.damped import minimised
from approx.fit.denominators import Model, model
from approx.fit.error import measured_error
from approx.fit.grid import Grid, sample
from approx.fit.least_squares import levels
from approx.fit.result import Fit, Verdict, check_target, check_type
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
    changed it by less than 2%.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        denominator: "standard", "safe" or "safe-b".
        grid: about how many points.
        lawson: number of reweighted fits before the p-norms.
        progress: show a progress bar.

    Raises:
        ValueError: for a malformed type or denominator.
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
    verdict = Verdict.STATIONARY if best.history[-1] >= 0.98 * best.history[-2] else Verdict.FALLING
    return Fit(
        rational,
        measured_error(rational, target),
        np.zeros(0),
        verdict,
        best.history,
        f"smoothed_linf({denominator})",
        target,
        (m, n),
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


def _p_norm(model: Model, theta: np.ndarray, c: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimise sum |w e|^p from (theta, c), all parameters at once."""
    top = float(np.max(np.abs(model.residual(theta, c))))
    if top == 0:
        return theta, c
    x = minimised(_PNorm(model, p, top, len(c)), np.r_[c, theta], iterations=40, gain=1e-3)
    return x[len(c) :], x[: len(c)]


@dataclass(frozen=True)
class _PNorm:
    """sum (|w e| / top)^p over (c, theta): Gauss-Newton on sign(e) |w e|^(p/2)."""

    model: Model
    """The parametrised function on its grid."""
    p: int
    """The power."""
    top: float
    """The largest |w e| at the start: the unit of the error."""
    linear: int
    """How many of the parameters are linear."""

    def value(self, x: np.ndarray) -> float:
        """The objective."""
        error = self.model.residual(x[self.linear :], x[: self.linear])
        return float(np.sum((np.abs(error) / self.top) ** self.p))

    def step(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The common factor |e|^(p/2 - 1) p/2 weights the ordinary Jacobian; the step solves for e (2/p)."""
        c, theta = x[: self.linear], x[self.linear :]
        error = self.model.residual(theta, c)
        share = (np.abs(error) / self.top) ** (self.p / 2 - 1)
        columns = np.hstack([self.model.basis(theta), self.model.slopes(theta, c)])
        return self.model.reduced(columns * (self.model.grid.w * share)[:, None], error * share * 2 / self.p)
