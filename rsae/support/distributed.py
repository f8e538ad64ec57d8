"""Several processes, one SAE: data-parallel training under torchrun; alone, each call is the identity.

`torchrun --nproc-per-node 2 -m rsae train ...` starts the processes; `join` puts them in touch (gloo on CPU, nccl on
CUDA). All hold the same weights and take an equal share of every batch; gradients, means and firing latents are
brought together, so that n processes do what one would do with the whole batch.
"""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist


def join() -> None:
    """Join the other processes, where torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)  # else its threads can abort the process as it ends


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and draws bars."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(x_BD: torch.Tensor) -> torch.Tensor:
    """This process's rows of a batch."""
    return x_BD if count() == 1 else x_BD[dist.get_rank() :: count()]


def average(values: torch.Tensor) -> torch.Tensor:
    """The mean over all processes."""
    if count() > 1:
        dist.all_reduce(values)
        values /= count()
    return values


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def smallest(values: torch.Tensor) -> torch.Tensor:
    """The smallest over all processes."""
    if count() > 1:
        dist.all_reduce(values, dist.ReduceOp.MIN)
    return values


def any_of(mask_F: torch.Tensor) -> torch.Tensor:
    """True where it is true in any process."""
    if count() > 1:
        some_F = mask_F.to(torch.uint8)
        dist.all_reduce(some_F, dist.ReduceOp.MAX)
        return some_F.bool()
    return mask_F


def average_gradients(module: torch.nn.Module) -> None:
    """Each gradient becomes its mean over all processes."""
    if count() > 1:
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(average(parameter.grad.contiguous()))


def gather(values_N: torch.Tensor, length: int) -> torch.Tensor:
    """The values of all processes in one tensor, each process's padded with -inf to `length`."""
    if count() == 1:
        return values_N
    padded = values_N.new_full((length,), -torch.inf)
    padded[: len(values_N)] = values_N
    everyone = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(everyone, padded)
    return torch.cat(everyone)
