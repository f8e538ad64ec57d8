"""One SAE or a grid of them, trained in one pass and saved: what `rsae train` does.

A finished SAE has a `training.json` beside it. It is never trained over: the same settings find it done, more steps
prolong it, anything else has to be forced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rsae import checkpoints
from rsae.activations.protocol import Activations, check_fits
from rsae.folders import SAVED, check_free
from rsae.formats import check_format, load, mark_in, save
from rsae.monitoring import Monitor
from rsae.new import new
from rsae.sae import SAE, BatchTopK, family
from rsae.sae.fingerprint import fingerprint
from rsae.sharding import sharded
from rsae.support import distributed
from rsae.support.errors import InputError
from rsae.support.files import digest, read_json, write_json
from rsae.support.values import numeral
from rsae.training import History, TrainConfig, train
from rsae.upgrading.decide import fit_of

RECORD = "training.json"
_CHECKPOINT = "checkpoint.safetensors"
#: Results go to the first, which is named the second when all are there, and then to their places: whenever a run is
#: killed, either what was trained before is untouched, and the checkpoint with it, or the rest is a matter of moving
_SAVING, _SAVED = ".saving", ".saved"
_K, _L0 = 32, 32.0
_SAMPLE = 8192  # tokens that an SAE's own l0 is measured on


@dataclass(frozen=True)
class Grid:
    """Values whose combinations are trained side by side. Empty: the default."""

    k: Sequence[int] = ()
    """Active latents a token, of families whose l0 is `k`."""
    sparsity: Sequence[float] = ()
    """Weights of the penalty, of the other families."""
    l0: Sequence[float] = ()
    """Wanted l0, instead of a weight."""
    seed: Sequence[int] = (0,)
    """Of the start; the data order is the first one's."""

    def checked(self, name: str, begin: bool = False) -> Grid:
        """The grid with the family's defaults.

        Args:
            name: The family.
            begin: There is an SAE to start from, whose own values are the defaults.

        Raises:
            InputError: A value does not apply to the family, or stands there twice, or several seeds have one start.
        """
        for option, values in asdict(self).items():
            if len(set(values)) < len(values):
                raise InputError(f"--{option} {','.join(map(str, values))}: give each value once")
        if begin and len(self.seed) > 1:
            raise InputError(
                f"--seed {','.join(map(str, self.seed))}: with --from all begin alike, on the same batches; "
                "give one seed a run, each with its own directory"
            )
        if family(name).sparsity_by == "k":
            if self.sparsity or self.l0:
                raise InputError(f"{name} has no penalty: its l0 is set by --k")
            return self if self.k or begin else replace(self, k=(_K,))
        if self.k:
            raise InputError(
                f"{name} takes no --k; set its l0 by --l0, or the weight of its penalty by --sparsity"
            )
        if self.sparsity and self.l0:
            raise InputError("give either --sparsity or --l0")
        return self if self.sparsity or self.l0 or begin else replace(self, l0=(_L0,))

    def points(self) -> list[dict[str, Any]]:
        """Each combination, by name of the value."""
        given = {name: values for name, values in asdict(self).items() if values}
        return [dict(zip(given, values, strict=True)) for values in product(*given.values())]

    def label(self, point: dict[str, Any]) -> str:
        """What tells a combination from the others, as part of a directory's name.

        Args:
            point: One of `points`.
        """
        return "-".join(f"{n}{numeral(v)}" for n, v in point.items() if len(getattr(self, n)) > 1)


@dataclass
class Finished:
    """A trained SAE."""

    path: Path
    """Where it lies."""
    sae: SAE
    """The SAE."""
    history: History
    """Of its training; of the last part for one that was prolonged."""
    trained_now: bool
    """Whether it was trained by this call."""


@dataclass
class _Job:
    path: Path
    sae: SAE
    config: TrainConfig
    key: str
    done: Finished | None = None
    before: int = 0


def train_grid(
    name: str,
    activations: Activations,
    out: Path,
    config: TrainConfig,
    grid: Grid,
    settings: dict[str, Any],
    begin: str | None = None,
    force: bool = False,
    device: str = "cpu",
    allow_mismatch: bool = False,
    shard: bool = False,
    monitors: Sequence[Monitor] = (),
) -> list[Finished]:
    """Train the SAEs of a grid on the same batches and save each.

    Args:
        name: The family.
        activations: The activations.
        out: Directory of the SAE; for several, of one directory for each.
        config: How to train; the grid's values replace its own.
        grid: The values.
        settings: The family's settings beside `k`, such as `d_sae`.
        begin: A saved SAE to start from, instead of a random one. It brings its settings, of which `k` alone can be
            changed; where neither sparsity nor l0 is given, its penalty's weight or else its l0 is kept.
        force: Train over a finished result of other settings.
        device: `cpu`, `cuda`, ...
        allow_mismatch: Start from an SAE that says that it belongs to another host or hook point.
        shard: The processes hold parts of each dictionary, as `rsae.support.distributed.join` laid them out.
        monitors: Who is told of the histories while they grow.

    Returns:
        The SAEs (of parts: those of this process), on the CPU, saved.

    Raises:
        InputError: Settings contradict each other, or a finished result would be lost.
    """
    grid = grid.checked(name, begin is not None)
    config = replace(config, seed=grid.seed[0])
    _settle(out)
    if begin is not None and not (grid.sparsity or grid.l0):
        config = _kept(load(begin), activations, config)
    jobs = [_job(name, activations, out, config, grid, p, settings, begin, shard) for p in grid.points()]
    for job in jobs:
        _look(job, force, shard)
    todo = [job for job in jobs if job.done is None]
    if todo and len({job.config.steps for job in todo}) > 1:
        raise InputError(
            f"{out}: its SAEs were trained for different numbers of steps; prolong them one by one"
        )
    if todo:
        saes = [job.sae.to(device) for job in todo]
        histories = train(
            saes,
            activations,
            [job.config for job in todo],
            out / _CHECKPOINT,
            allow_mismatch=allow_mismatch,
            monitors=monitors,
            keep=True,
        )
        for job, history in zip(todo, histories, strict=True):
            job.done = Finished(job.path, job.sae.cpu(), history, True)
            place = out / _SAVING / job.path.relative_to(out)
            if shard or distributed.is_first():
                save(job.sae, place)
            if distributed.is_first():
                steps = job.before + job.config.steps
                write_json(place / RECORD, {"key": job.key, "steps": steps, "history": history})
        if distributed.is_first():
            os.replace(out / _SAVING, out / _SAVED)
        _settle(out)
    return [job.done for job in jobs if job.done is not None]


