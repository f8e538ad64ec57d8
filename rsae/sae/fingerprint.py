"""What tells one SAE from another: all that its code and its training depend on, the weights to the bit."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from rsae.sae.base import SAE
from rsae.sae.shard import Shard, latent_dimension
from rsae.support import distributed
from rsae.support.files import bytes_of

#: Digits of a latent's hash that are added up: 2^22 latents of 40 bits each stay below 2^62
_WORD, _WORDS = 10, 3


def fingerprint(sae: SAE) -> list[Any]:
    """A JSON-able key: families and settings, and of each parameter and buffer the type, whether it is trained, and its
    bytes.

    A dictionary in parts has one fingerprint, in however many parts it lies; all its processes have to call.

    Args:
        sae: The SAE.
    """
    values = [*sae.named_parameters(), *sae.named_buffers()]
    shard = sae.shard
    return [
        _kinds(sae),
        {name: [str(v.dtype), v.requires_grad, _bytes(name, v, shard)] for name, v in values},
    ]


def weights_of(sae: SAE) -> list[Any]:
    """A JSON-able key of what its code depends on alone: the same where other parameters are trained.

    Args:
        sae: The SAE, whole.
    """
    return [_kinds(sae), {name: bytes_of([value]) for name, value in sae.state_dict().items()}]


def _kinds(sae: SAE) -> list[Any]:
    return [
        [one.family, one.settings(), one.input_norm and one.input_norm.kind]
        for one in sae.modules()  # what is wrapped has settings of its own
        if isinstance(one, SAE)
    ]


def _bytes(name: str, value: torch.Tensor, shard: Any) -> Any:
    dim = latent_dimension(name, value)
    if dim is None or not isinstance(shard, Shard):
        return bytes_of([value])
    # each latent's hash has its number in it, so that the sum over latents and parts tells their order, too
    rows = value.detach().cpu().movedim(dim, 0)
    # of a dimension of size 1 the stride may be anything, and contiguous() leaves it
    rows = rows.reshape(len(rows), -1).clone(memory_format=torch.contiguous_format)
    sums = [0] * _WORDS
    for number, row in enumerate(rows.view(torch.uint8).numpy(), shard.first):
        made = hashlib.sha256(b"%d " % number + row.tobytes()).hexdigest()
        for word in range(_WORDS):
            sums[word] += int(made[word * _WORD : (word + 1) * _WORD], 16)
    return distributed.total(torch.tensor(sums, device=value.device), distributed.LATENTS).tolist()
