"""The main job: harvest, train teachers, fit their gates, upgrade, run the controls, evaluate, report.

Each step is idempotent: its result is kept under the settings that it depends on (those of the steps that it builds
on included), and rerunning goes on where it stopped. One result file a cell: `results/FAMILY-VARIANT.json`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import approx
import rsae
from approx.fit.measure import sample
from evals.config import DemoConfig, Variant
from evals.metrics.downstream import downstream
from evals.metrics.probing import ProbeData, dense_baseline, probe, probe_data
from evals.metrics.reconstruction import reconstruction
from evals.report.html import write_report
from evals.tasks import load_task
from rsae import SAE, TrainConfig, UpgradeConfig
from rsae.activations.harvest import plan_sequences
from rsae.activations.text import load_documents, split_documents
from rsae.files import write_json
from rsae.progress import progress
from rsae.sae import family
from rsae.steps import Steps, say
from rsae.upgrading import target_for

FAMILIES = ("relu", "jump_relu", "top_k")
FITTERS: dict[str, Callable[..., approx.Fit]] = {
    "remez": approx.remez,
    "least_squares": approx.least_squares,
    "minimax": approx.minimax,
}
_PACKAGES = ("rsae", "torch", "transformers", "numpy", "python-flint", "scikit-learn")


def demo(config: DemoConfig, out: str | os.PathLike) -> Path:
    """Run the main job into the directory `out` and return the path of its report."""
    job = _Demo(config, Path(out))
    for task in config.evaluate.tasks:
        job.probe_data(task)
    for name in FAMILIES:
        job.evaluate(name, job.cells(name))
    report = write_report(job.out)
    say(f"the report: {report}")
    return report


@dataclass
class _Cell:
    """An SAE to measure, and what its result file says of how it was made."""

    sae: SAE
    seconds: float
    control: str | None = None
    how: dict[str, Any] = field(default_factory=dict)


class _Demo:
    def __init__(self, config: DemoConfig, out: Path):
        self.config, self.out = config, out
        self.steps = Steps(out / "steps")

    @cached_property
    def host(self) -> rsae.Host:
        return rsae.load_host(self.config.harvest.host)

    @cached_property
    def store(self) -> rsae.Store:
        return rsae.harvest(replace(self.config.harvest, seed=self.config.seed), self.out / "activations")

    @property
    def norm_limit(self) -> float:
        """Activations above it were left out of training, and are left alone in evaluation."""
        return self.store.manifest["excluded_norm"]

    @cached_property
    def heldout_sequences(self) -> list[list[int]]:
        """Token ids of held-out articles for the downstream loss."""
        h = self.config.harvest
        documents = split_documents(load_documents(h.text), self.config.seed)["heldout"]
        plan = plan_sequences(self.host, documents, h.context, self.config.evaluate.downstream_tokens)
        return [ids for _, ids in plan]

    def probe_data(self, task: str) -> tuple[ProbeData, dict[str, Any]]:
        """A task's activations and its dense baseline; the host runs over its texts once, for all SAEs."""
        e, h = self.config.evaluate, self.config.harvest
        file = self.out / "probing" / f"{task}.safetensors"

        def make() -> dict[str, Any]:
            loaded = load_task(task, e.probe_train, e.probe_test)
            data = probe_data(self.host, h.hook, loaded, e.probe_context, self.norm_limit)
            data.save(file)
            train = int(data.is_train_T.sum())
            return {"dense": dense_baseline(data), "train": train, "test": len(data.label_T) - train}

        settings = [task, h.host, h.hook, self.norm_limit, e.probe_train, e.probe_test, e.probe_context]
        baseline = self.steps.run(f"probing-{task}", settings, make)
        return ProbeData.load(file), baseline

    # --- what is measured ----------------------------------------------------------------------------------

    def teacher(self, name: str) -> _Cell:
        """Train a teacher, or take over the one that is there."""
        t, path = self.config.teachers, self.out / "saes" / name / "teacher"
        sparsity = {"relu": t.sparsity_relu, "jump_relu": t.sparsity_jump_relu, "top_k": 0.0}[name]
        config = TrainConfig(
            steps=t.steps,
            batch=t.batch,
            lr=t.lr,
            sparsity=sparsity,
            seed=self.config.seed,
        )
        kwargs: dict[str, Any] = {"d_sae": t.d_sae}
        if name == "top_k":
            kwargs |= {"k": t.k}

        def make() -> list:
            sae = family(name)(d_in=self.store.d_in, **kwargs)
            sae.rescale_(1 / self.store.scale)  # thresholds are given in units of mean norm sqrt(d_in)
            sae.initialise(self.store.sample(8192, self.config.seed), self.config.seed)
            checkpoint = self.out / "checkpoints" / f"{name}.safetensors"
            history = rsae.train(sae, self.store, config, checkpoint, f"train {name} teacher")
            rsae.save(sae, path)
            return history

        history = self.steps.run(f"{name}-teacher", [self.store.manifest, name, kwargs, asdict(config)], make)
        how = {"train": asdict(config), "settings": kwargs, "history": history}
        return _Cell(rsae.load(path), self.steps.seconds[f"{name}-teacher"], how=how)

    def fit(self, name: str) -> approx.Rational:
        """A teacher's gate by three fitters, with a certificate of the minimax one, which `soft` starts from."""
        type_, directory = self.config.upgrade.type, self.out / "fits"

        def make() -> dict[str, Any]:
            target = target_for(name)
            fits = {method: fitter(target, type_) for method, fitter in FITTERS.items()}
            directory.mkdir(parents=True, exist_ok=True)
            used = fits["minimax"]
            used.rational.save(directory / f"{name}.json")
            certificate = approx.certify(used.rational, target)
            assert isinstance(certificate, approx.Certificate)  # built-in targets are proven, not estimated
            certificate.save(directory / f"{name}.certificate.json")
            t = sample(target, 1500, used.reference)
            curves = {
                "type": list(type_),
                "target": target.name,
                "domain": [list(interval) for interval in target.domain],
                "t": t.tolist(),
                "f": target(t).tolist(),
                "fits": {
                    method: {"error": fit.error, "converged": fit.converged, "r": fit.rational(t).tolist()}
                    for method, fit in fits.items()
                },
                "certificate": {
                    "of": "minimax",
                    "lower": float(certificate.lower),
                    "upper": float(certificate.upper),
                    "best_lower": float(certificate.best_lower),
                    "pole_free": certificate.pole_free,
                },
            }
            write_json(directory / f"{name}-curves.json", curves)
            return {method: fit.error for method, fit in fits.items()}

        self.steps.run(f"{name}-fit", [name, list(type_)], make)
        return approx.load(directory / f"{name}.json")

    def upgrade_config(self, teacher: SAE, variant: Variant) -> UpgradeConfig:
        """The budget; its penalty has the weight that it has in the training of a teacher."""
        u, t = self.config.upgrade, self.config.teachers
        config = UpgradeConfig(variant=variant, type=u.type, form=u.form)
        tune = TrainConfig(
            steps=u.steps,
            batch=t.batch,
            lr=u.lr,
            sparsity={"l1": t.sparsity_relu, "l0": t.sparsity_jump_relu, None: 0.0}[
                config.penalty_for(teacher)
            ],
            sparsity_warmup=0.0,
            seed=self.config.seed + 1,
        )
        return replace(config, tune=tune)

    def cells(self, name: str) -> dict[str, _Cell]:
        """All cells of a family, by variant; a control that serves two variants runs once."""
        cells = {"teacher": self.teacher(name)}
        teacher, fit = cells["teacher"].sae, self.fit(name)
        for variant in self.config.upgrade.variants:
            config = self.upgrade_config(teacher, variant)
            penalty = config.penalty_for(teacher)
            control = "control" if penalty == teacher.penalties[0] else f"control-{penalty}"
            done = cells[control].sae if control in cells else True
            out = self.out / "saes" / name / variant
            new = rsae.upgrade(teacher, self.store, config=config, fit=fit, control=done, out=out)
            how = {"upgrade": asdict(config), "start": new.initial.activation.start}
            cells[f"{variant}-init"] = _Cell(new.initial, new.seconds["initial"], control, how)
            cells[variant] = _Cell(
                new.tuned, new.seconds["tuned"], control, how | {"history": new.history["tuned"]}
            )
            if control not in cells and new.control is not None:
                how = {"train": asdict(config.tune), "penalty": penalty, "history": new.history["control"]}
                cells[control] = _Cell(new.control, new.seconds["control"], how=how)
        return cells

    # --- measuring -----------------------------------------------------------------------------------------

    def evaluate(self, name: str, cells: dict[str, _Cell]) -> None:
        """Measure all cells of a family and write a result file each."""
        e = self.config.evaluate
        saes = {variant: cell.sae for variant, cell in cells.items()}

        def reconstruct() -> dict[str, Any]:
            return {variant: reconstruction(sae, self.store) for variant, sae in saes.items()}

        def splice() -> dict[str, Any]:
            return downstream(saes, self.host, self.heldout_sequences)

        def probe_all() -> dict[str, Any]:
            results: dict[str, Any] = {variant: {} for variant in saes}
            with progress(len(e.tasks) * len(saes), f"sparse probing of {len(saes)} SAEs", "probe") as bar:
                for task in e.tasks:
                    data, baseline = self.probe_data(task)
                    for variant, sae in saes.items():
                        results[variant][task] = probe(sae, data, e.k) | baseline
                        bar.update()
            return results

        settings = [self.store.manifest, self.config.model_dump(mode="json")]
        measures = {"reconstruction": reconstruct, "downstream": splice, "probing": probe_all}
        measured = {m: self.steps.run(f"{name}-{m}", settings, make) for m, make in measures.items()}
        for variant, cell in cells.items():
            result = {
                "family": name,
                "variant": variant,
                "control": cell.control,
                "seed": self.config.seed,
                "metrics": {measure: by_variant[variant] for measure, by_variant in measured.items()},
                "gate": gate_curve(cell.sae),
                "how": cell.how,
                "config": self.config.model_dump(mode="json"),
                "host_note": self.store.manifest["host_note"],
                "seconds": cell.seconds,
                "versions": {package: version(package) for package in _PACKAGES},
                "machine": machine(),
            }
            write_json(self.out / "results" / f"{name}-{variant}.json", result)


def machine() -> str:
    """The processor and what of it is used."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"


def gate_curve(sae: SAE) -> dict[str, list[float]] | None:
    """The trained r(t) = phi(C_in t) / C_out of a rational SAE with shared coefficients.

    `soft`'s over t in [-1.2, 1.2]; `gated`'s where its gate can be open, t >= 0.
    """
    if not isinstance(sae, rsae.Rational) or any(p.shape[0] > 1 for p in sae.activation.form.parameters()):
        return None
    t_1N = torch.linspace(-1.2 if isinstance(sae, rsae.SoftRational) else 0.0, 1.2, 481)[None]
    with torch.no_grad():
        r_N = sae.activation.form.evaluate(t_1N)[0]
    return {"t": t_1N[0].tolist(), "r": r_N.tolist()}
