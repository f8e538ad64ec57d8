"""Numbers of numbers: means with their errors, fronts, hypervolumes, verdicts. Nothing here knows what an SAE is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

#: How far beyond its smallest and largest l0 a front may be read: by this factor
BEYOND = 1.1
#: A win or a loss needs at least this many seeds ...
SEEDS = 3
#: ... and a mean difference that chance alone exceeds in this share of cases
CHANCE = 0.05

Point = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over independent repetitions."""

    mean: float
    """Their mean."""
    se: float | None
    """The mean's standard error; None for a single value."""
    n: int
    """How many values there are."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The estimate from the values themselves."""
        n = len(values)
        error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
        return cls(float(np.mean(values)), error, n)


def front(points: Sequence[Point]) -> list[int]:
    """The Pareto front, where less is better in both coordinates.

    Args:
        points: The points.

    Returns:
        Indices of the points that no other is as good as in both coordinates and better in one, by first coordinate.
    """
    order = sorted(range(len(points)), key=lambda i: points[i])
    best, kept = math.inf, []
    for i in order:
        if points[i][1] < best:
            best = points[i][1]
            kept.append(i)
    return kept


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that points dominate up to `reference`, where less is better in both coordinates.

    Args:
        points: The points.
        reference: The corner that is worse than what counts.

    Returns:
        The area.
    """
    inside = [p for p in points if p[0] < reference[0] and p[1] < reference[1]]
    area, top = 0.0, reference[1]
    for x, y in (inside[i] for i in front(inside)):
        area += (reference[0] - x) * (top - y)
        top = y
    return area


def at_l0(l0: float, points: Sequence[Point], ratio: bool = False, pareto: bool = True) -> float | None:
    """A figure read off other cells at a given l0: linear in log l0 between them.

    Args:
        l0: Where to read.
        points: (l0, figure) of the cells.
        ratio: Whether the figure's logarithm is linear, not the figure.
        pareto: Whether to read off the Pareto front alone (less is better), not off all cells.

    Returns:
        The figure; None where `l0` lies more than 10 % outside, or further than the last two cells lie apart, or there
        are fewer than two cells.
    """
    known = [(math.log(x), y) for x, y in points if x > 0]
    if pareto:
        known = [known[i] for i in front(known)]
    known.sort()
    if len(known) < 2 or l0 <= 0:
        return None
    at = math.log(l0)
    i = int(np.clip(np.searchsorted([x for x, _ in known], at), 1, len(known) - 1))
    (x0, y0), (x1, y1) = known[i - 1], known[i]
    # two cells of nearly one l0 tell no slope
    if max(x0 - at, at - x1) > min(math.log(BEYOND), x1 - x0):
        return None
    if x1 == x0:
        return y0
    ratio = ratio and min(y0, y1) > 0  # nothing has no logarithm
    if ratio:
        y0, y1 = math.log(y0), math.log(y1)
    value = y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return math.exp(value) if ratio else value


def verdict(differences: Sequence[float], more: bool) -> str:
    """Whether differences over seeds are a win.

    Args:
        differences: One for each seed.
        more: Whether a positive difference is better.

    Returns:
        `win`, `tie` or `loss` at the 95 % level (Student's t); `open` with fewer than three, or one that is
        not finite.
    """
    if len(differences) < SEEDS or not np.isfinite(differences).all():
        return "open"
    found = Estimate.of(differences)
    assert found.se is not None
    if abs(found.mean) <= stdtrit(found.n - 1, 1 - CHANCE / 2) * found.se:
        return "tie"
    return "win" if (found.mean > 0) == more else "loss"


#: Resamples of a bootstrap
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


def ratio_interval(
    sums: Sequence[float] | np.ndarray,
    counts: Sequence[float] | np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """The 95 % interval of sum(sums) / sum(counts), by resampling groups (bootstrap), wider where there are few.

    Predictions of one sequence depend on each other; sequences of different documents do not. Groups of size 0 say
    nothing and are left out.

    Args:
        sums: The sum of each group.
        counts: The size of each group.
        seed: Of the resampling.
        resamples: How many.

    Returns:
        From the 2.5 % to the 97.5 % quantile, with the distances from the ratio multiplied as Student's t has it: by
        9.2 for two groups, 1.2 for ten, 1.02 for a hundred. None of fewer than two groups, whose spread nobody knows.
    """
    sum_S, count_S = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    said = (count_S != 0) | (sum_S != 0)
    sum_S, count_S = sum_S[said], count_S[said]
    if len(count_S) < 2:
        return None
    S = len(sum_S)
    weight_RS = np.random.default_rng(seed).multinomial(S, np.full(S, 1 / S), resamples)
    quantiles = np.quantile((weight_RS @ sum_S) / (weight_RS @ count_S), (0.025, 0.975))
    ratio = sum_S.sum() / count_S.sum()
    # resampling takes the spread of S groups for S / (S - 1) times as sure, and as known
    wider = math.sqrt(S / (S - 1)) * stdtrit(S - 1, 0.975) / ndtri(0.975)
    low, high = ratio + wider * (quantiles - ratio)
    return Interval(float(low), float(high))
