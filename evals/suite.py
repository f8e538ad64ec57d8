"""A grid of cells from one config file: sites x families x widths x levels x seeds x upgrades, with every control.

The directory of a run is described in `evals.results`. A *unit* is what one worker does at a time: the teachers of one
family and seed at one site (all widths and levels of sparsity, trained in one pass over the activations), their
upgrades and controls, and all measures. Units share nothing but the activations, which are made first: so they can run
in any order, in several processes or on several machines that see the same directory.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evals.beforehand import check_places, check_texts
from evals.config import SuiteConfig
from evals.matching import run_stability
from evals.measuring import Measuring
from evals.results import Result, Role, Site, slug, variant, write_result
from evals.rivals import Rivals, TwinRun
from evals.site import Cell, Plan, SiteRun
from evals.synthetic import run_protocol
from evals.tasks import of_files
from evals.truth import run_truth
from evals.workers import Workers, check_shared
from rsae import HarvestConfig, InputError, harvest_all
from rsae.folders import RUN, check_free
from rsae.support.devices import check_device
from rsae.support.files import contents, digest, is_json, read_json, write_json
from rsae.support.parts import check_part
from rsae.support.progress import say
from rsae.upgrading.config import FINE_TUNING

_SETTINGS = "suite.toml"  # in the run's directory
#: Of a unit, the part that makes its SAEs; the other parts have their measure's name
_TRAINING = "training"
#: Fewer units a process than these are run in parts
_FEW = 4


@dataclass(frozen=True)
class Unit:
    """What one worker does at a time."""

    site: Site
    """Where."""
    source: str
    """A family to train, or the address of a public SAE."""
    seed: int
    """Of the start and of the data's order."""
    public: bool = False
    """Whether `source` is an address."""

    @property
    def name(self) -> str:
        """The unit as a file's name."""
        return f"{self.site.name}-{slug(self.source)}-s{self.seed}"


def run(
    config: SuiteConfig | str | os.PathLike,
    out: str | os.PathLike,
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
    prepare: bool = False,
    backend: str = "loky",
    address: str | None = None,
    device: str = "cpu",
) -> Path:
    """Run a suite; what is finished is kept, and a wider grid makes only what is new.

    Args:
        config: A suite, its file, or the name of a preset.
        out: Directory of the run.
        jobs: Number of processes of this machine. Each takes its share of the threads, and memory for a host.
        shard: (i, n): only the units i, i + n, i + 2n, ... (from 0), for arrays of jobs.
        prepare: Make what all units share, and no more; to be done once before any shard.
        backend: Of joblib: `loky` for processes of this machine, `dask` or `ray` for the workers of a running cluster.
        address: The cluster's; by default that of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS.
        device: Where hosts and SAEs are: `cpu`, `cuda`, `cuda:1`, ... Results do not depend on it but by rounding, so
            that a run may go on elsewhere.

    Returns:
        The directory.

    Raises:
        InputError: for a wrong config, device or directory before anything runs; where there is no cluster; at the
            end, where units failed, for the first of them (the others are finished then).
    """
    if not isinstance(config, SuiteConfig):
        config = SuiteConfig.read(config)
    workers = Workers(jobs, backend, address)
    workers.check()
    check_device(device)
    check_free(out, RUN)
    if workers.remote and shard is not None:
        raise InputError(f"backend {backend!r} gives each worker its units: leave the shard out")
    out = Path(out)
    config = config.settled(device, out / _SETTINGS)
    chosen = units(config)
    if workers.remote:
        out = out.resolve()  # workers run in directories of their own
    protocols, settings = config.synthetic.protocols, (config.synthetic.seeds, config.synthetic.steps)
    if shard is not None:
        index, count = check_part(shard, "shard")
        chosen, protocols = chosen[index::count], protocols[index::count]
    waiting = [unit for unit in chosen if not finished(config, out, unit)]
    say(f"{len(chosen)} units, {len(chosen) - len(waiting)} of them finished")
    served = units(config) if prepare else waiting
    places = [
        SiteRun(site, config.harvest, out, device) for site in dict.fromkeys(unit.site for unit in served)
    ]
    if served and (shard is None or prepare):
        lacking = [place for place in places if not place.harvested]
        public = [{u.source: None for u in served if u.public and u.site == place.site} for place in lacking]
        check_places(lacking, [list(sources) for sources in public])
        check_texts(config)
    _set_aside(config, out)
    _keep(config, out)
    shared: list[partial] = []
    for place in places:
        if shard is None or prepare:
            _harvest(place, workers)
            shared += [
                partial(_share, config, out, place.site, device, *part)
                for part in _measuring(place, config).shared
            ]
            if "untrained" in config.baselines:
                shared.append(partial(_twin, config, out, place.site, device))
        elif not place.harvested:
            raise InputError(
                f"{out}: the activations of {place.site.name} are missing; before shards run, run the same "
                "command with --prepare once, without --shard"
            )
    if prepare:
        _together(workers, shared)
        return out
    workers.run(run_protocol, [(name, out / "synthetic", *settings) for name in protocols], "protocols")
    if config.ground_truth.features and (shard is None or shard[0] == 0):
        run_truth(config, out, device)
    failures = _run_units(config, out, waiting, device, workers, shared)
    if config.evaluate.stability and shard is None and len(failures) < len(chosen):
        run_stability(out, device)
    if messages := list(failures.values()):
        raise InputError(
            f"{len(messages)} of {len(waiting)} units failed, the first: {messages[0]} (the rest is kept; "
            "run the same command again)"
        )
    return out


