"""Text and host of a store as they were when it was begun: a path may lead to others by now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rsae.activations.text import digest_of
from rsae.support.errors import InputError
from rsae.support.files import read_json

_TEXT, _HOST = "text_digest", "host_digest"
#: What a host's directory is told by: these files, and of each so many blocks of so many bytes
_FILES, _BLOCKS, _BLOCK = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt"}, 64, 1 << 16


def versions(text: str, host: str) -> dict[str, str | None]:
    """What a plan holds beside the settings.

    Args:
        text: The text, as for `load_documents`.
        host: The host, as for `load_host`.
    """
    return {_TEXT: digest_of(text), _HOST: weights_digest(host)}


def settings_in(plan: dict[str, Any]) -> dict[str, Any]:
    """What else a plan holds.

    Args:
        plan: As it was read.
    """
    return {name: value for name, value in plan.items() if name not in (_TEXT, _HOST)}


def check_versions(out: Path, plan: Path, text: str, host: str) -> None:
    """Refuse to go on with a store of another text or host that had the same name.

    Args:
        out: The store.
        plan: What it was begun as; a plan of an earlier version does not say.
        text: The text that is asked for.
        host: The host.

    Raises:
        InputError: It is of another one.
    """
    said = read_json(plan) if plan.exists() else {}
    for name, now in versions(text, host).items():
        if said.get(name) is not None and now not in (None, said[name]):
            what = f"text {text}" if name == _TEXT else f"host {host}"
            raise InputError(
                f"{out} holds activations of another version of the {what}; choose another directory or delete it"
            )


def weights_digest(name: str) -> str | None:
    """What tells a host in a directory from another that lies there later, such as one that was trained on.

    Args:
        name: As for `load_host`.

    Returns:
        A digest of its files, of large ones of blocks all over them; None for a host of another kind.
    """
    path = Path(name)
    if not path.is_dir():
        return None
    made = hashlib.sha256()
    for file in sorted(f for f in path.iterdir() if f.is_file() and f.suffix in _FILES):
        size = file.stat().st_size
        made.update(f"{file.name} {size} ".encode())
        with open(file, "rb") as opened:
            for start in sorted({size * k // _BLOCKS for k in range(_BLOCKS)}):
                opened.seek(start)
                made.update(opened.read(min(_BLOCK, size // _BLOCKS + 1)))
    return made.hexdigest()[:16]
