"""A sweep over how to train: which settings suit each family on given activations, compared at the same l0.

Two stages. First a grid, each combination of the values; then further options one at a time, each beside the best so
far. All combinations of a family and stage are trained in one pass over the activations. Each finished training is
kept, and a stopped sweep goes on where it was.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import tomli_w

import rsae
from approx.plot import figure, legend
from evals.config import family_options
from evals.metrics.reconstruction import reconstruction
from evals.results import dump
from evals.stats import Estimate
from evals.workers import Workers
from rsae import SAE, Activations, InputError, TrainConfig
from rsae.folders import SWEEP, check_free
from rsae.sae import family as family_named
from rsae.support.cache import Cache
from rsae.support.devices import check_device
from rsae.support.errors import did_you_mean
from rsae.support.files import write_json, write_text, writing
from rsae.support.progress import say
from rsae.support.values import numeral
from rsae.training import Diverged

Changes = dict[str, Any]

#: Rates to begin with
GRID: dict[str, list[Any]] = {"lr": [1e-3, 3e-3, 1e-2], "bias_lr": [1.0, 10.0]}
FAMILIES = (
    "relu",
    "jump_relu",
    "top_k",
    "batch_top_k",
    "matryoshka_batch_top_k",
    "gated",
    "sign_aware_gated",
)
#: Settings of the training that make no comparison, or that the sweep sets itself
_FIXED = ("steps", "seed", "l0", "sparsity", "objective", "kl_tokens")
#: Options that are flags of `rsae train`
_FLAGS = (
    "d_sae",
    "steps",
    "optimizer",
    "lr",
    "bias_lr",
    "lr_warmup",
    "lr_decay",
    "clip",
    "revival",
    "batch",
    "penalty",
    "precision",
)
#: A training whose l0 misses the goal by more than this factor is not compared
MISSED = 1.25
#: The l0 at which the best is trained once more, against the goal: how FVU falls with l0
_BESIDE = 1.25
#: An l0 nearer to the goal than this is the goal
_EXACT = 0.002


@dataclass(frozen=True)
class Tried:
    """One combination of settings, over its seeds."""

    family: str
    """The family."""
    changes: Changes
    """The settings that were varied."""
    fvu: Estimate | None
    """Held-out FVU, as it was measured; None where the training diverged."""
    l0: float
    """Held-out l0, mean over the seeds."""
    alive: float
    """Share of latents that fire on the held-out tokens."""
    at_goal: Estimate | None
    """FVU at the wanted l0 (see `Tuned.elasticity`); None where l0 misses it by more than a quarter."""
    seconds: float
    """Of one training, with those that ran beside it."""

    @property
    def label(self) -> str:
        """The settings as text."""
        return label(self.changes)


@dataclass(frozen=True)
class Tuned:
    """What a sweep found for one family."""

    family: str
    """The family."""
    best: Tried
    """The lowest FVU at the wanted l0."""
    tried: tuple[Tried, ...]
    """All, in the order of the stages."""
    beside: Tried | None
    """The best of the grid, trained at 1.25 times the goal; None where all have the wanted l0 anyway."""
    elasticity: float
    """d log FVU / d log l0 between these two. It brings each FVU to the goal: FVU (l0 / goal)^-elasticity."""
    train: Changes
    """The training of the best: its steps, and what is not `TrainConfig`'s own."""
    settings: Changes
    """The SAE's settings, of the best."""
    seeds: tuple[int, ...]
    """Of the starts."""


@dataclass(frozen=True)
class Sweep:
    """What is tried, and on what."""

    activations: Activations
    """A store or one's own activations."""
    out: Path
    """Directory of the results."""
    l0: int
    """The wanted l0; of a family with a `k`, its k."""
    settings: Changes
    """Settings of all SAEs, such as `d_sae`."""
    config: TrainConfig
    """The training, but for what is varied."""
    grid: Mapping[str, Sequence[Any]]
    """Values by option: each combination is tried."""
    then: Mapping[str, Sequence[Any]]
    """Values by option: tried one option after the other, beside the best so far."""
    seeds: Sequence[int]
    """Of the starts; the order of the data is the first one's."""
    device: str = "cpu"
    """Where to train."""


