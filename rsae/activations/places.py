"""Where the tensor of a hook point passes: the module of a host's block, by the names that architectures use.

Names say where a tensor should pass; `rsae.activations.trial` asks by numbers whether it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from rsae.activations.host import Host
from rsae.support.errors import InputError

Edit = Callable[[torch.Tensor], torch.Tensor]

#: The points that have heads
WITH_HEADS = ("q", "k", "v", "z")

#: What the architectures call a block's attention and MLP, and the layers in them
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward")
_OUTPUT = ("o_proj", "c_proj", "dense", "out_proj")
_DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2")
#: Norms on the way from attention and MLP to the residual stream. Llama has a `post_attention_layernorm` too, which
#: stands before its MLP; only a norm behind the MLP tells the two kinds of block apart. GLM-4 and HyperCLOVA X have
#: all three, so that name comes last.
_POST_NORMS = {
    "attn_out": ("post_self_attn_layernorm", "post_norm1", "post_operator_norm", "post_attention_layernorm"),
    "mlp_out": ("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2", "post_ffn_norm"),
}
#: What a block multiplies both by before it adds them
_FACTORS = ("residual_multiplier", "residual_scale")


class Place(NamedTuple):
    """A module's input or output, or some columns of it."""

    #: the module
    module: nn.Module
    #: whether it is what the module reads; else what it gives
    at_input: bool
    #: the columns that are meant; None for all
    column_D: torch.Tensor | None = None
    #: what passes, times this, is the activation
    factor: float = 1.0
    #: how many columns there are if heads lie in them as the columns above say; None where none are asked for
    width: int | None = None


def find(host: Host, layer: int, site: str, head: int | None, name: str) -> Place:
    """Where the tensor of a point of a block passes; for `resid_mid`, where what is added to make it passes.

    Args:
        host: The host.
        layer: The block's number.
        site: A key of `rsae.activations.hooks.POINTS`.
        head: One head; None for all.
        name: The point's name, for messages.

    Raises:
        InputError: The block has no module by a known name, or no such head.
    """
    block = host.blocks[layer]

    def module(parent: nn.Module, names: Sequence[str]) -> nn.Module:
        if found := _first(parent, names):
            return found
        raise InputError(
            f"hook point {name!r}: the blocks of host {host.name!r} have no module named {' or '.join(names)}; "
            "use hook_resid_pre or hook_resid_post, or a module's own name"
        )

    if site in ("resid_pre", "resid_post"):
        return Place(block, site == "resid_pre")
    if site in ("attn_out", "mlp_out", "resid_mid"):
        site = "attn_out" if site == "resid_mid" else site
        found = module(block, _ATTENTION if site == "attn_out" else _MLP)
        if _first(block, _POST_NORMS["mlp_out"]):
            found = module(block, _POST_NORMS[site])
        factors = (getattr(block, each, None) for each in _FACTORS)
        return Place(found, False, factor=next((f for f in factors if isinstance(f, float | int)), 1.0))
    if site == "mlp_in":
        return Place(module(block, _MLP), True)
    if site == "post":
        return Place(module(module(block, _MLP), _DOWN), True)
    attention = module(block, _ATTENTION)
    attention = _first(attention, ("attention",)) or attention  # GPT-Neo's is one in another
    heads, width = _heads(host, attention, site, name)
    if site == "z":
        place = Place(module(attention, _OUTPUT), True, width=heads * width)
    elif own := _first(attention, (f"{site}_proj",)):
        place = Place(own, False, width=heads * width)
    elif fused := _first(attention, ("c_attn", "query_key_value")):
        # GPT-2's alone puts all queries before all keys; GPTBigCode's has the same name and another order
        apart = fused is getattr(attention, "c_attn", None) and not hasattr(attention, "multi_query")
        queries, kept = (_heads(host, attention, each, name)[0] for each in "qk")
        column_D = _columns(site, queries, kept, width, 1 if apart else kept)
        place = Place(fused, False, column_D, width=(queries + 2 * kept) * width)
    else:
        raise InputError(
            f"hook point {name!r}: the attention of host {host.name!r} has no projection known here; "
            "use hook_z, or a module's own name"
        )
    if head is None:
        return place
    if not 0 <= head < heads:
        raise InputError(f"hook point {name!r}: host {host.name!r} has heads 0 to {heads - 1} there")
    column_D = torch.arange(heads * width) if place.column_D is None else place.column_D
    return place._replace(column_D=column_D[head * width : (head + 1) * width])


def _first(parent: nn.Module, names: Sequence[str]) -> nn.Module | None:
    found = (getattr(parent, name, None) for name in names)
    return next((module for module in found if isinstance(module, nn.Module)), None)


def _heads(host: Host, attention: nn.Module, site: str, name: str) -> tuple[int, int]:
    """How many heads there are, and the width of each: as the attention has them, else as the config does."""
    config = host.model.config.get_text_config()

    def said(*keys: str) -> int | None:
        found = (getattr(of, key, None) for key in keys for of in (attention, config))
        return next((number for number in found if isinstance(number, int) and number), None)

    heads = said("num_attention_heads", "num_heads")
    if heads is None:
        raise InputError(f"hook point {name!r}: the config of host {host.name!r} says no num_attention_heads")
    width = said("v_head_dim" if site in ("v", "z") else "qk_head_dim", "head_dim")
    if site in ("k", "v"):
        groups = getattr(attention, "num_key_value_groups", None)
        kept = heads // groups if groups else said("num_kv_heads", "kv_heads", "num_key_value_heads") or heads
        return kept, width or config.hidden_size // heads
    return heads, width or config.hidden_size // heads


def _columns(site: str, queries: int, kept: int, width: int, groups: int) -> torch.Tensor:
    """The columns of queries, keys or values in a common projection, head after head.

    Each group has its queries, then its keys, then its values: GPT-2 has one group, GPT-NeoX one a head, Falcon one
    for each head of its keys.

    Args:
        site: `q`, `k` or `v`.
        queries: How many heads the queries have.
        kept: How many heads the keys have, and the values.
        width: Of a head.
        groups: How many groups there are.
    """
    sizes = [each // groups * width for each in (queries, kept, kept)]
    third = "qkv".index(site)
    first_G = torch.arange(groups) * sum(sizes) + sum(sizes[:third])
    return (first_G[:, None] + torch.arange(sizes[third])).flatten()


@contextmanager
def passed_through(place: Place, edit: Edit) -> Iterator[None]:
    """Pass what passes at a place through a function while the context is open: all columns, in the host's dtype.

    Args:
        place: The place.
        edit: Gets the tensor and gives what takes its place.
    """

    def pre(_module, args, kwargs):
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

    def post(_module, _args, output):
        return with_first(edit(output[0]), output) if isinstance(output, tuple | list) else edit(output)

    handle = (
        place.module.register_forward_pre_hook(pre, with_kwargs=True)
        if place.at_input
        else place.module.register_forward_hook(post)
    )
    try:
        yield
    finally:
        handle.remove()


def with_first(first: torch.Tensor, output: tuple | list) -> tuple | list:
    """A tuple or list as it is, with another first entry.

    Args:
        first: The entry.
        output: What a module puts out.
    """
    return [first, *output[1:]] if isinstance(output, list) else (first, *output[1:])
