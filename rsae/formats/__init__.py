"""Checkpoint formats, one file each."""

from __future__ import annotations

import os

from rsae.errors import InputError
from rsae.formats import saelens
from rsae.sae.base import SAE


def load(path: str | os.PathLike) -> SAE:
    """Load an SAE from a directory in the native (SAELens) layout."""
    return saelens.load(path)


def save(sae: SAE, path: str | os.PathLike, format: str = "saelens") -> None:
    """Save an SAE to a directory; the only format so far is `saelens`, the native one."""
    if format != "saelens":
        raise InputError(f"format {format!r} cannot be written; only 'saelens' can")
    saelens.save(sae, path)
