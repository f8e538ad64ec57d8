"""TopK SAE (Gao et al. 2024): z keeps the k largest positive pre-activations of each token.

Shapes: B batch, F d_sae, N entries.
"""

from __future__ import annotations

from typing import Any

import torch

import approx
from rsae.sae import sparse_cuda
from rsae.sae.base import SAE, SPREADS
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Entries, Rates
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern, encode_largest
from rsae.support.errors import InputError

#: The gap around the jump of the gate on the design interval [-1, 1]
GATE_MARGIN = 0.05


@register
class TopK(SAE):
    family = "top_k"
    saelens = "topk"
    sparsity_by = "k"
    compares_latents = True
    supplied_threshold = True
    penalties = (None,)
    rates = Rates(3e-3)
    shardable = True

    def __init__(self, d_in: int, d_sae: int, k: int, subtract_b_dec: bool = True):
        super().__init__(d_in, d_sae, subtract_b_dec)
        if not 0 < k <= d_sae:
            raise InputError(f"k={k} must lie between 1 and d_sae={d_sae}")
        self.k = k

    def support(self, h_BF: torch.Tensor) -> Pattern:
        return self.shard.largest(h_BF, self.k)

    def entries(self, x_BD: torch.Tensor) -> Entries:
        if self.needs_all or self.shard.parts > 1 or not sparse_cuda.fuses(x_BD, self.d_sae, self.k):
            return super().entries(x_BD)
        b_dec = self.b_dec if self.subtract_b_dec else None
        return Entries(*encode_largest(x_BD, self.W_enc, self.encoder_bias, b_dec, self.k))

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        return torch.where(h_N > 0, self.magnitude(h_N, latent_N), 0.0)

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        return approx.gate(0.0, GATE_MARGIN)

    def scale_candidates(self, spread_F: torch.Tensor) -> list[torch.Tensor]:
        # one C_in for all latents, since the gate's argument is h - tau_k
        return [spread_F.median().expand_as(spread_F) * factor for factor in SPREADS]

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"k": self.k}


@register
class RationalTopK(RationalSAE, TopK):
    """TopK with a trained rational magnitude behind its gate."""

    family = "rational_top_k"
