"""Several processes, one SAE, under torchrun; alone, each call is the identity.

`torchrun --nproc-per-node P -m rsae train ...` starts P processes; `join` puts them in touch (gloo on CPU, nccl on
CUDA) and lays them out as a mesh [P/D, D]. Along `DATA` they hold the same weights and take an equal share of every
batch; gradients, means and firing latents are brought together, so that they do what one would do with the whole
batch. Along `LATENTS` they hold D parts of one dictionary (`rsae.sae.shard`).
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh

from rsae.support.devices import check_device
from rsae.support.errors import InputError

DATA, LATENTS, ALL = "data", "latents", "all"
_DIMENSIONS = (DATA, LATENTS)
#: Seconds after which a process that does not answer counts as lost; $RSAE_TIMEOUT says otherwise
_TIMEOUT = 300.0
_mesh: DeviceMesh | None = None


def join(shards: int | None = None, device: str = "cpu") -> None:
    """Join the other processes, where torchrun started several.

    Args:
        shards: Parts of the dictionary, which divides the number of processes; None for no parts.
        device: Where the SAE will be: `cpu`, or `cuda`, of which each process takes the card of its own number.

    Raises:
        InputError: The parts do not divide the processes, or a process has no card of its own.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if (several or shards) and not dist.is_initialized():
        if several and torch.device(device).index is not None:
            raise InputError(
                f"device {device!r}: of several processes each takes a card of its own; write cuda"
            )
        check_device(device)
        alone = {} if several else {"store": HashStore(), "rank": 0, "world_size": 1}
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=_timeout()), **alone)
        atexit.register(_leave)
    if dist.is_initialized():
        lay_out(shards or 1)


def _leave() -> None:
    """End the groups, of which nothing may be held any more: else their threads can abort the process as it ends."""
    global _mesh
    _mesh = None
    if dist.is_initialized():
        dist.destroy_process_group()


def lay_out(shards: int) -> None:
    """Lay the processes out as a mesh of replicas and parts of the dictionary.

    Args:
        shards: Parts of the dictionary.

    Raises:
        InputError: It does not divide the number of processes.
    """
    global _mesh
    processes = dist.get_world_size()
    if processes % shards:
        raise InputError(
            f"{shards} shards do not fit {processes} processes: start a multiple of {shards}, "
            f"torchrun --nproc-per-node {shards} -m rsae train ..."
        )
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    number = torch.arange(processes).view(-1, shards)
    limit = timedelta(seconds=_timeout())  # which `init_device_mesh` leaves to torch: half an hour
    groups: list[Any] = [
        dist.new_subgroups_by_enumeration(ranks.tolist(), timeout=limit)[0] for ranks in (number.T, number)
    ]
    _mesh = DeviceMesh.from_group(groups, device, mesh=number, mesh_dim_names=_DIMENSIONS)


def mesh() -> DeviceMesh:
    """The mesh [replicas, parts of the dictionary] of this run."""
    assert _mesh is not None, "distributed.join was not called"
    return _mesh


def size(along: str = ALL) -> int:
    """How many processes there are along a dimension of the mesh."""
    if along != ALL and _mesh is not None:
        return _mesh.size(_DIMENSIONS.index(along))
    return dist.get_world_size() if dist.is_initialized() and along != LATENTS else 1


def place(along: str = ALL) -> int:
    """This process's number along a dimension of the mesh."""
    if along != ALL and _mesh is not None:
        return _mesh.get_local_rank(along)
    return dist.get_rank() if dist.is_initialized() and along != LATENTS else 0


def is_first() -> bool:
    """Whether this process is the one that writes files and draws bars."""
    return place() == 0


def share(x_BD: torch.Tensor) -> torch.Tensor:
    """This process's rows of a batch."""
    return x_BD if size(DATA) == 1 else x_BD[place(DATA) :: size(DATA)]


def total(values: torch.Tensor, along: str = ALL) -> torch.Tensor:
    """The sum over processes, in place."""
    return _reduce(values, dist.ReduceOp.SUM, along)


def average(values: torch.Tensor) -> torch.Tensor:
    """The mean over the processes that share the batch, in place."""
    return total(values, DATA).div_(size(DATA)) if size(DATA) > 1 else values


def smallest(values: torch.Tensor) -> torch.Tensor:
    """The smallest over all processes, in place."""
    return _reduce(values, dist.ReduceOp.MIN, ALL)


def any_of(mask_F: torch.Tensor) -> torch.Tensor:
    """True where it is true in any of the processes that share the batch."""
    return _reduce(mask_F.to(torch.uint8), dist.ReduceOp.MAX, DATA).bool() if size(DATA) > 1 else mask_F


def average_gradients(module: torch.nn.Module) -> None:
    """Each gradient becomes its mean over the processes that share the batch."""
    if size(DATA) > 1:
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(average(parameter.grad.contiguous()))


def each(values: torch.Tensor, along: str = ALL) -> list[torch.Tensor]:
    """The values of each process, which are of one shape."""
    if size(along) == 1:
        return [values]
    values = values.contiguous()
    everyone = [torch.empty_like(values) for _ in range(size(along))]
    with in_touch():
        dist.all_gather(everyone, values, group=_group(along))
    return everyone


def gather(values_N: torch.Tensor, length: int) -> torch.Tensor:
    """The values of all processes in one tensor, each process's padded with -inf to `length`."""
    if size() == 1:
        return values_N
    padded = values_N.new_full((length,), -torch.inf)
    padded[: len(values_N)] = values_N
    return torch.cat(each(padded))


def wait() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        with in_touch():
            dist.barrier()


@contextmanager
def in_touch() -> Iterator[None]:
    """Around what needs all processes: one that was killed or hangs ends all others, with one line.

    Raises:
        ConnectionError: Another process ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:  # torch has one class for all that can go wrong here
        # without the place in the backend's source, and what it advises
        text = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip()) or type(error).__name__
        reason = re.split(r"\.\s|\n", text)[0]
        raise ConnectionError(
            f"another process of this run ended, or did not answer for {_timeout():g} s ({reason}); "
            "run the same command again: it continues from the last checkpoint"
        ) from error


def _group(along: str) -> dist.ProcessGroup | None:
    return None if along == ALL or _mesh is None else _mesh.get_group(along)


def _reduce(values: torch.Tensor, op: dist.ReduceOp.RedOpType, along: str) -> torch.Tensor:
    if size(along) > 1:
        with in_touch():
            dist.all_reduce(values, op, group=_group(along))
    return values


def _timeout() -> float:
    return float(os.environ.get("RSAE_TIMEOUT") or _TIMEOUT)
