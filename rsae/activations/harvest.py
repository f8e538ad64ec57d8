"""Run a host over text and write its activations to a store. A killed harvest goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from rsae.activations.hooks import HookPoint, activations_at, pad
from rsae.activations.host import EMBEDDED_HOST, Host, load_host
from rsae.activations.store import VERSION, Store
from rsae.activations.text import Document, load_documents, split_documents
from rsae.errors import InputError
from rsae.files import read_json, sha256, write_json, write_tensors
from rsae.progress import progress

_SEQUENCES_A_SHARD = 128
_SEQUENCES_A_BATCH = 16


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HarvestConfig:
    """What to harvest.

    host: `smollm2-135m` (embedded), a directory or a hub name; hook: a TransformerLens name; text: `wikipedia`
    (embedded), a .txt or a .jsonl file; context: tokens a sequence; tokens and heldout_tokens: at least so many
    are kept, from different articles; norm_limit: tokens whose norm is above so many times the median are left out
    (attention sinks: some ten in 100,000 tokens, which would make up most of the variance); seed: of the split by
    article.
    """

    host: str = EMBEDDED_HOST
    hook: str = "blocks.12.hook_resid_pre"
    text: str = "wikipedia"
    context: PositiveInt = 128
    tokens: PositiveInt = 125_000
    heldout_tokens: PositiveInt = 12_000
    norm_limit: PositiveFloat = 10.0
    seed: int = 0


def harvest(config: HarvestConfig, out: str | os.PathLike, host: Host | None = None) -> Store:
    """Write the activations that `config` asks for to the directory `out`, and open them.

    Left out are position 0 of every sequence and tokens above the norm limit (both outliers), and padding. Shards that
    are there and whole are kept. Raises `InputError` where `out` holds a store of other settings or cannot be written.
    """
    out = Path(out)
    settings = _settings(config)
    plan_file, manifest_file = out / "plan.json", out / "manifest.json"
    if plan_file.exists() and read_json(plan_file) != settings:
        raise InputError(
            f"{out} holds a store of other settings (see plan.json); choose another directory or delete it"
        )
    if manifest_file.exists():
        recorded = {s["file"]: s["sha256"] for s in read_json(manifest_file)["shards"]}
        if all((out / f).exists() and sha256(out / f) == digest for f, digest in recorded.items()):
            return Store.open(out, verify=False)
    write_json(plan_file, settings)
    host = host or load_host(config.host)
    point = HookPoint.parse(config.hook, host)
    parts = split_documents(load_documents(config.text), config.seed)

    shards: list[dict] = []
    limit: float | None = None  # the first shard sets it
    for split, budget in (("train", config.tokens), ("heldout", config.heldout_tokens)):
        sequences = plan_sequences(host, parts[split], config.context, budget)
        kept = sum(len(ids) - 1 for _, ids in sequences)
        with progress(kept, f"harvest {split}", "tok") as bar:
            for start in range(0, len(sequences), _SEQUENCES_A_SHARD):
                file = f"{split}-{start // _SEQUENCES_A_SHARD:05d}.safetensors"
                chosen = sequences[start : start + _SEQUENCES_A_SHARD]
                shards.append(
                    _shard(host, point, chosen, out / file, config.norm_limit, limit, bar) | {"split": split}
                )
                limit = shards[0]["norm_limit"]

    manifest = {
        "version": VERSION,
        **settings,
        "host_note": host.note,
        "d_in": host.d_model,
        "dtype": "float32",
        "excluded_positions": "position 0 of every sequence, padding, and tokens above the norm limit",
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


def _shard(
    host: Host,
    point: HookPoint,
    sequences: list[tuple[int, list[int]]],
    file: Path,
    multiple: float,
    limit: float | None,
    bar: tqdm,
) -> dict:
    """Write one shard, or take it over from an earlier run, and return its line in the manifest.

    Without a `limit` on the norm, it is `multiple` times the median of this shard.
    """
    mark = file.with_suffix(".json")  # written after the shard: says that it is whole
    if mark.exists() and file.exists() and sha256(file) == read_json(mark)["sha256"]:
        line = read_json(mark)
        bar.update(line["tokens"] + line["excluded_by_norm"])
        bar.set_postfix_str("reused", refresh=False)
        return line
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][1]))  # little padding in a batch
    rows: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), _SEQUENCES_A_BATCH):
        chosen = order[start : start + _SEQUENCES_A_BATCH]
        tokens_BP, mask_BP = pad([sequences[i][1] for i in chosen], host.device)
        x_BPD = activations_at(host, point, tokens_BP, mask_BP).float().cpu()
        for row, i in enumerate(chosen):
            rows[i] = x_BPD[row, 1 : len(sequences[i][1])]
        bar.update(sum(len(rows[i]) for i in chosen))
        bar.set_postfix_str("", refresh=False)
    indices = range(len(sequences))
    tensors = {
        "x_ND": torch.cat([rows[i] for i in indices]),
        "token_N": torch.cat([torch.tensor(sequences[i][1][1:], dtype=torch.int32) for i in indices]),
        "position_N": torch.cat([torch.arange(1, len(sequences[i][1]), dtype=torch.int32) for i in indices]),
        "document_N": torch.cat(
            [torch.full((len(sequences[i][1]) - 1,), sequences[i][0], dtype=torch.int32) for i in indices]
        ),
    }
    norm_N = tensors["x_ND"].norm(dim=1)
    limit = multiple * norm_N.median().item() if limit is None else limit
    kept_N = norm_N <= limit
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
