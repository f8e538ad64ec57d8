"""Gated SAE (Rajamanoharan et al. 2024a): one path decides which latents are on, another how much.

pi = (x - b_dec) W_enc + b_gate opens the gate; the magnitude is relu(exp(r_mag) (x - b_dec) W_enc + b_mag), which
shares the weights (eq. 7). The loss is ||x - x_hat||^2 + sparsity sum_i relu(pi_i) ||d_i|| + ||x - x_hat_gate||^2,
where x_hat_gate decodes relu(pi) through a frozen decoder (eq. 8).
"""

from __future__ import annotations

import torch
from torch import nn

from rsae.sae.base import SAE
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Decoder, Loss
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern, at, mean_square, open_where


@register
class Gated(SAE):
    """Its pre-activation h_BF is the gate's pi_BF, and its encoder's bias `b_gate`."""

    family = "gated"
    saelens = "gated"
    penalties = ("l1",)
    shardable = True
    ramp = True
    takes_all = True
    #: the gate's path reconstructs, too; without it only the penalty moves the gate, and shuts it
    auxiliary = True

    def __init__(self, d_in: int, d_sae: int, subtract_b_dec: bool = True):
        super().__init__(d_in, d_sae, subtract_b_dec)
        del self.b_enc
        self.b_gate = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))
        self.r_mag = nn.Parameter(torch.zeros(d_sae))

    @property
    def encoder_bias(self) -> torch.Tensor:
        return self.b_gate

    def support(self, h_BF: torch.Tensor) -> Pattern:
        return Pattern.above(h_BF, h_BF.new_zeros(self.d_sae))

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        # the gate's own h reaches the code through the shared weights alone: no gradient to b_gate
        r_N, b_gate_N, b_mag_N = (at(p, latent_N) for p in (self.r_mag, self.b_gate, self.b_mag))
        factor_N = r_N.exp()
        if latent_N is None:  # one pass over the full matrix
            shift_F = b_mag_N - factor_N * b_gate_N
            linear_BF = torch.addcmul(shift_F.to(h_N), h_N, factor_N.to(h_N))
            return open_where(
                self.magnitude(linear_BF, None), torch.minimum(linear_BF.detach(), h_N.detach())
            )
        linear_N = factor_N * (h_N - b_gate_N) + b_mag_N
        return open_where(self.magnitude(linear_N, latent_N), linear_N)

    def gate(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        """The gate's activation at supported places, relu(pi): what the penalty and the auxiliary part see."""
        return h_N if latent_N is not None else h_N.relu()

    def loss(
        self,
        x_BD: torch.Tensor,
        sparsity: float = 0.0,
        penalty: str | None = "own",
        y_BO: torch.Tensor | None = None,
    ) -> Loss:
        x_BD = self.standardise(x_BD)
        y_BO = self.left_to_code(x_BD, y_BO)
        entries = self.entries(x_BD)
        h_N, pattern = entries.h_N, entries.pattern
        z_N, gate_N = self.values(h_N, pattern.latent_N), self.gate(h_N, pattern.latent_N)
        term = self.sparsity_penalty(self.penalty_named(penalty), h_N, gate_N, pattern)
        loss = self.loss_of(y_BO, z_N, entries, term, sparsity)
        if not self.auxiliary:
            return loss
        y_gate_BO = self.decoded(gate_N, pattern, Decoder(self.W_dec.detach(), self.b_dec.detach()))
        return loss._replace(total=loss.total + mean_square(y_gate_BO - y_BO.detach()))

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        super().scale_latents_(factor_F)
        self.b_mag *= factor_F

    @torch.no_grad()
    def _rescale_(self, factor: float) -> None:
        super()._rescale_(factor)
        self.b_mag *= factor


@register
class RationalGated(RationalSAE, Gated):
    """Gated with a trained rational magnitude behind its gate."""

    family = "rational_gated"
