"""Protocol A, the Polarity Dial: signed axes whose two polarities differ in size, over a sweep of the sparsity.

Does a latent read both polarities at their true sizes? The slope of an axis's polarity is the least-squares factor
from the true coefficient to what the latent nearest to it contributes along the axis: 1 is calibrated, 0 is unseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evals.synthetic.contenders import CONTENDERS, config_of, fit
from evals.synthetic.run import Protocol, Row, curves, measured
from evals.synthetic.worlds import AxesWorld, samples, unit_directions
from rsae import SAE

D, AXES, RATE, GAIN = 16, 16, 0.1, (1.0, 0.5)
TRAIN, HELDOUT = 20_000, 4_000
#: Weights of the penalty, and k of the TopK families beside them
STRENGTHS = ((0.5, 6), (1.0, 4), (2.0, 2), (4.0, 1))
NAMES = (
    "gated_2h",
    "gated_h",
    "top_k_2h",
    "abs_top_k",
    "sign_aware",
    "untied",
    "rational",
    "no_auxiliary",
    "one_sided",
    "no_reset",
)


def world(seed: int) -> AxesWorld:
    """Orthogonal axes whose negative side is half as large as the positive."""
    axes_MD = unit_directions(AXES, D, seed)
    return AxesWorld(axes_MD, -axes_MD, RATE, GAIN)


@torch.no_grad()
def slopes(sae: SAE, axes_MD: torch.Tensor, c_BM: torch.Tensor, x_BD: torch.Tensor) -> torch.Tensor:
    """Calibration slopes of each axis.

    Args:
        sae: The SAE.
        axes_MD: Unit directions of the axes.
        c_BM: Their coefficients in the samples.
        x_BD: The samples.

    Returns:
        [2, M], the positive polarity first.
    """
    z_BF = sae.encode(x_BD)
    along_FM = sae.W_dec @ axes_MD.T
    found = []
    for sign in (1, -1):
        match_FM = along_FM.abs() if sae.signed else sign * along_FM
        best_M = match_FM.argmax(0)
        read_BM = z_BF[:, best_M] * along_FM.gather(0, best_M[None])
        c_sign_BM = torch.where(sign * c_BM > 0, c_BM, 0.0)
        found.append((c_sign_BM * read_BM).sum(0) / c_sign_BM.square().sum(0))
    return torch.stack(found)


def measure(point: tuple[float, int], seed: int, steps: int) -> list[Row]:
    """A row a contender at one strength of the sparsity.

    Args:
        point: Of the sweep.
        seed: Of the world and the starts.
        steps: Of training.

    Returns:
        The rows.
    """
    sparsity, k = point
    data = world(seed)
    c_BM, heldout_BD = data.draw(HELDOUT, 1000 + seed)
    drawn = samples(data.draw(TRAIN, seed)[1], heldout_BD)
    chosen = [CONTENDERS[name] for name in NAMES]
    by_k, by_weight = config_of(steps, seed, l0=k), config_of(steps, seed, sparsity)
    jobs = [(c, AXES, by_k if c.top_k else by_weight) for c in chosen]
    saes = fit(jobs, drawn, seed, f"protocol A, sparsity {sparsity}, seed {seed}")
    rows = []
    for name, sae in zip(NAMES, saes, strict=True):
        found = slopes(sae, data.plus_MD, c_BM, heldout_BD)
        rows.append(
            {
                "contender": name,
                "parameters": sae.parameter_count,
                **measured(sae, drawn),
                "miscalibration": (found - 1).abs().mean().item(),
                "slopes_positive": found[0].tolist(),
                "slopes_negative": found[1].tolist(),
            }
        )
    return rows


def draw(axes: Any, summary: list[Row], rows: list[Row]) -> None:
    """MSE and miscalibration against l0; CDFs of the slopes at the point nearest to the true l0.

    Args:
        axes: Matplotlib axes of the panels.
        summary: Rows over all seeds.
        rows: Rows of single seeds.
    """
    true_l0 = AXES * RATE
    for ax, metric, label in (
        (axes[0, 0], "mse", "mean square error"),
        (axes[0, 1], "miscalibration", "mean |slope - 1|"),
    ):
        curves(ax, summary, lambda row: row["l0"], metric)
        ax.axvline(true_l0, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
        ax.set(xlabel="l0 (dashed: the truth)", ylabel=label, xscale="log")
        ax.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        ax.minorticks_off()
    axes[0, 0].set_yscale("log")
    for ax, side in ((axes[1, 0], "positive"), (axes[1, 1], "negative")):
        for name in NAMES:
            mine = [row for row in summary if row["contender"] == name]
            nearest = min(mine, key=lambda row: abs(np.log(max(row["l0"][0], 1e-3) / true_l0)))["point"]
            values = np.sort(
                np.concatenate(
                    [
                        row[f"slopes_{side}"]
                        for row in rows
                        if row["contender"] == name and row["point"] == nearest
                    ]
                )
            )
            c = CONTENDERS[name]
            ax.step(values, np.arange(1, len(values) + 1) / len(values), color=c.color, linewidth=1.1)
            ax.plot(
                values[:: len(values) // 6],
                np.linspace(0, 1, len(values[:: len(values) // 6])),
                c.marker,
                color=c.color,
                markersize=4,
            )
        ax.set(xlabel=f"slope, {side} polarity", ylabel="share of axes at or below")


PROTOCOL = Protocol(
    "Polarity Dial",
    {
        "d_in": D,
        "axes": AXES,
        "H": AXES,
        "rate": RATE,
        "gain": GAIN,
        "train": TRAIN,
        "heldout": HELDOUT,
        "strengths": STRENGTHS,
    },
    STRENGTHS,
    measure,
    draw,
    (2, 2),
)
