"""The training loop: resumable, alone or under torchrun, one SAE or many in one pass over the activations.

The same loop trains teachers, rational SAEs and their controls. Shapes: B batch, D d_in, O d_out, F d_sae.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, overload

import torch
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass

from rsae import checkpoints
from rsae.activations.host import Host
from rsae.activations.prefetch import prefetched
from rsae.activations.protocol import Activations, check_fits
from rsae.host_loss import HostLoss
from rsae.l0_controller import L0Controller
from rsae.monitoring import Monitor
from rsae.optimizers import LR_DECAY, Name, optimizer
from rsae.sae.base import SAE
from rsae.sae.batch_top_k import BatchTopK
from rsae.sae.fingerprint import fingerprint
from rsae.sae.records import Rates, Trained
from rsae.sae.revival import revival_loss
from rsae.sae.shard import Shard
from rsae.sae.units import entered, left, units_for
from rsae.support import distributed
from rsae.support.devices import products_in
from rsae.support.errors import InputError, SettingError, checked, did_you_mean
from rsae.support.files import digest
from rsae.support.progress import progress, say
from rsae.support.seeds import Seed

LOG_EVERY = 25
CHECKPOINT_EVERY = 100  # a multiple of LOG_EVERY, so that no running mean is cut in two
_PARTS = ("total", "sse", "l0", "dead", "sparsity")
#: A wanted l0 that is missed by more is told
L0_TOLERANCE = 0.05
_CALIBRATION = 8192  # tokens that a threshold for inference is set on
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
History = list[dict[str, float]]


class Diverged(InputError):
    """A loss is not finite any more; `number` says which of the SAEs of the pass."""

    number = 0


@checked
@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class TrainConfig:
    """How to train."""

    steps: PositiveInt = 1000
    """Number of steps."""
    batch: PositiveInt = 1024
    """Tokens a step, over all processes."""
    lr: PositiveFloat | None = None
    """The optimiser's peak learning rate; None for the family's own (`SAE.rates`), which was found for Adam."""
    optimizer: Name = "adam"
    """`adam`; `muon`: encoder and decoder move by their momentum made orthogonal, all else by Adam; `schedule_free`:
    Schedule-Free AdamW, whose result is a mean over the steps."""
    sparsity: NonNegativeFloat = 0.0
    """Weight of the penalty, against ||x - x_hat||^2 of activations of mean norm sqrt(D). A family without a penalty,
    which sets its l0 by k, leaves it alone: one fine-tuning serves all families."""
    l0: PositiveFloat | None = None
    """Wanted l0: the weight is found in training. `sparsity` is then where the search starts, 0 for a start of its
    own."""
    penalty: str | None = "own"
    """The family's sparsity penalty; "own" for its first, None for none."""
    lr_warmup: NonNegativeInt = 50
    """Steps in which the rate rises."""
    lr_decay: Share | None = None
    """Share of the steps in which the rate falls to zero, at the end; None for 0.3, and 0 with `schedule_free`."""
    sparsity_warmup: Share = 0.2
    """Share of the steps in which the penalty's weight rises, at the start."""
    coefficient_lr: NonNegativeFloat = 1.0
    """Factor on lr for the parameters of a rational activation."""
    threshold_lr: NonNegativeFloat = 5.0
    """Factor on lr for thresholds, which have further to go than a weight."""
    bias_lr: NonNegativeFloat | None = None
    """Factor on lr for the biases of encoder and decoder; None for the family's own."""
    beta1: Beta = 0.9
    """Decay of the running mean of gradients; Muon's momentum; `schedule_free`: how near the point of the gradients is
    to the mean over the steps."""
    beta2: Beta | None = None
    """Decay of the running mean of their squares; None for the family's own."""
    clip: PositiveFloat | None = None
    """Largest gradient norm, of weights, biases, thresholds and coefficients each by itself."""
    revival: NonNegativeFloat = 1 / 32
    """Weight of the loss that revives dead latents."""
    dead_after: PositiveInt = 200
    """Steps without firing after which a latent counts as dead."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of the products: the encoder's and, for dense codes, the decoder's and those of the gradients. Weights, sparse
    sums and the optimiser stay in float32. `auto` takes bfloat16 where the device multiplies in it."""
    seed: Seed = 0
    """Of the order of the data."""
    objective: Literal["mse", "kl", "mse+kl"] = "mse"
    """What the reconstruction is trained for: its squared error, the host's predictions with it in place (KL to the
    clean host's), or both in equal parts. A KL part is scaled at each step to the size of the squared error, so that
    the penalty keeps its weight."""
    kl_tokens: PositiveInt = 512
    """Tokens a step whose predictions are compared, over all processes."""

    def changed(self, changes: dict[str, Any]) -> Self:
        """A copy with other settings.

        Args:
            changes: Values by field.

        Raises:
            InputError: A name or a value is wrong.
        """
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise InputError(f"{name!r} is no setting of a training{did_you_mean(name, known)}")
        try:
            return replace(self, **changes)
        except SettingError as error:
            raise InputError(f"{error.field} = {error.value!r}: {error.reason}") from None

    def rated(self, rates: Rates) -> Self:
        """With these rates where none are given.

        Args:
            rates: Such as a family's own.
        """
        own = {name: value for name in asdict(rates) if (value := getattr(self, name)) is not None}
        return replace(self, **{**asdict(rates), **own})

    def run_on(self, device: torch.device) -> Self:
        """With `auto` settled.

        Args:
            device: Where the SAE is.
        """
        return replace(self, precision=products_in(self.precision, device))

    def lr_factor(self, step: int) -> float:
        """Linear rise over `lr_warmup` steps, 1, then linear fall to 0 over the last `lr_decay` of the steps.

        Args:
            step: Number of the step, from 0.
        """
        rise = (step + 1) / (self.lr_warmup + 1)
        decay = LR_DECAY[self.optimizer] if self.lr_decay is None else self.lr_decay
        fall = (self.steps - step) / max(1.0, decay * self.steps)
        return min(1.0, rise, fall)

    def sparsity_factor(self, step: int) -> float:
        """Linear rise of the penalty over the first `sparsity_warmup` of the steps, then 1.

        Args:
            step: Number of the step, from 0.
        """
        return min(1.0, (step + 1) / max(1.0, self.sparsity_warmup * self.steps))


