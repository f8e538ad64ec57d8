"""Teacher -> rational start -> fine-tuned, and the control: the teacher fine-tuned by the same budget.

RSAE, section 3.2: fit the gate once, copy the weights, calibrate the scales on the teacher's pre-activations,
fine-tune. The control that the paper lacks runs by default.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import asdict, field, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, PositiveInt
from pydantic.dataclasses import dataclass

import approx
from rsae.rational import RationalActivation
from rsae.activations.store import Store
from rsae.support.errors import InputError
from rsae.formats import load, save
from rsae.formats.normalisation import check_takes_host_activations
from rsae.sae.base import FAMILIES, SAE, family
from rsae.sae.jump_relu import JumpReLU
from rsae.sae.rational import RationalSAE
from rsae.sae.sign_aware_gated import SignAwareGated
from rsae.sae.soft_rational import GATES, SoftRational, supplied_threshold
from rsae.sae.top_k import TopK
from rsae.support.cache import Cache
from rsae.training import TrainConfig, train

#: Where the threshold of JumpReLU and Bi-Jump-ReLU lies on [-1, 1], and the half-width of the gap around it
DESIGN_THRESHOLD, DESIGN_MARGIN = 0.1, 0.01
#: The gap around the jump of TopK's gate on [-1, 1]
GATE_MARGIN = 0.05
#: Width of the straight-through kernel of a dead zone that the teacher does not have, at mean norm sqrt(D)
_BANDWIDTH = 1.0
#: Least factor on lr for the thresholds of such a dead zone
_FRESH_THRESHOLD_LR = 20.0
#: Candidates for C_in: these multiples of a latent's 99.9 % quantile of |h|
_SPREADS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UpgradeConfig:
    """How to upgrade.

    variant: `gated` (rational magnitude behind the teacher's own gate) or `soft` (the paper's); type: (m, n) of the
    rational; form: `soft`'s parametrisation; per_latent: one set of coefficients a latent; dead_zone: `gated` gives a
    ReLU teacher a trained threshold, starting at 0, and so does the control; calibration_tokens: sample for scales and
    tau; tune: the budget, the same for the control. Where it gives neither a weight of the penalty nor an l0, the
    weight is the teacher's own, or else, for a teacher that does not tell it, steered so that its l0 is kept.
    """

    variant: Literal["gated", "soft"] = "gated"
    type: tuple[PositiveInt, PositiveInt] = (9, 8)
    form: Literal["standard", "safe", "safe-b", "partial"] = "partial"
    per_latent: bool = False
    dead_zone: bool = True
    calibration_tokens: PositiveInt = 8192
    tune: TrainConfig = field(default_factory=lambda: TrainConfig(steps=300, lr=3e-4, sparsity_warmup=0.0))

    def family_for(self, teacher: SAE | type[SAE]) -> str:
        """The rational SAE's family; `InputError` for a teacher that has none in this variant."""
        if self.variant == "soft":
            if teacher.family not in GATES:
                raise InputError(
                    f"a teacher of family {teacher.family!r} has no gate that one rational function can stand for; "
                    f"choose from {', '.join(GATES)}, or variant 'gated'"
                )
            if isinstance(teacher, SignAwareGated) and not teacher.two_sided:
                raise InputError("a one-sided teacher has no gate with two signs; choose variant 'gated'")
            return SoftRational.family
        gate = "jump_relu" if teacher.family == "relu" and self.dead_zone else teacher.family
        name = f"rational_{gate}"
        if name not in FAMILIES:
            known = [n.removeprefix("rational_") for n in FAMILIES if n.startswith("rational_")]
            raise InputError(
                f"a teacher of family {teacher.family!r} has no rational form; choose from {', '.join(known)}"
            )
        return name

    def penalty_for(self, teacher: SAE | type[SAE]) -> str | None:
        """The fine-tuning loss's penalty, for the rational SAE and the control alike; none for a TopK teacher.

        `soft` is dense and has no l0 to penalise: it gets the paper's L1. A dead zone gets l0: under L1 its magnitude
        learns to pass many tiny values.
        """
        return None if teacher.penalties[0] is None else family(self.family_for(teacher)).penalties[0]

    def budget_for(self, teacher: SAE, activations: Store) -> TrainConfig:
        """The fine-tuning, with a weight of the penalty or an l0 in any case."""
        penalty, known, tune = self.penalty_for(teacher), teacher.metadata, self.tune
        if self.variant == "gated" and self.dead_zone and teacher.family == "relu":
            # without its L1 it opens at once, and the new thresholds have to keep up
            tune = replace(tune, threshold_lr=max(tune.threshold_lr, _FRESH_THRESHOLD_LR))
        if penalty is None or tune.sparsity or tune.l0:
            return tune
        if known.get("penalty") == penalty and known.get("sparsity"):
            return replace(tune, sparsity=known["sparsity"])
        if self.variant == "soft":  # it is dense in training: there is no l0 to steer
            raise InputError(
                f"the teacher does not say with what weight of the {penalty} penalty to fine-tune; set tune.sparsity"
            )
        return replace(tune, l0=_fit_of(teacher, activations, self.calibration_tokens)["l0"])


