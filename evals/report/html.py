"""One self-contained HTML page: it opens without a network, on a phone too, in the dark and in print.

It reads a run and shows what is there. Nothing is fitted, proven or measured here, and no host is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from evals.cards import read_cards
from evals.claims import Share, claims, shares
from evals.comparison import compare, controls_of
from evals.config import SuiteConfig
from evals.gates import Gate, read_gate
from evals.latents import Card
from evals.matching import read_stability
from evals.measures import DCE, FVU, L0, Measure, columns, probed
from evals.report import figures
from evals.report.environment import environment, source
from evals.report.names import Names
from evals.report.text import (
    Line,
    Table,
    claims_table,
    comparison_tables,
    pairs_table,
    stability_table,
    truth_table,
)
from evals.report.text import figures as texts_of
from evals.results import Result, Role, read_results
from evals.suite import finished, lacking, units
from evals.truth import read_truth
from rsae import InputError
from rsae.support.files import write_text


def write_report(run: str | os.PathLike, reference: str | None = None) -> Path:
    """Write `report.html` into a run's directory, with the cells that are there and what is missing.

    Args:
        run: The run's directory.
        reference: FAMILY-D_SAE, as in `evals.compare`.

    Returns:
        The page's path.

    Raises:
        InputError: where there are no result files.
    """
    run = Path(run)
    results = read_results(run)
    plots: dict[str, Any] = {}
    looks, planes = figures.Looks(results), figures.planes(results)
    panels = looks.panels(results)
    for number, (_, members) in enumerate(panels):
        for axes in planes:
            plots[f"front-{number}-{axes.name}"] = figures.pareto(members, axes, looks)
    gates = {key: gate for key in _soft(results) if (gate := read_gate(run, *key)) is not None}
    keys = _keys(results)
    compared, truth, stable = compare([run], reference), read_truth(run), read_stability(run, results)
    made = environment()
    page = made.get_template("report.html.j2").render(
        plotly=get_plotlyjs(),
        css=source(made, "report.css"),
        script=source(made, "report.js"),
        columns=columns(results),
        keys=list(keys),
        table=_table(results, keys),
        comparison=comparison_tables(compared),
        pairs=_pairs(results),
        paired=pairs_table(compared),
        claims=claims_table({"": claims(results)}),
        with_baselines=any(r.role is Role.BASELINE for r in results),
        by_position=[
            (title, _kept(plots, f"position-{number}", figures.by_position(members, looks)))
            for number, (title, members) in enumerate(panels)
            if any(r.metrics.downstream.by_position for r in members)
        ],
        truth=truth_table(truth),
        truth_plots=[
            (title, _kept(plots, f"truth-{number}", figure))
            for number, (title, figure) in enumerate(figures.truths(truth))
        ],
        stable=stability_table(stable, results),
        stable_plots=[
            (title, _kept(plots, f"stable-{number}", figure))
            for number, (title, figure) in enumerate(figures.stabilities(stable, results))
        ],
        groups=[title for title, _ in panels],
        with_controls=not looks.alone,
        planes=planes,
        gates=_trained(results, gates, plots),
        fits=[_fit(gate, plots) for gate in gates.values()],
        probing=_probing(results),
        cards=_cards(run, results),
        missing=missing(run, results),
        seeds=sorted({r.seed for r in results}),
        sites=sorted({f"{r.site.host}, {r.site.hooks}" for r in results}),
        notes=sorted({r.how.host_note for r in results if r.how.host_note}),
        first=results[0],
        machines=sorted({r.how.machine for r in results}),
        versions=_versions(results),
        seconds=sum(r.how.seconds for r in results),
        config=_config(run),
        plots=plots,
    )
    write_text(run / "report.html", page)
    return run / "report.html"


def _kept(plots: dict[str, Any], name: str, figure: dict[str, Any]) -> str:
    """Put a figure among the page's, and give its name."""
    plots[name] = figure
    return name


# --- cells -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A figure in the table of all cells."""

    text: str
    """As shown."""
    number: float | None
    """For sorting; None where it does not apply."""
    control: str
    """The control's text below it."""
    share: Share | None = None
    """Where it lies between the best baseline and the ceiling."""


@dataclass(frozen=True)
class CellLine:
    """A line of the table of all cells."""

    cell: str
    """The result file's name."""
    words: dict[str, str]
    """By column: variant, family, and what else the cells differ in."""
    control: str
    """Name of its control."""
    is_control: bool
    """Whether it is a control."""
    values: list[Value]
    """By measure."""


