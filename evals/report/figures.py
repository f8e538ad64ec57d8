"""The report's figures: fronts, gates, errors of fits. The page's style sheet gives them its own ink, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import plotly.graph_objects as go

from evals.compare import front
from evals.report.table import probed

Row = dict[str, Any]


class Style(NamedTuple):
    """A variant's colour, and its marker in plotly and in matplotlib: told apart without colour, too."""

    colour: str
    symbol: str
    marker: str


_GREY = "#8a8f98"
UPGRADES = (
    ("#e4572e", "circle", "o"),
    ("#4361ee", "square", "s"),
    ("#9b3fb5", "triangle-up", "^"),
    ("#b8860b", "pentagon", "p"),
    ("#0b8fa4", "hexagon", "h"),
)
_CONTROLS = (
    ("#2a9d8f", "diamond", "D"),
    ("#6f9a3c", "diamond-tall", "d"),
    ("#5a7d9a", "triangle-down", "v"),
)
_LEVELS = ("#4361ee", "#e4572e", "#2a9d8f", "#9b3fb5", "#b8860b", "#0b8fa4")
_FITS = {"remez": "#e9a23b", "least_squares": "#4361ee", "minimax": "#e4572e"}
_GRID = "rgba(128,128,128,0.22)"


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """A style for each variant of a run, the same in all of its figures; an init has its upgrade's, hollow."""
    found = {"teacher": Style(_GREY, "star", "*")}
    variants = dict.fromkeys(r["variant"] for r in rows)
    controls = sorted({r["control"] for r in rows if r["control"]} | {v for v in variants if "control" in v})
    upgrades = sorted({r["variant"].removesuffix("-init") for r in rows if r["control"]})
    others = [
        v for v in variants if v not in {*controls, *upgrades, *(f"{u}-init" for u in upgrades), *found}
    ]
    for names, looks in ((controls, _CONTROLS), (upgrades + others, UPGRADES)):
        found |= {name: Style(*looks[i % len(looks)]) for i, name in enumerate(names)}
    for name in upgrades:
        colour, symbol, marker = found[name]
        found[f"{name}-init"] = Style(colour, f"{symbol}-open", marker)
    return found


@dataclass(frozen=True)
class Axes:
    """A plane of a front: x is honest l0 or alive, y a figure; `more`: whether more of it is better."""

    x: str
    y: str
    heading: str
    more_x: bool = False
    more_y: bool = False
    log_y: bool = False

    @property
    def name(self) -> str:
        return f"{self.y}-{self.x}"

    def cost(self, r: Row) -> tuple[float, float]:
        """The row in the plane, so that less is better in both coordinates."""
        return (-r[self.x] if self.more_x else r[self.x]), (-r[self.y] if self.more_y else r[self.y])


def planes(rows: Sequence[Row]) -> list[Axes]:
    """The planes that a run has figures for."""
    ks = sorted({k for r in rows for k in probed(r)}, key=lambda k: int(k[1:]))
    return [
        Axes("l0", "mse", "MSE", log_y=True),
        Axes("l0", "fvu", "FVU", log_y=True),
        Axes("l0", "dce", "dCE"),
        *(Axes("l0", k, f"probing, k = {k[1:]}", more_y=True) for k in ks),
        Axes("alive", "mse", "MSE", more_x=True, log_y=True),
    ]


def on_front(members: Sequence[Row], axes: Axes) -> list[Row]:
    """The non-dominated rows, in order along the front."""
    return [members[i] for i in front([axes.cost(r) for r in members])]


def sweet_zone(rows: Sequence[Row], axes: Axes) -> tuple[list[float], list[float]]:
    """Outline of what strictly dominates a teacher on the teachers' front, up to the edge of the rows' rectangle."""
    teachers = on_front([r for r in rows if r["variant"] == "teacher"], axes)
    if not teachers:
        return [], []
    (x_low, x_high), (y_low, y_high) = limits(rows, axes.x, axes.x == "l0"), limits(rows, axes.y, axes.log_y)
    best_x, best_y = (x_high if axes.more_x else x_low), (y_high if axes.more_y else y_low)
    x, y, last = [best_x], [best_y], best_x
    for r in teachers:  # from the best in x to the best in y: a step each
        x += [last, r[axes.x]]
        y += [r[axes.y], r[axes.y]]
        last = r[axes.x]
    return [*x, last, best_x], [*y, best_y, best_y]


