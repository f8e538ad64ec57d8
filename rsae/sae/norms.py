"""Decoder norms at the start of training. Shapes: D d_in, F d_sae."""

from __future__ import annotations

import math
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
def balance_(sae: Dictionary) -> torch.Tensor:
    """Bring decoder rows near unit norm without changing the function; the norms to keep, [F].

    Norms move into the encoder latent by latent. Where the gate compares latents, or a magnitude is shared by all,
    that would change the function: there only their geometric mean moves, and the rest is what `constrain_` keeps.
    Rows of zeros (pruned latents) stay what they are.

    Args:
        sae: An SAE, or the part of it that lies in this process.
    """
    norm_F = sae.W_dec.norm(dim=1)
    living_F = norm_F > 0
    odd = ((norm_F - 1).abs() >= _UNIT)[living_F].sum()
    logs = norm_F[living_F].double().log().sum()
    living, odds, total = sae.shard.sum(torch.stack([living_F.sum().double(), odd.double(), logs])).tolist()
    if not odds or sae.homogeneous:
        if odds:
            sae.scale_latents_(torch.where(living_F, norm_F, 1.0))
        return living_F.to(norm_F)
    mean = norm_F.new_tensor(math.exp(total / living))
    sae.scale_latents_(mean.expand_as(norm_F))
    return norm_F / mean
