"""Run a host over text and write its activations to a store. A killed harvest goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from rsae.activations.hooks import HookPoint, activations_at, pad
from rsae.activations.host import DTYPES, EMBEDDED_HOST, Host, load_host
from rsae.activations.store import VERSION, Store
from rsae.activations.text import Document, load_documents, split_documents
from rsae.support.errors import InputError
from rsae.support.files import read_json, sha256, write_json, write_tensors
from rsae.support.progress import progress

SEQUENCES_A_SHARD = 128
_SHARDS_AT_MOST = 4096  # more sequences than 128 times that make larger shards, not more of them
_SEQUENCES_A_BATCH = 16
EXCLUDED = "position 0 of every sequence, padding, and tokens above the norm limit"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HarvestConfig:
    """What to harvest.

    host: `smollm2-135m` (embedded), a directory or a hub name; hook: a TransformerLens name; text: `wikipedia`
    (embedded), a .txt or a .jsonl file; context: tokens a sequence; tokens and heldout_tokens: at least so many
    are kept, from different articles; norm_limit: tokens whose norm is above so many times the median are left out
    (attention sinks: some ten in 100,000 tokens, which would make up most of the variance); seed: of the split by
    article; dtype: of the activations on disk (bfloat16 and float16 halve the store).
    """

    host: str = EMBEDDED_HOST
    hook: str = "blocks.12.hook_resid_pre"
    text: str = "wikipedia"
    context: PositiveInt = 128
    tokens: PositiveInt = 125_000
    heldout_tokens: PositiveInt = 12_000
    norm_limit: PositiveFloat = 10.0
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


def harvest(config: HarvestConfig, out: str | os.PathLike, host: Host | None = None) -> Store:
    """Write the activations that `config` asks for to the directory `out`, and open them.

    Left out are position 0 of every sequence and tokens above the norm limit (both outliers), and padding. Shards that
    are there and whole are kept. Raises `InputError` where `out` holds a store of other settings or cannot be written.
    """
    out = Path(out)
    settings = _settings(config)
    plan_file, manifest_file = out / "plan.json", out / "manifest.json"
    if plan_file.exists() and _settings(HarvestConfig()) | read_json(plan_file) != settings:
        raise InputError(
            f"{out} holds a store of other settings (see plan.json); choose another directory or delete it"
        )
    if manifest_file.exists():
        recorded = {s["file"]: s["sha256"] for s in read_json(manifest_file)["shards"]}
        if all((out / f).exists() and sha256(out / f) == digest for f, digest in recorded.items()):
            return Store.open(out, verify=False)
    write_json(plan_file, settings)
    for torn in out.glob(".*.tmp"):  # of a run that was killed while it wrote
        torn.unlink()
    host = host or load_host(config.host)
    point = HookPoint.parse(config.hook, host)
    parts = split_documents(load_documents(config.text), config.seed)

    shards: list[dict] = []
    limit: float | None = None  # the first shard sets it
    for split, budget in (("train", config.tokens), ("heldout", config.heldout_tokens)):
        sequences = plan_sequences(host, parts[split], config.context, budget)
        kept = sum(len(ids) - 1 for _, ids in sequences)
        size = max(SEQUENCES_A_SHARD, -(-len(sequences) // _SHARDS_AT_MOST))
        with progress(kept, f"harvest {split}", "tok") as bar:
            for start in range(0, len(sequences), size):
                file = out / f"{split}-{start // size:05d}.safetensors"
                chosen = sequences[start : start + size]
                shards.append(_shard(host, point, chosen, file, config, limit, bar) | {"split": split})
                limit = shards[0]["norm_limit"]

    manifest = {
        "version": VERSION,
        **settings,
        "host_note": host.note,
        "d_in": host.d_model,
        "excluded_positions": EXCLUDED,
        "excluded_norm": limit,
        "excluded_by_norm": sum(s["excluded_by_norm"] for s in shards),
        "bos": "none prepended",
        "scale": _scale(out, shards, host.d_model),
        "normalisation": "x * scale has mean norm sqrt(d_in) on the training tokens",
        "shards": shards,
    }
    write_json(manifest_file, manifest)
    return Store.open(out, verify=False)


def plan_sequences(
    host: Host, documents: list[Document], context: int, budget: int
) -> list[tuple[int, list[int]]]:
    """(document number, token ids) in order, until `budget` tokens besides each sequence's first are there."""
    sequences, count = [], 0
    for number, document in enumerate(documents):
        for ids in host.sequences([document], context):
            sequences.append((number, ids))
            count += len(ids) - 1
        if count >= budget:
            return sequences
    raise InputError(
        f"the text holds {count} tokens for this split, {budget} are asked for; lower `tokens` or add text"
    )