def _keys(results: Sequence[Result]) -> dict[str, Any]:
    """What cells differ in beside variant and family: how to read it off a cell, by its name."""
    known = {
        "host": lambda r: r.site.host,
        "hook": lambda r: r.site.hooks,
        "d_sae": lambda r: str(r.d_sae),
        "level": lambda r: str(r.level),
        "seed": lambda r: str(r.seed),
    }
    return {name: read for name, read in known.items() if len({read(r) for r in results}) > 1}


def _table(results: Sequence[Result], keys: dict[str, Any]) -> list[CellLine]:
    controls, shown = controls_of(results), columns(results)
    known = shares(results, shown)
    return [_line(r, controls.get(r.cell), keys, shown, known) for r in results]


def _line(
    r: Result,
    control: Result | None,
    keys: dict[str, Any],
    shown: Sequence[Measure],
    known: dict[tuple[str, str], Share],
) -> CellLine:
    beside = texts_of(control, shown) if control else [""] * len(shown)
    numbers = [measure.read(r) for measure in shown]
    values = [
        Value(text, number, other if number is not None else "", known.get((r.cell, m.key)))
        for m, text, number, other in zip(shown, texts_of(r, shown), numbers, beside, strict=True)
    ]
    named = r.control if r.upgrade else ""
    if r.upgrade and r.control and control is None:  # what is not fine-tuned has none
        named = f"{r.control} (missing)"
    words = {"variant": r.variant, "family": r.family, **{name: read(r) for name, read in keys.items()}}
    return CellLine(r.cell, words, named or "", r.role is Role.CONTROL, values)


def _pairs(results: Sequence[Result]) -> Table:
    """Each fine-tuned rational SAE beside its control, at the l0 that each has."""
    controls, names = controls_of(results), Names(results)
    lines = []
    for r in results:
        if not r.compared or (control := controls.get(r.cell)) is None:
            continue
        fvu, l0 = (round(m.of(r) / m.of(control) - 1, 3) + 0.0 for m in (FVU, L0))  # and no "-0.0%"
        beside = [m.form.format(m.of(cell)) for m in (L0, FVU) for cell in (r, control)]
        difference = f"{fvu:+.1%} FVU at {l0:+.1%} l0"
        costs = [DCE.form.format(DCE.of(cell)) for cell in (r, control)]
        lines.append(Line([names.cell(r), control.variant, *beside, difference, *costs]))
    headings = ["variant", "control", "l0", "control's", "FVU", "control's", "difference", "dCE", "control's"]
    return Table("side by side", headings, lines)


@dataclass(frozen=True)
class ProbingTable:
    """A group's probing accuracies."""

    name: str
    """The group."""
    tasks: list[tuple[str, str]]
    """Each task, and what a dense probe reaches."""
    lines: list[Line]
    """A cell each: its name, then its accuracies at each k by task."""
    ks: list[int]
    """Numbers of latents."""


def _probing(results: Sequence[Result]) -> list[ProbingTable]:
    names, found = Names(results), []
    for _, members in groupby(results, key=lambda r: r.group):
        group = list(members)
        tasks, ks = group[0].metrics.probing, probed(group[0])
        if not tasks:
            continue
        heads = [(t, f"{one.baseline.dense.value:.2f}" if one.baseline else "–") for t, one in tasks.items()]
        lines = [
            Line([names.within(r), *(_accuracies(r, task, ks) for task in tasks)], r.role is Role.CONTROL)
            for r in group
        ]
        found.append(ProbingTable(names.group(group[0]), heads, lines, ks))
    return found


def _accuracies(r: Result, task: str, ks: list[int]) -> str:
    if task not in r.metrics.probing:
        return "–"
    return " / ".join(f"{r.metrics.probing[task].accuracy[k].value:.2f}" for k in ks)


# --- gates -------------------------------------------------------------------------------------------------------

GateKey = tuple[str, tuple[int, int]]


def _soft(results: Sequence[Result]) -> list[GateKey]:
    """The gates that `soft` cells start from: family and type."""
    found = [
        (r.family, r.how.upgrade.type) for r in results if r.how.upgrade and r.how.upgrade.variant == "soft"
    ]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Drawn:
    """A gate with its plot."""

    title: str
    """What it is."""
    plot: str | None
    """Name of its plot, where there is one."""
    gate: Gate | None
    """The fits, for `soft`."""
    type: tuple[int, int]
    """Degrees of numerator and denominator."""


