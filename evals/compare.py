"""Runs compared: differences at matched l0, Pareto fronts, hypervolumes, the teacher's sweet zone, wins and losses.

No figure of a rational SAE is given without its control's. A *group* is one family and width at one hook point of one
run; its cells differ in variant, level of sparsity and seed. Seeds are the independent repetitions: a standard error is
over seeds, and a win needs three of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evals.report.table import place, print_lines, probed, read_results, row
from rsae.support.errors import InputError, did_you_mean

Row = dict[str, Any]

#: So far beyond the control's smallest and largest l0 its front is prolonged
_BEYOND = 1.1
#: A win or a loss is a mean difference over so many seeds, of more than so many standard errors
_SEEDS, _ERRORS = 3, 2.0


@dataclass(frozen=True)
class Measure:
    """A figure to compare: whether more is better, and whether it is compared as a ratio."""

    key: str
    heading: str
    more: bool = False
    ratio: bool = False

    def cost(self, value: float) -> float:
        """The figure so that less is better."""
        return -value if self.more else value

    def difference(self, value: float, reference: float) -> float:
        """Relative for a ratio, else absolute."""
        return value / reference - 1 if self.ratio else value - reference


ERRORS = (
    Measure("mse", "MSE", ratio=True),
    Measure("fvu", "FVU", ratio=True),
    Measure("dce", "dCE"),
)
#: What SAEs of different families and widths are compared by; alive is a share, 1 - dead
AGAINST_REFERENCE = (
    Measure("r2", "R^2", more=True),
    Measure("alive", "alive", more=True),
    Measure("loss_recovered", "LR", more=True),
)


def compare(
    runs: Sequence[str | os.PathLike], reference: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Compare the cells of runs: lists of records under `matched`, `fronts`, `sweet_zone` and `tally`.

    matched: a variant's figures minus its control's at the same l0. fronts: the non-dominated cells of each variant,
    and their hypervolume. sweet_zone: how many cells strictly dominate the teacher that they come from, for each
    variant and its control. tally: wins, ties and losses, against the control (at matched l0) and the teacher.
    With a `reference`, FAMILY-D_SAE such as `gated-1536`, also `reference`: the figures of every other family and width
    of trained SAEs, of upgrades none, minus the reference's at the same l0.
    """
    rows = [row(result) | {"run": Path(run).name} for run in runs for result in read_results(run)]
    groups = [list(members) for _, members in groupby(sorted(rows, key=_group), key=_group)]
    measures = (*ERRORS, *(Measure(k, f"probing {k}", more=True) for k in _probes(rows)))
    return {
        "matched": [r for group in groups for r in _matched(group, measures)],
        "fronts": [r for group in groups for r in _fronts(group, measures)],
        "sweet_zone": [r for group in groups for r in _sweet_zone(group)],
        "tally": _tally(groups, measures),
    } | ({"reference": _against(groups, reference)} if reference else {})


def _group(r: Row) -> tuple:
    return tuple(str(r.get(key, "")) for key in ("run", "host", "hook", "family", "d_sae"))


def _about(r: Row) -> dict[str, Any]:
    return {key: r.get(key) for key in ("run", "host", "hook", "family", "d_sae")}


def _probes(rows: list[Row]) -> list[str]:
    return sorted({k for r in rows for k in probed(r)}, key=lambda k: int(k[1:]))


def _upgraded(group: list[Row]) -> dict[str, str]:
    """The fine-tuned rational variants of a group, and each one's control."""
    return {r["variant"]: r["control"] for r in group if r["control"] and not r["variant"].endswith("-init")}


def _of(group: list[Row], variant: str) -> list[Row]:
    return [r for r in group if r["variant"] == variant]


def mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its standard error (None for a single value), of `n` values."""
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    return {"mean": float(np.mean(values)), "se": error, "n": n}


# --- at matched l0 ---------------------------------------------------------------------------------------------


def on_front(l0: float, controls: list[Row], measure: Measure) -> float | None:
    """A control's figure at `l0`: linear in log l0 between the cells of its front; a ratio's logarithm is linear.

    Errors are taken on the Pareto front; probing accuracies, which need not grow with l0, on all cells. None where
    `l0` lies more than 10 % outside, or there are fewer than two cells.
    """
    points = [(math.log(r["l0"]), r[measure.key]) for r in controls if r["l0"] > 0]
    if not measure.more:
        points = [points[i] for i in front(points)]
    points.sort()
    if len(points) < 2 or l0 <= 0:
        return None
    at, edge = math.log(l0), math.log(_BEYOND)
    if not points[0][0] - edge <= at <= points[-1][0] + edge:
        return None
    i = int(np.clip(np.searchsorted([p[0] for p in points], at), 1, len(points) - 1))
    (x0, y0), (x1, y1) = points[i - 1], points[i]
    if x1 == x0:
        return y0
    if measure.ratio:
        y0, y1 = math.log(y0), math.log(y1)
    value = y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return math.exp(value) if measure.ratio else value


def _differences(members: list[Row], references: list[Row], measure: Measure) -> dict[tuple[Any, Any], float]:
    """By (level, seed): a cell's figure against the references' of the same seed at the same l0."""
    found = {}
    for r in members:
        controls = [c for c in references if c.get("seed") == r.get("seed")]
        reference = on_front(r["l0"], controls, measure)
        if reference is not None:
            found[r.get("level"), r.get("seed")] = measure.difference(r[measure.key], reference)
    return found


def _over_seeds(differences: dict[tuple[Any, Any], float]) -> list[float]:
    """Each seed's mean over its levels."""
    by_seed: dict[Any, list[float]] = {}
    for (_, seed), value in differences.items():
        by_seed.setdefault(seed, []).append(value)
    return [float(np.mean(values)) for _, values in sorted(by_seed.items(), key=lambda item: str(item[0]))]