def tune(
    activations: Activations,
    out: str | os.PathLike,
    families: Sequence[str] = FAMILIES,
    l0: int = 32,
    grid: Mapping[str, Sequence[Any]] | None = None,
    then: Mapping[str, Sequence[Any]] | None = None,
    config: TrainConfig | None = None,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    device: str = "cpu",
    **settings: Any,
) -> dict[str, Tuned]:
    """Find out how to train each family on these activations.

    An option is a field of `TrainConfig` (such as `lr`, `bias_lr`, `revival`, `batch`) or a setting of a family (such
    as `threshold` or `bandwidth`); families without it leave it out.

    Args:
        activations: A store or one's own activations, with held-out tokens; with a target, transcoders are tuned.
        out: Directory: `tune.json` (all that was measured), `tune.toml` (the best, to copy), `tune.png`, and `trials`,
            from which a stopped sweep goes on.
        families: The families.
        l0: The l0 at which they are compared: `k`, or what the penalty is steered to.
        grid: Values by option, of which each combination is trained; by default `lr` and `bias_lr`.
        then: Values by option, one option at a time beside the best so far.
        config: The training, but for what is varied; by default 800 steps.
        seeds: Of the starts.
        jobs: Number of processes; each takes families of its own.
        device: `cpu`, `cuda`, ...
        **settings: Of all SAEs, such as `d_sae` (by default 1536) and `skip`; or of all trainings.

    Returns:
        What was found, by family; without those of which no training came near the wanted l0.

    Raises:
        InputError: An option or a value is wrong, before anything runs; or no family reached the wanted l0.
    """
    train = {option: value for option, value in settings.items() if option in _train_options()}
    sweep = Sweep(
        activations,
        Path(out),
        l0,
        {"d_sae": 1536} | {option: value for option, value in settings.items() if option not in train},
        replace((config or TrainConfig(steps=800)).changed(train), seed=seeds[0]),
        GRID if grid is None else grid,
        then or {},
        seeds,
        device,
    )
    check_device(device)
    check_free(sweep.out, SWEEP)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {', '.join(map(str, seeds))}: one that stands there twice is no repetition")
    for name in families:
        _check(sweep, name)
    known = {"d_sae", "skip", *_train_options(), *(o for name in families for o in family_options(name))}
    for option in [*sweep.settings, *sweep.grid, *sweep.then]:
        if option not in known:
            raise InputError(f"option {option!r} is unknown{did_you_mean(option, known)}")
    each = Workers(jobs).run(_tuned, [(sweep, name) for name in families], "families")
    tuned = {one.family: one for one in each if isinstance(one, Tuned)}
    if not tuned:
        raise InputError(next(one for one in each if isinstance(one, str)))
    _write(sweep, tuned)
    return tuned


def label(changes: Changes) -> str:
    """Settings as text.

    Args:
        changes: Values by option.
    """
    return ", ".join(
        f"{name} {numeral(value)}" if _numeric(value) else f"{name} {value}"
        for name, value in changes.items()
    )


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _train_options() -> list[str]:
    return [field.name for field in fields(TrainConfig) if field.name not in _FIXED]  # type: ignore[arg-type]


def _of_training(changes: Changes) -> Changes:
    return {option: value for option, value in changes.items() if option in _train_options()}


def _beyond_default(config: TrainConfig) -> Changes:
    """The steps, and the fields that are not as `rsae train` has them by itself; seed and l0 are told beside them."""
    own = asdict(TrainConfig())
    return {
        name: value
        for name, value in asdict(config).items()
        if name == "steps" or (name not in ("seed", "l0", "sparsity") and value != own[name])
    }


def _knows(name: str, option: str) -> bool:
    return option in _train_options() or option in family_options(name)


def _check(sweep: Sweep, name: str) -> None:
    """Every value that is to be tried, before anything runs."""
    family_named(name)
    rsae.new(name, sweep.activations, **_settings(sweep, name, {}))
    for option, values in [*sweep.grid.items(), *sweep.then.items()]:
        if not values:
            raise InputError(f"option {option!r}: give a value or more")
        # trials are kept under their labels
        if len({label({option: value}) for value in values}) < len(values):
            raise InputError(f"option {option!r}: two of its values are written alike; give each once")
        for value in values if option in _train_options() else ():
            _config(sweep, name, {option: value})


