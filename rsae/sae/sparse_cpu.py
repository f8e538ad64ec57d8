"""Choosing among pre-activations on the CPU, compiled (sparse_cpu.cpp): what torch does in several passes, in one.

Each function gives what torch gives (of equal entries, others may be chosen), and None where it cannot: another device
or dtype, no compiler. Shapes: B batch, F d_sae, K chosen, N places, D columns.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from rsae.support.compiled import compiled, pointer

_SOURCE = Path(__file__).with_suffix(".cpp")


def largest(h_BF: torch.Tensor, k: int) -> torch.Tensor | None:
    """The latents of each row's k largest entries, latent_BK, in no order.

    Args:
        h_BF: Pre-activations.
        k: How many, at most F.
    """
    h_BF = _wide(h_BF)
    library = _library_for(h_BF)
    if library is None or h_BF.ndim != 2 or not 0 < k <= h_BF.shape[1]:
        return None
    latent_BK = torch.empty(len(h_BF), k, dtype=torch.long)
    library.largest(pointer(h_BF), *h_BF.shape, k, pointer(latent_BK), torch.get_num_threads())
    return latent_BK


def above(h_BF: torch.Tensor, edge_F: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Where entries lie above their latent's edge: where each row begins, [B + 1], row_N and latent_N.

    Args:
        h_BF: Pre-activations.
        edge_F: The edges.
    """
    h_BF, edge_F = _wide(h_BF), _wide(edge_F)
    library = _library_for(h_BF)
    if library is None or edge_F.dtype != h_BF.dtype or not edge_F.is_contiguous():
        return None
    B, F = h_BF.shape
    start_B1, count_B = torch.zeros(B + 1, dtype=torch.long), torch.empty(B, dtype=torch.long)
    found = library.above(pointer(h_BF), pointer(edge_F), B, F, pointer(count_B), torch.get_num_threads())
    torch.cumsum(count_B, 0, out=start_B1[1:])
    row_N, latent_N = (torch.empty(int(start_B1[-1]), dtype=torch.long) for _ in range(2))
    library.take(found, pointer(count_B), B, pointer(row_N), pointer(latent_N))
    return start_B1, row_N, latent_N


def by_latent(
    latent_N: torch.Tensor, d_sae: int, weight_N: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The stable order that sorts places by latent, and where each latent begins in it, [F + 1].

    Args:
        latent_N: The latent of each place.
        d_sae: Number of latents.
        weight_N: Places whose weight is 0 are left out.
    """
    library = _library() if latent_N.device.type == "cpu" and latent_N.is_contiguous() else None
    if library is None or (weight_N is not None and _library_for(weight_N) is None):
        return None
    order_N, start_F1 = torch.empty_like(latent_N), torch.empty(d_sae + 1, dtype=torch.long)
    weights = None if weight_N is None else pointer(weight_N)
    library.by_latent(pointer(latent_N), weights, len(latent_N), d_sae, pointer(order_N), pointer(start_F1))
    return order_N if weight_N is None else order_N[: int(start_F1[-1])], start_F1


def products(
    x_BD: torch.Tensor, W_FD: torch.Tensor, start_B1: torch.Tensor, latent_N: torch.Tensor
) -> torch.Tensor | None:
    """<x_b, W_f> at each place, [N].

    Args:
        x_BD: One vector a row.
        W_FD: One vector a latent.
        start_B1: Where the places of each row begin, and their number.
        latent_N: The latent of each place.
    """
    library = _library_for(x_BD)
    if library is None or _library_for(W_FD) is None:
        return None
    start_B1, latent_N = start_B1.contiguous(), latent_N.contiguous()
    out_N = torch.empty(len(latent_N))
    given = map(pointer, (x_BD, W_FD, start_B1, latent_N))
    library.products(*given, *x_BD.shape, pointer(out_N), torch.get_num_threads())
    return out_N


def residual(
    z_N: torch.Tensor,
    start_B1: torch.Tensor,
    latent_N: torch.Tensor,
    W_FD: torch.Tensor,
    bias_D: torch.Tensor,
    y_BD: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a code leaves over, z W + bias - y, and its products with W at the code's places, [N].

    Args:
        z_N: The code's entries.
        start_B1: Where the places of each row begin, and their number.
        latent_N: The latent of each place.
        W_FD: The decoder.
        bias_D: Its bias.
        y_BD: What is to be reconstructed.
    """
    library = _library_for(y_BD)
    if library is None or any(_library_for(t) is None for t in (z_N, W_FD, bias_D)):
        return None
    start_B1, latent_N = start_B1.contiguous(), latent_N.contiguous()
    residual_BD, product_N = torch.empty_like(y_BD), torch.empty_like(z_N)
    given = map(pointer, (z_N, start_B1, latent_N, W_FD, bias_D, y_BD))
    library.residual(*given, *y_BD.shape, pointer(residual_BD), pointer(product_N), torch.get_num_threads())
    return residual_BD, product_N


def firings(z_BF: torch.Tensor) -> torch.Tensor | None:
    """How many entries of each latent are not 0, [F].

    Args:
        z_BF: A code.
    """
    library = _library_for(z_BF, torch.float32, torch.bfloat16)
    if library is None:
        return None
    count_F = torch.empty(z_BF.shape[1], dtype=torch.int32)
    half = z_BF.dtype == torch.bfloat16
    library.firings(pointer(z_BF), half, *z_BF.shape, pointer(count_F), torch.get_num_threads())
    return count_F


def _wide(value: torch.Tensor) -> torch.Tensor:
    """What was rounded to bfloat16, as numbers that the library reads: still faster than torch's own choice."""
    return value.float() if value.dtype == torch.bfloat16 and value.device.type == "cpu" else value


def _library_for(h_BF: torch.Tensor, *dtypes: torch.dtype) -> ctypes.CDLL | None:
    fits = h_BF.device.type == "cpu" and h_BF.dtype in (dtypes or (torch.float32,)) and h_BF.is_contiguous()
    return _library() if fits else None


@cache
def _library() -> ctypes.CDLL | None:
    library = compiled(_SOURCE, {}, "sparse codes")
    if library is not None:
        address, long, int_ = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
        arguments = {
            "largest": [address, long, long, long, address, int_],
            "above": [address, address, long, long, address, int_],
            "take": [address, address, long, address, address],
            "by_latent": [address, address, long, long, address, address],
            "products": [address, address, address, address, long, long, address, int_],
            "residual": [address] * 6 + [long, long, address, address, int_],
            "firings": [address, int_, long, long, address, int_],
        }
        for name, types in arguments.items():
            getattr(library, name).argtypes = types
            getattr(library, name).restype = address if name == "above" else None
    return library
