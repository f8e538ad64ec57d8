"""A grid of cells from one config file: sites x families x widths x levels x seeds x upgrades, with every control.

    OUT/results/SITE-TEACHER-VARIANT.json   a file a cell: teacher, UPGRADE-init, UPGRADE, control, ...
    OUT/sites/SITE/                         activations, SAEs, and the steps that a rerun takes over
    OUT/synthetic/                          results and figures of the synthetic protocols, where some are asked for

A *unit* is what one worker does at a time: the teachers of one family and seed at one hook point (all widths and levels
of sparsity, trained in one pass over the activations), their upgrades and controls, and all measures. Units share
nothing but the activations, which are made first: so they can run in any order, in several processes or on several
machines that see the same directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

import rsae
from evals.config import PRESETS, SuiteConfig, preset
from evals.site import Bench, Cell, Plan, control_name, slug
from evals.synthetic import run_protocol
from rsae import InputError, UpgradeConfig
from rsae.sae import family
from rsae.support.cache import say
from rsae.support.files import digest, read_json, write_json


@dataclass(frozen=True)
class Unit:
    """`source` is a family to train, or the address of a public SAE; `seed` of the start and the data's order."""

    host: str
    hook: str
    source: str
    seed: int
    public: bool = False

    @property
    def site(self) -> str:
        return f"{slug(Path(self.host).name)}-{self.hook}"

    @property
    def name(self) -> str:
        return f"{self.site}-{slug(self.source)}-s{self.seed}"


def run(
    config: SuiteConfig | str | os.PathLike,
    out: str | os.PathLike,
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
    prepare: bool = False,
) -> Path:
    """Run a suite (a config, its file, or the name of a preset) into the directory `out`, and return that.

    Finished cells are kept: the same call goes on where it stopped, and a grid with more values makes only what is new.
    jobs: so many processes. shard: (i, n), only the units i, i + n, i + 2n, ... (from 0), for Slurm arrays and the
    like; `prepare` makes what all units share, and no more, which has to be done once before any shard.

    Raises `InputError` for a wrong config before anything runs; and at the end, where units failed, for the first
    of them: the others are finished then.
    """
    if not isinstance(config, SuiteConfig):
        config = SuiteConfig.read(preset(f"suite-{config}") if config in PRESETS else config)
    out, chosen = Path(out), units(config)
    protocols, settings = config.synthetic.protocols, (config.synthetic.seeds, config.synthetic.steps)
    if shard is not None:
        index, count = shard
        if not 0 <= index < count:
            raise InputError(f"shard {index}/{count}: write i/n with i from 0 to n - 1")
        chosen, protocols = chosen[index::count], protocols[index::count]
    waiting = [unit for unit in chosen if not finished(config, out, unit)]
    say(f"{len(chosen)} units, {len(chosen) - len(waiting)} of them finished")
    sites = {(unit.host, unit.hook): unit for unit in (units(config) if prepare else waiting)}
    for unit in sites.values():
        if shard is None or prepare:
            bench(config, out, unit).prepare()
        elif not (out / "sites" / unit.site / "activations" / "manifest.json").exists():
            raise InputError(
                f"{out}: the activations of {unit.site} are missing; before shards run, run the same command with "
                "--prepare once, without --shard"
            )
    if prepare:
        return out
    Parallel(n_jobs=jobs)(delayed(run_protocol)(name, out / "synthetic", *settings) for name in protocols)
    failures = Parallel(n_jobs=jobs)(delayed(_attempt)(config, out, unit) for unit in waiting)
    messages = [message for message in failures if message]
    if messages:
        raise InputError(
            f"{len(messages)} of {len(waiting)} units failed, the first: {messages[0]} (the rest is kept; "
            "run the same command again)"
        )
    return out


def units(config: SuiteConfig) -> list[Unit]:
    """All units of a suite, those of one hook point side by side."""
    found: list[Unit] = []
    for site in config.sites:
        for hook in site.hooks:
            for seed in config.grid.seeds:
                sources = site.teachers or config.grid.families
                found += [Unit(site.host, hook, s, seed, bool(site.teachers)) for s in sources]
    places: dict[str, str] = {}
    for unit in found:
        if places.setdefault(unit.site, unit.host) != unit.host:
            raise InputError(
                f"hosts {places[unit.site]!r} and {unit.host!r} have the same last name; rename one"
            )
    return found


def bench(config: SuiteConfig, out: Path, unit: Unit) -> Bench:
    """The unit's hook point."""
    harvest = replace(config.harvest, host=unit.host, hook=unit.hook)
    return Bench(harvest, config.evaluate, out / "sites" / unit.site)


def _attempt(config: SuiteConfig, out: Path, unit: Unit) -> str | None:
    """Run a unit; what is wrong with it, where something is, so that it does not stop the others."""
    try:
        run_unit(config, out, unit)
    except InputError as error:
        say(f"{unit.name}: {error}")
        return f"{unit.name}: {error}"
    return None


