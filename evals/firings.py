"""Where latents fire in stored activations: some places of each, in passes whose memory does not grow with the text.

The tokens come from the store itself: no host runs. Shapes: N entries or rows, B rows of a block, F latents, S chosen
latents, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from rsae import SAE, Activations, Store
from rsae.support.files import read_tensors
from rsae.support.progress import progress

#: Numbers of a dense code that are made at a time
_BLOCK = 2**25
#: What stands for tokens that the store left out
GAP = "…"


def blocks(activations: Activations, split: str, d_sae: int) -> Iterator[tuple[int, torch.Tensor]]:
    """The activations of a split, few enough at a time for a dense code: the first row's number, and x_BD.

    Args:
        activations: The activations.
        split: `heldout` or `train`.
        d_sae: Number of latents.
    """
    start = 0
    for x_BD in activations.blocks(split, max(64, min(4096, _BLOCK // d_sae))):
        yield start, x_BD
        start += len(x_BD)


@dataclass(frozen=True)
class Entries:
    """Places where chosen latents fire."""

    row_N: np.ndarray
    """Row of the split."""
    latent_N: np.ndarray
    """Which of the chosen latents, from 0."""
    value_N: np.ndarray
    """The code there, not 0."""

    @property
    def side_N(self) -> np.ndarray:
        """Number of the latent's polarity: twice the latent, and one more where the code is negative."""
        return 2 * self.latent_N + (self.value_N < 0)


@torch.no_grad()
def entries(
    sae: SAE, activations: Activations, split: str, latents: list[int] | None, what: str
) -> Iterator[Entries]:
    """All places where latents fire, block by block.

    Args:
        sae: The SAE.
        activations: The activations.
        split: `heldout` or `train`.
        latents: Their numbers; None for all.
        what: Says in the progress bar what is made.
    """
    with progress(activations.tokens(split), what, "tok") as bar:
        for start, x_BD in blocks(activations, split, sae.d_sae):
            z_BF = sae.encode(x_BD.to(sae.W_enc.device))
            z_BS = z_BF if latents is None else z_BF[:, latents]
            row_N, latent_N = z_BS.nonzero(as_tuple=True)
            value_N = z_BS[row_N, latent_N].float().cpu().numpy()
            yield Entries(row_N.cpu().numpy() + start, latent_N.cpu().numpy(), value_N)
            bar.update(len(x_BD))


