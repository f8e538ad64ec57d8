"""Guesses for a reference: Chebyshev points, an old reference stretched, or the last two extrapolated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from flint import arb

from approx.fit.exchange import Problem


def first_reference(problem: Problem, count: int) -> list[arb]:
    """Chebyshev points on the union, gaps left out."""
    half = problem.frame().half
    lengths = [float((b - a) / half) for a, b in problem.intervals]
    places = (1 - np.cos(np.linspace(0, np.pi, count))) / 2 * sum(lengths) if count > 1 else np.array([0.0])
    points = []
    for place in places:
        for (a, b), length in zip(problem.intervals, lengths, strict=True):
            if place <= length or b is problem.intervals[-1][1]:
                points.append(b if place >= length else (a + (b - a) * arb(float(place / length))).mid())
                break
            place -= length
    return separated(points, problem)


def _resized(problem: Problem, old: list[arb], count: int) -> Iterator[list[arb]]:
    """The old reference stretched to `count` points, interval by interval and linear in the index.

    How the points split between the intervals decides about success next to a gap, so neighbouring splits
    follow.
    """
    parts = [[x for x in old if a <= x and x <= b] for a, b in problem.intervals]
    shares = np.cumsum([len(part) for part in parts]) * count / len(old)
    sizes = np.diff(np.r_[0, np.round(shares).astype(int)])
    shifts = [np.zeros(len(parts), dtype=int)]
    for i in range(len(parts) - 1):
        for k in (1, -1, 2, -2):
            shift = np.zeros(len(parts), dtype=int)
            shift[i], shift[i + 1] = k, -k
            shifts.append(shift)
    for shift in shifts:
        if min(sizes + shift) >= 0:
            points = []
            for part, size, interval in zip(parts, sizes + shift, problem.intervals, strict=True):
                points += _stretched(part if len(part) > 1 else list(interval), int(size))
            yield separated(points, problem)


def _extrapolated(problem: Problem, older: list[arb], old: list[arb], count: int) -> Iterator[list[arb]]:
    """A reference of `count` points guessed from the last two.

    In g = log((x - a)/(b - x)) on each interval [a, b], points at a fixed share of the way through the
    reference move about linearly in the square root of their number: so they do where they cluster at a
    singularity (Stahl), and where they do not they stand still.
    """
    shares = np.cumsum([sum(bool(a <= x) and bool(x <= b) for x in old) for a, b in problem.intervals])
    sizes = np.diff(np.r_[0, np.round(shares * count / len(old)).astype(int)])
    reach = (np.sqrt(count) - np.sqrt(len(old))) / (np.sqrt(len(old)) - np.sqrt(len(older)))
    guesses = []
    for before, now, size in zip(places_of(problem, older), places_of(problem, old), sizes, strict=True):
        ends = now[np.isinf(now)]
        before, now = before[np.isfinite(before)], now[np.isfinite(now)]
        inner = int(size) - len(ends)
        if min(len(before), len(now)) < 2 or inner < 1:
            return
        share = (np.arange(inner) + 0.5) / inner
        at = [np.interp(share, (np.arange(len(g)) + 0.5) / len(g), g) for g in (before, now)]
        guesses.append(np.sort(np.r_[at[1] + reach * (at[1] - at[0]), ends]))
    yield separated(placed(problem, guesses), problem)


def _stretched(part: list[arb], size: int) -> list[arb]:
    points = []
    for place in np.linspace(0, len(part) - 1, size) if size > 1 else [(len(part) - 1) / 2] * size:
        i = min(int(place), len(part) - 2)
        points.append((part[i] + (part[i + 1] - part[i]) * arb(float(place - i))).mid())
    return points


def separated(points: list[arb], problem: Problem) -> list[arb]:
    """Move a point that coincides with its left neighbour towards the right one."""
    for k in range(1, len(points)):
        if not points[k - 1] < points[k]:
            following = points[k + 1] if k + 1 < len(points) else problem.intervals[-1][1]
            points[k] = (points[k - 1] + (following - points[k - 1]) / 2).mid()
    return points


def guesses(known: list[tuple[float, list[np.ndarray]]], new: float) -> Iterator[list[np.ndarray]]:
    """References for the next stage: those of the last two extrapolated, and the last as it is."""
    last_at, last = known[-1]
    if len(known) > 1:
        older_at, older = known[-2]
        if [len(g) for g in last] == [len(g) for g in older]:
            reach = (new - last_at) / (last_at - older_at)
            with np.errstate(invalid="ignore"):  # points at the ends, at infinity here, stay
                moved = [now + reach * (now - old) for old, now in zip(older, last, strict=True)]
            yield [np.where(np.isfinite(g), g, now) for g, now in zip(moved, last, strict=True)]
    yield last


def places_of(problem: Problem, reference: list[arb]) -> list[np.ndarray]:
    """log((x - a)/(b - x)) of the points in each interval [a, b], +-inf at its ends."""
    found = []
    for a, b in problem.intervals:
        inside = [x for x in reference if a <= x and x <= b]
        found.append(
            np.array(
                [
                    -np.inf if x == a else np.inf if x == b else float(((x - a) / (b - x)).log())
                    for x in inside
                ]
            )
        )
    return found


def placed(problem: Problem, places: list[np.ndarray]) -> list[arb]:
    """The inverse of `_places`."""
    points = []
    for (a, b), values in zip(problem.intervals, places, strict=True):
        for g in map(float, values):
            if np.isinf(g):
                points.append(a if g < 0 else b)
            elif g < 0:
                points.append((a + (b - a) / (1 + arb(-g).exp())).mid())
            else:
                points.append((b - (b - a) / (1 + arb(g).exp())).mid())
    return points


def starts(problem: Problem, references: list[list[arb]], count: int) -> Iterator[list[arb]]:
    """Guesses for a reference of `count` points from those of smaller types, the most hopeful first."""
    if len(references) > 1:
        yield from _extrapolated(problem, references[-2], references[-1], count)
    if references:
        yield from _resized(problem, references[-1], count)
    yield first_reference(problem, count)
