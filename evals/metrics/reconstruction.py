"""Reconstruction and sparsity on stored activations: streamed, accumulated in float64."""

from __future__ import annotations

from typing import Any

import torch

from evals.metrics.codes import codes
from rsae import SAE, Store
from rsae.formats.normalisation import check_takes_host_activations

#: Upper edges of the density histogram's decades; below the first stand the latents that never fire
DENSITY_EDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class _Sums:
    """What is summed over tokens for one code of an SAE."""

    def __init__(self, sae: SAE):
        self.error = self.product = self.square = self.cosine = self.ratio = self.fired = 0.0
        self.signed = sae.signed
        self.count_F, self.minus_F = torch.zeros(2, sae.d_sae, dtype=torch.int64)

    def add(self, x_BD: torch.Tensor, z_BF: torch.Tensor, x_hat_BD: torch.Tensor) -> None:
        """A block; x_BD and x_hat_BD in float64."""
        norm_B, norm_hat_B = (y.norm(dim=1).clamp_min(1e-12) for y in (x_BD, x_hat_BD))
        product_B = (x_BD * x_hat_BD).sum(1)
        self.error += (x_hat_BD - x_BD).square().sum().item()
        self.product += product_B.sum().item()
        self.square += x_hat_BD.square().sum().item()
        self.cosine += (product_B / (norm_B * norm_hat_B)).sum().item()
        self.ratio += (norm_hat_B / norm_B).sum().item()
        self.count_F += (z_BF != 0).sum(0).cpu()
        if self.signed:
            self.minus_F += (z_BF < 0).sum(0).cpu()

    def figures(self, tokens: int, variance: float) -> dict[str, float]:
        """Means over the tokens."""
        mse = self.error / tokens
        return {
            "mse": mse,
            "fvu": mse / variance,
            "r2": 1 - mse / variance,
            "l0": self.count_F.sum().item() / tokens,
            "alive": (self.count_F > 0).double().mean().item(),
            "cosine": self.cosine / tokens,
            "l2_ratio": self.ratio / tokens,
            # all zeros have no direction: nothing is biased there
            "relative_bias": self.square / self.product if self.product else 1.0,
        }


@torch.no_grad()
def reconstruction(sae: SAE, activations: Store, split: str = "heldout", rows: int = 4096) -> dict[str, Any]:
    """MSE, FVU, R^2, l0, alive, cosine, shrinkage, density and redundancy, on the code that is decoded.

    MSE = mean ||x - x_hat||^2; FVU = MSE / mean ||x - mean(x)||^2; l0 = mean number of non-zero entries of the
    code; alive = share of latents that are non-zero on at least one token; cosine = mean cosine of x and x_hat;
    l2_ratio = mean ||x_hat|| / ||x||; relative_bias = mean ||x_hat||^2 / mean <x, x_hat> (Rajamanoharan et al. 2024,
    arXiv 2404.16014, eq. 10: below 1 is shrinkage); density: how many latents never fire, and how many fire on a share
    of the tokens up to 1e-4, 1e-3, ...; decoder_redundancy = mean over latents of the largest cosine with another
    latent's decoder row; tokens: how many; for a family with signed codes, bipolar = share of latents that use both
    signs, two_way = of those whose rarer sign makes up more than a tenth of their firings.

    For a `soft` rational SAE the figures of its dense code stand beside them as `soft_mse`, `soft_l0`, ... . `rows`
    does not change the result.
    """
    check_takes_host_activations(sae)
    tokens, square = 0, 0.0
    total_D = torch.zeros(sae.d_in, dtype=torch.float64)
    sums = {prefix: _Sums(sae) for prefix in codes(sae)}
    for x_BD in activations.blocks(split, rows):
        x64_BD = x_BD.double()
        tokens += len(x_BD)
        total_D += x64_BD.sum(0)
        square += x64_BD.square().sum().item()
        for prefix, encode in codes(sae).items():
            z_BF = encode(x_BD.to(sae.W_enc.device))
            sums[prefix].add(x64_BD, z_BF, sae.decode(z_BF).double().cpu())
    variance = square / tokens - (total_D / tokens).square().sum().item()
    result: dict[str, Any] = {}
    for prefix, summed in sums.items():
        result |= {prefix + name: value for name, value in summed.figures(tokens, variance).items()}
    density_F = sums[""].count_F.double() / tokens
    bins_F = torch.bucketize(density_F, torch.tensor(DENSITY_EDGES, dtype=torch.float64))
    latents = torch.bincount(bins_F, minlength=len(DENSITY_EDGES)).tolist()
    if sae.signed:
        minus_F = sums[""].minus_F
        rarer_F = torch.minimum(minus_F, sums[""].count_F - minus_F)
        result["bipolar"] = (rarer_F > 0).double().mean().item()
        result["two_way"] = (10 * rarer_F > sums[""].count_F).double().mean().item()
    return result | {
        "tokens": tokens,
        "density": {"up_to": list(DENSITY_EDGES), "latents": latents},
        "decoder_redundancy": largest_cosines(sae.W_dec).double().mean().item(),
    }


@torch.no_grad()
def largest_cosines(vector_FD: torch.Tensor, rows: int = 1024) -> torch.Tensor:
    """Each vector's largest cosine with another one, [F]."""
    unit_FD = torch.nn.functional.normalize(vector_FD.float(), dim=1)
    found = []
    for start in range(0, len(unit_FD), rows):
        cosine_BF = unit_FD[start : start + rows] @ unit_FD.T
        own = torch.arange(len(cosine_BF), device=unit_FD.device)
        cosine_BF[own, start + own] = -torch.inf
        found.append(cosine_BF.max(1).values)
    return torch.cat(found).cpu()
