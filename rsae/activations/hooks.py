"""Hook points in a host: read an activation (and stop there), or put another in its place.

Names are TransformerLens's, `blocks.L.hook_SITE`:

    resid_pre    the residual stream that enters block L
    attn_out     what the attention adds to it
    mlp_out      what the MLP adds to it
    resid_post   the residual stream that leaves block L

Gemma 2, Gemma 3 and OLMo 2 normalise what attention and MLP give before they add it: there, as in TransformerLens,
`attn_out` and `mlp_out` are what comes out of those norms. So resid_post = resid_pre + attn_out + mlp_out in all hosts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from rsae.activations.host import Host
from rsae.support.errors import InputError

Edit = Callable[[torch.Tensor], torch.Tensor]

SITES = ("resid_pre", "attn_out", "mlp_out", "resid_post")
#: What the architectures call the modules behind the two sites within a block.
_MODULES = {"attn_out": ("self_attn", "attn", "attention"), "mlp_out": ("mlp", "feed_forward")}
#: Norms on the way from those modules to the residual stream. Llama has a `post_attention_layernorm` too, which
#: stands before its MLP; only the second name tells the two kinds of block apart.
_POST_NORMS = {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}


class _Stop(Exception):
    """Raised by a hook to end the forward pass at the hook point."""


@dataclass(frozen=True)
class HookPoint:
    """A place in the host: a block's number and one of `SITES`."""

    layer: int
    site: str

    def __str__(self) -> str:
        return f"blocks.{self.layer}.hook_{self.site}"

    @classmethod
    def parse(cls, name: str, host: Host) -> HookPoint:
        """Read a name such as `blocks.12.hook_resid_pre`; `InputError` says what is wrong with it."""
        match = re.fullmatch(r"blocks\.(\d+)\.hook_(\w+)", name)
        last = len(host.blocks) - 1
        if match is None or match[2] not in SITES or int(match[1]) > last:
            raise InputError(
                f"hook point {name!r} is not in host {host.name!r}: write blocks.L.hook_SITE with L from 0 to {last} "
                f"and SITE one of {', '.join(SITES)}"
            )
        point = cls(int(match[1]), match[2])
        point.module(host)
        return point

    @property
    def residual(self) -> bool:
        """Whether it is the residual stream itself."""
        return self.site.startswith("resid")

    def module(self, host: Host) -> nn.Module:
        """The module whose output (for `resid_pre`: input) is the activation."""
        block = host.blocks[self.layer]
        if self.residual:
            return block
        post_normed = hasattr(block, _POST_NORMS["mlp_out"])
        for name in (_POST_NORMS[self.site],) if post_normed else _MODULES[self.site]:
            if isinstance(module := getattr(block, name, None), nn.Module):
                return module
        raise InputError(
            f"hook point {str(self)!r}: the blocks of host {host.name!r} have no module named "
            f"{' or '.join(_MODULES[self.site])}; use hook_resid_pre or hook_resid_post"
        )


class Prefix(NamedTuple):
    """The host run as far as a hook point."""

    #: the activation at the hook point
    x_BPD: torch.Tensor
    #: the residual stream that enters its block: what the rest of the block needs (x_BPD for residual points)
    entering_BPD: torch.Tensor


@contextmanager
def _hook(host: Host, point: HookPoint, act: Edit) -> Iterator[None]:
    """Pass the hook point's tensor [batch, position, d_model] through `act` while the context is open."""

    def pre(_module, args, kwargs):
        if args:
            return (act(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": act(kwargs["hidden_states"])}

    def post(_module, _args, output):
        return (act(output[0]), *output[1:]) if isinstance(output, tuple) else act(output)

    module = point.module(host)
    handle = (
        module.register_forward_pre_hook(pre, with_kwargs=True)
        if point.site == "resid_pre"
        else module.register_forward_hook(post)
    )
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def prefix_at(host: Host, point: HookPoint, tokens_BP: torch.Tensor, mask_BP: torch.Tensor) -> Prefix:
    """Run the host to the hook point; nothing after it is computed."""
    entering: list[torch.Tensor] = []
    found: list[torch.Tensor] = []

    def keep(x_BPD: torch.Tensor) -> torch.Tensor:
        entering.append(x_BPD)
        return x_BPD

    def stop(x_BPD: torch.Tensor) -> torch.Tensor:
        found.append(x_BPD)
        raise _Stop

    with ExitStack() as stack:
        stack.enter_context(suppress(_Stop))
        if not point.residual:
            stack.enter_context(_hook(host, HookPoint(point.layer, "resid_pre"), keep))
        stack.enter_context(_hook(host, point, stop))
        host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False)
    return Prefix(found[0], (entering or found)[0])


def activations_at(
    host: Host, point: HookPoint, tokens_BP: torch.Tensor, mask_BP: torch.Tensor
) -> torch.Tensor:
    """The activation x_BPD at the hook point; nothing after it is computed."""
    return prefix_at(host, point, tokens_BP, mask_BP).x_BPD


@torch.no_grad()
def logits_from(
    host: Host,
    point: HookPoint,
    tokens_BP: torch.Tensor,
    mask_BP: torch.Tensor,
    x_BPD: torch.Tensor,
    entering_BPD: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits [batch, position, vocabulary] with `x_BPD` at the hook point: only the suffix is computed.

    The blocks before the hook point are passed over, not run, so that the cost is the suffix's; masks and
    position embeddings are made by the host's own code, whatever its architecture. A point within a block
    (`attn_out`, `mlp_out`) does not say what the residual stream beside it holds: give `entering_BPD` (from
    `prefix_at`), or the blocks before are run after all.
    """
    within = not point.residual
    first = point.layer + (point.site == "resid_post")  # the first block that is run
    skipped = host.blocks[: 0 if within and entering_BPD is None else first]
    forwards = [block.forward for block in skipped]
    for block in skipped:
        block.forward = _pass_through
    try:
        with ExitStack() as stack:
            if within and entering_BPD is not None:
                entry = HookPoint(point.layer, "resid_pre")
                stack.enter_context(_hook(host, entry, lambda _: entering_BPD))
            stack.enter_context(_hook(host, point, lambda _: x_BPD))
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
