"""The report's figures, as plotly figures that follow the page's colours."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

_COLOURS = {
    "teacher": "#888888",
    "control": "#2a9d8f",
    "control-l1": "#8ab17d",
    "control-l0": "#8ab17d",
    "gated-init": "#f4a261",
    "gated": "#e4572e",
    "soft-init": "#9db4f5",
    "soft": "#4361ee",
}
_FITS = {"remez": "#e9a23b", "least_squares": "#4361ee", "minimax": "#e4572e"}
_GRID = "rgba(128,128,128,0.22)"


def _layout(figure: go.Figure, x: str, y: str, yaxis: dict[str, Any] | None = None) -> go.Figure:
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
    )
    common = {
        "gridcolor": _GRID,
        "zerolinecolor": _GRID,
        "title_standoff": 6,
        "automargin": True,
        "exponentformat": "e",
    }
    figure.update_xaxes(title=x, **common)
    figure.update_yaxes(title=y, **common, **(yaxis or {}))
    return figure


def pareto(rows: list[dict[str, Any]]) -> go.Figure:
    """MSE against honest l0, one point a variant of one family."""
    figure = go.Figure()
    for r in rows:
        figure.add_scatter(
            x=[r["l0"]],
            y=[r["mse"]],
            name=r["variant"],
            mode="markers",
            marker={
                "size": 13,
                "color": _COLOURS.get(r["variant"]),
                "symbol": "circle-open" if r["variant"].endswith("-init") else _symbol(r["variant"]),
                "line": {"width": 2},
            },
            hovertemplate=f"{r['variant']}<br>l0 %{{x:.1f}}<br>MSE %{{y:.4g}}<br>FVU {r['fvu']:.4f}<extra></extra>",
        )
    return _layout(figure, "honest l0", "MSE", yaxis={"type": "log"})


def _symbol(variant: str) -> str:
    return "star" if variant == "teacher" else "diamond" if variant.startswith("control") else "circle"


def gates(curves: dict[str, Any], trained: dict[str, dict[str, list[float]]]) -> go.Figure:
    """The teacher's gate on the design interval, the fit, and the rational functions after fine-tuning."""
    figure = go.Figure()
    figure.add_scatter(
        **_with_gaps(curves, curves["f"]),
        name="teacher's gate",
        mode="lines",
        line={"color": "#888888", "width": 6},
    )
    figure.add_scatter(
        **_with_gaps(curves, curves["fits"]["minimax"]["r"]),
        name="minimax fit",
        mode="lines",
        line={"color": _FITS["minimax"], "width": 1.5, "dash": "dash"},
    )
    for variant, gate in trained.items():
        figure.add_scatter(
            x=gate["t"],
            y=gate["r"],
            name=f"{variant}, trained",
            mode="lines",
            line={"color": _COLOURS[variant], "width": 2},
        )
    return _layout(figure, "t = h / C_in", "r(t) = phi / C_out", yaxis={"range": [-0.6, 1.4]})


def errors(curves: dict[str, Any]) -> go.Figure:
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
        x += [*(curves["t"][i] for i in inside), None]
        broken += [*(y[i] for i in inside), None]
    return {"x": x, "y": broken}
