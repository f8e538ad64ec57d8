"""The fronts as PNG files, for documents: one image a site, families down, planes across."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from approx.plot import figure, legend
from evals.measures import KL, LOSS_RECOVERED, MSE, R2, probings
from evals.report.figures import Axes, Looks, limits, on_front, planes, sweet_zone
from evals.report.names import place
from evals.results import Result, Role, read_results
from evals.stats import Estimate
from rsae.support.files import writing


def write_images(run: str | os.PathLike, directory: str | os.PathLike) -> list[Path]:
    """Write a run's fronts as PNG files.

    For each site `fronts-SITE.png`: MSE, KL and probing with the most latents up to five against honest l0, and MSE
    against alive. (At one site FVU is MSE times a constant.) A run of trained SAEs alone gives one image,
    `families.png`.

    Args:
        run: The run's directory.
        directory: Where to write.

    Returns:
        The files.
    """
    results = read_results(run)
    looks, shown = Looks(results), _shown(results)
    if looks.alone:
        return [_families(results, looks, Path(directory))]
    written = []
    for site, at in groupby(results, key=lambda r: r.site):
        groups = [(group, list(members)) for group, members in groupby(at, key=lambda r: r.group)]
        size = (3.4 * len(shown), 2.7 * len(groups) + 0.6)
        made, axes = figure(len(groups), len(shown), size=size)
        for line, (group, members) in zip(axes, groups, strict=True):
            for ax, plane in zip(line, shown, strict=True):
                _panel(ax, members, plane, looks)
            line[0].set_title(place(*group), loc="left", fontsize=9)
        legend(made, axes, 8)
        name = re.sub(r"[^a-z0-9]+", "-", f" {site}".lower()).rstrip("-")
        written.append(_save(made, Path(directory) / f"fronts{name}.png"))
    return written


def _save(made: Any, file: Path) -> Path:
    with writing(file) as temporary:
        made.savefig(temporary, format="png")
    return file


def _families(results: Sequence[Result], looks: Looks, directory: Path) -> Path:
    """R^2, dead share and loss recovered against honest l0: sites down, a line a family and width.

    Points are means over the seeds of a level, bars standard errors (arXiv 2605.28149's figure).
    """
    figures = (
        ("R^2", R2.of),
        ("dead", lambda r: 1 - r.metrics.reconstruction.alive),
        ("loss recovered", LOSS_RECOVERED.of),
    )
    sites = [(site, list(at)) for site, at in groupby(results, key=lambda r: r.site)]
    made, axes = figure(len(sites), len(figures), size=(3.4 * len(figures), 2.5 * len(sites) + 0.5))
    for line, (site, members) in zip(axes, sites, strict=True):
        for ax, (heading, value) in zip(line, figures, strict=True):
            places: list[float] = []
            for name, own in looks.series(members).items():
                look = looks.style(own[0])
                levels = [
                    [r for r in own if r.level == level] for level in dict.fromkeys(r.level for r in own)
                ]
                x = [Estimate.of([r.metrics.reconstruction.l0 for r in cells]).mean for cells in levels]
                y = [Estimate.of([value(r) for r in cells]) for cells in levels]
                places += [place for place in x if place > 0]
                ax.errorbar(
                    x,
                    [estimate.mean for estimate in y],
                    [estimate.se or 0.0 for estimate in y],
                    color=look.colour,
                    marker=look.marker,
                    markersize=4.5,
                    linewidth=1,
                    capsize=2,
                    label=name,
                )
            if heading == "dead":
                ax.set_ylim(0, max(0.05, ax.get_ylim()[1]))
            _logarithmic(ax, "x", max(places, default=1.0) / min(places, default=1.0))
            _name(ax, "honest l0", heading)
        line[0].set_title(str(site), loc="left", fontsize=9)
    legend(made, axes, 8)
    return _save(made, directory / "families.png")


def _shown(results: Sequence[Result]) -> list[Axes]:
    few = [measure.key for measure in probings(results) if measure.key in ("k1", "k2", "k3", "k4", "k5")]
    return [axes for axes in planes(results) if axes.y.key in (MSE.key, KL.key, *few[-1:])]


def _panel(ax: Any, members: Sequence[Result], axes: Axes, looks: Looks) -> None:
    """A group's cells in a plane: seeds as points, fronts as lines, the teachers' sweet zone shaded."""
    members = [r for r in members if r.role not in (Role.START, Role.BASELINE)]
    zone = sweet_zone(members, axes)
    ax.fill(*zone, color="#3caa5a", alpha=0.13, linewidth=0, label="dominates the teacher")
    for name, cells in looks.series(members).items():
        look = looks.style(cells[0])
        style = {"color": look.colour, "marker": look.marker, "markersize": 4.5, "markeredgewidth": 0}
        along = on_front(cells, axes)
        ax.plot([axes.x.of(r) for r in along], [axes.y.of(r) for r in along], color=look.colour, linewidth=1)
        ax.plot(
            [axes.x.of(r) for r in cells],
            [axes.y.of(r) for r in cells],
            linestyle="",
            alpha=0.85,
            label=name,
            **style,
        )
    for measure, log, name in ((axes.x, axes.log_x, "x"), (axes.y, axes.log_y, "y")):
        low, high = limits(members, measure, log)
        if log:
            _logarithmic(ax, name, high / low)
        ax.set(**{f"{name}lim": (low, high)})
    _name(ax, axes.x_heading, axes.y.heading)


def _logarithmic(ax: Any, name: str, ratio: float) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    ax.set(**{f"{name}scale": "log"})
    axis = getattr(ax, f"{name}axis")
    # three places at least, however short the range is
    subs = (1, 1.5, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 100 else (1,)
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]) if ratio < 4 else LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.minorticks_off()


def _name(ax: Any, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    ax.tick_params(labelsize=7)
