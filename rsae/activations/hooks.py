"""Hook points in a host: read an activation (and stop there), or put another in its place.

Names are TransformerLens's:

    blocks.L.hook_resid_pre    the residual stream that enters block L
    blocks.L.hook_attn_out     what the attention adds to it
    blocks.L.hook_resid_mid    the residual stream between attention and MLP (not where they run in parallel)
    blocks.L.hook_mlp_in       what the MLP reads, after its norm
    blocks.L.hook_mlp_out      what the MLP adds to the residual stream
    blocks.L.hook_resid_post   the residual stream that leaves block L
    blocks.L.attn.hook_q, hook_k, hook_v    queries (before rotation), keys, values of all heads side by side
    blocks.L.attn.hook_z       what the heads give, side by side, before the output projection
    blocks.L.mlp.hook_post     the MLP's neurons

`blocks.L.attn.hook_z[3]` is head 3 alone. Any other module has the name that the host's own code gives it, such as
`model.layers.3.mlp.act_fn` for its output and `model.layers.3.mlp.act_fn:in` for its input; or, in block 3,
`blocks.3.mlp.act_fn`.

Gemma 2, Gemma 3 and OLMo 2 normalise what attention and MLP give before they add it: there, as in TransformerLens,
`attn_out` and `mlp_out` are what comes out of those norms. Granite multiplies it: there they are the products. So
resid_post = resid_pre + attn_out + mlp_out in all hosts, or the host is refused there (`rsae.activations.trial`).

This is the one place where the host's dtype ends: what is read is float32, what is put back has the host's own.
Shapes: B batch, P position, D width of the hook point, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from rsae.activations.host import Host, few_tokens
from rsae.activations.places import WITH_HEADS, Edit, Place, find, passed_through
from rsae.activations.trial import check, goes_on_from, passed_over
from rsae.support.errors import InputError

#: The points that make up the residual stream: resid_pre + attn_out + mlp_out = resid_post
SITES = ("resid_pre", "attn_out", "mlp_out", "resid_post")
#: All points of a block, as they are written behind `blocks.L.`
POINTS = {
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "hook_mlp_in",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "post": "mlp.hook_post",
}


class _Stop(Exception):
    """Raised by a hook to end the forward pass when all is read."""


@dataclass(frozen=True)
class HookPoint:
    """A place in the host."""

    layer: int | None
    """The block's number; None for a module outside the blocks."""
    site: str
    """A key of `POINTS`, or the module's own name."""
    head: int | None = None
    """One head of `q`, `k`, `v` or `z`; None for all."""

    @property
    def name(self) -> str:
        """The name without the head."""
        return f"blocks.{self.layer}.{POINTS[self.site]}" if self.site in POINTS else self.site

    def __str__(self) -> str:
        return self.name if self.head is None else f"{self.name}[{self.head}]"

    @classmethod
    def parse(cls, name: str, host: Host, head: int | None = None) -> HookPoint:
        """Read a name.

        Args:
            name: Such as `blocks.12.hook_resid_pre` or `blocks.3.attn.hook_z[7]`.
            host: The host that it is to be in.
            head: The head, where the name does not say it.

        Raises:
            InputError: The host has no such point; the message says what it has.
        """
        match = re.fullmatch(r"blocks\.(\d+)\.((?:attn\.|mlp\.)?hook_\w+)(?:\[(\d+)\])?", name)
        if match is None:
            return cls._of_module(name, host)
        last = len(host.blocks) - 1
        sites = {written: site for site, written in POINTS.items()}
        if match[2] not in sites or int(match[1]) > last:
            raise InputError(
                f"hook point {name!r} is not in host {host.name!r}: write blocks.L.POINT with L from 0 to {last} "
                f"and POINT one of {', '.join(POINTS.values())}"
            )
        given = int(match[3]) if match[3] else head
        site = sites[match[2]]
        if given is not None and site not in WITH_HEADS:
            raise InputError(f"hook point {name!r}: only attn.hook_q, _k, _v and _z have heads")
        point = cls(int(match[1]), site, given)
        point._place(host)
        return point

    @classmethod
    def _of_module(cls, name: str, host: Host) -> HookPoint:
        module = _named(host, name)
        if module is None:
            last = len(host.blocks) - 1
            example = next(reversed(dict(host.model.named_modules())))
            raise InputError(
                f"hook point {name!r} is not in host {host.name!r}: write blocks.L.POINT with L from 0 to {last} and "
                f"POINT one of {', '.join(POINTS.values())}; or a module's own name, such as {example}"
            )
        for layer, block in enumerate(host.blocks):
            if any(module is m for m in block.modules()):
                return cls(layer, name)
        return cls(None, name)

    @property
    def residual(self) -> bool:
        """Whether it is the residual stream between blocks."""
        return self.site in ("resid_pre", "resid_post")

    def _place(self, host: Host) -> Place:
        """Where its tensor passes; for `resid_mid`, where what is added to make it passes."""
        if self.site not in POINTS:
            module = _named(host, self.site)
            assert module is not None
            return Place(module, self.site.endswith(":in"))
        assert self.layer is not None
        place = find(host, self.layer, self.site, self.head, str(self))
        if not self.residual:
            check(host, self.layer, self.site, place, str(self))
        return place