def _keep(config: SuiteConfig, out: Path) -> None:
    """Keep the settings in the run, for its readers."""
    file = out / _SETTINGS
    if not file.exists() or file.read_text(encoding="utf-8") != config.to_toml():
        config.write(file)


def units(config: SuiteConfig) -> list[Unit]:
    """All units of a suite, those of one site side by side.

    Args:
        config: The suite.

    Returns:
        The units.

    Raises:
        InputError: where two hosts would share a directory, or two public SAEs a name.
    """
    found = [
        Unit(Site(place.host, hook, target, place.skip), source, seed, bool(place.teachers))
        for place in config.sites
        for hook, target in zip(place.hooks, place.targets or [None] * len(place.hooks), strict=True)
        for seed in config.grid.seeds
        for source in place.teachers or config.grid.families
    ]
    hosts: dict[str, str] = {}
    sources: dict[str, str] = {}
    for unit in found:
        if (other := sources.setdefault(unit.name, unit.source)) != unit.source:
            raise InputError(f"teachers {other!r} and {unit.source!r} give files one name; rename one")
        if hosts.setdefault(unit.site.name, unit.site.host) != unit.site.host:
            raise InputError(
                f"hosts {hosts[unit.site.name]!r} and {unit.site.host!r} have the same last name; rename one"
            )
    return found


def _measuring(place: SiteRun, config: SuiteConfig) -> Measuring:
    return Measuring(place, config.evaluate)


def _harvest(place: SiteRun, workers: Workers) -> None:
    """Make a site's activations, on a CPU a part in each process of this machine."""
    if workers.jobs > 1 and place.device == "cpu" and not place.harvested:
        what = (place.site, place.harvest, place.run)
        workers.run(_harvested, [(*what, (i, workers.jobs)) for i in range(workers.jobs)], "harvest")
        workers.run(_harvested, [what], "harvest")
    _ = place.store


def _harvested(site: Site, harvest: HarvestConfig, out: Path, part: tuple[int, int] | None = None) -> None:
    """A part of a site's activations, or all; a host that its units can use stays for them."""
    place = SiteRun(site, harvest, out)
    host = place.host if place.harvest.host_dtype in ("mixed", "float32") else None
    harvest_all(place.harvest, {place.harvest.hook: place.activations}, host, part)


def _share(config: SuiteConfig, out: Path, site: Site, device: str, kind: str, name: str) -> None:
    """Make a part of what the units of a site share."""
    _measuring(SiteRun(site, config.harvest, out, device), config).prepare(kind, name)


def _twin(config: SuiteConfig, out: Path, site: Site, device: str) -> None:
    """Make what units share of a site's untrained twin."""
    measuring = _measuring(TwinRun(SiteRun(site, config.harvest, out, device)), config)
    for part in measuring.shared:
        measuring.prepare(*part)


def _together(workers: Workers, calls: Sequence[partial]) -> list[Any]:
    """Calls side by side on this machine: a cluster's workers may have no text, and no host yet."""
    return replace(workers, backend="loky").run(_call, [(call,) for call in calls], "parts")


def _call(call: partial) -> Any:
    return call()


