"""What a run measures of the cells of a site. Cells are measured together, so that the host runs once for all.

Each figure is kept under the SAE's fingerprint and the settings that it depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

import rsae
from evals.config import Evaluate
from evals.labelled import Labelled, load_classes, load_crossed
from evals.metrics.absorption import absorption_of, read_words
from evals.metrics.codes import by_encoder
from evals.metrics.downstream import Precision, bounds_of, downstream
from evals.metrics.interchange import interchanged
from evals.metrics.intervention import intervention
from evals.metrics.jacobians import jacobians
from evals.metrics.losses import Bounds
from evals.metrics.perturbation import perturb, pool, remove
from evals.metrics.probing import ProbeData, baseline, labelled_data, probe_all, probe_data
from evals.metrics.reconstruction import reconstruction
from evals.results import (
    Baseline,
    Downstream,
    Features,
    Intervention,
    Jacobians,
    Metrics,
    Probing,
    Reconstruction,
    Role,
    dump,
    parse,
    slug,
)
from evals.site import Cell, SiteRun, fingerprint
from evals.tasks import load_task, of_files
from rsae import SAE, Host
from rsae.support.files import digest, read_tensors, write_tensors
from rsae.support.progress import progress

#: Tokens of a timed encoding, and how often it is timed
_TIMED_TOKENS, _TIMED = 1024, 5
#: Measures of features by number of latents: the kind of sets that they need, and what scores a set
_BY_NUMBER: dict[str, tuple[str, Callable[..., Any]]] = {
    "tpp": ("classes", perturb),
    "scr": ("crossed", remove),
    "interchange": ("crossed", interchanged),
}
#: How labelled texts are encoded; it matters to the shuffled code alone
_ORDER = "tokens in random order"


class _Measure(NamedTuple):
    """How a figure of cells is made."""

    kind: Any  # of what it gives for a cell
    settings: list[Any]  # that it depends on, beside the SAE and the activations
    make: Callable[[dict[str, SAE]], Mapping[str, Any]]  # of SAEs by name


class Measuring:
    """The measures of a suite at one site.

    Args:
        place: The site.
        evaluate: What is measured.
    """

    def __init__(self, place: SiteRun, evaluate: Evaluate):
        self.place, self.evaluate = place, evaluate

    @property
    def shared(self) -> list[tuple[str, str]]:
        """What all cells share besides the site's activations, as kind and name, those that take longest first."""
        words = [("words", "")] if self.evaluate.absorption else []
        return [("bounds", ""), *(("task", task) for task in self.evaluate.tasks), *words, *self._sets]

    def prepare(self, kind: str, name: str) -> None:
        """Make a part of what all cells share.

        Args:
            kind: As `shared` gives it.
            name: And this.
        """
        if kind == "bounds":  # those of the place, whatever SAE is there
            self._bounds(rsae.new("relu", self.place.store, d_sae=1))
        elif kind == "task":
            self.probe_data(name)
        elif kind == "words":
            self.words()
        else:
            self.labelled(kind, name)

    @property
    def _sets(self) -> list[tuple[str, str]]:
        """Kind and name of each labelled set for the measures of features."""
        return [("classes", name) for name in self.evaluate.classes] + [
            ("crossed", name) for name in self.evaluate.crossed
        ]

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
        settings = [task, *self._reads, *sizes, *of_files([task])]
        found = place.cache.run(f"probing-{slug(task)}", settings, make)
        return ProbeData.load(file), parse(Baseline, found)

    def labelled(self, kind: str, name: str) -> tuple[ProbeData, Labelled]:
        """Activations of texts with several labels; the host runs over them once, for all SAEs.

        Args:
            kind: `classes` or `crossed`.
            name: The set.
        """
        place, e = self.place, self.evaluate
        load = load_classes if kind == "classes" else load_crossed
        loaded = load(name, e.probe_train // 2, e.probe_test // 2)
        file = place.directory / "features" / f"{kind}-{slug(name)}.safetensors"

        def make() -> Any:
            left_out = (place.norm_limit, place.exclude_tokens)
            labelled_data(place.host, place.site.hook, loaded, e.probe_context, *left_out).save(file)
            return len(loaded.texts)

        texts = digest([loaded.texts, loaded.label_TC.tolist(), loaded.is_train_T.tolist()])
        settings = [self._reads, kind, texts, e.probe_context]
        place.cache.run(f"{kind}-{slug(name)}", settings, make)
        return ProbeData.load(file), loaded

    def words(self) -> tuple[torch.Tensor, np.ndarray]:
        """Activations at words and their first letters; the host reads them once, for all SAEs."""
        place, words = self.place, self.evaluate.absorption
        file = place.directory / "features" / "words.safetensors"

        def make() -> Any:
            x_WD, letter_W = read_words(place.host, place.site.hook, words)
            write_tensors(file, {"x_WD": x_WD})
            return "".join(letter_W)

        letters = place.cache.run("words", [self._reads, words], make)
        return read_tensors(file)["x_WD"], np.array(list(letters))

    @property
    def _reads(self) -> list[Any]:
        """Which activations are read, and what is left out of them."""
        place = self.place
        mixed = ["mixed"] if place.harvest.host_dtype == "mixed" else []
        return [place.site.host, place.site.hook, place.norm_limit, list(place.exclude_tokens), *mixed]

    @property
    def measures(self) -> dict[str, _Measure]:
        """What is measured of every cell, by name, those that take longest first."""
        e = self.evaluate
        found = {
            "downstream": _Measure(
                Downstream, [e.downstream_tokens, self._precision, "mean ablation, by position"], self._splice
            )
        }
        if e.features:
            sets = of_files([*e.classes, *e.crossed])
            settings = [e.absorption, e.classes, e.crossed, e.ablate, *sets, _ORDER, "interchange"]
            found["features"] = _Measure(Features, settings, self._features)
        if e.intervention:
            found["intervention"] = _Measure(Intervention, [e.intervention, e.downstream_tokens], self._push)
        if e.jacobians:
            found["jacobians"] = _Measure(Jacobians, [e.jacobians], self._turn)
        sizes = [_ORDER, e.tasks, e.probe_train, e.probe_test, e.probe_context, e.k, *of_files(e.tasks)]
        found["probing"] = _Measure(dict[str, Probing], sizes, self._probe)
        found["reconstruction"] = _Measure(Reconstruction, [], self._reconstruct)
        return found

    def measure(self, name: str, cells: list[Cell], timed: bool = False) -> list[Metrics]:
        """The figures of cells.

        Args:
            name: Their teacher among those of the site.
            cells: The cells.
            timed: Whether to measure how long an encoding takes.

        Returns:
            The figures, in the cells' order.
        """
        figures = {what: self.figures(name, cells, what) for what in self.measures}
        if timed:
            figures["encode_us"] = self._each(name, cells, "encoding", _Measure(float, [], self._time))
        return [
            Metrics(**dict(zip(figures, of_cell, strict=True)))
            for of_cell in zip(*figures.values(), strict=True)
        ]

    def figures(self, name: str, cells: list[Cell], what: str) -> list[Any]:
        """What one measure says of cells.

        Args:
            name: Their teacher among those of the site.
            cells: The cells.
            what: Name of the measure.

        Returns:
            Its figures, in the cells' order; None for a ceiling's features, since it borrows its latents.
        """
        own = [cell for cell in cells if what != "features" or cell.role is not Role.CEILING]
        found = dict(zip(map(id, own), self._each(name, own, what, self.measures[what]), strict=True))
        return [found.get(id(cell)) for cell in cells]

    def _each(
        self,
        name: str,
        cells: list[Cell],
        what: str,
        measure: _Measure,
    ) -> list[Any]:
        """One measure of each cell; those that have no result yet are measured together."""
        of_step = {f"{name}-{cell.variant}-{what}": cell for cell in cells}

        def run(missing: list[str]) -> dict[str, Any]:
            return {
                step: dump(made) for step, made in measure.make({s: of_step[s].sae for s in missing}).items()
            }

        keys = {
            step: [self.place.identity, fingerprint(cell.sae), *measure.settings]
            for step, cell in of_step.items()
        }
        results = self.place.cache.run_all(keys, run)
        return [parse(measure.kind, results[step]) for step in of_step]

    def _reconstruct(self, saes: dict[str, SAE]) -> dict[str, Reconstruction]:
        return {name: reconstruction(sae, self.place.store) for name, sae in saes.items()}

    @torch.no_grad()
    def _time(self, saes: dict[str, SAE]) -> dict[str, float]:
        """Microseconds a token of each SAE's encoding: the fastest of a few, one after the other in turn."""
        x_BD = self.place.store.sample(_TIMED_TOKENS, split="heldout").to(self.place.device)
        took = {name: float("inf") for name in saes}
        for _ in range(_TIMED):
            for name, sae in saes.items():
                start = time.perf_counter()
                sae.encode(x_BD).sum().item()  # which waits for a GPU, too
                took[name] = min(took[name], (time.perf_counter() - start) / len(x_BD) * 1e6)
        return took

    @property
    def _precision(self) -> Precision:
        assert self.evaluate.downstream_precision != "auto"  # a run has settled it
        return self.evaluate.downstream_precision

    def _splice(self, saes: dict[str, SAE]) -> dict[str, Downstream]:
        bounds = self._bounds(next(iter(saes.values())))
        return downstream(saes, *self._spliced_at, **self._left_alone, bounds=bounds)

    def _bounds(self, sae: SAE) -> Bounds:
        """What the host gives without an SAE: of the place, whatever SAE it is, but for what that predicts."""
        place = self.place
        targets = [sae.transcodes, place.site.target, sae.provenance.target_norm_limit]
        settings = [place.identity, *self._reads, targets, self.evaluate.downstream_tokens, self._precision]
        made = place.cache.run(
            "downstream-bounds",
            settings,
            lambda: dump(bounds_of(sae, *self._spliced_at, **self._left_alone)),
        )
        return parse(Bounds, made)

    @property
    def _spliced_at(self) -> tuple[Host, list[list[int]], str]:
        """Host, tokens and hook point of every splicing."""
        return self.place.host, self.place.heldout(self.evaluate.downstream_tokens), self.place.site.hook

    @property
    def _left_alone(self) -> dict[str, Any]:
        """What no splicing changes, and how exact it is."""
        place = self.place
        return {
            "norm_limit": place.norm_limit,
            "exclude_tokens": place.exclude_tokens,
            "precision": self._precision,
        }

    def _push(self, saes: dict[str, SAE]) -> dict[str, Intervention]:
        place, e = self.place, self.evaluate
        tokens = place.heldout(e.downstream_tokens)
        rest = (place.host, tokens, e.intervention, place.site.hook, place.norm_limit)
        excluded = place.exclude_tokens
        return {name: intervention(sae, *rest, exclude_tokens=excluded) for name, sae in saes.items()}

    def _turn(self, saes: dict[str, SAE]) -> dict[str, Jacobians]:
        place, tokens = self.place, self.evaluate.jacobians
        return {name: jacobians(sae, place.host, place.store, tokens) for name, sae in saes.items()}

    def _features(self, saes: dict[str, SAE]) -> dict[str, Features]:
        e = self.evaluate
        found: dict[str, Features] = dict.fromkeys(saes, Features())
        sets = self._sets
        scores = {name: {measure: {n: [] for n in e.ablate} for measure in _BY_NUMBER} for name in saes}
        with progress(
            (len(sets) + bool(e.absorption)) * len(saes), f"features of {len(saes)} SAEs", "set"
        ) as bar:
            if e.absorption:
                words = self.words()
                for name, sae in saes.items():
                    figures = absorption_of(sae, *words)
                    found[name] = Features(figures.fraction, figures.full)
                    bar.update()
            for kind, set_name in sets:
                data, loaded = self.labelled(kind, set_name)
                for name, sae in saes.items():
                    pooled = pool(sae, data)
                    for measure, (of_kind, score) in _BY_NUMBER.items():
                        for one in (
                            score(pooled, loaded.classes, e.ablate).by_number if of_kind == kind else ()
                        ):
                            scores[name][measure][one.latents].append(one.score)
                    bar.update()
        for name, by_measure in scores.items():
            means = {
                measure: {n: float(np.mean(v)) for n, v in by_number.items() if v}
                for measure, by_number in by_measure.items()
            }
            found[name] = replace(found[name], **means)
        return found

    def _probe(self, saes: dict[str, SAE]) -> dict[str, dict[str, Probing]]:
        e = self.evaluate
        found: dict[str, dict[str, Probing]] = {name: {} for name in saes}
        groups = by_encoder(saes)
        with progress(len(e.tasks) * len(saes), f"sparse probing of {len(saes)} SAEs", "probe") as bar:
            for task in e.tasks:
                data, dense = self.probe_data(task)
                for group in groups:
                    for name, made in probe_all(group, data, e.k).items():
                        found[name][task] = replace(made, baseline=dense)
                        bar.update()
        return found
