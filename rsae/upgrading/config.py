"""What to upgrade to, and what an upgrade gives: settings and results, no computation."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import Literal

from pydantic import ConfigDict, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from rsae.sae import SAE, PursuitConfig
from rsae.sae.records import Rates
from rsae.support.errors import checked
from rsae.training import History, TrainConfig

#: Rates of a fine-tuning that gives none: the best of the control's (docs/training-defaults.md)
FINE_TUNING = Rates(1e-3, beta2=0.999)

Variant = Literal["gated", "soft", "pursuit"]


@checked
@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class UpgradeConfig:
    """How to upgrade. The control gets the same budget, loss, data order and seed."""

    variant: Variant = "gated"
    """`gated`: a rational magnitude behind the teacher's own gate; `soft`: the paper's, the rational is the gate;
    `pursuit`: the active latents solved together, at the same l0."""
    type: tuple[PositiveInt, NonNegativeInt] = (9, 8)
    """Type (m, n) of the rational function. For `gated` n = 0 is a second control: (1, 0) an affine magnitude, (2, 0) a
    quadratic one."""
    form: Literal["standard", "safe", "safe-b", "partial"] = "partial"
    """Parametrisation of `soft`'s rational function."""
    per_latent: bool = False
    """One set of coefficients for each latent, not one for all."""
    dead_zone: bool = True
    """`gated` gives a teacher that has no threshold (ReLU) a trained one that starts at 0, and so does the control."""
    hold_l0: bool = False
    """Steers both sides to the teacher's l0, where `tune` gives neither a weight of the penalty nor an l0, so that they
    compare at the same one. A trained `pursuit` and its control always are."""
    calibration_tokens: PositiveInt = 8192
    """Size of the sample that sets scales and tau."""
    pursuit: PursuitConfig = field(default_factory=PursuitConfig)
    """How far `pursuit` goes."""
    fine_tune: bool = True
    """False stops at the start: what `pursuit` gives without training."""
    tune: TrainConfig = field(default_factory=lambda: TrainConfig(steps=300, sparsity_warmup=0.0))
    """The fine-tuning. Rates that it does not give are `FINE_TUNING`'s. Where it gives neither a weight of the penalty
    nor an l0, the weight is the teacher's own; for a teacher that does not tell it, the weight is found so that the
    teacher's l0 is kept."""


@plain_dataclass(frozen=True)
class Upgraded:
    """What an upgrade gives: SAEs that take activations as the host gives them."""

    initial: SAE
    """The start, before fine-tuning."""
    tuned: SAE
    """The upgraded SAE after fine-tuning; `initial` where none was wanted."""
    control: SAE | None
    """The teacher with its own activation and encoding, fine-tuned by the same budget; None where it was not wanted."""
    budget: TrainConfig
    """The fine-tuning of both, as it was decided."""
    control_name: str
    """`control`; `control-PENALTY` where the penalty is not the teacher's own; with `-held` where the l0 is held."""
    history: dict[str, History]
    """By `initial`, `control`, `tuned`. That of `initial` is one entry, how well it and the teacher do on a sample:
    `fvu`, `l0`, `teacher_fvu`, `teacher_l0`."""
    seconds: dict[str, float]
    """How long each took when it ran, by the same names."""
