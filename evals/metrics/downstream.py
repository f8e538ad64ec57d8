"""What the host loses when the reconstruction takes the activation's place.

Shapes: B batch, P position, D dimensions, N counted predictions, V vocabulary,
S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Literal, NamedTuple, overload

import torch
from tqdm import tqdm

from evals.metrics.codes import Encode, Place, place_of, readings
from evals.metrics.losses import Bounds, Clean, Measured, Sums, against
from evals.results import Downstream
from rsae import SAE, Host
from rsae.activations.hooks import (
    Edit,
    HookPoint,
    Prefix,
    activations_at_all,
    going_on,
    hooked,
    pad,
    prefixes_at,
)
from rsae.activations.splicing import Logits, counted, counted_logits, replaceable
from rsae.support.errors import InputError
from rsae.support.progress import progress

Reconstruct = Callable[[torch.Tensor], torch.Tensor]
Precision = Literal["float32", "bfloat16"]


@overload
def downstream(
    sae: SAE,
    host: Host,
    tokens: list[list[int]] | torch.Tensor,
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
    precision: Precision = "float32",
    bounds: Bounds | None = None,
) -> Downstream:
    """One SAE: `sae`, `host`, `tokens`, `hook`, `norm_limit`, `batch`, `allow_mismatch`, `exclude_tokens`, `precision`
    and `bounds` as below."""
    ...


@overload
def downstream(
    sae: Mapping[str, SAE],
    host: Host,
    tokens: list[list[int]] | torch.Tensor,
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
    precision: Precision = "float32",
    bounds: Bounds | None = None,
) -> dict[str, Downstream]:
    """Several: `sae`, `host`, `tokens`, `hook`, `norm_limit`, `batch`, `allow_mismatch`, `exclude_tokens`, `precision`
    and `bounds` as below."""
    ...


@overload
def downstream(
    sae: Sequence[SAE],
    host: Host,
    tokens: list[list[int]] | torch.Tensor,
    hook: None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
    precision: Precision = "float32",
) -> Downstream:
    """Several at once: `sae`, `host`, `tokens`, `hook`, `norm_limit`, `batch`, `allow_mismatch`, `exclude_tokens` and
    `precision` as below."""
    ...


def downstream(
    sae: SAE | Mapping[str, SAE] | Sequence[SAE],
    host: Host,
    tokens: list[list[int]] | torch.Tensor,
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
    precision: Precision = "float32",
    bounds: Bounds | None = None,
) -> Downstream | dict[str, Downstream]:
    """CE, KL and top-1 agreement of a host with the reconstruction spliced in.

    A transcoder's prediction takes the place of its target; zeros and the mean are then the target's.
    The host's prefix runs twice a batch (first for the mean activation), the suffix once for the clean activation, for
    zeros, for the mean and for each code of each SAE; with `bounds` the prefix runs once, and nothing for zeros and the
    mean.
    A list of SAEs is spliced in all at once, each at its own hook point, such as a transcoder for each layer's MLP.
    Each reads what the host computes with those before it in place. Zeros and means are then in all places at once.

    Args:
        sae: An SAE; or several by name, which share the host's runs; or a list, which is spliced in at once.
        host: The model.
        tokens: Sequences of token ids, each of three tokens at least; a tensor [S, T] where all are of one length.
        hook: Hook point; by default the one that the (first) SAE was trained at. Of a list each has its own.
        norm_limit: Activations with a larger norm are left alone, as they were left out of training; by default the
            (first) SAE's, of a list each its own. It is the clean host's activation that counts.
        batch: Sequences at a time; the result does not depend on it.
        allow_mismatch: Accept an SAE of another model or hook point.
        exclude_tokens: Tokens, by id or by text, whose activations are left alone and whose predictions do not count;
            by default the (first) SAE's: those that were left out of its training.
        precision: In which the host runs from the hook point on; its float32 predictions are made once beside it.
        bounds: What `bounds_of` gave for SAEs of the same place with the same settings; by default it is made here.

    Returns:
        Means over predictions, in nats, with bootstrap intervals over sequences; for several SAEs by name.

    Raises:
        InputError: for too short a sequence, an unknown hook point, an SAE of another model or hook point, or a norm
            limit that leaves nothing to splice.
    """
    tokens = tokens.tolist() if isinstance(tokens, torch.Tensor) else tokens
    if isinstance(sae, SAE):
        rest = (hook, norm_limit, batch, allow_mismatch, exclude_tokens, precision, bounds)
        return downstream({"sae": sae}, host, tokens, *rest)["sae"]
    if not tokens or min(map(len, tokens)) < 3:
        raise InputError("downstream: every sequence needs three tokens at least (position 0 is not counted)")
    vocabulary = host.model.config.get_text_config().vocab_size
    if not 0 <= min(map(min, tokens)) <= max(map(max, tokens)) < vocabulary:
        raise InputError(
            f"downstream: token ids of host {host.name!r} lie from 0 to {vocabulary - 1}; is it another's?"
        )
    if not isinstance(sae, Mapping):
        if hook is not None:
            raise InputError(
                "downstream: each of several SAEs at once has its own hook point; leave `hook` out"
            )
        parts = _parts(sae, host, norm_limit, allow_mismatch, exclude_tokens)
        return _at_once(parts, host, tokens, batch, precision)
    at = _Splices.of(sae, host, hook, norm_limit, allow_mismatch, exclude_tokens, precision)
    by_reading = {
        name: {reading: (Sums(), _through(one, encode)) for reading, encode in readings(one).items()}
        for name, one in sae.items()
    }
    pairs = [pair for one in by_reading.values() for pair in one.values()]
    with progress(sum(map(len, tokens)), f"downstream loss of {len(sae)} SAEs", "tok") as bar:
        bounds = at.run(tokens, batch, pairs, bar, bounds)
    return {
        name: bounds.record({r: sums for r, (sums, _) in of.items()}, at.place.exclude_tokens, precision)
        for name, of in by_reading.items()
    }


def bounds_of(
    sae: SAE,
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
    precision: Precision = "float32",
) -> Bounds:
    """What the host gives without an SAE: as it is, with zeros and with means in the place. It is the same for all SAEs
    of a place.

    Args:
        sae: One of them; only what it says of its place is used.
        host: The model.
        tokens: As for `downstream`, and so are all that follow.
        hook: See there.
        norm_limit: See there.
        batch: See there.
        allow_mismatch: See there.
        exclude_tokens: See there.
        precision: See there.
    """
    at = _Splices.of({"": sae}, host, hook, norm_limit, allow_mismatch, exclude_tokens, precision)
    with progress(sum(map(len, tokens)), "downstream loss without an SAE", "tok") as bar:
        return at.run(tokens, batch, [], bar, None)


class _Splices(NamedTuple):
    """A place in the host where reconstructions are put."""

    host: Host
    place: Place
    target: HookPoint
    target_limit: float
    precision: Precision

    @classmethod
    def of(
        cls,
        saes: Mapping[str, SAE],
        host: Host,
        hook: str | None,
        norm_limit: float | None,
        allow_mismatch: bool,
        exclude_tokens: Sequence[int | str] | None,
        precision: Precision,
    ) -> _Splices:
        """That of SAEs that have it in common."""
        first = next(iter(saes.values()))
        place = place_of(first, host, hook, norm_limit, allow_mismatch, exclude_tokens)
        for one in saes.values():
            place_of(one, host, str(place.point), place.norm_limit, allow_mismatch)
            if one.transcodes != first.transcodes or one.provenance.target != first.provenance.target:
                raise InputError("downstream: SAEs that are measured together predict the same hook point")
        return cls(host, place, *target_of(first, place.point, host), precision)

    @torch.no_grad()
    def run(
        self,
        tokens: list[list[int]],
        batch: int,
        pairs: Sequence[tuple[Sums, Reconstruct | None]],
        bar: tqdm,
        bounds: Bounds | None,
    ) -> Bounds:
        """Add to each pair's sums what its reconstruction costs; the bounds, made where they are not given."""
        host, place, target, target_limit, precision = self
        order = sorted(tokens, key=len)  # little padding in a batch
        chunks = [order[start : start + batch] for start in range(0, len(order), batch)]
        made = None
        if bounds is None:
            mean_O = _mean(host, place, target, target_limit, chunks)
            made = bounds = Bounds(Sums(), Sums(), Sums(), None if precision == "float32" else Sums())
            pairs = [(made.zero, None), (made.mean, _constant(mean_O)), *pairs]
        for chosen in chunks:
            tokens_BP, mask_BP = pad(chosen, host.device)
            read, *others = prefixes_at(host, _both(place.point, target), tokens_BP, mask_BP)
            prefix = others[0] if others else read
            kept_BP = place.kept(tokens_BP, mask_BP)
            movable_BP = kept_BP & (prefix.x_BPD.norm(dim=-1) <= target_limit)
            run = _Suffix(host, target, tokens_BP, mask_BP, prefix, counted(mask_BP, kept_BP))
            near = run.predictions(prefix.x_BPD, precision)
            reference = Clean.of(near)
            if made is not None:
                made.clean.add(reference.measured(run))
                if made.rounded is not None:
                    made.rounded.add(against(run, Clean.of(run.predictions(prefix.x_BPD)), near))
            measured: list[tuple[torch.Tensor, Measured]] = []
            for sums, reconstruct in pairs:
                spliced_BPD = splice(reconstruct, read.x_BPD, movable_BP, place.norm_limit, prefix.x_BPD)
                # a start is often its teacher bit for bit, and the host's run is what costs
                figures = next((had for x_BPD, had in measured if torch.equal(x_BPD, spliced_BPD)), None)
                if figures is None:
                    figures = against(run, reference, run.predictions(spliced_BPD, precision))
                    measured.append((spliced_BPD, figures))
                sums.add(figures)
            bar.update(sum(map(len, chosen)))
        return bounds


