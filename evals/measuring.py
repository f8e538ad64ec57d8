"""What a run measures of the cells of a site. Cells are measured together, so that the host runs once for all.

Each figure is kept under the SAE's fingerprint and the settings that it depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from evals.config import Evaluate
from evals.metrics.downstream import Precision, downstream, has_bfloat16
from evals.metrics.intervention import intervention
from evals.metrics.jacobians import jacobians
from evals.metrics.probing import ProbeData, baseline, probe, probe_data
from evals.metrics.reconstruction import reconstruction
from evals.results import (
    Baseline,
    Downstream,
    Intervention,
    Jacobians,
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

#: Tokens of a timed encoding, and how often it is timed
_TIMED_TOKENS, _TIMED = 1024, 5


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
            left_out = (place.norm_limit, place.exclude_tokens)
            data = probe_data(place.host, place.site.hook, loaded, e.probe_context, *left_out)
            data.save(file)
            return dump(baseline(data))

        sizes = [e.probe_train, e.probe_test, e.probe_context]
        excluded = list(place.exclude_tokens)
        settings = [task, place.site.host, place.site.hook, place.norm_limit, excluded, *sizes]
        found = place.cache.run(f"probing-{slug(task)}", settings, make)
        return ProbeData.load(file), parse(Baseline, found)

    def measure(self, name: str, cells: list[Cell], timed: bool = False) -> list[Metrics]:
        """The figures of cells.

        Args:
            name: Their teacher among those of the site.
            cells: The cells.
            timed: Whether to measure how long an encoding takes.

        Returns:
            The figures, in the cells' order.
        """
        e = self.evaluate
        reconstructions = self._each(name, cells, "reconstruction", Reconstruction, [], self._reconstruct)
        settings = [e.downstream_tokens, self._precision, "mean ablation, by position"]
        spliced = self._each(name, cells, "downstream", Downstream, settings, self._splice)
        sizes = [e.tasks, e.probe_train, e.probe_test, e.probe_context, e.k]
        probed = self._each(name, cells, "probing", dict[str, Probing], sizes, self._probe)
        pushed: list[Any] = [None] * len(cells)
        if e.intervention:
            settings = [e.intervention, e.downstream_tokens]
            pushed = self._each(name, cells, "intervention", Intervention, settings, self._push)
        turned: list[Any] = [None] * len(cells)
        if e.jacobians:
            turned = self._each(name, cells, "jacobians", Jacobians, [e.jacobians], self._turn)
        took: list[Any] = [None] * len(cells)
        if timed:
            took = self._each(name, cells, "encoding", float, [], self._time)
        every = zip(reconstructions, spliced, probed, pushed, turned, took, strict=True)
        return [Metrics(*figures) for figures in every]

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

    @torch.no_grad()
    def _time(self, saes: dict[str, SAE]) -> dict[str, float]:
        """Microseconds a token of each SAE's encoding: the fastest of a few, one after the other in turn."""
        x_BD = self.place.store.sample(_TIMED_TOKENS, split="heldout")
        took = {name: float("inf") for name in saes}
        for _ in range(_TIMED):
            for name, sae in saes.items():
                start = time.perf_counter()
                sae.encode(x_BD)
                took[name] = min(took[name], (time.perf_counter() - start) / len(x_BD) * 1e6)
        return took

    @property
    def _precision(self) -> Precision:
        wanted = self.evaluate.downstream_precision
        if wanted == "auto":
            return "bfloat16" if has_bfloat16(self.place.host.device) else "float32"
        return wanted

    def _splice(self, saes: dict[str, SAE]) -> dict[str, Downstream]:
        place = self.place
        tokens = place.heldout(self.evaluate.downstream_tokens)
        left_out: dict[str, Any] = {"norm_limit": place.norm_limit, "exclude_tokens": place.exclude_tokens}
        return downstream(saes, place.host, tokens, place.site.hook, **left_out, precision=self._precision)

    def _push(self, saes: dict[str, SAE]) -> dict[str, Intervention]:
        place, e = self.place, self.evaluate
        tokens = place.heldout(e.downstream_tokens)
        rest = (place.host, tokens, e.intervention, place.site.hook, place.norm_limit)
        excluded = place.exclude_tokens
        return {name: intervention(sae, *rest, exclude_tokens=excluded) for name, sae in saes.items()}

    def _turn(self, saes: dict[str, SAE]) -> dict[str, Jacobians]:
        place, tokens = self.place, self.evaluate.jacobians
        return {name: jacobians(sae, place.host, place.store, tokens) for name, sae in saes.items()}

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
