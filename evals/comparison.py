"""Runs compared: differences at matched l0, Pareto fronts, hypervolumes, the teacher's sweet zone, wins and losses.

No figure of a rational SAE is given without its control's. A *group* is one family and width at one site of one run;
its cells differ in variant, level of sparsity and seed. Seeds are the independent repetitions: a standard error is
over seeds, and a win needs three of them. Only numbers are made here; `evals.report` shows them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from evals import stats
from evals.measures import AGAINST_REFERENCE, ALIVE, ERRORS, FVU, L0, MSE, Measure, probings
from evals.results import Level, Result, Role, Site, read_results
from evals.stats import Estimate, Interval
from rsae.support.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Group:
    """Cells that are compared with each other."""

    run: str
    """Name of the run's directory."""
    site: Site
    """Host and hook point."""
    family: str
    """The teachers' family."""
    d_sae: int
    """Number of latents."""

    @property
    def name(self) -> str:
        """As `evals compare --reference` takes it."""
        return f"{self.family}-{self.d_sae}"


@dataclass(frozen=True)
class Matched:
    """An upgrade's figures minus its control's at the same l0."""

    group: Group
    """Where."""
    upgrade: str
    """Name of the upgrade."""
    control: str
    """Name of its control."""
    seeds: int
    """Seeds with a difference."""
    cells: int
    """Cells with a difference."""
    outside: int
    """Cells with an l0 that the control does not reach."""
    figures: dict[str, Estimate]
    """By measure: mean and standard error over seeds."""


@dataclass(frozen=True)
class Difference:
    """A difference on the same predictions."""

    mean: float
    """Nats a prediction."""
    interval: Interval | None
    """By resampling sequences; None of fewer than two."""


@dataclass(frozen=True)
class Paired:
    """An upgrade minus its control on the same predictions, at the l0 that each has."""

    group: Group
    """Where."""
    level: Level
    """What set the teacher's sparsity."""
    seed: int
    """Of the teacher."""
    upgrade: str
    """Name of the upgrade."""
    control: str
    """Name of its control."""
    l0: tuple[float, float]
    """The upgrade's and the control's."""
    kl: Difference
    """Of KL."""
    dce: Difference
    """Of cross-entropy."""
    rounding: float | None = None
    """KL(clean in float32 || clean), where the host ran in bfloat16; None for float32."""


@dataclass(frozen=True)
class Between:
    """A cell of one run minus the same cell of the first run, at the l0 that each has."""

    group: Group
    """Where, and of which run."""
    level: Level
    """What set the teacher's sparsity."""
    seed: int
    """Of the teacher."""
    variant: str
    """The cell among those of its teacher."""
    minus: str
    """Name of the first run."""
    l0: tuple[float, float]
    """The cell's, and that of the first run's."""
    fvu: float
    """Relative difference."""
    kl: Difference | None
    """Of KL; None where the two were not measured on the same predictions."""
    dce: Difference | None
    """Of cross-entropy, likewise."""


@dataclass(frozen=True)
class FrontPoint:
    """A non-dominated cell."""

    x: float
    """Its l0, or alive share."""
    y: float
    """Its figure."""
    level: Level
    """What set the teacher's sparsity."""
    seed: int
    """Of the teacher."""


@dataclass(frozen=True)
class Front:
    """The non-dominated cells of a variant over all seeds."""

    group: Group
    """Where."""
    x: str
    """Measure of the first axis."""
    y: str
    """Measure of the second axis."""
    variant: str
    """Whose front."""
    control: str | None
    """Name of its control, of an upgrade."""
    points: tuple[FrontPoint, ...]
    """The cells, along the front."""
    hypervolume: Estimate
    """Of one seed's cells in the rectangle that the group's cells span, as a share of it; l0 as its logarithm."""


@dataclass(frozen=True)
class Counts:
    """Cells that strictly dominate the very teacher that they started from."""

    l0: int
    """In MSE and l0."""
    alive: int
    """In MSE and alive."""
    cells: int
    """Of how many."""


@dataclass(frozen=True)
class SweetZone:
    """How often an upgrade and its control dominate their teacher."""

    group: Group
    """Where."""
    upgrade: str
    """Name of the upgrade."""
    control: str
    """Name of its control."""
    figures: Counts
    """The upgrade's."""
    controls: Counts
    """The control's."""


@dataclass(frozen=True)
class Tally:
    """Verdicts counted over a run's groups and levels."""

    run: str
    """Name of the run's directory."""
    variant: str
    """Whose figures."""
    against: str
    """The control (at matched l0), or the teacher (at the cell's own l0)."""
    measure: str
    """Of what."""
    win: int = 0
    """Better at the 95 % level, with three seeds or more."""
    tie: int = 0
    """Neither."""
    loss: int = 0
    """Worse at that level."""
    open: int = 0
    """Fewer than three seeds."""


