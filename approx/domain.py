"""`Domain`: where a function is approximated, an interval or a union of intervals."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

Interval = tuple[float, float]


class Domain(tuple[Interval, ...]):
    """A sorted union of closed intervals, held as the tuple of its pairs (a, b) of float64 ends.

    Args:
        domain: `(a, b)`, or `[(a, b), (c, d), ...]` for a union with gaps.

    Raises:
        ValueError: for empty, unordered, overlapping or unbounded intervals.
    """

    __slots__ = ()

    def __new__(cls, domain: Any) -> Domain:
        if isinstance(domain, Domain):
            return domain
        try:
            flat = np.asarray(domain, dtype=float)
            intervals = sorted((float(a), float(b)) for a, b in ([domain] if flat.ndim == 1 else domain))
        except (TypeError, ValueError):
            raise ValueError(f"domain={domain!r}: expected (a, b) or a list of such intervals") from None
        ends = [end for interval in intervals for end in interval]
        if not ends or not np.all(np.isfinite(ends)):
            raise ValueError(
                f"domain={domain!r} must be bounded and not empty; for [a, inf) there is `approx.half_line`"
            )
        if ends[-1] - ends[0] == np.inf:
            raise ValueError(f"domain={domain!r}: its length overflows float64")
        if any(a >= b for a, b in intervals) or any(b >= c for (_, b), (c, _) in pairwise(intervals)):
            raise ValueError(f"domain={domain!r}: intervals need a < b and must not touch or overlap")
        return super().__new__(cls, intervals)

    @property
    def hull(self) -> Interval:
        """The convex hull (a, b): the smallest interval that holds the domain."""
        return self[0][0], self[-1][1]

    @property
    def edges(self) -> tuple[float, ...]:
        """The ends of all intervals, ascending."""
        return tuple(end for interval in self for end in interval)

    @property
    def gaps(self) -> tuple[Interval, ...]:
        """The open intervals (b, c) between neighbouring intervals, ascending."""
        return tuple((b, c) for (_, b), (c, _) in pairwise(self))

    @property
    def length(self) -> float:
        """The sum of the lengths of the intervals."""
        return sum(b - a for a, b in self)

    def contains(self, x: Any) -> np.ndarray:
        """Whether the points lie in the domain.

        Args:
            x: points, an array of any shape.

        Returns:
            A boolean array of the shape of `x`.
        """
        x = np.asarray(x, dtype=float)
        return np.logical_or.reduce([(x >= a) & (x <= b) for a, b in self])

    def split(self, places: Iterable[float]) -> list[Interval]:
        """The intervals, cut at the places that lie inside them.

        Args:
            places: points, in any order; those outside the domain cut nothing.

        Returns:
            The parts (a, b), ascending.
        """
        cuts = sorted(places)
        return [part for a, b in self for part in pairwise([a, *(x for x in cuts if a < x < b), b])]

    def without(self, low: float, high: float) -> Domain:
        """The domain with the open interval (low, high) taken out.

        Args:
            low: left end of the gap.
            high: right end of the gap.

        Returns:
            The rest; parts that shrink to a point or less are left out.

        Raises:
            ValueError: if nothing is left.
        """
        parts = [part for a, b in self for part in ((a, min(b, low)), (max(a, high), b))]
        return Domain([(a, b) for a, b in parts if a < b])

    def __str__(self) -> str:
        return " u ".join(f"[{a:g}, {b:g}]" for a, b in self)