class Best:
    """Of each group those entries that have the largest keys, of all that were added, in whatever blocks.

    Args:
        most: Entries a group.
        once: Keep one entry of each sequence at most.
    """

    def __init__(self, most: int, once: bool = False):
        self.most, self.once = most, once
        #: the entries' group, key, row, value and sequence, by group and then the largest key first
        self.columns: dict[str, np.ndarray] = {}

    def add(
        self,
        group_N: np.ndarray,
        key_N: np.ndarray,
        row_N: np.ndarray,
        value_N: np.ndarray,
        sequence_N: np.ndarray | None = None,
    ) -> None:
        """Look at more entries.

        Args:
            group_N: The group of each.
            key_N: Its key.
            row_N: Its row.
            value_N: Its value.
            sequence_N: Its sequence, where that matters.
        """
        of_N = np.zeros_like(row_N) if sequence_N is None else sequence_N
        new = {"group": group_N, "key": key_N, "row": row_N, "value": value_N, "sequence": of_N}
        c = {k: np.concatenate([self.columns[k], v]) for k, v in new.items()} if self.columns else new
        if self.once:
            order = np.lexsort((-c["key"], c["sequence"], c["group"]))
            group, sequence = c["group"][order], c["sequence"][order]
            first = np.r_[True, (group[1:] != group[:-1]) | (sequence[1:] != sequence[:-1])][: len(order)]
            c = {k: v[order[first]] for k, v in c.items()}
        order = np.lexsort((-c["key"], c["group"]))
        self.columns = {k: v[order[rank_in_group(c["group"][order]) < self.most]] for k, v in c.items()}

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and values of a group's entries, the largest key first.

        Args:
            group: Its number.
        """
        if not self.columns:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        low, high = np.searchsorted(self.columns["group"], [group, group + 1])
        return self.columns["row"][low:high], self.columns["value"][low:high]


def rank_in_group(group_N: np.ndarray) -> np.ndarray:
    """Of entries that are sorted by group: how many of its group stand before each.

    Args:
        group_N: The group of each entry.
    """
    at_N = np.arange(len(group_N))
    first_N = np.r_[True, group_N[1:] != group_N[:-1]][: len(group_N)]
    return at_N - np.maximum.accumulate(np.where(first_N, at_N, 0))


def at_random(row_N: np.ndarray, other_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """A number in [0, 1) for each pair that looks random and does not depend on the order: a key for a fair sample.

    Args:
        row_N: First of each pair.
        other_N: Second of each pair.
        seed: Another seed gives other numbers.

    Source: the mixer of splitmix64 (Steele, Lea and Flood 2014).
    """
    mixed_N = row_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    for word_N in (other_N.astype(np.uint64), np.uint64(0)):
        mixed_N = mixed_N ^ word_N
        mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed_N = mixed_N ^ (mixed_N >> np.uint64(31))
    return (mixed_N >> np.uint64(11)).astype(np.float64) / 2**53


class Texts:
    """Which token stands in which row of a store's split.

    Args:
        store: The store.
        split: `heldout` or `train`.
    """

    def __init__(self, store: Store, split: str):
        shards = [s for s in store.manifest.shards if s.split == split]
        tensors = [read_tensors(store.path / shard.file) for shard in shards]
        columns = [
            np.concatenate([t[name].numpy() for t in tensors] or [np.zeros(0, dtype=np.int32)])
            for name in ("token_N", "position_N", "document_N")
        ]
        #: token id, position and document of each row
        self.token_N, self.position_N, self.document_N = columns
        new_N = (self.document_N[1:] != self.document_N[:-1]) | (self.position_N[1:] <= self.position_N[:-1])
        #: number of the sequence that each row is of, from 0 in the store's order
        self.sequence_N = np.r_[0, np.cumsum(new_N)][: len(self.document_N)]

    def window(self, row: int, around: int) -> range:
        """The rows of the same sequence at most `around` positions away.

        Args:
            row: The row in the middle.
            around: Positions on either side.
        """
        low, high = max(0, row - around), min(len(self.token_N), row + around + 1)
        same = self.sequence_N[low:high] == self.sequence_N[row]
        near = np.abs(self.position_N[low:high] - self.position_N[row]) <= around
        inside = np.flatnonzero(same & near) + low
        return range(int(inside[0]), int(inside[-1]) + 1)


@torch.no_grad()
def values_at(
    sae: SAE, activations: Activations, split: str, row_N: np.ndarray, latent_N: np.ndarray, what: str
) -> np.ndarray:
    """The code at given places, [N].

    Args:
        sae: The SAE.
        activations: The activations.
        split: `heldout` or `train`.
        row_N: The row of each place.
        latent_N: The latent of each place.
        what: Says in the progress bar what is made.
    """
    order = np.argsort(row_N, kind="stable")
    sorted_N = row_N[order]
    value_N = np.zeros(len(row_N), dtype=np.float32)
    with progress(activations.tokens(split), what, "tok") as bar:
        for start, x_BD in blocks(activations, split, sae.d_sae):
            low, high = np.searchsorted(sorted_N, [start, start + len(x_BD)])
            if high > low:
                z_BF = sae.encode(x_BD.to(sae.W_enc.device))
                at = order[low:high]
                found_N = z_BF[torch.as_tensor(row_N[at] - start), torch.as_tensor(latent_N[at])]
                value_N[at] = found_N.float().cpu().numpy()
            bar.update(len(x_BD))
    return value_N
