"""Stores in object storage, by fsspec: s3://, gs://, az://, memory://, file:// and what else it knows.

A store is copied as a whole to the cache directory before it is read, as a harvest is made there before it is sent:
what is trained on is memory-mapped. Files that are there and whole, by the manifest's checksum, are not copied again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsae.support.errors import InputError
from rsae.support.files import cache_directory, digest, read_json, sha256, writing
from rsae.support.progress import progress

_MANIFEST, _TARGET = "manifest.json", "target"


def is_url(path: str | os.PathLike) -> bool:
    """Whether a place is in object storage.

    Args:
        path: A path or a URL.
    """
    return "://" in str(path)


def local(path: str | os.PathLike) -> Path:
    """Where a store lies here.

    Args:
        path: A path, which is where it lies; or a URL, whose copy lies in the cache directory.
    """
    return cache_directory() / "stores" / digest(str(path)) if is_url(path) else Path(path)


def fetched(path: str | os.PathLike) -> Path:
    """A store's directory here; of a URL it is copied first.

    Args:
        path: A path or a URL.

    Raises:
        InputError: The storage cannot be reached, or there is no store.
    """
    if is_url(path):
        _fetch(str(path), local(path))
    return local(path)


def fetched_manifest(path: str | os.PathLike) -> None:
    """Before a harvest: bring what says whether a store of other settings is there; with this, a place is checked.

    Args:
        path: A path or a URL.

    Raises:
        InputError: The storage cannot be reached.
    """
    if is_url(path):
        with _storage(str(path)) as (storage, root):
            there = f"{root}/{_MANIFEST}"
            if storage.exists(there):
                _get(storage, there, local(path) / _MANIFEST)


def sent(path: str | os.PathLike) -> None:
    """After a harvest: copy a store from here to where it belongs, its manifest last.

    Args:
        path: A path, of which nothing is to be done, or a URL.

    Raises:
        InputError: The storage cannot be written.
    """
    if not is_url(path):
        return
    with _storage(str(path)) as (storage, root):
        here = local(path)
        files = sorted(f for f in here.rglob("*") if f.is_file() and f.suffix in (".safetensors", ".json"))
        files.sort(key=lambda f: (f.name == _MANIFEST, -len(f.parts)))
        with progress(len(files), f"send {path}", "file") as bar:
            for file in files:
                there = f"{root}/{file.relative_to(here).as_posix()}"
                storage.makedirs(there.rpartition("/")[0], exist_ok=True)
                storage.put_file(str(file), there)
                bar.update()


def _fetch(url: str, here: Path) -> None:
    with _storage(url) as (storage, root):
        if not storage.exists(f"{root}/{_MANIFEST}"):
            raise InputError(
                f"{url}: no {_MANIFEST}, so no finished activation store; make one with `rsae harvest`"
            )
        _get(storage, f"{root}/{_MANIFEST}", here / _MANIFEST)
        manifest = read_json(here / _MANIFEST)
        shards = [s for s in manifest.get("shards", ()) if _lacks(here / s["file"], s["sha256"])]
        with progress(len(shards), f"fetch {url}", "shard") as bar:
            for shard in shards:
                _get(storage, f"{root}/{shard['file']}", here / shard["file"])
                bar.update()
    if manifest.get("settings", {}).get("target") is not None:
        _fetch(f"{url}/{_TARGET}", here / _TARGET)


def _lacks(file: Path, checksum: str) -> bool:
    return not file.exists() or sha256(file) != checksum


def _get(storage: Any, there: str, here: Path) -> None:
    with writing(here) as temporary:
        storage.get_file(there, str(temporary))


@contextmanager
def _storage(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path in it; what goes wrong is told with the URL."""
    try:
        from fsspec.core import url_to_fs

        yield url_to_fs(url)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{url}: {error}; pip install the driver of this storage (s3fs, gcsfs, adlfs)"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{url}: cannot be reached ({error}); is the address right, and is access granted?"
        ) from error
