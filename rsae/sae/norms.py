"""Decoder norms at the start of training. Shapes: D d_in, F d_sae."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch

from rsae.sae.shard import Whole

#: Rows whose norm differs from 1 by less are taken as unit rows
_UNIT = 1e-5


class Dictionary(Protocol):
    """What is asked of an SAE."""

    shard: Whole

    @property
    def W_dec(self) -> torch.Tensor:
        """The decoder, [F, D]."""
        ...

    @property
    def homogeneous(self) -> bool:
        """Whether any latent can be scaled by itself without changing the function."""
        ...

    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        """Multiply each latent's code and divide its decoder row by a factor: the same function."""
        ...


@torch.no_grad()
def balance_(sae: Dictionary, fires: Callable[[], torch.Tensor] | None = None) -> torch.Tensor:
    """Bring decoder rows near unit norm without changing the function; the norms to keep, [F].

    Norms move into the encoder latent by latent. Where the gate compares latents, or a magnitude is shared by all,
    that would change the function: there only the geometric mean of those that fire moves, and the rest is what
    `constrain_` keeps. Rows of dead latents may have any norm, and say nothing. Rows of zeros (pruned latents) stay
    what they are.

    Args:
        sae: An SAE, or the part of it that lies in this process.
        fires: Which latents fire on a batch, [F]; by default all count.
    """
    norm_F = sae.W_dec.norm(dim=1)
    living_F = norm_F > 0
    odds = sae.shard.sum(((norm_F - 1).abs() >= _UNIT)[living_F].sum().double()).item()
    if not odds or sae.homogeneous:
        if odds:
            sae.scale_latents_(torch.where(living_F, norm_F, 1.0))
        return living_F.to(norm_F)

    def mean_of(chosen_F: torch.Tensor) -> float:
        logs = norm_F[chosen_F].double().log().sum()
        count, total = sae.shard.sum(torch.stack([chosen_F.sum().double(), logs])).tolist()
        return math.exp(total / count) if count else 0.0

    mean = mean_of(living_F & fires()) if fires is not None else 0.0
    mean = norm_F.new_tensor(mean or mean_of(living_F))
    sae.scale_latents_(mean.expand_as(norm_F))
    return norm_F / mean
