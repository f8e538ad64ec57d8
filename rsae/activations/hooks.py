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
`model.layers.3.mlp.act_fn` for its output and `model.layers.3.mlp.act_fn:in` for its input.

Gemma 2, Gemma 3 and OLMo 2 normalise what attention and MLP give before they add it: there, as in TransformerLens,
`attn_out` and `mlp_out` are what comes out of those norms. So resid_post = resid_pre + attn_out + mlp_out in all hosts.

This is the one place where the host's dtype ends: what is read is float32, what is put back has the host's own.
Shapes: B batch, P position, D width of the hook point, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from rsae.activations.host import Host
from rsae.support.errors import InputError

Edit = Callable[[torch.Tensor], torch.Tensor]

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
_HEADS = ("q", "k", "v", "z")

#: What the architectures call a block's attention and MLP, and the layers in them
_ATTENTION = ("self_attn", "attn", "attention")
_MLP = ("mlp", "feed_forward")
_PROJECTIONS = {"q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",)}
_OUTPUT = ("o_proj", "c_proj", "dense", "out_proj")
_DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2")
#: Norms on the way from attention and MLP to the residual stream. Llama has a `post_attention_layernorm` too, which
#: stands before its MLP; only the second name tells the two kinds of block apart.
_POST_NORMS = {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}
#: Architectures whose attention and MLP always run beside each other
_PARALLEL = ("gptj", "codegen", "phi", "cohere", "cohere2")


class _Stop(Exception):
    """Raised by a hook to end the forward pass when all is read."""


class _Place(NamedTuple):
    """A module's input or output, or some columns of it."""

    module: nn.Module
    at_input: bool
    column_D: torch.Tensor | None = None


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
        if given is not None and site not in _HEADS:
            raise InputError(f"hook point {name!r}: only attn.hook_q, _k, _v and _z have heads")
        point = cls(int(match[1]), site, given)
        point._place(host)
        return point

    @classmethod
    def _of_module(cls, name: str, host: Host) -> HookPoint:
        modules = dict(host.model.named_modules())
        path = name.removesuffix(":in")
        if not path or path not in modules:
            last = len(host.blocks) - 1
            raise InputError(
                f"hook point {name!r} is not in host {host.name!r}: write blocks.L.POINT with L from 0 to {last} and "
                f"POINT one of {', '.join(POINTS.values())}; or a module's own name, such as {list(modules)[-1]}"
            )
        for layer, block in enumerate(host.blocks):
            if any(modules[path] is m for m in block.modules()):
                return cls(layer, name)
        return cls(None, name)

    @property
    def residual(self) -> bool:
        """Whether it is the residual stream between blocks."""
        return self.site in ("resid_pre", "resid_post")

    def _place(self, host: Host) -> _Place:
        """Where its tensor passes; for `resid_mid`, where what is added to make it passes."""
        if self.site not in POINTS:
            path = self.site.removesuffix(":in")
            return _Place(dict(host.model.named_modules())[path], path != self.site)
        assert self.layer is not None
        block = host.blocks[self.layer]
        if self.residual:
            return _Place(block, self.site == "resid_pre")
        if self.site in ("attn_out", "mlp_out", "resid_mid"):
            if self.site == "resid_mid" and _parallel(host):
                raise InputError(
                    f"hook point {str(self)!r}: attention and MLP of host {host.name!r} run in parallel; there is no "
                    "residual stream between them"
                )
            site = "attn_out" if self.site == "resid_mid" else self.site
            if hasattr(block, _POST_NORMS["mlp_out"]):
                return _Place(self._module(host, block, (_POST_NORMS[site],)), False)
            return _Place(self._module(host, block, _ATTENTION if site == "attn_out" else _MLP), False)
        if self.site == "mlp_in":
            return _Place(self._module(host, block, _MLP), True)
        if self.site == "post":
            return _Place(self._module(host, self._module(host, block, _MLP), _DOWN), True)
        attention = self._module(host, block, _ATTENTION)
        if self.site == "z":
            output = self._module(host, attention, _OUTPUT)
            return _Place(output, True, self._columns(host, None))
        return self._projection(host, attention)

    def _module(self, host: Host, parent: nn.Module, names: Sequence[str]) -> nn.Module:
        for name in names:
            if isinstance(module := getattr(parent, name, None), nn.Module):
                return module
        raise InputError(
            f"hook point {str(self)!r}: the blocks of host {host.name!r} have no module named {' or '.join(names)}; "
            "use hook_resid_pre or hook_resid_post, or a module's own name"
        )

    def _projection(self, host: Host, attention: nn.Module) -> _Place:
        """Queries, keys or values: a projection of their own, or a part of a common one."""
        if isinstance(own := getattr(attention, _PROJECTIONS[self.site][0], None), nn.Module):
            return _Place(own, False, self._columns(host, None))
        third = "qkv".index(self.site)
        heads, width = _heads(host, "q")
        if isinstance(
            fused := getattr(attention, "c_attn", None), nn.Module
        ):  # GPT-2: q, k, v one after the other
            start = third * heads * width
            return _Place(fused, False, self._columns(host, torch.arange(start, start + heads * width)))
        if isinstance(
            fused := getattr(attention, "query_key_value", None), nn.Module
        ):  # GPT-NeoX: head by head
            column_HD = (torch.arange(heads)[:, None] * 3 + third) * width + torch.arange(width)
            return _Place(fused, False, self._columns(host, column_HD.flatten()))
        raise InputError(
            f"hook point {str(self)!r}: the attention of host {host.name!r} has no projection known here; "
            "use hook_z, or a module's own name"
        )

    def _columns(self, host: Host, column_D: torch.Tensor | None) -> torch.Tensor | None:
        """The columns of this point's head."""
        if self.head is None:
            return column_D
        heads, width = _heads(host, self.site)
        if not 0 <= self.head < heads:
            raise InputError(f"hook point {str(self)!r}: host {host.name!r} has heads 0 to {heads - 1} there")
        if column_D is None:
            column_D = torch.arange(heads * width)
        return column_D[self.head * width : (self.head + 1) * width]