@dataclass(frozen=True)
class Against:
    """Trained SAEs of a family and width minus those of a reference at the same site and l0."""

    group: Group
    """Whose figures."""
    reference: str
    """FAMILY-D_SAE of the reference."""
    seeds: int
    """Seeds with a difference."""
    cells: int
    """Cells with a difference."""
    outside: int
    """Cells with an l0 that the reference does not reach."""
    figures: dict[str, Estimate]
    """By measure: mean and standard error over seeds."""
    verdicts: dict[str, str]
    """By measure."""


@dataclass(frozen=True)
class Comparison:
    """What there is to say of runs side by side."""

    matched: tuple[Matched, ...]
    """Upgrades against their controls at the same l0."""
    fronts: tuple[Front, ...]
    """Non-dominated cells of each variant."""
    sweet_zone: tuple[SweetZone, ...]
    """Cells that dominate their teacher."""
    tally: tuple[Tally, ...]
    """Wins, ties and losses."""
    paired: tuple[Paired, ...]
    """Upgrades against their controls on the same predictions."""
    reference: tuple[Against, ...] = ()
    """Trained SAEs against a reference, where one is asked for."""
    between: tuple[Between, ...] = ()
    """Cells of the second and further runs against the same ones of the first."""

    @property
    def several(self) -> bool:
        """Whether it is of several runs, so that their names tell rows apart."""
        return len({r.group.run for r in (*self.fronts, *self.paired, *self.between)}) > 1


#: Cells of one group
Members = list[Result]
#: By level and seed
Differences = dict[tuple[Level, int], float]


def compare(runs: Sequence[str | os.PathLike], reference: str | None = None) -> Comparison:
    """Compare the cells of runs.

    Args:
        runs: Directories of runs.
        reference: FAMILY-D_SAE, such as `gated-1536`: also compare the trained SAEs of all other families and widths
            with it.

    Returns:
        The comparison; standard errors are over seeds.

    Raises:
        InputError: where a run has no results, or the reference is not among them.
    """
    names = run_names(runs)
    cells = [(name, result) for name, run in zip(names, runs, strict=True) for result in read_results(run)]
    groups = {
        group: [result for _, result in members]
        for group, members in groupby(sorted(cells, key=_order), key=lambda cell: _group(*cell))
    }
    return Comparison(
        matched=tuple(found for group in groups.items() for found in _matched(*group)),
        fronts=tuple(found for group in groups.items() for found in _fronts(*group)),
        sweet_zone=tuple(found for group in groups.items() for found in _sweet_zone(*group)),
        tally=_tally(groups),
        paired=tuple(found for group in groups.items() for found in _paired(*group)),
        reference=_against(groups, reference) if reference else (),
        between=tuple(_between(cells, names[0])),
    )


def run_names(runs: Sequence[str | os.PathLike]) -> list[str]:
    """What runs are called in tables: their directories' names, or their paths where two have the same name.

    Args:
        runs: Directories of runs.
    """
    names = [Path(run).resolve().name for run in runs]
    return names if len({*names}) == len(names) else [str(Path(run)) for run in runs]


def _group(run: str, result: Result) -> Group:
    return Group(run, result.site, result.family, result.d_sae)


def _order(cell: tuple[str, Result]) -> tuple:
    run, r = cell
    return run, r.site.host, r.site.hooks, r.family, r.d_sae


def upgraded(members: Sequence[Result]) -> dict[str, str]:
    """The fine-tuned upgrades of a group, and the name of each one's control."""
    return {str(r.upgrade): str(r.control) for r in members if r.compared}


def _of(members: Members, variant: str) -> Members:
    return [r for r in members if r.variant == variant]


def _teachers(members: Members) -> Members:
    return [r for r in members if r.role is Role.TEACHER]


# --- at matched l0 ---------------------------------------------------------------------------------------------


def _differences(members: Members, references: Members, measure: Measure) -> Differences:
    """A cell's figure against the references' of the same seed at the same l0.

    Errors are read off the Pareto front; probing accuracies, which need not grow with l0, off all cells.
    """
    found = {}
    for r in members:
        points = [(L0.of(c), measure.of(c)) for c in references if c.seed == r.seed]
        there = stats.at_l0(L0.of(r), points, measure.ratio, pareto=not measure.more)
        if there is not None:
            found[r.level, r.seed] = measure.difference(measure.of(r), there)
    return found


