"""Matryoshka BatchTopK SAE (Bussmann et al. 2025): nested dictionaries, each of which reconstructs by itself.

The latents are parted into groups; the loss is the mean over groups of the squared error of the reconstruction from
that group and all before it. The code is BatchTopK's.
"""

from __future__ import annotations

from typing import Any

import torch

from rsae.sae.batch_top_k import BatchTopK
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Decoder, Entries
from rsae.sae.registry import register
from rsae.sae.sparse import decode_at, mean_square
from rsae.support.errors import InputError


@register
class MatryoshkaBatchTopK(BatchTopK):
    """`group_sizes` sum to d_sae; by default d_sae/16, /16, /8, /4 and the rest, as far as there are latents."""

    family = "matryoshka_batch_top_k"
    saelens = "jumprelu"
    saelens_training = "matryoshka_batchtopk"
    shardable = False

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: int,
        group_sizes: list[int] | None = None,
        subtract_b_dec: bool = True,
    ):
        super().__init__(d_in, d_sae, k, subtract_b_dec)
        if group_sizes is None:
            first = [max(1, d_sae // part) for part in (16, 16, 8, 4)][: d_sae - 1]
            group_sizes = [*first, d_sae - sum(first)]
        if sum(group_sizes) != d_sae or min(group_sizes) < 1:
            raise InputError(f"group_sizes {group_sizes} must be positive and sum to d_sae = {d_sae}")
        self.group_sizes = list(group_sizes)

    def reconstruction_error(
        self, y_BO: torch.Tensor, z_N: torch.Tensor, entries: Entries, decoder: Decoder
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pattern, residual_BO = entries.pattern, decoder.b_dec - y_BO
        errors, first = [], 0
        for size in self.group_sizes:
            inside_N = (pattern.latent_N >= first) & (pattern.latent_N < first + size)
            residual_BO = residual_BO + decode_at(z_N[inside_N], decoder.W_dec, None, pattern.where(inside_N))
            errors.append(mean_square(residual_BO))
            first += size
        return torch.stack(errors).mean(), errors[-1]

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"group_sizes": self.group_sizes}


@register
class RationalMatryoshkaBatchTopK(RationalSAE, MatryoshkaBatchTopK):
    """Matryoshka BatchTopK with a trained rational magnitude behind its gate."""

    family = "rational_matryoshka_batch_top_k"
