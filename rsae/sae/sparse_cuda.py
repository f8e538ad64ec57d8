"""Sparse products on CUDA by Triton (and, in Triton's interpreter, for the tests): no atomics, the same sums each time.

The kernels add up in float32. `largest` saves memory, not time: on an H200 it takes twice as long as a product and a
top k of it.
Shapes: B bags or tokens, N entries, R rows, D columns, F latents, K chosen.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

_ENTRIES, _COLUMNS = 8, 128  # of a bag
_PLACES = 16  # of a program that multiplies
_ROWS, _LATENTS, _INNER = 16, 256, 32  # a tile of pre-activations, and what is multiplied together
#: Pre-activations that would take more bytes are not written
LARGE = 2**32


def available(x: torch.Tensor) -> bool:
    """Whether the kernels can take this input."""
    return x.is_cuda and importlib.util.find_spec("triton") is not None


def fuses(x_BD: torch.Tensor, d_sae: int, k: int) -> bool:
    """Whether the largest pre-activations are to be found without writing all of them: where these are large.

    Args:
        x_BD: Tokens.
        d_sae: Number of latents.
        k: How many are wanted.
    """
    if not available(x_BD) or k > min(_LATENTS, d_sae) or 4 * len(x_BD) * d_sae <= LARGE:
        return False
    import triton.language

    plain = x_BD.dtype == torch.float32 and not torch.is_autocast_enabled(x_BD.device.type)
    return plain and hasattr(triton.language, "topk")  # which earlier versions lack


def bag(
    index_N: torch.Tensor, row_RD: torch.Tensor, start_B1: torch.Tensor, weight_N: torch.Tensor
) -> torch.Tensor:
    """Weighted sums of rows, a bag for each two neighbours in `start_B1`: the decoder's product, and weight gradients.

    Args:
        index_N: The row of each entry.
        row_RD: The rows.
        start_B1: Where each bag begins among the entries, and their number.
        weight_N: Of each entry.
    """
    from rsae.sae import sparse_triton

    bags, D = len(start_B1) - 1, row_RD.shape[1]
    out_BD = row_RD.new_empty(bags, D)
    kernel: Any = sparse_triton.bag[(bags, -(-D // _COLUMNS))]
    given = (index_N, row_RD, start_B1, weight_N)
    with torch.cuda.device_of(row_RD):  # Triton launches on the current card
        kernel(*(t.contiguous() for t in given), out_BD, D, _ENTRIES, _COLUMNS)
    return out_BD


def products(
    x_BD: torch.Tensor, W_FD: torch.Tensor, row_N: torch.Tensor, latent_N: torch.Tensor
) -> torch.Tensor:
    """<x_b, W_f> at each place: the code's gradient, or pre-activations where the places are known.

    Args:
        x_BD: One vector a row.
        W_FD: One vector a latent.
        row_N: The row of each place.
        latent_N: The latent of each place.
    """
    from rsae.sae import sparse_triton

    N, D = len(row_N), x_BD.shape[1]
    out_N = x_BD.new_empty(N)
    if N:
        kernel: Any = sparse_triton.products[(-(-N // _PLACES),)]
        given = (row_N, latent_N, x_BD, W_FD)
        with torch.cuda.device_of(x_BD):
            kernel(*(t.contiguous() for t in given), out_N, N, D, _PLACES, _COLUMNS)
    return out_N


def largest(
    x_BD: torch.Tensor, W_FD: torch.Tensor, b_F: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each token's k largest pre-activations x W + b and their latents, h_BK and latent_BK; h_BF is never in memory.

    The k largest of each tile of latents are kept, and the k largest of these are chosen.

    Args:
        x_BD: Tokens.
        W_FD: The encoder, a latent a row.
        b_F: Of each latent.
        k: How many, at most F and at most a tile's latents.
    """
    from rsae.sae import sparse_triton

    (B, D), F = x_BD.shape, len(W_FD)
    kept, tiles = 1 << (k - 1).bit_length(), -(-F // _LATENTS)
    key_BTK = torch.empty(B, tiles, kept, dtype=torch.long, device=x_BD.device)
    kernel: Any = sparse_triton.largest[(-(-B // _ROWS), tiles)]
    given = (x_BD, W_FD, b_F)
    with torch.cuda.device_of(x_BD):
        kernel(*(t.contiguous() for t in given), key_BTK, B, F, D, _ROWS, _LATENTS, _INNER, kept)
    key_BK = key_BTK.flatten(1).topk(k, dim=1, sorted=False).values
    bits_BK = (key_BK >> 32).int()
    bits_BK = torch.where(bits_BK < 0, bits_BK ^ 0x7FFFFFFF, bits_BK)
    return bits_BK.view(torch.float32), key_BK & 0xFFFFFFFF
