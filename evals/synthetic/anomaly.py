"""Protocol B: directional anomalies under a strict budget of latents.

An anomaly is one axis far out on one side. One latent, chosen with its sign on other samples, has to tell it from
ordinary samples and from anomalies of the same axis on the other side. All contenders have the same number of latents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from evals.synthetic.contenders import CONTENDERS, config_of, fit
from evals.synthetic.run import Protocol, Row, curves, measured
from evals.synthetic.worlds import AxesWorld, samples, unit_directions
from rsae import SAE

D, AXES, RATE = 16, 16, 1 / 8
TRAIN, HELDOUT = 20_000, 4_000
#: An anomaly's magnitude is uniform in this interval; ordinary ones end at 1.5
ANOMALY = (2.0, 2.5)
#: Samples of each kind (one side, the other, ordinary) and of each split (choice, test), for each direction
COUNT = 100
#: AUROC from which a direction counts as detected
DETECTED = 0.95
BUDGETS = (8, 16, 32)
LEVELS = (1.0, 2.0, 4.0)
#: (latents, wanted l0): a sweep of the budget at the true l0, and of l0 at a latent an axis
POINTS = tuple((H, l0) for H in BUDGETS for l0 in LEVELS if H == AXES or l0 == AXES * RATE)
NAMES = ("gated_h", "top_k_h", "abs_top_k", "sign_aware")


def auroc(score_NF: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each column of `score_NF`, by the labels `positive_N`; ties count half."""
    rank_NF = rankdata(score_NF, axis=0)
    n = int(positive_N.sum())
    return (rank_NF[positive_N].sum(0) - n * (n + 1) / 2) / (n * (len(positive_N) - n))


@torch.no_grad()
def detection(sae: SAE, world: AxesWorld, seed: int) -> np.ndarray:
    """How well the best single latent tells each direction.

    Args:
        sae: The SAE.
        world: The axes.
        seed: Of the samples.

    Returns:
        Test AUROC [2 M].
    """
    generator = torch.Generator().manual_seed(3_000_017 + seed)
    found = []
    for axis in range(AXES):
        codes = []
        for side in (1, -1, 0):
            c_BM = world.coefficients(2 * COUNT, generator)
            if side:
                low, high = ANOMALY
                c_BM[:, axis] = side * (low + (high - low) * torch.rand(2 * COUNT, generator=generator))
            codes.append(sae.encode(world.observe(c_BM, generator)).numpy())
        for positive in (0, 1):
            split = [np.concatenate([z[at] for z in codes]) for at in (slice(COUNT), slice(COUNT, None))]
            label = np.repeat(np.arange(3) == positive, COUNT)
            choice_F, test_F = (auroc(z_NF, label) for z_NF in split)
            best = int(np.argmax(np.abs(choice_F - 0.5)))
            found.append(test_F[best] if choice_F[best] >= 0.5 else 1 - test_F[best])
    return np.array(found)


def measure(point: tuple[int, float], seed: int, steps: int) -> list[Row]:
    """A row a contender, at one budget and l0.

    Args:
        point: Of the sweep.
        seed: Of the world and the starts.
        steps: Of training.

    Returns:
        The rows.
    """
    H, l0 = point
    axes_MD = unit_directions(AXES, D, seed)
    world = AxesWorld(axes_MD, -axes_MD, RATE)
    data = samples(world.draw(TRAIN, seed)[1], world.draw(HELDOUT, 1000 + seed)[1])
    jobs = [(CONTENDERS[name], H, config_of(steps, seed, l0=l0)) for name in NAMES]
    saes = fit(jobs, data, seed, f"protocol B, {H} latents, l0 {l0:g}, seed {seed}")
    rows = []
    for name, sae in zip(NAMES, saes, strict=True):
        found = detection(sae, world, seed)
        rows.append(
            {
                "contender": name,
                "parameters": sae.parameter_count,
                **measured(sae, data),
                "auroc": float(found.mean()),
                "detected": float((found >= DETECTED).mean()),
            }
        )
    return rows


def draw(axes: Any, summary: list[Row], rows: list[Row]) -> None:
    """AUROC and detected share against the budget at the true l0; MSE against l0 at one latent an axis.

    Args:
        axes: Matplotlib axes of the panels.
        summary: Rows over all seeds.
        rows: Rows of single seeds.
    """
    budget = [row for row in summary if row["point"][1] == AXES * RATE]
    for ax, metric, label in (
        (axes[0, 0], "auroc", "mean AUROC of the best latent"),
        (axes[0, 1], "detected", f"share of directions with AUROC >= {DETECTED}"),
    ):
        curves(ax, budget, lambda row: row["point"][0], metric)
        ax.set(xlabel=f"latents (for {2 * AXES} directions on {AXES} axes)", ylabel=label, xscale="log")
        ax.set_xticks(BUDGETS, list(map(str, BUDGETS)), minor=False)
        ax.minorticks_off()
    sweep = [row for row in summary if row["point"][0] == AXES]
    curves(axes[0, 2], sweep, lambda row: row["l0"], "mse")
    axes[0, 2].set(xlabel=f"l0, at {AXES} latents", ylabel="mean square error")


PROTOCOL = Protocol(
    "directional anomalies under a budget of latents",
    {
        "d_in": D,
        "axes": AXES,
        "rate": RATE,
        "train": TRAIN,
        "heldout": HELDOUT,
        "anomaly": ANOMALY,
        "count": COUNT,
        "detected": DETECTED,
        "points": POINTS,
    },
    POINTS,
    measure,
    draw,
    (1, 3),
)
