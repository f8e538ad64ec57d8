"""The fronts as PNG files, for documents: one image a hook point, families down, planes across."""

from __future__ import annotations

import os
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from approx.plot import figure
from evals.report.figures import Axes, Style, limits, on_front, planes, styles, sweet_zone
from evals.report.table import place, probed, read_results, row
from rsae.files import writing


def write_images(run: str | os.PathLike, directory: str | os.PathLike) -> list[Path]:
    """Write `fronts-HOOK.png` for each hook point of a run into `directory`, and return the paths.

    MSE, dCE and probing with the most latents up to five against honest l0, and MSE against alive. (At one hook point
    FVU is MSE times a constant.)
    """
    rows = [row(result) for result in read_results(run)]
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
