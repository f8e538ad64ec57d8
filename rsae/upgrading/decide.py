"""What an upgrade of a teacher comes to: its family, its loss and its budget, decided once for both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rsae.activations.protocol import Activations
from rsae.sae import RATIONAL_FORMS, SAE, SoftRational, plain
from rsae.sae.pursuit import pursuit_form
from rsae.sae.units import units_for
from rsae.support.errors import InputError
from rsae.training import TrainConfig
from rsae.upgrading.config import FINE_TUNING, UpgradeConfig

#: Width of the straight-through kernel of a dead zone that nobody trained, at mean norm sqrt(D)
BANDWIDTH = 1.0
#: A ReLU teacher loses its L1 behind a fresh dead zone and becomes dense within a few steps; the new thresholds need a
#: higher rate to follow
_FRESH_THRESHOLD_LR = 20.0


_ALIKE = 1e-10  # of the squares: a variance that float32's rounding makes


@dataclass(frozen=True)
class Decided:
    """What is trained, on both sides of the comparison."""

    family: type[SAE]
    """The upgraded SAE's family."""
    penalty: str | None
    """The loss's penalty."""
    tune: TrainConfig
    """The budget: with a weight of the penalty or an l0 in any case where there is a penalty."""
    control_name: str
    """`control`; `control-PENALTY` where the penalty is not the teacher's own; with `-held` where the l0 is held."""


def bandwidth(teacher: SAE, activations: Activations) -> float:
    """Width of a dead zone's kernel that nobody trained, in the unit of the teacher's pre-activations.

    Args:
        teacher: The trained SAE.
        activations: For their unit; an SAE that normalises each token has none.
    """
    return BANDWIDTH / (units_for(teacher, activations)[0].scale if teacher.input_norm is None else 1.0)


def upgraded_family(teacher: SAE, config: UpgradeConfig) -> type[SAE]:
    """The family that a teacher is upgraded to.

    Args:
        teacher: The trained SAE.
        config: The upgrade.

    Raises:
        InputError: The teacher has no rational form in this variant.
    """
    if config.variant == "soft":
        teacher.check_soft_form()
        return SoftRational
    if config.variant == "pursuit":
        return pursuit_form(type(plain(teacher)))
    gate = (teacher.behind_dead_zone(BANDWIDTH) if config.dead_zone else None) or teacher
    if type(gate) not in RATIONAL_FORMS:
        known = ", ".join(cls.family for cls in RATIONAL_FORMS)
        raise InputError(f"a teacher of family {teacher.family!r} has no rational form; choose from {known}")
    return RATIONAL_FORMS[type(gate)]


def decide(teacher: SAE, activations: Activations, config: UpgradeConfig) -> Decided:
    """Family, loss and budget of an upgrade.

    `soft` is dense and has no l0 to penalise: it gets the paper's L1. A dead zone gets l0: under L1 its magnitude
    learns to pass many tiny values. A pursuit is as sparse as its teacher: where no weight is given it is steered to
    the teacher's l0, and its control with it. Under L1's own weight the decoder that fits the pursued code, which is
    not shrunk, leaves the plain one more to do, and its l0 grows by two thirds within 300 steps. `hold_l0` asks for the
    same of `gated`.

    Args:
        teacher: The trained SAE.
        activations: What it is fine-tuned on.
        config: The upgrade.

    Raises:
        InputError: The teacher has no rational form in this variant, the weight of its penalty has to be given, or an
            l0 is to be held that there is not.
    """
    if config.hold_l0 and config.variant == "soft":
        raise InputError("hold_l0: a `soft` SAE is dense in training, so that there is no l0 to hold")
    held = config.hold_l0 or config.variant == "pursuit"
    family = upgraded_family(teacher, config)
    own = teacher.penalties[0]
    penalty = None if own is None else family.penalties[0]
    if config.tune.penalty != "own":  # else the family's first
        penalty = None if config.tune.penalty == "none" else config.tune.penalty
        if penalty not in family.penalties:
            known = ", ".join(map(str, family.penalties))
            raise InputError(
                f"tune.penalty = {penalty!r}: family {family.family!r} has {known}; or 'own', the first"
            )
    tune = replace(config.tune.rated(FINE_TUNING), penalty=penalty)
    fresh = config.variant == "gated" and config.dead_zone and teacher.behind_dead_zone(BANDWIDTH) is not None
    if fresh:
        tune = replace(tune, threshold_lr=max(tune.threshold_lr, _FRESH_THRESHOLD_LR))
    name = "control" if penalty == own else f"control-{penalty}"
    if penalty is None or tune.sparsity or tune.l0:
        return Decided(family, penalty, tune, name)
    trained = teacher.trained
    if trained is not None and trained.penalty == penalty and trained.sparsity:
        tune = replace(tune, sparsity=trained.sparsity)
        if not held:
            return Decided(family, penalty, tune, name)
    if config.variant == "soft":  # it is dense in training: there is no l0 to steer
        raise InputError(
            f"the teacher does not say with what weight of the {penalty} penalty to fine-tune; set tune.sparsity "
            "(--sparsity)"
        )
    l0 = fit_of(teacher, activations, config.calibration_tokens)["l0"]
    if not 0 < l0 < teacher.d_sae:
        none = "none of its latents fires" if l0 == 0 else "all of its latents fire always"
        raise InputError(
            f"the teacher has no l0 to keep ({none}); give tune.l0 or tune.sparsity (--l0, --sparsity)"
        )
    return Decided(family, penalty, replace(tune, l0=l0), f"{name}-held" if held else name)


@torch.no_grad()
def fit_of(sae: SAE, activations: Activations, tokens: int, split: str = "train") -> dict[str, float]:
    """`fvu` and `l0` on a sample of tokens, in the state in which the SAE is used.

    Args:
        sae: The SAE; it is left as it is.
        activations: The activations.
        tokens: Size of the sample.
        split: `train` or `heldout`.
    """
    training = sae.training
    sae.eval()
    x_BD = activations.sample(tokens, 1, split).to(sae.W_enc.device)
    y_BO = x_BD
    if sae.transcodes and activations.target is not None:
        y_BO = activations.target.sample(tokens, 1, split).to(x_BD)
    error = count = 0.0
    for rows_BD, wanted_BO in zip(x_BD.split(1024), y_BO.split(1024), strict=True):
        z_BF = sae.encode(rows_BD)
        error += (sae.decode(z_BF, rows_BD) - wanted_BO).square().sum().item()
        count += z_BF.count_nonzero().item()
    sae.train(training)
    variance = (y_BO - y_BO.mean(0)).square().sum().item()
    if not variance > _ALIKE * y_BO.square().sum().item():
        raise InputError(f"{activations.name}: its tokens are all alike; there is nothing to fit")
    return {"fvu": error / variance, "l0": count / len(x_BD)}
