"""Points of a domain: evenly spaced ones, and ones that crowd where errors peak; a target sampled on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
