"""What the tables hold, for the terminal and for Markdown; the page shows the same ones."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from evals import stats
from evals.baselines import BASELINES
from evals.claims import Against, Claim
from evals.comparison import Comparison, Counts, Difference, Group, run_names
from evals.interpretation import Interpretation
from evals.matching import StableCell
from evals.measures import AGAINST_REFERENCE, DCE, ERRORS, FVU, KL, MSE, Measure, columns
from evals.metrics.absorption import Absorption
from evals.metrics.interchange import Interchange
from evals.metrics.perturbation import Perturbation, Removal
from evals.metrics.sae_probes import SetScores
from evals.metrics.stability import Stability
from evals.paired import SideBySide
from evals.report.names import Names, place
from evals.report.tables import Line, Table
from evals.results import Downstream, Reconstruction, Result, Role, read_results
from evals.stats import Estimate, Interval
from evals.truth import TruthCell
from evals.tuning import Tuned

#: How a difference is printed; those of probing by the default
_DIFFERENCES = {MSE.key: "{:+.1%}", FVU.key: "{:+.1%}", KL.key: "{:+.1%}", DCE.key: "{:+.4f}"}


#: Scores of a table of the truth: field, heading, how it is printed
_TRUTH = (
    ("l0", "l0", "{:.1f}"),
    ("true_l0", "true l0", "{:.1f}"),
    ("mcc", "MCC", "{:.3f}"),
    ("f1", "F1", "{:.3f}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("uniqueness", "unique", "{:.3f}"),
    ("split", "split", "{:.3f}"),
    ("absorption", "absorption", "{:.3f}"),
    ("explained_variance", "EV", "{:.4f}"),
)
#: Figures of a table of stability: field, heading
_STABLE = (
    ("cosine", "cosine"),
    ("by_chance", "by chance"),
    ("kept", "kept"),
    ("overlap", "overlap"),
    ("in_place", "in place"),
)
#: Figures of a table of baselines: field, heading, how it is printed
_FIT = (
    ("l0", "l0", "{:.1f}"),
    ("fvu", "FVU", "{:.4f}"),
    ("r2", "R^2", "{:.4f}"),
    ("alive", "alive", "{:.3f}"),
    ("cosine", "cosine", "{:.4f}"),
    ("relative_bias", "bias", "{:.4f}"),
)


def figures(result: Result, shown: Sequence[Measure]) -> list[str]:
    """A cell's figures as text, a dash where a figure does not apply.

    Args:
        result: The cell.
        shown: The columns.
    """
    values = [(measure.form, measure.read(result)) for measure in shown]
    return ["–" if value is None else form.format(value) for form, value in values]


def cells_table(runs: Sequence[str | os.PathLike]) -> Table:
    """All cells of runs, one a line."""
    named = zip(run_names(runs), runs, strict=True)
    found = [(name, result) for name, run in named for result in read_results(run)]
    results = [result for _, result in found]
    shown, names = columns(results), Names(results)
    several = len(runs) > 1
    headings = [*(["run"] if several else []), "variant", *(measure.heading for measure in shown)]
    lines = [
        Line(
            [*([run] if several else []), names.cell(r), *figures(r, shown)],
            r.role is Role.CONTROL,
        )
        for run, r in found
    ]
    return Table("measured on held-out tokens, on the code that l0 counts", headings, lines)


def baselines_table(own: Reconstruction, baselines: dict[str, Reconstruction]) -> Table:
    """An SAE beside its baselines.

    Args:
        own: The SAE's figures.
        baselines: By name.
    """
    best = min((one.fvu for name, one in baselines.items() if name in BASELINES), default=1.0)
    lines = [
        Line(
            [name, *(form.format(one[key]) for key, _, form in _FIT), _share(one.fvu, best)],
            control=name != "sae",
        )
        for name, one in {"sae": own, **baselines}.items()
    ]
    headings = ["variant", *(heading for _, heading, _ in _FIT), "share of the way"]
    title = "held-out activations; share of the way from the best baseline's FVU to 0"
    return Table(title, headings, lines)


def spliced_table(found: dict[str, Downstream]) -> Table:
    """What a host loses with SAEs in place.

    Args:
        found: By what is in place.
    """
    lines = []
    for name, one in found.items():
        mean = "–" if one.loss_recovered_mean is None else f"{one.loss_recovered_mean:.4f}"
        figures = [f"{one.kl:.4f}", f"{one.dce:.4f}", f"{one.loss_recovered:.4f}", mean, f"{one.top1:.3f}"]
        lines.append(Line([name, *figures]))
    predictions = next(iter(found.values())).predictions
    return Table(f"{predictions} predictions", ["place", "KL", "dCE", "LR", "LR mean", "top-1"], lines)


def tuning_table(tuned: dict[str, Tuned], l0: int) -> Table:
    """What a sweep over training settings found: all of it, the best of each family in bold.

    Args:
        tuned: By family.
        l0: The wanted l0.
    """
    lines = []
    for name, found in tuned.items():
        for one in [*found.tried, *([found.beside] if found.beside else [])]:
            best = one is not found.beside and one.changes == found.best.changes
            measured = "diverged" if one.fvu is None else _estimate(one.fvu)
            at_goal = "–" if one.at_goal is None else _estimate(one.at_goal)
            figures = [f"{one.l0:.1f}", measured, at_goal, f"{one.alive:.3f}", f"{one.seconds:.0f}"]
            mark = "best" if best else "for the slope" if one is found.beside else ""
            lines.append(Line([name, one.label, mark, *figures], control=best))
    title = f"held-out activations; FVU at l0 {l0} by each family's own slope of FVU against l0"
    return Table(title, ["family", "setting", "", "l0", "FVU", f"FVU at {l0}", "alive", "s"], lines)


def _estimate(value: Estimate) -> str:
    return f"{value.mean:.4f}" + ("" if value.se is None else f" +- {value.se:.4f}")


def _share(fvu: float, best: float) -> str:
    return f"{1 - fvu / best:+.1%}" if best > 1e-9 else "–"  # all dimensions are no baseline


def perturbation_table(name: str, found: Perturbation) -> Table:
    """Targeted probe perturbation on one set, by number of ablated latents."""
    clean = ", ".join(f"{c} {a:.3f}" for c, a in zip(found.classes, found.clean, strict=True))
    lines = [
        Line([str(one.latents), *(f"{one[key]:+.3f}" for key in ("score", "intended", "unintended"))])
        for one in found.by_number
    ]
    title = f"TPP, {name}: fall of the probes' accuracy (of {clean})"
    return Table(title, ["latents", "score", "intended", "unintended"], lines)


def interpretation_table(found: Sequence[Interpretation]) -> Table:
    """Scores of explanations latent by latent, and their means."""
    keys = ("accuracy", "auc", "hard")
    rows = [[score[key] for score in (one.detection, one.fuzzing) for key in keys] for one in found]
    lines = [
        Line([str(one.latent), textwrap.shorten(one.explanation, 50, placeholder="…"), *map(_three, row)])
        for one, row in zip(found, rows, strict=True)
    ]
    columns_ = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
    means = [_three(float(np.mean(column)) if column else None) for column in columns_]
    lines.append(Line(["mean", f"{len(found)} latents", *means], True))
    headings = [f"{kind} {key}" for kind in ("detection", "fuzzing") for key in ("accuracy", "AUC", "hard")]
    return Table("explanations judged", ["latent", "explanation", *headings], lines)


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def absorption_table(found: Absorption) -> Table:
    """Absorption letter by letter, and the means."""
    lines = [
        Line(
            [
                one.letter,
                str(len(one.latents)),
                f"{one.f1:.3f}",
                f"{one.probe_f1:.3f}",
                str(one.words),
                f"{one.fraction:.3f}",
                f"{one.full:.3f}",
            ]
        )
        for one in found.letters
    ]
    # latents that tell nothing are absorbed by none: the fraction says little without their F1
    told = [f"{np.mean([getattr(one, name) for one in found.letters]):.3f}" for name in ("f1", "probe_f1")]
    lines.append(
        Line(["mean", f"{found.split:.2f}", *told, "", f"{found.fraction:.3f}", f"{found.full:.3f}"], True)
    )
    headings = ["letter", "latents", "F1", "probe's F1", "words", "fraction", "full"]
    return Table(f"absorption of first letters, {found.words} words", headings, lines)


def sae_probes_table(found: Sequence[SetScores]) -> Table:
    """AUC on the sets of sae-probes, theirs and without leakage."""
    numbers = list(found[0].theirs.by_number)
    lines = []
    for one in found:
        cells = []
        for split in (one.theirs, one.clean):
            cells += [f"{split.by_number[k].auc:.3f}" for k in numbers] + [f"{split.dense.auc:.3f}"]
        last = one.clean.by_number[numbers[-1]]
        lines.append(Line([one.name, f"{one.theirs.leaked:.1%}", *cells, _range(last.auc_interval)]))
    named = [*(f"k={k}" for k in numbers), "dense"]
    headings = ["set", "leaked", *(f"theirs {n}" for n in named), *(f"clean {n}" for n in named), "interval"]
    title = f"sae-probes, AUC; the interval is 95 %, of clean k={numbers[-1]}"
    return Table(title, headings, lines)


def removal_table(name: str, found: Removal) -> Table:
    """Spurious correlation removal on one set, by number of ablated latents."""
    told = (
        f"{c} {b:.3f} to {a:.3f}" for c, b, a in zip(found.concepts, found.biased, found.clean, strict=True)
    )
    lines = [
        Line([str(one.latents), *(f"{one[key]:+.3f}" for key in ("score", "first", "second"))])
        for one in found.by_number
    ]
    title = f"SCR, {name}: share recovered of what the bias costs ({', '.join(told)})"
    return Table(title, ["latents", "score", *found.concepts], lines)


def interchange_table(name: str, found: Interchange) -> Table:
    """Interchange of latents on one set, by number of moved latents."""
    lines = [
        Line([str(one.latents), *(f"{one[key]:.3f}" for key in ("score", "cause", "isolation"))])
        for one in found.by_number
    ]
    title = f"interchange, {name}: {found.pairs} pairs of texts; moving nothing scores 0.5"
    return Table(title, ["latents", "score", "cause", "isolation"], lines)


def truth_table(cells: Sequence[TruthCell]) -> Table:
    """What SAEs find of a world of known features: mean and standard error over seeds."""
    noisy = len({c.noise for c in cells}) > 1
    rows: dict[tuple[str, str], list[TruthCell]] = {}
    for c in cells:
        rows.setdefault((f"{c.family} {c.d_sae} {c.level} {c.variant}", f"{c.noise:g}"), []).append(c)
    lines = [
        Line(
            [
                name,
                *([noise] if noisy else []),
                str(len(members)),
                *(_plus_minus(Estimate.of([c.truth[key] for c in members]), form) for key, _, form in _TRUTH),
            ],
            members[0].role is Role.CONTROL,
        )
        for (name, noise), members in rows.items()
    ]
    headings = ["variant", *(["noise"] if noisy else []), "seeds", *(h for _, h, _ in _TRUTH)]
    return Table("in a world of known features, mean ± standard error over seeds", headings, lines)


def stability_table(found: Sequence[StableCell], results: Sequence[Result]) -> Table:
    """Whose latents are the same: cells against the first seed, and against their teachers; means over cells."""
    by_cell = {r.cell: r for r in results}
    rows: dict[tuple[str, str, str], list[Stability]] = {}
    for one in found:
        r = by_cell[one.cell]
        at = f"{place(r.site, r.family, r.d_sae)} {r.level}"
        against = "another seed" if one.kind == "seeds" else "its teacher"
        rows.setdefault((at, r.variant, against), []).append(one.result)
    lines = []
    for at, members in rows.items():
        figures_ = [_plus_minus(Estimate.of([m[key] for m in members]), "{:.3f}") for key, _ in _STABLE[:-1]]
        in_place = [m.in_place for m in members if m.in_place is not None]
        last = _plus_minus(Estimate.of(in_place), "{:.3f}") if in_place else "–"
        lines.append(Line([*at, str(len(members)), *figures_, last]))
    headings = ["place", "variant", "against", "pairs", *(heading for _, heading in _STABLE)]
    return Table("are the latents the same as before?", headings, lines)


def comparison_tables(found: Comparison) -> list[Table]:
    """A comparison as tables; those of fronts only where some cell has a matched l0."""
    tables = [_reference(found)] if found.reference else []
    if found.matched:
        tables += [_matched(found), _volumes(found), _zones(found), _tally(found)]
    return tables


def claims_table(runs: Mapping[str, Sequence[Claim]]) -> Table:
    """Each upgrade minus the best of the controls that cost no more; claims by the name of their run."""
    found = [(f"{run} " if len(runs) > 1 else "", claim) for run, claims in runs.items() for claim in claims]
    keys = list(dict.fromkeys(key for _, claim in found for key in claim.best))
    lines = [
        Line(
            [
                f"{run}{place(claim.site, claim.family, claim.d_sae)} {claim.level}",
                claim.upgrade,
                f"{claim.l0:.1f}",
                *(_claimed(claim.best.get(key), _DIFFERENCES.get(key, "{:+.3f}")) for key in keys),
                ", ".join(claim.rivals),
                ", ".join(claim.dearer) or "–",
            ]
        )
        for run, claim in found
    ]
    headings = ["place", "variant", "l0", *map(_heading, keys), "costs no more", "costs more"]
    title = "against the best control that costs no more, mean ± standard error over seeds"
    return Table(title, headings, lines)


def _claimed(against: Against | None, form: str) -> str:
    if against is None:
        return "–"
    return f"{_plus_minus(against.difference, form)} ({against.verdict}, {against.rival})"


def pairs_table(found: Comparison) -> Table:
    """Each upgrade minus its control on the same predictions, with 95 % intervals over sequences."""
    lines = [
        Line(
            [
                f"{_place(found, r.group)} {r.level} s{r.seed}",
                f"{r.upgrade} - {r.control}",
                *(f"{l0:.1f}" for l0 in r.l0),
                *(_with_interval(figure) for figure in (r.kl, r.dce)),
            ]
        )
        for r in found.paired
    ]
    headings = ["place", "difference", "l0", "control's", "KL", "dCE"]
    rounding = max((r.rounding or 0.0 for r in found.paired), default=0.0)
    told = f"; the host in bfloat16, which by itself is KL {rounding:.1g}" if rounding else ""
    what = f"on the same predictions, at the l0 that each has; 95 % intervals over sequences{told}"
    return Table(what, headings, lines)


def between_table(found: Comparison) -> Table:
    """Cells of the second and further runs minus the same ones of the first."""
    lines = [
        Line(
            [
                f"{place(r.group.site, r.group.family, r.group.d_sae)} {r.level} s{r.seed} {r.variant}",
                f"{r.group.run} - {r.minus}",
                *(f"{l0:.1f}" for l0 in r.l0),
                f"{r.fvu:+.2%}",
                *(_with_interval(figure) for figure in (r.kl, r.dce)),
            ]
        )
        for r in found.between
    ]
    return Table(
        "the same cells of two runs, at the l0 that each has; 95 % intervals over sequences, where both made the same "
        "predictions",
        ["place", "difference", "l0", "the first's", "FVU", "KL", "dCE"],
        lines,
    )


def _with_interval(figure: Difference | None) -> str:
    if figure is None:
        return "–"
    return f"{_digits(figure.mean, '+')} {_range(figure.interval, '+')}"


def side_by_side_tables(found: SideBySide) -> list[Table]:
    """SAEs on the same tokens: their figures, then what differs."""
    host = found.saes[0].host is not None
    figures_ = [
        Line(
            [
                one.name,
                one.family,
                str(one.d_sae),
                f"{one.l0:.2f}",
                f"{one.fvu:.4f} {_range(one.fvu_interval)}",
                f"{one.alive:.3f}",
                *(
                    [f"{one.host.kl:.4f} {_range(one.host.kl_interval)}", f"{one.host.loss_recovered:.4f}"]
                    if one.host
                    else []
                ),
            ]
        )
        for one in found.saes
    ]
    changes = [
        Line(
            [
                f"{one.name} - {one.minus}",
                *(
                    _with_interval(figure)
                    for figure in (one.l0, one.fvu, *([one.kl, one.dce] if host else []))
                    if figure is not None
                ),
            ]
        )
        for one in found.changes
    ]
    costs = ["KL", "LR"] if host else []
    return [
        Table(
            f"on {found.tokens} held-out tokens; 95 % intervals by resampling {found.groups}"
            + (" and, in the host, sequences" if host else ""),
            ["variant", "family", "d_sae", "l0", "FVU", "alive", *costs],
            figures_,
        ),
        Table(
            "the same tokens, paired", ["difference", "l0", "FVU", *(["KL", "dCE"] if host else [])], changes
        ),
    ]


def _range(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return "(one group: no interval)"
    return f"[{_digits(interval.low, sign)}, {_digits(interval.high, sign)}]"


def _digits(value: float, sign: str = "") -> str:
    """Four decimals, and of what has nothing there two digits."""
    return f"{value:{sign}.1e}" if 0 < abs(value) < 5e-4 else f"{value:{sign}.4f}"


def _place(found: Comparison, group: Group) -> str:
    at = place(group.site, group.family, group.d_sae)
    return f"{group.run} {at}" if found.several else at


def _reference(found: Comparison) -> Table:
    lines = [
        Line(
            [
                _place(found, r.group),
                f"- {r.reference}",
                f"{r.cells} ({r.outside} outside)",
                str(r.seeds),
                *(
                    f"{_plus_minus(r.figures[m.key], '{:+.4f}')} ({r.verdicts[m.key]})"
                    for m in AGAINST_REFERENCE
                ),
            ]
        )
        for r in found.reference
    ]
    headings = ["place", "difference", "cells", "seeds", *(m.heading for m in AGAINST_REFERENCE)]
    title = f"at matched l0, minus {found.reference[0].reference}; mean +- standard error over seeds"
    return Table(title, headings, lines)


def _matched(found: Comparison) -> Table:
    keys = list(dict.fromkeys(key for r in found.matched for key in r.figures))
    lines = [
        Line(
            [
                _place(found, r.group),
                f"{r.upgrade} - {r.control}",
                f"{r.cells} ({r.outside} outside)",
                str(r.seeds),
                *(_plus_minus(r.figures.get(k), _DIFFERENCES.get(k, "{:+.3f}"), r.seeds) for k in keys),
            ]
        )
        for r in found.matched
    ]
    headings = ["place", "difference", "cells", "seeds", *map(_heading, keys)]
    return Table("at matched l0, mean +- standard error over seeds", headings, lines)


def _volumes(found: Comparison) -> Table:
    volumes: dict[tuple[str, str], dict[str, str]] = {}
    upgrades = {(r.group, r.variant) for r in found.fronts if r.control or r.variant == "teacher"}
    controls = set()
    for r in found.fronts:
        at = _place(found, r.group), r.variant
        volumes.setdefault(at, {})[f"{r.y} / {r.x}"] = _plus_minus(r.hypervolume, "{:.3f}")
        if (r.group, r.variant) not in upgrades:
            controls.add(at)
    headings = list(next(iter(volumes.values())))
    lines = [
        Line([*at, *(texts.get(h, "–") for h in headings)], at in controls) for at, texts in volumes.items()
    ]
    return Table("hypervolume of the fronts (more is better)", ["place", "variant", *headings], lines)


def _zones(found: Comparison) -> Table:
    lines = [
        Line([_place(found, r.group), r.upgrade, *_counts(r.figures), r.control, *_counts(r.controls)])
        for r in found.sweet_zone
    ]
    headings = ["place", "variant", "MSE and l0", "MSE and alive", "control", "MSE and l0", "MSE and alive"]
    return Table("cells that strictly dominate their teacher", headings, lines)


def _tally(found: Comparison) -> Table:
    tally: dict[tuple[str, str], dict[str, str]] = {}
    for r in found.tally:
        text = f"{r.win}/{r.tie}/{r.loss}" + (f" ({r.open} open)" if r.open else "")
        variant = f"{r.run} {r.variant}" if found.several else r.variant
        tally.setdefault((variant, r.against), {})[r.measure] = text
    keys = list(next(iter(tally.values())))
    lines = [Line([*at, *(texts.get(k, "–") for k in keys)]) for at, texts in tally.items()]
    level = f"{1 - stats.CHANCE:.0%} level (Student's t over seeds)"
    title = f"win/tie/loss at the {level}; open where fewer than {stats.SEEDS} seeds can be compared"
    return Table(title, ["variant", "against", *map(_heading, keys)], lines)


def _heading(key: str) -> str:
    return next((m.heading for m in ERRORS if m.key == key), f"probing {key}")


def _plus_minus(figure: Estimate | None, form: str, seeds: int | None = None) -> str:
    """Mean and error as text, with the number of seeds where it is not `seeds`."""
    if figure is None:
        return "–"
    error = "" if figure.se is None else " ± " + form.format(figure.se).lstrip("+")
    text = form.format(figure.mean) + error
    return text if seeds is None or figure.n == seeds else f"{text} (n = {figure.n})"


def _counts(counts: Counts) -> list[str]:
    return [f"{count} of {counts.cells}" for count in (counts.l0, counts.alive)]