def _named(host: Host, name: str) -> nn.Module | None:
    """The module of a name, which the host has or a block of it; None where there is none."""
    path = name.removesuffix(":in")
    modules = dict(host.model.named_modules())
    in_block = re.fullmatch(r"blocks\.(\d+)\.(.+)", path)
    if path not in modules and in_block and int(in_block[1]) < len(host.blocks):
        path, modules = in_block[2], dict(host.blocks[int(in_block[1])].named_modules())
    return modules.get(path) if path else None


class Prefix(NamedTuple):
    """The host run as far as a hook point."""

    #: the activation at the hook point, float32
    x_BPD: torch.Tensor
    #: the residual stream that enters its block, in the host's dtype: what the rest of the block needs (None where the
    #: point is in no block)
    entering_BPD: torch.Tensor | None


def mlp_of(host: Host, point: HookPoint, target: HookPoint) -> Edit:
    """The host's own function from a block's `hook_mlp_in` to its `hook_mlp_out`, of tokens x_BD.

    Args:
        host: The host.
        point: What is read.
        target: What is computed from it.

    Raises:
        InputError: They are not these two points of one block.
    """
    if (point.site, target.site) != ("mlp_in", "mlp_out") or point.layer != target.layer:
        raise InputError(
            f"{point} to {target} is no MLP; it takes blocks.L.hook_mlp_in to blocks.L.hook_mlp_out"
        )
    mlp, (last, *_, factor, _) = point._place(host).module, target._place(host)

    def run(x_BD: torch.Tensor) -> torch.Tensor:
        y_1BO = mlp(x_BD[None].to(next(mlp.parameters()).dtype))  # experts ask for [batch, position, width]
        y_1BO = y_1BO[0] if isinstance(y_1BO, tuple) else y_1BO
        return _scaled((y_1BO if last is mlp else last(y_1BO))[0].float(), factor)

    return run


@contextmanager
def hooked(host: Host, point: HookPoint, act: Edit) -> Iterator[None]:
    """Pass the hook point's activation through a function while the context is open.

    Args:
        host: The host.
        point: The hook point.
        act: Gets the activation as float32 [batch, position, width] and gives what takes its place; to give the same
            tensor back changes nothing.
    """
    if point.site == "resid_mid":
        with _hooked_between(host, point, act):
            yield
        return
    place = point._place(host)

    def edit(full: torch.Tensor) -> torch.Tensor:
        column_D = None if place.column_D is None else place.column_D.to(full.device)
        x = full if column_D is None else full.index_select(-1, column_D)
        seen = _scaled(x.float(), place.factor)
        new = act(seen)
        if new is seen:
            return full
        # a copy, as Falcon adds its attention to what its MLP gives, in place
        new = _scaled(new, 1 / place.factor).to(full.dtype, copy=not point.residual)
        return new if column_D is None else full.index_copy(-1, column_D, new)

    with passed_through(place, edit):
        yield


def _scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x if factor == 1 else x * factor


@contextmanager
def _hooked_between(host: Host, point: HookPoint, act: Edit) -> Iterator[None]:
    """The residual stream after the attention: edited through what the attention adds."""
    entering: list[torch.Tensor] = []
    place = point._place(host)

    def keep(full: torch.Tensor) -> torch.Tensor:
        entering[:] = [full]
        return full

    def edit(added: torch.Tensor) -> torch.Tensor:
        between = entering[0] + _scaled(added, place.factor)
        seen = between.float()
        new = act(seen)
        return added if new is seen else _scaled(new.to(added.dtype) - entering[0], 1 / place.factor)

    assert point.layer is not None
    with (
        passed_through(HookPoint(point.layer, "resid_pre")._place(host), keep),
        passed_through(place, edit),
    ):
        yield


