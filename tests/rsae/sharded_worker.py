"""One of four processes: trains parts of dictionaries, for `test_sharding.py` to look at."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rsae import InputError, SignAwareGated, Store, TrainConfig, new, save, train, training
from rsae.activations.in_memory import InMemory
from rsae.support import distributed

#: 37 latents are 10, 10, 10 and 7 in four parts, 19 and 18 in two
LATENTS, CHECKPOINT_EVERY, PROCESSES = 37, 5, 4
CONFIG = TrainConfig(steps=16, batch=64, lr=3e-3, lr_warmup=5, dead_after=3, clip=1.0, seed=1)
TWO = ("top_k", "batch_top_k", "gated")  # those that are tried in two parts, too
#: by family: its settings, and what differs in training
CASES: dict[str, tuple[dict, dict]] = {
    "top_k": ({"k": 4}, {}),
    "abs_top_k": ({"k": 4}, {"optimizer": "muon"}),
    "batch_top_k": ({"k": 4}, {"optimizer": "schedule_free"}),
    "relu": ({}, {"l0": 6.0}),
    "jump_relu": ({}, {"l0": 6.0, "bias_lr": 2.0}),
    "gated": ({}, {"sparsity": 0.3}),
    "sign_aware_gated": ({}, {"sparsity": 0.3}),
}


class Stopped(Exception):
    """The run ends here, as if it had been killed."""


def store() -> InMemory:
    """The same activations in every process."""
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(2000, 6, generator=generator) @ torch.randn(6, 16, generator=generator)
    return Store.of(x_ND + 0.1 * torch.randn(2000, 16, generator=generator) + 1, heldout=100)


def config_of(name: str) -> TrainConfig:
    return replace(CONFIG, **CASES[name][1])


def trained(name: str, shard: bool, checkpoint: Path | None = None):
    """The SAE (of parts: the one that lies here) and its history; some latents are dead from the start."""
    activations = store()
    sae = new(name, activations, seed=2, shard=shard, d_sae=LATENTS, **CASES[name][0])
    first = getattr(sae.shard, "first", 0)
    dead_F = torch.arange(first, first + sae.d_sae) % 5 == 0
    if isinstance(sae, SignAwareGated):
        sae.threshold.data[:, dead_F] += 4 / activations.scale
    else:
        sae.encoder_bias.data[dead_F] -= 4 / activations.scale
    return sae, train(sae, activations, config_of(name), checkpoint)


@contextmanager
def batches_told(tell: Callable[[int], None]) -> Iterator[None]:
    """Tell of each step before its batch is made."""
    real = InMemory.batch

    def batch(self: InMemory, step: int, size: int, seed: int) -> torch.Tensor:
        tell(step)
        return real(self, step, size, seed)

    InMemory.batch = batch
    yield
    InMemory.batch = real


def stopped_at(last: int, name: str, checkpoint: Path) -> None:
    """Train until a batch is asked for."""

    def stop(step: int) -> None:
        if step == last:
            raise Stopped

    with batches_told(stop), suppress(Stopped):
        trained(name, True, checkpoint)


def meet(rank: int, processes: int, port: int, parts: int) -> None:
    """Join the other processes, as torchrun would have it done."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    training.CHECKPOINT_EVERY = CHECKPOINT_EVERY
    distributed.join(parts)


def lost(rank: int, out: Path, port: int, end: str) -> None:
    """One of two processes; the second is lost in its 13th step, and the first tells what it says then."""
    meet(rank, 2, port, 2)

    def lose(step: int) -> None:
        if rank == 1 and step == 12:
            if end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    with batches_told(lose):
        try:
            trained("top_k", True, out / "checkpoint")
        except ConnectionError as error:
            (out / "told").write_text(str(error))


def waiting(rank: int, out: Path, port: int) -> None:
    """The last of four processes in two parts hangs; each other one waits for it along a dimension of its own."""
    meet(rank, 4, port, 2)
    if rank == 3:
        time.sleep(60)
    try:
        distributed.total(torch.ones(3), (distributed.ALL, distributed.DATA, distributed.LATENTS)[rank])
    except ConnectionError as error:
        (out / f"told-{rank}").write_text(str(error))


def continued(out: Path) -> None:
    """The same training in one process."""
    meet(0, 1, 0, 1)
    steps = []
    with batches_told(steps.append):
        sae, _ = trained("top_k", True, out / "checkpoint")
    save(sae, out / "sae")
    (out / "steps").write_text(json.dumps(steps))


def refusal(job) -> str:
    try:
        job()
    except InputError as error:
        return str(error)
    return ""


def main(rank: int, out: Path, port: int) -> None:
    """What each process does.

    Args:
        rank: Its number.
        out: Where the SAEs go.
        port: Where the processes meet.
    """
    meet(rank, PROCESSES, port, 4)
    for parts, names in ((4, CASES), (2, TWO)):
        distributed.lay_out(parts)
        for name in names:
            sae, history = trained(name, True)
            save(sae, out / f"{name}-{parts}")
            if distributed.is_first():
                (out / f"{name}-{parts}.json").write_text(json.dumps(history))
    # stopped in four parts, continued in two, stopped again, continued in four
    distributed.lay_out(4)
    stopped_at(8, "batch_top_k", out / "checkpoint")
    distributed.lay_out(2)
    stopped_at(12, "batch_top_k", out / "checkpoint")
    distributed.lay_out(4)
    sae, _ = trained("batch_top_k", True, out / "checkpoint")
    save(sae, out / "resumed")
    activations = store()
    settings: dict[str, Any] = {"d_sae": LATENTS, "k": 4}
    told = {
        "matryoshka": refusal(lambda: new("matryoshka_batch_top_k", activations, shard=True, **settings)),
        "transcoder": refusal(
            lambda: new("relu", Store.of(torch.randn(99, 4), target=torch.randn(99, 4)), shard=True, d_sae=8)
        ),
        "few": refusal(lambda: new("relu", activations, shard=True, d_sae=5)),
        "k": refusal(lambda: new("top_k", activations, shard=True, d_sae=37, k=9)),
        "processes": refusal(lambda: distributed.lay_out(3)),
        "whole": refusal(lambda: train(new("relu", activations, d_sae=8), activations, CONFIG)),
        "objective": refusal(
            lambda: train(
                new("relu", activations, shard=True, d_sae=LATENTS),
                activations,
                replace(CONFIG, objective="kl"),
            )
        ),
    }
    if distributed.is_first():
        (out / "told.json").write_text(json.dumps(told))
