"""SAEs and records for tests."""

from __future__ import annotations

import torch

from evals.results import (
    Accuracy,
    BySequence,
    Density,
    Downstream,
    How,
    Interval,
    Level,
    Metrics,
    Probing,
    Reconstruction,
    Result,
    Role,
    Site,
)
from rsae import HarvestConfig, ReLU

HOOK = "blocks.1.hook_resid_post"


def exact_sae(d_in: int, error: float = 0.0) -> ReLU:
    """x = relu(x) - relu(-x): an SAE that reconstructs exactly (times 1 - error)."""
    sae = ReLU(d_in, 2 * d_in)
    eye = torch.eye(d_in)
    sae.W_enc.data = torch.cat([eye, -eye], dim=1)
    sae.W_dec.data = torch.cat([eye, -eye], dim=0) * (1 - error)
    return sae


def result(
    role: Role = Role.TEACHER, upgrade: str | None = None, control: str | None = None, /, **figures: float
) -> Result:
    """A cell with the figures l0, alive, mse, fvu, dce, loss_recovered, k1, k5; the rest of it is made up.

    `level`, `seed`, `d_sae` and `family` may be given, too.
    """
    fvu = figures.get("fvu", 0.5)
    fit = Reconstruction(
        mse=figures.get("mse", 1.0),
        fvu=fvu,
        r2=1 - fvu,
        l0=figures.get("l0", 8.0),
        alive=figures.get("alive", 1.0),
        cosine=0.9,
        l2_ratio=0.95,
        relative_bias=0.98,
        tokens=1000,
        density=Density((0.0, 1.0), (0, 16)),
        decoder_redundancy=0.3,
    )
    recovered = figures.get("loss_recovered", 0.9)
    kl, dce = figures.get("kl", 0.2), figures.get("dce", 0.1)
    spliced = Downstream(
        kl=kl,
        kl_interval=Interval(0.9 * kl, 1.1 * kl),
        ce=3.0,
        dce=dce,
        dce_interval=Interval(dce - 0.1, dce + 0.1),
        loss_recovered=recovered,
        top1=0.7,
        sequences=BySequence((50, 50), (40 * dce, 60 * dce), (40 * kl, 60 * kl)),
        ce_clean=2.9,
        ce_zero=9.0,
        kl_zero=6.0,
        predictions=100,
        positions="all",
    )
    accuracies = {
        k: Accuracy(value, value - 0.1, value + 0.1) for k in (1, 5) if (value := figures.get(f"k{k}"))
    }
    return Result(
        site=Site("host", HOOK),
        family="jump_relu",
        d_sae=int(figures.get("d_sae", 16)),
        level=Level("l0", figures.get("level", 8)),
        seed=int(figures.get("seed", 0)),
        upgrade=upgrade,
        role=role,
        control=control,
        sae="sites/x/saes/y",
        metrics=Metrics(fit, spliced, {"spam": Probing(accuracies)} if accuracies else {}),
        how=How(1.0, HarvestConfig(), "", "machine", {"torch": "2"}),
    )


def tuned(**figures: float) -> Result:
    """A fine-tuned upgrade `gated`, compared with `control`."""
    return result(Role.TUNED, "gated", "control", **figures)


def control(**figures: float) -> Result:
    """The control of `tuned`."""
    return result(Role.CONTROL, None, "control", **figures)