def target_of(sae: SAE, point: HookPoint, host: Host) -> tuple[HookPoint, float]:
    """What is replaced, and the norm above which it is left alone.

    Args:
        sae: The SAE.
        point: Where it reads.
        host: The model.
    """
    if not sae.transcodes:
        return point, float("inf")
    limit = sae.provenance.target_norm_limit
    target = HookPoint.parse(sae.provenance.known("target", "measuring a transcoder"), host)
    return target, float("inf") if limit is None else limit


# --- several at once -------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """One of several SAEs that are spliced in at once."""

    sae: SAE
    place: Place
    target: HookPoint
    target_limit: float


class _Whole(NamedTuple):
    """The host with all of them in place, for a batch."""

    host: Host
    parts: list[_Part]
    tokens_BP: torch.Tensor
    mask_BP: torch.Tensor
    counted_BP: torch.Tensor
    replaced: list[torch.Tensor]  # of each part: True where its target is replaced, [batch, position]

    @torch.no_grad()
    def predictions(
        self, reconstructs: Sequence[Reconstruct | None], precision: Precision = "float32"
    ) -> Logits:
        """Logits with what each of `reconstructs` gives in its part's place (zeros for None); none for the clean
        host."""
        with ExitStack() as stack:
            for part, replaced_BP, reconstruct in zip(self.parts, self.replaced, reconstructs, strict=False):
                read, put = _edits(part, replaced_BP, reconstruct)
                if part.sae.transcodes:
                    stack.enter_context(hooked(self.host, part.place.point, read))
                stack.enter_context(hooked(self.host, part.target, put))
            stack.enter_context(
                torch.autocast(self.host.device.type, torch.bfloat16, enabled=precision == "bfloat16")
            )
            return counted_logits(self.host, self.tokens_BP, self.mask_BP, self.counted_BP)


