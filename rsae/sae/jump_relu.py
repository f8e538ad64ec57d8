"""JumpReLU SAE (Rajamanoharan et al. 2024): z = h 1[h > theta], theta trained straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rsae.sae.dead_zone import dead_zone, heaviside
from rsae.sae.base import SAE, register
from rsae.sae.sparse import Pattern


@register
class JumpReLU(SAE):
    """`bandwidth` is the kernel's eps, in the units of the pre-activations; it matters in training only.

    The defaults suit activations of mean norm sqrt(D).
    """

    family = "jump_relu"
    penalties = ("l0", "l1", "tanh")

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        threshold: float = 0.5,
        bandwidth: float = 1.0,
        subtract_b_dec: bool = True,
    ):
        super().__init__(d_in, d_sae, subtract_b_dec)
        self.threshold = nn.Parameter(torch.full((d_sae,), float(threshold)))
        self.bandwidth = bandwidth

    def support(self, h_BF: torch.Tensor) -> Pattern:
        # in training also the places below the threshold that pull at it
        reach = self.bandwidth / 2 if self.training else 0.0
        return Pattern.of(h_BF > self.threshold - reach)

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        theta_N = self.threshold.index_select(0, latent_N)
        with torch.no_grad():
            edge_F = self.magnitude(self.threshold, torch.arange(self.d_sae, device=h_N.device))
        return dead_zone(
            self.magnitude(h_N, latent_N), h_N, theta_N, self.bandwidth, edge_F.index_select(0, latent_N)
        )

    def open_gates(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        return heaviside(h_N, self.threshold.index_select(0, latent_N), self.bandwidth)

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
