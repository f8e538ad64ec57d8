"""Run a host over text and write its activations to a store. A killed harvest continues where it stopped.

Shapes: B batch, P position, D d_in, N tokens of a shard.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from rsae.activations import remote
from rsae.activations.hooks import HookPoint, activations_at_all, batches, pad
from rsae.activations.host import (
    DTYPES,
    EMBEDDED_HOST,
    Host,
    HostDtype,
    computed_in,
    load_host,
)
from rsae.activations.rows import Scaled
from rsae.activations.store import MANIFEST, TARGET, VERSION, Manifest, Shard, Store
from rsae.activations.text import Document, load_documents, split_documents
from rsae.activations.versions import check_versions, settings_in, versions
from rsae.provenance import Provenance
from rsae.support.errors import InputError, checked
from rsae.support.files import read_json, sha256, write_json, write_tensors
from rsae.support.parts import check_part, shares
from rsae.support.progress import progress

SEQUENCES_A_SHARD = 128
_SHARDS_AT_MOST = 4096  # more sequences than 128 times that make larger shards, not more of them
_SHORTEST = 8  # a piece of fewer tokens is left out
_PLAN = "plan.json"


@checked
@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class HarvestConfig:
    """What to harvest."""

    host: str = EMBEDDED_HOST
    """`smollm2-135m` (embedded), a directory, a .gguf file or a hub name."""
    hook: str = "blocks.12.hook_resid_pre"
    """The hook point; see `rsae.activations.hooks`."""
    target: str | None = None
    """The hook point that a transcoder is to predict of it, for the same tokens; None for none."""
    text: str = "wikipedia"
    """`wikipedia` (embedded), a .txt, .jsonl(.gz, .zst) or .parquet file, a directory of such files."""
    context: Annotated[int, Field(ge=_SHORTEST)] = 128
    """Tokens a sequence, BOS included."""
    tokens: PositiveInt = 125_000
    """Training tokens, at least."""
    heldout_tokens: PositiveInt = 12_000
    """Held-out tokens, at least; from other documents."""
    norm_limit: PositiveFloat = 10.0
    """Tokens whose norm is above this many times the median are left out. They are attention sinks: about ten in
    100,000 tokens, which would make up most of the variance."""
    seed: int = 0
    """Of the split of the documents."""
    dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    """Of the activations on disk: bfloat16 and float16 halve the store, int8 with a scale a token makes it a quarter.
    What that costs stands in the manifest (`storage_error`)."""
    host_dtype: HostDtype = "float32"
    """Of the host's weights and of its forward pass; `mixed`: float32, but for products in bfloat16; `auto`: `mixed`
    where the processor multiplies in bfloat16, else float32 (a store that is there goes on as it was begun)."""
    bos: Literal["host", "on", "off"] = "host"
    """A BOS token in front of every sequence: as the host's tokenizer does it, always, or never."""
    exclude_tokens: tuple[int | str, ...] = ()
    """Tokens whose activations are left out, by id or by text."""

    def run_by(self, host: Host) -> Self:
        """It with what is true of a host that was loaded already: whether its products are in bfloat16.

        Args:
            host: The host.
        """
        own = "mixed" if host.mixed else "float32"
        return replace(self, host_dtype=own) if host.mixed or self.host_dtype in ("mixed", "auto") else self


class Sequence(NamedTuple):
    """Token ids, and the number of the document that they come from."""

    document: int
    ids: list[int]


def harvest(config: HarvestConfig, out: str | os.PathLike, host: Host | None = None) -> Store:
    """Write the activations of one hook point to a directory, and open them.

    It leaves out position 0 of every sequence and tokens above the norm limit (both outliers), padding, and the tokens
    of `exclude_tokens`. Everything is checked before the first write. Shards that are there and whole are kept.

    Args:
        config: What to harvest.
        out: The directory, or a URL in object storage.
        host: The host, where it is loaded already; by default it is loaded as `config` says.

    Returns:
        The finished store.

    Raises:
        InputError: Host, hook point or text do not fit, the text is too short, `out` holds a store of other settings or
            cannot be written.
    """
    return harvest_all(config, {config.hook: out}, host)[config.hook]