@overload
def train(
    sae: SAE,
    activations: Activations,
    config: TrainConfig,
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
    allow_mismatch: bool = False,
    host: Host | None = None,
    monitors: Sequence[Monitor] = (),
    keep: bool = False,
) -> History:
    """One SAE: `sae`, `activations`, `config`, `checkpoint`, `description`, `allow_mismatch`, `host`, `monitors` and
    `keep` as below."""
    ...


@overload
def train(
    sae: Sequence[SAE],
    activations: Activations | Sequence[Activations],
    config: TrainConfig | Sequence[TrainConfig],
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
    allow_mismatch: bool = False,
    host: Host | None = None,
    monitors: Sequence[Monitor] = (),
    keep: bool = False,
) -> list[History]:
    """Several: `sae`, `activations`, `config`, `checkpoint`, `description`, `allow_mismatch`, `host`, `monitors` and
    `keep` as below."""
    ...


def train(
    sae: SAE | Sequence[SAE],
    activations: Activations | Sequence[Activations],
    config: TrainConfig | Sequence[TrainConfig],
    checkpoint: str | os.PathLike | None = None,
    description: str | None = None,
    allow_mismatch: bool = False,
    host: Host | None = None,
    monitors: Sequence[Monitor] = (),
    keep: bool = False,
) -> History | list[History]:
    """Train `sae` in place on the training tokens and return the history (means over `LOG_EVERY` steps).

    Training runs on activations scaled to mean norm sqrt(D), about their mean where that is longer than twice their
    spread, on a copy: whatever goes wrong, `sae` is as it was.
    Decoder rows keep the norms that they come with (see `SAE.balance_`). Under torchrun (see
    `rsae.support.distributed`) each process takes its share of every batch.

    Args:
        sae: The SAE, or several that see the same batches.
        activations: A store, a stream or activations in memory, in the host's units; for several SAEs also one for
            each, such as those of a stream at several hook points (`Stream.at`).
        config: How to train; for several SAEs one for all, or a config each, which agree in `batch`, `steps` and
            `seed`.
        checkpoint: A file. The state is written there every `CHECKPOINT_EVERY` steps, and a later call with the same
            settings and start continues from there, to the same weights bit for bit (on CPU, same thread count).
        description: The progress bar's text.
        allow_mismatch: Train an SAE that says that it belongs to another host or hook point.
        host: For an objective with KL: the host, where it is loaded already.
        monitors: Who is told of the history while it grows (`rsae.monitoring`).
        keep: Leave the last checkpoint to a caller who removes it when the result is saved.

    Returns:
        The history of each SAE: `step`, `total`, `sse`, `l0`, `dead`, `sparsity`, and `kl` where that is trained for.

    Raises:
        InputError: The SAE does not fit the activations, the settings contradict each other, or training diverged.
    """
    if isinstance(sae, SAE):
        one = config if isinstance(config, Sequence) else [config]
        return train([sae], activations, one, checkpoint, description, allow_mismatch, host, monitors, keep)[
            0
        ]
    sae, config = list(sae), list(config) if isinstance(config, Sequence) else [config] * len(sae)
    of_each = list(activations) if isinstance(activations, Sequence) else [activations] * len(sae)
    for given in config:
        if not isinstance(given, TrainConfig):
            raise InputError(f"a {type(given).__name__} is no config: give a rsae.TrainConfig")
    if len(of_each) != len(sae):
        raise InputError(f"{len(sae)} SAEs and {len(of_each)} activations: give one for all, or one for each")
    if len({id(one) for one in sae}) < len(sae):
        raise InputError(
            "one SAE stands there twice: SAEs that are trained in one pass are different objects"
        )
    shared = {(c.batch, c.steps, c.seed) for c in config}
    if len(shared) != 1 or len(config) != len(sae):
        raise InputError(
            "SAEs trained in one pass need one config, or a config each with the same batch, steps and seed"
        )
    for s, a in zip(sae, of_each, strict=True):
        check_fits(s, a, allow_mismatch)
    batch, steps, seed = shared.pop()
    if {s.shard.parts for s in sae} != {distributed.size(distributed.LATENTS)}:
        raise InputError(
            "these processes hold parts of a dictionary (--shard): give them the parts (rsae.sharding)"
        )
    if batch % distributed.size(distributed.DATA):
        raise InputError(
            f"batch {batch} cannot be parted among {distributed.size(distributed.DATA)} processes"
        )
    losses: dict[tuple[int, bool], HostLoss] = {}  # by the activations, and whether it is a transcoder's
    for s, a, c in zip(sae, of_each, config, strict=True):
        if c.objective != "mse" and isinstance(s.shard, Shard):
            raise InputError(
                f"objective {c.objective!r} needs the whole dictionary in one process: leave --shard out"
            )
        if c.objective != "mse" and (id(a), s.transcodes) not in losses:
            losses[id(a), s.transcodes] = HostLoss(a, s.transcodes, host, s.W_enc.device)
            host = losses[id(a), s.transcodes].host
    runs = [
        _Run(s, a, c, losses.get((id(a), s.transcodes)) if c.objective != "mse" else None)
        for s, a, c in zip(sae, of_each, config, strict=True)
    ]
    sources = list({run.source: run for run in runs}.values())
    path = Path(checkpoint) if checkpoint else None
    start, key = 0, ""
    if path is not None:
        key = digest([[run.identity() for run in runs], [a.identity for a in of_each]])
        start = checkpoints.restore(path, key, runs)
    if start:
        say(f"{path}: continues after step {start}")

    def drawn(step: int) -> dict[Any, list[torch.Tensor]]:
        """The batch of each source in internal units, and a transcoder's target of it."""
        return {run.source: run.drawn(step, batch, seed) for run in sources}

    ahead = all(getattr(a, "reads_ahead", False) for a in of_each)
    batches = prefetched(drawn, range(start, steps), ahead)
    with (
        progress(steps, description or f"train {sae[0].family}", "step", initial=start) as bar,
        _told(monitors, runs) as tell,
    ):
        for step, of_source, waited in batches:
            for run in runs:
                x_BD, *y_BO = (part.to(run.sae.W_enc.device) for part in of_source[run.source])
                run.step(step, x_BD, y_BO[0] if y_BO else None)
            logs = (step + 1) % LOG_EVERY == 0 or step + 1 == steps
            if logs:
                for number, run in enumerate(runs):
                    run.log(step + 1, number)
                last = runs[0].history[-1]
                bar.set_postfix_str(f"sse {last['sse']:.1f} l0 {last['l0']:.0f}", refresh=False)
            tell(waited, logs)
            bar.update()
            if path is not None and (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < steps:
                checkpoints.write(path, key, step + 1, runs)
    for run in runs:
        run.finish()
    if path is not None and not keep:
        checkpoints.remove(path)
    return [run.history for run in runs]


class _Run:
    """One SAE in training: a copy in internal units, its optimiser, dead latents, controller of l0 and history."""

    def __init__(
        self, sae: SAE, activations: Activations, config: TrainConfig, host_loss: HostLoss | None = None
    ):
        config = config.rated(sae.rates.beside(sae.W_skip is not None)).run_on(sae.W_enc.device)
        self.result, self.activations, self.config, self.host_loss = sae, activations, config, host_loss
        self.penalty = sae.penalty_named(config.penalty)
        self.units, self.out_units = units_for(sae, activations)
        self.sae = entered(sae, self.units, self.out_units)
        if not any(p.requires_grad for p in self.sae.parameters()):
            self.sae.requires_grad_()  # held for inference; parameters that are frozen beside others stay so
        self.norm_F = self.sae.balance_(self._fires)
        self.sae.train()
        device = sae.W_enc.device
        groups = _parameter_groups(self.sae, config)
        assert config.beta2 is not None
        self.optimiser = optimizer(config.optimizer, self.sae, groups, (config.beta1, config.beta2))
        self.names = {p: name for name, p in self.sae.named_parameters()}
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.silent_F = torch.zeros(sae.d_sae, dtype=torch.int32, device=device)  # steps without firing
        self.controller = (
            None
            if config.l0 is None
            else L0Controller(self.sae, self.penalty, config.steps, config.l0, config.sparsity)
        )
        self.spread = [torch.zeros(sae.d_out, device=device), torch.zeros((), device=device)]
        self.history: History = []
        self.parts = _PARTS if host_loss is None else (*_PARTS, "kl")
        self.sums = dict.fromkeys(self.parts, 0.0)

    @property
    def source(self) -> Any:
        """What runs that see the same batches share."""
        about = [units.origin_D is None for units in (self.units, self.out_units)]
        return id(self.activations), *about, self.result.transcodes

    def drawn(self, step: int, batch: int, seed: int) -> list[torch.Tensor]:
        """This process's share of a batch in internal units, and a transcoder's target of it."""
        parts = [(self.activations, self.units)]
        if self.result.transcodes and self.activations.target is not None:
            parts.append((self.activations.target, self.out_units))
        return [units.of(distributed.share(part.batch(step, batch, seed))) for part, units in parts]

    def _fires(self) -> torch.Tensor:
        """Which latents fire on the first batch."""
        x_BD, *y_BO = self.drawn(0, self.config.batch, self.config.seed)
        loss = self.sae.loss(x_BD.to(self.sae.W_enc), 0.0, None, *(y.to(self.sae.W_enc) for y in y_BO))
        return distributed.any_of(loss.fired_F)

    def identity(self) -> list[Any]:
        """What a checkpoint must have been made with."""
        config = asdict(replace(self.config, penalty=self.penalty))
        return [config, fingerprint(self.result), self.host_loss and self.host_loss.identity]

    def described(self) -> dict[str, Any]:
        """What a monitor is told before the first step."""
        return {"family": self.sae.family} | self.sae.settings() | {"training": asdict(self.config)}

    def step(self, step: int, x_BD: torch.Tensor, y_BO: torch.Tensor | None) -> None:
        config, sae = self.config, self.sae
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * config.lr_factor(step)
        if self.controller is None:
            sparsity = config.sparsity * config.sparsity_factor(step)
        else:
            sparsity = self.controller.weight
        products = torch.autocast(x_BD.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
        with products:
            loss = sae.loss(x_BD, sparsity, self.penalty, y_BO)
        total, kl = loss.total, 0.0
        if self.host_loss is not None:
            found = self.host_loss(sae, step, config.kl_tokens, config.seed, (self.units, self.out_units))
            kl = distributed.average(found.detach()[None]).item()
            # as large as the squared error, whose place it takes or shares
            part = found * (loss.error.detach() / max(kl, 1e-12))
            total = total + part if config.objective == "mse+kl" else total - loss.error + part
        dead_F = self.silent_F >= config.dead_after
        dead = int(sae.shard.sum(dead_F.sum()))
        if dead and config.revival:
            with products:
                total = total + config.revival * revival_loss(sae, x_BD, dead_F, y_BO, loss.entries)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        distributed.average_gradients(sae)
        if config.clip is not None:
            for part in _parts(sae).values():
                sae.shard.clip_(part, config.clip)
        self.optimiser.step()
        if loss.entries is not None:
            sae.observe_(loss.entries)

        def settle() -> None:
            if dead:
                sae.revive_(dead_F)
            sae.constrain_(self.norm_F)

        self.optimiser.settle(settle)
        means = torch.stack([total.detach(), loss.sse, loss.l0.to(total)])
        total, sse, l0 = distributed.average(means).tolist()
        fired_F = distributed.any_of(loss.fired_F)
        self.silent_F = torch.where(fired_F, 0, self.silent_F + 1)
        if self.controller is not None:
            self.controller.update(step, l0, sse)
        if step >= (config.steps - 1) // LOG_EVERY * LOG_EVERY:  # those of the history's last line
            wanted_BO = x_BD if y_BO is None else y_BO
            self.spread[0] += wanted_BO.mean(0)
            self.spread[1] += wanted_BO.square().sum(1).mean()
        told = dict(zip(_PARTS, (total, sse, l0, dead, sparsity), strict=True)) | {"kl": kl}
        for part in self.parts:
            self.sums[part] += told[part]

    def log(self, step: int, number: int) -> None:
        """Append the means since the last call to the history; `number` is the run among those of the pass."""
        n = (step - 1) % LOG_EVERY + 1
        mean = {part: total / n for part, total in self.sums.items()}
        last = step == self.config.steps  # no loss tells what the last step did
        if not all(map(math.isfinite, mean.values())) or (last and not self.finite()):
            error = Diverged(f"training diverged at step {step} (loss {mean['total']}); lower `lr`")
            error.number = number
            raise error
        self.history.append({"step": step, **mean})
        self.sums = dict.fromkeys(self.parts, 0.0)

    def finite(self) -> bool:
        """Whether all weights are numbers, in every part of the dictionary."""
        wrong = sum((~torch.isfinite(p.detach())).sum() for p in self.sae.parameters())
        return not self.sae.shard.sum(torch.as_tensor(wrong))

    def finish(self) -> None:
        """Give the result back in the host's units, with where its activations came from."""
        self.optimiser.finish_()
        # one that came with a threshold keeps to it, but for what its steps move
        if isinstance(self.sae, BatchTopK) and not self.result.get_buffer("threshold"):
            x_BD = self.activations.sample(max(_CALIBRATION, self.config.batch), seed=1)
            self.sae.calibrate_(self.units.of(x_BD.to(self.sae.W_enc)), self.config.batch)
        trained = left(self.sae.eval(), self.units, self.out_units)
        self.result.become_(trained)
        self.result.eval()
        self.result.provenance = self.activations.provenance.filled(self.result.provenance)
        self.result.trained = Trained(self.penalty, self.history[-1]["sparsity"])
        self._tell_use()
        reached = self.history[-1]["l0"]
        if self.controller is not None and abs(reached / self.controller.wanted - 1) > L0_TOLERANCE:
            say(
                f"{self.sae.family}: l0 is {reached:.1f} in training, wanted was {self.controller.wanted:g}; "
                "train for more steps, or choose an l0 nearer to it"
            )

    def _tell_use(self) -> None:
        """Warn of a result that a constant would do better than: its numbers are finite, and look as others do."""
        last, steps = self.history[-1], (self.config.steps - 1) % LOG_EVERY + 1
        mean_O, square = (total / steps for total in self.spread)
        spread = (square - mean_O.square().sum()).item()
        for_error = self.config.objective != "kl" and spread > 0
        if last["l0"] and not (for_error and last["sse"] > spread):
            return
        error = f", its squared error {last['sse'] / spread:.3g} times their spread" if for_error else ""
        say(
            f"warning: {self.sae.family}: this SAE is of no use, a constant reconstructs the activations as well: l0 "
            f"is {last['l0']:.3g} in its last steps{error}; lower `lr` or the sparsity, or train for more steps"
        )

    def state(self) -> dict[str, tuple[str, torch.Tensor]]:
        """All tensors that a later process needs to go on, each with the parameter as which it is laid out."""
        tensors = {f"sae.{name}": (name, value) for name, value in self.sae.state_dict().items()}
        for number, p in enumerate(p for group in self.optimiser.param_groups for p in group["params"]):
            kept = self.optimiser.state.get(p) or self.optimiser.blank(p)
            tensors |= {f"optimiser.{number}.{field}": (self.names[p], v) for field, v in kept.items()}
        if self.controller is not None:
            tensors["controller"] = ("b_dec", self.controller.state)  # shared by all latents, as that is
        return tensors | {"silent": ("b_enc", self.silent_F)}

    def load_state(self, tensors: dict[str, torch.Tensor], history: History) -> None:
        """Take over what `state` gave."""
        self.sae.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("sae.")})
        saved = self.optimiser.state_dict()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, field = name.split(".")
                like = parameters[int(number)]
                if value.shape == like.shape:  # laid out in memory as the parameter is
                    value = torch.empty_like(like).copy_(value)
                saved["state"].setdefault(int(number), {})[field] = value
        self.optimiser.load_state_dict(saved)
        self.silent_F = tensors["silent"].to(self.silent_F.device)
        if self.controller is not None:
            self.controller.state = tensors["controller"]
        self.history = history