def _matched(group: list[Row], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    records = []
    for variant, control in _upgraded(group).items():
        found = {m.key: _differences(_of(group, variant), _of(group, control), m) for m in measures}
        cells = len(found["fvu"])
        if not cells:
            continue
        seeds = _over_seeds(found["fvu"])
        figures = {key: mean_and_error(_over_seeds(d)) for key, d in found.items() if d}
        about = {"variant": variant, "control": control, "seeds": len(seeds), "cells": cells}
        records.append(_about(group[0]) | about | {"outside": len(_of(group, variant)) - cells} | figures)
    return records


def _against(groups: list[list[Row]], reference: str) -> list[dict[str, Any]]:
    """Each family's and width's teachers against those of `reference` at the same hook point and of the same seed."""
    names = [f"{g[0]['family']}-{g[0].get('d_sae')}" for g in groups]
    if reference not in names:
        raise InputError(
            f"reference {reference!r} is not among the results{did_you_mean(reference, set(names))}"
        )
    records = []
    for group, name in zip(groups, names, strict=True):
        if name == reference:
            continue
        place = [group[0].get(key) for key in ("run", "host", "hook")]
        theirs = [
            r
            for other, called in zip(groups, names, strict=True)
            if called == reference and [other[0].get(key) for key in ("run", "host", "hook")] == place
            for r in _of(other, "teacher")
        ]
        mine = _of(group, "teacher")
        found = {m.key: _differences(mine, theirs, m) for m in AGAINST_REFERENCE}
        cells = len(found["r2"])
        if not cells:
            continue
        seeds = _over_seeds(found["r2"])
        records.append(
            _about(group[0])
            | {"reference": reference, "seeds": len(seeds), "cells": cells, "outside": len(mine) - cells}
            | {m.key: mean_and_error(_over_seeds(found[m.key])) for m in AGAINST_REFERENCE}
            | {"verdicts": {m.key: verdict(_over_seeds(found[m.key]), m) for m in AGAINST_REFERENCE}}
        )
    return records


# --- fronts ----------------------------------------------------------------------------------------------------


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other is as good as in both coordinates and better in one; less is better."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    best, kept = math.inf, []
    for i in order:
        if points[i][1] < best:
            best = points[i][1]
            kept.append(i)
    return kept


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that the points dominate up to `reference`; less is better in both coordinates."""
    inside = [p for p in points if p[0] < reference[0] and p[1] < reference[1]]
    area, top = 0.0, reference[1]
    for x, y in (inside[i] for i in front(inside)):
        area += (reference[0] - x) * (top - y)
        top = y
    return area


def _fronts(group: list[Row], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """For each pair of axes and each variant with its control: the front over all seeds, and hypervolumes.

    The hypervolume is of one seed's cells, in the rectangle that the group's cells span, as a share of it; l0 enters
    as its logarithm. Mean and standard error are over seeds.
    """
    axes: list[tuple[str, Callable[[Row], float], Measure]] = [
        ("l0", lambda r: math.log(max(r["l0"], 1e-9)), m) for m in measures
    ]
    axes.append(("alive", lambda r: -r["alive"], ERRORS[0]))
    upgraded = _upgraded(group)
    variants = ["teacher", *dict.fromkeys(v for pair in upgraded.items() for v in pair)]
    variants = [v for v in variants if _of(group, v)]  # a run that is not finished may lack some
    records = []
    for x, cost, measure in axes if upgraded else ():
        points = {v: [(cost(r), measure.cost(r[measure.key])) for r in _of(group, v)] for v in variants}
        everyone = np.array([p for v in variants for p in points[v]])
        low, high = everyone.min(0), everyone.max(0)
        span = np.where(high > low, high - low, 1.0)
        for variant in variants:
            members = _of(group, variant)
            scaled = [tuple((np.array(p) - low) / span) for p in points[variant]]
            seeds = sorted({r.get("seed") for r in members}, key=str)
            volumes = [
                hypervolume(
                    [p for p, r in zip(scaled, members, strict=True) if r.get("seed") == s], (1.0, 1.0)
                )
                for s in seeds
            ]
            records.append(
                _about(group[0])
                | {
                    "x": x,
                    "y": measure.key,
                    "variant": variant,
                    "control": upgraded.get(variant),
                    "front": [
                        {k: members[i].get(k) for k in (x, measure.key, "level", "seed")}
                        for i in front(points[variant])
                    ],
                    "hypervolume": mean_and_error(volumes),
                }
            )
    return records


# --- the teacher -----------------------------------------------------------------------------------------------


def _sweet_zone(group: list[Row]) -> list[dict[str, Any]]:
    """Cells that strictly dominate their own teacher, in (MSE, l0) and in (MSE, alive)."""
    teachers = {(r.get("level"), r.get("seed")): r for r in _of(group, "teacher")}

    def count(variant: str) -> tuple[int, int, int]:
        pairs = [(r, teachers.get((r.get("level"), r.get("seed")))) for r in _of(group, variant)]
        known = [(r, t) for r, t in pairs if t is not None]
        better = [(r, t) for r, t in known if r["mse"] < t["mse"]]
        return (
            sum(r["l0"] < t["l0"] for r, t in better),
            sum(r["alive"] > t["alive"] for r, t in better),
            len(known),
        )

    records = []
    for variant, control in _upgraded(group).items():
        (l0, alive, cells), (control_l0, control_alive, control_cells) = count(variant), count(control)
        figures = {"l0": l0, "alive": alive, "cells": cells}
        theirs = {"l0": control_l0, "alive": control_alive, "cells": control_cells}
        records.append(
            _about(group[0])
            | {"variant": variant, "control": control, "figures": figures, "controls": theirs}
        )
    return records


def verdict(differences: Sequence[float], measure: Measure) -> str:
    """`win`, `tie` or `loss` of three seeds or more, by two standard errors; `open` with fewer seeds."""
    if len(differences) < _SEEDS:
        return "open"
    summary = mean_and_error(differences)
    mean, error = summary["mean"], summary["se"]
    assert mean is not None
    assert error is not None
    if abs(mean) <= _ERRORS * error:
        return "tie"
    return "win" if (mean > 0) == measure.more else "loss"


def _tally(groups: list[list[Row]], measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Verdicts counted over groups and levels, for each variant: against its control and, both, against the teacher."""
    counts: dict[tuple[str, str, str], dict[str, int]] = {}

    def count(variant: str, against: str, measure: Measure, found: dict[tuple[Any, Any], float]) -> None:
        outcome = counts.setdefault(
            (variant, against, measure.key), dict.fromkeys(("win", "tie", "loss", "open"), 0)
        )
        for level in {level for level, _ in found}:
            outcome[verdict([d for (at, _), d in found.items() if at == level], measure)] += 1

    for group in groups:
        teachers = {(r.get("level"), r.get("seed")): r for r in _of(group, "teacher")}
        upgraded = _upgraded(group)
        for measure in measures:
            for variant, control in upgraded.items():
                found = _differences(_of(group, variant), _of(group, control), measure)
                count(variant, control, measure, found)
            for variant in dict.fromkeys(v for pair in upgraded.items() for v in pair):
                own = {(r.get("level"), r.get("seed")): r for r in _of(group, variant)}
                found = {
                    at: measure.difference(r[measure.key], teachers[at][measure.key])
                    for at, r in own.items()
                    if at in teachers
                }
                count(variant, "teacher", measure, found)
    return [
        {"variant": variant, "against": against, "measure": measure} | outcome
        for (variant, against, measure), outcome in counts.items()
    ]


# --- for reading -----------------------------------------------------------------------------------------------


class Printed(NamedTuple):
    """A table for reading: its title, its headings, its lines of text."""

    title: str
    headings: list[str]
    lines: list[list[str]]


def print_comparison(
    runs: Sequence[str | os.PathLike], markdown: bool = False, reference: str | None = None
) -> dict[str, Any]:
    """Print what `compare` finds, as far as there are fronts to compare, and return it."""
    found = compare(runs, reference)
    for table in tables(found):
        if markdown:
            print(f"\n{table.title}\n")
        print_lines(*table, markdown)
    return found


def tables(found: dict[str, list[dict[str, Any]]]) -> list[Printed]:
    """What `compare` found, as tables; those of fronts only where some cell has a matched l0."""
    printed = []
    if against := found.get("reference"):
        lines = [
            [
                place(r),
                f"- {r['reference']}",
                f"{r['cells']} ({r['outside']} outside)",
                str(r["seeds"]),
                *(f"{_plus_minus(r[m.key], '{:+.4f}')} ({r['verdicts'][m.key]})" for m in AGAINST_REFERENCE),
            ]
            for r in against
        ]
        headings = ["place", "difference", "cells", "seeds", *(m.heading for m in AGAINST_REFERENCE)]
        title = f"at matched l0, minus {against[0]['reference']}; mean +- standard error over seeds"
        printed.append(Printed(title, headings, lines))
    matched = found["matched"]
    if not matched:
        return printed
    keys = list(dict.fromkeys(k for r in matched for k in r if isinstance(r[k], dict)))
    formats = {"mse": "{:+.1%}", "fvu": "{:+.1%}", "dce": "{:+.4f}"}
    lines = [
        [
            place(r),
            f"{r['variant']} - {r['control']}",
            f"{r['cells']} ({r['outside']} outside)",
            str(r["seeds"]),
            *(_plus_minus(r.get(k), formats.get(k, "{:+.3f}"), r["seeds"]) for k in keys),
        ]
        for r in matched
    ]
    headings = ["place", "difference", "cells", "seeds", *(_heading(k) for k in keys)]
    printed.append(Printed("at matched l0, mean +- standard error over seeds", headings, lines))

    volumes: dict[tuple[str, str], dict[str, str]] = {}
    for r in found["fronts"]:
        text = _plus_minus(r["hypervolume"], "{:.3f}")
        volumes.setdefault((place(r), r["variant"]), {})[f"{r['y']} / {r['x']}"] = text
    headings = list(next(iter(volumes.values())))
    lines = [[*at, *(texts.get(h, "–") for h in headings)] for at, texts in volumes.items()]
    title = "hypervolume of the fronts (more is better)"
    printed.append(Printed(title, ["place", "variant", *headings], lines))

    lines = [
        [place(r), r["variant"], *_zone(r["figures"]), r["control"], *_zone(r["controls"])]
        for r in found["sweet_zone"]
    ]
    headings = ["place", "variant", "MSE and l0", "MSE and alive", "control", "MSE and l0", "MSE and alive"]
    printed.append(Printed("cells that strictly dominate their teacher", headings, lines))

    tally: dict[tuple[str, str], dict[str, str]] = {}
    for r in found["tally"]:
        text = f"{r['win']}/{r['tie']}/{r['loss']}" + (f" ({r['open']} open)" if r["open"] else "")
        tally.setdefault((r["variant"], r["against"]), {})[r["measure"]] = text
    headings = list(next(iter(tally.values())))
    lines = [[*at, *(texts.get(h, "–") for h in headings)] for at, texts in tally.items()]
    title = f"win/tie/loss by {_ERRORS:g} standard errors; open with fewer than {_SEEDS} seeds"
    printed.append(Printed(title, ["variant", "against", *map(_heading, headings)], lines))
    return printed


def _heading(key: str) -> str:
    return next((m.heading for m in ERRORS if m.key == key), f"probing {key}")


def _plus_minus(figure: dict[str, float | None] | None, form: str, seeds: float | None = None) -> str:
    """Mean and error as text, with the number of seeds where it is not `seeds`."""
    if figure is None:
        return "–"
    error = figure["se"]
    text = form.format(figure["mean"]) + ("" if error is None else " ± " + form.format(error).lstrip("+"))
    return text if seeds is None or figure["n"] == seeds else f"{text} (n = {figure['n']})"


def _zone(counts: dict[str, int]) -> list[str]:
    return [f"{counts[k]} of {counts['cells']}" for k in ("l0", "alive")]
