"""Pictures of fits: error curves with their alternation points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from approx.fit.error import errors
from approx.fit.grid import sample
from approx.rational import Rational
from approx.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0b6fa4", "#d1642e", "#3a8a4d", "#7a4f9e", "#666666"


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 4.0)) -> tuple[Any, np.ndarray]:
    """A figure without a window system, and its axes of shape (rows, columns), in the house style.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        size: width and height in inches.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ImportError('pictures need matplotlib: pip install "rsae[plot]"') from None
    made = Figure(figsize=size, dpi=150, layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    return made, axes


def legend(made: Any, axes: np.ndarray, columns: int) -> None:
    """One legend below a figure, of all that its axes show.

    Args:
        made: the figure.
        axes: its axes, shape (rows, columns).
        columns: columns of the legend.
    """
    handles: dict[str, Any] = {}
    for ax in axes.flat:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    made.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )


def error_curve(
    ax: Axes,
    rational: Rational,
    target: Target,
    reference: Any = (),
    color: str = BLUE,
    label: str | None = None,
) -> None:
    """Draw w (f - r) over the domain with gaps shaded, the alternation points, and lines at plus and minus
    its maximum.

    Args:
        ax: the axes to draw on.
        rational: the rational function.
        target: the function to approximate.
        reference: alternation points to mark.
        color: colour of the curve.
        label: its name in a legend.
    """
    x = sample(target, 4000, tuple(reference))
    error = errors(rational, target, x)
    known = np.isfinite(error)  # a relative error has no value at a zero
    top = float(np.max(np.abs(error[known]), initial=0.0))
    for i, (a, b) in enumerate(target.domain):
        inside = (x >= a) & (x <= b)
        ax.plot(x[inside], error[inside], color=color, linewidth=1.1, label=label if i == 0 else None)
    for low, high in target.domain.gaps:
        ax.axvspan(low, high, color="#eeeeee", zorder=0)
    for level in (-top, top):
        ax.axhline(level, color=color, linewidth=0.7, linestyle=(0, (4, 3)))
    if len(reference):
        reference = np.asarray(reference)
        at = np.interp(reference, x[known], error[known])
        ax.plot(reference, at, "o", color=color, markersize=3.5, markerfacecolor="white", markeredgewidth=1.0)
    ax.set_xlabel("x")
    ax.set_ylabel("error" if target.weight is None else "weighted error")


def plot_error(rational: Rational, target: Target, path: str | Path, reference: Any = ()) -> Path:
    """Save the error curve as an image whose format is that of the path's suffix; returns the path.

    Args:
        rational: the rational function.
        target: the function to approximate.
        path: the image; its suffix decides the format.
        reference: alternation points to mark.
    """
    made, axes = figure()
    error_curve(axes[0, 0], rational, target, reference)
    m, n = rational.type
    axes[0, 0].set_title(f"{target.text}, type ({m}, {n})", fontsize=10)
    made.savefig(path)
    return Path(path)
