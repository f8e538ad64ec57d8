"""ReLU SAE with an L1 penalty (Bricken et al. 2023): z = max(h, 0)."""

from __future__ import annotations

from typing import Any

import torch

from rsae.activation.dead_zone import heaviside
from rsae.sae.base import SAE, register


@register
class ReLU(SAE):
    """Trained with `l1`; with `l0` it is the control of a rational SAE that is.

    `l0` reaches the biases straight through, as it reaches JumpReLU's thresholds: h > 0 where h - b_enc > -b_enc.
    `bandwidth` is that kernel's eps; it matters in such training only.
    """

    family = "relu"
    penalties = ("l1", "l0")

    def __init__(self, d_in: int, d_sae: int, bandwidth: float = 1.0):
        super().__init__(d_in, d_sae)
        self.bandwidth = bandwidth

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        return torch.relu(h_BF)

    def open_gates(self, h_BF: torch.Tensor) -> torch.Tensor:
        return heaviside((h_BF - self.b_enc).detach(), -self.b_enc, self.bandwidth)

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        super().rescale_(factor)
        self.bandwidth *= factor

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"bandwidth": self.bandwidth}
