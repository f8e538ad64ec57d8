"""The fronts as PNG files, for documents: one image a hook point, families down, planes across."""

from __future__ import annotations

import os
import re
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

from approx.plot import figure, legend
from evals.compare import mean_and_error
from evals.report.figures import UPGRADES, Axes, Style, limits, on_front, planes, styles, sweet_zone
from evals.report.table import hook_point, place, probed, read_results, row
from rsae.support.files import writing


def write_images(run: str | os.PathLike, directory: str | os.PathLike) -> list[Path]:
    """Write `fronts-HOOK.png` for each hook point of a run into `directory`, and return the paths.

    MSE, dCE and probing with the most latents up to five against honest l0, and MSE against alive. (At one hook point
    FVU is MSE times a constant.) A run of trained SAEs alone gives one image, `families.png`.
    """
    rows = [row(result) for result in read_results(run)]
    if rows and not any(r["control"] for r in rows):
        return [_families(rows, Path(directory))]
    looks, shown = styles(rows), _shown(rows)
    written = []
    for name, at in groupby(rows, key=hook_point):
        groups = [(title, list(members)) for title, members in groupby(at, key=place)]
        size = (3.4 * len(shown), 2.7 * len(groups) + 0.6)
        made, axes = figure(len(groups), len(shown), size=size)
        for line, (title, members) in zip(axes, groups, strict=True):
            for ax, plane in zip(line, shown, strict=True):
                _panel(ax, members, plane, looks)
            line[0].set_title(title, loc="left", fontsize=9)
        legend(made, axes, 8)
        file = Path(directory) / f"fronts{re.sub(r'[^a-z0-9]+', '-', f' {name}'.lower()).rstrip('-')}.png"
        with writing(file) as temporary:
            made.savefig(temporary, format="png")
        written.append(file)
    return written


def _families(rows: list[dict[str, Any]], directory: Path) -> Path:
    """R^2, dead share and loss recovered against honest l0: hook points down, a line a family and width.

    Points are means over the seeds of a level, bars standard errors (arXiv 2605.28149's figure).
    """
    figures = (
        ("R^2", lambda r: 1 - r["fvu"]),
        ("dead", lambda r: 1 - r["alive"]),
        ("loss recovered", lambda r: r["loss_recovered"]),
    )
    places = [(name, list(at)) for name, at in groupby(rows, key=hook_point)]
    made, axes = figure(len(places), len(figures), size=(3.4 * len(figures), 2.5 * len(places) + 0.5))
    names = sorted({(r["family"], r.get("d_sae")) for r in rows}, key=str)
    for line, (title, members) in zip(axes, places, strict=True):
        for ax, (heading, value) in zip(line, figures, strict=True):
            for (family, d_sae), (colour, _, marker) in zip(names, cycle(UPGRADES), strict=False):
                own = [r for r in members if (r["family"], r.get("d_sae")) == (family, d_sae)]
                levels = [[r for r in own if r["level"] == l] for l in dict.fromkeys(r["level"] for r in own)]
                x = [mean_and_error([r["l0"] for r in cells])["mean"] for cells in levels]
                y = [mean_and_error([value(r) for r in cells]) for cells in levels]
                ax.errorbar(
                    x,
                    [figure["mean"] for figure in y],
                    [figure["se"] or 0.0 for figure in y],
                    color=colour,
                    marker=marker,
                    markersize=4.5,
                    linewidth=1,
                    capsize=2,
                    label=f"{family} {d_sae}",
                )
            if heading == "dead":
                ax.set_ylim(0, max(0.05, ax.get_ylim()[1]))
            _logarithmic(ax, "x")
            _name(ax, "honest l0", heading)
        line[0].set_title(title, loc="left", fontsize=9)
    legend(made, axes, 8)
    with writing(directory / "families.png") as temporary:
        made.savefig(temporary, format="png")
    return directory / "families.png"


def _shown(rows: list[dict[str, Any]]) -> list[Axes]:
    ks = [
        k for k in sorted({k for r in rows for k in probed(r)}, key=lambda k: int(k[1:])) if int(k[1:]) <= 5
    ]
    return [axes for axes in planes(rows) if axes.y in ("mse", "dce", *ks[-1:])]


def _panel(ax: Any, rows: list[dict[str, Any]], axes: Axes, looks: dict[str, Style]) -> None:
    """A group's cells in a plane: seeds as points, fronts as lines, the teachers' sweet zone shaded."""
    rows = [r for r in rows if not r["variant"].endswith("-init")]
    zone = sweet_zone(rows, axes)
    ax.fill(*zone, color="#3caa5a", alpha=0.13, linewidth=0, label="dominates the teacher")
    for variant in dict.fromkeys(r["variant"] for r in rows):
        members, look = [r for r in rows if r["variant"] == variant], looks[variant]
        style = {"color": look.colour, "marker": look.marker, "markersize": 4.5, "markeredgewidth": 0}
        along = on_front(members, axes)
        ax.plot([r[axes.x] for r in along], [r[axes.y] for r in along], color=look.colour, linewidth=1)
        ax.plot(
            [r[axes.x] for r in members],
            [r[axes.y] for r in members],
            linestyle="",
            alpha=0.85,
            label=variant,
            **style,
        )
    for key, log, name in ((axes.x, axes.x == "l0", "x"), (axes.y, axes.log_y, "y")):
        if log:
            _logarithmic(ax, name)
        ax.set(**{f"{name}lim": limits(rows, key, log)})
    _name(ax, "honest l0" if axes.x == "l0" else "alive", axes.heading)


def _logarithmic(ax: Any, name: str) -> None:
    from matplotlib.ticker import LogLocator

    ax.set(**{f"{name}scale": "log"})
    axis = getattr(ax, f"{name}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.minorticks_off()


def _name(ax: Any, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    ax.tick_params(labelsize=7)