def _over_seeds(differences: Differences) -> list[float]:
    """Each seed's mean over its levels."""
    by_seed: dict[int, list[float]] = {}
    for (_, seed), value in differences.items():
        by_seed.setdefault(seed, []).append(value)
    return [float(np.mean(values)) for _, values in sorted(by_seed.items())]


def _measures(members: Members) -> list[Measure]:
    """What an upgrade and its control are compared by: what all cells of the group have."""
    return [*ERRORS, *probings(members)]


def _matched(group: Group, members: Members) -> list[Matched]:
    found = []
    for upgrade, control in upgraded(members).items():
        mine, theirs = _of(members, upgrade), _of(members, control)
        gaps = {m.key: _differences(mine, theirs, m) for m in _measures(members)}
        cells = len(gaps[FVU.key])
        if not cells:
            continue
        figures = {key: Estimate.of(_over_seeds(gap)) for key, gap in gaps.items() if gap}
        seeds = figures[FVU.key].n
        found.append(Matched(group, upgrade, control, seeds, cells, len(mine) - cells, figures))
    return found


def _against(groups: dict[Group, Members], reference: str) -> tuple[Against, ...]:
    """Each family's and width's teachers against those of `reference` at the same site and of the same seed."""
    names = {group.name for group in groups}
    if reference not in names:
        raise InputError(f"reference {reference!r} is not among the results{did_you_mean(reference, names)}")
    found = []
    for group, members in groups.items():
        if group.name == reference:
            continue
        theirs = [
            r
            for other, cells in groups.items()
            if other.name == reference and (other.run, other.site) == (group.run, group.site)
            for r in _teachers(cells)
        ]
        mine = _teachers(members)
        gaps = {m: _over_seeds(_differences(mine, theirs, m)) for m in AGAINST_REFERENCE}
        cells = len(_differences(mine, theirs, AGAINST_REFERENCE[0]))
        if not cells:
            continue
        figures = {m.key: Estimate.of(values) for m, values in gaps.items()}
        verdicts = {m.key: stats.verdict(values, m.more) for m, values in gaps.items()}
        seeds = figures[AGAINST_REFERENCE[0].key].n
        found.append(Against(group, reference, seeds, cells, len(mine) - cells, figures, verdicts))
    return tuple(found)


# --- fronts ----------------------------------------------------------------------------------------------------


def _fronts(group: Group, members: Members) -> list[Front]:
    """For each pair of axes and each variant with its control: the front over all seeds, and hypervolumes."""
    pairs = upgraded(members)
    variants = ["teacher", *dict.fromkeys(v for pair in pairs.items() for v in pair)]
    variants = [v for v in variants if _of(members, v)]  # a run that is not finished may lack some
    axes = [*((L0, m) for m in _measures(members)), (ALIVE, MSE)]
    return [
        front for x, y in (axes if pairs else ()) for front in _plane(group, members, x, y, variants, pairs)
    ]


def _plane(
    group: Group, members: Members, x: Measure, y: Measure, variants: list[str], pairs: dict[str, str]
) -> list[Front]:
    def place(r: Result) -> tuple[float, float]:
        """Less is better in both coordinates."""
        return (math.log(max(x.of(r), 1e-9)) if x is L0 else x.cost(r)), y.cost(r)

    every = np.array([place(r) for v in variants for r in _of(members, v)])
    low, high = every.min(0), every.max(0)
    span = np.where(high > low, high - low, 1.0)
    found = []
    for variant in variants:
        mine = _of(members, variant)
        seeds = sorted({r.seed for r in mine})
        volumes = [
            stats.hypervolume(
                [tuple((np.array(place(r)) - low) / span) for r in mine if r.seed == seed], (1.0, 1.0)
            )
            for seed in seeds
        ]
        along = [mine[i] for i in stats.front([place(r) for r in mine])]
        points = tuple(FrontPoint(x.of(r), y.of(r), r.level, r.seed) for r in along)
        found.append(Front(group, x.key, y.key, variant, pairs.get(variant), points, Estimate.of(volumes)))
    return found


# --- the teacher -----------------------------------------------------------------------------------------------


def _sweet_zone(group: Group, members: Members) -> list[SweetZone]:
    """Cells that strictly dominate their own teacher, in (MSE, l0) and in (MSE, alive)."""
    teachers = {(r.level, r.seed): r for r in _teachers(members)}

    def count(variant: str) -> Counts:
        known = [(r, t) for r in _of(members, variant) if (t := teachers.get((r.level, r.seed))) is not None]
        better = [(r, t) for r, t in known if MSE.of(r) < MSE.of(t)]
        return Counts(
            l0=sum(L0.of(r) < L0.of(t) for r, t in better),
            alive=sum(ALIVE.of(r) > ALIVE.of(t) for r, t in better),
            cells=len(known),
        )

    return [
        SweetZone(group, upgrade, control, count(upgrade), count(control))
        for upgrade, control in upgraded(members).items()
    ]


