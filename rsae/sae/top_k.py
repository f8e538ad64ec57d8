"""TopK SAE (Gao et al. 2024): z keeps the k largest positive pre-activations of each token."""

from __future__ import annotations

from typing import Any

import torch

from rsae.support.errors import InputError
from rsae.sae.base import SAE, register
from rsae.sae.sparse import Pattern


@register
class TopK(SAE):
    family = "top_k"
    penalties = (None,)

    def __init__(self, d_in: int, d_sae: int, k: int, subtract_b_dec: bool = True):
        super().__init__(d_in, d_sae, subtract_b_dec)
        if not 0 < k <= d_sae:
            raise InputError(f"k={k} must lie between 1 and d_sae={d_sae}")
        self.k = k

    def support(self, h_BF: torch.Tensor) -> Pattern:
        return Pattern.of_columns(h_BF.topk(self.k, dim=-1, sorted=False).indices, self.d_sae)

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        return torch.where(h_N > 0, self.magnitude(h_N, latent_N), 0.0)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"k": self.k}
