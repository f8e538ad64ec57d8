"""Damped least squares (Levenberg and Marquardt): one loop for every problem that has a value and a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Problem(Protocol):
    """What is minimised over parameters x, shape (k,)."""

    def value(self, x: np.ndarray) -> float:
        """The objective at x; infinite or nan where x is no candidate.

        Args:
            x: parameters, shape (k,).
        """
        ...

    def step(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(J, y), J of shape (rows, k): the Gauss-Newton step is the d of least |J d - y|.

        Args:
            x: parameters, shape (k,).
        """
        ...


@dataclass
class Damping:
    """How far a step is held back, in units of the columns of J."""

    value: float
    """The current damping."""
    limit: float = 1e16
    """Beyond this no step is worth trying."""
    growth: float = 2.0
    """The factor of the next increase; it doubles with every failure."""

    def step(self, J: np.ndarray, y: np.ndarray, size: np.ndarray) -> np.ndarray:
        """The damped step: min |J d - y|^2 + value |size d|^2, size of shape (k,).

        Args:
            J: shape (rows, k).
            y: shape (rows,).
            size: norms of the columns, shape (k,).
        """
        rows = np.vstack([J, np.diag(np.sqrt(self.value) * size)])
        return np.linalg.lstsq(rows, np.r_[y, np.zeros(len(size))], rcond=None)[0]

    def relax(self) -> None:
        """After a step that helped."""
        self.value, self.growth = self.value / 5, 2.0

    def tighten(self) -> None:
        """After a step that did not."""
        self.value, self.growth = self.value * self.growth, 2 * self.growth


def minimised(
    problem: Problem, x: np.ndarray, iterations: int, gain: float, calm: int = 1, floor: float = 0.0
) -> np.ndarray:
    """A local minimum of a problem; no step is taken that does not lower its value.

    Args:
        problem: what is minimised.
        x: the start, shape (k,).
        iterations: the largest number of steps.
        gain: a step that lowers the value by a smaller share than this is a calm one.
        calm: number of calm steps in a row after which the search ends.
        floor: a value at or below this ends it too.

    Returns:
        The parameters, shape (k,).
    """
    with np.errstate(all="ignore"):
        value, damping, still = problem.value(x), Damping(1e-3), 0
        for _ in range(iterations if len(x) else 0):
            if value <= floor or damping.value > damping.limit or still == calm:
                break
            J, y = problem.step(x)
            size = np.maximum(np.linalg.norm(J, axis=0), 1e-12 * np.linalg.norm(J))
            if not (np.all(np.isfinite(J)) and np.all(size > 0)):
                break
            while damping.value <= damping.limit:
                trial = x + damping.step(J, y, size)
                new = problem.value(trial)
                if new < value:
                    still = still + 1 if value - new < gain * value else 0
                    x, value = trial, new
                    damping.relax()
                    break
                damping.tighten()
    return x