def _tally(groups: Mapping[Group, Members]) -> tuple[Tally, ...]:
    """For each variant of a run: against its control and, upgrade and control alike, against the teacher."""
    outcomes: dict[tuple[str, str, str, str], list[str]] = {}

    def judge(run: str, variant: str, against: str, measure: Measure, found: Differences) -> None:
        verdicts = outcomes.setdefault((run, variant, against, measure.key), [])
        for level in dict.fromkeys(level for level, _ in found):
            gaps = [gap for (at, _), gap in found.items() if at == level]
            verdicts.append(stats.verdict(gaps, measure.more))

    for group, members in groups.items():
        teachers = {(r.level, r.seed): r for r in _teachers(members)}
        pairs = upgraded(members)
        for measure in _measures(members):
            for upgrade, control in pairs.items():
                gaps = _differences(_of(members, upgrade), _of(members, control), measure)
                judge(group.run, upgrade, control, measure, gaps)
            for variant in dict.fromkeys(v for pair in pairs.items() for v in pair):
                own = {(r.level, r.seed): r for r in _of(members, variant)}
                gaps = {
                    at: measure.difference(measure.of(r), measure.of(teachers[at]))
                    for at, r in own.items()
                    if at in teachers
                }
                judge(group.run, variant, "teacher", measure, gaps)
    return tuple(
        Tally(*about, **{name: verdicts.count(name) for name in ("win", "tie", "loss", "open")})
        for about, verdicts in outcomes.items()
    )


# --- on the same predictions -----------------------------------------------------------------------------------


def _paired(group: Group, members: Members) -> list[Paired]:
    controls = controls_of(members)
    found = []
    for r in members:
        if not r.compared or (control := controls.get(r.cell)) is None:
            continue
        if (differences := _in_the_host(r, control)) is None:
            continue
        l0 = (L0.of(r), L0.of(control))
        rounding = r.metrics.downstream.precision_kl
        found.append(
            Paired(group, r.level, r.seed, str(r.upgrade), control.variant, l0, *differences, rounding)
        )
    return found


def _in_the_host(r: Result, other: Result) -> tuple[Difference, Difference] | None:
    """KL and cross-entropy of one cell minus another's, where both were measured on the same predictions."""
    mine, theirs = r.metrics.downstream.sequences, other.metrics.downstream.sequences
    if (
        mine.predictions != theirs.predictions
        or r.metrics.downstream.ce_clean != other.metrics.downstream.ce_clean
    ):
        return None
    kl = difference(mine.kl, theirs.kl, mine.predictions)
    return kl, difference(mine.dce, theirs.dce, mine.predictions)


def _between(cells: list[tuple[str, Result]], first: str) -> Iterator[Between]:
    """The same cells of several runs; what one run alone has is left out."""
    key = lambda r: (r.site, r.family, r.d_sae, r.level, r.seed, r.variant)  # noqa: E731
    of_first = {key(r): r for run, r in cells if run == first}
    for run, r in cells:
        if run == first or (other := of_first.get(key(r))) is None:
            continue
        kl, dce = _in_the_host(r, other) or (None, None)
        l0, fvu = (L0.of(r), L0.of(other)), FVU.of(r) / FVU.of(other) - 1
        yield Between(_group(run, r), r.level, r.seed, r.variant, first, l0, fvu, kl, dce)


def difference(
    mine: Sequence[float] | np.ndarray,
    theirs: Sequence[float] | np.ndarray,
    counts: Sequence[float] | np.ndarray,
) -> Difference:
    """The difference of two ratios of sums over the same groups, with its bootstrap interval over groups.

    Args:
        mine: The sum of each group.
        theirs: What is subtracted.
        counts: The size of each group, the same for both.
    """
    gaps = [a - b for a, b in zip(mine, theirs, strict=True)]
    return Difference(float(sum(gaps) / sum(counts)), stats.ratio_interval(gaps, counts))


# --- side by side ----------------------------------------------------------------------------------------------


def controls_of(results: Sequence[Result]) -> dict[str, Result]:
    """The control of each upgrade's start and tuned cell, by `Result.cell`: same group, level and seed."""
    controls = {(r.group, r.level, r.seed, r.control): r for r in results if r.role is Role.CONTROL}
    upgrades = [r for r in results if r.role in (Role.START, Role.TUNED)]
    found = {r.cell: controls.get((r.group, r.level, r.seed, r.control)) for r in upgrades}
    return {cell: control for cell, control in found.items() if control is not None}