@plain_dataclass
class Upgraded:
    """What an upgrade gives: three SAEs that take activations as the host gives them.

    history and seconds are by name: `initial`, `control`, `tuned`; the history of `initial` is one entry, how well it
    and the teacher do on a sample: `fvu`, `l0`, `teacher_fvu`, `teacher_l0`.
    """

    initial: RationalSAE
    tuned: RationalSAE
    control: SAE | None
    history: dict[str, list[dict[str, float]]]
    seconds: dict[str, float]


def target_for(gate: str) -> approx.Target:
    """A family's gate on the design interval [-1, 1], as `soft` fits it."""
    if gate == "relu":
        return approx.relu()
    if gate == "jump_relu":
        return approx.jump_relu(DESIGN_THRESHOLD, margin=DESIGN_MARGIN)
    if gate == "sign_aware_gated":
        return approx.bi_jump_relu(DESIGN_THRESHOLD, margin=DESIGN_MARGIN)
    assert gate == "top_k"
    return approx.gate(0.0, GATE_MARGIN)


def upgrade(
    teacher: SAE,
    activations: Store,
    type: tuple[int, int] | None = None,
    config: UpgradeConfig | None = None,
    fit: approx.Fit | approx.Rational | None = None,
    control: SAE | bool = True,
    out: str | os.PathLike | None = None,
) -> Upgraded:
    """Upgrade a trained SAE to a rational one, and fine-tune the control under the same budget.

    `type` overrides `config.type`; `fit` saves fitting the gate again; `control` may be a control that was
    trained with the same budget and loss before, or False (no comparison without it is worth much). With `out`, a
    directory, the SAEs are saved there as `initial`, `control` and `tuned`, and a killed call goes on where it
    stopped. Raises `InputError` for a teacher without a rational gate.
    """
    check_takes_host_activations(teacher)
    config = config or UpgradeConfig()
    if type is not None:
        config = replace(config, type=type)
    config = replace(config, tune=config.budget_for(teacher, activations))
    if isinstance(teacher, JumpReLU) and "penalty" not in teacher.metadata:
        # trained elsewhere: files do not say the bandwidth, and it has the activations' unit
        teacher = copy.deepcopy(teacher)
        teacher.bandwidth = _BANDWIDTH / activations.scale
    directory = Path(out) if out is not None else None
    steps = Cache(directory)
    saes: dict[str, SAE] = {}
    history: dict[str, Any] = {}

    def stage(name: str, make: Callable[[], tuple[SAE, list]]) -> SAE:
        def run() -> list:
            saes[name], made = make()
            if directory is not None:
                save(saes[name], directory / name)
            return made

        settings = [
            asdict(config),
            teacher.settings(),
            teacher.W_enc.double().sum().item(),
            activations.manifest,
        ]
        history[name] = steps.run(name, settings, run)
        if name not in saes:
            assert directory is not None
            saes[name] = load(directory / name).to(teacher.W_enc.device)
        return saes[name]

    def begin() -> tuple[SAE, list]:
        sae = start(teacher, activations, config, fit)
        tokens = config.calibration_tokens
        there, here = _fit_of(teacher, activations, tokens), _fit_of(sae, activations, tokens)
        return sae, [here | {f"teacher_{name}": value for name, value in there.items()}]

    initial = stage("initial", begin)
    if isinstance(control, SAE):
        controlled = control
    elif control:
        controlled = stage(
            "control",
            lambda: _tune(_control(teacher, activations, config), teacher, activations, config, directory),
        )
    else:
        controlled = None

    def fine_tune() -> tuple[SAE, list]:
        sae, made = _tune(initial, teacher, activations, config, directory)
        if isinstance(sae, SoftRational):
            match_l0(sae, controlled or teacher, activations, config.calibration_tokens)
        return sae, made

    tuned = stage("tuned", fine_tune)
    assert isinstance(initial, RationalSAE)
    assert isinstance(tuned, RationalSAE)
    return Upgraded(initial, tuned, controlled, history, steps.seconds)


