"""ReLU SAE with an L1 penalty (Bricken et al. 2023): z = max(h, 0). Shapes: B batch, F d_sae, N entries."""

from __future__ import annotations

import torch

import approx
from rsae.sae.base import SAE
from rsae.sae.jump_relu import JumpReLU
from rsae.sae.rational import RationalSAE
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern, open_where


@register
class ReLU(SAE):
    family = "relu"
    saelens = "standard"
    penalties = ("l1", "tanh")
    shardable = True
    ramp = True
    takes_all = True

    def support(self, h_BF: torch.Tensor) -> Pattern:
        return Pattern.above(h_BF, h_BF.new_zeros(self.d_sae))

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        magnitude_N = self.magnitude(h_N, latent_N)
        return magnitude_N if latent_N is not None else open_where(magnitude_N, h_N)

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        return approx.relu()

    def behind_dead_zone(self, bandwidth: float) -> SAE | None:
        sae = JumpReLU.from_settings(self.settings() | {"threshold": 0.0, "bandwidth": bandwidth})
        sae.to(self.W_enc.device)
        sae.take_over_(self)
        return sae


@register
class RationalReLU(RationalSAE, ReLU):
    """ReLU with a trained rational magnitude behind its gate."""

    family = "rational_relu"
