"""Checkpoint formats, one file each; which one a path holds is seen from its files."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch

from rsae.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    linear,
    llama_scope,
    native,
    openai,
    sparsify,
)
from rsae.formats.checks import read_state
from rsae.sae import SAE
from rsae.support.errors import InputError, did_you_mean

WRITERS = {
    "saelens": (native.save, None),
    "dictionary_learning": (dictionary_learning.save, dictionary_learning.FAMILIES),
    "sparsify": (sparsify.save, sparsify.FAMILIES),
    "gemma_scope": (gemma_scope.save, gemma_scope.FAMILIES),
    "circuit_tracer": (circuit_tracer.save, circuit_tracer.FAMILIES),
}
_TRANSCODERS = ("saelens", "sparsify", "gemma_scope", "circuit_tracer")
#: The file that gives a format away
_MARKS = {
    native.WEIGHTS: "saelens",
    f"{native.WEIGHTS}.index.json": "saelens",
    sparsify.WEIGHTS: "sparsify",
    f"{sparsify.WEIGHTS}.index.json": "sparsify",
    dictionary_learning.WEIGHTS: "dictionary_learning",
    gemma_scope.NPZ: "gemma_scope",
    gemma_scope.SAFETENSORS: "gemma_scope",
    llama_scope.CFG: "llama_scope",
    circuit_tracer.CONFIG: "circuit_tracer",
}
#: Public formats of models that are no autoencoders, by a file that gives them away
_OTHERS = {
    "W_enc_0.safetensors": "a cross-layer transcoder",
}
Kind = Literal["sae", "transcoder"]


def load(
    path: str | os.PathLike,
    *,
    input_scale: float | None = None,
    hook: str | None = None,
    kind: Kind | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
) -> SAE:
    """Load an SAE in any supported format. Nothing is unpickled.

    Args:
        path: A directory, a file of its own (`.pt`, `.pth`, `.npz`), or a hub repository OWNER/NAME.
        input_scale: sqrt(d_in) / mean ||x||, where the SAE was trained on activations scaled so and no file holds the
            number; it is folded in.
        hook: The hook point that it belongs to, where the files say none, or another.
        kind: `sae` or `transcoder`, where the names of Gemma Scope's directories would say another.
        revision: Of a hub repository: a branch, tag or commit.
        subfolder: The SAE's folder in the source, or its file.

    Returns:
        The SAE, in the host's units, in eval mode.

    Raises:
        InputError: The message names the file, the field or tensor, what was expected there and the remedy.
    """
    if kind not in (None, *get_args(Kind)):
        raise InputError(f"kind {kind!r} is unknown{did_you_mean(str(kind), get_args(Kind))}")
    path = os.fspath(path)
    local = Path(path)
    if not local.exists():
        if path.count("/") == 1 and not path.startswith((".", "/", "~")):
            from rsae.formats.hub import from_pretrained

            return from_pretrained(path, revision, subfolder, input_scale=input_scale, hook=hook, kind=kind)
        raise InputError(f"{path}: no such file or directory, and no name of a hub repository (OWNER/NAME)")
    if subfolder:
        local = local / subfolder
        if not local.exists():
            raise InputError(f"{local}: no such folder")
    sae = _load(local, detect(local), input_scale, hook, kind)
    if kind is not None and sae.transcodes != (kind == "transcoder"):
        is_ = "a transcoder" if sae.transcodes else "an SAE"
        raise InputError(f"{local}: is {is_} by its own files: leave kind={kind!r} out")
    if hook is not None:
        sae.provenance = replace(sae.provenance, hook=hook)
    return sae


def _load(local: Path, format: str, input_scale: float | None, hook: str | None, kind: Kind | None) -> SAE:
    directory = local if local.is_dir() else local.parent
    if format == "saelens":
        return native.load(directory, input_scale)
    if input_scale is not None:
        raise InputError(f"{local}: input_scale does not apply to the format {format!r}")
    if format == "openai":
        return openai.load(_only_pt(local))
    if format == "linear":
        return linear.load(_only_pt(local))
    if format == "gemma_scope":
        return gemma_scope.load(local, hook, kind)
    if format == "circuit_tracer":
        return circuit_tracer.load(local)
    readers = {
        "dictionary_learning": dictionary_learning.load,
        "sparsify": sparsify.load,
        "llama_scope": llama_scope.load,
    }
    return readers[format](directory)


def save(sae: SAE, path: str | os.PathLike, format: str = "saelens") -> None:
    """Save an SAE. Formats that fix whether b_dec is subtracted get the encoder's bias that makes up for it.

    Args:
        sae: The SAE.
        path: The directory.
        format: `saelens` (the native one), `dictionary_learning`, `sparsify`, `gemma_scope` or
            `circuit_tracer` (a layer of a directory).

    Raises:
        InputError: The format cannot hold the SAE; the message says which can. Or a weight is no number.
    """
    if format not in WRITERS:
        raise InputError(f"format {format!r} cannot be written{did_you_mean(format, WRITERS)}")
    write, _ = WRITERS[format]
    able = [name for name in WRITERS if _holds(name, sae)]
    if format not in able:
        what = "transcoder" if sae.transcodes else "SAE"
        raise InputError(
            f"format {format!r} cannot hold a {sae.family!r} {what}; these can: {', '.join(able)}"
        )
    if format != "saelens" and sae.layout is not None:
        raise InputError(
            f"format {format!r} cannot say of what hook points activations are joined; 'saelens' can"
        )
    if format != "saelens" and sae.input_norm is not None:
        raise InputError(f"format {format!r} cannot say that each token is normalised first; 'saelens' can")
    check_format(path, format)
    for (
        name,
        tensor,
    ) in sae.state_dict().items():  # nothing that was saved before is lost for what cannot be read
        if not torch.isfinite(tensor).all():
            raise InputError(f"{os.fspath(path)}: not written, since {name} holds NaN or infinity")
    write(sae, path)


def check_format(path: str | os.PathLike, format: str = "saelens") -> None:
    """Refuse a directory that holds an SAE in another format: formats share names such as cfg.json.

    Args:
        path: The directory.
        format: The one that is to be written there.

    Raises:
        InputError: It does.
    """
    for mark, other in _MARKS.items():
        if other != format and (Path(path) / mark).exists():
            raise InputError(f"{os.fspath(path)}: holds an SAE as {other} ({mark}); choose another directory")


def _holds(format: str, sae: SAE) -> bool:
    _, families = WRITERS[format]
    kinds = _TRANSCODERS if sae.transcodes else WRITERS.keys() - {"circuit_tracer"}
    return format in kinds and (families is None or sae.family in families)


def mark_in(folder: Path) -> str | None:
    """The file of a folder that gives an SAE away; None where there is none.

    Args:
        folder: The folder; it need not be there.
    """
    return next((mark for mark in _MARKS if (folder / mark).exists()), None)


def detect(path: str | os.PathLike) -> str:
    """The format of a directory or file.

    Args:
        path: The directory or file.

    Raises:
        InputError: There is none that is known; the message says what was looked for.
    """
    given = path = Path(path)
    if path.is_file():
        if circuit_tracer.is_layer(path):
            return "circuit_tracer"
        if path.name in _MARKS:
            return _MARKS[path.name]
        if path.suffix in (".pt", ".pth"):
            return _format_of_pt(path)
        if path.suffix == ".npz":
            return "gemma_scope"
        path = path.parent
    if (mark := mark_in(path)) is not None:
        return _MARKS[mark]
    for mark, what in _OTHERS.items():
        if (path / mark).exists():
            raise InputError(
                f"{path}: {what}, which predicts another activation than it reads: no autoencoder"
            )
    if len(found := sorted([*path.glob("*.pt"), *path.glob("*.pth")])) == 1:
        return _format_of_pt(found[0])
    if (path / circuit_tracer.CONFIG).exists() and any(path.glob("layer_*.safetensors")):
        return "circuit_tracer"  # of which one has to be named
    inside = _inside(path) if given is path else []
    hint = f"; there are some in its folders {', '.join(inside)}" if inside else ""
    if found:
        hint = f"; of its torch files {', '.join(f.name for f in found[:8])} name one"
    raise InputError(f"{given}: no SAE ({', '.join(_MARKS)} or one .pt file){hint}")


def _inside(path: Path) -> list[str]:
    """Folders with an SAE, for a message: some, from a bounded number of folders, as the path may be a whole disk."""
    inside = []
    for directory, folders, _ in itertools.islice(os.walk(path), 2000):
        folders.sort()
        at = Path(directory)
        if any((at / mark).exists() for mark in _MARKS):
            inside.append(str(at.relative_to(path)))
    return sorted(inside)[:8]


def _format_of_pt(path: Path) -> str:
    """A single torch file says by its tensors whose it is."""
    state = read_state(path)
    if "pre_bias" in state or "latent_bias" in state:
        return "openai"
    if "encoder_linear.weight" in state:
        return "linear"
    if isinstance(state.get("ae"), dict) or {"encoder.weight", "decoder.weight"} <= state.keys():
        raise InputError(
            f"{path}: looks like one of dictionary_learning's; name it ae.pt and put its config.json beside it, "
            "which says how it is read"
        )
    raise InputError(
        f"{path}: a torch file of no known format (tensors {', '.join(sorted(map(str, state))[:6])}); OpenAI's has "
        "pre_bias and latent_bias, Goodfire's encoder_linear.weight"
    )


def _only_pt(path: Path) -> Path:
    return path if path.is_file() else next(iter([*path.glob("*.pt"), *path.glob("*.pth")]))