def _control(teacher: SAE, activations: Store, config: UpgradeConfig) -> SAE:
    """The teacher with its own activation; beside `gated`, a ReLU teacher gets the same dead zone.

    An l0 penalty has nothing to train in a ReLU. With a JumpReLU that starts at threshold 0 the control differs
    from the rational SAE in the rational function alone.
    """
    if config.variant == "soft" or teacher.family != "relu" or not config.dead_zone:
        return teacher
    control = JumpReLU.from_settings(
        teacher.settings() | {"threshold": 0.0, "bandwidth": _BANDWIDTH / activations.scale}
    ).to(teacher.W_enc.device)
    copy_weights(teacher, control)
    return control


def _tune(
    sae: SAE, teacher: SAE, activations: Store, config: UpgradeConfig, directory: Path | None
) -> tuple[SAE, list[dict[str, float]]]:
    """A copy of `sae`, fine-tuned by the budget and loss: one function for the rational SAE and the control."""
    sae = copy.deepcopy(sae)
    sae.set_penalty(config.penalty_for(teacher))
    name = config.variant if isinstance(sae, RationalSAE) else "control"
    checkpoint = directory / f"{name}.checkpoint.safetensors" if directory else None
    return sae, train(sae, activations, config.tune, checkpoint, f"fine-tune {teacher.family} {name}")


