"""Protocol C: pairs of opposed features, and whether one latent takes up both.

A pair has two poles that are never on together. `ratio` poles a dimension are the superposition; the cosine between the
poles is -`opposition`: 1 is a straight axis. A pole is represented if some latent's direction is within the cosine
`MATCH` of it (with the sign it fires with) and it fires on at least half of the samples that hold the pole. A pair is
consolidated if one latent represents both poles, with opposite signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from evals.synthetic.contenders import CONTENDERS, config_of, fit
from evals.synthetic.run import Protocol, Row, curves, measured
from evals.synthetic.worlds import AxesWorld, samples, unit_directions
from rsae import SAE

D, ACTIVE = 16, 2.0
TRAIN, HELDOUT = 20_000, 4_000
MATCH, FIRES = 0.9, 0.5
RATIOS = (1.0, 1.5, 2.0, 3.0, 4.0)
OPPOSITIONS = (0.0, 0.6, 0.8, 0.9, 0.95)
RATIO = 2.0  # of the sweep over opposition
#: The picture of the geometry: pairs in the plane
TOY, TOY_PAIRS, TOY_RATE = "plane", 3, 0.1
POINTS = (TOY, *((r, 1.0) for r in RATIOS), *((RATIO, o) for o in OPPOSITIONS))
NAMES = ("gated_2h", "gated_h", "abs_top_k", "sign_aware")


def opposed(plus_MD: torch.Tensor, opposition: float, seed: int) -> torch.Tensor:
    """Unit directions against given ones, turned aside at random.

    Args:
        plus_MD: Unit rows.
        opposition: Minus the cosine with them.
        seed: Of the turn.

    Returns:
        Unit rows [M, D].
    """
    aside_MD = torch.randn(plus_MD.shape, generator=torch.Generator().manual_seed(4_000_037 + seed))
    aside_MD -= (aside_MD * plus_MD).sum(1, keepdim=True) * plus_MD
    aside_MD /= aside_MD.norm(dim=1, keepdim=True)
    return -opposition * plus_MD + (1 - opposition**2) ** 0.5 * aside_MD


def pairs(count: int, opposition: float, seed: int) -> AxesWorld:
    """A world of pairs, ACTIVE of them on in the mean.

    Args:
        count: How many pairs.
        opposition: Minus the cosine of the poles of a pair.
        seed: Of the directions.
    """
    plus_MD = unit_directions(count, D, seed)
    return AxesWorld(plus_MD, opposed(plus_MD, opposition, seed), ACTIVE / count)


@torch.no_grad()
def represented(sae: SAE, world: AxesWorld, c_BM: torch.Tensor, x_BD: torch.Tensor) -> torch.Tensor:
    """Which latent represents which pole.

    Args:
        sae: The SAE.
        world: The pairs.
        c_BM: Their coefficients in the samples.
        x_BD: The samples.

    Returns:
        The sign with which it does, +1, -1 or 0, at [2, F, M].
    """
    sign_BF = sae.encode(x_BD).sign()
    found = []
    for sign, pole_MD in ((1, world.plus_MD), (-1, world.minus_MD)):
        cosine_FM = (sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)) @ pole_MD.T
        near_FM = torch.where(cosine_FM.abs() >= MATCH, cosine_FM.sign(), 0.0)
        on_BM = (sign * c_BM > 0).float()
        count_M = on_BM.sum(0).clamp_min(1)
        fires_FM = torch.where(near_FM > 0, sign_BF.relu().T @ on_BM, (-sign_BF).relu().T @ on_BM) / count_M
        found.append(torch.where(fires_FM >= FIRES, near_FM, 0.0))
    return torch.stack(found)


def measure(point: Any, seed: int, steps: int) -> list[Row]:
    """A row a contender at one superposition and opposition, or in the plane.

    Args:
        point: Of the sweep.
        seed: Of the world and the starts.
        steps: Of training.

    Returns:
        The rows.
    """
    if point == TOY:
        return toy(seed, steps)
    ratio, opposition = point
    count = round(ratio * D / 2)
    world = pairs(count, opposition, seed)
    c_BM, heldout_BD = world.draw(HELDOUT, 1000 + seed)
    data = samples(world.draw(TRAIN, seed)[1], heldout_BD)
    jobs = [(CONTENDERS[name], count, config_of(steps, seed, l0=ACTIVE)) for name in NAMES]
    saes = fit(
        jobs,
        data,
        seed,
        f"protocol C, {ratio:g} poles a dimension, opposition {opposition:g}, seed {seed}",
    )
    rows = []
    for name, sae in zip(NAMES, saes, strict=True):
        found = represented(sae, world, c_BM, heldout_BD)
        rows.append(
            {
                "contender": name,
                "parameters": sae.parameter_count,
                **measured(sae, data),
                "represented": (found != 0).any(1).float().mean().item(),
                "consolidated": (found[0] * found[1] < 0).any(0).float().mean().item(),
            }
        )
    return rows


def toy(seed: int, steps: int) -> list[Row]:
    """Straight pairs in the plane, by `seed` and after `steps` of training: decoder rows and one latent's code."""
    angle_M = (torch.arange(TOY_PAIRS) + 0.25) * torch.pi / TOY_PAIRS
    plus_MD = torch.stack([angle_M.cos(), angle_M.sin()], 1)
    world = AxesWorld(plus_MD, -plus_MD, TOY_RATE)
    data = samples(world.draw(TRAIN, seed)[1], world.draw(HELDOUT, 1000 + seed)[1])
    names = ("gated_2h", "sign_aware")
    config = config_of(steps, seed, l0=TOY_PAIRS * TOY_RATE)
    saes = fit([(CONTENDERS[name], TOY_PAIRS, config) for name in names], data, seed, "protocol C, the plane")
    rows = []
    for name, sae in zip(names, saes, strict=True):
        with torch.no_grad():
            z_BF = sae.encode(data.sample(HELDOUT, split="heldout"))
        code = z_BF[:, int((z_BF != 0).sum(0).argmax())]
        rows.append(
            {
                "contender": name,
                "axes": plus_MD.tolist(),
                "decoder": sae.W_dec.tolist(),
                "code": code[code != 0].tolist(),
            }
        )
    return rows


