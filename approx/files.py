"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.umask(_UMASK := os.umask(0))


@contextmanager
def whole(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary name (of a file or a folder) beside `path`; on success it becomes `path`, on failure it goes.

    A reader never sees half a file. A link stays one: the file that it names is written. A pipe or a device is written
    to as it is. An existing file keeps its mode.

    Args:
        path: what is written.

    Raises:
        OSError: where the place cannot be written.
    """
    if _special(path):
        yield Path(path)
        return
    place = Path(os.path.realpath(path))
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_file():  # some writers let nobody else read
            temporary.chmod(place.stat().st_mode if place.exists() else 0o666 & ~_UMASK)
        os.replace(temporary, place)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write JSON, whole or not at all.

    Args:
        path: the file to write.
        data: what `json` can write.

    Raises:
        OSError: where the place cannot be written.
    """
    text = json.dumps(data, indent=1) + "\n"
    with whole(path) as temporary:
        temporary.write_text(text)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a place that `write_json` cannot write, before the work for it is done.

    Args:
        path: the file that is to be written.

    Raises:
        ValueError: for a folder, a folder that is not there, or one that may not be written.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise ValueError("it is a folder; give the name of a file")
    if not place.parent.is_dir():
        raise ValueError(f"there is no folder {str(place.parent)!r}; make it first")
    writable = os.access(path, os.W_OK) if _special(path) else os.access(place.parent, os.W_OK | os.X_OK)
    if not writable:
        raise ValueError("it may not be written; choose another place")


def _special(path: str | os.PathLike[str]) -> bool:
    """Whether a path is no regular file: a pipe, a device, or a name of an open file."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file.

    Args:
        path: the file to read.

    Returns:
        What the file holds.

    Raises:
        ValueError: naming the file, when it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is none of this library's files: its JSON is nested too deeply") from None
