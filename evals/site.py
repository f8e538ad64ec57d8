"""What the demo and the suites are made of: teachers, their upgrades and controls at one hook point, and measures.

Each step is idempotent: its result is kept under the settings that it depends on (those of the steps that it builds
on included), and rerunning goes on where it stopped.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import approx
import rsae
from evals.config import Evaluate
from evals.metrics.downstream import downstream
from evals.metrics.intervention import intervention
from evals.metrics.probing import ProbeData, bootstrap, correct_dense, probe, probe_data
from evals.metrics.reconstruction import reconstruction
from evals.tasks import load_task
from rsae import SAE, HarvestConfig, TrainConfig, UpgradeConfig
from rsae.activations.harvest import plan_sequences
from rsae.activations.text import load_documents, split_documents
from rsae.sae import family
from rsae.support.cache import Cache
from rsae.support.progress import progress

_PACKAGES = ("rsae", "torch", "transformers", "numpy", "python-flint", "scikit-learn")


@dataclass
class Cell:
    """An SAE to measure, and what its result file says of how it was made."""

    sae: SAE
    seconds: float
    control: str | None = None
    how: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A teacher to train: its family's settings without `d_in`, and the training."""

    family: str
    settings: dict[str, Any]
    config: TrainConfig


class Bench:
    """One hook point of one host, and a directory that holds all that is made and measured there."""

    def __init__(self, harvest: HarvestConfig, evaluate: Evaluate, out: Path):
        self.harvest, self.measures, self.out = harvest, evaluate, out
        self.steps = Cache(out / "steps")

    @cached_property
    def host(self) -> rsae.Host:
        return _host(self.harvest.host)

    @cached_property
    def store(self) -> rsae.Store:
        return rsae.harvest(self.harvest, self.out / "activations")

    @property
    def norm_limit(self) -> float:
        """Activations above it were left out of training, and are left alone in evaluation."""
        return self.store.manifest["excluded_norm"]

    @cached_property
    def heldout_sequences(self) -> list[list[int]]:
        """Token ids of held-out articles for the downstream loss."""
        return self.heldout(self.measures.downstream_tokens)

    def heldout(self, tokens: int) -> list[list[int]]:
        """Token ids of held-out articles, about so many."""
        h = self.harvest
        documents = split_documents(load_documents(h.text), h.seed)["heldout"]
        return [ids for _, ids in plan_sequences(self.host, documents, h.context, tokens)]

    def probe_data(self, task: str) -> tuple[ProbeData, dict[str, Any]]:
        """A task's activations and its dense baseline; the host runs over its texts once, for all SAEs."""
        e, h = self.measures, self.harvest
        name = slug(task)
        file = self.out / "probing" / f"{name}.safetensors"

        def make() -> dict[str, Any]:
            loaded = load_task(task, e.probe_train, e.probe_test)
            data = probe_data(self.host, h.hook, loaded, e.probe_context, self.norm_limit)
            data.save(file)
            train = int(data.is_train_T.sum())
            correct_T = correct_dense(data)
            return {
                "dense": float(correct_T.mean()),
                "dense_interval": bootstrap(correct_T),
                "train": train,
                "test": len(correct_T),
            }

        settings = [task, h.host, h.hook, self.norm_limit, e.probe_train, e.probe_test, e.probe_context]
        baseline = self.steps.run(f"probing-{name}", settings, make)
        return ProbeData.load(file), baseline

    def prepare(self) -> None:
        """What all cells share: the activations and the tasks' activations."""
        _ = self.store
        for task in self.measures.tasks:
            self.probe_data(task)

    # --- what is measured ----------------------------------------------------------------------------------

    def teachers(self, plans: dict[str, Plan]) -> dict[str, Cell]:
        """Teachers by name; those that are not there yet are trained in one pass over the activations."""
        paths = {name: self.out / "saes" / name / "teacher" for name in plans}

        def make(steps: list[str]) -> dict[str, Any]:
            names = [step.removesuffix("-teacher") for step in steps]
            saes = []
            for plan in (plans[name] for name in names):
                sae = family(plan.family)(d_in=self.store.d_in, **plan.settings)
                sae.rescale_(1 / self.store.scale)  # thresholds are given in units of mean norm sqrt(d_in)
                sae.initialise(self.store.sample(8192, plan.config.seed), plan.config.seed)
                saes.append(sae)
            checkpoint = self.out / "checkpoints" / f"{names[0]}.safetensors"
            what = f"{plans[names[0]].family} teacher" if len(names) == 1 else f"{len(names)} teachers"
            configs = [plans[name].config for name in names]
            histories = rsae.train(saes, self.store, configs, checkpoint, f"train {what}")
            for name, sae in zip(names, saes, strict=True):
                rsae.save(sae, paths[name])
            return dict(zip(steps, histories, strict=True))

        settings = {
            f"{name}-teacher": [self.store.manifest, plan.family, plan.settings, asdict(plan.config)]
            for name, plan in plans.items()
        }
        histories = self.steps.run_all(settings, make)
        cells = {}
        for name, plan in plans.items():
            history = histories[f"{name}-teacher"]
            how = {"train": asdict(plan.config), "settings": plan.settings, "history": history}
            cells[name] = Cell(rsae.load(paths[name]), self.steps.seconds[f"{name}-teacher"], how=how)
        return cells

    def upgrades(
        self,
        name: str,
        teacher: Cell,
        configs: dict[str, UpgradeConfig],
        fit: approx.Rational | None = None,
    ) -> dict[str, Cell]:
        """All cells of a teacher, by variant, itself first; a control that serves two upgrades runs once."""
        cells = {"teacher": teacher}
        for variant, config in configs.items():
            penalty, control = config.penalty_for(teacher.sae), control_name(config, teacher.sae)
            done = cells[control].sae if control in cells else True
            out = self.out / "saes" / name / variant
            new = rsae.upgrade(teacher.sae, self.store, config=config, fit=fit, control=done, out=out)
            tune = config.budget_for(teacher.sae, self.store)
            how = {"upgrade": asdict(config) | {"tune": asdict(tune)}, "start": new.initial.activation.start}
            cells[f"{variant}-init"] = Cell(new.initial, new.seconds["initial"], control, how)
            how = how | {"history": new.history["tuned"]}
            cells[variant] = Cell(new.tuned, new.seconds["tuned"], control, how)
            if control not in cells and new.control is not None:
                how = {"train": asdict(tune), "penalty": penalty, "history": new.history["control"]}
                cells[control] = Cell(new.control, new.seconds["control"], how=how)
        return cells

    # --- measuring -----------------------------------------------------------------------------------------

    def measure(self, name: str, cells: dict[str, Cell]) -> dict[str, dict[str, Any]]:
        """The metrics of all cells of a teacher, by variant: `reconstruction`, `downstream`, `probing`, ..."""
        e = self.measures
        identity = {v: [self.store.manifest, fingerprint(cell.sae)] for v, cell in cells.items()}

        def measure(
            what: str, settings: list[Any], make: Callable[[dict[str, SAE]], dict[str, Any]]
        ) -> dict[str, Any]:
            """A measure of each cell; those that have no result yet are measured together."""
            variant_of = {f"{name}-{v}-{what}": v for v in cells}

            def run(missing: list[str]) -> dict[str, Any]:
                made = make({variant_of[step]: cells[variant_of[step]].sae for step in missing})
                return {step: made[variant_of[step]] for step in missing}

            keys = {step: [*identity[v], *settings] for step, v in variant_of.items()}
            results = self.steps.run_all(keys, run)
            return {v: results[step] for step, v in variant_of.items()}

        def reconstruct(saes: dict[str, SAE]) -> dict[str, Any]:
            return {variant: reconstruction(sae, self.store) for variant, sae in saes.items()}

        def splice(saes: dict[str, SAE]) -> dict[str, Any]:
            return downstream(saes, self.host, self.heldout_sequences, self.harvest.hook, self.norm_limit)

        def push(saes: dict[str, SAE]) -> dict[str, Any]:
            place = (self.host, self.heldout_sequences, e.intervention, self.harvest.hook, self.norm_limit)
            return {variant: intervention(sae, *place) for variant, sae in saes.items()}

        def probe_all(saes: dict[str, SAE]) -> dict[str, Any]:
            results: dict[str, Any] = {variant: {} for variant in saes}
            with progress(len(e.tasks) * len(saes), f"sparse probing of {len(saes)} SAEs", "probe") as bar:
                for task in e.tasks:
                    data, baseline = self.probe_data(task)
                    for variant, sae in saes.items():
                        results[variant][task] = probe(sae, data, e.k) | baseline
                        bar.update()
            return results

        probing = [e.tasks, e.probe_train, e.probe_test, e.probe_context, e.k]
        measured = {
            "reconstruction": measure("reconstruction", [], reconstruct),
            "downstream": measure("downstream", [e.downstream_tokens], splice),
            "probing": measure("probing", probing, probe_all),
        }
        if e.intervention:
            measured["intervention"] = measure("intervention", [e.intervention, e.downstream_tokens], push)
        return {v: {what: by_variant[v] for what, by_variant in measured.items()} for v in cells}

    def record(self, cell: Cell) -> dict[str, Any]:
        """What a result file says of a cell beside its figures."""
        return {
            "gate": gate_curve(cell.sae),
            "how": cell.how,
            "host_note": self.store.manifest["host_note"],
            "seconds": cell.seconds,
            "versions": {package: version(package) for package in _PACKAGES},
            "machine": machine(),
        }


