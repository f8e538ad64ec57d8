"""The pursuit on the CPU, compiled (pursuit_cpu.cpp): the same code as pursuit.py's, several times as fast.

It has no gradients, takes float32, and looks at a bounded number of candidates. Shapes: B batch, D d_in, F d_sae, N
entries of a sparse code.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from rsae.sae.sparse import Pattern
from rsae.support.compiled import compiled, pointer

_SOURCE = Path(__file__).with_suffix(".cpp")


def available(x_BD: torch.Tensor) -> bool:
    """Whether the kernel can take this input.

    Args:
        x_BD: The activations.
    """
    return x_BD.device.type == "cpu" and x_BD.dtype == torch.float32 and _library() is not None


@torch.no_grad()
def pursue(
    x_BD: torch.Tensor,
    unit_FD: torch.Tensor,
    h_BF: torch.Tensor,
    norm_F: torch.Tensor | None,
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
        h_BF: Pre-activations, which rank the candidates.
        norm_F: Factors of the ranks; None for 1.
        c_N: The plain code's entries, none of them 0.
        pattern: Their places.
        steps: Steps of conjugate gradients for each solve.
        rounds: Decisions of the gate after the first.
        candidates: Latents that a decision looks at.
        eta: Step of the decision.
        signed: Whether the code uses both signs.
    """
    library = _library()
    assert library is not None
    latent_N, c_N = pattern.latent_N.clone(), c_N.clone()
    inputs = [t.contiguous() for t in (x_BD, unit_FD, h_BF)]
    factor_F = None if norm_F is None else norm_F.contiguous()
    library.pursue(
        *map(pointer, inputs),
        None if factor_F is None else pointer(factor_F),
        *(len(x_BD), *unit_FD.shape[::-1]),
        *map(pointer, (pattern.start_B1, latent_N, c_N)),
        *(steps, rounds, candidates, eta, signed, torch.get_num_threads()),
    )
    found = Pattern(pattern.start_B1, pattern.row_N, latent_N, pattern.shape)
    on_N = c_N != 0
    return (c_N, found) if bool(on_N.all()) else (c_N[on_N], found.where(on_N))


@cache
def _library() -> ctypes.CDLL | None:
    library = compiled(_SOURCE, {}, "pursuits")
    if library is not None:
        address, long, int_ = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
        library.pursue.argtypes = (
            [address] * 4 + [long] * 3 + [address] * 3 + [long] * 3 + [ctypes.c_float, int_, int_]
        )
        library.pursue.restype = None
    return library
