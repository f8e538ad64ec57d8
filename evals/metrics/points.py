"""FVU point by point, of crosscoders and cross-layer transcoders. Shapes: B batch, D d_in, O width of a point."""

from __future__ import annotations

import torch

from evals.metrics.reconstruction import read_and_predicted
from rsae import SAE, Activations, InputError
from rsae.activations.protocol import check_fits


@torch.no_grad()
def by_point(
    sae: SAE, activations: Activations, split: str = "heldout", rows: int = 4096, allow_mismatch: bool = False
) -> dict[str, float]:
    """The fraction of variance unexplained at each hook point that an SAE gives.

    Args:
        sae: A crosscoder or cross-layer transcoder.
        activations: Joined activations (`rsae.join`).
        split: `heldout` or `train`.
        rows: Tokens at a time.
        allow_mismatch: Accept an SAE of another model or hook points.

    Returns:
        By point, in the order of what is given.

    Raises:
        InputError: It is an SAE of one hook point, or does not fit.
    """
    layout = sae.layout
    if layout is None:
        raise InputError("by_point: the SAE is one of a single hook point; evals.reconstruction measures it")
    check_fits(sae, activations, allow_mismatch)
    error, square, tokens = (dict.fromkeys([p.name for p in layout.writes], 0.0) for _ in range(3))
    total = {p.name: torch.zeros(p.width, dtype=torch.float64) for p in layout.writes}
    for x_BD, y_BO in read_and_predicted(sae, activations, split, rows):
        given = layout.written(sae(x_BD.to(sae.W_enc.device)).double().cpu())
        for name, wanted_BO in layout.written(y_BO.double()).items():
            error[name] += (given[name] - wanted_BO).square().sum().item()
            square[name] += wanted_BO.square().sum().item()
            total[name] += wanted_BO.sum(0)
            tokens[name] += len(wanted_BO)
    return {
        name: error[name] / (square[name] - (total[name].square().sum() / tokens[name]).item())
        for name in error
    }
