"""One function, four ways: a fused CPU kernel, a fused Triton kernel, torch a cache-sized block at a time, plain torch.

Forward and backward are one pass over h each, and h is all that is saved in between.
"""

from __future__ import annotations

import torch

from rsae.rational.kernels import blocked, cpu, cuda, reference
from rsae.rational.kernels.reference import Shape


def evaluate(h_BF: torch.Tensor, parameters_PF: torch.Tensor, shape: Shape) -> torch.Tensor:
    """phi(h_BF) by the fastest way there is, with `parameters_PF` as in `reference`.

    Any number of leading dimensions will do; the parameters may have one column.
    """
    rows_BF = h_BF.reshape(-1, h_BF.shape[-1])
    parameters_PF = parameters_PF.expand(-1, h_BF.shape[-1])
    fused = not shape.polynomial
    if fused and cpu.available(rows_BF, shape):
        out_BF = cpu.evaluate(rows_BF, parameters_PF, shape)
    elif fused and cuda.available(rows_BF):
        out_BF = cuda.evaluate(rows_BF, parameters_PF, shape)
    else:
        out_BF = blocked.blocked(lambda h, p: reference.evaluate(h, p, shape), rows_BF, parameters_PF)
    return out_BF.reshape(h_BF.shape)
