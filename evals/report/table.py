"""Results as rows: read from `results/*.json`, ordered, with the control beside what it controls."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rsae.support.errors import InputError
from rsae.support.files import read_json

_FAMILIES = ("relu", "jump_relu", "top_k")
_VARIANTS = ("teacher", "soft-init", "soft", "control-l1", "gated-init", "gated", "control-l0", "control")

#: key, heading, format, what it means
COLUMNS = (
    ("l0", "l0", "{:.1f}", "mean non-zero entries of the code that is decoded"),
    ("mse", "MSE", "{:.3g}", "mean squared error, summed over dimensions, in the host's own units"),
    ("fvu", "FVU", "{:.4f}", "fraction of variance unexplained"),
    ("bipolar", "bipolar", "{:.3f}", "share of latents that use both signs on the held-out tokens"),
    (
        "two_way",
        "two-way",
        "{:.3f}",
        "share of latents whose rarer sign makes up over a tenth of their firings",
    ),
    ("alive", "alive", "{:.3f}", "share of latents that fire on the held-out tokens"),
    ("dce", "dCE", "{:.4f}", "cross-entropy with the reconstruction spliced in, minus clean (nats a token)"),
    ("loss_recovered", "LR", "{:.4f}", "loss recovered: 0 is zero ablation, 1 is the clean host"),
    ("kl", "KL", "{:.4f}", "KL(clean || spliced), nats a token"),
    ("top1", "top-1", "{:.3f}", "share of predictions whose most likely token is the clean host's"),
    (
        "opposition",
        "opposition",
        "{:.3f}",
        "cosine of what the two polarities of a dial change: -1 is opposite",
    ),
    ("agreement", "agreement", "{:.3f}", "of what they change with the contexts in which they are on"),
    ("agreement_others", "of others", "{:.3f}", "the same with the contexts of other dials"),
    ("cosine", "cosine", "{:.4f}", "mean cosine of activation and reconstruction"),
    ("relative_bias", "bias", "{:.4f}", "relative bias: below 1, reconstructions are too short"),
    ("k1", "probe k=1", "{:.3f}", "sparse probing, mean test accuracy with the best latent"),
    ("k2", "k=2", "{:.3f}", "with the 2 best latents"),
    ("k5", "k=5", "{:.3f}", "with the 5 best latents"),
    ("k20", "k=20", "{:.3f}", "with the 20 best latents"),
    ("soft_fvu", "soft FVU", "{:.4f}", "FVU of the dense code before truncation"),
    ("soft_l0", "soft l0", "{:.0f}", "non-zero entries of the dense code"),
    ("soft_dce", "soft dCE", "{:.4f}", "dCE of the dense code"),
    ("seconds", "s", "{:.0f}", "seconds to make it (training, or calibration for an init)"),
)


def read_results(run: str | os.PathLike) -> list[dict[str, Any]]:
    """All result files of a run, in table order, each with its file's name as `cell`; `InputError` where none is."""
    directory = Path(run) / "results"
    results = [read_json(file) for file in sorted(directory.glob("*.json"))]
    if not results:
        raise InputError(
            f"{directory}: no result files; make them with `evals demo --out {run}` or `evals run`"
        )
    for file, result in zip(sorted(directory.glob("*.json")), results, strict=True):
        result["cell"] = file.stem
        missing = {"family", "variant", "control", "metrics"} - result.keys()
        if missing:
            raise InputError(
                f"{file}: the field {min(missing)!r} is missing; delete it and run `evals demo` again"
            )
    return sorted(results, key=_order)


def _order(result: dict[str, Any]) -> tuple:
    """Hook point, family, width, level, variant, seed; levels in the order of their l0."""
    where = [str(result.get(key, "")) for key in ("host", "hook")]
    level = result.get("level", "")
    number = float(level.lstrip("abcdefghijklmnopqrstuvwxyz_") or 0) if level[-1:].isdigit() else 0.0
    family, variant = _rank(_FAMILIES, result["family"]), _rank(_VARIANTS, result["variant"])
    return (*where, family, result.get("d_sae", 0), number, level, variant, result.get("seed", 0))


