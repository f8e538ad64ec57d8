"""Hook points in a host: read an activation (and stop there), or put another in its place.

Names are TransformerLens's: `blocks.12.hook_resid_pre` is what enters block 12, `blocks.12.hook_resid_post`
what leaves it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch

from rsae.activations.host import Host
from rsae.errors import InputError

Edit = Callable[[torch.Tensor], torch.Tensor]


class _Stop(Exception):
    """Raised by a hook to end the forward pass at the hook point."""


@dataclass(frozen=True)
class HookPoint:
    """A place in the residual stream: before (`pre`) or after (`post`) a block."""

    layer: int
    side: str

    def __str__(self) -> str:
        return f"blocks.{self.layer}.hook_resid_{self.side}"

    @classmethod
    def parse(cls, name: str, host: Host) -> HookPoint:
        """Read a name such as `blocks.12.hook_resid_pre`; `InputError` says what is wrong with it."""
        match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", name)
        last = len(host.blocks) - 1
        if match is None or int(match[1]) > last:
            raise InputError(
                f"hook point {name!r} is not in host {host.name!r}: write blocks.L.hook_resid_pre or "
                f"blocks.L.hook_resid_post with L from 0 to {last}"
            )
        return cls(int(match[1]), match[2])


@contextmanager
def _hook(host: Host, point: HookPoint, act: Edit) -> Iterator[None]:
    """Pass the hook point's tensor [batch, position, d_model] through `act` while the context is open."""

    def pre(_module, args, kwargs):
        if args:
            return (act(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": act(kwargs["hidden_states"])}

    def post(_module, _args, output):
        return (act(output[0]), *output[1:]) if isinstance(output, tuple) else act(output)

    block = host.blocks[point.layer]
    handle = (
        block.register_forward_pre_hook(pre, with_kwargs=True)
        if point.side == "pre"
        else block.register_forward_hook(post)
    )
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def activations_at(
    host: Host, point: HookPoint, tokens_BP: torch.Tensor, mask_BP: torch.Tensor
) -> torch.Tensor:
    """The activation x_BPD at the hook point; nothing after it is computed."""
    found: list[torch.Tensor] = []

    def stop(x_BPD: torch.Tensor) -> torch.Tensor:
        found.append(x_BPD)
        raise _Stop

    with _hook(host, point, stop), suppress(_Stop):
        host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False)
    return found[0]


@torch.no_grad()
def logits_from(
    host: Host, point: HookPoint, tokens_BP: torch.Tensor, mask_BP: torch.Tensor, x_BPD: torch.Tensor
) -> torch.Tensor:
    """Logits [batch, position, vocabulary] with `x_BPD` at the hook point: only the suffix is computed.

    The blocks before the hook point are passed over, not run, so that the cost is the suffix's; masks and
    position embeddings are made by the host's own code, whatever its architecture.
    """
    skipped = host.blocks[: point.layer + (point.side == "post")]
    forwards = [block.forward for block in skipped]
    for block in skipped:
        block.forward = _pass_through
    try:
        with _hook(host, point, lambda _: x_BPD):
            return host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits
    finally:
        for block, forward in zip(skipped, forwards, strict=True):
            block.forward = forward


def _pass_through(hidden_states, *_args, **_kwargs):
    return hidden_states


def pad(sequences: list[list[int]], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [batch, longest] padded on the right with 0, and the attention mask of the same shape."""
    longest = max(len(s) for s in sequences)
    tokens_BP = torch.zeros(len(sequences), longest, dtype=torch.long, device=device)
    mask_BP = torch.zeros_like(tokens_BP)
    for row, ids in enumerate(sequences):
        tokens_BP[row, : len(ids)] = torch.tensor(ids)
        mask_BP[row, : len(ids)] = 1
    return tokens_BP, mask_BP
