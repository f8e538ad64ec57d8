"""What `losses.against` sums up, compiled (losses.cpp): logits are read from main memory once, not eight times.

Shapes: N counted predictions, V vocabulary.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from rsae.activations.splicing import Logits
from rsae.support.compiled import compiled, pointer

_SOURCE = Path(__file__).with_name("losses.cpp")


def available(logits: Logits) -> bool:
    """Whether the kernel can take these.

    Args:
        logits: The predictions.
    """
    return logits.left.device.type == "cpu" and _library() is not None


def sums(
    logits: Logits, clean_NV: torch.Tensor, p_NV: torch.Tensor, next_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """lse_N, top_N, the logit of the next token, and the sum of p (clean - logit), the sums in float64.

    Args:
        logits: The predictions.
        clean_NV: The clean host's logits.
        p_NV: Its probabilities.
        next_N: The tokens that are predicted.
    """
    library = _library()
    assert library is not None
    N, V = logits.shape
    most_N = torch.full((N,), -torch.inf)
    top_N, next_N = torch.zeros(N, dtype=torch.long), next_N.contiguous()
    mass_N, aim_N, apart_N = torch.zeros(3, N, dtype=torch.float64)
    sums = [pointer(t) for t in (next_N, most_N, mass_N, top_N, aim_N, apart_N)]
    for columns, block_NC in logits.blocks(widened=False):
        block_NC, start = block_NC.contiguous(), columns.start
        half, C = block_NC.dtype == torch.bfloat16, block_NC.shape[1]
        clean = [ctypes.c_void_p(t.data_ptr() + t.element_size() * start) for t in (clean_NV, p_NV)]
        library.add_block(pointer(block_NC), half, N, C, V, start, *clean, *sums, torch.get_num_threads())
    return most_N + mass_N.log(), top_N, aim_N, apart_N


@cache
def _library() -> ctypes.CDLL | None:
    library = compiled(_SOURCE, {}, "downstream losses")
    if library is not None:
        address, long, int_ = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
        library.add_block.argtypes = [address, int_, *[long] * 4, *[address] * 8, int_]
        library.add_block.restype = None
    return library