def _edits(part: _Part, replaced_BP: torch.Tensor, reconstruct: Reconstruct | None) -> tuple[Edit, Edit]:
    """What happens where a part reads, and at its target."""
    seen: list[torch.Tensor] = []

    def read(x_BPD: torch.Tensor) -> torch.Tensor:
        seen[:] = [x_BPD]
        return x_BPD

    def put(y_BPO: torch.Tensor) -> torch.Tensor:
        if part.sae.transcodes and not seen:
            raise InputError(
                f"downstream: the host computes {part.target} before {part.place.point}; at once with others a "
                "prediction can only replace what comes later"
            )
        x_BPD = seen.pop() if part.sae.transcodes else y_BPO
        out_BPO = y_BPO.clone()
        with torch.autocast(y_BPO.device.type, enabled=False):  # it is the host that may be rounded
            out_BPO[replaced_BP] = 0.0 if reconstruct is None else reconstruct(x_BPD[replaced_BP]).to(y_BPO)
        return out_BPO

    return read, put


def _parts(
    saes: Sequence[SAE],
    host: Host,
    norm_limit: float | None,
    allow_mismatch: bool,
    exclude_tokens: Sequence[int | str] | None,
) -> list[_Part]:
    """Where each of several SAEs reads and what it replaces."""
    parts: list[_Part] = []
    for sae in saes:
        place = place_of(sae, host, None, norm_limit, allow_mismatch, exclude_tokens)
        target, limit = target_of(sae, place.point, host)
        if any(target == other.target for other in parts):
            raise InputError(
                f"downstream: two of the SAEs take the place of {target}; give one for each hook point"
            )
        parts.append(_Part(sae, place, target, limit))
    if not parts:
        raise InputError("downstream: give an SAE at least")
    return parts