def run_unit(config: SuiteConfig, out: Path, unit: Unit) -> None:
    """Make and measure all cells of a unit, and write their result files."""
    if finished(config, out, unit):
        return
    place = bench(config, out, unit)
    files = []
    for teacher in _teachers(config, place, unit):
        cells = place.upgrades(teacher.name, teacher.cell, _upgrades(config, teacher.cell, unit))
        measured = place.measure(teacher.name, cells)
        for variant, cell in cells.items():
            result = {
                "host": unit.host,
                "hook": unit.hook,
                "family": teacher.cell.sae.family,
                "d_sae": teacher.cell.sae.d_sae,
                "level": teacher.level,
                "seed": unit.seed,
                "variant": variant,
                "control": cell.control,
                "metrics": measured[variant],
                "config": config.model_dump(mode="json"),
                **place.record(cell),
            }
            file = f"{unit.site}-{teacher.name}-{variant}.json"
            write_json(out / "results" / file, result)
            files.append(file)
    write_json(_mark(out, unit), {"key": _key(config, unit), "files": files})


def finished(config: SuiteConfig, out: Path, unit: Unit) -> bool:
    """Whether all result files of a unit are there, made with these settings."""
    mark = _mark(out, unit)
    if not mark.exists() or (done := read_json(mark)).get("key") != _key(config, unit):
        return False
    return all((out / "results" / file).exists() for file in done["files"])


def expected(config: SuiteConfig, unit: Unit) -> list[str] | None:
    """Names (without `.json`) of the result files that a unit makes; None for a public SAE, not known unread."""
    if unit.public:
        return None
    kind = family(unit.source)
    variants = {"teacher", *config.upgrades, *(f"{name}-init" for name in config.upgrades)}
    variants |= {control_name(upgrade, kind) for upgrade in config.upgrades.values()}
    grid, source = config.grid, unit.source
    names = [_name(unit, d, level) for d in grid.widths_of(source) for level in grid.levels(source)]
    return [f"{unit.site}-{name}-{variant}" for name in names for variant in sorted(variants)]


def _name(unit: Unit, d_sae: int, level: str) -> str:
    return f"{unit.source}-{d_sae}-{level}-s{unit.seed}"


def _mark(out: Path, unit: Unit) -> Path:
    return out / "units" / f"{unit.name}.json"


def _key(config: SuiteConfig, unit: Unit) -> str:
    """Of all settings that a unit's cells depend on: not of other sites, families and seeds."""
    grid = config.grid
    levels = None if unit.public else [grid.widths_of(unit.source), grid.levels(unit.source)]
    return digest([asdict(unit), levels, settings_of(config)])


def settings_of(config: SuiteConfig) -> dict[str, Any]:
    """The settings that every unit depends on; without what is younger than finished units, where it is not used."""
    settings = config.model_dump(mode="json", exclude={"sites", "grid", "synthetic"})
    if not config.evaluate.intervention:
        del settings["evaluate"]["intervention"]
    return settings


@dataclass(frozen=True)
class _Teacher:
    name: str
    level: str
    cell: Cell


def _teachers(config: SuiteConfig, place: Bench, unit: Unit) -> Iterator[_Teacher]:
    if unit.public:
        address, _, subfolder = unit.source.partition(":")
        sae = rsae.load(address, subfolder=subfolder or None)
        if sae.d_in != place.store.d_in:
            raise InputError(f"{unit.source} takes {sae.d_in} dimensions, {unit.hook} has {place.store.d_in}")
        name = f"{slug(unit.source)}-s{unit.seed}"
        yield _Teacher(name, unit.source, Cell(sae, 0.0, how={"source": unit.source}))
        return
    plans, levels = {}, {}
    for d_sae in config.grid.widths_of(unit.source):
        for level, given in config.grid.levels(unit.source).items():
            name = _name(unit, d_sae, level)
            settings = {"d_sae": d_sae} | {k: v for k, v in given.items() if k == "k"}
            train = {k: v for k, v in given.items() if k != "k"} | {"seed": unit.seed}
            plans[name] = Plan(unit.source, settings, replace(config.train, **train))
            levels[name] = level
    for name, cell in place.teachers(plans).items():
        yield _Teacher(name, levels[name], cell)


def _upgrades(config: SuiteConfig, teacher: Cell, unit: Unit) -> dict[str, UpgradeConfig]:
    """The upgrades with their budget: its weight of the penalty is the teacher's, or holds the teacher's l0."""
    tune = replace(config.tune, seed=unit.seed + 1)
    upgrades = {}
    for name, upgrade in config.upgrades.items():
        foreign = upgrade.variant == "soft" and upgrade.penalty_for(teacher.sae) == "l1"
        if foreign and teacher.sae.metadata.get("penalty") != "l1" and not tune.l0:
            upgrades[name] = replace(upgrade, tune=replace(tune, sparsity=config.soft_sparsity))
        else:
            upgrades[name] = replace(upgrade, tune=tune)
    return upgrades
