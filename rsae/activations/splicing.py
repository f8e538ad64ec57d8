"""Where an activation in a host may be replaced, and which predictions then count.

Shapes: B batch, P position, D width, N counted predictions, V vocabulary.
"""

from __future__ import annotations

import torch

from rsae.activations.hooks import HookPoint, Prefix, logits_from
from rsae.activations.host import Host


def replaceable(x_BPD: torch.Tensor, kept_BP: torch.Tensor, norm_limit: float) -> torch.Tensor:
    """Where an activation may be changed: not at the first position, padding, excluded tokens and outlying norms.

    Args:
        x_BPD: Activations at the hook point.
        kept_BP: 1 for tokens that may be changed, 0 for padding and excluded tokens.
        norm_limit: Activations with a larger norm stay.

    Returns:
        True where it may be changed, [batch, position].
    """
    replaced_BP = kept_BP.bool() & (x_BPD.norm(dim=-1) <= norm_limit)
    replaced_BP[:, 0] = False
    return replaced_BP


def counted(mask_BP: torch.Tensor, kept_BP: torch.Tensor) -> torch.Tensor:
    """Which predictions (of token p + 1, made at p) are measured: [batch, position - 1], none made at position 0.

    Args:
        mask_BP: 1 for tokens, 0 for padding.
        kept_BP: True for the tokens at which predictions count.
    """
    counted_BP = mask_BP[:, 1:].bool() & kept_BP[:, :-1]
    counted_BP[:, 0] = False
    return counted_BP


def predictions(
    host: Host,
    point: HookPoint,
    tokens_BP: torch.Tensor,
    mask_BP: torch.Tensor,
    prefix: Prefix,
    counted_BP: torch.Tensor,
) -> torch.Tensor:
    """What the host predicts from a hook point on.

    Args:
        host: The model.
        point: The hook point.
        tokens_BP: Token ids, padded on the right.
        mask_BP: 1 for tokens, 0 for padding.
        prefix: The host run as far as the hook point, with the activation to go on from.
        counted_BP: Which predictions are wanted, [batch, position - 1].

    Returns:
        log p_NV of the wanted predictions, float32 whatever the host's dtype.
    """
    return logits_from(host, point, tokens_BP, mask_BP, *prefix)[:, :-1][counted_BP].float().log_softmax(-1)
