"""Reconstruction and sparsity on stored activations: streamed, accumulated in float64."""

from __future__ import annotations

import torch

from rsae import SAE, SoftRational, Store
from rsae.formats.normalisation import check_takes_host_activations


@torch.no_grad()
def reconstruction(
    sae: SAE, activations: Store, split: str = "heldout", rows: int = 4096
) -> dict[str, float]:
    """MSE, FVU, R^2, l0, alive and the count of tokens, on the code that is decoded.

    MSE = mean ||x - x_hat||^2; FVU = MSE / mean ||x - mean(x)||^2; l0 = mean number of non-zero entries of the
    code; alive = share of latents that are non-zero on at least one token; for a family with signed codes, bipolar =
    share of latents that use both signs. For a `soft` rational SAE the figures
    of its dense code stand beside them as `soft_mse`, `soft_fvu`, `soft_l0`. `rows` does not change the result.
    """
    check_takes_host_activations(sae)
    tokens = 0
    error = soft_error = active = soft_active = square = 0.0
    total_D = torch.zeros(sae.d_in, dtype=torch.float64)
    alive_F, plus_F, minus_F = torch.zeros(3, sae.d_sae, dtype=torch.bool)
    for x_BD in activations.blocks(split, rows):
        h_BF = sae.pre_activations(x_BD)
        z_BF = sae.activate(h_BF)
        fires_BF = z_BF != 0
        x64_BD = x_BD.double()
        tokens += len(x_BD)
        error += (sae.decode(z_BF).double() - x64_BD).square().sum().item()
        active += fires_BF.sum().item()
        alive_F |= fires_BF.any(0)
        if sae.signed:
            plus_F |= (z_BF > 0).any(0)
            minus_F |= (z_BF < 0).any(0)
        total_D += x64_BD.sum(0)
        square += x64_BD.square().sum().item()
        if isinstance(sae, SoftRational):
            z_BF = sae.soft_code(h_BF)
            soft_error += (sae.decode(z_BF).double() - x64_BD).square().sum().item()
            soft_active += (z_BF != 0).sum().item()
    variance = square / tokens - (total_D / tokens).square().sum().item()
    mse = error / tokens
    result = {
        "mse": mse,
        "fvu": mse / variance,
        "r2": 1 - mse / variance,
        "l0": active / tokens,
        "alive": alive_F.double().mean().item(),
        "tokens": tokens,
    }
    if sae.signed:
        result["bipolar"] = (plus_F & minus_F).double().mean().item()
    if isinstance(sae, SoftRational):
        result |= {
            "soft_mse": soft_error / tokens,
            "soft_fvu": soft_error / tokens / variance,
            "soft_l0": soft_active / tokens,
        }
    return result