def _settings(sweep: Sweep, name: str, changes: Changes) -> Changes:
    options = ["d_sae", "skip", *family_options(name)]
    own = {option: value for option, value in (sweep.settings | changes).items() if option in options}
    return own | ({"k": sweep.l0} if family_named(name).sparsity_by == "k" else {})


def _config(sweep: Sweep, name: str, changes: Changes) -> TrainConfig:
    config = sweep.config.changed(_of_training(changes))
    return replace(config, l0=float(sweep.l0)) if family_named(name).sparsity_by == "penalty" else config


def at_goal(one: Tried, goal: float, elasticity: float) -> Estimate | None:
    """FVU brought from a training's own l0 to the wanted one.

    Args:
        one: The training.
        goal: The wanted l0.
        elasticity: d log FVU / d log l0.

    Returns:
        The FVU there; None where its own l0 is too far from it, or it diverged.
    """
    ratio = one.l0 / goal
    if one.fvu is None or not 1 / MISSED < ratio < MISSED:
        return None
    factor = ratio**-elasticity
    return Estimate(one.fvu.mean * factor, None if one.fvu.se is None else one.fvu.se * factor, one.fvu.n)


class _Missed(InputError):
    """No training of a family came near the wanted l0."""


def _tuned(sweep: Sweep, name: str) -> Tuned | str:
    """What was found of a family, or why nothing was: the others are tuned all the same."""
    try:
        return _Family(sweep, name).tuned()
    except _Missed as missed:
        say(str(missed))
        return str(missed)


