"""Points of a domain: evenly spaced ones, and ones that crowd where errors peak; a target sampled on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from flint import arb

from approx.rational import Rational
from approx.samples import Samples
from approx.target import Target


def grid_of(target: Target, size: int) -> np.ndarray:
    """`size` equally spaced points of the domain, ends included; a union shares them out by length, shape
    (size,).

    Args:
        target: the function to approximate.
        size: number of points.
    """
    lengths = np.array([b - a for a, b in target.domain])
    shares = np.floor(lengths / lengths.sum() * size).astype(int)
    shares[0] += size - shares.sum()
    return np.concatenate([np.linspace(a, b, k) for (a, b), k in zip(target.domain, shares, strict=True)])


def sample(target: Target, count: int, near: Sequence[float] | np.ndarray = ()) -> np.ndarray:
    """Points of a target's domain that crowd towards ends, kinks and jumps.

    Args:
        target: the target whose domain and breaks count.
        count: about how many points.
        near: more points that the sample has to hold.

    Returns:
        The points, ascending.
    """
    edges = [e for a, b in target.domain.split(target.breaks) for e in (a, b)]
    parts = [np.asarray([*near, *edges], dtype=float)]
    for x, y in target.domain.split(target.breaks):
        size = max(16, int(count * (y - x) / target.domain.length))
        parts.append(x + (y - x) * (1 - np.cos(np.linspace(0, np.pi, size))) / 2)
        # ends can hide features that are exponentially small: log spacing towards each
        decay = (y - x) * np.geomspace(1e-16, 0.5, max(32, size // 8))
        parts += [x + decay, y - decay]
        if x * y > 0:
            # or, on an interval that spans many orders of magnitude, anywhere in between
            parts.append(np.geomspace(x, y, 256)[1:-1])
    points = np.unique(np.concatenate(parts))
    return points[target.domain.contains(points)]


_MOST = 1 << 17
_CELLS, _MOST_CELLS = 64, 40  # of an interval in balls, at first; of those that are halved at once
_NARROWEST = 1e-10  # of an interval, a cell
_INSIDE = np.linspace(0, 1, 17)


_SEEN: WeakKeyDictionary[Target, np.ndarray] = WeakKeyDictionary()


def landmarks(target: Target) -> np.ndarray:
    """Where a target or its weight turns or bends, as far as float64 shows it.

    The look gets finer until it shows nothing new, so that a target that oscillates is seen to. Where the target has
    an enclosure, ball arithmetic tells where it leaves what was seen: there the look begins anew.

    Args:
        target: the target.

    Returns:
        Points inside the domain, ascending; none of its ends and breaks.
    """
    if target not in _SEEN:
        functions = [target, target.weight] if isinstance(target.weight, Target) else [target]
        parts = target.domain.split(target.breaks)
        _SEEN[target] = np.concatenate(
            [np.unique(np.concatenate([_landmarks(f, a, b) for f in functions])) for a, b in parts]
        )
    return _SEEN[target]


def _landmarks(target: Target, a: float, b: float) -> np.ndarray:
    places, step = _turns(target, a, b)
    for low, high in _hidden(target, a, b, step) if target.enclosed else []:
        places = np.r_[places[(places < low) | (places > high)], _turns(target, low, high)[0]]
    return places


def _turns(target: Target, a: float, b: float) -> tuple[np.ndarray, float]:
    """Turns and bends between two points, and the step of the look that shows them."""
    size, seen = 257, -1
    while True:
        x = a + (b - a) * ((np.arange(size) + 0.5) / size)
        f = _values(target, x)
        with np.errstate(all="ignore"):  # a place is rounded as well, to a part of a step
            rounded = 4 * size * np.spacing(max(abs(a), abs(b))) / (b - a)
            noise = 1e-12 * float(np.max(np.abs(f), initial=0.0))
            noise = max(noise, rounded * float(np.max(np.abs(np.diff(f)), initial=0.0)))
        turns = [x[k // 2 + 1 : len(x)][_changes(np.diff(f, k), noise)] for k in (1, 2)]
        places = np.unique(np.concatenate(turns))
        # resolved: some points between neighbours, and no more of them than in the last look
        apart = np.min(np.diff(places), initial=np.inf) > 3 * (b - a) / size
        if (len(places) == seen and 12 * seen < size and apart) or size > _MOST:
            return places, (b - a) / size
        size, seen = 2 * size + 1, len(places)


def _values(target: Target, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(target(x), dtype=float), x.shape)


def _hidden(target: Target, a: float, b: float, step: float) -> list[tuple[float, float]]:
    """Cells where a target does what samples a step apart do not show, by halving those that may hold more."""
    edges = np.linspace(a, b, _CELLS + 1)
    left, right, found = edges[:-1], edges[1:], list[tuple[float, float]]()
    low, high = np.inf, -np.inf
    while len(left) and right[0] - left[0] > _NARROWEST * (b - a):
        f = _values(target, left[:, None] + (right - left)[:, None] * _INSIDE)
        good = f[np.isfinite(f)]
        low, high = min(low, np.min(good, initial=np.inf)), max(high, np.max(good, initial=-np.inf))
        bottom, top = np.min(f, axis=1), np.max(f, axis=1)
        balls = [
            target(arb((u + v) / 2, (v - u) / 2)) for u, v in zip(left.tolist(), right.tolist(), strict=True)
        ]
        bounds = np.array([(float(e.lower()), float(e.upper())) for e in balls]).reshape(-1, 2)
        with np.errstate(invalid="ignore"):
            steps = np.max(np.abs(np.diff(f, axis=1)), axis=1)
            more = np.maximum(bounds[:, 1] - top, bottom - bounds[:, 0]) - steps - 0.01 * max(high - low, 0.0)
            # what some of the finer samples show is still too narrow for them
            shown = (top - bottom > 0.05 * (high - low)) & (steps > 0.25 * (top - bottom))
            shown &= right - left < step * (len(_INSIDE) - 1)
            shown &= top - bottom > 1e-12 * np.maximum(np.abs(top), np.abs(bottom))  # and no rounding
        found += zip(left[shown].tolist(), right[shown].tolist(), strict=True)
        more = np.where(shown, 0.0, np.nan_to_num(more, nan=np.inf))
        split = np.argsort(-more)[: min(_MOST_CELLS, int(np.sum(more > 0)))]
        middle = (left[split] + right[split]) / 2
        left, right = np.r_[left[split], middle], np.r_[middle, right[split]]
    return _joined(sorted((max(a, 2 * u - v), min(b, 2 * v - u)) for u, v in found))


def _joined(cells: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of ascending cells, as cells that are apart."""
    found: list[tuple[float, float]] = []
    for low, high in cells:
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _changes(values: np.ndarray, noise: float) -> np.ndarray:
    """Indices before which the sign changes, values within the noise left out."""
    certain = np.flatnonzero(np.abs(values) > noise)
    return certain[1:][np.diff(np.sign(values[certain])) != 0]