def harvest_all(
    config: HarvestConfig,
    out: Mapping[str, str | os.PathLike],
    host: Host | None = None,
    part: tuple[int, int] | None = None,
) -> dict[str, Store]:
    """Write the activations of several hook points in one pass over the host; each store is as `harvest` makes it.

    Args:
        config: What to harvest; its `hook` is not used.
        out: A directory for each hook point.
        host: The host, where it is loaded already.
        part: (i, n), one of n processes that see the same directories: make a share of the shards (and the first, which
            sets the norm limit, where no other makes it meanwhile), and finish no store. The same call without it,
            after them, does.

    Returns:
        The finished stores by hook point; for a part those that were finished before.
    """
    if part is not None:
        check_part(part, "part")
    for path in out.values():
        remote.fetched_manifest(path)
    config = settled(config, map(remote.local, out.values())) if host is None else config.run_by(host)
    stores = {hook: _Unfinished(replace(config, hook=hook), remote.local(path)) for hook, path in out.items()}
    missing = {hook: store for hook, store in stores.items() if not all(s.finished() for s in store.both)}
    if missing:
        lacking = [store for pair in missing.values() for store in pair.both]
        for store in lacking:
            store.check_directory()
        host = host or load_host(config.host, dtype=config.host_dtype)
        host.check_context(config.context)
        for store in lacking:
            store.point = HookPoint.parse(store.config.hook, host)
        plans = plan_splits(host, config)
        excluded = host.token_ids(config.exclude_tokens)
        for store in lacking:
            store.begin(alone=part is None)
        _run(host, list(missing.values()), plans, excluded, part)
    if part is not None:
        return {hook: Store.open(store.out) for hook, store in stores.items() if hook not in missing}
    for path in out.values():
        remote.sent(path)
    return {hook: Store.open(store.out, verify=False) for hook, store in stores.items()}


def settled(config: HarvestConfig, out: Iterable[Path], device: str | torch.device = "cpu") -> HarvestConfig:
    """The harvest with its `auto` settled: as the first of the stores there was begun, else as suits the device.

    Args:
        config: The harvest.
        out: Directories of stores.
        device: Where the host runs.
    """
    if config.host_dtype != "auto":
        return config
    for path in out:
        if (path / MANIFEST).exists():  # all that is known of one in object storage
            return replace(config, host_dtype=Manifest.read(path).settings.get("host_dtype", "float32"))
        if (path / _PLAN).exists():
            return replace(config, host_dtype=read_json(path / _PLAN).get("host_dtype", "float32"))
    return replace(config, host_dtype=computed_in("auto", device))