class _Family:
    """The sweep of one family."""

    def __init__(self, sweep: Sweep, name: str):
        self.sweep, self.name = sweep, name
        self.cache = Cache(sweep.out / "trials")
        self.elasticity = 0.0
        self.beside: Tried | None = None
        self.measured: list[Tried] = []

    def tuned(self) -> Tuned:
        """All stages."""
        grid = {option: values for option, values in self.sweep.grid.items() if _knows(self.name, option)}
        self._stage([dict(zip(grid, values, strict=True)) for values in product(*grid.values())])
        self._match()
        for option, values in self.sweep.then.items():
            if _knows(self.name, option):
                best = self._best().changes
                self._stage([best | {option: value} for value in values])
        say(f"{self.name}: the best is {self._best().label or 'the base'}")
        tried = tuple(self._brought(one) for one in self.measured)
        best = self._best()
        return Tuned(
            self.name,
            best,
            tried,
            self.beside,
            self.elasticity,
            _beyond_default(self.sweep.config.changed(_of_training(best.changes))),
            {o: v for o, v in _settings(self.sweep, self.name, best.changes).items() if o != "k"},
            tuple(self.sweep.seeds),
        )

    def _stage(self, changes: list[Changes]) -> None:
        known = [one.changes for one in self.measured]
        new = [given for given in changes if given not in known]
        self.measured += self._tried(self.sweep, new)

    def _tried(self, sweep: Sweep, changes: list[Changes]) -> list[Tried]:
        """Train and measure combinations; those of one batch size see the same batches, in one pass."""
        groups: dict[int, list[Changes]] = {}
        for given in changes:
            groups.setdefault(_config(sweep, self.name, given).batch, []).append(given)
        tried: dict[str, Tried] = {}
        for together in groups.values():
            tried |= {one.label: one for one in self._pass(sweep, together)}
        return [tried[label(given)] for given in changes]

    def _pass(self, sweep: Sweep, changes: list[Changes]) -> list[Tried]:
        of_step = {
            f"{self.name}-{sweep.l0}-{label(given).replace(', ', '-').replace(' ', '')}-s{seed}": (
                given,
                seed,
            )
            for given in changes
            for seed in sweep.seeds
        }
        keys = {
            step: [
                sweep.activations.identity,
                self.name,
                _settings(sweep, self.name, given),
                asdict(_config(sweep, self.name, given)),
                seed,
            ]
            for step, (given, seed) in of_step.items()
        }

        def make(steps: list[str]) -> dict[str, Any]:
            made = self._trained(sweep, {step: of_step[step] for step in steps})
            return {step: _figures(sae, sweep.activations) if sae else None for step, sae in made.items()}

        results = self.cache.run_all(keys, make)
        found = []
        for given in changes:
            steps = [step for step, (of, _) in of_step.items() if of == given]
            one = self._summary(given, [results[step] for step in steps], self.cache.seconds[steps[0]])
            found.append(one)
            fvu = "diverged" if one.fvu is None else f"FVU {one.fvu.mean:.4f} at l0 {one.l0:.1f}"
            say(f"{self.name}: {one.label}: {fvu}")
        return found

    def _summary(self, given: Changes, figures: list[Any], seconds: float) -> Tried:
        if None in figures:
            return Tried(self.name, given, None, math.nan, math.nan, None, seconds)
        l0, alive = (Estimate.of([figure[key] for figure in figures]).mean for key in ("l0", "alive"))
        fvu = Estimate.of([figure["fvu"] for figure in figures])
        return Tried(self.name, given, fvu, l0, alive, None, seconds)

    def _trained(self, sweep: Sweep, wanted: dict[str, tuple[Changes, int]]) -> dict[str, SAE | None]:
        """SAEs trained in one pass; None for one that diverged, without which the others are trained again."""
        saes: dict[str, SAE] = {
            step: rsae.new(self.name, sweep.activations, seed, **_settings(sweep, self.name, given)).to(
                sweep.device
            )
            for step, (given, seed) in wanted.items()
        }
        configs = [_config(sweep, self.name, given) for given, _ in wanted.values()]
        checkpoint = sweep.out / "checkpoints" / f"{self.name}.safetensors"
        what = f"tune {self.name}, {len(saes)} at once"
        try:
            rsae.train(list(saes.values()), sweep.activations, configs, checkpoint, what)
        except Diverged as error:
            lost = list(saes)[error.number]
            say(f"{lost}: diverged; the others are trained without it")
            rest = (
                self._trained(sweep, {s: w for s, w in wanted.items() if s != lost}) if len(saes) > 1 else {}
            )
            return {step: rest.get(step) for step in saes}
        return dict(saes)

    # --- at the same l0 ----------------------------------------------------------------------------------------

    def _match(self) -> None:
        """Measure how FVU falls with l0, where some l0 is not the wanted one."""
        goal = self.sweep.l0
        off = [one for one in self.measured if one.fvu and abs(one.l0 / goal - 1) > _EXACT]
        if not off:
            return
        best = self._best()
        (beside,) = self._tried(replace(self.sweep, l0=round(_BESIDE * goal)), [best.changes])
        self.beside = beside
        if best.fvu is not None and beside.fvu is not None and beside.l0 > best.l0:
            self.elasticity = math.log(beside.fvu.mean / best.fvu.mean) / math.log(beside.l0 / best.l0)

    def _brought(self, one: Tried) -> Tried:
        return replace(one, at_goal=at_goal(one, self.sweep.l0, self.elasticity))

    def _best(self) -> Tried:
        brought = [self._brought(one) for one in self.measured]
        compared = [(one.at_goal.mean, number) for number, one in enumerate(brought) if one.at_goal]
        if not compared:
            raise _Missed(
                f"{self.name}: no training came within a quarter of l0 {self.sweep.l0}; give more steps, or other "
                "values"
            )
        return brought[min(compared)[1]]


def _figures(sae: SAE, activations: Activations) -> dict[str, float]:
    found = reconstruction(sae.cpu(), activations)
    return {"fvu": found.fvu, "l0": found.l0, "alive": found.alive}


# --- what is written -------------------------------------------------------------------------------------------


