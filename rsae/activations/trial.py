"""What a host is found to do on a few tokens: tried once, and kept as long as the host.

Names of modules say where the tensor of a hook point should pass (`rsae.activations.places`). Numbers say whether it
does: whether resid_pre + attn_out + mlp_out is resid_post, and whether heads fill the module's width. So an
architecture that does something else with the same names is refused, and gives no other activation.

Shapes: B batch, P position, D width of the residual stream, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from rsae.activations.host import Host, few_tokens
from rsae.activations.places import WITH_HEADS, Place, find, passed_through, with_first
from rsae.support.errors import InputError


@dataclass
class _Trial:
    """What came of it."""

    made: dict[int, tuple | list] = field(default_factory=dict)
    """For each block that puts out a tuple or list: the same of as many None."""
    stream_BPD: dict[int, torch.Tensor] = field(default_factory=dict)
    """What enters each block, and what leaves the last one."""
    logits_BPV: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """The logits."""
    amiss: dict[tuple[int, str], str] = field(default_factory=dict)
    """Block and site -> what does not add up there."""
    suffixes: dict[int, bool] = field(default_factory=dict)
    """Block -> whether the host can go on from it; filled as it is asked."""


_TRIALS: WeakKeyDictionary[nn.Module, _Trial] = WeakKeyDictionary()


def check(host: Host, layer: int, site: str, place: Place, name: str) -> None:
    """Raise `InputError` where a point of a block is not what its name says.

    Args:
        host: The host.
        layer: The block's number.
        site: The point.
        place: Where its tensor passes.
        name: Its name, for messages.
    """
    if why := _trial_of(host).amiss.get((layer, site)):
        own = next(path for path, module in host.model.named_modules() if module is place.module)
        raise InputError(
            f"hook point {name!r} is not in host {host.name!r}: {why}; use hook_resid_pre or hook_resid_post, or the "
            f"module's own name, {own}{':in' if place.at_input else ''}"
        )


def _trial_of(host: Host) -> _Trial:
    if host.model not in _TRIALS:
        with _plainly(host):
            _TRIALS[host.model] = _tried(host)
    return _TRIALS[host.model]


@contextmanager
def _plainly(host: Host) -> Iterator[None]:
    """Without gradients, dropout and autocast, so that two runs give the same."""
    training = [module for module in host.model.modules() if module.training]
    host.model.eval()
    try:
        with torch.no_grad(), torch.autocast(host.device.type, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True


def _logits(host: Host) -> torch.Tensor:
    tokens_BP = few_tokens(host)
    mask_BP = torch.ones_like(tokens_BP)
    return host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits


def _tried(host: Host) -> _Trial:
    trial, blocks = _Trial(), host.blocks
    places: list[dict[str, Place]] = [{} for _ in blocks]
    seen: list[dict[str, torch.Tensor]] = [{} for _ in blocks]
    read: list[list[torch.Tensor]] = [[] for _ in blocks]
    for layer, of_block in enumerate(places):
        for site in ("attn_out", "mlp_out", *WITH_HEADS):
            with suppress(InputError):
                of_block[site] = find(host, layer, site, None, "")

    def keep(layer: int, site: str, x_BPD: torch.Tensor) -> torch.Tensor:
        seen[layer][site] = x_BPD.clone()  # some hosts add to it in place
        return x_BPD

    def left(layer: int, _module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, tuple | list):
            trial.made[layer] = [None] * len(output) if isinstance(output, list) else (None,) * len(output)
            output = output[0]
        keep(layer, "resid_post", output)

    def reading(layer: int, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        if isinstance(given, torch.Tensor):
            read[layer].append(given.clone())

    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            stack.enter_context(passed_through(Place(block, True), partial(keep, layer, "resid_pre")))
            # in front of what else is hooked: a block adds up before its output is changed
            handle = block.register_forward_hook(partial(left, layer), prepend=True)
            stack.callback(handle.remove)
            for module in block.modules():
                if module is not block:
                    handle = module.register_forward_pre_hook(partial(reading, layer), with_kwargs=True)
                    stack.callback(handle.remove)
            for site, place in places[layer].items():
                stack.enter_context(passed_through(place, partial(keep, layer, site)))
        trial.logits_BPV = _logits(host)
    for layer in range(len(blocks)):
        if "resid_post" in seen[layer]:  # else it does not run
            # what leaves a block gives way to what enters the next one
            trial.stream_BPD |= {layer + n: seen[layer][s] for n, s in enumerate(("resid_pre", "resid_post"))}
            amiss = _amiss(places[layer], seen[layer], read[layer])
            trial.amiss |= {(layer, site): why for site, why in amiss.items()}
    return trial


def _amiss(
    places: dict[str, Place], seen: dict[str, torch.Tensor], read: list[torch.Tensor]
) -> dict[str, str]:
    """Site -> what does not add up there, of one block.

    Args:
        places: Where the tensors of its sites pass.
        seen: What passed.
        read: What its modules read.
    """
    found = dict.fromkeys(places.keys() - seen.keys(), "its module does not run")
    for site in places.keys() & seen.keys():
        wanted, has = places[site].width, seen[site].shape[-1]
        if seen[site].ndim != 3:
            found[site] = "what passes there is not [batch, position, width]"
        elif wanted not in (None, has):
            found[site] = f"its heads take {wanted} columns and its module has {has}"
    pre_BPD, post_BPD = seen["resid_pre"], seen["resid_post"]
    attn_BPD, mlp_BPD = (
        seen[site] * places[site].factor if site in seen else None for site in ("attn_out", "mlp_out")
    )
    around_attention, around_mlp = ("attn_out", "resid_mid"), ("mlp_out", "mlp_in")
    between = attn_BPD is not None and any(_is_sum(x_BPD, pre_BPD, attn_BPD) for x_BPD in read)
    if attn_BPD is not None and mlp_BPD is not None:
        if not _is_sum(post_BPD, pre_BPD, attn_BPD, mlp_BPD):
            why = "resid_pre + attn_out + mlp_out is not resid_post there"
            found |= dict.fromkeys((*around_attention, *around_mlp), why)
        elif not between:
            found["resid_mid"] = "attention and MLP run in parallel; there is no residual stream between them"
    elif attn_BPD is not None and not between:
        found |= dict.fromkeys(around_attention, "no module of the block reads resid_pre + attn_out")
    elif mlp_BPD is not None and not any(_is_sum(x_BPD, post_BPD, -mlp_BPD) for x_BPD in read):
        found |= dict.fromkeys(around_mlp, "no module of the block reads resid_post - mlp_out")
    return found


def _is_sum(whole_BPD: torch.Tensor, *parts_BPD: torch.Tensor) -> bool:
    """Whether a tensor is the sum of others but for rounding in the coarsest of their dtypes."""
    if any(part_BPD.numel() != whole_BPD.numel() for part_BPD in parts_BPD):
        return False
    coarsest = max((torch.finfo(x.dtype) for x in (whole_BPD, *parts_BPD)), key=lambda f: f.eps)
    whole, *parts = (x.to("cpu", torch.float64).flatten() for x in (whole_BPD, *parts_BPD))
    size = whole.abs() + sum(part.abs() for part in parts)
    # entry by entry: what is small beside the residual stream is not small beside all of its entries
    return bool(((whole - sum(parts)).abs() <= 4 * coarsest.eps * size + coarsest.tiny).all())


@contextmanager
def passed_over(host: Host, count: int) -> Iterator[None]:
    """The first blocks give what they get, while the context is open.

    Args:
        host: The host.
        count: How many blocks are passed over.
    """
    forwards = [(block, block.forward) for block in host.blocks[:count]]
    made = _trial_of(host).made if count else {}
    for layer, (block, _) in enumerate(forwards):
        block.forward = partial(_pass_through, made.get(layer))
    try:
        yield
    finally:
        for block, forward in forwards:
            block.forward = forward


def _pass_through(made: Any, hidden_states, *_args, **_kwargs):
    """What a block got, as it would put it out: the rest of a tuple is caches and attention patterns, unasked for."""
    return hidden_states if made is None else with_first(hidden_states, made)


def goes_on_from(host: Host, first: int) -> bool:
    """Whether the blocks from one on give the host's logits with those before passed over, tried once.

    Not so where a block reads more than the residual stream, such as keys and values of an earlier block.

    Args:
        host: The host.
        first: The block; the number of blocks for what comes behind them all.
    """
    trial = _trial_of(host)
    if first not in trial.suffixes:
        with _plainly(host), passed_over(host, first):
            trial.suffixes[first] = _same_from(host, trial, first)
    return trial.suffixes[first]


def _same_from(host: Host, trial: _Trial, first: int) -> bool:
    blocks = host.blocks
    place = Place(blocks[first], True) if first < len(blocks) else Place(blocks[-1], False)
    try:
        with passed_through(place, lambda full_BPD: trial.stream_BPD[first].to(full_BPD, copy=True)):
            logits_BPV = _logits(host)
    except Exception:  # whatever its code raises without what the blocks before would have handed on
        return False
    eps = torch.finfo(logits_BPV.dtype).eps
    size = logits_BPV[logits_BPV.isfinite()].abs().max().item()  # some hosts rule tokens out, by -infinity
    return torch.allclose(logits_BPV, trial.logits_BPV.to(logits_BPV), rtol=0, atol=16 * eps * size)
