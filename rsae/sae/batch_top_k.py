"""BatchTopK SAE (Bussmann et al. 2024): k B entries of a batch of B tokens; at inference a fixed threshold.

In training the k B largest positive pre-activations of the batch are kept, so that tokens share the budget. The
smallest one kept, in the mean over batches of the finished weights, is the threshold that `encode` uses afterwards,
token by token (`calibrate_`). In training, and where an SAE that has a threshold is trained on, it is a running mean
over the steps, which lags behind the weights.
Shapes: B batch, F d_sae, N entries.
"""

from __future__ import annotations

from typing import Any

import torch

from rsae.sae.base import SAE
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Entries, Rates
from rsae.sae.registry import register
from rsae.sae.sparse import Pattern
from rsae.support import distributed
from rsae.support.errors import InputError

_RATE = 0.01  # of the running mean


@register
class BatchTopK(SAE):
    family = "batch_top_k"
    saelens = "jumprelu"
    saelens_training = "batchtopk"
    one_threshold = True
    sparsity_by = "k"
    compares_latents = True
    penalties = (None,)
    rates = Rates(5e-3)
    shardable = True

    def __init__(self, d_in: int, d_sae: int, k: int, subtract_b_dec: bool = True):
        super().__init__(d_in, d_sae, subtract_b_dec)
        if not 0 < k <= d_sae:
            raise InputError(f"k={k} must lie between 1 and d_sae={d_sae}")
        self.k = k
        self.register_buffer("threshold", torch.zeros(()))
        self.threshold: torch.Tensor

    def support(self, h_BF: torch.Tensor) -> Pattern:
        if not self.training:
            return Pattern.above(h_BF, self.threshold.to(h_BF).repeat(self.d_sae))
        kept = self.k * len(h_BF) * distributed.size(distributed.DATA)
        # nearly always the candidates above most of the running threshold are enough: far fewer to select from
        for share in (0.9, 0.5, 0.0):
            floor = share * self.threshold
            pattern = Pattern.above(h_BF, floor.to(h_BF).repeat(self.d_sae))
            own_N = candidates = pattern.gather(h_BF)
            if distributed.size() > 1:  # replicas of the batch, and parts of the dictionary
                candidates = candidates.topk(min(kept, len(candidates)), sorted=False).values
                candidates = distributed.gather(candidates, kept)
                candidates = candidates[candidates > floor]
            if len(candidates) >= kept:
                return pattern.where(own_N >= _smallest_of_largest(candidates, kept))
        return pattern  # fewer are positive

    @torch.no_grad()
    def observe_(self, entries: Entries) -> None:
        # the first batch sets the threshold, later ones move it
        self.threshold.lerp_(self._edge(entries), torch.where(self.threshold > 0, _RATE, 1.0))

    @torch.no_grad()
    def calibrate_(self, x_BD: torch.Tensor, batch: int) -> None:
        """Set the threshold at which the weights, as they are, have an l0 of k.

        Args:
            x_BD: Activations, some batches of them.
            batch: Tokens a batch, over all processes; the threshold is the mean over batches.
        """
        training, batches = self.training, max(1, len(x_BD) // batch)
        self.train()
        edges = []
        for first in range(batches):  # each from all over the sample, which may lie in order
            x = distributed.share(x_BD[first::batches][:batch])
            edges.append(self._edge(self.entries(self.standardise(x))))
        self.threshold.copy_(torch.stack(edges).mean())
        self.train(training)

    def _edge(self, entries: Entries) -> torch.Tensor:
        """The smallest pre-activation that a batch keeps; 0 where fewer are positive."""
        kept_N = entries.h_N
        # over all processes: one may keep more than its share, another less
        wanted = self.k * entries.pattern.shape[0] * distributed.size(distributed.DATA)
        kept = int(distributed.total(torch.tensor(len(kept_N), device=self.threshold.device)))
        edge = kept_N.min() if len(kept_N) else kept_N.new_tensor(torch.inf)
        if kept < wanted:
            return torch.zeros_like(self.threshold)
        return distributed.smallest(edge.to(self.threshold))

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        return self.magnitude(h_N, latent_N)

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        super().scale_latents_(factor_F)
        self.threshold *= factor_F[0]

    @torch.no_grad()
    def _rescale_(self, factor: float) -> None:
        super()._rescale_(factor)
        self.threshold *= factor

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"k": self.k}


def _smallest_of_largest(value_N: torch.Tensor, count: int) -> torch.Tensor:
    """The smallest of the `count` largest values; a GPU sorts many times faster than it selects."""
    if value_N.is_cuda:
        return value_N.sort(descending=True).values[count - 1]
    return value_N.kthvalue(len(value_N) - count + 1).values


@register
class RationalBatchTopK(RationalSAE, BatchTopK):
    """BatchTopK with a trained rational magnitude behind its gate."""

    family = "rational_batch_top_k"