def lines(tuned: Tuned, l0: int) -> str:
    """The best as lines of a file, under the family: a suite's `train` and `grid`, and its part of `grid.settings`.

    Args:
        tuned: What was found.
        l0: The wanted l0.
    """
    own = {option: value for option, value in tuned.settings.items() if option not in ("d_sae", "skip")}
    grid = {"d_sae": [tuned.settings["d_sae"]], "l0": [l0], "seeds": list(tuned.seeds)}
    train = {option: value for option, value in tuned.train.items() if value is not None}
    sections = {"train": train, "grid": grid} | ({"settings": own} if own else {})
    return tomli_w.dumps({tuned.family: sections}).strip()


def command(tuned: Tuned, l0: int, data: str = "") -> str:
    """The `rsae train` that trains the best, over all seeds.

    Args:
        tuned: What was found.
        l0: The wanted l0.
        data: Options that say how the activations were read, such as `--heldout 0.2`.
    """
    level = "--k" if family_named(tuned.family).sparsity_by == "k" else "--l0"
    parts = [f"rsae train {tuned.family} STORE OUT {level} {l0}"]
    for option, value in (tuned.settings | tuned.train).items():
        if option == "skip":
            parts += ["--skip"] if value else []
            continue
        if isinstance(value, float):
            shown = numeral(value)
        elif option == "penalty":
            shown = value or "none"
        else:
            shown = value if isinstance(value, str) else json.dumps(value)
        flag = f"--{option.replace('_', '-')} " if option in _FLAGS else f"--setting {option}="
        parts.append(flag + shlex.quote(shown))
    seeds = ",".join(map(str, tuned.seeds))
    return " ".join([*parts, *([f"--seed {seeds}"] if seeds != "0" else []), *([data] if data else [])])


def _write(sweep: Sweep, tuned: dict[str, Tuned]) -> None:
    write_json(
        sweep.out / "tune.json",
        {
            "activations": dump(sweep.activations.provenance.metadata()),
            "l0": sweep.l0,
            "settings": sweep.settings,
            "train": asdict(sweep.config),
            "seeds": list(sweep.seeds),
            "families": {name: _finite(asdict(one)) for name, one in tuned.items()},
        },
    )
    parts = []
    for name, one in tuned.items():
        assert one.best.at_goal is not None
        fvu = f"held-out FVU {one.best.at_goal.mean:.4f} at l0 {sweep.l0}"
        parts.append(f"# {name}: {fvu}\n{lines(one, sweep.l0)}\n")
    write_text(sweep.out / "tune.toml", "\n".join(parts))
    with writing(sweep.out / "tune.png") as temporary:
        _figure(sweep, tuned).savefig(temporary, format="png")


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(sweep: Sweep, tuned: dict[str, Tuned]) -> Any:
    """FVU at the wanted l0 against the first option of the grid, a line for each combination of the others."""
    columns = min(4, len(tuned))
    rows = math.ceil(len(tuned) / columns)
    made, axes = figure(rows, columns, size=(3.2 * columns + 0.4, 2.6 * rows + 0.6))
    first = next(iter(sweep.grid), "")
    for ax, one in zip(axes.flat, tuned.values(), strict=False):
        series: dict[str, list[Tried]] = {}
        for tried in one.tried:
            rest = {option: value for option, value in tried.changes.items() if option != first}
            if tried.at_goal and first in tried.changes and not set(rest) - set(sweep.grid):
                series.setdefault(label(rest) or "all", []).append(tried)
        for name, members in series.items():
            ax.errorbar(
                [t.changes[first] for t in members],
                [t.at_goal.mean for t in members if t.at_goal],
                [t.at_goal.se or 0.0 for t in members if t.at_goal],
                marker="o",
                markersize=4,
                linewidth=1.1,
                label=name,
            )
        if first and all(_numeric(value) and value > 0 for value in sweep.grid[first]):
            ax.set_xscale("log")
            ax.set_xticks(sweep.grid[first], [f"{value:g}" for value in sweep.grid[first]])
            ax.minorticks_off()
        ax.set_title(one.family, loc="left", fontsize=9)
        ax.set_xlabel(first, fontsize=8)
        ax.set_ylabel(f"FVU at l0 {sweep.l0}", fontsize=8)
        ax.tick_params(labelsize=7)
    for ax in list(axes.flat)[len(tuned) :]:
        ax.set_visible(False)
    if len(sweep.grid) > 1:
        legend(made, axes, 4)
    return made
