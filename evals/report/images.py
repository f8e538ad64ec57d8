"""The fronts as PNG files, for documents: one image a hook point, families down, planes across."""

from __future__ import annotations

import os
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from approx.plot import figure
from evals.compare import mean_and_error
from evals.report.figures import UPGRADES, Axes, Style, limits, on_front, planes, styles, sweet_zone
from evals.report.table import place, probed, read_results, row
from rsae.files import writing


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

    def where(r: dict[str, Any]) -> str:
        return " ".join(filter(None, [Path(str(r.get("host") or "")).name, r.get("hook")]))

    for name, at in groupby(rows, key=where):
        groups = [(title, list(members)) for title, members in groupby(at, key=place)]
        size = (3.4 * len(shown), 2.7 * len(groups) + 0.6)
        made, axes = figure(len(groups), len(shown), size=size)
        for line, (title, members) in zip(axes, groups, strict=True):
            for ax, plane in zip(line, shown, strict=True):
                _panel(ax, members, plane, looks)
            line[0].set_title(title, loc="left", fontsize=9)
        handles: dict[str, Any] = {}
        for ax in axes.flat:
            handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        made.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=8, fontsize=8, frameon=False
        )
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
    places = [(name, list(at)) for name, at in groupby(rows, key=lambda r: r.get("hook"))]
    made, axes = figure(len(places), len(figures), size=(3.4 * len(figures), 2.5 * len(places) + 0.5))
    names = sorted({(r["family"], r.get("d_sae")) for r in rows}, key=str)
    for line, (title, members) in zip(axes, places, strict=True):
        for ax, (heading, value) in zip(line, figures, strict=True):
            for (family, d_sae), (colour, _, marker) in zip(names, _lines(len(names)), strict=True):
                own = [r for r in members if (r["family"], r.get("d_sae")) == (family, d_sae)]
                levels = [[r for r in own if r["level"] == l] for l in dict.fromkeys(r["level"] for r in own)]
                points = sorted(
                    (mean_and_error([r["l0"] for r in cells])["mean"], mean_and_error([*map(value, cells)]))
                    for cells in levels
                )
                ax.errorbar(
                    [x for x, _ in points],
                    [y["mean"] for _, y in points],
                    [y["se"] or 0.0 for _, y in points],
                    color=colour,
                    marker=marker,
                    markersize=4.5,
                    linewidth=1,
                    capsize=2,
                    label=f"{family} {d_sae}",
                )
            if heading == "dead":
                ax.set_ylim(0, max(0.05, ax.get_ylim()[1]))
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(_ticks())
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.set_xlabel("honest l0", fontsize=8)
            ax.set_ylabel(heading, fontsize=8)
            ax.tick_params(labelsize=7)
        line[0].set_title(title, loc="left", fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=8, fontsize=8, frameon=False)
    with writing(directory / "families.png") as temporary:
        made.savefig(temporary, format="png")
    return directory / "families.png"


def _lines(count: int) -> list[Style]:
    return [Style(*UPGRADES[i % len(UPGRADES)]) for i in range(count)]


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
            ax.set(**{f"{name}scale": "log"})
            axis = getattr(ax, f"{name}axis")
            axis.set_major_locator(_ticks())
            axis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        ax.set(**{f"{name}lim": limits(rows, key, log)})
    ax.set_xlabel("honest l0" if axes.x == "l0" else "alive", fontsize=8)
    ax.set_ylabel(axes.heading, fontsize=8)
    ax.tick_params(labelsize=7)


def _ticks() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5))
