"""What to measure of an SAE: its codes, and where in the host it belongs (by default what its metadata say)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rsae import SAE, InputError, SoftRational
from rsae.formats.normalisation import check_takes_host_activations


def hook_of(sae: SAE, hook: str | None) -> str:
    """`hook`, or the hook point of the activations that the SAE was trained on."""
    check_takes_host_activations(sae)
    found = hook or sae.metadata.get("hook_name")
    if not found:
        raise InputError(
            "the SAE does not say which hook point it belongs to; give hook='blocks.L.hook_resid_pre'"
        )
    return found


def norm_limit_of(sae: SAE, norm_limit: float | None) -> float:
    """`norm_limit`, or the norm above which activations were left out of the SAE's training (inf for none)."""
    return sae.metadata.get("norm_limit", float("inf")) if norm_limit is None else norm_limit


def codes(sae: SAE) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The encoders to measure, by the prefix of their figures: the code itself, and a `soft` SAE's dense one."""
    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"": sae.encode}
    if isinstance(sae, SoftRational):
        found["soft_"] = lambda x_BD: sae.soft_code(sae.pre_activations(x_BD))
    return found
