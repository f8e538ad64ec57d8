"""What the host loses when the reconstruction takes the activation's place.

Shapes: B batch, P position, D dimensions, N counted predictions, V vocabulary,
S sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

import torch

from evals.metrics.codes import Encode, place_of, readings
from evals.results import BySequence, Downstream, Interval, Spliced
from evals.stats import ratio_interval
from rsae import SAE, Host
from rsae.activations.hooks import HookPoint, Prefix, logits_from, pad, prefix_at
from rsae.support.errors import InputError
from rsae.support.progress import progress

Reconstruct = Callable[[torch.Tensor], torch.Tensor]


def positions(exclude_tokens: Sequence[int] = ()) -> str:
    """Recorded with every result: where the activation is replaced, and which predictions count.

    Args:
        exclude_tokens: Ids of the tokens that are left alone.
    """
    told = (
        "position 0 and tokens above the norm limit keep their activation; the predictions made at position 0 and at "
        "padding are not counted"
    )
    if not exclude_tokens:
        return told
    return f"{told}; neither are those made at the tokens {', '.join(map(str, exclude_tokens))}, which keep theirs"


@overload
def downstream(
    sae: SAE,
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
) -> Downstream:
    """One SAE: `sae`, `host`, `tokens`, `hook`, `norm_limit`, `batch`, `allow_mismatch`, `exclude_tokens` as below."""
    ...


@overload
def downstream(
    sae: Mapping[str, SAE],
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
) -> dict[str, Downstream]:
    """Several: `sae`, `host`, `tokens`, `hook`, `norm_limit`, `batch`, `allow_mismatch`, `exclude_tokens` as below."""
    ...


def downstream(
    sae: SAE | Mapping[str, SAE],
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
) -> Downstream | dict[str, Downstream]:
    """CE, KL and top-1 agreement of a host with the reconstruction spliced in.

    The host's prefix runs once a batch, the suffix once for the clean activation, once for zeros and once for each
    code of each SAE.

    Args:
        sae: An SAE, or several by name, which share the host's runs.
        host: The model.
        tokens: Sequences of token ids, each of three tokens at least.
        hook: Hook point; by default the one that the (first) SAE was trained at.
        norm_limit: Activations with a larger norm are left alone, as they were left out of training; by default the
            (first) SAE's.
        batch: Sequences at a time; the result does not depend on it.
        allow_mismatch: Accept an SAE of another model or hook point.
        exclude_tokens: Tokens, by id or by text, whose activations are left alone and whose predictions do not count;
            by default the (first) SAE's: those that were left out of its training.

    Returns:
        Means over predictions, in nats, with bootstrap intervals over sequences; for several SAEs by name.

    Raises:
        InputError: for too short a sequence, an unknown hook point, an SAE of another model or hook point, or a norm
            limit that leaves nothing to splice.
    """
    if isinstance(sae, SAE):
        rest = (hook, norm_limit, batch, allow_mismatch, exclude_tokens)
        return downstream({"sae": sae}, host, tokens, *rest)["sae"]
    if not tokens or min(map(len, tokens)) < 3:
        raise InputError("downstream: every sequence needs three tokens at least (position 0 is not counted)")
    first = next(iter(sae.values()))
    place = place_of(first, host, hook, norm_limit, allow_mismatch, exclude_tokens)
    point, limit = place.point, place.norm_limit
    for one in sae.values():
        place_of(one, host, str(point), limit, allow_mismatch)
    zero = _Sums(None)
    by_reading = {
        name: {reading: _Sums(_through(one, encode)) for reading, encode in readings(one).items()}
        for name, one in sae.items()
    }
    every = [zero, *(sums for one in by_reading.values() for sums in one.values())]
    order = sorted(tokens, key=len)  # little padding in a batch
    clean = _Sums(None)
    with progress(sum(map(len, tokens)), f"downstream loss of {len(sae)} SAEs", "tok") as bar:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens_BP, mask_BP = pad(chosen, host.device)
            prefix = prefix_at(host, point, tokens_BP, mask_BP)
            kept_BP = place.kept(tokens_BP, mask_BP)
            counted_BP = counted(mask_BP, kept_BP)
            target_N1 = tokens_BP[:, 1:][counted_BP][:, None]
            clean_NV = predictions(host, point, tokens_BP, mask_BP, prefix, counted_BP)
            row_N = counted_BP.nonzero()[:, 0]
            clean.add(clean_NV, clean_NV, target_N1, row_N, len(chosen))
            for sums in every:
                spliced_BPD = splice(sums.reconstruct, prefix.x_BPD, kept_BP, limit)
                spliced = prefix._replace(x_BPD=spliced_BPD)
                now_NV = predictions(host, point, tokens_BP, mask_BP, spliced, counted_BP)
                sums.add(clean_NV, now_NV, target_N1, row_N, len(chosen))
            bar.update(sum(map(len, chosen)))
    if zero.ce == clean.ce:
        raise InputError(
            f"downstream: zeros at {point} change nothing, so no token is spliced; raise norm_limit, or exclude fewer "
            "tokens"
        )
    return {
        name: Downstream(
            **vars(sums[""].figures(clean, zero)),
            ce_clean=clean.ce / clean.count,
            ce_zero=zero.ce / zero.count,
            kl_zero=zero.kl / zero.count,
            predictions=clean.count,
            positions=positions(place.exclude_tokens),
            others={reading: one.figures(clean, zero) for reading, one in sums.items() if reading},
        )
        for name, sums in by_reading.items()
    }


class _Sums:
    """What is summed over the predictions of each sequence, for one reconstruction (zeros for None)."""

    def __init__(self, reconstruct: Reconstruct | None):
        self.reconstruct = reconstruct
        self.ce_S: list[float] = []
        self.kl_S: list[float] = []
        self.count_S: list[int] = []
        self.agreed = 0

    def add(
        self,
        clean_NV: torch.Tensor,
        now_NV: torch.Tensor,
        target_N1: torch.Tensor,
        row_N: torch.Tensor,
        rows: int,
    ) -> None:
        """Predictions of a batch of `rows` sequences, as log p of the clean and the spliced host."""
        ce_N = -now_NV.gather(1, target_N1)[:, 0].double()
        kl_N = (clean_NV.exp() * (clean_NV - now_NV)).sum(-1).double()
        zero_B = torch.zeros(rows, dtype=torch.float64, device=row_N.device)
        self.ce_S += zero_B.index_add(0, row_N, ce_N).tolist()
        self.kl_S += zero_B.index_add(0, row_N, kl_N).tolist()
        self.count_S += torch.bincount(row_N, minlength=rows).tolist()
        self.agreed += int((now_NV.argmax(-1) == clean_NV.argmax(-1)).sum())

    @property
    def ce(self) -> float:
        return sum(self.ce_S)

    @property
    def kl(self) -> float:
        return sum(self.kl_S)

    @property
    def count(self) -> int:
        return sum(self.count_S)

    def figures(self, clean: _Sums, zero: _Sums) -> Spliced:
        """Means over predictions, and their intervals."""
        dce_S = [now - then for now, then in zip(self.ce_S, clean.ce_S, strict=True)]
        ce, ce_clean, ce_zero = (one.ce / clean.count for one in (self, clean, zero))
        return Spliced(
            kl=self.kl / clean.count,
            kl_interval=Interval(*ratio_interval(self.kl_S, self.count_S)),
            ce=ce,
            dce=ce - ce_clean,
            dce_interval=Interval(*ratio_interval(dce_S, self.count_S)),
            loss_recovered=(ce_zero - ce) / (ce_zero - ce_clean),
            top1=self.agreed / clean.count,
            sequences=BySequence(tuple(self.count_S), tuple(dce_S), tuple(self.kl_S)),
        )


def _through(sae: SAE, encode: Encode) -> Reconstruct:
    return lambda x_BD: sae.decode(encode(x_BD), x_BD)


def counted(mask_BP: torch.Tensor, kept_BP: torch.Tensor) -> torch.Tensor:
    """Which predictions (of token p + 1, made at p) are measured: [batch, position - 1], none made at position 0.

    Args:
        mask_BP: 1 for tokens, 0 for padding.
        kept_BP: True for the tokens at which predictions count.
    """
    counted_BP = mask_BP[:, 1:].bool() & kept_BP[:, :-1]
    counted_BP[:, 0] = False
    return counted_BP


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


@torch.no_grad()
def splice(
    sae: Reconstruct | None, x_BPD: torch.Tensor, kept_BP: torch.Tensor, norm_limit: float
) -> torch.Tensor:
    """The activation with the reconstruction in its place, but at the first position, padding and outlying norms.

    Args:
        sae: Activations x_BD to reconstructions; None for zeros.
        x_BPD: Activations at the hook point.
        kept_BP: 1 for tokens that may be replaced, 0 for padding and excluded tokens.
        norm_limit: Activations with a larger norm stay.

    Returns:
        A new x_BPD.
    """
    replaced_BP = replaceable(x_BPD, kept_BP, norm_limit)
    out_BPD = x_BPD.clone()
    out_BPD[replaced_BP] = 0.0 if sae is None else sae(x_BPD[replaced_BP])
    return out_BPD


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
