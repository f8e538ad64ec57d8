"""ReLU SAE with an L1 penalty (Bricken et al. 2023): z = max(h, 0)."""

from __future__ import annotations

import torch

from rsae.sae.base import SAE, register
from rsae.sae.sparse import Pattern


@register
class ReLU(SAE):
    family = "relu"
    penalties = ("l1", "tanh")

    def support(self, h_BF: torch.Tensor) -> Pattern:
        return Pattern.of(h_BF > 0)

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        return self.magnitude(h_N, latent_N)