def draw(axes: Any, summary: list[Row], rows: list[Row]) -> None:
    """The plane and a latent's histogram; tolerance and consolidation against superposition and opposition.

    Args:
        axes: Matplotlib axes of the panels.
        summary: Rows over all seeds.
        rows: Rows of single seeds.
    """
    for ax, name in ((axes[0, 0], "gated_2h"), (axes[0, 1], "sign_aware")):
        found = next(row for row in rows if row["point"] == TOY and row["contender"] == name)
        plus = np.array(found["axes"])
        ax.plot(*np.concatenate([plus, -plus]).T, "o", color=CONTENDERS["sign_aware"].color, markersize=7)
        for row in found["decoder"]:
            ax.annotate(
                "", row, (0, 0), arrowprops={"arrowstyle": "->", "color": CONTENDERS["gated_2h"].color}
            )
        ax.set(title=CONTENDERS[name].label, xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    axes[0, 2].hist(found["code"], bins=60, color=CONTENDERS["sign_aware"].color)
    axes[0, 2].set(xlabel="code of one SA-GSAE latent (where not 0)", ylabel="samples", yscale="log")
    ratios = [row for row in summary if row["point"] != TOY and row["point"][1] == 1.0]
    turned = [row for row in summary if row["point"] != TOY and row["point"][0] == RATIO]
    turned.sort(key=lambda row: row["point"][1])
    for ax, some, x, metric in (
        (axes[1, 0], ratios, 0, "fvu"),
        (axes[1, 1], ratios, 0, "consolidated"),
        (axes[1, 2], turned, 1, "consolidated"),
    ):
        curves(ax, some, lambda row, x=x: row["point"][x], metric)
        label = "fraction of variance unexplained" if metric == "fvu" else "share of pairs consolidated"
        ax.set(xlabel=("poles a dimension", "opposition within a pair")[x], ylabel=label)


PROTOCOL = Protocol(
    "consolidation of opposed pairs",
    {
        "d_in": D,
        "active": ACTIVE,
        "train": TRAIN,
        "heldout": HELDOUT,
        "match": MATCH,
        "fires": FIRES,
        "points": POINTS,
        "toy": (TOY_PAIRS, TOY_RATE),
    },
    POINTS,
    measure,
    draw,
    (2, 3),
)
