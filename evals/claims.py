"""What a gain is worth: against the best rival that costs no more, and as a share of the way from the best baseline.

Only numbers are made here; `evals.report` shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from evals import stats
from evals.measures import DCE, FVU, KL, Measure, probings
from evals.results import Level, Result, Role, Site
from evals.stats import Estimate

#: A rival costs no more where it takes at most this many times the seconds and the time for an encoding
TOLERANCE = 1.15


@dataclass(frozen=True)
class Against:
    """An upgrade minus one rival."""

    rival: str
    """The rival's variant."""
    difference: Estimate
    """Mean and standard error over seeds; relative for errors and KL."""
    verdict: str
    """`win`, `tie`, `loss`, or `open` with fewer than three seeds."""


@dataclass(frozen=True)
class Claim:
    """An upgrade against the controls that cost no more."""

    site: Site
    """Host and hook point."""
    family: str
    """The teachers' family."""
    d_sae: int
    """Number of latents."""
    level: Level
    """What set the teachers' sparsity."""
    upgrade: str
    """Name of the upgrade."""
    l0: float
    """Its mean l0."""
    rivals: tuple[str, ...]
    """The variants that cost no more."""
    dearer: tuple[str, ...]
    """The variants that cost more: no claim is made against them."""
    best: dict[str, Against]
    """By measure: against the best of the rivals."""


def claims(results: Sequence[Result]) -> tuple[Claim, ...]:
    """What can be claimed of each upgrade that stands beside second controls.

    Args:
        results: The cells of a run.

    Returns:
        A claim for each group, level and upgrade.
    """
    key = lambda r: (str(r.site), r.family, r.d_sae, str(r.level))  # noqa: E731
    found = []
    for _, members in groupby(sorted(results, key=key), key=key):
        cells = list(members)
        if not any(r.role is Role.SECOND_CONTROL for r in cells):
            continue
        # only cells beside second controls are timed
        upgrades = {str(r.upgrade) for r in cells if r.compared and r.metrics.encode_us is not None}
        pursued = {f"control-{name}" for name in upgrades}
        for upgrade in sorted(upgrades):
            mine = _by_seed(cells, upgrade)
            known = dict.fromkeys(
                r.variant
                for r in cells
                if r.role in (Role.CONTROL, Role.SECOND_CONTROL) and r.metrics.encode_us
            )
            same = f"control-{upgrade}"
            others = {name: _by_seed(cells, name) for name in known if name not in pursued - {same}}
            # the control with the same inference takes the same time: what is measured between them is noise
            cheap = {n for n, theirs in others.items() if n == same or _costs_no_more(theirs, mine)}
            first = next(iter(mine.values()))
            best = {}
            for measure in (FVU, KL, DCE, *probings(cells)):
                against = [_against(measure, mine, name, others[name]) for name in others if name in cheap]
                if against:
                    # the rival that leaves the upgrade the smallest gain
                    pick = min(against, key=lambda a: a.difference.mean * (1 if measure.more else -1))
                    best[measure.key] = pick
            found.append(
                Claim(
                    site=first.site,
                    family=first.family,
                    d_sae=first.d_sae,
                    level=first.level,
                    upgrade=upgrade,
                    l0=float(np.mean([r.metrics.reconstruction.l0 for r in mine.values()])),
                    rivals=tuple(name for name in others if name in cheap),
                    dearer=tuple(name for name in others if name not in cheap),
                    best=best,
                )
            )
    return tuple(found)


def _by_seed(cells: Sequence[Result], variant: str) -> dict[int, Result]:
    return {r.seed: r for r in cells if r.variant == variant}


def _costs_no_more(theirs: dict[int, Result], mine: dict[int, Result]) -> bool:
    """By the clock, whose smallest readings over seeds are the freest of what else the machine did.

    Fine-tuning by the same budget costs no more, whatever the clock says: the first training of a process warms up.
    """

    def encoding(r: Result) -> float:
        return r.metrics.encode_us or 0.0

    costs = [encoding]
    if all(r.role is not Role.CONTROL for r in theirs.values()):
        costs.append(lambda r: r.how.seconds)
    return all(min(map(cost, theirs.values())) <= TOLERANCE * min(map(cost, mine.values())) for cost in costs)


def _against(measure: Measure, mine: dict[int, Result], name: str, theirs: dict[int, Result]) -> Against:
    gaps = [
        measure.difference(measure.of(r), measure.of(theirs[seed]))
        for seed, r in sorted(mine.items())
        if seed in theirs
    ]
    return Against(name, Estimate.of(gaps), stats.verdict(gaps, measure.more))


@dataclass(frozen=True)
class Share:
    """Where a figure lies between the best baseline and the ceiling."""

    baseline: str
    """The baseline's variant."""
    value: float
    """The baseline's figure."""
    share: float
    """0 at the baseline, 1 at the ceiling."""


def shares(results: Sequence[Result], measures: Sequence[Measure]) -> dict[tuple[str, str], Share]:
    """Each figure as a share of the way from the best baseline of its teacher to the ceiling.

    Args:
        results: The cells of a run.
        measures: Which figures; those without a ceiling have no share.

    Returns:
        By cell and measure; baselines themselves have none.
    """
    key = lambda r: (str(r.site), r.family, r.d_sae, str(r.level), r.seed)  # noqa: E731
    found = {}
    for _, members in groupby(sorted(results, key=key), key=key):
        cells = list(members)
        baselines = [r for r in cells if r.role is Role.BASELINE]
        for measure in measures:
            known = [r for r in baselines if measure.ceiling is not None and measure.read(r) is not None]
            if not known:
                continue
            best = min(known, key=measure.cost)
            low = measure.of(best)
            for r in cells:
                assert measure.ceiling is not None
                high, value = measure.ceiling(r), measure.read(r)
                if r.role is not Role.BASELINE and value is not None and high is not None and high != low:
                    found[r.cell, measure.key] = Share(best.variant, low, (value - low) / (high - low))
    return found
