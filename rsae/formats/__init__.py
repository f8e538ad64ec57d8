"""Checkpoint formats, one file each; which one a path holds is seen from its files."""

from __future__ import annotations

import os
from pathlib import Path

from rsae.support.errors import InputError, did_you_mean
from rsae.formats import dictionary_learning, gemma_scope, native, openai, sparsify
from rsae.sae import FAMILIES, SAE

WRITERS = {
    "saelens": (native.save, tuple(FAMILIES)),
    "dictionary_learning": (dictionary_learning.save, dictionary_learning.FAMILIES),
    "sparsify": (sparsify.save, sparsify.FAMILIES),
    "gemma_scope": (gemma_scope.save, gemma_scope.FAMILIES),
}
#: The file that gives a format away
_MARKS = {
    native.WEIGHTS: "saelens",
    sparsify.WEIGHTS: "sparsify",
    dictionary_learning.WEIGHTS: "dictionary_learning",
    gemma_scope.NPZ: "gemma_scope",
    gemma_scope.SAFETENSORS: "gemma_scope",
}


def load(
    path: str | os.PathLike,
    *,
    input_scale: float | None = None,
    normalised: bool = False,
    revision: str | None = None,
    subfolder: str | None = None,
) -> SAE:
    """Load an SAE in any supported format, from a directory, a file of its own (`.pt`, `.npz`), or a hub repository.

    input_scale: sqrt(d_in) / mean ||x||, where the file was trained on activations scaled so and does not hold the
    number; it is folded in. normalised: load an SAE whose tokens are normalised one by one as one of activations that
    you normalise yourself. revision, subfolder: of a hub repository (see `from_pretrained`). Nothing is unpickled.

    Raises `InputError` that names the file, the field or tensor, what was expected there and the remedy.
    """
    path = os.fspath(path)
    local = Path(path)
    if not local.exists():
        if path.count("/") == 1 and not path.startswith((".", "/", "~")):
            from rsae.formats.hub import from_pretrained

            return from_pretrained(path, revision, subfolder, input_scale=input_scale, normalised=normalised)
        raise InputError(f"{path}: no such file or directory, and no name of a hub repository (OWNER/NAME)")
    if subfolder:
        local = local / subfolder
    format = detect(local)
    directory = local if local.is_dir() else local.parent
    if format == "saelens":
        return native.load(directory, input_scale, normalised)
    if input_scale is not None or (normalised and format != "openai"):
        raise InputError(f"{local}: input_scale and normalised do not apply to the format {format!r}")
    if format == "openai":
        return openai.load(_only_pt(local), normalised)
    if format == "gemma_scope":
        return gemma_scope.load(local)
    return {"dictionary_learning": dictionary_learning.load, "sparsify": sparsify.load}[format](directory)


def save(sae: SAE, path: str | os.PathLike, format: str = "saelens") -> None:
    """Save an SAE to a directory, in the native format `saelens` or in another that can hold its family.

    Formats that fix whether b_dec is subtracted get the encoder's bias that makes up for it. Raises `InputError` where
    the format cannot hold the SAE, and says which can.
    """
    if format not in WRITERS:
        raise InputError(f"format {format!r} cannot be written{did_you_mean(format, WRITERS)}")
    write, families = WRITERS[format]
    if sae.family not in families:
        able = ", ".join(name for name, (_, held) in WRITERS.items() if sae.family in held)
        raise InputError(f"format {format!r} cannot hold a {sae.family!r} SAE; these can: {able}")
    if format != "saelens" and "input_normalisation" in sae.metadata:
        raise InputError(f"format {format!r} cannot say that activations come normalised; 'saelens' can")
    write(sae, path)


def detect(path: str | os.PathLike) -> str:
    """The format of a directory or file; `InputError` says what was looked for where there is none."""
    path = Path(path)
    if path.is_file():
        if path.name in _MARKS:
            return _MARKS[path.name]
        if path.suffix == ".pt":
            return "openai"
        if path.suffix == ".npz":
            return "gemma_scope"
        path = path.parent
    for mark, format in _MARKS.items():
        if (path / mark).exists():
            return format
    if len(list(path.glob("*.pt"))) == 1:
        return "openai"
    marks = [found for mark in _MARKS for found in path.glob(f"**/{mark}")]
    inside = sorted({str(found.parent.relative_to(path)) for found in marks})[:8]
    hint = f"; there are some in its folders {', '.join(inside)}" if inside else ""
    raise InputError(f"{path}: no SAE ({', '.join(_MARKS)} or one .pt file){hint}")


def _only_pt(path: Path) -> Path:
    return path if path.is_file() else next(path.glob("*.pt"))
