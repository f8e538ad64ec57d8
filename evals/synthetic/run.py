"""One protocol from data to figure: a cell for each seed and point, resumable, one JSON and one picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from approx.plot import figure, legend
from evals.metrics.reconstruction import reconstruction
from evals.results import dump
from evals.stats import Estimate
from evals.synthetic.contenders import BATCH, CONTENDERS, DEAD_AFTER, LR
from evals.synthetic.worlds import NOISE
from rsae import SAE, Activations
from rsae.support.cache import Cache
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import write_json, writing
from rsae.support.progress import say

#: A row of a cell: which contender, at which point of the sweep, and its figures
Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """What is measured on one kind of world."""

    title: str
    """For the figure."""
    constants: dict[str, Any]
    """What the data are made with."""
    points: Sequence[Any]
    """Of the sweep."""
    measure: Callable[[Any, int, int], list[Row]]
    """(point, seed, steps) to the rows of a cell."""
    draw: Callable[[Any, list[Row], list[Row]], None]
    """(axes of `grid` panels, summary, rows): draws the figure."""
    grid: tuple[int, int]
    """Panels down and across."""


_MODULES = {"A": "polarity", "B": "anomaly", "C": "pairs"}


def run_protocol(name: str, out: str | os.PathLike, seeds: int = 3, steps: int = 1000) -> Path:
    """Run a protocol; a stopped run resumes, since each seed at a point of the sweep is kept in `out/steps`.

    Args:
        name: A, B or C.
        out: Directory for `protocol-NAME.json` (constants, a row for each SAE, means and standard errors over seeds)
            and `protocol-NAME.png`.
        seeds: How many worlds and starts to average over.
        steps: Training steps of each SAE.

    Returns:
        The path of the JSON file.

    Raises:
        InputError: for an unknown protocol.
    """
    if name not in _MODULES:
        raise InputError(f"protocol {name!r} is unknown{did_you_mean(name, _MODULES)}")
    out = Path(out)
    protocol: Protocol = import_module(f"evals.synthetic.{_MODULES[name]}").PROTOCOL
    cells = Cache(out / "steps")
    constants = protocol.constants | {
        "noise": NOISE,
        "training": {"steps": steps, "batch": BATCH, "lr": LR, "dead_after": DEAD_AFTER},
    }
    rows: list[Row] = []
    with _one_thread():
        for number, point in enumerate(protocol.points):
            for seed in range(seeds):
                made = cells.run(
                    f"{name}-{number}-{seed}",
                    [constants, point, seed],
                    lambda point=point, seed=seed: protocol.measure(point, seed, steps),
                )
                rows += [{"point": point, "seed": seed, **row} for row in made]
    summary = summarise(rows)
    result = out / f"protocol-{name}.json"
    write_json(
        result,
        {
            "protocol": name,
            "title": protocol.title,
            "constants": constants,
            "seeds": seeds,
            "summary": summary,
            "rows": rows,
        },
    )
    made, axes = figure(*protocol.grid, size=(4.6 * protocol.grid[1], 3.9 * protocol.grid[0]))
    protocol.draw(axes, summary, rows)
    legend(made, axes, 4)
    made.suptitle(f"Protocol {name}: {protocol.title} (mean and standard error, {seeds} seeds)", fontsize=10)
    with writing(out / f"protocol-{name}.png") as temporary:
        made.savefig(temporary, format="png")
    say(f"the result: {result}, and its figure beside it")
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """The matrices are tiny: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard error over seeds of every number, for each contender at each point of the sweep."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["contender"], str(row["point"])), []).append(row)
    return [
        {"contender": members[0]["contender"], "point": members[0]["point"]}
        | {
            metric: mean_and_error([m[metric] for m in members])
            for metric, value in members[0].items()
            if metric not in ("seed", "point") and isinstance(value, int | float)
        }
        for members in groups.values()
    ]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the mean (0 for a single value)."""
    found = Estimate.of(values)
    return found.mean, found.se or 0.0


def measured(sae: SAE, samples: Activations) -> Row:
    """The figures of `evals.reconstruction` that apply to `sae`, on the held-out part of `samples`."""
    return {name: value for name, value in dump(reconstruction(sae, samples)).items() if value is not None}


def curves(ax: Any, summary: Sequence[Row], x: Callable[[Row], Any], y: str) -> None:
    """Draw a line for each contender through its points, with error bars.

    Args:
        ax: Matplotlib axes.
        summary: Rows over all seeds.
        x: Gives a row's place, a number or mean and standard error.
        y: Name of the figure.
    """
    for name, contender in CONTENDERS.items():
        mine = [row for row in summary if row["contender"] == name]
        if not mine:
            continue
        at = [x(row) for row in mine]
        pairs = [a if isinstance(a, tuple | list) else (a, 0.0) for a in at]
        ax.errorbar(
            [p[0] for p in pairs],
            [row[y][0] for row in mine],
            xerr=[p[1] for p in pairs],
            yerr=[row[y][1] for row in mine],
            color=contender.color,
            marker=contender.marker,
            markersize=4,
            linewidth=1.1,
            elinewidth=0.8,
            label=contender.label,
        )
