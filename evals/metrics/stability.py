"""Whether two SAEs have the same latents: their decoder rows matched, and how far matched latents fire together.

Shapes: B batch, D dimensions, F latents of the first SAE, G latents of the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from evals.results import Figures
from rsae import SAE, Activations
from rsae.activations.protocol import check_fits
from rsae.support.errors import InputError

#: A latent is kept where its row's cosine with the match reaches this (Paulo and Belrose 2025)
KEPT = 0.7
#: Of the random rows: no seed that an SAE starts from
_SEED = 7_000_003


@dataclass(frozen=True)
class Stability(Figures):
    """How far the latents of two SAEs are the same."""

    cosine: float
    """Mean cosine of matched decoder rows, over the min(F, G) pairs of the best one-to-one match."""
    by_chance: float
    """The same with random rows in the second SAE's place."""
    kept: float
    """Share of the pairs whose cosine reaches 0.7."""
    in_place: float | None
    """Share of the pairs that have the same number in both SAEs; None for SAEs of different widths."""
    overlap: float
    """Mean over pairs that fire at all of the tokens on which both fire, as a share of those on which one does."""
    match_F: tuple[int, ...]
    """The match of each latent of the first SAE; -1 for one without."""
    cosine_F: tuple[float, ...]
    """Its cosine, 0 for a latent without a match."""
    overlap_F: tuple[float | None, ...]
    """The overlap of firing; None where neither fires, or there is no match."""


@torch.no_grad()
def stability(
    first: SAE,
    second: SAE,
    activations: Activations,
    split: str = "heldout",
    rows: int = 4096,
    allow_mismatch: bool = False,
) -> Stability:
    """Match the latents of two SAEs of one hook point.

    The match is the one-to-one match of decoder rows with the largest sum of cosines (Hungarian). Signed latents match
    by |cosine|: a reversed row with a reversed sign is the same latent.

    Args:
        first: An SAE.
        second: Another, such as one of another seed, or its upgrade.
        activations: Where their firing is compared.
        split: `heldout` or `train`.
        rows: Tokens at a time; the result does not depend on it.
        allow_mismatch: Accept SAEs of another model or hook point.

    Returns:
        Means over pairs, and the match itself.

    Raises:
        InputError: where an SAE does not fit the activations, or one is signed and the other is not.

    Source: Paulo and Belrose 2025, arXiv 2501.16615 (different seeds); the threshold is theirs.
    """
    for sae in (first, second):
        check_fits(sae, activations, allow_mismatch)
    if first.signed != second.signed:
        raise InputError("stability: one SAE is signed, the other is not; compare two of a kind")
    row_FD, row_GD = (sae.W_dec.detach().cpu() for sae in (first, second))
    cosine_FG = cosines(row_FD, row_GD, first.signed)
    generator = torch.Generator().manual_seed(_SEED)
    random_GD = torch.randn(row_GD.shape, generator=generator)
    latent_P, match_P = matched(cosine_FG)
    pairs = len(latent_P)
    cosine_P = cosine_FG[latent_P, match_P]
    chance_FG = cosines(row_FD, random_GD, first.signed)
    both_P, either_P = torch.zeros(2, pairs, dtype=torch.float64)
    for x_BD in activations.blocks(split, rows):
        a_BP, b_BP = (
            (sae.encode(x_BD.to(sae.W_enc.device)) != 0).cpu()[:, chosen]
            for sae, chosen in ((first, latent_P), (second, match_P))
        )
        both_P += (a_BP & b_BP).sum(0)
        either_P += (a_BP | b_BP).sum(0)
    known_P = either_P > 0
    overlap_P = both_P / either_P.clamp_min(1)
    match_F, cosine_F = torch.full((first.d_sae,), -1), torch.zeros(first.d_sae)
    match_F[latent_P], cosine_F[latent_P] = match_P, cosine_P
    overlap_F: list[float | None] = [None] * first.d_sae
    for latent, known, overlap in zip(latent_P.tolist(), known_P.tolist(), overlap_P.tolist(), strict=True):
        overlap_F[latent] = overlap if known else None
    same_width = first.d_sae == second.d_sae
    return Stability(
        cosine=cosine_P.double().mean().item(),
        by_chance=chance_FG[matched(chance_FG)].double().mean().item(),
        kept=(cosine_P >= KEPT).double().mean().item(),
        in_place=(latent_P == match_P).double().mean().item() if same_width else None,
        overlap=overlap_P[known_P].mean().item() if bool(known_P.any()) else 0.0,
        match_F=tuple(match_F.tolist()),
        cosine_F=tuple(cosine_F.tolist()),
        overlap_F=tuple(overlap_F),
    )


def cosines(first_FD: torch.Tensor, second_GD: torch.Tensor, signed: bool) -> torch.Tensor:
    """The cosines of rows, [F, G]; |cosines| where `signed`."""
    unit_FD, unit_GD = (F.normalize(rows.detach().float().cpu(), dim=1) for rows in (first_FD, second_GD))
    cosine_FG = unit_FD @ unit_GD.T
    return cosine_FG.abs() if signed else cosine_FG


def matched(score_FG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The one-to-one match of rows and columns with the largest sum: their numbers, [P] each."""
    row_P, column_P = linear_sum_assignment(score_FG.numpy(), maximize=True)
    return torch.as_tensor(row_P), torch.as_tensor(column_P)
