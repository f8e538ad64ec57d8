"""What a host loses, summed prediction by prediction: beside the clean host, and between bounds.

Shapes: B batch, P position, N counted predictions, V vocabulary, S sequences, G groups of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from evals.metrics import losses_cpu
from evals.results import AtPositions, BySequence, Downstream, Spliced
from evals.stats import ratio_interval
from rsae.activations.splicing import Logits
from rsae.support.errors import InputError

#: Groups of positions, each twice as long as the one before: first and last
POSITIONS = tuple((2**i, 2 ** (i + 1) - 1) for i in range(20))


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


class Predicted(Protocol):
    """A batch of which predictions are counted."""

    @property
    def tokens_BP(self) -> torch.Tensor:
        """Token ids."""
        ...

    @property
    def counted_BP(self) -> torch.Tensor:
        """Which predictions count, [batch, position - 1]."""
        ...


class Clean(NamedTuple):
    """What the clean host predicts, with what every comparison with it needs."""

    #: logits, and the log of their exponentials' sum
    logits_NV: torch.Tensor
    lse_N: torch.Tensor
    #: probabilities, and their sum, which is 1 but for rounding
    p_NV: torch.Tensor
    mass_N: torch.Tensor
    top_N: torch.Tensor

    @staticmethod
    def of(logits: Logits) -> Clean:
        """What the host predicts.

        Args:
            logits: Those of the counted predictions.
        """
        logits_NV = logits.left.new_empty(logits.shape, dtype=torch.float32)
        for columns, block_NV in logits.blocks():
            logits_NV[:, columns] = block_NV
        any_N = torch.zeros(len(logits_NV), dtype=torch.long, device=logits_NV.device)
        # by what sums up the spliced host's, so that what is equal differs by 0
        lse_N, top_N, *_ = _sums(Logits(logits_NV, None, False), logits_NV, logits_NV, any_N)
        p_NV, mass_N = torch.empty_like(logits_NV), torch.zeros_like(lse_N)
        for columns, block_NV in Logits(logits_NV, None, False).blocks():
            p_NV[:, columns] = (block_NV - lse_N[:, None].float()).exp_()
            mass_N += p_NV[:, columns].sum(-1)
        return Clean(logits_NV, lse_N, p_NV, mass_N, top_N)

    def measured(self, run: Predicted) -> Measured:
        """The clean host beside itself.

        Args:
            run: The batch.
        """
        row_N, position_N = run.counted_BP.nonzero(as_tuple=True)
        aim_N = self.logits_NV.gather(1, _next(run)[:, None])[:, 0].double()
        return Measured(
            len(run.counted_BP), row_N, position_N, self.lse_N - aim_N, torch.zeros_like(aim_N), len(row_N)
        )


class Measured(NamedTuple):
    """One reconstruction's predictions of a batch: of each prediction its sequence, position, CE and KL."""

    sequences: int
    row_N: torch.Tensor
    position_N: torch.Tensor
    ce_N: torch.Tensor
    kl_N: torch.Tensor
    agreed: int


def _next(run: Predicted) -> torch.Tensor:
    """The tokens that are predicted, [N]."""
    return run.tokens_BP[:, 1:][run.counted_BP]


def against(run: Predicted, clean: Clean, logits: Logits) -> Measured:
    """The spliced host's predictions, compared with the clean host's, in one pass over blocks of the vocabulary.

    Args:
        run: The batch.
        clean: What the clean host predicts.
        logits: What the spliced host predicts.
    """
    row_N, position_N = run.counted_BP.nonzero(as_tuple=True)
    lse_N, top_N, aim_N, apart_N = _sums(logits, clean.logits_NV, clean.p_NV, _next(run))
    # sum of p (log p - log q), with log p = logit - lse
    kl_N = apart_N + (lse_N - clean.lse_N) * clean.mass_N
    agreed = int((top_N == clean.top_N).sum())
    return Measured(len(run.counted_BP), row_N, position_N, lse_N - aim_N, kl_N, agreed)