def _run_units(
    config: SuiteConfig, out: Path, waiting: list[Unit], device: str, workers: Workers, shared: list[partial]
) -> dict[Unit, str]:
    """Run units, after what they share; what is wrong with those that failed.

    A few units would leave processes without work at the end. They are run in parts, all trainings beside what is
    shared, then all measures; each part finds what those before it have made, and the last writes the results.
    """
    failures: dict[Unit, str] = {}

    def attempt(parts: Sequence[str], *others: partial) -> None:
        work = [(unit, part) for part in parts for unit in waiting if unit not in failures]
        calls = [partial(_attempt, config, out, unit, device, part) for unit, part in work]
        told = _together(workers, [*calls, *others])
        for (unit, _), message in zip(work, told, strict=False):
            if message:
                failures.setdefault(unit, message)

    if waiting and workers.jobs > 1 and len(waiting) < _FEW * workers.jobs:
        attempt([_TRAINING], *shared)
        place = SiteRun(waiting[0].site, config.harvest, out, device)
        attempt(list(_measuring(place, config).measures))
    else:
        _together(workers, shared)
    left = [unit for unit in waiting if unit not in failures]
    told = workers.run(_attempt, [(config, out, unit, device) for unit in left], "units")
    return failures | {unit: message for unit, message in zip(left, told, strict=True) if message}


def _attempt(config: SuiteConfig, out: Path, unit: Unit, device: str, part: str | None = None) -> str | None:
    """Run a unit, or a part of it; what is wrong with it, where something is, so that it does not stop the others."""
    try:
        check_shared(out / _SETTINGS)
        run_unit(config, out, unit, device, part)
    except Exception as error:
        told = next(iter(str(error).splitlines()), "")
        if not isinstance(
            error, InputError
        ):  # a fault of ours, or of the machine: whoever reads it wants to see where
            traceback.print_exc()
            told = f"{type(error).__name__}: {told}"
        say(f"{unit.name}: {told}")
        return f"{unit.name}: {told}"
    return None


def run_unit(
    config: SuiteConfig, out: Path, unit: Unit, device: str = "cpu", part: str | None = None
) -> None:
    """Make and measure all cells of a unit, and write their result files.

    Args:
        config: The suite.
        out: Directory of the run.
        unit: The unit.
        device: Where the host and the SAEs are.
        part: Only `training`, or the measure of this name; what it makes is kept for the whole, which is run later.
    """
    if finished(config, out, unit):
        return
    place = SiteRun(unit.site, config.harvest, out, device)
    measuring = Measuring(place, config.evaluate)
    written = []
    twin = TwinRun(place)
    for name, teacher, plan in _teachers(config, place, unit):
        tune = replace(config.tune.rated(FINE_TUNING), seed=unit.seed + 1)
        cells = place.upgrades(name, teacher, config.upgrades, tune, config.soft_sparsity)
        rivals = Rivals(place, config, name, teacher, plan, tune)
        second = list(rivals.second_controls(cells))
        cells += [*rivals.baselines(), *second]
        if part is not None:
            if part != _TRAINING:
                measuring.figures(name, cells, part)
            continue
        measured = measuring.measure(name, cells, timed=bool(second))
        if untrained := rivals.untrained(twin):
            cells += untrained
            measured += Measuring(twin, config.evaluate).measure(name, untrained)
        for cell, metrics in zip(cells, measured, strict=True):
            result = Result(
                site=unit.site,
                family=cell.family,
                d_sae=teacher.sae.d_sae,
                level=cell.level,
                seed=unit.seed,
                upgrade=cell.upgrade,
                role=cell.role,
                control=cell.control,
                sae=cell.path,
                metrics=metrics,
                how=cell.how,
                name=cell.name,
            )
            write_result(out, result)
            written.append(result.cell)
    if part is None:
        made = {"key": _key(config, unit), "made_with": _made_with(config, unit), "cells": written}
        write_json(_mark(out, unit), made)


def _teachers(config: SuiteConfig, place: SiteRun, unit: Unit) -> Iterator[tuple[str, Cell, Plan | None]]:
    """The unit's teachers, each with its name among those of the site and, where it was trained here, its plan."""
    if unit.public:
        yield f"{slug(unit.source)}-s{unit.seed}", place.public_teacher(unit.source), None
        return
    plans = [
        Plan(
            unit.source, d_sae, level, replace(config.train, seed=unit.seed), config.grid.options(unit.source)
        )
        for d_sae in config.grid.widths_of(unit.source)
        for level in config.grid.levels(unit.source)
    ]
    yield from zip([plan.name for plan in plans], place.teachers(plans), plans, strict=True)


# --- what is finished ------------------------------------------------------------------------------------------


def finished(config: SuiteConfig, out: Path, unit: Unit) -> bool:
    """Whether all result files of a unit are there and whole, made with these settings.

    Args:
        config: The suite.
        out: Directory of the run.
        unit: The unit.
    """
    mark = _mark(out, unit)
    if not mark.exists() or (done := read_json(mark)).get("key") != _key(config, unit):
        return False
    return all(is_json(out / "results" / f"{cell}.json") for cell in done["cells"])


