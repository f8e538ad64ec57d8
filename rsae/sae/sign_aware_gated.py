"""Sign-Aware Gated SAE (SA-GSAE, arXiv 2605.28149): a Gated SAE whose latents use both signs of their direction.

pi = (x - b_dec) W_enc + b_gate opens the gate outside a learned dead zone [-theta^-, theta^+] (the Bi-Jump-ReLU); the
magnitude exp(r^+-) (x - b_dec) W_enc + b_mag shares the weights and has a scale for each sign of pi. The loss is
||x - x_hat||^2 + sparsity sum_i |g_i| ||d_i|| + ||x - x_hat_gate||^2; g = sign(pi) relu(|pi| - theta) is the gate's
activation, and x_hat_gate decodes it through a frozen decoder. What the paper leaves open, and how it is decided here,
is in docs/families/sign_aware_gated.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import approx
from rsae.sae.dead_zone import bi_jump_relu
from rsae.sae.gated import Gated
from rsae.sae.jump_relu import DESIGN_MARGIN, DESIGN_THRESHOLD
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Rates
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern, at
from rsae.support.errors import InputError


@register
class SignAwareGated(Gated):
    """`threshold` is where theta starts, and where that of a dead latent goes back to.

    `bandwidth`, if it is not 0, lets the code pull at theta, too, straight through a kernel so wide. Both are in the
    units of pi, for activations of mean norm sqrt(D). The switches are the ablations: `tie_r` and `tie_threshold` have
    one r, one theta for both signs; without `two_sided` the gate opens on the positive side only; without `auxiliary`
    the gate learns from the penalty alone; without `reset` thresholds of dead latents stay where they are. `r_mag` and
    `threshold` are [1, F] (tied) or [2, F] (the positive side first).
    """

    family = "sign_aware_gated"
    saelens = None
    ramp = False
    gate_is_odd = True
    rates = Rates(3e-3)  # at 1e-2 it does not train

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        threshold: float = 0.1,
        bandwidth: float = 0.0,
        tie_r: bool = True,
        tie_threshold: bool = True,
        two_sided: bool = True,
        auxiliary: bool = True,
        reset: bool = True,
        subtract_b_dec: bool = True,
    ):
        super().__init__(d_in, d_sae, subtract_b_dec)
        if not (threshold >= 0 and bandwidth >= 0):
            raise InputError(f"threshold {threshold} and bandwidth {bandwidth} must be 0 at least")
        self.start, self.bandwidth = threshold, bandwidth
        self.tie_r, self.tie_threshold = tie_r, tie_threshold
        self.signed = self.two_sided = two_sided
        if not two_sided:  # a place below 0 would have to be told apart
            self.takes_all = False
        self.auxiliary, self.reset = auxiliary, reset
        self.r_mag = nn.Parameter(torch.zeros(1 if tie_r or not two_sided else 2, d_sae))
        self.threshold = nn.Parameter(
            torch.full((1 if tie_threshold or not two_sided else 2, d_sae), float(threshold))
        )

    def support(self, h_BF: torch.Tensor) -> Pattern:
        # with a bandwidth, in training also the places inside the dead zone that pull at its edge
        edge_PF = self.threshold - (self.bandwidth / 2 if self.training else 0.0)
        if not self.two_sided:
            return Pattern.of((h_BF > edge_PF[0]) & (h_BF > 0))
        edge_BF = edge_PF[0] if self.tie_threshold else torch.where(h_BF > 0, edge_PF[0], edge_PF[1])
        return Pattern.of(h_BF.abs() > edge_BF)

    def gate(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        """g_N: how far pi is beyond its edge, with its sign; continuous, so that theta learns without an estimate."""
        return h_N.sign() * (h_N.abs() - self._of_sign(self.threshold, h_N, latent_N)).relu()

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        r_N = self._of_sign(self.r_mag, h_N, latent_N)
        b_gate_N, b_mag_N = (at(p, latent_N) for p in (self.b_gate, self.b_mag))
        linear_N = r_N.exp() * (h_N - b_gate_N) + b_mag_N
        # a magnitude never has the other sign than its gate
        signed_N = torch.where(linear_N * h_N > 0, self.magnitude(linear_N, latent_N), 0.0)
        return bi_jump_relu(signed_N, h_N, self._of_sign(self.threshold, h_N, latent_N), self.bandwidth)

    def _of_sign(self, p_PF: torch.Tensor, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        """The entries of a parameter [1, F] or [2, F] that the signs of h_N choose."""
        if latent_N is None:
            return p_PF[0] if len(p_PF) == 1 else torch.where(h_N < 0, p_PF[1], p_PF[0])
        row_N = (h_N < 0) * (len(p_PF) - 1)
        return p_PF.flatten().index_select(0, row_N * self.d_sae + latent_N)

    @torch.no_grad()
    def revive_(self, dead_F: torch.Tensor) -> None:
        if self.reset:
            self.threshold[:, dead_F] = self.start

    @torch.no_grad()
    def constrain_(self, norm_F: torch.Tensor | float = 1.0) -> None:
        super().constrain_(norm_F)
        self.threshold.clamp_(min=0)

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        super().scale_latents_(factor_F)
        self.threshold *= factor_F

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        return approx.bi_jump_relu(DESIGN_THRESHOLD, margin=DESIGN_MARGIN)

    def check_soft_form(self) -> None:
        if not self.two_sided:
            raise InputError("a one-sided teacher has no gate with two signs; choose variant 'gated'")

    def scale_candidates(self, spread_F: torch.Tensor) -> list[torch.Tensor]:
        # a threshold for each sign, or one for both
        edges = [theta_F.maximum(1e-6 * spread_F) / DESIGN_THRESHOLD for theta_F in self.threshold]
        return super().scale_candidates(spread_F) + edges

    @torch.no_grad()
    def _rescale_(self, factor: float) -> None:
        super()._rescale_(factor)
        self.threshold *= factor
        self.start *= factor
        self.bandwidth *= factor

    def settings(self) -> dict[str, Any]:
        switches = ("bandwidth", "tie_r", "tie_threshold", "two_sided", "auxiliary", "reset")
        return (
            super().settings() | {"threshold": self.start} | {name: getattr(self, name) for name in switches}
        )


@register
class RationalSignAwareGated(RationalSAE, SignAwareGated):
    """A rational Bi-Jump-ReLU: the magnitude is phi's odd part, (phi(h) - phi(-h)) / 2, of type (4j + 1, 4j)."""

    family = "rational_sign_aware_gated"
