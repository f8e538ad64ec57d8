"""One self-contained HTML page: it opens without a network, on a phone too, in the dark and in print."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from evals.compare import compare, tables
from evals.config import SuiteConfig, to_toml
from evals.gates import fit_gate
from evals.report import figures
from evals.report.cards import read_cards
from evals.report.table import (
    against_control,
    cells,
    columns_of,
    controls_of,
    hook_point,
    place,
    probed,
    read_results,
    row,
)
from evals.suite import expected, finished, units
from rsae.support.files import writing

#: What a suite's cells differ in, beside variant and family
_KEYS = {"host": "host", "hook": "hook", "d_sae": "d_sae", "level": "level", "seed": "seed"}


def write_report(run: str | os.PathLike, reference: str | None = None) -> Path:
    """Write `report.html` into the directory of a demo's or a suite's run, and return its path.

    It shows the cells that are there, says which are missing, and fits and certifies the gates that `soft` cells start
    from where that has not been done. `reference` is that of `evals.compare`. Raises `InputError` where there are no
    result files.
    """
    run = Path(run)
    results = read_results(run)
    rows = [row(result) for result in results]
    columns, shown = columns_of(rows), _fronts(rows)
    looks = figures.styles([r for _, members in shown for r in members])
    fits = _fits(run, results)
    plots: dict[str, Any] = {}
    planes = figures.planes(rows)
    groups = []
    for number, (name, members) in enumerate(shown):
        for axes in planes:
            plots[f"front-{number}-{axes.name}"] = figures.pareto(members, axes, looks)
        groups.append(name)
    page = _template().render(
        plotly=get_plotlyjs(),
        columns=columns,
        meanings=[(column[1], column[3]) for column in columns],
        keys=[key for key in _KEYS if len({r.get(key) for r in rows}) > 1],
        table=_table(rows, columns),
        comparison=tables(compare([run], reference)),
        pairs=against_control(rows),
        groups=groups,
        with_controls=any(r["control"] for r in rows),
        planes=planes,
        gates=_gates(results, fits, plots),
        fits=[_fit(key, curves, plots) for key, curves in fits.items()],
        probing=_probing(results),
        cards=_cards(run, results),
        missing=missing(run, results),
        seeds=sorted({r["seed"] for r in results if "seed" in r}),
        sites=sorted({_where(r) for r in results}),
        notes=sorted({r["host_note"] for r in results if r.get("host_note")}),
        record=results[0],
        machines=sorted({r["machine"] for r in results}),
        versions=_versions(results),
        seconds=sum(r["seconds"] for r in results),
        config=_config(_latest(run, results)),
        plots=plots,
        place=place,
    )
    with writing(run / "report.html") as temporary:
        temporary.write_text(page)
    return run / "report.html"


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("evals.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _grouped(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Records of one family and width at one hook point together, with the group's name; they come in that order."""
    several = len({r.get("host") for r in records}) > 1

    def name(r: dict[str, Any]) -> str:
        return f"{r['host']} {place(r)}" if several else place(r)

    return [(key, list(members)) for key, members in groupby(records, key=name)]


