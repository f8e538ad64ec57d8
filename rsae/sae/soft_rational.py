"""Soft rational SAE, the paper's (RSAE, section 3): the rational function is the gate, and its code is dense.

The code passes through a dead zone |z| <= tau -> 0 before it is decoded or counted; training sees it without.
ReLU: z = phi(h). JumpReLU: z = phi(h), the design threshold .1 scaled to each latent's theta. TopK with a supplied
threshold (which is not TopK): z = h g((h - tau_k) / C), tau_k midway between a token's k-th and (k+1)-th largest h.
Sign-Aware Gated: a signed code, z = (phi(h) - phi(-h)) / 2, phi the rational Bi-Jump-ReLU and h the gate's pi.
"""

from __future__ import annotations

from typing import Any

import torch

from rsae.rational import RationalActivation
from rsae.support.errors import InputError, did_you_mean
from rsae.sae.base import SAE, Loss, mean_square, register
from rsae.sae.rational import RationalSAE

#: The families whose gate one rational function can stand for
GATES = ("relu", "jump_relu", "top_k", "sign_aware_gated")


def supplied_threshold(h_BF: torch.Tensor, k: int) -> torch.Tensor:
    """tau_k [B, 1]: midway between each token's k-th and (k+1)-th largest pre-activation; no gradient."""
    return h_BF.detach().topk(k + 1, dim=-1).values[..., -2:].mean(-1, keepdim=True)


@register
class SoftRational(RationalSAE):
    """`gate` is the teacher's family, `k` its k; `tau` the dead zone, in the code's units."""

    family = "soft_rational"
    penalties = ("l1", None)

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
        if gate not in GATES:
            raise InputError(f"gate {gate!r} has no rational form{did_you_mean(gate, GATES)}")
        if gate == "top_k" and not (k and 0 < k < d_sae):
            raise InputError(f"k={k} must lie between 1 and d_sae - 1 = {d_sae - 1} for the gate top_k")
        self.gate, self.k, self.signed = gate, k, gate == "sign_aware_gated"
        self.register_buffer("tau", torch.zeros(()))
        self.tau: torch.Tensor

    def soft_code(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The rational's own output before the dead zone: dense."""
        if self.signed:  # odd in training, too: a latent turned round stays the same
            return (self.activation(h_BF) - self.activation(-h_BF)) / 2
        if self.gate != "top_k":
            return self.activation(h_BF)
        assert self.k is not None
        return h_BF * self.activation(h_BF - supplied_threshold(h_BF, self.k))

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        z_BF = self.soft_code(h_BF)
        return torch.where(z_BF.abs() > self.tau, z_BF, 0.0)

    def loss(self, x_BD: torch.Tensor, sparsity: float) -> Loss:
        z_BF = self.soft_code(self.pre_activations(x_BD))
        sse = mean_square(self.decode(z_BF) - x_BD)
        total = sse
        if self.penalty is not None:
            total = sse + sparsity * (z_BF.abs() @ self.W_dec.norm(dim=1)).mean()
        fires_BF = z_BF.detach() != 0
        return Loss(total, sse.detach(), fires_BF.sum() / len(x_BD), fires_BF.any(0))

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        SAE.rescale_(self, factor)
        self.tau *= factor
        # TopK's rational is a gate: its argument has a unit, its value has none
        self.activation.rescale_(factor, output=self.gate != "top_k")

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"gate": self.gate, "k": self.k}