@torch.no_grad()
def _whole(parts: list[_Part], host: Host, chosen: list[list[int]]) -> tuple[_Whole, list[torch.Tensor]]:
    """A batch, with what is replaced in it (by the clean host's activations), and the clean targets."""
    tokens_BP, mask_BP = pad(chosen, host.device)
    points = [point for part in parts for point in (part.place.point, part.target)]
    found = activations_at_all(host, points, tokens_BP, mask_BP)
    replaced, counted_BP = [], mask_BP.bool()
    for part, x_BPD, y_BPO in zip(parts, found[::2], found[1::2], strict=True):
        kept_BP = part.place.kept(tokens_BP, mask_BP)
        counted_BP = counted_BP & kept_BP
        movable_BP = kept_BP & (y_BPO.norm(dim=-1) <= part.target_limit)
        replaced.append(replaceable(x_BPD, movable_BP, part.place.norm_limit))
    run = _Whole(host, parts, tokens_BP, mask_BP, counted(mask_BP, counted_BP), replaced)
    return run, found[1::2]


def _constant(mean_O: torch.Tensor) -> Reconstruct:
    return lambda _: mean_O


def _at_once(
    parts: list[_Part], host: Host, tokens: list[list[int]], batch: int, precision: Precision
) -> Downstream:
    order = sorted(tokens, key=len)
    sums = [torch.zeros(part.sae.d_out, dtype=torch.float64) for part in parts]
    count = [0] * len(parts)
    zero, mean, clean, rounded, ours = (Sums() for _ in range(5))
    with progress(2 * sum(map(len, tokens)), f"downstream loss of {len(parts)} SAEs at once", "tok") as bar:
        runs = []
        for start in range(0, len(order), batch):
            run, targets = _whole(parts, host, order[start : start + batch])
            for number, (y_BPO, replaced_BP) in enumerate(zip(targets, run.replaced, strict=True)):
                sums[number] += y_BPO[replaced_BP].double().sum(0).cpu()
                count[number] += int(replaced_BP.sum())
            runs.append(run)
            bar.update(int(run.mask_BP.sum()))
        means = [total_O / max(1, n) for total_O, n in zip(sums, count, strict=True)]
        for run in runs:
            exact = reference = Clean.of(run.predictions([]))
            if precision != "float32":
                near = run.predictions([], precision)
                reference = Clean.of(near)
                rounded.add(against(run, exact, near))
            clean.add(reference.measured(run))
            for into, reconstructs in (
                (zero, [None for _ in parts]),
                (mean, [_constant(mean_O) for mean_O in means]),
                (ours, [_through(part.sae, part.sae.encode) for part in parts]),
            ):
                into.add(against(run, reference, run.predictions(reconstructs, precision)))
            bar.update(int(run.mask_BP.sum()))
    excluded = sorted({token for part in parts for token in part.place.exclude_tokens})
    bounds = Bounds(clean, zero, mean, None if precision == "float32" else rounded)
    return bounds.record({"": ours}, excluded, precision)