def _set_aside(config: SuiteConfig, out: Path) -> None:
    """Move the cells of other settings out of the tables: an upgrade is never paired with a control of another budget.

    Cells of sites, families and seeds that the suite does not hold stay, and those of other levels.
    """
    count = 0
    for unit in units(config):
        mark = _mark(out, unit)
        made = read_json(mark) if mark.exists() else {}
        if not made or made.get("made_with", "") == _made_with(config, unit) or finished(config, out, unit):
            continue
        mark.unlink(missing_ok=True)  # first: of two shards one moves them, before it makes them anew
        for cell in made.get("cells", []):
            file = out / "results" / f"{cell}.json"
            former = out / "results" / "former" / file.name
            former.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                file.replace(former)
                count += 1
    if count:
        say(f"{count} results of other settings were moved to {out / 'results' / 'former'}")


def lacking(config: SuiteConfig, unit: Unit, there: list[Result]) -> int | None:
    """How many cells a unit lacks at least.

    Args:
        config: The suite.
        unit: The unit.
        there: All cells of the run.

    Returns:
        The number; None for a public SAE, of which width and family are not known before it is read. A control is
        known by the upgrade that names it.
    """
    if unit.public:
        return None
    mine = [r for r in there if (r.site, r.family, r.seed) == (unit.site, unit.source, unit.seed)]
    count = 0
    for d_sae in config.grid.widths_of(unit.source):
        for level in config.grid.levels(unit.source):
            cells = [r for r in mine if (r.d_sae, r.level) == (d_sae, level)]
            variants = {r.variant for r in cells}
            wanted = {variant(Role.TEACHER, None, None)}
            for name, upgrade in config.upgrades.items():
                roles = (Role.START, Role.TUNED) if upgrade.fine_tune else (Role.START,)
                wanted |= {variant(role, name, None) for role in roles}
            wanted |= {r.control for r in cells if r.control and r.upgrade in config.upgrades}
            wanted |= {*config.baselines, *_second_controls(config)}
            count += len(wanted - variants)
    return count


def _second_controls(config: SuiteConfig) -> set[str]:
    """The variants of second controls and the ceiling."""
    pursuits = [n for n, u in config.upgrades.items() if u.variant == "pursuit"]
    if not any(upgrade.fine_tune for upgrade in config.upgrades.values()):
        return set()  # without fine-tuning there is no control
    found = {name if name == "omp" else f"control-{name}" for name in config.second_controls}
    return found - {"control-pursued"} | {
        f"control-{name}" for name in pursuits if "pursued" in config.second_controls
    }


def _mark(out: Path, unit: Unit) -> Path:
    return out / "units" / f"{unit.name}.json"


def _key(config: SuiteConfig, unit: Unit) -> str:
    """Of all settings that a unit's cells depend on: not of other sites, families and seeds."""
    grid = config.grid
    levels = None if unit.public else [grid.widths_of(unit.source), list(map(str, grid.levels(unit.source)))]
    return digest([_where(config, unit), levels, settings_of(config)])


def _made_with(config: SuiteConfig, unit: Unit) -> str:
    """What all cells of a unit were made with, at whatever levels."""
    return digest([_where(config, unit), settings_of(config)])


def _where(config: SuiteConfig, unit: Unit) -> list[Any]:
    """A unit's place and source, with the settings and files that are its own."""
    grid, site = config.grid, unit.site
    where: list[Any] = [site.host, site.hook, unit.source, unit.seed, unit.public]
    if site.target:
        where += [site.target, site.skip]
    if options := grid.options(unit.source):
        where.append(options)
    evaluate = config.evaluate
    files = of_files([*evaluate.tasks, *evaluate.classes, *evaluate.crossed])
    if unit.public and (path := Path(unit.source)).exists():
        files += [
            "bytes",
            contents(path),
        ]  # units of before may hold the figures of another SAE of the same norms
    if files:  # what they hold may change behind their names
        where.append(files)
    return where


#: Sections that change no unit where they are empty
_OPTIONAL = ("baselines", "second_controls")
#: Measures that change no unit where they are left out
_OPTIONAL_MEASURES = ("intervention", "absorption", "classes", "crossed", "jacobians")


def settings_of(config: SuiteConfig) -> dict[str, Any]:
    """The settings that every unit depends on; without a measure that is left out, which changes no unit."""
    settings = config.model_dump(mode="json", exclude={"sites", "grid", "synthetic", "ground_truth"})
    evaluate = settings["evaluate"]
    del evaluate["stability"]  # of whole runs, not of units
    if not (config.evaluate.classes or config.evaluate.crossed):
        del evaluate["ablate"]
    for measure in _OPTIONAL_MEASURES:
        if not evaluate[measure]:
            del evaluate[measure]
    return {name: value for name, value in settings.items() if value or name not in _OPTIONAL}
