"""The training loop: resumable, alone or under torchrun, one SAE or many in one pass over the activations.

The same loop trains teachers, rational SAEs and their controls.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, overload

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from rsae.support import distributed
from rsae.activations.store import Store
from rsae.support.errors import InputError
from rsae.support.files import digest, read_tensors, write_tensors
from rsae.formats.normalisation import check_takes_host_activations
from rsae.support.progress import progress
from rsae.sae.base import SAE
from rsae.l0_controller import L0Controller

LOG_EVERY = 25
CHECKPOINT_EVERY = 100  # a multiple of LOG_EVERY, so that no running mean is cut in two
_PARTS = ("total", "sse", "l0", "dead", "sparsity")
Share = Annotated[float, Field(ge=0, le=1)]
History = list[dict[str, float]]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """How to train.

    steps, batch (tokens a step, over all processes), lr (Adam's peak), sparsity (weight of the penalty, against
    ||x - x_hat||^2 of activations of mean norm sqrt(D)); l0: steer that weight so that this l0 is reached (`sparsity`
    is then where the search starts, 0 for a start of its own); lr_warmup and lr_decay: steps of rise, and share of the
    steps that decay to zero; sparsity_warmup: share of the steps in which the penalty rises; coefficient_lr: factor on
    lr for the rational activation's parameters; threshold_lr: factor for thresholds, which have further to go than a
    weight; clip: largest gradient norm, of weights, thresholds and coefficients each by itself; revival and dead_after:
    weight of the loss that revives latents which have not fired for so many steps; precision: of the encoder's
    product; seed: of the data order.
    """

    steps: PositiveInt = 1000
    batch: PositiveInt = 1024
    lr: PositiveFloat = 1e-3
    sparsity: NonNegativeFloat = 0.0
    l0: PositiveFloat | None = None
    lr_warmup: NonNegativeInt = 50
    lr_decay: Share = 0.3
    sparsity_warmup: Share = 0.2
    coefficient_lr: NonNegativeFloat = 1.0
    threshold_lr: NonNegativeFloat = 5.0
    clip: PositiveFloat | None = None
    revival: NonNegativeFloat = 1 / 32
    dead_after: PositiveInt = 200
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def lr_factor(self, step: int) -> float:
        """Linear rise over `lr_warmup` steps, 1, then linear fall to 0 over the last `lr_decay` of the steps."""
        rise = (step + 1) / (self.lr_warmup + 1)
        fall = (self.steps - step) / max(1.0, self.lr_decay * self.steps)
        return min(1.0, rise, fall)

    def sparsity_factor(self, step: int) -> float:
        """Linear rise of the penalty over the first `sparsity_warmup` of the steps, then 1."""
        return min(1.0, (step + 1) / max(1.0, self.sparsity_warmup * self.steps))


@overload
def train(
    sae: SAE,
    store: Store,
    config: TrainConfig,
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
) -> History: ...
@overload
def train(
    sae: Sequence[SAE],
    store: Store,
    config: Sequence[TrainConfig],
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
) -> list[History]: ...
def train(
    sae: SAE | Sequence[SAE],
    store: Store,
    config: TrainConfig | Sequence[TrainConfig],
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
) -> History | list[History]:
    """Train `sae` in place on the store's training tokens and return the history (means over `LOG_EVERY` steps).

    Training runs on activations scaled to mean norm sqrt(D); before and after, `sae` takes them as the host gives
    them. With `checkpoint` (a file), the state is written every `CHECKPOINT_EVERY` steps, and a later call with the
    same settings goes on from there, to the same weights bit for bit (on CPU, same thread count).

    Several SAEs, each with its config, see the same batches: their configs agree in `batch`, `steps` and `seed`. Under
    torchrun (see `rsae.support.distributed`) each process takes its share of every batch.
    """
    if isinstance(sae, SAE):
        assert isinstance(config, TrainConfig)
        return train([sae], store, [config], checkpoint, description)[0]
    assert not isinstance(config, TrainConfig)
    shared = {(c.batch, c.steps, c.seed) for c in config}
    if len(shared) != 1 or len(config) != len(sae):
        raise InputError("SAEs trained in one pass need a config each, with the same batch, steps and seed")
    batch, steps, seed = shared.pop()
    if batch % distributed.count():
        raise InputError(f"batch {batch} cannot be parted among {distributed.count()} processes")
    for s in sae:
        check_takes_host_activations(s)
        if s.d_in != store.d_in:
            raise InputError(f"the SAE takes {s.d_in} dimensions, {store.path} holds {store.d_in}")
    runs = [_Run(s, store, c) for s, c in zip(sae, config, strict=True)]
    key = digest([[run.identity() for run in runs], store.manifest])
    path = Path(checkpoint) if checkpoint else None
    start = _restore(path, key, runs) if path is not None and path.exists() else 0
    with progress(steps, description or f"train {sae[0].family}", "step", initial=start) as bar:
        for step in range(start, steps):
            x_BD = distributed.share(store.batch(step, batch, seed)) * store.scale
            for run in runs:
                run.step(step, x_BD.to(run.sae.W_enc.device))
            if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
                for run in runs:
                    run.log(step + 1)
                last = runs[0].history[-1]
                bar.set_postfix_str(f"sse {last['sse']:.1f} l0 {last['l0']:.0f}", refresh=False)
            bar.update()
            if path is not None and (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < steps:
                _write(path, key, step + 1, runs)
    for run in runs:
        run.finish()
    if path is not None and distributed.is_first():
        path.unlink(missing_ok=True)
    return [run.history for run in runs]


class _Run:
    """One SAE in training: its optimiser, its dead latents, its controller of l0, its history."""

    def __init__(self, sae: SAE, store: Store, config: TrainConfig):
        self.sae, self.store, self.config = sae, store, config
        sae.rescale_(store.scale)
        sae.train()
        device = sae.W_enc.device
        self.optimiser = torch.optim.Adam(_parameter_groups(sae, config), lr=config.lr, fused=True)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        # tells one teacher's checkpoint from another's
        self.start_weights = sae.W_enc.double().sum().item()
        self.silent_F = torch.zeros(sae.d_sae, dtype=torch.int32, device=device)  # steps without firing
        wanted = config.l0
        self.steering = L0Controller(sae, config.steps, wanted, config.sparsity) if wanted is not None else None
        self.history: History = []
        self.sums = dict.fromkeys(_PARTS, 0.0)

    def identity(self) -> list[Any]:
        """What a checkpoint must have been made with."""
        return [asdict(self.config), self.sae.settings(), self.sae.penalty, self.start_weights]

    def step(self, step: int, x_BD: torch.Tensor) -> None:
        config, sae = self.config, self.sae
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * config.lr_factor(step)
        if self.steering is None:
            sparsity = config.sparsity * config.sparsity_factor(step)
        else:
            sparsity = self.steering.weight
        half = config.precision == "bfloat16"
        with torch.autocast(x_BD.device.type, torch.bfloat16) if half else nullcontext():
            loss = sae.loss(x_BD, sparsity)
        total = loss.total
        dead_F = self.silent_F >= config.dead_after
        dead = int(dead_F.sum())
        if dead and config.revival:
            total = total + config.revival * sae.revival_loss(x_BD, dead_F)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        distributed.average_gradients(sae)
        if config.clip is not None:
            for group in self.optimiser.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], config.clip)
        self.optimiser.step()
        if dead:
            sae.revive_(dead_F)
        sae.constrain_()
        means = torch.stack([total.detach(), loss.sse, loss.l0.to(total)])
        total, sse, l0 = distributed.average(means).tolist()
        fired_F = distributed.any_of(loss.fired_F)
        self.silent_F = torch.where(fired_F, 0, self.silent_F + 1)
        if self.steering is not None:
            self.steering.update(step, l0, sse)
        for part, value in zip(_PARTS, (total, sse, l0, dead, sparsity), strict=True):
            self.sums[part] += value

    def log(self, step: int) -> None:
        """Append the means since the last call to the history."""
        n = (step - 1) % LOG_EVERY + 1
        mean = {part: total / n for part, total in self.sums.items()}
        if not all(map(math.isfinite, mean.values())):
            raise InputError(f"training diverged at step {step} (loss {mean['total']}); lower `lr`")
        self.history.append({"step": step, **mean})
        self.sums = dict.fromkeys(_PARTS, 0.0)

    def finish(self) -> None:
        """Back to the host's units; say in the metadata where the activations came from."""
        self.sae.eval()
        self.sae.rescale_(1 / self.store.scale)
        self.sae.metadata |= {
            "model_name": self.store.manifest["host"],
            "hook_name": self.store.manifest["hook"],
            "norm_limit": self.store.manifest["excluded_norm"],
            "penalty": self.sae.penalty,
            "sparsity": self.history[-1]["sparsity"],
        }

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that a later process needs to go on."""
        tensors = {f"sae.{k}": v for k, v in self.sae.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{k}": v for k, v in state.items()}
        if self.steering is not None:
            tensors["steering"] = self.steering.state
        return tensors | {"silent": self.silent_F}

    def load_state(self, tensors: dict[str, torch.Tensor], history: History) -> None:
        """Take over what `state` gave."""
        self.sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
        saved = self.optimiser.state_dict()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, number, field = name.split(".")
                like = parameters[int(number)]
                if value.shape == like.shape:  # Adam's moments are laid out in memory as the parameter is
                    value = torch.empty_like(like).copy_(value)
                saved["state"].setdefault(int(number), {})[field] = value
        self.optimiser.load_state_dict(saved)
        self.silent_F = tensors["silent"]
        if self.steering is not None:
            self.steering.state = tensors["steering"]
        self.history = history


def _parameter_groups(sae: SAE, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights, thresholds and rational coefficients, each with its own learning rate."""
    groups: dict[str, list[torch.nn.Parameter]] = {"weights": [], "threshold": [], "activation": []}
    for name, parameter in sae.named_parameters():
        part = name.split(".")[0]
        groups[part if part in groups else "weights"].append(parameter)
    factors = {"weights": 1.0, "threshold": config.threshold_lr, "activation": config.coefficient_lr}
    return [{"params": p, "lr": config.lr * factors[name]} for name, p in groups.items() if p]


def _write(path: Path, key: str, step: int, runs: list[_Run]) -> None:
    if not distributed.is_first():
        return
    made = json.dumps({"key": key, "step": step, "history": [run.history for run in runs]})
    tensors = {"progress": torch.frombuffer(bytearray(made.encode()), dtype=torch.uint8)}
    for number, run in enumerate(runs):
        tensors |= {f"{number}.{name}": value for name, value in run.state().items()}
    write_tensors(path, tensors)


def _restore(path: Path, key: str, runs: list[_Run]) -> int:
    """The step that a checkpoint with the same key was written at, its state taken over; 0 for another key."""
    tensors = read_tensors(path)
    made = json.loads(bytes(tensors.pop("progress").tolist()))
    if made["key"] != key:
        return 0  # of other settings: start anew
    for number, run in enumerate(runs):
        mark = f"{number}."
        state = {k.removeprefix(mark): v for k, v in tensors.items() if k.startswith(mark)}
        run.load_state(state, made["history"][number])
    return made["step"]
