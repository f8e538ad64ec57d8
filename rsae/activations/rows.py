"""Rows of tensors, in memory or memory-mapped, by split: what `Store` and `InMemory` read from.

Shapes: B batch, D d_in, N rows of one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from rsae.activations.windows import Windows
from rsae.support.errors import InputError
from rsae.support.seeds import folded

RUN = 256  # neighbouring rows that a window takes together


class Scaled:
    """Rows in int8 with a scale each, read as float32: x = q s, s = max |x| / 127. It reads as a tensor [N, D] does.

    Args:
        q_ND: The rows.
        scale_N: Their scales.
    """

    def __init__(self, q_ND: torch.Tensor, scale_N: torch.Tensor):
        self.q_ND, self.scale_N, self.shape = q_ND, scale_N, q_ND.shape

    @classmethod
    def of(cls, x_ND: torch.Tensor) -> Scaled:
        """The nearest rows.

        Args:
            x_ND: Rows of finite numbers.
        """
        scale_N = x_ND.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        return cls((x_ND / scale_N[:, None]).round().to(torch.int8), scale_N)

    def __len__(self) -> int:
        return len(self.q_ND)

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        return self.q_ND[index] * self.scale_N[index][:, None]

    def index_select(self, dim: int, index_B: torch.Tensor) -> torch.Tensor:
        """Some rows.

        Args:
            dim: 0, as a tensor's rows have it.
            index_B: Their numbers.
        """
        return self.q_ND.index_select(dim, index_B) * self.scale_N.index_select(0, index_B)[:, None]


class Rows:
    """Each split's rows: one tensor after the other.

    Args:
        parts: The tensors [N, D] of each split.
        name: What they are called in messages.
        window: 0 shuffles all training rows among each other; each batch then reads rows from everywhere, which is
            right as long as they fit into memory or the page cache. For more rows than that, the number of rows to
            shuffle at a time: an epoch then reads runs of 256 neighbouring rows in a random order.
    """

    def __init__(self, parts: Mapping[str, Sequence[torch.Tensor | Scaled]], name: str, window: int = 0):
        self.parts, self.name, self.window = parts, name, window
        self._order: tuple[int, torch.Tensor] | None = None

    def split(self, split: str) -> Sequence[torch.Tensor | Scaled]:
        """A split's tensors.

        Args:
            split: Its name.

        Raises:
            InputError: There is no such split.
        """
        if not self.parts.get(split):
            known = ", ".join(k for k, v in self.parts.items() if v)
            raise InputError(f"{self.name} has no split {split!r}; it has {known}")
        return self.parts[split]

    def blocks(self, split: str, rows: int) -> Iterator[torch.Tensor]:
        """The split's rows x_BD in order, as float32.

        Args:
            split: Its name.
            rows: Largest number at a time.
        """
        for x_ND in self.split(split):
            for start in range(0, len(x_ND), rows):
                yield x_ND[start : start + rows].float()

    def sample(self, total: int, rows: int, seed: int, split: str) -> torch.Tensor:
        """Random rows x_BD of the split, in order.

        Args:
            total: Rows of the split.
            rows: How many.
            seed: Of the choice.
            split: Its name.
        """
        generator = torch.Generator().manual_seed(folded(seed))
        index = torch.randperm(total, generator=generator)[:rows]
        return self._gather(split, index.sort().values)

    def ordered(self, start: int, count: int, seed: int) -> torch.Tensor:
        """Training rows x_BD in the order of an epoch.

        Args:
            start: The first row's place in that order.
            count: How many.
            seed: Of the order.
        """
        if self.window:
            return self._windows.rows(start, count, seed)
        if self._order is None or self._order[0] != seed:  # one epoch's permutation is kept
            total = sum(map(len, self.split("train")))
            self._order = (seed, torch.randperm(total, generator=torch.Generator().manual_seed(seed)))
        return self._gather("train", self._order[1][start : start + count])

    @cached_property
    def _windows(self) -> Windows:
        shards = self.split("train")
        runs = [(n, i, min(RUN, len(x) - i)) for n, x in enumerate(shards) for i in range(0, len(x), RUN)]

        def load(chosen: list[int]) -> torch.Tensor:
            return torch.cat([shards[n][i : i + rows].float() for n, i, rows in (runs[u] for u in chosen)])

        return Windows([rows for _, _, rows in runs], self.window, load)

    def _gather(self, split: str, index_N: torch.Tensor) -> torch.Tensor:
        shards = self.split(split)
        bounds = torch.tensor([0] + [len(s) for s in shards]).cumsum(0)
        which_N = torch.bucketize(index_N, bounds[1:], right=True)
        places = which_N.argsort(stable=True).split(which_N.bincount(minlength=len(shards)).tolist())
        x_BD = torch.empty(len(index_N), shards[0].shape[1])
        for shard, start, place_B in zip(shards, bounds, places, strict=False):
            if len(place_B):
                # several times as fast as indices in brackets
                found_BD = shard.index_select(0, index_N.index_select(0, place_B) - start)
                x_BD.index_copy_(0, place_B, found_BD.float())
        return x_BD
