"""The training loop: one process, resumable, the same for teachers, rational SAEs and their controls."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from rsae.activations.store import Store
from rsae.errors import InputError
from rsae.files import digest, read_tensors, write_tensors
from rsae.progress import progress
from rsae.sae.base import SAE

LOG_EVERY = 25
CHECKPOINT_EVERY = 100  # a multiple of LOG_EVERY, so that no running mean is cut in two
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """How to train.

    steps, batch (tokens a step), lr (Adam's peak), sparsity (weight of the penalty, against ||x - x_hat||^2 of
    activations of mean norm sqrt(D)); lr_warmup and lr_decay: steps of rise, and share of the steps that decay to
    zero; sparsity_warmup: share of the steps in which the penalty rises; coefficient_lr: factor on lr for the
    rational activation's parameters; threshold_lr: factor for thresholds, which have further
    to go than a weight; seed: of the data order and the start.
    """

    steps: PositiveInt = 1000
    batch: PositiveInt = 1024
    lr: PositiveFloat = 1e-3
    sparsity: NonNegativeFloat = 0.0
    lr_warmup: NonNegativeInt = 50
    lr_decay: Share = 0.3
    sparsity_warmup: Share = 0.2
    coefficient_lr: NonNegativeFloat = 1.0
    threshold_lr: NonNegativeFloat = 5.0
    seed: int = 0

    def lr_factor(self, step: int) -> float:
        """Linear rise over `lr_warmup` steps, 1, then linear fall to 0 over the last `lr_decay` of the steps."""
        rise = (step + 1) / (self.lr_warmup + 1)
        fall = (self.steps - step) / max(1.0, self.lr_decay * self.steps)
        return min(1.0, rise, fall)

    def sparsity_at(self, step: int) -> float:
        """The penalty's weight at a step."""
        return self.sparsity * min(1.0, (step + 1) / max(1.0, self.sparsity_warmup * self.steps))


def train(
    sae: SAE,
    store: Store,
    config: TrainConfig,
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
) -> list[dict[str, float]]:
    """Train `sae` in place on the store's training tokens and return the history (means over `LOG_EVERY` steps).

    Training runs on activations scaled to mean norm sqrt(D); before and after, `sae` takes them as the host gives
    them. With `checkpoint` (a file), the state is written every `CHECKPOINT_EVERY` steps, and a later call with the
    same settings goes on from there, to the same weights bit for bit (on CPU, same thread count).
    """
    if sae.d_in != store.d_in:
        raise InputError(f"the SAE takes {sae.d_in} dimensions, {store.path} holds {store.d_in}")
    sae.rescale_(store.scale)
    sae.train()
    optimiser = torch.optim.Adam(_parameter_groups(sae, config), lr=config.lr, betas=(0.9, 0.999), fused=True)
    rates = [group["lr"] for group in optimiser.param_groups]
    start_weights = sae.W_enc.double().sum().item()  # tells one teacher's checkpoint from another's
    key = digest([asdict(config), sae.settings(), sae.penalty, start_weights, store.manifest["shards"]])
    path = Path(checkpoint) if checkpoint else None
    start, history, running = 0, [], {"total": 0.0, "sse": 0.0, "l0": 0.0}
    if path is not None and path.exists():
        start, history = _restore(path, key, sae, optimiser) or (0, [])
    with progress(config.steps, description or f"train {sae.family}", "step", initial=start) as bar:
        for step in range(start, config.steps):
            x_BD = store.batch(step, config.batch, config.seed) * store.scale
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * config.lr_factor(step)
            loss = sae.loss(x_BD, config.sparsity_at(step))
            optimiser.zero_grad(set_to_none=True)
            loss.total.backward()
            optimiser.step()
            sae.constrain_()
            for part in ("total", "sse", "l0"):
                running[part] += getattr(loss, part).item()
            if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
                n = LOG_EVERY if (step + 1) % LOG_EVERY == 0 else (step + 1) % LOG_EVERY
                mean = {part: total / n for part, total in running.items()}
                if not all(map(math.isfinite, mean.values())):
                    raise InputError(
                        f"training diverged at step {step + 1} (loss {mean['total']}); lower `lr`"
                    )
                history.append({"step": step + 1, **mean})
                running = dict.fromkeys(running, 0.0)
                bar.set_postfix_str(f"sse {mean['sse']:.1f} l0 {mean['l0']:.0f}", refresh=False)
            bar.update()
            if path is not None and (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < config.steps:
                _write(path, key, step + 1, sae, optimiser, history)
    sae.eval()
    sae.rescale_(1 / store.scale)
    sae.metadata |= {
        "model_name": store.manifest["host"],
        "hook_name": store.manifest["hook"],
        "norm_limit": store.manifest["excluded_norm"],
        "penalty": sae.penalty,
        "sparsity": config.sparsity,
    }
    if path is not None:
        path.unlink(missing_ok=True)
    return history


def _parameter_groups(sae: SAE, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights, thresholds and rational coefficients, each with its own learning rate."""
    groups: dict[str, list[torch.nn.Parameter]] = {"weights": [], "threshold": [], "activation": []}
    for name, parameter in sae.named_parameters():
        part = name.split(".")[0]
        groups[part if part in groups else "weights"].append(parameter)
    factors = {"weights": 1.0, "threshold": config.threshold_lr, "activation": config.coefficient_lr}
    return [{"params": p, "lr": config.lr * factors[name]} for name, p in groups.items() if p]


def _write(path: Path, key: str, step: int, sae: SAE, optimiser: torch.optim.Adam, history: list) -> None:
    tensors = {f"sae.{k}": v for k, v in sae.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{k}": v for k, v in state.items()}
    progress_made = json.dumps({"key": key, "step": step, "history": history})
    tensors["progress"] = torch.frombuffer(bytearray(progress_made.encode()), dtype=torch.uint8)
    write_tensors(path, tensors)


def _restore(path: Path, key: str, sae: SAE, optimiser: torch.optim.Adam) -> tuple[int, list] | None:
    """Step and history of a checkpoint with the same key, loaded into `sae` and `optimiser`."""
    tensors = read_tensors(path)
    made = json.loads(bytes(tensors.pop("progress").tolist()))
    if made["key"] != key:
        return None  # of other settings: start anew
    sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
    saved = optimiser.state_dict()
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, number, field = name.split(".")
            saved["state"].setdefault(int(number), {})[field] = value
    optimiser.load_state_dict(saved)
    return made["step"], made["history"]
