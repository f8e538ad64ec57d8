"""Activations without a store: the host runs while the SAE trains.

Nothing is written, so nothing limits the number of tokens but time: each epoch runs the host over the text anew. Where
activations are used more than once (several SAEs, a teacher and its upgrade), a store is faster.
Shapes: B batch, D d_in, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch

from rsae.activations.harvest import (
    SEQUENCES_A_SHARD,
    HarvestConfig,
    plan_splits,
    provenance_of,
    run_sequences,
)
from rsae.activations.hooks import HookPoint
from rsae.activations.host import Host, load_host
from rsae.activations.protocol import epoch_of
from rsae.activations.windows import Windows
from rsae.support.errors import InputError


class Stream:
    """Activations made on the fly: train on it as on a store.

    An epoch takes the text's sequences in a random order by (seed, epoch), so that a batch is a pure function of
    (step, size, seed): a killed run that resumes recomputes one window. The norm limit and `scale` are measured on 128
    training sequences. A token that is left out (above the limit, or excluded) gives its place to another of its
    window, so that a step's place in the text is known without running the host.

    Args:
        config: As for `harvest`; its `dtype` is not used.
        host: The host, where it is loaded already.
        window: Activations to shuffle at a time, in float32 in memory.

    Raises:
        InputError: As for `harvest`.
    """

    def __init__(self, config: HarvestConfig, host: Host | None = None, window: int = 65_536):
        self.config, self.window = config, window
        self.host = host or load_host(config.host)
        self.host.check_context(config.context)
        self.point = HookPoint.parse(config.hook, self.host)
        self.excluded = torch.tensor(self.host.token_ids(config.exclude_tokens), dtype=torch.long)
        self.sequences = {
            split: [s.ids for s in sequences] for split, sequences in plan_splits(self.host, config).items()
        }
        first = torch.randperm(
            len(self.sequences["train"]), generator=torch.Generator().manual_seed(config.seed)
        )
        measured = [self.sequences["train"][i] for i in first[:SEQUENCES_A_SHARD].tolist()]
        x_ND, allowed_N = self._run(measured)
        norm_N = x_ND.norm(dim=1)
        self.limit = config.norm_limit * norm_N.median().item()
        kept_N = allowed_N & (norm_N <= self.limit)
        self.d_in: int = x_ND.shape[1]
        self.scale: float = self.d_in**0.5 / norm_N[kept_N].double().mean().item()
        self.provenance = provenance_of(config, self.host, self.limit, self.excluded.tolist())
        self.name = f"the stream of {config.text}"

    @cached_property
    def identity(self) -> Any:
        """What tells it from other activations."""
        settings = {k: v for k, v in asdict(self.config).items() if k != "dtype"}
        return settings | {"window": self.window, "limit": self.limit, "scale": self.scale}

    def tokens(self, split: str = "train") -> int:
        """How many tokens the split holds.

        Args:
            split: `train` or `heldout`.
        """
        return sum(len(ids) - 1 for ids in self._split(split))

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """The split's activations x_BD in order, as float32.

        Args:
            split: `train` or `heldout`.
            rows: Largest number at a time.
        """
        sequences = self._split(split)
        for start in range(0, len(sequences), SEQUENCES_A_SHARD):
            yield from self._kept(sequences[start : start + SEQUENCES_A_SHARD]).split(rows)

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Activations x_BD of random sequences of the split (all of them where it holds fewer).

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        sequences = self._split(split)
        generator = torch.Generator().manual_seed(seed)
        found: list[torch.Tensor] = []
        order = torch.randperm(len(sequences), generator=generator).tolist()
        for start in range(0, len(order), SEQUENCES_A_SHARD):
            if sum(map(len, found)) >= rows:
                break
            found.append(self._kept([sequences[i] for i in order[start : start + SEQUENCES_A_SHARD]]))
        x_ND = torch.cat(found)
        return x_ND[torch.randperm(len(x_ND), generator=generator)[:rows]]

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch x_BD: a pure function of its arguments.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Of the order.
        """
        start, order = epoch_of(step, size, self.tokens(), seed, self.name)
        return self._windows.rows(start, size, order)

    def _split(self, split: str) -> list[list[int]]:
        if split not in self.sequences:
            raise InputError(f"{self.name} has no split {split!r}; it has {', '.join(self.sequences)}")
        return self.sequences[split]

    @cached_property
    def _windows(self) -> Windows:
        return Windows([len(ids) - 1 for ids in self.sequences["train"]], self.window, self._load)

    def _load(self, units: list[int]) -> torch.Tensor:
        x_ND, allowed_N = self._run([self.sequences["train"][u] for u in units])
        out_N = ~allowed_N | (x_ND.norm(dim=1) > self.limit)
        if out_N.any():
            kept_ND = x_ND[~out_N]
            generator = torch.Generator().manual_seed(units[0])
            x_ND[out_N] = kept_ND[torch.randint(len(kept_ND), (int(out_N.sum()),), generator=generator)]
        return x_ND

    def _run(self, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations, and which of them are of tokens that are not excluded."""
        (found,) = run_sequences(self.host, [self.point], sequences)
        token_N = torch.cat([torch.tensor(ids[1:], dtype=torch.long) for ids in sequences])
        return torch.cat(found), ~torch.isin(token_N, self.excluded)

    def _kept(self, sequences: list[list[int]]) -> torch.Tensor:
        x_ND, allowed_N = self._run(sequences)
        return x_ND[allowed_N & (x_ND.norm(dim=1) <= self.limit)]