def _fronts(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """What the fronts' panels show: a group each; for a run without upgrades a hook point, its families together."""
    if any(r["control"] for r in rows):
        return _grouped(rows)
    alone = [r | {"variant": f"{r['family']} {r.get('d_sae', '')}".strip()} for r in rows]
    return [(key, list(members)) for key, members in groupby(alone, key=hook_point)]


# --- cells -------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[dict[str, Any]], columns: tuple) -> list[dict[str, Any]]:
    """A line a cell: its text, its numbers for sorting, and its control's text beside each figure."""
    controls = controls_of(list(rows))
    lines = []
    for r in rows:
        control = controls.get(r["cell"])
        beside = cells(control, columns) if control else [""] * len(columns)
        values = [
            {
                "text": text,
                "value": r.get(column[0]),
                "control": other if r.get(column[0]) is not None else "",
            }
            for text, other, column in zip(cells(r, columns), beside, columns, strict=True)
        ]
        named = f"{r['control']} (missing)" if r["control"] and control is None else r["control"] or ""
        lines.append({"row": r, "control": named, "values": values})
    return lines


def _probing(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each group's probing accuracies by task: cells down, tasks across, at each k."""
    found = []
    for name, members in _grouped(results):
        if not (tasks := members[0]["metrics"]["probing"]):
            continue
        ks = probed(next(iter(tasks.values())))
        lines = [
            (
                " ".join(str(p) for p in (r["variant"], r.get("level"), _seed(r)) if p),
                [
                    " / ".join(f"{r['metrics']['probing'][task][k]:.2f}" for k in ks)
                    if task in r["metrics"]["probing"]
                    else "–"
                    for task in tasks
                ],
                r["variant"].startswith("control"),
            )
            for r in members
        ]
        heads = [(task, f"{one['dense']:.2f}") for task, one in tasks.items()]
        found.append({"name": name, "tasks": heads, "lines": lines, "ks": [k[1:] for k in ks]})
    return found


def _seed(r: dict[str, Any]) -> str:
    return f"s{r['seed']}" if "level" in r else ""


# --- gates -------------------------------------------------------------------------------------------------------


def _fits(run: Path, results: Sequence[dict[str, Any]]) -> dict[tuple[str, int, int], dict[str, Any]]:
    """The certified fits that `soft` cells start from, by family and type."""
    found = {}
    for r in results:
        upgrade = r["how"].get("upgrade", {})
        if upgrade.get("variant") == "soft":
            m, n = upgrade["type"]
            if (r["family"], m, n) not in found:
                found[r["family"], m, n] = fit_gate(run, r["family"], (m, n))[1]
    return found


def _fit(key: tuple[str, int, int], curves: dict[str, Any], plots: dict[str, Any]) -> dict[str, Any]:
    name = f"fit-{'-'.join(map(str, key))}"
    plots[name] = figures.errors(curves)
    return {"title": f"{key[0]}, type ({key[1]}, {key[2]})", "plot": name, "curves": curves}


def _gates(
    results: Sequence[dict[str, Any]], fits: dict[tuple[str, int, int], dict[str, Any]], plots: dict[str, Any]
) -> list[dict[str, Any]]:
    """A plot for each fine-tuned rational variant of each group."""
    found = []
    for name, members in _grouped(results):
        tuned = [r for r in members if r["control"] and not r["variant"].endswith("-init")]
        for variant in dict.fromkeys(r["variant"] for r in tuned):
            mine = [r for r in tuned if r["variant"] == variant]
            trained = [(r.get("level", ""), r["gate"]) for r in mine if r["gate"]]
            starts = [r["gate"] for r in members if r["variant"] == f"{variant}-init" and r["gate"]]
            start = mine[0]["how"]["start"]
            m, n = start["type"]
            curves = (
                fits.get((mine[0]["family"], m, n))
                if mine[0]["how"]["upgrade"]["variant"] == "soft"
                else None
            )
            about = {"title": f"{name} {variant}", "start": start, "curves": curves, "plot": None}
            if trained:
                about["plot"] = f"gate-{len(found)}"
                plots[f"gate-{len(found)}"] = figures.gates(trained, starts[0] if starts else None, curves)
            found.append(about)
    return found


# --- cards -------------------------------------------------------------------------------------------------------


def _cards(run: Path, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells with cards, each rational one followed by its control."""
    found = read_cards(run, results)
    controls = controls_of([row(result) for result in results])
    order: list[str] = []
    for cell in found:
        if cell not in order and not any(c["cell"] == cell and o in found for o, c in controls.items()):
            order += [
                cell,
                *([controls[cell]["cell"]] if cell in controls and controls[cell]["cell"] in found else []),
            ]
    order += [cell for cell in found if cell not in order]
    return [{"cell": cell, "cards": found[cell]} for cell in order]


# --- the run -----------------------------------------------------------------------------------------------------


def _where(r: dict[str, Any]) -> str:
    harvest = r["config"]["harvest"]
    return f"{r.get('host', harvest['host'])}, {r.get('hook', harvest['hook'])}"


def _latest(run: Path, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config of the newest result file: a suite's grid may have grown since the others."""
    newest = max(results, key=lambda r: (run / "results" / f"{r['cell']}.json").stat().st_mtime_ns)
    return newest["config"]


def _config(config: dict[str, Any]) -> str:
    return to_toml(SuiteConfig.as_given(config) if "sites" in config else config)


def missing(run: Path, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a suite's run lacks: units unfinished, of how many; cells by unit; `stale` where the config does not say.

    A demo measures all of a family's cells at once; there, families without cells are not looked for.
    """
    config = _latest(run, results)
    nothing: dict[str, Any] = {"units": 0, "unfinished": [], "cells": 0, "stale": ""}
    if "sites" not in config:
        return nothing
    try:
        suite = SuiteConfig.model_validate(SuiteConfig.as_given(config))
    except ValueError as error:  # such as a probing task's file that is not there any more
        return nothing | {"stale": str(error).splitlines()[0]}
    there = {r["cell"] for r in results}
    chosen, unfinished, cells_ = units(suite), [], 0
    for unit in chosen:
        if finished(suite, run, unit):
            continue
        names = expected(suite, unit)
        lacking = len(set(names) - there) if names is not None else None
        cells_ += lacking or 0
        unfinished.append({"unit": unit.name, "lacking": lacking})
    return nothing | {"units": len(chosen), "unfinished": unfinished, "cells": cells_}


def _versions(results: Sequence[dict[str, Any]]) -> dict[str, str]:
    """By package; all of them where cells were made with several."""
    found: dict[str, set[str]] = {}
    for r in results:
        for name, version in r["versions"].items():
            found.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(versions)) for name, versions in found.items()}
