"""What to measure of an SAE: its codes, and where in the host it belongs (by default what it says itself).

Shapes: B batch, D dimensions, F latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from rsae import SAE, InputError

Encode = Callable[[torch.Tensor], torch.Tensor]


def hook_of(sae: SAE, hook: str | None) -> str:
    """`hook`, or the hook point of the activations that `sae` was trained on.

    Raises:
        InputError: where neither is known.
    """
    found = hook or sae.provenance.hook
    if not found:
        raise InputError(
            "the SAE does not say which hook point it belongs to; give hook='blocks.L.hook_resid_pre'"
        )
    return found


def norm_limit_of(sae: SAE, norm_limit: float | None) -> float:
    """`norm_limit`, or the norm above which activations were left out of the training of `sae` (inf for none)."""
    known = sae.provenance.norm_limit if norm_limit is None else norm_limit
    return float("inf") if known is None else known


class Codes(NamedTuple):
    """The encoders of an SAE to measure, x_BD -> z_BF."""

    #: the code that is decoded and counted
    honest: Encode
    #: a `soft` rational SAE's dense code before truncation
    soft: Encode | None


def codes(sae: SAE) -> Codes:
    """The encoders to measure: the code itself, and a `soft` SAE's dense one."""
    return Codes(sae.encode, sae.readings().get("soft_"))