@dataclass(frozen=True)
class Grid:
    """A target sampled: x in its domain, t in [-1, 1], values f and weights w, all of shape (size,)."""

    target: Target
    """What is sampled."""
    x: np.ndarray
    """Points of its domain, shape (size,)."""
    t: np.ndarray
    """The same in [-1, 1]."""
    f: np.ndarray
    """Values there."""
    w: np.ndarray
    """Weights there."""
    centre: float
    """Where t is 0."""
    half: float
    """What is 1 in t."""

    @classmethod
    def of(cls, target: Target, size: int) -> Grid:
        """`size` equally spaced points; samples are taken as they are.

        Args:
            target: the function to approximate.
            size: number of points.
        """
        if isinstance(target, Samples):
            low, high = target.hull
            centre, half = (low + high) / 2, (high - low) / 2
            return cls(target, target.x, (target.x - centre) / half, target.y, target.w, centre, half)
        return cls.at(target, grid_of(target, size))

    @classmethod
    def at(cls, target: Target, x: np.ndarray) -> Grid:
        """The points x of the domain.

        Args:
            target: the function to approximate.
            x: points of the domain, shape (size,).
        """
        low, high = target.hull
        centre, half = (low + high) / 2, (high - low) / 2
        f, w = (
            np.broadcast_to(np.asarray(v, dtype=float), x.shape) for v in (target(x), target.weight_at(x))
        )
        return cls(target, x, (x - centre) / half, f, w, centre, half)

    def thinned(self, most: int) -> Grid:
        """Weighted means of neighbouring points, which have the same least squares but for their spread.

        Args:
            most: how many points remain at most.

        Returns:
            The smaller grid, or this one where it has no more.
        """
        if len(self.x) <= most:
            return self
        starts = np.linspace(0, len(self.x), most + 1).astype(int)[:-1]
        total = np.add.reduceat(self.w**2, starts)
        x, t, f = (np.add.reduceat(self.w**2 * v, starts) / total for v in (self.x, self.t, self.f))
        return Grid(self.target, x, t, f, np.sqrt(total), self.centre, self.half)

    def mse(self, rational: Rational) -> float:
        """mean of (w (f - r))^2 over the grid.

        Args:
            rational: the rational function.
        """
        return float(np.mean((self.w * (self.f - rational(self.x))) ** 2))


def grid_mse(rational: Rational, target: Target, grid: int = 4001) -> float:
    """The mean square error over `grid` equally spaced points of the domain: the paper's measure of
    quality.

    Args:
        rational: the rational function.
        target: the function to approximate.
        grid: number of points.
    """
    return Grid.of(target, grid).mse(rational)