def _heads(host: Host, site: str) -> tuple[int, int]:
    """How many heads there are, and the width of each."""
    config = host.model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if site in ("k", "v"):
        heads = getattr(config, "num_key_value_heads", None) or heads
    return heads, width


def _parallel(host: Host) -> bool:
    config = host.model.config.get_text_config()
    return bool(
        getattr(config, "use_parallel_residual", False)
        or getattr(config, "parallel_attn", False)
        or config.model_type in _PARALLEL
    )


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
    mlp, last = point._place(host).module, target._place(host).module

    def run(x_BD: torch.Tensor) -> torch.Tensor:
        y_1BO = mlp(x_BD[None].to(next(mlp.parameters()).dtype))  # experts ask for [batch, position, width]
        y_1BO = y_1BO[0] if isinstance(y_1BO, tuple) else y_1BO
        return (y_1BO if last is mlp else last(y_1BO))[0].float()

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
        seen = x.float()
        new = act(seen)
        if new is seen:
            return full
        new = new.to(full.dtype)
        return new if column_D is None else full.index_copy(-1, column_D, new)

    with _passed_through(place, edit):
        yield


@contextmanager
def _passed_through(place: _Place, edit: Edit) -> Iterator[None]:
    def pre(_module, args, kwargs):
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

    def post(_module, _args, output):
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    handle = (
        place.module.register_forward_pre_hook(pre, with_kwargs=True)
        if place.at_input
        else place.module.register_forward_hook(post)
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _hooked_between(host: Host, point: HookPoint, act: Edit) -> Iterator[None]:
    """The residual stream after the attention: edited through what the attention adds."""
    entering: list[torch.Tensor] = []

    def keep(full: torch.Tensor) -> torch.Tensor:
        entering[:] = [full]
        return full

    def edit(added: torch.Tensor) -> torch.Tensor:
        between = entering[0] + added
        seen = between.float()
        new = act(seen)
        return added if new is seen else new.to(added.dtype) - entering[0]

    assert point.layer is not None
    with (
        _passed_through(HookPoint(point.layer, "resid_pre")._place(host), keep),
        _passed_through(point._place(host), edit),
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
                stack.enter_context(_passed_through(place, keeping(number)))
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
    known = point.layer is not None and (not within or entering_BPD is not None)
    first = (point.layer or 0) + (point.site == "resid_post")  # the first block that runs
    with ExitStack() as stack:
        stack.enter_context(_passed_over(host.blocks[: first if known else 0]))
        if within and known:
            entry = HookPoint(point.layer, "resid_pre")._place(host)
            stack.enter_context(_passed_through(entry, lambda _: entering_BPD))  # type: ignore[arg-type]
        stack.enter_context(hooked(host, point, lambda _: x_BPD))
        yield


@contextmanager
def _passed_over(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Blocks give what they get, while the context is open."""
    forwards = [(block, block.forward) for block in blocks]
    for block, _ in forwards:
        block.forward = _pass_through
    try:
        yield
    finally:
        for block, forward in forwards:
            block.forward = forward


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
    tokens_BP = torch.arange(4, device=host.device)[None] % host.model.config.get_text_config().vocab_size
    mask_BP = torch.ones_like(tokens_BP)
    with _passed_over(host.blocks):
        logits_BPV = host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits
        read_BPD = before_head(host, head, tokens_BP, mask_BP)
    return head if torch.equal(nn.functional.linear(read_BPD, head.weight, head.bias), logits_BPV) else None


def _pass_through(hidden_states, *_args, **_kwargs):
    return hidden_states


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
