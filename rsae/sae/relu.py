"""ReLU SAE with an L1 penalty (Bricken et al. 2023): z = max(h, 0)."""

from __future__ import annotations

import torch

from rsae.sae.base import SAE, register


@register
class ReLU(SAE):
    family = "relu"
    penalties = ("l1",)

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        return torch.relu(h_BF)
