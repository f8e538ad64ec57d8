"""The report's figures: fronts, gates, errors of fits. The page's style sheet gives them its own ink, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from evals import stats
from evals.gates import Gate
from evals.matching import StableCell
from evals.measures import ALIVE, DCE, FVU, KL, L0, MSE, Measure, probings
from evals.report.names import Names
from evals.results import Curve, Result, Role
from evals.truth import TruthCell


@dataclass(frozen=True)
class Style:
    """How a series is drawn: told apart without colour, too."""

    colour: str
    """Of markers and lines."""
    symbol: str
    """Marker in plotly."""
    marker: str
    """Marker in matplotlib."""
    hollow: bool = False
    """Whether the marker is an outline."""


_GREY = "#8a8f98"
_TEACHER = Style(_GREY, "star", "*")
_UPGRADES = (
    Style("#e4572e", "circle", "o"),
    Style("#4361ee", "square", "s"),
    Style("#9b3fb5", "triangle-up", "^"),
    Style("#b8860b", "pentagon", "p"),
    Style("#0b8fa4", "hexagon", "h"),
)
_CONTROLS = (
    Style("#2a9d8f", "diamond", "D"),
    Style("#6f9a3c", "diamond-tall", "d"),
    Style("#5a7d9a", "triangle-down", "v"),
)
_BESIDE = (
    Style("#7d6b91", "cross", "P"),
    Style("#a0724a", "x", "X"),
    Style("#4d7c6f", "star-triangle-up", "<"),
    Style("#8c5a6b", "bowtie", "8"),
)
_BASELINES = tuple(
    Style(_GREY, symbol, marker, True)
    for symbol, marker in (
        ("circle-open", "o"),
        ("square-open", "s"),
        ("diamond-open", "D"),
        ("triangle-up-open", "^"),
        ("triangle-down-open", "v"),
        ("pentagon-open", "p"),
    )
)
_LEVELS = ("#4361ee", "#e4572e", "#2a9d8f", "#9b3fb5", "#b8860b", "#0b8fa4")
_FITS = {"remez": "#e9a23b", "least_squares": "#4361ee", "minimax": "#e4572e"}
_GRID = "rgba(128,128,128,0.22)"


#: Roles whose cells have a look of their own, by their variant
_BY_NAME = (Role.CONTROL, Role.SECOND_CONTROL, Role.CEILING, Role.BASELINE)


class Looks:
    """The series of a run and how each is drawn, the same in all figures.

    A series is a variant; of trained SAEs alone, a family and width. A start looks as its upgrade, hollow.

    Args:
        results: The cells of the run.
    """

    def __init__(self, results: Sequence[Result]):
        self.alone = not any(r.control for r in results)
        if self.alone:
            ours, controls = sorted({self.name(r) for r in results if r.role is Role.TEACHER}), []
        else:
            ours = sorted({str(r.upgrade) for r in results if r.upgrade})
            controls = sorted({r.control for r in results if r.control})
        beside = sorted({r.variant for r in results if r.role in (Role.SECOND_CONTROL, Role.CEILING)})
        baselines = sorted({r.variant for r in results if r.role is Role.BASELINE})
        self._styles = {name: _UPGRADES[i % len(_UPGRADES)] for i, name in enumerate(ours)}
        self._styles |= {name: _CONTROLS[i % len(_CONTROLS)] for i, name in enumerate(controls)}
        self._styles |= {name: _BESIDE[i % len(_BESIDE)] for i, name in enumerate(beside)}
        self._styles |= {name: _BASELINES[i % len(_BASELINES)] for i, name in enumerate(baselines)}

    def name(self, result: Result) -> str:
        """The cell's series."""
        if result.role is Role.BASELINE:
            return result.variant
        return f"{result.family} {result.d_sae}" if self.alone else result.variant

    def style(self, result: Result) -> Style:
        """How the cell is drawn."""
        if self.alone or result.role in _BY_NAME:
            return self._styles[self.name(result)]
        if result.role is Role.TEACHER:
            return _TEACHER
        full = self._styles[str(result.upgrade)]
        hollow = result.role is Role.START
        return Style(full.colour, f"{full.symbol}-open" if hollow else full.symbol, full.marker, hollow)

    def series(self, members: Sequence[Result]) -> dict[str, list[Result]]:
        """Cells by series, in their order."""
        found: dict[str, list[Result]] = {}
        for r in members:
            found.setdefault(self.name(r), []).append(r)
        return found

    def panels(self, results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
        """What is drawn together, with its title: a group; of trained SAEs alone, a site."""
        if self.alone:
            return [(str(site), list(at)) for site, at in groupby(results, key=lambda r: r.site)]
        names = Names(results)
        return [
            (names.group((at := list(members))[0]), at)
            for _, members in groupby(results, key=lambda r: r.group)
        ]


@dataclass(frozen=True)
class Axes:
    """A plane of a front."""

    x: Measure
    """Honest l0, or alive."""
    y: Measure
    """A figure."""
    log_y: bool = False
    """Whether the figure's axis is logarithmic."""

    @property
    def name(self) -> str:
        """In the page."""
        return f"{self.y.key}-{self.x.key}"

    @property
    def log_x(self) -> bool:
        """Whether the first axis is logarithmic."""
        return self.x is L0

    @property
    def x_heading(self) -> str:
        """The first axis's title."""
        return "honest l0" if self.x is L0 else self.x.heading

    def cost(self, result: Result) -> tuple[float, float]:
        """The cell in the plane, so that less is better in both coordinates."""
        return self.x.cost(result), self.y.cost(result)


def planes(results: Sequence[Result]) -> list[Axes]:
    """The planes that a run has figures for."""
    return [
        Axes(L0, MSE, log_y=True),
        Axes(L0, FVU, log_y=True),
        Axes(L0, KL, log_y=True),
        Axes(L0, DCE),
        *(Axes(L0, measure) for measure in probings(results)),
        Axes(ALIVE, MSE, log_y=True),
    ]


def on_front(members: Sequence[Result], axes: Axes) -> list[Result]:
    """The non-dominated cells, in order along the front.

    Args:
        members: The cells.
        axes: The plane.
    """
    return [members[i] for i in stats.front([axes.cost(r) for r in members])]


def sweet_zone(members: Sequence[Result], axes: Axes) -> tuple[list[float], list[float]]:
    """Outline of what strictly dominates a teacher on the teachers' front, up to the edge of the cells' rectangle.

    Args:
        members: The cells.
        axes: The plane.

    Returns:
        x and y of its corners; empty where there is no teacher.
    """
    teachers = on_front([r for r in members if r.role is Role.TEACHER], axes)
    if not teachers:
        return [], []
    (x_low, x_high), (y_low, y_high) = (
        limits(members, axes.x, axes.log_x),
        limits(members, axes.y, axes.log_y),
    )
    best_x, best_y = (x_high if axes.x.more else x_low), (y_high if axes.y.more else y_low)
    x, y, last = [best_x], [best_y], best_x
    for r in teachers:  # from the best in x to the best in y: a step each
        x += [last, axes.x.of(r)]
        y += [axes.y.of(r), axes.y.of(r)]
        last = axes.x.of(r)
    return [*x, last, best_x], [*y, best_y, best_y]


def limits(members: Sequence[Result], measure: Measure, log: bool) -> tuple[float, float]:
    """An axis's range.

    Args:
        members: The cells.
        measure: What the axis shows.
        log: Whether it is logarithmic.

    Returns:
        The cells' range with a margin of 8 % on either side, of the logarithm where the axis is one; at least 2 % of
        the value, so that rounding does not fill the axis.
    """
    values = [measure.of(r) for r in members]
    if log:
        values = [math.log(max(v, 1e-9)) for v in values]
    low, high = min(values), max(values)
    margin = max(0.08 * (high - low), 0.02 if log else 0.02 * (abs(high) or 1.0))
    low, high = low - margin, high + margin
    if measure is ALIVE:  # a share; one latent more or less is not to look like half the axis
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


def pareto(members: Sequence[Result], axes: Axes, looks: Looks) -> dict[str, Any]:
    """A panel: a point a cell, a line along each series's front, the sweet zone shaded.

    Args:
        members: The panel's cells.
        axes: The plane.
        looks: How series are drawn.

    Returns:
        A plotly figure as JSON.
    """
    figure = go.Figure()
    shown = [
        r for r in members if not looks.style(r).hollow
    ] or members  # what is hidden at first sets no range
    x, y = sweet_zone(shown, axes) if not looks.alone else ([], [])
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
    for name, cells in looks.series(members).items():
        look = looks.style(cells[0])
        shared: dict[str, Any] = {"name": name, "legendgroup": name}
        if look.hollow:
            shared["visible"] = "legendonly"  # a start or baseline is no result; a click on its name shows it
        elif len(along := on_front(cells, axes)) > 1:
            figure.add_scatter(
                x=[axes.x.of(r) for r in along],
                y=[axes.y.of(r) for r in along],
                mode="lines",
                line={"color": look.colour, "width": 1.5},
                hoverinfo="skip",
                showlegend=False,
                **shared,
            )
        figure.add_scatter(
            x=[axes.x.of(r) for r in cells],
            y=[axes.y.of(r) for r in cells],
            text=[_hover(r, name) for r in cells],
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            marker={
                "color": look.colour,
                "symbol": look.symbol,
                "size": 9 if len(cells) > 1 else 12,
                "line": {"width": 1.5 if look.hollow else 0, "color": look.colour},
                "opacity": 0.85,
            },
            **shared,
        )
    xaxis: dict[str, Any] = {"range": _range(shown, axes.x, axes.log_x)}
    if axes.log_x:
        xaxis |= {"type": "log", "nticks": 6}
    yaxis: dict[str, Any] = {"range": _range(shown, axes.y, axes.log_y)}
    if axes.log_y:
        yaxis |= {"type": "log", "nticks": 6}
    return _layout(figure, axes.x_heading, axes.y.heading, xaxis, yaxis)


def _range(members: Sequence[Result], measure: Measure, log: bool) -> list[float]:
    low, high = limits(members, measure, log)
    return [math.log10(low), math.log10(high)] if log else [low, high]


def _hover(r: Result, name: str) -> str:
    """A cell in a few lines. All of it is names of ours and numbers."""
    fit, cost = r.metrics.reconstruction, r.metrics.downstream
    level = r.level.kind if r.level.kind == "source" else str(r.level)
    return "<br>".join(
        [
            f"<b>{name}</b> {level}, seed {r.seed}",
            f"l0 {fit.l0:.1f}, alive {fit.alive:.3f}",
            f"MSE {fit.mse:.4g}, FVU {fit.fvu:.4f}",
            f"KL {cost.kl:.4f}, dCE {cost.dce:.4f}",
            *(f"{measure.heading}: {measure.of(r):.3f}" for measure in probings([r])),
        ]
    )


def gates(trained: list[tuple[str, Curve]], start: Curve | None, gate: Gate | None) -> dict[str, Any]:
    """An upgrade's trained rational functions, by level, over their start.

    Args:
        trained: The level and the function of each cell.
        start: The function before fine-tuning.
        gate: The teacher's gate with the certified start, for `soft`.

    Returns:
        A plotly figure as JSON.
    """
    figure = go.Figure()
    if gate is not None:
        figure.add_scatter(
            **_with_gaps(gate, gate.f),
            name="teacher's gate",
            mode="lines",
            line={"color": _GREY, "width": 6},
            opacity=0.5,
        )
    levels = list(dict.fromkeys(level for level, _ in trained))
    seen: set[str] = set()
    for level, curve in trained:
        figure.add_scatter(
            **_thinned(curve),
            name=f"trained, {level}",
            legendgroup=level,
            showlegend=level not in seen,
            mode="lines",
            line={"color": _LEVELS[levels.index(level) % len(_LEVELS)], "width": 1.5},
        )
        seen.add(level)
    if start is not None:
        name = "certified start" if gate is not None else "start: the identity"
        figure.add_scatter(
            **_thinned(start),
            name=name,
            mode="lines",
            line={"color": "#e9a23b", "width": 2, "dash": "dash"},
        )
    return _layout(figure, "t = h / C_in", "r(t) = phi / C_out", yaxis={"range": [-0.6, 1.4]})


def _thinned(curve: Curve) -> dict[str, list[float]]:
    """Every third point, four digits: as fine as the plot."""
    return {
        axis: [float(f"{v:.4g}") for v in values[::3]] for axis, values in (("x", curve.t), ("y", curve.r))
    }


def errors(gate: Gate) -> dict[str, Any]:
    """r - f for the three fitters, with the certified bound on the one that is used."""
    figure = go.Figure()
    for method, fit in gate.fits.items():
        error = [r - f for r, f in zip(fit.r, gate.f, strict=True)]
        figure.add_scatter(
            **_with_gaps(gate, error),
            name=method,
            mode="lines",
            line={"color": _FITS[method], "width": 1.5},
        )
    for sign in (1, -1):
        bound = sign * gate.bounds.upper
        figure.add_scatter(
            x=[gate.t[0], gate.t[-1]],
            y=[bound, bound],
            name="certified bound of minimax",
            mode="lines",
            showlegend=sign > 0,
            line={"color": "#2a9d8f", "width": 1.5, "dash": "dot"},
        )
    return _layout(figure, "t", "r(t) - f(t)")


def _with_gaps(gate: Gate, y: Sequence[float]) -> dict[str, list]:
    """x and y of a curve over the fit's domain, the line broken at its gaps."""
    x: list[float | None] = []
    broken: list[float | None] = []
    for low, high in gate.domain:
        inside = [i for i, t in enumerate(gate.t) if low <= t <= high]
        x += [*(float(f"{gate.t[i]:.6g}") for i in inside), None]
        broken += [*(float(f"{y[i]:.6g}") for i in inside), None]
    return {"x": x, "y": broken}


def by_position(members: Sequence[Result], looks: Looks) -> dict[str, Any]:
    """KL by position of a panel's series at the middle level, mean over seeds.

    Args:
        members: The panel's cells.
        looks: How series are drawn.

    Returns:
        A plotly figure as JSON.
    """
    figure = go.Figure()
    for name, cells in looks.series(members).items():
        levels = sorted({r.level for r in cells}, key=lambda level: level.number)
        middle = [
            r for r in cells if r.level == levels[len(levels) // 2] and r.metrics.downstream.by_position
        ]
        if not middle:
            continue
        values: dict[int, list[float]] = {}
        for at in (at for r in middle for at in r.metrics.downstream.by_position):
            values.setdefault(at.first, []).append(at.kl)
        look = looks.style(cells[0])
        figure.add_scatter(
            x=list(values),
            y=[sum(v) / len(v) for v in values.values()],
            name=name,
            mode="lines+markers",
            visible="legendonly" if look.hollow else True,
            line={"color": look.colour, "width": 1.5},
            marker={"color": look.colour, "symbol": look.symbol, "size": 7},
            hovertemplate="from position %{x}: %{y:.4f}<extra>" + name + "</extra>",
        )
    firsts = sorted({at.first for r in members for at in r.metrics.downstream.by_position})
    ticks = {"type": "log", "tickvals": firsts, "ticktext": list(map(str, firsts))}
    return _layout(figure, "position in the text", "KL", ticks, {"type": "log", "nticks": 6})


def truths(cells: Sequence[TruthCell]) -> list[tuple[str, dict[str, Any]]]:
    """F1 of known features against l0, mean and standard error over seeds: a figure for each family, width and noise.

    Args:
        cells: What a run has scored against its worlds.

    Returns:
        Titles and plotly figures as JSON.
    """
    found = []
    key = lambda c: (c.family, c.d_sae, c.noise)  # noqa: E731
    for (family, d_sae, noise), members in groupby(sorted(cells, key=key), key=key):
        figure, group = go.Figure(), list(members)
        for number, variant in enumerate(dict.fromkeys(c.variant for c in group)):
            mine = [c for c in group if c.variant == variant]
            levels = sorted({c.level for c in mine}, key=lambda level: level.number)
            at = [[c for c in mine if c.level == level] for level in levels]
            f1 = [stats.Estimate.of([c.truth.f1 for c in some]) for some in at]
            look = _TEACHER if mine[0].role is Role.TEACHER else (*_UPGRADES, *_CONTROLS)[number % 8]
            figure.add_scatter(
                x=[sum(c.truth.l0 for c in some) / len(some) for some in at],
                y=[one.mean for one in f1],
                error_y={"array": [one.se or 0.0 for one in f1], "width": 3, "thickness": 1},
                name=variant,
                mode="lines+markers",
                line={"color": look.colour, "width": 1.5},
                marker={"color": look.colour, "symbol": look.symbol, "size": 8},
            )
        true_l0 = group[0].truth.true_l0
        figure.add_vline(x=true_l0, line={"color": _GREY, "dash": "dot", "width": 1})
        title = f"{family} {d_sae}, noise {noise:g}; dotted: the true l0 {true_l0:.1f}"
        found.append((title, _layout(figure, "l0", "F1 of the features")))
    return found


def stabilities(cells: Sequence[StableCell], results: Sequence[Result]) -> list[tuple[str, dict[str, Any]]]:
    """Which share of the latents has a match of some cosine: against another seed, and against the teacher.

    Args:
        cells: The matches of a run.
        results: Its cells.

    Returns:
        Titles and plotly figures as JSON.
    """
    by_cell, found = {r.cell: r for r in results}, []
    for kind, title in (("seeds", "against another seed"), ("teacher", "against its teacher")):
        figure, mine = go.Figure(), [one for one in cells if one.kind == kind]
        for number, variant in enumerate(dict.fromkeys(by_cell[one.cell].variant for one in mine)):
            some = [one.result for one in mine if by_cell[one.cell].variant == variant]
            cosines = sorted((c for one in some for c in one.cosine_F), reverse=True)
            look = (*_UPGRADES, *_CONTROLS)[number % 8]
            kept = cosines[:: max(1, len(cosines) // 200)]
            figure.add_scatter(
                x=[round(c, 4) for c in kept],
                y=[(i * max(1, len(cosines) // 200) + 1) / len(cosines) for i in range(len(kept))],
                name=variant,
                mode="lines",
                line={"color": look.colour, "width": 2},
            )
        if mine:
            chance = sum(one.result.by_chance for one in mine) / len(mine)
            figure.add_vline(x=chance, line={"color": _GREY, "dash": "dot", "width": 1})
            told = f"{title}; dotted: the mean by chance, {chance:.2f}"
            layout = _layout(
                figure, "cosine with the match", "share of latents with at least this", {"range": [1.02, 0]}
            )
            found.append((told, layout))
    return found