def control_name(config: UpgradeConfig, teacher: SAE | type[SAE]) -> str:
    """The variant that controls an upgrade: `control`, or `control-PENALTY` under another than the teacher's."""
    penalty = config.penalty_for(teacher)
    return "control" if penalty == teacher.penalties[0] else f"control-{penalty}"


@lru_cache(maxsize=1)
def _host(name: str) -> rsae.Host:
    """A host is kept for the next hook point in it."""
    return rsae.load_host(name)


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.")


def fingerprint(sae: SAE) -> list[Any]:
    """Tells one SAE from another, on any number of threads: settings, and norms of all tensors to six digits."""
    norms = {name: f"{value.double().norm().item():.6g}" for name, value in sae.state_dict().items()}
    return [sae.family, sae.settings(), norms]


def machine() -> str:
    """The processor and what of it is used."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"


def gate_curve(sae: SAE) -> dict[str, list[float]] | None:
    """The trained r(t) = phi(C_in t) / C_out of a rational SAE with shared coefficients.

    `soft`'s over t in [-1.2, 1.2]; `gated`'s where its gate can be open, t >= 0.
    """
    if not isinstance(sae, rsae.RationalSAE) or any(p.shape[0] > 1 for p in sae.activation.form.parameters()):
        return None
    t_1N = torch.linspace(-1.2 if isinstance(sae, rsae.SoftRational) else 0.0, 1.2, 481)[None]
    with torch.no_grad():
        r_N = sae.activation.form.evaluate(t_1N)[0]
        if sae.signed:  # the odd part
            r_N = (r_N - sae.activation.form.evaluate(-t_1N)[0]) / 2
    return {"t": t_1N[0].tolist(), "r": r_N.tolist()}