def limits(rows: Sequence[Row], key: str, log: bool) -> tuple[float, float]:
    """The rows' range with a margin of 8 % on either side, of the logarithm where the axis is one."""
    values = [r[key] for r in rows]
    if log:
        values = [math.log(max(v, 1e-9)) for v in values]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - margin, high + margin
    if key == "alive":  # a share; one latent more or less is not to look like half the axis
        low, high = min(low, 0.95), min(high, 1.002)
    return (math.exp(low), math.exp(high)) if log else (low, high)


def _layout(figure: go.Figure, x: str, y: str, xaxis: dict | None = None, yaxis: dict | None = None) -> dict:
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 20, "r": 16, "t": 8, "b": 90},
        height=380,
        dragmode=False,  # a finger scrolls the page
        legend={"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"},
        font={"size": 12, "family": "system-ui, sans-serif"},
        hovermode="closest",
        hoverlabel={"align": "left"},
    )
    common = {
        "gridcolor": _GRID,
        "zerolinecolor": _GRID,
        "title_standoff": 6,
        "automargin": True,
        "exponentformat": "e",
    }
    figure.update_xaxes(title=x, **common, **(xaxis or {}))
    figure.update_yaxes(title=y, **common, **(yaxis or {}))
    return figure.to_plotly_json()


def pareto(rows: list[Row], axes: Axes, looks: dict[str, Style]) -> dict[str, Any]:
    """A group's cells in a plane: a point a cell, a line along each variant's front, the sweet zone shaded."""
    figure = go.Figure()
    x, y = sweet_zone(rows, axes)
    if x:
        figure.add_scatter(
            x=x,
            y=y,
            name="dominates the teacher",
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor="rgba(60,170,90,0.14)",
            hoverinfo="skip",
        )
    for variant in dict.fromkeys(r["variant"] for r in rows):
        members, look = [r for r in rows if r["variant"] == variant], looks[variant]
        shared: dict[str, Any] = {"name": variant, "legendgroup": variant}
        if variant.endswith("-init"):
            shared["visible"] = "legendonly"  # a start is no result; a click on its name shows it
        elif len(along := on_front(members, axes)) > 1:
            figure.add_scatter(
                x=[r[axes.x] for r in along],
                y=[r[axes.y] for r in along],
                mode="lines",
                line={"color": look.colour, "width": 1.5},
                hoverinfo="skip",
                showlegend=False,
                **shared,
            )
        figure.add_scatter(
            x=[r[axes.x] for r in members],
            y=[r[axes.y] for r in members],
            text=[_hover(r) for r in members],
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            marker={
                "color": look.colour,
                "symbol": look.symbol,
                "size": 9 if len(members) > 1 else 12,
                "line": {"width": 1.5 if look.symbol.endswith("-open") else 0, "color": look.colour},
                "opacity": 0.85,
            },
            **shared,
        )
    xaxis: dict[str, Any] = {"range": _range(rows, axes.x, axes.x == "l0")}
    if axes.x == "l0":
        xaxis |= {"type": "log", "nticks": 6}
    yaxis: dict[str, Any] = {"range": _range(rows, axes.y, axes.log_y)}
    if axes.log_y:
        yaxis |= {"type": "log", "nticks": 6}
    return _layout(figure, "honest l0" if axes.x == "l0" else "alive", axes.heading, xaxis, yaxis)


def _range(rows: Sequence[Row], key: str, log: bool) -> list[float]:
    low, high = limits(rows, key, log)
    return [math.log10(low), math.log10(high)] if log else [low, high]


