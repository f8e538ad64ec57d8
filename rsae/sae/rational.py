"""Rational SAEs: a family's own gate, with a trained rational magnitude phi behind it.

Where the gate is open, z = phi(h) = h + C p(h/C)/q(h/C) with deg p < deg q; elsewhere z is exactly 0. One small class a
gate: the rest is that of the family. (The paper's own variant, where the rational is the gate, is in soft_rational.py.)
"""

from __future__ import annotations

from typing import Any

import torch

from rsae.rational import RationalActivation
from rsae.sae.base import SAE, register
from rsae.sae.batch_top_k import BatchTopK
from rsae.sae.gated import Gated
from rsae.sae.jump_relu import JumpReLU
from rsae.sae.matryoshka_batch_top_k import MatryoshkaBatchTopK
from rsae.sae.relu import ReLU
from rsae.sae.sign_aware_gated import SignAwareGated
from rsae.sae.top_k import TopK


class RationalSAE(SAE):
    """What all SAEs with a rational activation share; `activation` is given by name, the rest is the family's own."""

    def __init__(self, *args: Any, activation: RationalActivation, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.activation = activation

    def magnitude(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        return self.activation.at(h_N, latent_N)

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        super().rescale_(factor)
        self.activation.rescale_(factor)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"activation": self.activation.settings()}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> SAE:
        activation = RationalActivation.from_settings(settings["activation"])
        return cls(**settings | {"activation": activation})


@register
class RationalReLU(RationalSAE, ReLU):
    family = "rational_relu"


@register
class RationalJumpReLU(RationalSAE, JumpReLU):
    family = "rational_jump_relu"


@register
class RationalTopK(RationalSAE, TopK):
    family = "rational_top_k"


@register
class RationalBatchTopK(RationalSAE, BatchTopK):
    family = "rational_batch_top_k"


@register
class RationalMatryoshkaBatchTopK(RationalSAE, MatryoshkaBatchTopK):
    family = "rational_matryoshka_batch_top_k"


@register
class RationalGated(RationalSAE, Gated):
    family = "rational_gated"


@register
class RationalSignAwareGated(RationalSAE, SignAwareGated):
    """A rational Bi-Jump-ReLU: the magnitude is phi's odd part, (phi(h) - phi(-h)) / 2, of type (4j + 1, 4j)."""

    family = "rational_sign_aware_gated"

    def magnitude(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        return (self.activation.at(h_N, latent_N) - self.activation.at(-h_N, latent_N)) / 2