class _Unfinished:
    """A store that is being made."""

    point: HookPoint

    def __init__(self, config: HarvestConfig, out: Path):
        self.config, self.out = config, out
        self.shards: list[Shard] = []
        self._measured: float | None = None
        own = replace(config, hook=config.target, target=None) if config.target else None
        #: the store of what a transcoder predicts of the same tokens
        self.target = None if own is None else _Unfinished(own, out / TARGET)

    @property
    def both(self) -> list[_Unfinished]:
        """It, and its target's where it has one: they hold the same tokens."""
        return [self] if self.target is None else [self, self.target]

    @property
    def settings(self) -> dict:
        made = asdict(self.config) | {"exclude_tokens": list(self.config.exclude_tokens)}
        usual = {"target": None, "host_dtype": "float32"}  # not told, as stores of earlier versions do not
        return {k: v for k, v in made.items() if k not in usual or v != usual[k]}

    def finished(self) -> bool:
        """Whether it is there, whole, and of these settings."""
        if not (self.out / MANIFEST).exists():
            return False
        manifest = Manifest.read(self.out)
        if manifest.settings != self.settings:
            raise self._other_settings(manifest.settings)
        check_versions(self.out, self.out / _PLAN, self.config.text, self.config.host)
        return all(
            (self.out / s.file).exists() and sha256(self.out / s.file) == s.sha256 for s in manifest.shards
        )

    def check_directory(self) -> None:
        """A directory with finished shards of other settings is refused; one where nothing was finished is not."""
        plan = self.out / _PLAN
        marks = any(self.out.glob("*-[0-9][0-9][0-9][0-9][0-9].json"))
        there = read_json(plan) if marks and plan.exists() else self.settings
        if settings_in(there) != self.settings:
            raise self._other_settings(there)
        if marks:
            check_versions(self.out, self.out / _PLAN, self.config.text, self.config.host)

    def _other_settings(self, there: dict) -> InputError:
        usual = asdict(HarvestConfig())
        there, mine = usual | there, usual | self.settings
        told = ", ".join(f"{k} {there[k]!r} and not {mine[k]!r}" for k in usual if there[k] != mine[k])
        return InputError(
            f"{self.out} holds a store of other settings ({told}); choose another directory or delete it"
        )

    def begin(self, alone: bool) -> None:
        """The first write; `alone`, no other process makes a part of it."""
        write_json(self.out / _PLAN, self.settings | versions(self.config.text, self.config.host))
        for torn in self.out.glob(".*.tmp") if alone else ():  # of a run that was killed while it wrote
            torn.unlink()

    @property
    def limit(self) -> float | None:
        """Largest norm that is kept: the first shard sets it."""
        return self.shards[0].norm_limit if self.shards else self._measured

    def line(self, file: Path) -> Shard | None:
        """A shard that an earlier run finished."""
        mark = file.with_suffix(".json")  # written after the shard: says that it is whole
        if mark.exists() and file.exists():
            line = Shard(**read_json(mark))
            if sha256(file) == line.sha256:
                return line
        return None

    def file(self, split: str, number: int) -> Path:
        """Where a shard lies."""
        return self.out / f"{split}-{number:05d}.safetensors"

    def within(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Which rows are within the limit: that of the first shard, or of this one, which is then the first."""
        norm_N = x_ND.norm(dim=1)
        limit = self.limit
        if limit is None:
            limit = self._measured = self.config.norm_limit * norm_N.median().item()
        return norm_N <= limit

    def write(
        self,
        file: Path,
        split: Literal["train", "heldout"],
        x_ND: torch.Tensor,
        chosen: list[Sequence],
        first: int,
        keep_N: torch.Tensor,
        beyond: int,
    ) -> Shard:
        """Write a shard, whose first sequence is the split's `first`; `beyond` rows are above the limit."""
        x_ND = x_ND[keep_N]
        if self.config.dtype == "int8":
            stored = Scaled.of(x_ND)
            tensors = {"x_ND": stored.q_ND, "scale_N": stored.scale_N}
        else:
            stored = x_ND.to(DTYPES[self.config.dtype])
            tensors = {"x_ND": stored}
        if not stored[:].isfinite().all():
            raise InputError(
                f"{file}: activations at {self.config.hook} of host {self.config.host!r} are not finite in "
                f"{self.config.dtype}; harvest with dtype float32 or bfloat16"
            )
        places = {
            "token_N": torch.cat([torch.tensor(ids[1:], dtype=torch.int32) for _, ids in chosen]),
            "position_N": torch.cat([torch.arange(1, len(ids), dtype=torch.int32) for _, ids in chosen]),
            "document_N": torch.cat(
                [torch.full((len(ids) - 1,), number, dtype=torch.int32) for number, ids in chosen]
            ),
            # with the position: the same token in stores of other hook points, which leave out others
            "sequence_N": torch.cat(
                [
                    torch.full((len(ids) - 1,), first + i, dtype=torch.int32)
                    for i, (_, ids) in enumerate(chosen)
                ]
            ),
        }
        write_tensors(file, tensors | {name: value[keep_N] for name, value in places.items()})
        spread = (x_ND - x_ND.mean(0)).square().sum().item()
        error = (x_ND - stored[:].float()).square().sum().item() / max(spread, 1e-30)
        line = Shard(file.name, split, len(x_ND), sha256(file), self.limit, beyond, error)
        write_json(file.with_suffix(".json"), asdict(line))
        return line

    def finish(self, host: Host, excluded: list[int]) -> None:
        """Write the manifest."""
        c = self.config
        target_limit = None if self.target is None else self.target.limit
        parts = [Store(self.out, Manifest(VERSION, 1, 1.0, self.shards)).blocks("train")]
        total, d_in = 0.0, 0
        for x_BD in parts[0]:
            total, d_in = total + x_BD.double().norm(dim=1).sum().item(), x_BD.shape[1]
        tokens = sum(s.tokens for s in self.shards if s.split == "train")
        if not total:
            raise InputError(
                f"{self.out}: no training token is left, or all are zero: norm_limit {c.norm_limit:g} leaves out what "
                "is above so many times the median norm, exclude_tokens the tokens that it names; change these, and "
                "harvest into another directory"
            )
        everything = sum(s.tokens for s in self.shards)
        error = sum(s.storage_error * s.tokens for s in self.shards) / max(everything, 1)
        provenance = provenance_of(c, host, self.limit, excluded, target_limit)
        if c.dtype != "float32":
            scale = " with a scale a token" if c.dtype == "int8" else ""
            told = f"stored in {c.dtype}{scale}, which costs {error:.2g} of the variance"
            provenance = replace(provenance, storage=told)
        Manifest(
            version=VERSION,
            d_in=d_in,
            scale=d_in**0.5 * tokens / total,
            shards=self.shards,
            provenance=provenance.metadata(),
            settings=self.settings,
            excluded_positions=excluded_positions(excluded),
            storage_error=error,
            normalisation="x * scale has mean norm sqrt(d_in) on the training tokens",
        ).write(self.out)


class _Chunk(NamedTuple):
    """The sequences of a shard, and the number of the first among those of its split."""

    split: Literal["train", "heldout"]
    number: int
    start: int
    sequences: list[Sequence]

    @property
    def tokens(self) -> int:
        """How many of them are harvested."""
        return sum(len(s.ids) - 1 for s in self.sequences)


def _run(
    host: Host,
    stores: list[_Unfinished],
    plans: dict[str, list[Sequence]],
    excluded: list[int],
    part: tuple[int, int] | None,
) -> None:
    """Shard by shard: the host runs once for all stores that lack one."""
    chunks = []
    for split in ("train", "heldout"):
        size = max(SEQUENCES_A_SHARD, -(-len(plans[split]) // _SHARDS_AT_MOST))
        for start in range(0, len(plans[split]), size):
            chunks.append(_Chunk(split, start // size, start, plans[split][start : start + size]))
    mine = (
        chunks if part is None else [chunks[i] for i in shares([c.tokens for c in chunks], part[1])[part[0]]]
    )
    for split in ("train", "heldout"):
        those = [chunk for chunk in mine if chunk.split == split]
        if not those:
            continue
        with progress(sum(chunk.tokens for chunk in those), f"harvest {split}", "tok") as bar:
            for chunk in those:
                _make(host, stores, chunk, chunks[0], excluded, bar)
    if part is None:
        for pair in stores:
            for store in reversed(pair.both):  # the manifest of the whole comes last
                store.finish(host, excluded)


def _make(
    host: Host,
    stores: list[_Unfinished],
    chunk: _Chunk,
    first: _Chunk,
    excluded: list[int],
    bar: tqdm | None,
) -> None:
    """A shard of each store that lacks it; `first` is the one that sets the norm limit."""
    files = {s: s.file(chunk.split, chunk.number) for pair in stores for s in pair.both}
    lines = {s: s.line(file) for s, file in files.items()}
    # what a store and its target keep is decided together
    lacking = [pair for pair in stores if None in [lines[s] for s in pair.both]]
    if lacking:
        made = [s for pair in lacking for s in pair.both]
        began = time.monotonic()
        rows = run_sequences(host, [s.point for s in made], [s.ids for s in chunk.sequences], bar)
        found = {s: torch.cat(x) for s, x in zip(made, rows, strict=True)}
        if chunk is not first and any(s.limit is None for s in made):
            _find_limits(host, stores, first, excluded, patience=time.monotonic() - began)
        token_N = torch.cat([torch.tensor(s.ids[1:]) for s in chunk.sequences])
        wanted_N = ~torch.isin(token_N, torch.tensor(excluded, dtype=token_N.dtype))
        for pair in lacking:
            within_N = torch.stack([s.within(found[s]) for s in pair.both]).all(0)
            beyond = int((~within_N).sum())
            for s in pair.both:
                lines[s] = s.write(
                    files[s],
                    chunk.split,
                    found[s],
                    chunk.sequences,
                    chunk.start,
                    within_N & wanted_N,
                    beyond,
                )
    elif bar is not None:
        bar.update(chunk.tokens)
        bar.set_postfix_str("reused", refresh=False)
    for s, line in lines.items():
        assert line is not None
        s.shards.append(line)


def _find_limits(
    host: Host, stores: list[_Unfinished], first: _Chunk, excluded: list[int], patience: float
) -> None:
    """The norm limits, for a part without the first shard: another process may make that now; else it is made here."""
    end = time.monotonic() + patience
    marks = [s.file(first.split, first.number).with_suffix(".json") for pair in stores for s in pair.both]
    while not all(mark.exists() for mark in marks) and time.monotonic() < end:
        time.sleep(0.1)
    _make(host, stores, first, first, excluded, None)


def excluded_positions(excluded: list[int]) -> str:
    """Which positions are left out, in words.

    Args:
        excluded: Ids of the tokens that are left out.
    """
    first = "position 0 of every sequence, padding, and tokens above the norm limit"
    return first + (f"; tokens {', '.join(map(str, excluded))}" if excluded else "")


def provenance_of(
    config: HarvestConfig,
    host: Host,
    limit: float | None,
    excluded: list[int],
    target_limit: float | None = None,
) -> Provenance:
    """Where activations that are harvested so come from.

    Args:
        config: The harvest.
        host: The host.
        limit: Largest norm that is kept.
        excluded: Ids of the tokens that are left out.
        target_limit: Largest norm of the target that is kept.
    """
    point = HookPoint.parse(config.hook, host)
    return Provenance(
        model=config.host,
        hook=point.name,
        head=point.head,
        target=None if config.target is None else str(HookPoint.parse(config.target, host)),
        context=config.context,
        bos=bool(host.bos(config.bos)),
        text=config.text,
        exclude_tokens=tuple(excluded),
        norm_limit=limit,
        target_norm_limit=target_limit,
        note="; ".join(filter(None, [host.note, "run with products in bfloat16" if host.mixed else ""]))
        or None,
        split_seed=config.seed,
    )


def plan_splits(host: Host, config: HarvestConfig) -> dict[str, list[Sequence]]:
    """The sequences of both splits; nothing has run yet.

    Args:
        host: For its tokenizer.
        config: The harvest.

    Raises:
        InputError: The text is too short for a split.
    """
    parts = split_documents(load_documents(config.text), config.seed, tell=True)
    budgets = {"train": config.tokens, "heldout": config.heldout_tokens}
    return {
        split: plan_sequences(host, parts[split], config.context, budget, config.bos)
        for split, budget in budgets.items()
    }


def plan_sequences(
    host: Host,
    documents: list[Document],
    context: int,
    budget: int,
    bos: Literal["host", "on", "off"] = "host",
    all_there_are: bool = False,
) -> list[Sequence]:
    """Sequences in order, until there are enough tokens besides each sequence's first.

    Args:
        host: For its tokenizer.
        documents: The text.
        context: Tokens a sequence.
        budget: Tokens that are wanted.
        bos: See `HarvestConfig.bos`.
        all_there_are: Take all where the text holds fewer, and say so.

    Raises:
        InputError: The text holds fewer.
    """
    sequences, count, short = [], 0, []
    for number, document in enumerate(documents):
        pieces = host.sequences([document], context, _SHORTEST, bos)
        if not pieces:
            short.append(document.where or document.title or f"document {number + 1}")
        for ids in pieces:
            sequences.append(Sequence(number, ids))
            count += len(ids) - 1
        if count >= budget:
            break
    if short:
        print(
            f"{len(short)} texts have fewer than {_SHORTEST} tokens and are left out; the first is {short[0]}",
            file=sys.stderr,
        )
    if count < budget and not (all_there_are and count):
        raise InputError(
            f"the text holds {count} tokens for this split, {budget} are asked for; lower `tokens` or add text"
        )
    if count < budget:
        print(f"the text holds {count} tokens for this split, not {budget}: all are taken", file=sys.stderr)
    return sequences


def sequences_like(provenance: Provenance, host: Host, split: str, tokens: int) -> list[list[int]]:
    """Token ids of a split of the text that activations were harvested from.

    Args:
        provenance: Of the activations.
        host: Their host.
        split: `train`, of which all have to be there, or `heldout` or `probing`, of which there may be fewer.
        tokens: How many tokens, about.

    Raises:
        InputError: The activations do not say which text they come from, or the training split holds fewer.
    """
    text, context = provenance.known("text", "held-out text"), provenance.known("context", "held-out text")
    documents = split_documents(load_documents(text), provenance.split_seed or 0)[split]
    bos = "on" if provenance.bos else "off"
    return [s.ids for s in plan_sequences(host, documents, context, tokens, bos, split != "train")]


def run_sequences(
    host: Host, points: list[HookPoint], sequences: list[list[int]], bar: tqdm | None = None
) -> list[list[torch.Tensor]]:
    """Each hook point's activations x_PD of each sequence without position 0, as float32 on the CPU.

    Args:
        host: The host.
        points: The hook points.
        sequences: Token ids.
        bar: Counts tokens.
    """
    rows: list[dict[int, torch.Tensor]] = [{} for _ in points]
    for chosen in batches(sequences, host.device):
        tokens_BP, mask_BP = pad([sequences[i] for i in chosen], host.device)
        for found, x_BPD in zip(rows, activations_at_all(host, points, tokens_BP, mask_BP), strict=True):
            x_BPD = x_BPD.float().cpu()
            for row, i in enumerate(chosen):
                found[i] = x_BPD[row, 1 : len(sequences[i])]
        if bar is not None:
            bar.update(sum(len(sequences[i]) - 1 for i in chosen))
            bar.set_postfix_str("", refresh=False)
    return [[found[i] for i in range(len(sequences))] for found in rows]
