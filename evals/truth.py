"""A suite's SAEs in a world of known features: the same grid, upgrades and controls, scored against the truth.

RUN/ground_truth/CELL.json   a cell: what it is, how well it reconstructs, what it finds
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from evals.config import SuiteConfig
from evals.metrics.ground_truth import GroundTruth, ground_truth
from evals.results import Level, Role, Site, dump, parse, slug, variant
from evals.site import Cell, Plan, SiteRun, fingerprint
from evals.world import NOISE, World
from rsae import Activations, HarvestConfig
from rsae.support.files import read_json, write_json
from rsae.support.values import numeral
from rsae.upgrading.config import FINE_TUNING


@dataclass(frozen=True)
class TruthCell:
    """An SAE with what it finds of a world."""

    family: str
    """The teacher's family."""
    d_sae: int
    """Number of latents."""
    level: Level
    """What set the teacher's sparsity."""
    seed: int
    """Of the teacher's start and the order of its data."""
    upgrade: str | None
    """Name of the upgrade, of a start or a tuned cell."""
    role: Role
    """What the cell is in the comparison."""
    control: str | None
    """Name of the control."""
    sae: str
    """Where the SAE lies, relative to the run."""
    truth: GroundTruth
    """Its scores."""
    noise: float = NOISE
    """Standard deviation of the world's noise in each dimension."""

    @property
    def variant(self) -> str:
        """The cell among those of one teacher."""
        return variant(self.role, self.upgrade, self.control)

    @property
    def cell(self) -> str:
        """The cell as a file's name, without `.json`."""
        noise = "" if self.noise == NOISE else f"-n{numeral(self.noise)}"
        return f"{slug(f'{self.family}-{self.d_sae}-{self.level}{noise}')}-s{self.seed}-{self.variant}"


class WorldRun(SiteRun):
    """The world of a run, in the place of a site: its samples are the activations.

    Args:
        config: The suite.
        run: The run's directory.
        noise: The world's noise.
        device: Where the SAEs are.
    """

    def __init__(
        self, config: SuiteConfig, run: str | os.PathLike, noise: float = NOISE, device: str = "cpu"
    ):
        g = config.ground_truth
        self.world, self.heldout_samples = World(g.features, g.d_in, g.seed, noise), g.samples
        told = "" if noise == NOISE else f"-n{numeral(noise)}"
        site = Site(f"world-{g.features}x{g.d_in}-s{g.seed}{told}", "features")
        super().__init__(site, HarvestConfig(), run, device)

    @cached_property
    def store(self) -> Activations:  # type: ignore[override]
        """The world's samples; nothing is stored."""
        return self.world.activations(heldout=self.heldout_samples)

    def score(self, name: str, cells: list[Cell]) -> list[GroundTruth]:
        """The scores of a teacher's cells, kept under their fingerprints."""
        of_step = {f"{name}-{cell.variant}-truth": cell for cell in cells}
        samples = self.heldout_samples
        keys = {step: [self.identity, fingerprint(cell.sae), samples] for step, cell in of_step.items()}
        made = self.cache.run_all(
            keys,
            lambda steps: {
                step: dump(ground_truth(of_step[step].sae, self.world, samples)) for step in steps
            },
        )
        return [parse(GroundTruth, made[step]) for step in of_step]


def run_truth(config: SuiteConfig, out: str | os.PathLike, device: str = "cpu") -> list[TruthCell]:
    """Train and score a suite's grid in its worlds; what is finished is kept.

    Args:
        config: The suite; its `[ground_truth]` says which world.
        out: Directory of the run.
        device: Where the SAEs are.

    Returns:
        The cells.
    """
    return [cell for noise in config.ground_truth.noise for cell in _in_world(config, out, noise, device)]


def _in_world(config: SuiteConfig, out: str | os.PathLike, noise: float, device: str) -> list[TruthCell]:
    place, found = WorldRun(config, out, noise, device), []
    for family in config.grid.families:
        for seed in config.grid.seeds:
            plans = [
                Plan(family, d_sae, level, replace(config.train, seed=seed), config.grid.options(family))
                for d_sae in config.grid.widths_of(family)
                for level in config.grid.levels(family)
            ]
            tune = replace(config.tune.rated(FINE_TUNING), seed=seed + 1)
            for plan, teacher in zip(plans, place.teachers(plans), strict=True):
                cells = place.upgrades(plan.name, teacher, config.upgrades, tune, config.soft_sparsity)
                for cell, truth in zip(cells, place.score(plan.name, cells), strict=True):
                    about = (cell.family, cell.sae.d_sae, cell.level, seed)
                    rest = (cell.upgrade, cell.role, cell.control, cell.path, truth, noise)
                    found.append(TruthCell(*about, *rest))
                    write_json(Path(out) / "ground_truth" / f"{found[-1].cell}.json", dump(found[-1]))
    return found


def read_truth(run: str | os.PathLike) -> list[TruthCell]:
    """The cells that a run has scored against a world; none where it has no world.

    Args:
        run: The run's directory.
    """
    files = sorted((Path(run) / "ground_truth").glob("*.json"))
    cells = [parse(TruthCell, read_json(file)) for file in files]
    order = lambda c: (c.family, c.d_sae, c.noise, c.level.number, c.seed, _ORDER.index(c.role))  # noqa: E731
    return sorted(cells, key=order)


_ORDER = (Role.TEACHER, Role.START, Role.TUNED, Role.CONTROL)
