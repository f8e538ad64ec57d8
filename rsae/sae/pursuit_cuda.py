"""The pursuit on CUDA by Triton (pursuit_triton.py): a program a token, and all of its steps in one launch.

It has no gradients, takes float32, and looks at a bounded number of candidates. Shapes: B batch, D d_in, F d_sae, N
entries of a sparse code, C candidates a token.
"""

from __future__ import annotations

from typing import Any

import torch

from rsae.sae import sparse_cuda
from rsae.sae.sparse import Pattern

_COLUMNS = 32  # that are multiplied together
#: Candidates a token at most: their Gram matrix stays in registers
MOST = 128


def available(x_BD: torch.Tensor, candidates: int) -> bool:
    """Whether the kernel can take this input.

    Args:
        x_BD: The activations.
        candidates: Of a token.
    """
    return sparse_cuda.available(x_BD) and x_BD.dtype == torch.float32 and candidates <= MOST


@torch.no_grad()
def pursue(
    x_BD: torch.Tensor,
    unit_FD: torch.Tensor,
    pool: Pattern,
    c_N: torch.Tensor,
    pattern: Pattern,
    steps: int,
    rounds: int,
    candidates: int,
    eta: float,
    signed: bool,
) -> tuple[torch.Tensor, Pattern]:
    """Entries and places of the pursued code, in units of unit decoder rows.

    Args:
        x_BD: Activations less b_dec.
        unit_FD: Unit decoder rows.
        pool: Latents that a decision looks at, as many of each token, the open ones among them; by falling rank where
            a token has more open ones than `candidates`.
        c_N: The plain code's entries, none of them 0.
        pattern: Their places.
        steps: Steps of conjugate gradients for each solve.
        rounds: Decisions of the gate after the first.
        candidates: Latents that a decision looks at, unless more are open.
        eta: Step of the decision.
        signed: Whether the code uses both signs.
    """
    from rsae.sae import pursuit_triton

    B, D = x_BD.shape
    latent_BC = pool.latent_N.reshape(B, -1)
    C = latent_BC.shape[1]
    plain_BC = pattern.scatter(c_N).gather(1, latent_BC)
    places = max(16, 1 << (C - 1).bit_length())
    out_BC = torch.empty_like(plain_BC)
    kernel: Any = pursuit_triton.pursue[(B,)]
    given = (x_BD, unit_FD, latent_BC, plain_BC, pattern.counts_B)
    numbers = (D, C, steps, rounds, candidates, eta, signed, places, _COLUMNS)
    with torch.cuda.device_of(x_BD):  # Triton launches on the current card
        kernel(*(t.contiguous() for t in given), out_BC, *numbers, num_warps=max(4, places // 16))
    on_N = out_BC.flatten() != 0
    return out_BC.flatten()[on_N], pool.where(on_N)
