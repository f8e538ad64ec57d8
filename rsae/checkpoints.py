"""The state of a training in progress, and how a dictionary in parts becomes one file.

One process writes one safetensors file. A sharded dictionary is written by all of its processes, each its own part
(torch.distributed.checkpoint, in safetensors: nothing that is read can run code), and can be read by another number.

    checkpoint.safetensors             one process, or several that hold the same
    checkpoint.parts/00000200/*        parts, and `progress.json`: step 200, whole as soon as it has this name
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from rsae.sae.base import SAE
from rsae.sae.shard import Shard, latent_dimension
from rsae.support import distributed
from rsae.support.errors import InputError
from rsae.support.files import read_json, read_tensors, write_json, write_tensors
from rsae.support.progress import say

PROGRESS = "progress.json"
History = list[dict[str, float]]


class Run(Protocol):
    """One SAE in training."""

    sae: SAE
    history: History

    def state(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Each tensor that a later process needs, with the parameter as which it is laid out."""
        ...

    def load_state(self, tensors: dict[str, torch.Tensor], history: History) -> None:
        """Take over what `state` gave."""
        ...


def write(path: Path, key: str, step: int, runs: Sequence[Run]) -> None:
    """Write the state after a step.

    Args:
        path: The file; of parts the directory that is named after it.
        key: Of all settings.
        step: Steps that are done.
        runs: The SAEs.
    """
    progress = {"key": key, "step": step, "history": [run.history for run in runs]}
    if not _in_parts(runs):
        if distributed.is_first():
            line = torch.frombuffer(bytearray(json.dumps(progress).encode()), dtype=torch.uint8)
            states = {f"{n}.{k}": v for n, run in enumerate(runs) for k, (_, v) in run.state().items()}
            write_tensors(path, {"progress": line} | states)
        return
    folder = _parts(path) / f"{step:08d}"
    with _together(folder) as temporary:
        _save(temporary, {k: part for k, (part, _) in _latents_first(runs).items()})
        if distributed.is_first():
            write_json(temporary / PROGRESS, progress)
    if distributed.is_first():
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other)


def restore(path: Path, key: str, runs: Sequence[Run]) -> int:
    """Take over the state of a checkpoint with the same key.

    Args:
        path: As for `write`.
        key: Of all settings.
        runs: The SAEs, as they are before the first step.

    Returns:
        The steps that are done; 0 where there is no such checkpoint.

    Raises:
        InputError: There is one of the other kind, which would be lost.
    """
    in_parts = _in_parts(runs)
    _clear(path)
    if (path if in_parts else _parts(path)).exists():
        raise InputError(
            f"{path}: is of a dictionary in one piece; leave --shard out to go on from it, or remove it"
            if in_parts
            else f"{_parts(path)}: is of a dictionary in parts; go on from it with --shard 1 (or under torchrun), or "
            "remove it"
        )
    found = sorted(_parts(path).glob("[0-9]*")) if in_parts else [path] if path.exists() else []
    if not found:
        return 0
    tensors = {} if in_parts else read_tensors(path)
    progress = (
        read_json(found[-1] / PROGRESS) if in_parts else json.loads(bytes(tensors.pop("progress").tolist()))
    )
    if progress["key"] != key:
        say(f"{path}: is of other settings, another start or an earlier release; training begins anew")
        return 0
    if in_parts:
        parts = _latents_first(runs, torch.zeros_like)
        _load(found[-1], {k: part for k, (part, _) in parts.items()})
        tensors = {k: local() for k, (_, local) in parts.items()}
    for number, run in enumerate(runs):
        mark = f"{number}."
        own = {k.removeprefix(mark): v for k, v in tensors.items() if k.startswith(mark)}
        run.load_state(own, progress["history"][number])
    return progress["step"]


def remove(path: Path) -> None:
    """Remove a checkpoint: the training is finished.

    Args:
        path: As for `write`.
    """
    if distributed.is_first():
        path.unlink(missing_ok=True)
        shutil.rmtree(_parts(path), ignore_errors=True)
    _clear(path)


def _clear(path: Path) -> None:
    """Remove what killed runs began to write: each is as large as a checkpoint, and has a name of its own."""
    if distributed.is_first():
        for file in path.parent.glob(f".{path.name}.*.tmp"):
            file.unlink(missing_ok=True)


def write_whole(path: Path, tensors: dict[str, torch.Tensor], shard: Shard) -> None:
    """Write parts of tensors as one safetensors file, without a process that ever holds it all.

    Args:
        path: The file.
        tensors: What lies here, by name of the parameter.
        shard: Which part it is.
    """
    parts = {k: shard.placed(v.contiguous(), latent_dimension(k, v)) for k, v in tensors.items()}
    folder = path.with_name(f"{path.name}.parts")
    with _together(folder) as temporary:
        _save(temporary, parts, whole=True)
    if distributed.is_first():
        (file,) = folder.glob("*.safetensors")
        os.replace(file, path)
        shutil.rmtree(folder)
    distributed.wait()


@contextmanager
def _together(folder: Path) -> Iterator[Path]:
    """A temporary directory that all processes write to, and that becomes `folder` when all have."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    if distributed.is_first():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    distributed.wait()
    yield temporary
    if distributed.is_first():
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    distributed.wait()


def _save(folder: Path, parts: dict[str, torch.Tensor], whole: bool = False) -> None:
    # imported here: it takes seconds, which one process does without
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    # a checkpoint has a file for each tensor and process, so that no more than one is copied at a time
    files = None if whole else {name: n for n, name in enumerate(parts, 1)}
    writer = HuggingFaceStorageWriter(str(folder), files, save_distributed=True, enable_consolidation=whole)
    with distributed.in_touch():
        save(dict(parts), storage_writer=writer)


def _load(folder: Path, parts: dict[str, torch.Tensor]) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with distributed.in_touch():
        load(dict(parts), storage_reader=HuggingFaceStorageReader(str(folder)))


def _latents_first(
    runs: Sequence[Run], make: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.detach
) -> dict[str, tuple[torch.Tensor, Callable[[], torch.Tensor]]]:
    """Each tensor of the runs as a part of all processes', and what gives the local one: in memory a latent's numbers
    lie side by side, W_enc's too."""
    parts = {}
    for number, run in enumerate(runs):
        assert isinstance(run.sae.shard, Shard)
        for key, (name, value) in run.state().items():
            dim = latent_dimension(name, value)
            first = value if dim is None else value.movedim(dim, 0)
            local = make(first.contiguous())
            back = partial(_back, local, dim)
            parts[f"{number}.{key}"] = (run.sae.shard.placed(local, None if dim is None else 0), back)
    return parts


def _back(local: torch.Tensor, dim: int | None) -> torch.Tensor:
    return local if dim is None else local.movedim(0, dim)


def _in_parts(runs: Sequence[Run]) -> bool:
    return all(isinstance(run.sae.shard, Shard) for run in runs)


def _parts(path: Path) -> Path:
    return path.with_suffix(".parts")
