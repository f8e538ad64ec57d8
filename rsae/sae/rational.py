"""Rational SAEs: a family's own gate, with a trained rational magnitude phi behind it.

Where the gate is open, z = phi(h) = h + C p(h/C)/q(h/C) with deg p < deg q; elsewhere z is exactly 0. Each family's
file holds its own rational form: one small class, since all but the magnitude is the family's. (The paper's own
variant, where the rational is the gate, is in soft_rational.py.) Shapes: F d_sae, N entries.
"""

from __future__ import annotations

from typing import Any

import torch

import approx
from rsae.rational import RationalActivation
from rsae.sae.base import SAE


class RationalSAE(SAE):
    """What all SAEs with a rational activation share; the rest is the family's own.

    A signed family's magnitude is phi's odd part, (phi(h) - phi(-h)) / 2.

    Args:
        activation: phi.
        *args: As the family takes them.
        **kwargs: As the family takes them.
    """

    rational = True
    ramp = False
    saelens = None
    saelens_training = None
    one_threshold = False
    shardable = False

    def __init__(self, *args: Any, activation: RationalActivation, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.activation = activation

    def magnitude(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        def phi(h_N: torch.Tensor) -> torch.Tensor:
            return self.activation(h_N) if latent_N is None else self.activation.at(h_N, latent_N)

        return (phi(h_N) - phi(-h_N)) / 2 if self.signed else phi(h_N)

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        return None

    def behind_dead_zone(self, bandwidth: float) -> SAE | None:
        return None

    @property
    def homogeneous(self) -> bool:
        # phi scales with its C_in, which then has to be the latent's own
        return super().homogeneous and self.activation.scales == self.d_sae

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        super().scale_latents_(factor_F)
        self.activation.scale_latents_(factor_F)

    @torch.no_grad()
    def _rescale_(self, factor: float) -> None:
        super()._rescale_(factor)
        self.activation.rescale_(factor)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"activation": self.activation.settings()}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> SAE:
        activation = RationalActivation.from_settings(settings["activation"])
        return super().from_settings(settings | {"activation": activation})
