"""AbsTopK SAE (Zhu et al. 2025, arXiv 2510.00404): z keeps the k entries of each token that are largest in magnitude.

The code is signed: the baseline of the sign-aware families that has no gate to train.
"""

from __future__ import annotations

import torch

import approx
from rsae.sae.rational import RationalSAE
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern
from rsae.sae.top_k import TopK


@register
class AbsTopK(TopK):
    family = "abs_top_k"
    saelens = "abstopk"
    signed = True
    supplied_threshold = False

    def support(self, h_BF: torch.Tensor) -> Pattern:
        return super().support(h_BF.abs())

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        return self.magnitude(h_N, latent_N)

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        return None


@register
class RationalAbsTopK(RationalSAE, AbsTopK):
    """AbsTopK with the odd part of a trained rational function as its magnitude."""

    family = "rational_abs_top_k"
