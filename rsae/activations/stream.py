"""Activations without a store: the host runs while the SAE trains.

Nothing is written, so nothing limits the number of tokens but time: each epoch runs the host over the text anew. Where
activations are used more than once (several SAEs, a teacher and its upgrade), a store is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch

from rsae.activations.harvest import EXCLUDED, SEQUENCES_A_SHARD, HarvestConfig, plan_sequences, run_sequences
from rsae.activations.hooks import HookPoint
from rsae.activations.host import Host, load_host
from rsae.activations.store import VERSION, Store
from rsae.activations.text import load_documents, split_documents
from rsae.activations.windows import Windows
from rsae.support.errors import InputError


class Stream(Store):
    """What `Store` offers, made on the fly: train on it as on a store.

    config: as for `harvest` (its `dtype` is not used); window: activations that are shuffled at a time, in float32 in
    memory. An epoch takes the text's sequences in a random order by (seed, epoch), so that a batch is a pure function
    of (step, size, seed): a killed run that resumes recomputes one window.

    The norm limit and `scale` are measured on 128 training sequences. A token above the limit gives its place to
    another of its window, so that a step's place in the text is known without running the host.
    """

    def __init__(self, config: HarvestConfig, host: Host | None = None, window: int = 65_536):
        self.config = config
        self.host = host or load_host(config.host)
        self.point = HookPoint.parse(config.hook, self.host)
        parts = split_documents(load_documents(config.text), config.seed)
        self.sequences = {
            split: [ids for _, ids in plan_sequences(self.host, parts[split], config.context, budget)]
            for split, budget in (("train", config.tokens), ("heldout", config.heldout_tokens))
        }
        first = torch.randperm(
            len(self.sequences["train"]), generator=torch.Generator().manual_seed(config.seed)
        )
        measured = [self.sequences["train"][i] for i in first[:SEQUENCES_A_SHARD].tolist()]
        x_ND = torch.cat(self._run(measured))
        norm_N = x_ND.norm(dim=1)
        limit = config.norm_limit * norm_N.median().item()
        settings = {k: getattr(config, k) for k in HarvestConfig.__dataclass_fields__ if k != "dtype"}
        manifest = {
            "version": VERSION,
            **settings,
            "host_note": self.host.note,
            "d_in": self.host.d_model,
            "excluded_positions": EXCLUDED,
            "excluded_norm": limit,
            "bos": "none prepended",
            "scale": self.host.d_model**0.5 / norm_N[norm_N <= limit].double().mean().item(),
            "normalisation": f"x * scale has mean norm sqrt(d_in) on {SEQUENCES_A_SHARD} training sequences",
            # no files: what tells one stream from another, and how long it is
            "shards": [
                {"split": split, "tokens": sum(len(ids) - 1 for ids in rows), "stream": settings}
                for split, rows in self.sequences.items()
            ],
        }
        super().__init__(config.text, manifest, window)

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """The split's activations x_BD in order, as float32, `rows` at a time at the most."""
        sequences = self._split_sequences(split)
        for start in range(0, len(sequences), SEQUENCES_A_SHARD):
            x_ND = self._kept(torch.cat(self._run(sequences[start : start + SEQUENCES_A_SHARD])))
            yield from x_ND.split(rows)

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """`rows` activations x_BD of random sequences of the split (all of them where it holds fewer)."""
        sequences = self._split_sequences(split)
        generator = torch.Generator().manual_seed(seed)
        found: list[torch.Tensor] = []
        order = torch.randperm(len(sequences), generator=generator).tolist()
        for start in range(0, len(order), SEQUENCES_A_SHARD):
            if sum(map(len, found)) >= rows:
                break
            chosen = [sequences[i] for i in order[start : start + SEQUENCES_A_SHARD]]
            found.append(self._kept(torch.cat(self._run(chosen))))
        x_ND = torch.cat(found)
        return x_ND[torch.randperm(len(x_ND), generator=generator)[:rows]]

    def _split_sequences(self, split: str) -> list[list[int]]:
        if split not in self.sequences:
            raise InputError(f"the stream has no split {split!r}; it has {', '.join(self.sequences)}")
        return self.sequences[split]

    @cached_property
    def _windows(self) -> Windows:
        return Windows([len(ids) - 1 for ids in self.sequences["train"]], self.window, self._load)

    def _load(self, units: list[int]) -> torch.Tensor:
        x_ND = torch.cat(self._run([self.sequences["train"][u] for u in units]))
        long_N = x_ND.norm(dim=1) > self.manifest["excluded_norm"]
        if long_N.any():
            kept_ND = x_ND[~long_N]
            generator = torch.Generator().manual_seed(units[0])
            x_ND[long_N] = kept_ND[torch.randint(len(kept_ND), (int(long_N.sum()),), generator=generator)]
        return x_ND

    def _run(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        return run_sequences(self.host, self.point, sequences)

    def _kept(self, x_ND: torch.Tensor) -> torch.Tensor:
        return x_ND[x_ND.norm(dim=1) <= self.manifest["excluded_norm"]]
