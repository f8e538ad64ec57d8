"""One self-contained HTML page: it opens without a network, on a phone too, in the dark and in print."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from evals.report import figures
from evals.report.table import against_control, cells, columns_of, probed, read_results, row
from rsae.errors import InputError
from rsae.files import read_json, writing

TITLES = {"relu": "ReLU", "jump_relu": "JumpReLU", "top_k": "TopK"}


def write_report(run: str | os.PathLike) -> Path:
    """Write `report.html` into a run's directory from its `results` and `fits`, and return its path."""
    run = Path(run)
    results = read_results(run)
    if not (run / "fits").is_dir():
        raise InputError(
            f"{run} is no run of `evals demo`, which the report is of; print it with `evals compare {run}`"
        )
    rows = [row(result) for result in results]
    columns = columns_of(rows)
    families = []
    for name in dict.fromkeys(r["family"] for r in results):
        curves = read_json(run / "fits" / f"{name}-curves.json")
        trained = {r["variant"]: r["gate"] for r in results if r["family"] == name and r["gate"]}
        trained = {variant: gate for variant, gate in trained.items() if not variant.endswith("-init")}
        members = [r for r in rows if r["family"] == name]
        families.append(
            {
                "name": name,
                "title": TITLES.get(name, name),
                "rows": [(r["variant"], cells(r, columns)) for r in members],
                "curves": curves,
                "pareto": _figure(figures.pareto(members)),
                "gates": _figure(figures.gates(curves, trained)),
                "errors": _figure(figures.errors(curves)),
                "probing": _probing(results, name),
            }
        )
    environment = Environment(
        loader=PackageLoader("evals.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        plotly=get_plotlyjs(),
        columns=columns,
        families=families,
        pairs=against_control(rows),
        titles=TITLES,
        record=results[0],
        config=json.dumps(results[0]["config"], indent=2),
    )
    with writing(run / "report.html") as temporary:
        temporary.write_text(page)
    return run / "report.html"


def _figure(figure: go.Figure) -> str:
    return figure.to_html(
        full_html=False, include_plotlyjs=False, config={"responsive": True, "displayModeBar": False}
    )


def _probing(results: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A family's probing accuracies by task: variants down, tasks across, at each k."""
    members = [r for r in results if r["family"] == name]
    tasks = members[0]["metrics"]["probing"]
    ks = probed(next(iter(tasks.values())))
    return {
        "tasks": [(task, f"{figures_['dense']:.2f}") for task, figures_ in tasks.items()],
        "rows": [
            (
                r["variant"],
                [" / ".join(f"{r['metrics']['probing'][task][k]:.2f}" for k in ks) for task in tasks],
            )
            for r in members
        ],
    }
