"""What a folder holds: a store, an SAE and a run each have one of their own, since readers go by the files in it."""

from __future__ import annotations

import os
from pathlib import Path

from rsae.activations.remote import is_url
from rsae.activations.store import MANIFEST
from rsae.formats import mark_in
from rsae.support.errors import InputError

STORE, SAVED, RUN = "an activation store", "an SAE", "a run of `evals`"
UPGRADE, SWEEP = "an upgrade", "a tuning"  # whose SAEs lie in folders of their own
#: Marks of an SAE that many another tool writes
_COMMON = ("config.yaml", "hyperparams.json")


def check_free(folder: str | os.PathLike, kind: str) -> None:
    """Refuse a folder that holds something else than what is to be written there, or that cannot be one.

    Args:
        folder: The folder; one that is not there, and a URL, will do.
        kind: `STORE`, `SAVED`, `RUN`, `UPGRADE` or `SWEEP`.

    Raises:
        InputError: The message names the file that gives it away, or that is in the way.
    """
    if is_url(folder):
        return
    path = Path(folder)
    for part in (path, *path.parents):
        if part.is_file():
            raise InputError(
                f"{path}: {part} is a file, where a directory is needed; choose another directory"
            )
    here = next((part for part in (path, *path.parents) if part.exists()), path)
    if not os.access(here, os.W_OK | os.X_OK):
        raise InputError(f"{path}: {here} cannot be written to; choose another directory")
    marks = {
        STORE: MANIFEST if (path / MANIFEST).exists() else None,
        SAVED: None if (mark := mark_in(path)) in _COMMON else mark,
        RUN: "suite.toml" if (path / "suite.toml").exists() and (path / "sites").is_dir() else None,
    }
    for held, mark in marks.items():
        if mark is not None and held != kind:
            raise InputError(
                f"{path}: holds {held} ({mark}), where {kind} is to go; choose another directory"
            )
