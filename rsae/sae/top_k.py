"""TopK SAE (Gao et al. 2024): z keeps the k largest positive pre-activations of each token."""

from __future__ import annotations

from typing import Any

import torch

from rsae.errors import InputError
from rsae.sae.base import SAE, register


def top_k_mask(h_BF: torch.Tensor, k: int) -> torch.Tensor:
    """True at the k largest entries of each row, where they are positive."""
    top = h_BF.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(h_BF, dtype=torch.bool).scatter_(-1, top.indices, top.values > 0)


@register
class TopK(SAE):
    family = "top_k"
    penalties = (None,)

    def __init__(self, d_in: int, d_sae: int, k: int):
        super().__init__(d_in, d_sae)
        if not 0 < k <= d_sae:
            raise InputError(f"k={k} must lie between 1 and d_sae={d_sae}")
        self.k = k

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        return torch.where(top_k_mask(h_BF.detach(), self.k), h_BF, 0.0)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"k": self.k}
