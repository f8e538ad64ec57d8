"""Activations by their path, whatever they are: a store's directory, or files of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsae.activations.in_memory import InMemory
from rsae.activations.joined import join
from rsae.activations.remote import is_url
from rsae.activations.store import MANIFEST, Store
from rsae.provenance import Provenance
from rsae.sae.layout import Layout
from rsae.support.errors import InputError


def open_activations(
    path: str | Path, window: int = 0, heldout: float = 0.1, like: Provenance | None = None
) -> Store | InMemory:
    """Open a store, or read one's own activations.

    Args:
        path: A store's directory or URL; or a .npy, .pt or .safetensors file, or a directory of such files.
        window: Rows to shuffle at a time; 0 shuffles all.
        heldout: Of one's own activations: rows to hold out, or a share of them below 1.
        like: Of an SAE that was trained on as many rows: as many are held out as were then.
    """
    if is_url(path):
        return Store.open(path, window=window)
    path = Path(path)
    if (path / MANIFEST).exists():
        return Store.open(path, window=window)
    if path.is_dir() and any(path.glob("*-[0-9][0-9][0-9][0-9][0-9].safetensors")):
        return Store.open(path, window=window)  # an unfinished store: says so
    made = InMemory.of(path, int(heldout) if heldout >= 1 else heldout, window=window)
    if like is None or like.heldout_rows is None or like.rows != made.provenance.rows:
        return made
    return InMemory.of(path, like.heldout_rows, window=window)


def open_together(
    read: Sequence[str | Path],
    predicted: Sequence[str | Path],
    window: int = 0,
    heldout: float = 0.1,
    layout: Layout | None = None,
) -> Store | InMemory:
    """Open activations of one path, or join those of several.

    Args:
        read: Paths, as for `open_activations`.
        predicted: Those of what is to be predicted.
        window: Rows to shuffle at a time, of one path alone.
        heldout: As for `open_activations`.
        layout: Of a crosscoder that is to meet them.

    Raises:
        InputError: A window of several: what is joined lies in memory.
    """
    if len(read) == 1 and not predicted:
        return open_activations(read[0], window, heldout)
    if window:
        raise InputError(
            "--window: activations that are joined lie in memory and are shuffled whole; leave it out"
        )
    joined: list[dict[str, Store | InMemory]] = []
    for paths in (read, predicted):
        opened = [open_activations(path, 0, heldout) for path in paths]
        joined.append({a.provenance.hook or Path(p).name: a for a, p in zip(opened, paths, strict=True)})
    return join(joined[0], joined[1] or None, layout)
