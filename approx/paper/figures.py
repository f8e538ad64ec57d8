"""The paper's Figures 1 and 3, computed again: four fitters on ReLU and JumpReLU (theta 0.1), and the best
there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from approx.files import write_json
from approx.fit.distill import distill
from approx.fit.grid import grid_mse
from approx.fit.least_squares import least_squares
from approx.fit.minimax import minimax
from approx.fit.remez import remez
from approx.fit.result import Fit
from approx.fit.smoothed_linf import smoothed_linf
from approx.paper.table import TYPES
from approx.plot import BLUE, GREEN, GREY, ORANGE, PURPLE, error_curve, figure, legend
from approx.primitives import jump_relu, relu
from approx.target import Target

TARGETS: dict[str, Target] = {"ReLU": relu(), "JumpReLU": jump_relu(0.1, margin=0.01)}
PUBLISHED = {"ReLU": 3.8e-7, "JumpReLU": 2.4e-6}  # the paper's best mean square errors
FITTERS: dict[str, Callable[[Target, tuple[int, int]], Fit]] = {
    "minimax (this library)": minimax,
    "(i) standard-Padé Remez, as published": remez,
    "(ii) Route A: minimax distilled to safe-Padé": lambda t, type: distill(minimax(t, type).rational, t),
    "(iii) least squares, safe-Padé": lambda t, type: least_squares(t, type, "safe"),
    "(iv) smoothed maximum, safe-Padé": lambda t, type: smoothed_linf(t, type, "safe"),
}
_STYLES = [(BLUE, "o"), (GREY, "x"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "v")]


def measure(types: Sequence[tuple[int, int]] = TYPES, progress: bool = True) -> dict[str, Any]:
    """{target: {fitter: [{"type", "mse", "error"}, ...]}}: mean square error on 4001 points, and the largest
    error.

    Args:
        types: the types to fit.
        progress: show a progress bar.
    """
    jobs = [(t, f, type) for t in TARGETS for f in FITTERS for type in types]
    found: dict[str, Any] = {t: {f: [] for f in FITTERS} for t in TARGETS}
    for t, f, type in tqdm(jobs, desc="figures", disable=not progress):
        fit = FITTERS[f](TARGETS[t], type)
        mse = grid_mse(fit.rational, TARGETS[t])
        found[t][f].append({"type": list(type), "mse": mse, "error": fit.error})
    return found


def figure_3(found: dict[str, Any], path: str | Path) -> Path:
    """Mean square error against the type, with the published best drawn in.

    Args:
        found: what `measure` found.
        path: the file.
    """
    made, axes = figure(1, 2, (10.5, 4.8))
    for ax, (name, fits) in zip(axes[0], found.items(), strict=True):
        degrees: list[int] = []
        for order, ((label, points), (color, marker)) in enumerate(zip(fits.items(), _STYLES, strict=True)):
            degrees = [p["type"][1] for p in points]
            # the first is ours, and coincides with others: it goes underneath, wider
            width, size = (3.0, 7) if order == 0 else (1.2, 4)
            mse = [p["mse"] for p in points]
            ax.semilogy(
                degrees, mse, color=color, marker=marker, markersize=size, linewidth=width, label=label
            )
        ax.axhline(PUBLISHED[name], color="black", linestyle=(0, (4, 3)), linewidth=0.9)
        note, at = f"published best\n{PUBLISHED[name]:.1e}", (degrees[0], PUBLISHED[name])
        ax.annotate(note, at, (-4, -4), textcoords="offset points", fontsize=7.5, va="top")
        ax.set_title(name, fontsize=10)
        ax.set_xticks(degrees, [f"({d + 1},{d})" for d in degrees], fontsize=7.5)
        ax.set_xlabel("type (m, n)")
    axes[0, 0].set_ylabel("mean square error on 4001 points")
    legend(made, axes, 3)
    made.savefig(path)
    return Path(path)


def figure_1(path: str | Path, type: tuple[int, int] = (9, 8)) -> Path:
    """Error curves of minimax, with its alternation points, and of the fitters of the paper, at one type.

    Args:
        path: the file.
        type: (m, n), the degrees of numerator and denominator.
    """
    shown = list(FITTERS)
    made, axes = figure(len(shown), len(TARGETS), (10.5, 1.75 * len(shown)))
    for column, (name, target) in enumerate(TARGETS.items()):
        for row, (label, (color, _)) in enumerate(zip(shown, _STYLES, strict=True)):
            ax, fit = axes[row, column], FITTERS[label](target, type)
            error_curve(ax, fit.rational, target, fit.reference if row == 0 else (), color)
            ax.set_title(f"{name}, {label}: {fit.error:.2e}", fontsize=8)
            ax.tick_params(labelsize=7)
            ax.set_xlabel("x" if row == len(shown) - 1 else "")
            ax.set_ylabel("error" if column == 0 else "", fontsize=8)
    made.savefig(path)
    return Path(path)


def figures(
    folder: str | Path, types: Sequence[tuple[int, int]] = TYPES, progress: bool = True
) -> list[Path]:
    """Write figure1.png, figure3.png and the numbers behind the latter, figure3.json, into `folder`.

    Figure 1 is drawn at type (9, 8), or the last of `types` if that is smaller. A figure3.json that is there
    already, with the same types, is drawn and not computed again.

    Args:
        folder: where to write.
        types: the types, ascending.
        progress: show a progress bar.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "figure3.json"
    found = json.loads(data.read_text()) if data.exists() else None
    wanted = [list(t) for t in types]
    if not found or any(
        [p["type"] for p in points] != wanted for fits in found.values() for points in fits.values()
    ):
        found = measure(types, progress)
        write_json(data, found)
    return [
        figure_1(folder / "figure1.png", min(types[-1], (9, 8))),
        figure_3(found, folder / "figure3.png"),
        data,
    ]
