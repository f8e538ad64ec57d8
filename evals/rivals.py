"""What a run makes beside a teacher and its upgrades: baselines, second controls of a pursuit, and the ceiling.

baselines        codes at the teacher's l0 (`evals.stand_ins`), and `untrained`: the same SAE on the host's untrained
                 twin
second controls  CONTROL-UPGRADE: the control read with the upgrade's pursuit; CONTROL-longer: twice the fine-tuning;
                 CONTROL-wider: twice the latents, trained and fine-tuned alike
ceiling          omp: orthogonal matching pursuit on the control's dictionary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import rsae
from evals.baselines import fine_tuned, untrained_twin
from evals.config import SuiteConfig
from evals.metrics.reconstruction import reconstruction
from evals.results import Level, Role
from evals.site import Cell, Plan, SiteRun, fingerprint
from evals.stand_ins import stand_in, wrap
from rsae import SAE, PursuitSAE, TrainConfig
from rsae.formats.sealed import load_sealed, save_sealed
from rsae.support.cache import Cache
from rsae.training import History


class TwinRun(SiteRun):
    """The untrained twin of a site's host, in the place of the host; see `SiteRun` for the arguments."""

    def __init__(self, place: SiteRun):
        super().__init__(place.site, place.harvest, place.run, place.device)
        self.directory = place.directory / "untrained"
        self.cache = Cache(self.directory / "steps")
        self.trained = place

    @cached_property
    def host(self) -> rsae.Host:
        """The twin."""
        return untrained_twin(self.trained.host)

    @cached_property
    def store(self) -> rsae.Store:
        """The twin's activations."""
        config = replace(self.harvest, host=self.host.name)
        return rsae.harvest(config, self.directory / "activations", self.host)