def _rank(order: tuple[str, ...], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def row(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of a result, flat; probing is the mean over tasks."""
    metrics = result["metrics"]
    probing = metrics["probing"].values()
    ks = probed(next(iter(probing), {}))
    return {
        "family": result["family"],
        "variant": result["variant"],
        "control": result["control"],
        **{key: result[key] for key in ("cell", "host", "hook", "d_sae", "level", "seed") if key in result},
        **metrics["reconstruction"],
        **metrics["downstream"],
        **metrics.get("intervention", {}),
        **{k: float(np.mean([task[k] for task in probing])) for k in ks},
        "seconds": result["seconds"],
    }


def probed(figures: dict[str, Any]) -> list[str]:
    """The keys `k1`, `k2`, ... of a task's figures."""
    return sorted((k for k in figures if k[0] == "k" and k[1:].isdigit()), key=lambda k: int(k[1:]))


def columns_of(rows: list[dict[str, Any]]) -> tuple:
    """The columns that some row has a figure for."""
    return tuple(column for column in COLUMNS if any(column[0] in r for r in rows))


def cells(values: dict[str, Any], columns: tuple = COLUMNS) -> list[str]:
    """A row's figures as text, a dash where a figure does not apply."""
    return [form.format(values[key]) if key in values else "–" for key, _, form, _ in columns]


def controls_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The control's row of each rational row, by the rational's `cell`: same place, level and seed."""

    def same(r: dict[str, Any], variant: str) -> tuple:
        return (*(r.get(key) for key in ("host", "hook", "family", "d_sae", "level", "seed")), variant)

    by_name = {same(r, r["variant"]): r for r in rows}
    pairs = {r["cell"]: by_name.get(same(r, r["control"])) for r in rows if r["control"]}
    return {cell: control for cell, control in pairs.items() if control is not None}


def against_control(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each fine-tuned rational SAE beside its control: both rows, and the differences in FVU, l0 (relative), dCE."""
    controls = controls_of(rows)
    return [
        {
            "rational": r,
            "control": controls[r["cell"]],
            "fvu": r["fvu"] / controls[r["cell"]]["fvu"] - 1,
            "l0": r["l0"] / controls[r["cell"]]["l0"] - 1,
            "dce": r["dce"] - controls[r["cell"]]["dce"],
        }
        for r in rows
        if r["cell"] in controls and not r["variant"].endswith("-init")
    ]


def print_table(runs: Sequence[str | os.PathLike], markdown: bool = False) -> None:
    """Print the cells of several runs, family by family, to the terminal; or as a Markdown table."""
    results = [(Path(run).name, result) for run in runs for result in read_results(run)]
    columns = columns_of([row(result) for _, result in results])
    headings = ["run", "variant", *(heading for _, heading, _, _ in columns)]
    lines = [[run, name(result), *cells(row(result), columns)] for run, result in results]
    print_lines("measured on held-out tokens, on the code that l0 counts", headings, lines, markdown)


def name(result: dict[str, Any]) -> str:
    """Family and variant; in a suite with hook point, width, level and seed."""
    if "level" not in result:
        return f"{result['family']} {result['variant']}"
    return f"{place(result)} {result['level']} s{result['seed']} {result['variant']}"


def place(record: dict[str, Any]) -> str:
    """Hook point, family and width, in short."""
    parts = [str(record.get("hook") or "").replace("blocks.", "").replace("hook_", "")]
    return " ".join(filter(None, [*parts, record["family"], str(record.get("d_sae") or "")]))


def hook_point(record: dict[str, Any]) -> str:
    """Host and hook point, in short."""
    return " ".join(filter(None, [Path(str(record.get("host") or "")).name, record.get("hook")]))


def print_lines(title: str, headings: list[str], lines: list[list[str]], markdown: bool) -> None:
    """A table on the terminal, controls in bold; or as Markdown."""
    if markdown:
        numbers = len(headings) - 2
        for line in (headings, ["---", "---", *["---:"] * numbers], *lines):
            print("| " + " | ".join(line) + " |")
        return
    table = Table(title=title, title_justify="left")
    for heading in headings:
        words = ("run", "variant", "place", "difference", "control", "against")
        table.add_column(heading, justify="left" if heading in words else "right")
    for line in lines:
        table.add_row(*line, style="bold" if " control" in line[1] else None)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