def _fit(gate: Gate, plots: dict[str, Any]) -> Drawn:
    name = f"fit-{gate.family}-{gate.type[0]}-{gate.type[1]}"
    plots[name] = figures.errors(gate)
    return Drawn(f"{gate.family}, type ({gate.type[0]}, {gate.type[1]})", name, gate, gate.type)


def _trained(results: Sequence[Result], gates: dict[GateKey, Gate], plots: dict[str, Any]) -> list[Drawn]:
    """A plot for each fine-tuned rational variant of each group."""
    names, found = Names(results), []
    for _, members in groupby(results, key=lambda r: r.group):
        group = list(members)
        for upgrade in dict.fromkeys(r.upgrade for r in group if r.compared):
            mine = [r for r in group if r.upgrade == upgrade]
            config = mine[0].how.upgrade
            assert config is not None  # an upgrade says how
            if config.variant == "pursuit":  # it has no rational magnitude
                continue
            gate = gates.get((mine[0].family, config.type)) if config.variant == "soft" else None
            trained = [(str(r.level), r.how.gate) for r in mine if r.compared and r.how.gate]
            starts = [r.how.gate for r in mine if r.role is Role.START and r.how.gate]
            drawn = Drawn(f"{names.group(mine[0])} {upgrade}", None, gate, config.type)
            if trained:
                drawn = replace(drawn, plot=f"gate-{len(found)}")
                plots[f"gate-{len(found)}"] = figures.gates(trained, starts[0] if starts else None, gate)
            found.append(drawn)
    return found


# --- cards -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CardSet:
    """Cells that started from one teacher, and their cards side by side."""

    cells: tuple[str, ...]
    """The cells: upgrades, then controls, then the teacher."""
    latents: tuple[tuple[tuple[str, Card], ...], ...]
    """For each latent the cells that show it, and their cards of it."""


def _cards(run: Path, results: Sequence[Result]) -> list[CardSet]:
    """Cells with cards, those that started from one teacher together."""
    found = read_cards(run, results)
    order = (Role.TUNED, Role.START, Role.SECOND_CONTROL, Role.CONTROL, Role.TEACHER)
    place = lambda r: (str(r.group), str(r.level), r.seed)  # noqa: E731
    shown = sorted((r for r in results if r.cell in found and r.role in order), key=place)
    sets = []
    for _, members in groupby(shown, key=place):
        cells = tuple(r.cell for r in sorted(members, key=lambda r: (order.index(r.role), r.variant)))
        by_latent: dict[int, list[tuple[str, Card]]] = {}
        for cell in cells:
            for card in found[cell]:
                by_latent.setdefault(card.latent, []).append((cell, card))
        sets.append(CardSet(cells, tuple(map(tuple, by_latent.values()))))
    return sets


# --- the run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unfinished:
    """A unit that lacks something."""

    unit: str
    """Its name."""
    lacking: int | None
    """How many cells at least; None where that is not known."""


@dataclass(frozen=True)
class Missing:
    """What a run lacks."""

    units: int = 0
    """How many units the suite has."""
    unfinished: tuple[Unfinished, ...] = ()
    """Those that lack something."""
    stale: str = ""
    """Why the suite's settings do not say, where they are not valid any more."""

    @property
    def cells(self) -> int:
        """How many cells are known to be missing."""
        return sum(unit.lacking or 0 for unit in self.unfinished)


def missing(run: str | os.PathLike, results: Sequence[Result]) -> Missing:
    """What a run lacks of the suite that it was last started with.

    Args:
        run: The run's directory.
        results: Its cells.
    """
    try:
        suite = SuiteConfig.read(Path(run) / "suite.toml")
    except InputError as error:  # such as a probing task's file that is not there any more
        return Missing(stale=str(error))
    every = units(suite)
    unfinished = tuple(
        Unfinished(unit.name, lacking(suite, unit, list(results)))
        for unit in every
        if not finished(suite, Path(run), unit)
    )
    return Missing(len(every), unfinished)


def _config(run: Path) -> str:
    file = run / "suite.toml"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _versions(results: Sequence[Result]) -> dict[str, str]:
    """By package; all of them where cells were made with several."""
    found: dict[str, set[str]] = {}
    for r in results:
        for name, version in r.how.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(versions)) for name, versions in found.items()}
