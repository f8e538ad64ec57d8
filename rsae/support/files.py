"""Files that are either whole or absent: everything is written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from approx.files import whole
from rsae.support.errors import InputError


def cache_directory() -> Path:
    """`$RSAE_CACHE`, or `rsae` under the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RSAE_CACHE") or Path(home) / "rsae")


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name (of a file or a directory) beside `path`, as `approx.files.whole` does; makes its folder.

    Raises `InputError` where the place cannot be written or the disk is full.
    """
    try:
        if not os.path.exists(path):
            Path(os.path.realpath(path)).parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            yield temporary
    except (OSError, SafetensorError) as error:
        # safetensors wraps the system's error and keeps only its text
        code = getattr(error, "errno", None)
        full = code in _FULL or any(os.strerror(c) in str(error) for c in _FULL)
        reason = os.strerror(code) if code else str(error)
        remedy = (
            "free some space and run the same command again: what is finished is kept"
            if full
            else "choose a directory that you can write to"
        )
        raise InputError(f"cannot write {path}: {reason}; {remedy}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text as UTF-8, whatever the machine's own encoding is."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON; `InputError` names the file where it is absent or broken."""
    path = Path(path)
    try:
        # bytes, as JSON says its own encoding; NaN and Infinity, which Python alone writes, are not known
        return json.loads(path.read_bytes(), parse_constant=lambda name: None)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); write it anew") from error


def is_json(path: str | os.PathLike) -> bool:
    """Whether a file is there and can be read as JSON."""
    with suppress(InputError):
        read_json(path)
        return True
    return False


def write_tensors(path: str | os.PathLike, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file (contiguous copies, so that views and tied tensors are fine)."""
    with writing(path) as temporary:
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, temporary)


def write_torch(path: str | os.PathLike, value: Any) -> None:
    """Write what `torch.load(weights_only=True)` reads: through memory, as torch does not tell of a full disk."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with writing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_tensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read a safetensors file, memory-mapped; `InputError` names the file where it is absent or broken."""
    path = Path(path)
    try:
        with path.open("rb"):  # safetensors calls what may not be read absent
            return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except PermissionError:
        raise InputError(f"{path}: you may not read it; ask its owner for that (chmod)") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); write or fetch it anew") from error


def read_torch(path: str | os.PathLike) -> Any:
    """What `torch.save` wrote, with tensors and plain values only: nothing in it is run.

    Args:
        path: The file.

    Raises:
        InputError: The file is absent, torn, or holds anything else.
    """
    path = Path(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError:  # torch's own text advises to open it all the same
        raise InputError(
            f"{path}: not a whole file of tensors and plain values (it is torn, or holds pickled objects, which could "
            "run code): fetch it anew, or convert it where you trust it"
        ) from None
    except Exception as error:  # a torn or hostile file can fail in many ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: not a whole file of tensors and plain values ({reason}); anything else is not opened, "
            "as it could run code: fetch it anew, or convert it where you trust it"
        ) from error


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file's bytes."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError:
        raise InputError(f"{path}: you may not read it; ask its owner for that (chmod)") from None


def bytes_of(tensors: Iterable[torch.Tensor]) -> str:
    """Short hex digest of tensors' bytes; norms and sums would be those of entries in another order, too.

    Args:
        tensors: Dense ones, on any device, of any type.
    """
    made = hashlib.sha256()
    for tensor in tensors:
        made.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()[:16]


def contents(path: Path, files: Iterable[Path] | None = None) -> str:
    """Short hex digest of a file, or of a directory's files with their names in it.

    Args:
        path: The file or directory.
        files: Which of its files; by default all.
    """
    if files is None:
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return digest([[str(file.relative_to(path)), sha256(file)] for file in files])


def digest(value: Any) -> str:
    """Short hex digest of a JSON-able value: the key under which a step's result is reused."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
