"""Where an activation in a host may be replaced, and which predictions then count.

Shapes: B batch, P position, D width, N counted predictions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from rsae.activations.hooks import HookPoint, Prefix, before_head, head_of, logits_from
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


#: Logits at a time: they stay in the caches until they are summed up
_BLOCK = 2**21


class Logits(NamedTuple):
    """Logits [N, V] of counted predictions, a block of the vocabulary at a time: whole, they would not stay near."""

    #: what the head reads, [N, D]; without a head, the logits
    left: torch.Tensor
    #: gives the logits
    head: nn.Linear | None
    #: whether products run in bfloat16 (autocast)
    half: bool

    @property
    def shape(self) -> tuple[int, int]:
        """N and V."""
        return len(self.left), self.left.shape[1] if self.head is None else self.head.out_features

    def blocks(self, widened: bool = True) -> Iterator[tuple[slice, torch.Tensor]]:
        """Columns and their logits, float32; those of a product in bfloat16 in it, unless they are `widened`."""
        N, V = self.shape
        size = max(1, _BLOCK // max(N, 1))
        for start in range(0, V, size):
            columns = slice(start, min(start + size, V))
            block_NC = self._at(columns)
            rounded = block_NC.dtype == torch.bfloat16 and not widened
            yield columns, block_NC if rounded else block_NC.float()

    def _at(self, columns: slice) -> torch.Tensor:
        if self.head is None:
            return self.left[:, columns]
        bias_V = None if self.head.bias is None else self.head.bias[columns]
        with torch.autocast(self.left.device.type, torch.bfloat16, enabled=self.half):
            return nn.functional.linear(self.left, self.head.weight[columns], bias_V)


@torch.no_grad()
def counted_logits(
    host: Host, tokens_BP: torch.Tensor, mask_BP: torch.Tensor, counted_BP: torch.Tensor
) -> Logits:
    """Run the host, with whatever is hooked; its logits at the counted predictions, float32 whatever its dtype.

    Args:
        host: The model.
        tokens_BP: Token ids, padded on the right.
        mask_BP: 1 for tokens, 0 for padding.
        counted_BP: Which predictions are wanted, [batch, position - 1].
    """
    head, half = head_of(host), torch.is_autocast_enabled(host.device.type)
    if head is None:
        found_BPV = host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits
        return Logits(found_BPV[:, :-1][counted_BP], None, half)
    return Logits(before_head(host, head, tokens_BP, mask_BP)[:, :-1][counted_BP], head, half)


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
