"""FVU and the host's loss point by point, of crosscoders and cross-layer transcoders.

Shapes: B batch, P position, N counted predictions or replaced tokens, D d_in, O width of a point, V vocabulary.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch

from evals.metrics.losses import Bounds, Clean, Sums, against
from evals.metrics.reconstruction import read_and_predicted
from evals.results import Downstream
from rsae import SAE, Activations, Host, InputError, Provenance
from rsae.activations.hooks import HookPoint, activations_at_all, hooked, pad
from rsae.activations.protocol import check_fits
from rsae.activations.splicing import Logits, counted, counted_logits, replaceable
from rsae.provenance import check_match
from rsae.sae.layout import Layout
from rsae.support.progress import progress

#: The place that is all points together
TOGETHER = "all at once"


@torch.no_grad()
def by_point(
    sae: SAE, activations: Activations, split: str = "heldout", rows: int = 4096, allow_mismatch: bool = False
) -> dict[str, float]:
    """The fraction of variance unexplained at each hook point that an SAE gives.

    Args:
        sae: A crosscoder or cross-layer transcoder.
        activations: Joined activations (`rsae.join`).
        split: `heldout` or `train`.
        rows: Tokens at a time.
        allow_mismatch: Accept an SAE of another model or hook points.

    Returns:
        By point, in the order of what is given.

    Raises:
        InputError: It is an SAE of one hook point, or does not fit.
    """
    layout = sae.layout
    if layout is None:
        raise InputError("by_point: the SAE is one of a single hook point; evals.reconstruction measures it")
    check_fits(sae, activations, allow_mismatch)
    error, square, tokens = (dict.fromkeys([p.name for p in layout.writes], 0.0) for _ in range(3))
    total = {p.name: torch.zeros(p.width, dtype=torch.float64) for p in layout.writes}
    for x_BD, y_BO in read_and_predicted(sae, activations, split, rows):
        given = layout.written(sae(x_BD.to(sae.W_enc.device)).double().cpu())
        for name, wanted_BO in layout.written(y_BO.double()).items():
            error[name] += (given[name] - wanted_BO).square().sum().item()
            square[name] += wanted_BO.square().sum().item()
            total[name] += wanted_BO.sum(0)
            tokens[name] += len(wanted_BO)
    return {
        name: error[name] / (square[name] - (total[name].square().sum() / tokens[name]).item())
        for name in error
    }


class _Batch(NamedTuple):
    """A batch of the host, with what is replaced in it."""

    host: Host
    tokens_BP: torch.Tensor
    mask_BP: torch.Tensor
    counted_BP: torch.Tensor
    replaced_BP: torch.Tensor

    def predictions(self, instead: dict[HookPoint, torch.Tensor | float]) -> Logits:
        """Logits with other activations [N, O] at some points; none for the clean host."""
        with ExitStack() as stack:
            for point, new_NO in instead.items():
                stack.enter_context(hooked(self.host, point, partial(_put, self.replaced_BP, new_NO)))
            return counted_logits(self.host, self.tokens_BP, self.mask_BP, self.counted_BP)


def _put(replaced_BP: torch.Tensor, new_NO: torch.Tensor | float, y_BPO: torch.Tensor) -> torch.Tensor:
    out_BPO = y_BPO.clone()
    out_BPO[replaced_BP] = new_NO.to(y_BPO) if isinstance(new_NO, torch.Tensor) else new_NO
    return out_BPO


@torch.no_grad()
def downstream_by_point(
    sae: SAE, host: Host, tokens: list[list[int]], batch: int = 8, allow_mismatch: bool = False
) -> dict[str, Downstream]:
    """What a host loses with a crosscoder's reconstruction in place, at each hook point alone and at all at once.

    The code is that of the clean host's activations at all points that are read: a crosscoder needs those of later
    layers for what it gives at earlier ones. So at once, too, each point gets what the clean host's code says; what an
    earlier replacement does to the host's own later activation is overwritten. Zeros and means, against which loss
    recovered is told, stand in the same places. The same tokens are replaced everywhere: not position 0, nor those
    whose norm at any point is beyond what training saw.

    Args:
        sae: A crosscoder or cross-layer transcoder, whose points have the host's names of hook points.
        host: The model.
        tokens: Sequences of token ids, each of three tokens at least.
        batch: Sequences at a time; the result does not depend on it.
        allow_mismatch: Accept an SAE of another model.

    Returns:
        By point, and `all at once` first.

    Raises:
        InputError: It is an SAE of one hook point, of another host, or its points are none of the host's.
    """
    layout = sae.layout
    if layout is None:
        raise InputError(
            "downstream_by_point: the SAE is one of a single hook point; evals.downstream measures it"
        )
    if not tokens or min(map(len, tokens)) < 3:
        raise InputError(
            "downstream_by_point: every sequence needs three tokens at least (position 0 is not counted)"
        )
    check_match(
        Provenance(model=sae.provenance.model),
        Provenance(model=host.name),
        "the SAE",
        f"host {host.name}",
        allow_mismatch,
    )
    reads, writes = (
        [HookPoint.parse(p.name, host) for p in points] for points in (layout.reads, layout.writes)
    )
    order = sorted(tokens, key=len)
    chunks = [order[start : start + batch] for start in range(0, len(order), batch)]
    total, count = {point: torch.zeros((), dtype=torch.float64) for point in writes}, 0
    places = {TOGETHER: writes} | {str(point): [point] for point in writes}
    zero, mean, ours = ({place: Sums() for place in places} for _ in range(3))
    clean = Sums()
    with progress(2 * sum(map(len, tokens)), f"downstream loss at {len(writes)} points", "tok") as bar:
        for chosen in chunks:
            run, found = _read(sae, layout, host, reads, writes, chosen)
            total = {
                point: total[point] + found[point][run.replaced_BP].double().sum(0).cpu() for point in writes
            }
            count += int(run.replaced_BP.sum())
            bar.update(sum(map(len, chosen)))
        means: dict[HookPoint, torch.Tensor] = {
            point: sum_O / max(1, count) for point, sum_O in total.items()
        }
        for chosen in chunks:
            run, found = _read(sae, layout, host, reads, writes, chosen)
            given = _given(
                sae, layout, reads, writes, {p: x_BPD[run.replaced_BP] for p, x_BPD in found.items()}
            )
            reference = Clean.of(run.predictions({}))
            clean.add(reference.measured(run))
            for place, points in places.items():
                zero[place].add(against(run, reference, run.predictions(dict.fromkeys(points, 0.0))))
                for sums, new in ((mean, means), (ours, given)):
                    now = run.predictions({point: new[point] for point in points})
                    sums[place].add(against(run, reference, now))
            bar.update(sum(map(len, chosen)))
    return {
        place: Bounds(clean, zero[place], mean[place], None).record(
            {"": ours[place]}, sae.provenance.exclude_tokens or ()
        )
        for place in places
    }


def _read(
    sae: SAE,
    layout: Layout,
    host: Host,
    reads: list[HookPoint],
    writes: list[HookPoint],
    chosen: list[list[int]],
) -> tuple[_Batch, dict[HookPoint, torch.Tensor]]:
    """A batch, and the clean host's activations by point."""
    tokens_BP, mask_BP = pad(chosen, host.device)
    points = [*dict.fromkeys([*reads, *writes])]
    found = dict(zip(points, activations_at_all(host, points, tokens_BP, mask_BP), strict=True))
    left_out = torch.tensor(sae.provenance.exclude_tokens or ()).to(tokens_BP)
    kept_BP = replaced_BP = mask_BP.bool() & ~torch.isin(tokens_BP, left_out)
    for point, told in zip([*reads, *writes], [*layout.reads, *layout.writes], strict=True):
        limit = float("inf") if told.norm_limit is None else told.norm_limit
        replaced_BP = replaceable(found[point], replaced_BP, limit)
    return _Batch(host, tokens_BP, mask_BP, counted(mask_BP, kept_BP), replaced_BP), found


def _given(
    sae: SAE,
    layout: Layout,
    reads: list[HookPoint],
    writes: list[HookPoint],
    at: dict[HookPoint, torch.Tensor],
) -> dict[HookPoint, torch.Tensor]:
    """What the SAE gives by point, from the activations [N, O] at the points."""
    x_ND = layout.read({p.name: at[point] for p, point in zip(layout.reads, reads, strict=True)})
    given = layout.written(sae(x_ND.to(sae.W_enc)).to(x_ND))
    return {point: given[p.name] for p, point in zip(layout.writes, writes, strict=True)}
