"""What to measure of an SAE: its codes, and where in the host it belongs (by default what it says itself).

Shapes: B batch, D dimensions, F latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rsae import SAE, Host, InputError, Provenance
from rsae.activations.hooks import HookPoint
from rsae.provenance import check_match

Encode = Callable[[torch.Tensor], torch.Tensor]


def place_of(
    sae: SAE, host: Host, hook: str | None, norm_limit: float | None, allow_mismatch: bool = False
) -> tuple[HookPoint, float]:
    """Where in a host an SAE belongs.

    Args:
        sae: The SAE.
        host: The model.
        hook: Hook point; None for the one that the SAE was trained at.
        norm_limit: Activations with a larger norm are left alone; None for the SAE's own limit (inf where it has none).
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        The hook point and the limit.

    Raises:
        InputError: where the hook point is not known, or the SAE belongs to another model or hook point.
    """
    known = sae.provenance
    name = hook or known.hook
    if not name:
        raise InputError(
            "the SAE does not say which hook point it belongs to; give hook='blocks.L.hook_resid_pre'"
        )
    here = Provenance(model=host.name, hook=name)
    check_match(known, here, "the SAE", f"host {host.name} at {name}", allow_mismatch)
    limit = known.norm_limit if norm_limit is None else norm_limit
    head = known.head if hook is None else None
    return HookPoint.parse(name, host, head), float("inf") if limit is None else limit


def readings(sae: SAE) -> dict[str, Encode]:
    """The codes that can be read of an SAE's weights; `` is the one that is decoded and counted, and comes first."""
    return {name.removesuffix("_"): encode for name, encode in sae.readings().items()}
