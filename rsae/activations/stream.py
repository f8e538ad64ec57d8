"""Activations without a store: the host runs while the SAE trains.

Nothing is written, so nothing limits the number of tokens but time: each epoch runs the host over the text anew. Where
activations are used more than once (several SAEs, a teacher and its upgrade), a store is faster.
Shapes: B batch, D d_in, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
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
from rsae.activations.units import Units
from rsae.activations.windows import Windows
from rsae.provenance import Provenance
from rsae.support.errors import InputError
from rsae.support.seeds import folded


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
        also: Further hook points, of which `at` gives the activations of the same tokens: the host runs once for all. A
            token that is above the norm limit at one of them is left out at all.

    Raises:
        InputError: As for `harvest`; a hook point is named twice.
    """

    def __init__(
        self,
        config: HarvestConfig,
        host: Host | None = None,
        window: int = 65_536,
        also: Sequence[str] = (),
    ):
        self.host = host or load_host(config.host, dtype=config.host_dtype)
        self.config, self.window = (config := config.run_by(self.host)), window
        self.host.check_context(config.context)
        hooks = [config.hook, *([] if config.target is None else [config.target]), *also]
        if len({config.hook, *also}) <= len(also):
            raise InputError(f"hook points {', '.join([config.hook, *also])}: name each once")
        self.hook_points = [HookPoint.parse(hook, self.host) for hook in hooks]
        self.excluded = torch.tensor(self.host.token_ids(config.exclude_tokens), dtype=torch.long)
        self.sequences = {
            split: [s.ids for s in sequences] for split, sequences in plan_splits(self.host, config).items()
        }
        first = torch.randperm(
            len(self.sequences["train"]), generator=torch.Generator().manual_seed(folded(config.seed))
        )
        measured = [self.sequences["train"][i] for i in first[:SEQUENCES_A_SHARD].tolist()]
        parts, allowed_N = self._run(measured)
        norms = [x_ND.norm(dim=1) for x_ND in parts]
        self.limits = [config.norm_limit * norm_N.median().item() for norm_N in norms]
        kept_N = allowed_N & self._within(parts)
        if not kept_N.any():
            raise InputError(
                f"the stream of {config.text}: no token is left of the first {len(measured)} sequences: exclude_tokens "
                f"and norm_limit {config.norm_limit:g} leave them out; change these"
            )
        self.widths = [x_ND.shape[1] for x_ND in parts]
        self.scales = [
            w**0.5 / norm_N[kept_N].double().mean().item()
            for w, norm_N in zip(self.widths, norms, strict=True)
        ]
        #: of training, at each hook point
        self.all_units = [
            Units.measured(x_ND[kept_N], scale) for x_ND, scale in zip(parts, self.scales, strict=True)
        ]
        self.limit, self.d_in, self.scale = self.limits[0], self.widths[0], self.scales[0]
        self.units = self.all_units[0]
        target_limit = self.limits[1] if config.target else None
        excluded = self.excluded.tolist()
        self.provenance = provenance_of(config, self.host, self.limit, excluded, target_limit)
        self.name = f"the stream of {config.text}"
        self.target = None
        if config.target is not None:
            self.target = StreamPart(self, 1, "target", self.provenance, f"the target of {self.name}")
        #: the activations at each hook point: of `config.hook` and of those in `also`
        self.at: dict[str, Stream | StreamPart] = {config.hook: self}
        for number, hook in enumerate(also, len(hooks) - len(also)):
            own = replace(config, hook=hook, target=None)
            known = provenance_of(own, self.host, self.limits[number], excluded, None)
            self.at[hook] = StreamPart(self, number, hook, known, f"{self.name} at {hook}")

    @cached_property
    def identity(self) -> Any:
        """What tells it from other activations."""
        settings = {k: v for k, v in asdict(self.config).items() if k != "dtype"}
        if len(self.at) > 1:
            settings["also"] = [*self.at][1:]
        return settings | {"window": self.window, "limit": self.limits, "scale": self.scales}

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
        for x_BD in self._blocks(split, rows):
            yield x_BD[:, : self.d_in]

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Activations x_BD of random sequences of the split (all of them where it holds fewer).

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        return self._sample(rows, seed, split)[:, : self.d_in]

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch x_BD: a pure function of its arguments.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Of the order.
        """
        return self._batch(step, size, seed)[:, : self.d_in]

    # --- rows of the input and, beside it, of the target -----------------------------------------------------

    def _blocks(self, split: str, rows: int) -> Iterator[torch.Tensor]:
        sequences = self._split(split)
        for start in range(0, len(sequences), SEQUENCES_A_SHARD):
            yield from self._kept(sequences[start : start + SEQUENCES_A_SHARD]).split(rows)

    def _sample(self, rows: int, seed: int, split: str) -> torch.Tensor:
        sequences = self._split(split)
        generator = torch.Generator().manual_seed(folded(seed))
        found: list[torch.Tensor] = []
        order = torch.randperm(len(sequences), generator=generator).tolist()
        for start in range(0, len(order), SEQUENCES_A_SHARD):
            if sum(map(len, found)) >= rows:
                break
            found.append(self._kept([sequences[i] for i in order[start : start + SEQUENCES_A_SHARD]]))
        x_ND = torch.cat(found)
        return x_ND[torch.randperm(len(x_ND), generator=generator)[:rows]]

    def _batch(self, step: int, size: int, seed: int) -> torch.Tensor:
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
        parts, allowed_N = self._run([self.sequences["train"][u] for u in units])
        out_N = ~(allowed_N & self._within(parts))
        x_ND = torch.cat(parts, dim=1)
        if out_N.any():
            kept_ND = x_ND[~out_N]
            generator = torch.Generator().manual_seed(units[0])
            x_ND[out_N] = kept_ND[torch.randint(len(kept_ND), (int(out_N.sum()),), generator=generator)]
        return x_ND

    def _within(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Rows whose norms are within the limits, at each hook point."""
        return torch.stack(
            [x_ND.norm(dim=1) <= limit for x_ND, limit in zip(parts, self.limits, strict=True)]
        ).all(0)

    def _run(self, sequences: list[list[int]]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Activations at each hook point, and which of them are of tokens that are not excluded."""
        found = run_sequences(self.host, self.hook_points, sequences)
        token_N = torch.cat([torch.tensor(ids[1:], dtype=torch.long) for ids in sequences])
        return [torch.cat(rows) for rows in found], ~torch.isin(token_N, self.excluded)

    def _kept(self, sequences: list[list[int]]) -> torch.Tensor:
        parts, allowed_N = self._run(sequences)
        return torch.cat(parts, dim=1)[allowed_N & self._within(parts)]


class StreamPart:
    """A stream's activations at another of its hook points, such as what a transcoder predicts of its tokens.

    Args:
        stream: The stream, which runs the host once for all.
        number: Which of its hook points.
        what: What tells it from the others.
        provenance: Where it comes from.
        name: What to call it in messages.
    """

    target = None

    def __init__(self, stream: Stream, number: int, what: str, provenance: Provenance, name: str):
        self._stream, self.provenance, self.name = stream, provenance, name
        first = sum(stream.widths[:number])
        self.d_in, self.scale = stream.widths[number], stream.scales[number]
        self.units = stream.all_units[number]
        self._columns = slice(first, first + self.d_in)
        self._what = what

    @property
    def identity(self) -> Any:
        """What tells it from other activations."""
        return [self._stream.identity, self._what]

    def tokens(self, split: str = "train") -> int:
        """How many tokens the split holds.

        Args:
            split: `train` or `heldout`.
        """
        return self._stream.tokens(split)

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """The split's activations in order, as float32.

        Args:
            split: `train` or `heldout`.
            rows: Largest number at a time.
        """
        for x_BD in self._stream._blocks(split, rows):
            yield x_BD[:, self._columns]

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Those that belong to the stream's own sample.

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        return self._stream._sample(rows, seed, split)[:, self._columns]

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Those that belong to the stream's own batch.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Of the order.
        """
        return self._stream._batch(step, size, seed)[:, self._columns]
