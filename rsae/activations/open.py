"""Activations by their path, whatever they are: a store's directory, or files of one's own."""

from __future__ import annotations

from pathlib import Path

from rsae.activations.in_memory import InMemory
from rsae.activations.remote import is_url
from rsae.activations.store import MANIFEST, Store
from rsae.provenance import Provenance


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
