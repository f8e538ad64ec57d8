"""The upgraded SAE before fine-tuning: the teacher's weights, and scales calibrated on its pre-activations.

`gated` is the teacher exactly. `soft` is as near as one rational function comes to the gate, and its dead zone tau is
set so that its l0 is the teacher's. Shapes: B batch, D d_in, F d_sae.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

import approx
from rsae.activations.protocol import Activations
from rsae.rational import RationalActivation
from rsae.sae import RATIONAL_FORMS, SAE, SoftRational, plain, pursuit
from rsae.sae.soft_rational import supplied_threshold
from rsae.support.errors import InputError
from rsae.upgrading.config import UpgradeConfig
from rsae.upgrading.decide import bandwidth, upgraded_family


@torch.no_grad()
def start(
    teacher: SAE,
    activations: Activations,
    config: UpgradeConfig,
    fit: approx.Fit | approx.Rational | None = None,
) -> SAE:
    """The upgraded SAE before fine-tuning.

    Args:
        teacher: The trained SAE.
        activations: Where the scales are calibrated.
        config: The upgrade.
        fit: A fit of the teacher's gate, where it is there already; only `soft` needs one.

    Raises:
        InputError: The teacher has no rational form in this variant, or the type does not fit.
    """
    upgraded_family(teacher, config)  # refuses before anything is computed
    if config.variant == "pursuit":
        return pursuit(teacher, **asdict(config.pursuit)).eval()
    x_BD = activations.sample(config.calibration_tokens).to(teacher.W_enc.device)
    h_BF = teacher.pre_activations(x_BD)
    if config.variant == "soft":
        return _soft(teacher, activations, config, fit, h_BF)
    return _gated(teacher, activations, config, h_BF)


def _gated(teacher: SAE, activations: Activations, config: UpgradeConfig, h_BF: torch.Tensor) -> SAE:
    m, n = config.type
    if (n and m != n + 1) or n % 2:
        raise InputError(
            f"type {config.type}: `gated` takes types (2j + 1, 2j), such as (3, 2) or (9, 8); and (1, 0) or (2, 0), "
            "the second controls with an affine and a quadratic magnitude"
        )
    gate = control_start(teacher, activations, config)
    groups = teacher.d_sae if config.per_latent else 1
    spread_F = quantile(h_BF.abs(), 0.999)
    activation = (
        RationalActivation.identity(n // 2, spread_F, groups)
        if n
        else RationalActivation.polynomial(m, spread_F, groups)
    )
    settings = gate.settings() | {"activation": activation.settings()}
    sae = RATIONAL_FORMS[type(gate)].from_settings(settings).to(h_BF.device)
    sae.load_state_dict({f"activation.{k}": v for k, v in activation.state_dict().items()}, strict=False)
    sae.take_over_(gate)
    return sae.eval()


def control_start(teacher: SAE, activations: Activations, config: UpgradeConfig) -> SAE:
    """The teacher with its own activation, before fine-tuning; beside `gated`, one without a threshold gets a dead
    zone.

    An l0 penalty has nothing to train in a ReLU. With a JumpReLU that starts at threshold 0 the control differs from
    the rational SAE in the rational function alone.

    Args:
        teacher: The trained SAE.
        activations: For their unit.
        config: The upgrade.
    """
    if config.variant != "gated" or not config.dead_zone:
        return plain(teacher)
    return teacher.behind_dead_zone(bandwidth(teacher, activations)) or teacher


def _soft(
    teacher: SAE,
    activations: Activations,
    config: UpgradeConfig,
    fit: approx.Fit | approx.Rational | None,
    h_BF: torch.Tensor,
) -> SoftRational:
    if fit is None:
        target = teacher.gate_target()
        assert target is not None
        fit = approx.minimax(target, config.type)
    c_in_F, c_out_F = _calibrate(teacher, fit, config.form, h_BF)
    groups = teacher.d_sae if config.per_latent else 1
    activation = RationalActivation.from_fit(fit, c_in_F, c_out_F, config.form, groups)
    soft = SoftRational(
        teacher.d_in,
        teacher.d_sae,
        teacher.family,
        activation,
        teacher.settings().get("k"),
        teacher.subtract_b_dec,
    )
    if teacher.target is not None:
        soft.predict_(teacher.target)
    soft.to(h_BF.device)
    soft.take_over_(teacher)
    soft.b_enc.copy_(teacher.encoder_bias)  # a gated teacher calls it b_gate
    match_l0(soft, teacher, activations, config.calibration_tokens)
    return soft.eval()


@torch.no_grad()
def match_l0(sae: SoftRational, reference: SAE, activations: Activations, tokens: int) -> None:
    """Set `soft`'s dead zone tau so that its l0 equals the reference's on a sample of training tokens.

    Args:
        sae: The soft rational SAE; its tau changes.
        reference: The SAE whose l0 is wanted.
        activations: The activations.
        tokens: Size of the sample.
    """
    x_BD = activations.sample(tokens, seed=1).to(sae.W_enc.device)
    wanted = sum(int((reference.encode(x) != 0).sum()) for x in x_BD.split(1024))
    largest = [sae.dense_code(x).abs().flatten() for x in x_BD.split(1024)]
    # only entries that can be among the `wanted` largest overall are kept
    values = torch.cat([v.topk(min(len(v), wanted + 1)).values for v in largest])
    sae.tau.fill_(values.topk(wanted + 1).values[-1] if wanted < len(values) else 0.0)


def quantile(values_BF: torch.Tensor, q: float) -> torch.Tensor:
    """The q-quantile of each column, [F]; of a column of zeros, or nearly, a millionth of the largest.

    Args:
        values_BF: Values of a sample.
        q: Between 0 and 1.
    """
    rank = max(1, min(len(values_BF), round((1 - q) * len(values_BF))))
    found_F = values_BF.topk(rank, dim=0).values[-1]
    largest = found_F.max()
    return found_F.clamp_min(1e-6 * largest if largest > 0 else 1.0)


def _calibrate(
    teacher: SAE, fit: approx.Fit | approx.Rational, form: str, h_BF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """C_in and C_out, [F], that bring phi(h) nearest to the teacher's code in L2 on the sample.

    C_in is chosen among the family's candidates: its threshold tells a scale, and so do multiples of a robust quantile
    (the tail is 1000 times the bulk, so that neither its end nor the bulk alone is a good scale). A gate with a
    supplied threshold takes one C_in for all latents. C_out is the least-squares factor.
    """
    shared = teacher.supplied_threshold
    spread_F = quantile(h_BF.abs(), 0.999)
    z_BF = teacher.activate(h_BF)
    argument_BF = h_BF - supplied_threshold(h_BF, teacher.settings()["k"]) if shared else h_BF
    weight_BF = h_BF if shared else torch.ones(())  # such a soft code is h times the gate
    best_F = torch.full_like(spread_F, torch.inf)
    c_in_F, c_out_F = spread_F.clone(), spread_F.clone()
    for candidate_F in teacher.scale_candidates(spread_F):
        phi_BF = weight_BF * RationalActivation.from_fit(fit, candidate_F, 1.0, form)(argument_BF)
        factor_F = (z_BF * phi_BF).sum(0) / phi_BF.square().sum(0).clamp_min(torch.finfo(phi_BF.dtype).tiny)
        # a latent that never fires in the sample says nothing: it keeps the gate's own height
        factor_F = torch.where(factor_F > 0, factor_F, torch.ones(()) if shared else candidate_F)
        error_F = (factor_F * phi_BF - z_BF).square().sum(0)
        error_F = error_F.sum().expand_as(error_F) if shared else error_F
        better_F = error_F < best_F
        best_F = torch.where(better_F, error_F, best_F)
        c_in_F = torch.where(better_F, candidate_F, c_in_F)
        c_out_F = torch.where(better_F, factor_F, c_out_F)
    return c_in_F, c_out_F
