"""What a run measures of the cells of a site. Cells are measured together, so that the host runs once for all.

Each figure is kept under the SAE's fingerprint and the settings that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from evals.config import Evaluate
from evals.metrics.downstream import downstream
from evals.metrics.intervention import intervention
from evals.metrics.probing import ProbeData, baseline, probe, probe_data
from evals.metrics.reconstruction import reconstruction
from evals.results import (
    Baseline,
    Downstream,
    Intervention,
    Metrics,
    Probing,
    Reconstruction,
    dump,
    parse,
    slug,
)
from evals.site import Cell, SiteRun, fingerprint
from evals.tasks import load_task
from rsae import SAE
from rsae.support.progress import progress

T = TypeVar("T")


class Measuring:
    """The measures of a suite at one site.

    Args:
        place: The site.
        evaluate: What is measured.
    """

    def __init__(self, place: SiteRun, evaluate: Evaluate):
        self.place, self.evaluate = place, evaluate

    def prepare(self) -> None:
        """What all cells share: the activations and the tasks' activations."""
        _ = self.place.store
        for task in self.evaluate.tasks:
            self.probe_data(task)

    def probe_data(self, task: str) -> tuple[ProbeData, Baseline]:
        """A task's activations and its dense baseline; the host runs over its texts once, for all SAEs."""
        e, place = self.evaluate, self.place
        file = place.directory / "probing" / f"{slug(task)}.safetensors"

        def make() -> Any:
            loaded = load_task(task, e.probe_train, e.probe_test)
            data = probe_data(place.host, place.site.hook, loaded, e.probe_context, place.norm_limit)
            data.save(file)
            return dump(baseline(data))

        sizes = [e.probe_train, e.probe_test, e.probe_context]
        settings = [task, place.site.host, place.site.hook, place.norm_limit, *sizes]
        found = place.cache.run(f"probing-{slug(task)}", settings, make)
        return ProbeData.load(file), parse(Baseline, found)

    def measure(self, name: str, cells: list[Cell]) -> list[Metrics]:
        """The figures of cells.

        Args:
            name: Their teacher among those of the site.
            cells: The cells.

        Returns:
            The figures, in the cells' order.
        """
        e = self.evaluate
        reconstructions = self._each(name, cells, "reconstruction", Reconstruction, [], self._reconstruct)
        spliced = self._each(name, cells, "downstream", Downstream, [e.downstream_tokens], self._splice)
        sizes = [e.tasks, e.probe_train, e.probe_test, e.probe_context, e.k]
        probed = self._each(name, cells, "probing", dict[str, Probing], sizes, self._probe)
        pushed: list[Any] = [None] * len(cells)
        if e.intervention:
            settings = [e.intervention, e.downstream_tokens]
            pushed = self._each(name, cells, "intervention", Intervention, settings, self._push)
        return [Metrics(*figures) for figures in zip(reconstructions, spliced, probed, pushed, strict=True)]

    def _each(
        self,
        name: str,
        cells: list[Cell],
        what: str,
        kind: type[T],
        settings: list[Any],
        make: Callable[[dict[str, SAE]], dict[str, T]],
    ) -> list[T]:
        """One measure of each cell; those that have no result yet are measured together."""
        of_step = {f"{name}-{cell.variant}-{what}": cell for cell in cells}

        def run(missing: list[str]) -> dict[str, Any]:
            return {step: dump(made) for step, made in make({s: of_step[s].sae for s in missing}).items()}

        keys = {
            step: [self.place.identity, fingerprint(cell.sae), *settings] for step, cell in of_step.items()
        }
        results = self.place.cache.run_all(keys, run)
        return [parse(kind, results[step]) for step in of_step]

    def _reconstruct(self, saes: dict[str, SAE]) -> dict[str, Reconstruction]:
        return {name: reconstruction(sae, self.place.store) for name, sae in saes.items()}

    def _splice(self, saes: dict[str, SAE]) -> dict[str, Downstream]:
        place = self.place
        tokens = place.heldout(self.evaluate.downstream_tokens)
        return downstream(saes, place.host, tokens, place.site.hook, place.norm_limit)

    def _push(self, saes: dict[str, SAE]) -> dict[str, Intervention]:
        place, e = self.place, self.evaluate
        tokens = place.heldout(e.downstream_tokens)
        rest = (place.host, tokens, e.intervention, place.site.hook, place.norm_limit)
        return {name: intervention(sae, *rest) for name, sae in saes.items()}

    def _probe(self, saes: dict[str, SAE]) -> dict[str, dict[str, Probing]]:
        e = self.evaluate
        found: dict[str, dict[str, Probing]] = {name: {} for name in saes}
        with progress(len(e.tasks) * len(saes), f"sparse probing of {len(saes)} SAEs", "probe") as bar:
            for task in e.tasks:
                data, dense = self.probe_data(task)
                for name, sae in saes.items():
                    made = probe(sae, data, e.k)
                    found[name][task] = replace(made, baseline=dense)
                    bar.update()
        return found
