"""Rational SAE: a teacher's gate with a trainable rational function in it, in two variants.

`gated`  z = phi(h) where the teacher's gate is open, exactly 0 elsewhere. phi(h) = h + C p(h/C)/q(h/C). The gate is
         a dead zone with a trained threshold (ReLU and JumpReLU teachers) or the exact top k of h.
`soft`   the paper's: the rational approximates the whole gate, and is dense. Its code passes through a dead
         zone |z| <= tau -> 0 before it is decoded or counted; training sees it without.
         ReLU: z = phi(h). JumpReLU: z = phi(h), the design threshold .1 scaled to each latent's theta.
         TopK with a supplied threshold (which is not TopK): z = h g((h - tau_k) / C), tau_k midway between a
         token's k-th and (k+1)-th largest h.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rsae.activation import RationalActivation
from rsae.activation.dead_zone import dead_zone, heaviside
from rsae.activation.forms import FORMS
from rsae.errors import InputError, did_you_mean
from rsae.sae.base import SAE, register
from rsae.sae.top_k import top_k_mask


def supplied_threshold(h_BF: torch.Tensor, k: int) -> torch.Tensor:
    """tau_k [B, 1]: midway between each token's k-th and (k+1)-th largest pre-activation; no gradient."""
    return h_BF.detach().topk(k + 1, dim=-1).values[..., -2:].mean(-1, keepdim=True)


VARIANTS = ("gated", "soft")
GATES = ("relu", "jump_relu", "top_k")


@register
class Rational(SAE):
    """`gate` is the teacher's family, `variant` as above; `tau` is `soft`'s dead zone (0 for `gated`)."""

    family = "rational"
    penalties = ("l1", "l0", None)

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        gate: str,
        variant: str,
        activation: RationalActivation,
        k: int | None = None,
        bandwidth: float = 1.0,
    ):
        super().__init__(d_in, d_sae)
        if gate not in GATES:
            raise InputError(f"gate {gate!r} has no rational form{did_you_mean(gate, GATES)}")
        if variant not in VARIANTS:
            raise InputError(f"variant {variant!r} is unknown{did_you_mean(variant, VARIANTS)}")
        if gate == "top_k" and not (k and 0 < k < d_sae):
            raise InputError(f"k={k} must lie between 1 and d_sae - 1 = {d_sae - 1} for the gate top_k")
        self.gate, self.variant, self.k, self.bandwidth = gate, variant, k, bandwidth
        self.activation = activation
        self.threshold = nn.Parameter(torch.zeros(d_sae)) if variant == "gated" and gate != "top_k" else None
        self.register_buffer("tau", torch.zeros(()))
        self.tau: torch.Tensor
        if variant == "soft":
            self.penalties = ("l1", None)
        elif gate == "top_k":
            self.penalties = (None,)
        self.penalty = self.penalties[0]

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        if self.variant == "soft":
            return self.truncate(self.soft_code(h_BF))
        if self.threshold is None:
            assert self.k is not None
            return self._magnitude(h_BF, top_k_mask(h_BF.detach(), self.k))
        with torch.no_grad():
            edge_F = self.activation.at(self.threshold, torch.arange(self.d_sae, device=h_BF.device))
        value_BF = self._magnitude(h_BF, h_BF > self.threshold)
        return dead_zone(value_BF, h_BF, self.threshold, self.bandwidth, edge_F)

    def _magnitude(self, h_BF: torch.Tensor, open_BF: torch.Tensor) -> torch.Tensor:
        """phi(h) where the gate is open, 0 elsewhere; evaluated only there."""
        *rows, latent_N = open_BF.nonzero(as_tuple=True)
        index = (*rows, latent_N)
        return torch.zeros_like(h_BF).index_put(index, self.activation.at(h_BF[index], latent_N))

    def soft_code(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The rational's own output before the dead zone: dense. Only for the variant `soft`."""
        if self.gate != "top_k":
            return self.activation(h_BF)
        assert self.k is not None
        return h_BF * self.activation(h_BF - supplied_threshold(h_BF, self.k))

    def truncate(self, z_BF: torch.Tensor) -> torch.Tensor:
        """Exactly 0 where |z| <= tau."""
        return torch.where(z_BF.abs() > self.tau, z_BF, 0.0)

    def training_code(self, h_BF: torch.Tensor) -> torch.Tensor:
        return self.soft_code(h_BF) if self.variant == "soft" else self.activate(h_BF)

    def open_gates(self, h_BF: torch.Tensor) -> torch.Tensor:
        assert self.threshold is not None
        return heaviside(h_BF, self.threshold, self.bandwidth)

    @torch.no_grad()
    def constrain_(self) -> None:
        super().constrain_()
        if self.threshold is not None:
            self.threshold.clamp_(min=0)

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        super().rescale_(factor)
        self.bandwidth *= factor
        self.tau *= factor
        if self.threshold is not None:
            self.threshold *= factor
        # soft TopK's rational is a gate: its argument has a unit, its value has none
        self.activation.rescale_(factor, output=(self.gate, self.variant) != ("top_k", "soft"))

    def settings(self) -> dict[str, Any]:
        activation = self.activation
        return super().settings() | {
            "gate": self.gate,
            "variant": self.variant,
            "k": self.k,
            "bandwidth": self.bandwidth,
            "form": activation.form.name,
            "coefficients": activation.form.shapes(),
            "scales": len(activation.log_c_in),
            "start": activation.start,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Rational:
        rest = dict(settings)
        form = FORMS[rest.pop("form")].empty(rest.pop("coefficients"))
        scale_F = torch.ones(rest.pop("scales"))
        return cls(activation=RationalActivation(form, scale_F, start=rest.pop("start")), **rest)