@torch.no_grad()
def start(
    teacher: SAE, activations: Store, config: UpgradeConfig, fit: approx.Fit | approx.Rational | None = None
) -> RationalSAE:
    """The rational SAE before fine-tuning: weights copied, scales calibrated on the teacher's pre-activations.

    `gated` is the teacher exactly. `soft`'s tau is set so that its honest l0 is the teacher's.
    """
    cls = family(config.family_for(teacher))
    h_BF = teacher.pre_activations(activations.sample(config.calibration_tokens).to(teacher.W_enc.device))
    scale_F = quantile(h_BF.abs(), 0.999)
    groups = teacher.d_sae if config.per_latent else 1
    kwargs = teacher.settings()
    if config.variant == "gated":
        m, n = config.type
        if m != n + 1 or n % 2:
            raise InputError(
                f"type {config.type}: `gated` takes types (2j + 1, 2j), such as (3, 2) or (9, 8)"
            )
        kwargs["activation"] = RationalActivation.identity(n // 2, scale_F, groups)
        if issubclass(cls, JumpReLU) and not isinstance(teacher, JumpReLU):
            kwargs |= {"threshold": 0.0, "bandwidth": _BANDWIDTH / activations.scale}
        sae = cls(**kwargs).to(h_BF.device)
        copy_weights(teacher, sae)
        return sae.eval()  # type: ignore[return-value]
    if fit is None:
        fit = approx.minimax(target_for(teacher.family), config.type)
    c_in_F, c_out_F = _calibrate(teacher, fit, config.form, h_BF, scale_F)
    soft = SoftRational(
        teacher.d_in,
        teacher.d_sae,
        teacher.family,
        RationalActivation.from_fit(fit, c_in_F, c_out_F, config.form, groups),
        teacher.k if isinstance(teacher, TopK) else None,
        teacher.subtract_b_dec,
    ).to(h_BF.device)
    copy_weights(teacher, soft)
    soft.b_enc.copy_(teacher.encoder_bias)  # a gated teacher calls it b_gate
    match_l0(soft, teacher, activations, config.calibration_tokens)
    return soft.eval()


@torch.no_grad()
def _fit_of(sae: SAE, activations: Store, tokens: int) -> dict[str, float]:
    """FVU and l0 on a sample of training tokens, in the state in which the SAE is used."""
    training = sae.training
    sae.eval()
    x_BD = activations.sample(tokens, seed=1).to(sae.W_enc.device)
    error = count = 0.0
    for rows_BD in x_BD.split(1024):
        z_BF = sae.encode(rows_BD)
        error += (sae.decode(z_BF) - rows_BD).square().sum().item()
        count += z_BF.count_nonzero().item()
    sae.train(training)
    return {"fvu": error / (x_BD - x_BD.mean(0)).square().sum().item(), "l0": count / len(x_BD)}


@torch.no_grad()
def match_l0(sae: SoftRational, reference: SAE, activations: Store, tokens: int) -> None:
    """Set `soft`'s dead zone tau so that its honest l0 equals the reference's on a sample of training tokens."""
    x_BD = activations.sample(tokens, seed=1).to(sae.W_enc.device)
    wanted = sum(int((reference.encode(x) != 0).sum()) for x in x_BD.split(1024))
    largest = [sae.soft_code(sae.pre_activations(x)).abs().flatten() for x in x_BD.split(1024)]
    # only entries that can be among the `wanted` largest overall are kept
    values = torch.cat([v.topk(min(len(v), wanted + 1)).values for v in largest])
    sae.tau.fill_(values.topk(wanted + 1).values[-1] if wanted < len(values) else 0.0)


def quantile(values_BF: torch.Tensor, q: float) -> torch.Tensor:
    """The q-quantile of each column, [F], at least a tiny positive number."""
    rank = max(1, min(len(values_BF), round((1 - q) * len(values_BF))))
    return values_BF.topk(rank, dim=0).values[-1].clamp_min(1e-6)


def _calibrate(
    teacher: SAE, fit: approx.Fit | approx.Rational, form: str, h_BF: torch.Tensor, scale_F: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """C_in and C_out, [F], that bring phi(h) nearest to the teacher's code in L2 on the sample.

    JumpReLU's C_in is given by its threshold, theta / .1. ReLU's is chosen among multiples of a robust
    quantile: the tail is 1000 times the bulk, so that neither its end nor the bulk alone is a good scale. A Sign-Aware
    Gated SAE's is chosen among both. TopK's gate takes one C_in for all latents, since its argument is h - tau_k. C_out
    is the least-squares factor.
    """
    gate = isinstance(teacher, TopK)
    if isinstance(teacher, JumpReLU):
        candidates = [teacher.threshold.clamp_min(1e-6) / DESIGN_THRESHOLD]
    else:
        candidates = [(scale_F.median().expand_as(scale_F) if gate else scale_F) * s for s in _SPREADS]
    if isinstance(teacher, SignAwareGated):  # a threshold each sign, or one for both
        candidates += [theta_F.clamp_min(1e-6) / DESIGN_THRESHOLD for theta_F in teacher.threshold]
    z_BF = teacher.activate(h_BF)
    argument_BF = h_BF - supplied_threshold(h_BF, teacher.k) if isinstance(teacher, TopK) else h_BF
    weight_BF = h_BF if gate else torch.ones(())  # soft TopK's code is h times the gate
    best_F = torch.full_like(scale_F, torch.inf)
    c_in_F, c_out_F = scale_F.clone(), scale_F.clone()
    for candidate_F in candidates:
        phi_BF = weight_BF * RationalActivation.from_fit(fit, candidate_F, 1.0, form)(argument_BF)
        factor_F = (z_BF * phi_BF).sum(0) / phi_BF.square().sum(0).clamp_min(1e-12)
        # a latent that never fires in the sample says nothing: it keeps the gate's own height
        factor_F = torch.where(factor_F > 0, factor_F, torch.ones(()) if gate else candidate_F)
        error_F = (factor_F * phi_BF - z_BF).square().sum(0)
        error_F = error_F.sum().expand_as(error_F) if gate else error_F
        better_F = error_F < best_F
        best_F = torch.where(better_F, error_F, best_F)
        c_in_F = torch.where(better_F, candidate_F, c_in_F)
        c_out_F = torch.where(better_F, factor_F, c_out_F)
    return c_in_F, c_out_F


@torch.no_grad()
def copy_weights(teacher: SAE, sae: SAE) -> None:
    """All parameters and buffers that both have; the teacher's metadata."""
    sae.load_state_dict(teacher.state_dict(), strict=False)
    sae.metadata = dict(teacher.metadata)