@contextmanager
def _told(monitors: Sequence[Monitor], runs: Sequence[_Run]) -> Iterator[Callable[[float, bool], None]]:
    """What is to be called after each step: with the seconds waited for its batch, and whether it was logged."""
    monitors = monitors if distributed.is_first() else ()
    waited, since = 0.0, time.perf_counter()

    def tell(seconds: float, logs: bool) -> None:
        nonlocal waited, since
        waited += seconds
        if logs:
            now = time.perf_counter()
            waiting = {"waiting": waited / (now - since)}
            for monitor in monitors:
                monitor.log(int(runs[0].history[-1]["step"]), [run.history[-1] | waiting for run in runs])
            waited, since = 0.0, now

    begun: list[Monitor] = []
    try:
        for monitor in monitors:
            monitor.begin([run.described() for run in runs])
            begun.append(monitor)
        yield tell
    finally:
        for monitor in begun:
            monitor.end()


_BIASES = ("b_enc", "b_dec", "b_gate", "b_mag")
_PARTED = ("bias", "threshold", "activation")


def _parts(sae: SAE, biases_apart: bool = True) -> dict[str, dict[str, torch.nn.Parameter]]:
    """Weights, biases, thresholds and rational coefficients, those that there are, each by name."""
    parts: dict[str, dict[str, torch.nn.Parameter]] = {part: {} for part in ("weights", *_PARTED)}
    for name, parameter in sae.named_parameters():
        part = name.split(".")[0]
        if part in _BIASES and biases_apart:
            part = "bias"
        parts[part if part in _PARTED else "weights"][name] = parameter
    return {part: parameters for part, parameters in parts.items() if parameters}


def _parameter_groups(sae: SAE, config: TrainConfig) -> list[dict[str, Any]]:
    """The parts with their own learning rates; biases beside the weights where theirs is the same."""
    lr, bias_lr = config.lr, config.bias_lr
    assert lr is not None
    assert bias_lr is not None
    factors = {
        "weights": 1.0,
        "bias": bias_lr,
        "threshold": config.threshold_lr,
        "activation": config.coefficient_lr,
    }
    parts = _parts(sae, bias_lr != 1.0)
    return [{"params": [*own.values()], "lr": lr * factors[part]} for part, own in parts.items()]
