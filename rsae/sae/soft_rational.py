"""Soft rational SAE, the paper's (RSAE, section 3): the rational function is the gate, and its code is dense.

The code passes through a dead zone |z| <= tau -> 0 before it is decoded or counted; training sees it without.
ReLU: z = phi(h). JumpReLU: z = phi(h), the design threshold 0.1 scaled to each latent's theta. TopK with a supplied
threshold (which is not TopK): z = h g((h - tau_k) / C), tau_k midway between a token's k-th and (k+1)-th largest h.
Sign-Aware Gated: a signed code, z = (phi(h) - phi(-h)) / 2, phi the rational Bi-Jump-ReLU and h the gate's pi.
Shapes: B batch, D d_in, F d_sae.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from rsae.rational import RationalActivation
from rsae.sae import sparse_cpu
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Loss
from rsae.sae.registry import FAMILIES, register
from rsae.sae.sparse import Everywhere, Pattern, encode_at, l1_norm, mean_square
from rsae.support.errors import InputError, did_you_mean


def supplied_threshold(h_BF: torch.Tensor, k: int) -> torch.Tensor:
    """tau_k [B, 1]: midway between each token's k-th and (k+1)-th largest pre-activation; no gradient.

    Args:
        h_BF: Pre-activations.
        k: How many lie above the threshold.
    """
    if not 0 < k < h_BF.shape[-1]:
        raise InputError(
            f"k = {k} of {h_BF.shape[-1]} latents: no threshold lies beyond the last; take a smaller k"
        )
    h_BF = h_BF.detach()
    latent_BK = sparse_cpu.largest(h_BF, k + 1)
    value_BK = h_BF.topk(k + 1, dim=-1).values if latent_BK is None else h_BF.gather(-1, latent_BK)
    return value_BK.topk(2, dim=-1, largest=False).values.mean(-1, keepdim=True)


@register
class SoftRational(RationalSAE):
    """A rational function as the gate.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        gate: The teacher's family.
        activation: The rational gate.
        k: The teacher's k, where it has one.
        subtract_b_dec: Whether the encoder sees x - b_dec.
    """

    family = "soft_rational"
    penalties = ("l1", None)
    compares_latents = True  # its dead zone tau is one number for all

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        gate: str,
        activation: RationalActivation,
        k: int | None = None,
        subtract_b_dec: bool = True,
    ):
        super().__init__(d_in, d_sae, subtract_b_dec, activation=activation)
        able = [name for name, cls in FAMILIES.items() if cls.gate_target() is not None]
        if gate not in able:
            raise InputError(f"gate {gate!r} has no rational form{did_you_mean(gate, able)}")
        self.given_threshold = FAMILIES[gate].supplied_threshold
        if self.given_threshold and not (k and 0 < k < d_sae):
            raise InputError(f"k={k} must lie between 1 and d_sae - 1 = {d_sae - 1} for the gate {gate}")
        self.gate, self.k, self.signed = gate, k, FAMILIES[gate].gate_is_odd
        self.register_buffer("tau", torch.zeros(()))
        self.tau: torch.Tensor

    def soft_code(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The rational's own output before the dead zone: dense.

        Args:
            h_BF: Pre-activations.
        """
        if self.signed:  # odd in training, too: a latent turned round stays the same
            return (self.activation(h_BF) - self.activation(-h_BF)) / 2
        if not self.given_threshold:
            return self.activation(h_BF)
        assert self.k is not None
        return h_BF * self.activation(h_BF - supplied_threshold(h_BF, self.k))

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        z_BF = self.soft_code(h_BF)
        return torch.where(z_BF.abs() > self.tau, z_BF, 0.0)

    def plain_entries(self, h_BF: torch.Tensor) -> tuple[torch.Tensor, Pattern]:
        z_BF = self.activate(h_BF)
        pattern = Pattern.of(z_BF.detach() != 0)
        return pattern.gather(z_BF), pattern

    def dense_code(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code without its dead zone, as training sees it.

        Args:
            x_BD: Activations as the host gives them.
        """
        return self.soft_code(self.pre_activations(x_BD))

    def trained_code(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.dense_code(x_BD)

    def readings(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        return super().readings() | {"soft_": self.dense_code}

    def loss(
        self,
        x_BD: torch.Tensor,
        sparsity: float = 0.0,
        penalty: str | None = "own",
        y_BO: torch.Tensor | None = None,
    ) -> Loss:
        x_BD = self.standardise(x_BD)
        b_dec = self.b_dec if self.subtract_b_dec else None
        everywhere = Everywhere(torch.Size((len(x_BD), self.d_sae)))
        h_BF, _, _ = encode_at(x_BD, self.W_enc, self.encoder_bias, b_dec, lambda _: everywhere)
        z_BF = self.soft_code(h_BF)
        sse = mean_square(F.linear(z_BF, self.W_dec.T, self.b_dec) - self.left_to_code(x_BD, y_BO))
        total = sse
        if self.penalty_named(penalty) is not None:
            total = sse + sparsity * l1_norm(z_BF, self.W_dec.norm(dim=1)) / len(x_BD)
        on, fired_F = everywhere.firings(z_BF.detach())
        return Loss(total, sse.detach(), torch.tensor(on / len(x_BD), device=z_BF.device), fired_F, sse)

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        super(RationalSAE, self).scale_latents_(factor_F)
        # a gate with a supplied threshold: its argument has a unit, its value has none
        self.activation.scale_latents_(factor_F, output=not self.given_threshold)
        self.tau *= factor_F[0]

    @torch.no_grad()
    def _rescale_(self, factor: float) -> None:
        super(RationalSAE, self)._rescale_(factor)
        self.tau *= factor
        self.activation.rescale_(factor, output=not self.given_threshold)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"gate": self.gate, "k": self.k}