def _settle(out: Path) -> None:
    """Move what is saved to its place, and forget what was not saved as a whole."""
    if distributed.is_first():
        shutil.rmtree(out / _SAVING, ignore_errors=True)
        if (out / _SAVED).is_dir():
            for file in sorted((out / _SAVED).rglob("*")):
                if file.is_file():
                    place = out / file.relative_to(out / _SAVED)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, place)
            checkpoints.remove(out / _CHECKPOINT)
            shutil.rmtree(out / _SAVED)
    distributed.wait()


def _job(
    name: str,
    activations: Activations,
    out: Path,
    config: TrainConfig,
    grid: Grid,
    point: dict[str, Any],
    settings: dict[str, Any],
    begin: str | None,
    shard: bool,
) -> _Job:
    label = grid.label(point)
    path = out / f"{name}-{label}" if label else out
    given = {k: v for k, v in point.items() if k in ("sparsity", "l0")}
    config = replace(config, **given)
    own = settings | ({"k": point["k"]} if "k" in point else {})
    if begin is None:
        sae = new(name, activations, point["seed"], shard=shard, **own)
    else:
        sae = _begun(begin, name, own)
        sae = sharded(sae) if shard else sae
    sae.penalty_named(config.penalty)
    # not the path of a start, where other weights may lie by now
    made_of = own if begin is None else [fingerprint(sae), own]
    key = [name, made_of, point["seed"], asdict(replace(config, steps=1))]
    return _Job(path, sae, config, digest([*key, activations.identity]))


def _begun(begin: str, name: str, wanted: dict[str, Any]) -> SAE:
    """A saved SAE with another k, where that is wanted."""
    sae = load(begin)
    if sae.family != name:
        raise InputError(f"{begin}: is a {sae.family!r} SAE, not {name!r}; name its own family")
    has = sae.settings()
    for setting, value in wanted.items():
        if setting == "k":
            if not 0 < value <= sae.d_sae:
                raise InputError(f"{begin}: k={value} must lie between 1 and d_sae={sae.d_sae}")
            if isinstance(sae, BatchTopK) and value != sae.k:
                sae.threshold.zero_()  # it belongs to the other k
            vars(sae)["k"] = value
        elif has.get(setting) != value:
            raise InputError(
                f"{begin}: has {setting} {has.get(setting)}, not {value}; leave it out, or start without --from"
            )
    return sae


def _kept(sae: SAE, activations: Activations, config: TrainConfig) -> TrainConfig:
    """The training at the sparsity that an SAE has: by its penalty's weight, or else by its l0."""
    own, penalty = sae.trained, sae.penalty_named(config.penalty)
    if penalty is None:
        return config
    if own is not None and own.penalty == penalty and own.sparsity:
        return replace(config, sparsity=own.sparsity)
    check_fits(sae, activations, allow_mismatch=True)
    return replace(config, l0=fit_of(sae, activations, _SAMPLE)["l0"])


def _look(job: _Job, force: bool, shard: bool) -> None:
    """Whether the job is done, to be prolonged, or to be begun."""
    check_free(job.path, SAVED)
    check_format(job.path)
    record = job.path / RECORD
    if force or not record.exists():
        if not force and (mark := mark_in(job.path)) is not None:
            raise InputError(
                f"{job.path} holds another SAE ({mark}); choose another directory, or give --force"
            )
        return
    made = read_json(record)
    if made.get("key") != job.key:
        raise InputError(
            f"{job.path} holds an SAE of other settings, finished; choose another directory, or give --force"
        )
    if made["steps"] > job.config.steps:
        raise InputError(
            f"{job.path} holds an SAE of {made['steps']} steps, which are more than {job.config.steps}; choose another "
            "directory, or give --force"
        )
    sae = load(job.path)
    sae = sharded(sae) if shard else sae
    if made["steps"] == job.config.steps:
        job.done = Finished(job.path, sae, made["history"], False)
        return
    job.sae, job.before = sae, made["steps"]
    job.config = replace(
        job.config, steps=job.config.steps - made["steps"], seed=job.config.seed + made["steps"]
    )


def described(finished: Finished) -> str:
    """One line that says what was made.

    Args:
        finished: The SAE.
    """
    last = finished.history[-1]
    made = (
        f"{finished.path}: {finished.sae.family}, {finished.sae.settings()['d_sae']} latents, l0 {last['l0']:.1f}, "
        f"||x - x_hat||^2 {last['sse']:.1f} (normalised), {last['dead']:.0f} dead, in training"
    )
    return made if finished.trained_now else f"{made}; it was finished already"