def _both(point: HookPoint, target: HookPoint) -> list[HookPoint]:
    """Where the SAE reads, and where it predicts if that is elsewhere."""
    return [point] if target == point else [point, target]


@torch.no_grad()
def _mean(
    host: Host, place: Place, target: HookPoint, target_limit: float, chunks: list[list[list[int]]]
) -> torch.Tensor:
    """The mean of the activations that are replaced, [O]."""
    total_O, count = torch.zeros(()), 0
    for chosen in chunks:
        tokens_BP, mask_BP = pad(chosen, host.device)
        x_BPD, *others = activations_at_all(host, _both(place.point, target), tokens_BP, mask_BP)
        y_BPO = others[0] if others else x_BPD
        movable_BP = place.kept(tokens_BP, mask_BP) & (y_BPO.norm(dim=-1) <= target_limit)
        y_NO = y_BPO[replaceable(x_BPD, movable_BP, place.norm_limit)]
        total_O, count = total_O + y_NO.double().sum(0).cpu(), count + len(y_NO)
    return (total_O / max(1, count)).float().to(host.device)


class _Suffix(NamedTuple):
    """The host from the hook point on, for a batch."""

    host: Host
    point: HookPoint
    tokens_BP: torch.Tensor
    mask_BP: torch.Tensor
    prefix: Prefix
    counted_BP: torch.Tensor

    def predictions(self, x_BPD: torch.Tensor, precision: Precision = "float32") -> Logits:
        """Logits of the counted predictions with another activation."""
        with (
            torch.autocast(self.host.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
            going_on(self.host, self.point, x_BPD, self.prefix.entering_BPD),
        ):
            return counted_logits(self.host, self.tokens_BP, self.mask_BP, self.counted_BP)


def _through(sae: SAE, encode: Encode) -> Reconstruct:
    return lambda x_BD: sae.decode(encode(x_BD), x_BD)


@torch.no_grad()
def splice(
    sae: Reconstruct | None,
    x_BPD: torch.Tensor,
    kept_BP: torch.Tensor,
    norm_limit: float,
    y_BPO: torch.Tensor | None = None,
) -> torch.Tensor:
    """The activation with the reconstruction in its place, but at the first position, padding and outlying norms.

    Args:
        sae: Activations x_BD to reconstructions; None for zeros.
        x_BPD: Activations at the hook point.
        kept_BP: 1 for tokens that may be replaced, 0 for padding and excluded tokens.
        norm_limit: Activations with a larger norm stay.
        y_BPO: What is replaced, if that is not x_BPD: a transcoder's target.

    Returns:
        The activation to go on with.
    """
    replaced_BP = replaceable(x_BPD, kept_BP, norm_limit)
    out_BPO = (x_BPD if y_BPO is None else y_BPO).clone()
    out_BPO[replaced_BP] = 0.0 if sae is None else sae(x_BPD[replaced_BP]).to(out_BPO)
    return out_BPO
