"""JumpReLU SAE (Rajamanoharan et al. 2024): z = h 1[h > theta], theta trained straight through.

Shapes: B batch, F d_sae, N entries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import approx
from rsae.sae.base import SAE
from rsae.sae.dead_zone import dead_zone, heaviside
from rsae.sae.rational import RationalSAE
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern, at
from rsae.support.errors import InputError

#: Where the threshold lies on the design interval [-1, 1], and the half-width of the gap around it
DESIGN_THRESHOLD, DESIGN_MARGIN = 0.1, 0.01


@register
class JumpReLU(SAE):
    """`bandwidth` is the kernel's eps, in the units of the pre-activations; it matters in training only.

    The defaults suit activations of mean norm sqrt(D).
    """

    family = "jump_relu"
    saelens = "jumprelu"
    penalties = ("l0", "l1", "tanh")
    shardable = True
    takes_all = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        threshold: float = 0.5,
        bandwidth: float = 1.0,
        subtract_b_dec: bool = True,
    ):
        super().__init__(d_in, d_sae, subtract_b_dec)
        if not (threshold >= 0 and bandwidth > 0):
            raise InputError(
                f"threshold {threshold} must be 0 at least, and bandwidth {bandwidth} more than 0"
            )
        self.threshold = nn.Parameter(torch.full((d_sae,), float(threshold)))
        self.bandwidth = bandwidth

    def support(self, h_BF: torch.Tensor) -> Pattern:
        # in training also the places below the threshold that pull at it
        reach = self.bandwidth / 2 if self.training else 0.0
        return Pattern.above(h_BF, self.threshold - reach, some_shut=self.training)

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        theta_N = at(self.threshold, latent_N)
        with torch.no_grad():
            edge_F = self.magnitude(self.threshold, torch.arange(self.d_sae, device=h_N.device))
        return dead_zone(self.magnitude(h_N, latent_N), h_N, theta_N, self.bandwidth, at(edge_F, latent_N))

    def open_gates(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        return heaviside(h_N, at(self.threshold, latent_N), self.bandwidth)

    @torch.no_grad()
    def constrain_(self, norm_F: torch.Tensor | float = 1.0) -> None:
        super().constrain_(norm_F)
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        super().scale_latents_(factor_F)
        self.threshold *= factor_F

    @torch.no_grad()
    def _rescale_(self, factor: float) -> None:
        super()._rescale_(factor)
        self.threshold *= factor
        self.bandwidth *= factor

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        return approx.jump_relu(DESIGN_THRESHOLD, margin=DESIGN_MARGIN)

    def scale_candidates(self, spread_F: torch.Tensor) -> list[torch.Tensor]:
        # the threshold tells the scale
        return [self.threshold.maximum(1e-6 * spread_F) / DESIGN_THRESHOLD]

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"bandwidth": self.bandwidth}


@register
class RationalJumpReLU(RationalSAE, JumpReLU):
    """JumpReLU with a trained rational magnitude behind its gate."""

    family = "rational_jump_relu"