def activations_at_all(
    host: Host, points: Sequence[HookPoint], tokens_BP: torch.Tensor, mask_BP: torch.Tensor
) -> list[torch.Tensor]:
    """The activations x_BPD at several hook points in one pass, float32; nothing after the last is computed.

    Args:
        host: The host.
        points: The hook points.
        tokens_BP: Token ids.
        mask_BP: 1 for tokens, 0 for padding.
    """
    return [found for found, _ in _run_to(host, points, tokens_BP, mask_BP, entering=False)]


def activations_at(
    host: Host, point: HookPoint, tokens_BP: torch.Tensor, mask_BP: torch.Tensor
) -> torch.Tensor:
    """The activation x_BPD at one hook point, float32; nothing after it is computed.

    Args:
        host: The host.
        point: The hook point.
        tokens_BP: Token ids.
        mask_BP: 1 for tokens, 0 for padding.
    """
    return activations_at_all(host, [point], tokens_BP, mask_BP)[0]


def prefix_at(host: Host, point: HookPoint, tokens_BP: torch.Tensor, mask_BP: torch.Tensor) -> Prefix:
    """Run the host to a hook point; nothing after it is computed.

    Args:
        host: The host.
        point: The hook point.
        tokens_BP: Token ids.
        mask_BP: 1 for tokens, 0 for padding.
    """
    return prefixes_at(host, [point], tokens_BP, mask_BP)[0]


def prefixes_at(
    host: Host, points: Sequence[HookPoint], tokens_BP: torch.Tensor, mask_BP: torch.Tensor
) -> list[Prefix]:
    """The same for several hook points in one run to the last of them.

    Args:
        host: The host.
        points: The hook points.
        tokens_BP: Token ids.
        mask_BP: 1 for tokens, 0 for padding.
    """
    return _run_to(host, points, tokens_BP, mask_BP, entering=True)


@torch.no_grad()
def _run_to(
    host: Host,
    points: Sequence[HookPoint],
    tokens_BP: torch.Tensor,
    mask_BP: torch.Tensor,
    entering: bool,
) -> list[Prefix]:
    found: dict[int, torch.Tensor] = {}
    streams: dict[int, torch.Tensor] = {}

    def reading(number: int) -> Edit:
        def read(x_BPD: torch.Tensor) -> torch.Tensor:
            found[number] = x_BPD
            if len(found) == len(points):
                raise _Stop
            if not points[number].residual:
                found[number] = x_BPD.clone()  # the rest of the block may add to it in place
            return x_BPD

        return read

    def keeping(number: int) -> Edit:
        def keep(full: torch.Tensor) -> torch.Tensor:
            streams[number] = full
            return full

        return keep

    with ExitStack() as stack:
        stack.enter_context(suppress(_Stop))
        stack.enter_context(host.precisely())
        for number, point in enumerate(points):
            if entering and point.layer is not None:
                place = HookPoint(point.layer, "resid_pre")._place(host)
                stack.enter_context(passed_through(place, keeping(number)))
            stack.enter_context(hooked(host, point, reading(number)))
        host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False)
    return [Prefix(found[i], streams.get(i)) for i in range(len(points))]