def _settings(config: HarvestConfig) -> dict:
    return {k: getattr(config, k) for k in HarvestConfig.__dataclass_fields__}


def run_sequences(
    host: Host, point: HookPoint, sequences: list[list[int]], bar: tqdm | None = None
) -> list[torch.Tensor]:
    """Each sequence's activations x_PD without position 0, as float32 on the CPU; `bar` counts tokens."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))  # little padding in a batch
    rows: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), _SEQUENCES_A_BATCH):
        chosen = order[start : start + _SEQUENCES_A_BATCH]
        tokens_BP, mask_BP = pad([sequences[i] for i in chosen], host.device)
        x_BPD = activations_at(host, point, tokens_BP, mask_BP).float().cpu()
        for row, i in enumerate(chosen):
            rows[i] = x_BPD[row, 1 : len(sequences[i])]
        if bar is not None:
            bar.update(sum(len(rows[i]) for i in chosen))
            bar.set_postfix_str("", refresh=False)
    return [rows[i] for i in range(len(sequences))]


def _shard(
    host: Host,
    point: HookPoint,
    sequences: list[tuple[int, list[int]]],
    file: Path,
    config: HarvestConfig,
    limit: float | None,
    bar: tqdm,
) -> dict:
    """Write one shard, or take it over from an earlier run, and return its line in the manifest.

    Without a `limit` on the norm, it is `config.norm_limit` times the median of this shard.
    """
    mark = file.with_suffix(".json")  # written after the shard: says that it is whole
    if mark.exists() and file.exists() and sha256(file) == read_json(mark)["sha256"]:
        line = read_json(mark)
        bar.update(line["tokens"] + line["excluded_by_norm"])
        bar.set_postfix_str("reused", refresh=False)
        return line
    x_ND = torch.cat(run_sequences(host, point, [ids for _, ids in sequences], bar))
    norm_N = x_ND.norm(dim=1)
    limit = config.norm_limit * norm_N.median().item() if limit is None else limit
    kept_N = norm_N <= limit
    tensors = {
        "x_ND": x_ND.to(DTYPES[config.dtype]),
        "token_N": torch.cat([torch.tensor(ids[1:], dtype=torch.int32) for _, ids in sequences]),
        "position_N": torch.cat([torch.arange(1, len(ids), dtype=torch.int32) for _, ids in sequences]),
        "document_N": torch.cat(
            [torch.full((len(ids) - 1,), number, dtype=torch.int32) for number, ids in sequences]
        ),
    }
    if not tensors["x_ND"][kept_N].isfinite().all():
        raise InputError(
            f"{file}: activations at {point} of host {host.name!r} are not finite in {config.dtype}; "
            "harvest with dtype float32 or bfloat16"
        )
    write_tensors(file, {name: value[kept_N] for name, value in tensors.items()})
    line = {
        "file": file.name,
        "tokens": int(kept_N.sum()),
        "sha256": sha256(file),
        "norm_limit": limit,
        "excluded_by_norm": int((~kept_N).sum()),
    }
    write_json(mark, line)
    return line


def _scale(out: Path, shards: list[dict], d_in: int) -> float:
    store = Store(out, {"shards": shards, "d_in": d_in})
    total = sum(x_BD.double().norm(dim=1).sum().item() for x_BD in store.blocks("train"))
    return d_in**0.5 * store.tokens() / total
