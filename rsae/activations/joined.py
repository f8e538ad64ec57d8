"""Activations of several hook points side by side, token by token: what crosscoders are trained on.

Shapes: N rows, D width of a point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from rsae.activations.in_memory import InMemory
from rsae.activations.protocol import Activations
from rsae.activations.store import Store
from rsae.provenance import Provenance
from rsae.sae.layout import Layout, Point
from rsae.support.errors import InputError
from rsae.support.files import read_tensors

_SPLITS = ("train", "heldout")
#: Between the names of points
AND = " + "


def join(
    activations: Mapping[str, Activations],
    targets: Mapping[str, Activations] | None = None,
    layout: Layout | None = None,
) -> InMemory:
    """Join activations of the same tokens, each brought to mean norm sqrt of its width; in memory.

    A harvest leaves out tokens of outlying norm at each hook point by itself: of stores, the tokens that all hold are
    kept. Other activations are taken row by row.

    Args:
        activations: By the name of their hook point, in the order of layers. Stores of one harvest of several hook
            points (`rsae harvest --hook A --hook B`), or one's own activations.
        targets: What a cross-layer transcoder is to predict, likewise.
        layout: Of a crosscoder that is to meet them (`sae.layout`): its points and scales, which are kept. By default
            scales are measured on the training rows.

    Returns:
        The activations, with `points`, and their target where there are targets.

    Raises:
        InputError: They are not of the same tokens, or not of the points of the layout.
    """
    if not activations:
        raise InputError("join: give activations of a hook point at least")
    every = [*activations.values(), *(targets or {}).values()]
    rows = {split: _shared(every, split) for split in _SPLITS}
    reads = _points(activations, None if layout is None else layout.reads)
    made = _joined(activations, reads, [kept[: len(activations)] for kept in rows.values()])
    if targets:
        writes = _points(targets, None if layout is None else layout.writes)
        made.target = _joined(targets, writes, [kept[len(activations) :] for kept in rows.values()])
        made.provenance = replace(made.provenance, target=made.target.provenance.hook)
    return made


def _points(activations: Mapping[str, Activations], told: tuple[Point, ...] | None) -> tuple[Point, ...]:
    """The points that activations are of; what a layout tells of them."""
    if told is None:
        return tuple(
            Point(name, one.d_in, one.scale, one.provenance.norm_limit) for name, one in activations.items()
        )
    asked = [(name, one.d_in) for name, one in activations.items()]
    wanted = [(point.name, point.width) for point in told]
    if asked != wanted:
        raise InputError(f"join: the layout is of points (name, width) {wanted}, not of {asked}")
    return told


def _joined(
    activations: Mapping[str, Activations], points: tuple[Point, ...], kept: list[list[torch.Tensor | None]]
) -> InMemory:
    """The points side by side; `kept` are the rows of each, by split."""
    parts: dict[str, list[torch.Tensor]] = {}
    for split, rows in zip(_SPLITS, kept, strict=True):
        columns = []
        for one, point, kept_N in zip(activations.values(), points, rows, strict=True):
            x_ND = torch.cat([*one.blocks(split)])
            columns.append((x_ND if kept_N is None else x_ND[kept_N]) * point.scale)
        parts[split] = [torch.cat(columns, 1)]
    known = [one.provenance for one in activations.values()]
    first = known[0]
    if (
        len(
            {(one.model, one.text, one.context, one.split_seed, one.bos, one.exclude_tokens) for one in known}
        )
        > 1
    ):
        raise InputError("join: the activations are of other hosts or texts; join hook points of one harvest")
    provenance = Provenance(
        model=first.model,
        hook=AND.join(activations),
        context=first.context,
        bos=first.bos,
        text=first.text,
        exclude_tokens=first.exclude_tokens,
        split_seed=first.split_seed,
    )
    made = InMemory(parts, provenance)
    made.points = points
    return made


def _shared(every: list[Activations], split: str) -> list[torch.Tensor | None]:
    """Of each the rows whose tokens all hold; None for all of them."""
    if not all(isinstance(one, Store) for one in every):
        counts = [one.tokens(split) for one in every]
        if len(set(counts)) > 1:
            raise InputError(
                f"join: the activations hold {counts} rows ({split}); join those of the same tokens"
            )
        return [None for _ in every]
    places = [_places(one, split) for one in every if isinstance(one, Store)]
    common = set(places[0]).intersection(*places[1:])
    if not common:
        raise InputError(f"join: the stores share no token ({split}); join hook points of one harvest")
    return [torch.tensor([n for n, place in enumerate(own) if place in common]) for own in places]


def _places(store: Store, split: str) -> list[tuple[int, int]]:
    """Sequence and position of a store's tokens."""
    found: list[tuple[int, int]] = []
    for shard in store.manifest.shards:
        if shard.split == split:
            tensors = read_tensors(store.path / shard.file)
            if "sequence_N" not in tensors:
                raise InputError(
                    f"{store.path / shard.file}: made by an earlier release; harvest the store anew"
                )
            found += zip(tensors["sequence_N"].tolist(), tensors["position_N"].tolist(), strict=True)
    return found