def logits_from(
    host: Host,
    point: HookPoint,
    tokens_BP: torch.Tensor,
    mask_BP: torch.Tensor,
    x_BPD: torch.Tensor,
    entering_BPD: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits [batch, position, vocabulary], float32, with another activation at the hook point: only the suffix runs.

    The blocks before the hook point are passed over, so that the cost is the suffix's; masks and position embeddings
    are made by the host's own code, whatever its architecture. Gradients pass to `x_BPD` where they are wanted.

    Args:
        host: The host.
        point: The hook point.
        tokens_BP: Token ids.
        mask_BP: 1 for tokens, 0 for padding.
        x_BPD: The activation.
        entering_BPD: The residual stream that enters the point's block, from `prefix_at`. A point within a block does
            not say what the residual stream beside it holds: without it, the blocks before run after all.
    """
    wants_grad = torch.is_grad_enabled() and x_BPD.requires_grad
    with torch.set_grad_enabled(wants_grad), going_on(host, point, x_BPD, entering_BPD):
        return host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits.float()


@contextmanager
def going_on(
    host: Host, point: HookPoint, x_BPD: torch.Tensor, entering_BPD: torch.Tensor | None = None
) -> Iterator[None]:
    """While the context is open, a run of the host goes on from a hook point, with another activation there.

    Args:
        host: The host.
        point: The hook point.
        x_BPD: The activation, of the batch that will be run.
        entering_BPD: As for `logits_from`.
    """
    within = not point.residual
    first = (point.layer or 0) + (point.site == "resid_post")  # the first block that runs
    known = point.layer is not None and (not within or entering_BPD is not None)
    known = known and (first == 0 or goes_on_from(host, first))
    with ExitStack() as stack:
        stack.enter_context(passed_over(host, first if known else 0))
        if within and known:
            entry = HookPoint(point.layer, "resid_pre")._place(host)
            stack.enter_context(passed_through(entry, lambda _: entering_BPD))  # type: ignore[arg-type]
        stack.enter_context(hooked(host, point, lambda _: x_BPD))
        yield


def before_head(host: Host, head: nn.Module, tokens_BP: torch.Tensor, mask_BP: torch.Tensor) -> torch.Tensor:
    """What the host's head would read, [batch, position, width], in the host's dtype; it does not run.

    Args:
        host: The host, with whatever is hooked.
        head: As `head_of` gives it.
        tokens_BP: Token ids.
        mask_BP: 1 for tokens, 0 for padding.
    """
    found: list[torch.Tensor] = []

    def stop(_module, args):
        found.append(args[0])
        raise _Stop

    handle = head.register_forward_pre_hook(stop)
    try:
        with suppress(_Stop):
            host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False)
    finally:
        handle.remove()
    return found[0]


_HEADS_OF: WeakKeyDictionary[nn.Module, nn.Linear | None] = WeakKeyDictionary()


@torch.no_grad()
def head_of(host: Host) -> nn.Linear | None:
    """The linear layer whose output are the host's logits; None where something comes after it, such as a soft cap.

    Args:
        host: The host; it is tried once, on a few tokens, with its blocks passed over.
    """
    if host.model not in _HEADS_OF:
        _HEADS_OF[host.model] = _tried_head(host)
    return _HEADS_OF[host.model]


def _tried_head(host: Host) -> nn.Linear | None:
    head = host.model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.is_meta:  # quantised or elsewhere: only its own code knows
        return None
    tokens_BP = few_tokens(host)
    mask_BP = torch.ones_like(tokens_BP)
    with passed_over(host, len(host.blocks)):
        logits_BPV = host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits
        read_BPD = before_head(host, head, tokens_BP, mask_BP)
    return head if torch.equal(nn.functional.linear(read_BPD, head.weight, head.bias), logits_BPV) else None


#: Sequences that run together at most; tokens for each thread of a CPU, so that what a layer makes stays in the caches
_TOGETHER, _TOKENS_A_THREAD = 16, 512


def batches(sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> list[list[int]]:
    """Which sequences run together, by their numbers: of about the same length, so that little is padded.

    Args:
        sequences: Token ids.
        device: Where the host runs.
    """
    on_cpu = torch.device(device).type == "cpu"
    most = _TOKENS_A_THREAD * torch.get_num_threads() if on_cpu else float("inf")
    found: list[list[int]] = []
    for number in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        last = found[-1] if found else []
        if not last or len(last) == _TOGETHER or (len(last) + 1) * len(sequences[number]) > most:
            found.append(last := [])
        last.append(number)
    return found


def pad(sequences: list[list[int]], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [batch, longest] padded on the right with 0, and the attention mask of the same shape.

    Args:
        sequences: Token ids.
        device: Where the tensors go.
    """
    longest = max(len(s) for s in sequences)
    tokens_BP = torch.zeros(len(sequences), longest, dtype=torch.long, device=device)
    mask_BP = torch.zeros_like(tokens_BP)
    for row, ids in enumerate(sequences):
        tokens_BP[row, : len(ids)] = torch.tensor(ids)
        mask_BP[row, : len(ids)] = 1
    return tokens_BP, mask_BP