def _sums(
    logits: Logits, clean_NV: torch.Tensor, p_NV: torch.Tensor, next_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """lse_N, top_N, the logit of the next token, and the sum of p (clean - logit), a block after the other."""
    if losses_cpu.available(logits):
        return losses_cpu.sums(logits, clean_NV, p_NV, next_N)
    most_N = clean_NV.new_full((len(next_N),), -torch.inf)
    top_N, lses = torch.zeros_like(next_N), []
    aim_N, apart_N = next_N.new_zeros(2, len(next_N), dtype=torch.float64)
    for columns, block_NV in logits.blocks():
        largest_N, at_N = block_NV.max(-1)
        more_N = largest_N > most_N  # of equal ones the first
        most_N = torch.where(more_N, largest_N, most_N)
        top_N = torch.where(more_N, at_N + columns.start, top_N)
        base_N = largest_N.clamp_min(
            torch.finfo(largest_N.dtype).min
        )  # tokens that a host rules out weigh nothing
        lses.append((block_NV - base_N[:, None]).exp_().sum(-1).double().log_() + base_N)
        here_N = (next_N >= columns.start) & (next_N < columns.stop)
        at_N = (next_N - columns.start).clamp(0, block_NV.shape[1] - 1)
        aim_N += torch.where(here_N, block_NV.gather(1, at_N[:, None])[:, 0], 0.0)
        apart_NV = (clean_NV[:, columns] - block_NV).mul_(p_NV[:, columns])
        apart_N += apart_NV.masked_fill_(p_NV[:, columns] == 0, 0.0).sum(-1)
    return torch.stack(lses).logsumexp(0), top_N, aim_N, apart_N


@dataclass
class Sums:
    """What is summed over the predictions of each sequence, for one thing that is spliced in."""

    ce_S: list[float] = field(default_factory=list)
    """Cross-entropies."""
    kl_S: list[float] = field(default_factory=list)
    """KL(clean || spliced)."""
    count_S: list[int] = field(default_factory=list)
    """Predictions."""
    kl_GS: list[list[float]] = field(default_factory=lambda: [[] for _ in POSITIONS])
    """KL by group of positions."""
    count_GS: list[list[int]] = field(default_factory=lambda: [[] for _ in POSITIONS])
    """Predictions by group of positions."""
    agreed: int = 0
    """Predictions whose most likely token is the clean host's, of all sequences."""

    def add(self, batch: Measured) -> None:
        """Predictions of a batch.

        Args:
            batch: Of all its sequences.
        """
        rows, row_N, position_N = batch.sequences, batch.row_N, batch.position_N
        zero_B = torch.zeros(rows, dtype=torch.float64, device=row_N.device)
        self.ce_S += zero_B.index_add(0, row_N, batch.ce_N).tolist()
        self.kl_S += zero_B.index_add(0, row_N, batch.kl_N).tolist()
        self.count_S += torch.bincount(row_N, minlength=rows).tolist()
        self.agreed += batch.agreed
        for group, (first, last) in enumerate(POSITIONS):
            in_N = (position_N >= first) & (position_N <= last)
            self.kl_GS[group] += zero_B.index_add(0, row_N[in_N], batch.kl_N[in_N]).tolist()
            self.count_GS[group] += torch.bincount(row_N[in_N], minlength=rows).tolist()

    @property
    def ce(self) -> float:
        """Sum of cross-entropies."""
        return sum(self.ce_S)

    @property
    def kl(self) -> float:
        """Sum of KL(clean || spliced)."""
        return sum(self.kl_S)

    @property
    def count(self) -> int:
        """Number of predictions."""
        return sum(self.count_S)

    def figures(self, clean: Sums, zero: Sums, mean: Sums) -> Spliced:
        """Means over predictions, and their intervals.

        Args:
            clean: The clean host's.
            zero: Those with zeros in the place.
            mean: Those with the mean activation in the place.
        """
        dce_S = [now - then for now, then in zip(self.ce_S, clean.ce_S, strict=True)]
        ce, ce_clean, ce_zero, ce_mean = (one.ce / clean.count for one in (self, clean, zero, mean))
        return Spliced(
            kl=self.kl / clean.count,
            kl_interval=ratio_interval(self.kl_S, self.count_S),
            ce=ce,
            dce=ce - ce_clean,
            dce_interval=ratio_interval(dce_S, self.count_S),
            loss_recovered=(ce_zero - ce) / (ce_zero - ce_clean),
            top1=self.agreed / clean.count,
            sequences=BySequence(tuple(self.count_S), tuple(dce_S), tuple(self.kl_S)),
            loss_recovered_mean=(ce_mean - ce) / (ce_mean - ce_clean) if ce_mean != ce_clean else None,
            by_position=tuple(self._at(group) for group, counts in enumerate(self.count_GS) if sum(counts)),
        )

    def _at(self, group: int) -> AtPositions:
        kl_S, count_S = self.kl_GS[group], self.count_GS[group]
        there = [i for i, count in enumerate(count_S) if count]  # only sequences that are so long
        kl, counts = [kl_S[i] for i in there], [count_S[i] for i in there]
        return AtPositions(*POSITIONS[group], sum(counts), sum(kl) / sum(counts), ratio_interval(kl, counts))


@dataclass(frozen=True)
class Bounds:
    """What the host gives without an SAE."""

    clean: Sums
    """As it is."""
    zero: Sums
    """With zeros in the place."""
    mean: Sums
    """With the mean activation in the place."""
    rounded: Sums | None
    """As it is, rounded to the precision of the others; None for float32."""

    def record(
        self, sums: dict[str, Sums], exclude_tokens: Sequence[int] = (), precision: str = "float32"
    ) -> Downstream:
        """The figures of one SAE.

        Args:
            sums: Of each of its readings; "" is the one that is decoded.
            exclude_tokens: Ids of tokens that were left alone.
            precision: In which the host was run from the hook point on.
        """
        clean, zero, mean, rounded = self.clean, self.zero, self.mean, self.rounded
        if zero.ce == clean.ce:
            raise InputError(
                "downstream: zeros change nothing, so no token is spliced; raise norm_limit, or exclude fewer tokens"
            )
        return Downstream(
            **vars(sums[""].figures(clean, zero, mean)),
            ce_clean=clean.ce / clean.count,
            ce_zero=zero.ce / zero.count,
            kl_zero=zero.kl / zero.count,
            predictions=clean.count,
            positions=positions(exclude_tokens),
            others={reading: one.figures(clean, zero, mean) for reading, one in sums.items() if reading},
            ce_mean=mean.ce / mean.count,
            kl_mean=mean.kl / mean.count,
            precision=precision,
            precision_kl=None if rounded is None else rounded.kl / rounded.count,
        )
