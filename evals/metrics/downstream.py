"""What the host loses when the reconstruction takes the activation's place.

Shapes: B batch, P position, D dimensions, N counted predictions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import overload

import torch

from evals.metrics.codes import Encode, place_of, readings
from evals.results import Downstream, Spliced
from rsae import SAE, Host
from rsae.activations.hooks import HookPoint, Prefix, logits_from, pad, prefix_at
from rsae.support.errors import InputError
from rsae.support.progress import progress

Reconstruct = Callable[[torch.Tensor], torch.Tensor]

#: Recorded with every result: where the activation is replaced, and which predictions count.
POSITIONS = (
    "position 0 and tokens above the norm limit keep their activation; the predictions made at position 0 and at "
    "padding are not counted"
)


@overload
def downstream(
    sae: SAE,
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
) -> Downstream: ...
@overload
def downstream(
    sae: Mapping[str, SAE],
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
) -> dict[str, Downstream]: ...
def downstream(
    sae: SAE | Mapping[str, SAE],
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
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

    Returns:
        Means over predictions, in nats; for several SAEs by name.

    Raises:
        InputError: for too short a sequence, an unknown hook point, an SAE of another model or hook point, or a norm
            limit that leaves nothing to splice.
    """
    if isinstance(sae, SAE):
        return downstream({"sae": sae}, host, tokens, hook, norm_limit, batch, allow_mismatch)["sae"]
    if not tokens or min(map(len, tokens)) < 3:
        raise InputError("downstream: every sequence needs three tokens at least (position 0 is not counted)")
    first = next(iter(sae.values()))
    point, limit = place_of(first, host, hook, norm_limit, allow_mismatch)
    for one in sae.values():
        place_of(one, host, str(point), limit, allow_mismatch)
    zero = _Sums(None)
    by_reading = {
        name: {reading: _Sums(_through(one, encode)) for reading, encode in readings(one).items()}
        for name, one in sae.items()
    }
    every = [zero, *(sums for one in by_reading.values() for sums in one.values())]
    order = sorted(tokens, key=len)  # little padding in a batch
    ce_clean, count = 0.0, 0
    with progress(sum(map(len, tokens)), f"downstream loss of {len(sae)} SAEs", "tok") as bar:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens_BP, mask_BP = pad(chosen, host.device)
            prefix = prefix_at(host, point, tokens_BP, mask_BP)
            counted_BP = counted(mask_BP)
            target_N1 = tokens_BP[:, 1:][counted_BP][:, None]
            clean_NV = predictions(host, point, tokens_BP, mask_BP, prefix, counted_BP)
            ce_clean -= clean_NV.gather(1, target_N1).double().sum().item()
            count += len(target_N1)
            for sums in every:
                spliced_BPD = splice(sums.reconstruct, prefix.x_BPD, mask_BP, limit)
                spliced = prefix._replace(x_BPD=spliced_BPD)
                sums.add(
                    clean_NV, predictions(host, point, tokens_BP, mask_BP, spliced, counted_BP), target_N1
                )
            bar.update(sum(map(len, chosen)))
    ce_clean /= count
    if zero.ce / count == ce_clean:
        raise InputError(
            f"downstream: zeros at {point} change nothing, so no token is spliced; raise norm_limit"
        )
    return {
        name: Downstream(
            **vars(sums[""].figures(count, ce_clean, zero)),
            ce_clean=ce_clean,
            ce_zero=zero.ce / count,
            kl_zero=zero.kl / count,
            predictions=count,
            positions=POSITIONS,
            others={r: one.figures(count, ce_clean, zero) for r, one in sums.items() if r},
        )
        for name, sums in by_reading.items()
    }


class _Sums:
    """What is summed over predictions for one reconstruction (zeros for None)."""

    def __init__(self, reconstruct: Reconstruct | None):
        self.reconstruct = reconstruct
        self.ce = self.kl = 0.0
        self.agreed = 0

    def add(self, clean_NV: torch.Tensor, spliced_NV: torch.Tensor, target_N1: torch.Tensor) -> None:
        """Predictions, as log p of the clean and the spliced host."""
        self.ce -= spliced_NV.gather(1, target_N1).double().sum().item()
        self.kl += (clean_NV.exp() * (clean_NV - spliced_NV)).sum(-1).double().sum().item()
        self.agreed += int((spliced_NV.argmax(-1) == clean_NV.argmax(-1)).sum())

    def figures(self, count: int, ce_clean: float, zero: _Sums) -> Spliced:
        """Means over `count` predictions."""
        ce, ce_zero = self.ce / count, zero.ce / count
        recovered = (ce_zero - ce) / (ce_zero - ce_clean)
        return Spliced(ce, ce - ce_clean, recovered, self.kl / count, self.agreed / count)


def _through(sae: SAE, encode: Encode) -> Reconstruct:
    return lambda x_BD: sae.decode(encode(x_BD), x_BD)


def counted(mask_BP: torch.Tensor) -> torch.Tensor:
    """Which predictions (of token p + 1, made at p) are measured: [batch, position - 1], none made at position 0."""
    counted_BP = mask_BP[:, 1:].bool().clone()
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
        log p_NV of the wanted predictions.
    """
    return logits_from(host, point, tokens_BP, mask_BP, *prefix)[:, :-1][counted_BP].log_softmax(-1)


@torch.no_grad()
def splice(
    sae: Reconstruct | None, x_BPD: torch.Tensor, mask_BP: torch.Tensor, norm_limit: float
) -> torch.Tensor:
    """The activation with the reconstruction in its place, but at the first position, padding and outlying norms.

    Args:
        sae: Activations x_BD to reconstructions; None for zeros.
        x_BPD: Activations at the hook point.
        mask_BP: 1 for tokens, 0 for padding.
        norm_limit: Activations with a larger norm stay.

    Returns:
        A new x_BPD.
    """
    replaced_BP = replaceable(x_BPD, mask_BP, norm_limit)
    out_BPD = x_BPD.clone()
    out_BPD[replaced_BP] = 0.0 if sae is None else sae(x_BPD[replaced_BP])
    return out_BPD


def replaceable(x_BPD: torch.Tensor, mask_BP: torch.Tensor, norm_limit: float) -> torch.Tensor:
    """Where an activation may be changed: not at the first position, padding and outlying norms.

    Args:
        x_BPD: Activations at the hook point.
        mask_BP: 1 for tokens, 0 for padding.
        norm_limit: Activations with a larger norm stay.

    Returns:
        True where it may be changed, [batch, position].
    """
    replaced_BP = mask_BP.bool() & (x_BPD.norm(dim=-1) <= norm_limit)
    replaced_BP[:, 0] = False
    return replaced_BP
