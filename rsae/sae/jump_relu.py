"""JumpReLU SAE (Rajamanoharan et al. 2024): z = h 1[h > theta], theta trained straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rsae.activation.dead_zone import dead_zone, heaviside
from rsae.sae.base import SAE, register


@register
class JumpReLU(SAE):
    """`bandwidth` is the kernel's eps, in the units of the pre-activations; it matters in training only.

    The defaults suit activations of mean norm sqrt(D).
    """

    family = "jump_relu"
    penalties = ("l0", "l1")

    def __init__(self, d_in: int, d_sae: int, threshold: float = 0.5, bandwidth: float = 1.0):
        super().__init__(d_in, d_sae)
        self.threshold = nn.Parameter(torch.full((d_sae,), float(threshold)))
        self.bandwidth = bandwidth

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        return dead_zone(h_BF, h_BF, self.threshold, self.bandwidth, self.threshold.detach())

    def open_gates(self, h_BF: torch.Tensor) -> torch.Tensor:
        return heaviside(h_BF, self.threshold, self.bandwidth)

    @torch.no_grad()
    def constrain_(self) -> None:
        super().constrain_()
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        super().rescale_(factor)
        self.threshold *= factor
        self.bandwidth *= factor

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"bandwidth": self.bandwidth}