class Rivals:
    """What stands beside one teacher.

    Args:
        place: The site.
        config: The suite.
        name: The teacher among those of the site.
        teacher: The teacher.
        plan: How it was trained; None for a public one.
        tune: The fine-tuning of the upgrades.
    """

    def __init__(
        self,
        place: SiteRun,
        config: SuiteConfig,
        name: str,
        teacher: Cell,
        plan: Plan | None,
        tune: TrainConfig,
    ):
        self.place, self.config, self.name = place, config, name
        self.teacher, self.plan, self.tune = teacher, plan, tune
        self.seed = tune.seed - 1
        self.directory = place.directory / "saes" / name

    def baselines(self) -> list[Cell]:
        """The baselines that are measured in the host itself."""
        return [self._baseline(name) for name in self.config.baselines if name != "untrained"]

    def _baseline(self, name: str) -> Cell:
        teacher, store, path = self.teacher, self.place.store, self.directory / f"baseline-{name}"
        train = replace(self.config.train, seed=self.seed)
        wrapped = wrap(name, teacher.sae, self.seed)

        def make() -> None:
            l0 = reconstruction(teacher.sae, store, allow_mismatch=True).l0
            save_sealed(stand_in(name, teacher.sae, store, l0, train.steps, self.seed), path)

        if wrapped is None:
            step = f"{self.name}-baseline-{name}"
            self.place.cache.run(step, [*self._key(teacher.sae), train.steps], make, path)
            seconds = self.place.cache.seconds[step]
        else:
            seconds = 0.0
        return replace(
            teacher,
            sae=wrapped or load_sealed(path).to(self.place.device),
            path=teacher.path if wrapped is not None else self.place.relative(path),
            role=Role.BASELINE,
            how=self.place.how(seconds),
            name=name,
        )

    def untrained(self, twin: TwinRun) -> list[Cell]:
        """The same SAE on the twin, where it is asked for; it is measured there.

        Args:
            twin: The twin.
        """
        if "untrained" not in self.config.baselines:
            return []
        plan = self.plan
        if plan is None:
            l0 = reconstruction(self.teacher.sae, self.place.store, allow_mismatch=True).l0
            train = replace(self.config.train, seed=self.seed)
            plan = Plan("top_k", self.teacher.sae.d_sae, Level("k", max(1, round(l0))), train)
        (made,) = twin.teachers([plan])
        family, level = self.teacher.family, self.teacher.level
        return [replace(made, family=family, level=level, role=Role.BASELINE, name="untrained")]

    def second_controls(self, cells: list[Cell]) -> Iterator[Cell]:
        """Second controls and ceilings of the pursuits among the cells.

        Args:
            cells: The teacher, its upgrades and their controls.
        """
        untuned = [name for name, upgrade in self.config.upgrades.items() if not upgrade.fine_tune]
        pursuits = [
            cell
            for cell in cells
            if isinstance(cell.sae, PursuitSAE) and (cell.role is Role.TUNED or cell.upgrade in untuned)
        ]
        controls = [cell for cell in cells if cell.role is Role.CONTROL]
        if not pursuits or not controls:
            return
        control = control_of(pursuits[0], controls)
        wanted = self.config.second_controls
        for upgrade in pursuits if "pursued" in wanted else []:
            yield self._pursued(control, upgrade)
        if "longer" in wanted:
            yield self._tuned(control, "longer", self.teacher.sae, 2 * self.tune.steps)
        if "wider" in wanted and self.plan is not None:
            (wide,) = self.place.teachers([replace(self.plan, d_sae=2 * self.plan.d_sae)])
            yield self._tuned(control, "wider", wide.sae, self.tune.steps)
        if "omp" in wanted:
            ceiling = wrap("omp", control.sae)
            assert ceiling is not None
            yield replace(control, sae=ceiling, role=Role.CEILING, name="omp", how=self.place.how(0.0))

    def _pursued(self, control: Cell, upgrade: Cell) -> Cell:
        """The control read with an upgrade's pursuit: no training of its own."""
        assert isinstance(upgrade.sae, PursuitSAE)
        settings = asdict(upgrade.sae.pursuit)
        key = [*self._key(control.sae), settings]
        made = self._second(
            control, str(upgrade.upgrade), key, lambda: (rsae.pursuit(control.sae, **settings), [])
        )
        return replace(made, how=control.how)

    def _tuned(self, control: Cell, name: str, sae: SAE, steps: int) -> Cell:
        """An SAE fine-tuned as the control was, for `steps`."""
        key = [*self._key(sae), steps]
        store, tune = self.place.store, self.tune
        made = self._second(control, name, key, lambda: fine_tuned(sae, store, steps, tune.seed, tune))
        return replace(made, how=replace(made.how, train=replace(tune, steps=steps)))

    def _second(
        self, control: Cell, name: str, key: list[Any], make: Callable[[], tuple[SAE, History]]
    ) -> Cell:
        """A second control, made or reused."""
        path: Path = self.directory / f"control-{name}"
        step = f"{self.name}-control-{name}"

        def run() -> History:
            sae, history = make()
            save_sealed(sae, path)
            return history

        history = self.place.cache.run(step, [*key, asdict(self.tune)], run, path)
        return replace(
            control,
            sae=load_sealed(path).to(self.place.device),
            path=self.place.relative(path),
            role=Role.SECOND_CONTROL,
            name=f"control-{name}",
            how=self.place.how(
                self.place.cache.seconds[step],
                train=self.tune,
                penalty=control.how.penalty,
                history=tuple(history),
            ),
        )

    def _key(self, sae: SAE) -> list[Any]:
        return [self.place.identity, fingerprint(sae), self.seed]


def control_of(pursuit: Cell, controls: list[Cell]) -> Cell:
    """The control that a pursuit is compared with.

    Args:
        pursuit: The pursuit. Untrained it has no control of its own: then it is the teacher fine-tuned by its own loss.
        controls: All of the teacher's; not empty.
    """
    by_name = {cell.control: cell for cell in controls}
    return by_name.get(pursuit.control) or by_name.get("control") or controls[0]
