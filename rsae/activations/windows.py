"""Shuffling order for rows that are expensive to read singly: shuffled units, shuffled within windows.

A unit is a run of rows that come together at little more than the cost of one: neighbours on a disk, tokens of a
sequence that a host runs over.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch


class Windows:
    """Each epoch takes the units in a fresh random order, a window of them at a time, and shuffles its rows.

    rows_U: rows of each unit; window: rows of a window, about; load: gives the rows [N, D] of the units that it is
    given, one after the other. The two last windows are kept, so that memory is that of two windows.
    """

    def __init__(self, rows_U: Sequence[int], window: int, load: Callable[[list[int]], torch.Tensor]):
        self.rows_U, self.window, self.load = rows_U, window, load
        self._plan: tuple[int, list[list[int]], list[int]] | None = None
        self._kept: dict[tuple[int, int], torch.Tensor] = {}

    def rows(self, start: int, count: int, seed: int) -> torch.Tensor:
        """Rows `start` to `start + count` of the epoch that `seed` names: a pure function of its arguments."""
        units, edges = self._epoch(seed)
        parts = []
        number = bisect_right(edges, start) - 1
        while count:
            offset = start - edges[number]
            part = self._window(seed, number, units[number])[offset : offset + count]
            parts.append(part)
            start, count, number = start + len(part), count - len(part), number + 1
        return torch.cat(parts)

    def _epoch(self, seed: int) -> tuple[list[list[int]], list[int]]:
        """The epoch's windows, as lists of units, and the row at which each begins."""
        if self._plan is None or self._plan[0] != seed:
            order = torch.randperm(len(self.rows_U), generator=torch.Generator().manual_seed(seed)).tolist()
            units: list[list[int]] = [[]]
            room = self.window
            for unit in order:
                if room <= 0:
                    units.append([])
                    room = self.window
                units[-1].append(unit)
                room -= self.rows_U[unit]
            edges = list(accumulate((sum(self.rows_U[u] for u in w) for w in units), initial=0))
            self._plan = (seed, units, edges)
        return self._plan[1], self._plan[2]

    def _window(self, seed: int, number: int, units: list[int]) -> torch.Tensor:
        key = (seed, number)
        if key not in self._kept:
            while len(self._kept) > 1:
                self._kept.pop(next(iter(self._kept)))
            x_ND = self.load(units)
            generator = torch.Generator().manual_seed(seed + 7919 * (number + 1))
            self._kept[key] = x_ND[torch.randperm(len(x_ND), generator=generator)]
        return self._kept[key]