def _hover(r: Row) -> str:
    """A cell in a few lines. All of it is names of ours and numbers."""
    where = ", ".join(str(part) for part in (r.get("level"), _seed(r)) if part)
    return "<br>".join(
        [
            f"<b>{r['variant']}</b> {where}",
            f"l0 {r['l0']:.1f}, alive {r['alive']:.3f}",
            f"MSE {r['mse']:.4g}, FVU {r['fvu']:.4f}",
            f"dCE {r['dce']:.4f}",
            *(f"probing k={k[1:]}: {r[k]:.3f}" for k in probed(r)),
        ]
    )


def _seed(r: Row) -> str:
    return f"seed {r['seed']}" if "seed" in r else ""


def gates(
    trained: list[tuple[str, dict[str, list[float]]]],
    start: dict[str, list[float]] | None,
    curves: dict[str, Any] | None,
) -> dict[str, Any]:
    """A variant's trained rational functions, by level, over their start; for `soft` over the teacher's gate too."""
    figure = go.Figure()
    if curves is not None:
        figure.add_scatter(
            **_with_gaps(curves, curves["f"]),
            name="teacher's gate",
            mode="lines",
            line={"color": _GREY, "width": 6},
            opacity=0.5,
        )
    levels = list(dict.fromkeys(level for level, _ in trained))
    for level, gate in trained:
        first = level in levels
        if first:
            levels.remove(level)
        colour = _colour_of(level, [name for name, _ in trained])
        figure.add_scatter(
            **_thinned(gate),
            name=f"trained, {level}" if level else "trained",
            legendgroup=level,
            showlegend=first,
            mode="lines",
            line={"color": colour, "width": 1.5},
        )
    if start is not None:
        name = "certified start" if curves is not None else "start: the identity"
        figure.add_scatter(
            **_thinned(start),
            name=name,
            mode="lines",
            line={"color": "#e9a23b", "width": 2, "dash": "dash"},
        )
    return _layout(figure, "t = h / C_in", "r(t) = phi / C_out", yaxis={"range": [-0.6, 1.4]})


def _colour_of(level: str, levels: list[str]) -> str:
    return _LEVELS[list(dict.fromkeys(levels)).index(level) % len(_LEVELS)]


def _thinned(gate: dict[str, list[float]]) -> dict[str, list[float]]:
    """Every third point, four digits: as fine as the plot."""
    return {axis: [float(f"{v:.4g}") for v in gate[key][::3]] for axis, key in (("x", "t"), ("y", "r"))}


def errors(curves: dict[str, Any]) -> dict[str, Any]:
    """r - f for the three fitters, with the certified bound on the one that is used."""
    figure = go.Figure()
    for method, fit in curves["fits"].items():
        error = [r - f for r, f in zip(fit["r"], curves["f"], strict=True)]
        figure.add_scatter(
            **_with_gaps(curves, error),
            name=method,
            mode="lines",
            line={"color": _FITS[method], "width": 1.5},
        )
    for sign in (1, -1):
        bound = sign * curves["certificate"]["upper"]
        figure.add_scatter(
            x=[curves["t"][0], curves["t"][-1]],
            y=[bound, bound],
            name="certified bound of minimax",
            mode="lines",
            showlegend=sign > 0,
            line={"color": "#2a9d8f", "width": 1.5, "dash": "dot"},
        )
    return _layout(figure, "t", "r(t) - f(t)")


def _with_gaps(curves: dict[str, Any], y: list[float]) -> dict[str, list]:
    """x and y of a curve over the fit's domain, the line broken at its gaps."""
    x: list[float | None] = []
    broken: list[float | None] = []
    for low, high in curves["domain"]:
        inside = [i for i, t in enumerate(curves["t"]) if low <= t <= high]
        x += [*(float(f"{curves['t'][i]:.6g}") for i in inside), None]
        broken += [*(float(f"{y[i]:.6g}") for i in inside), None]
    return {"x": x, "y": broken}
