"""The main job: harvest, train teachers, fit their gates, upgrade, run the controls, evaluate, report.

Each step is idempotent (see `evals.bench`), and rerunning goes on where it stopped. One result file a cell:
`results/FAMILY-VARIANT.json`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import approx
from approx.fit.measure import sample
from evals.bench import Bench, Plan
from evals.config import DemoConfig, Variant
from evals.report.html import write_report
from rsae import SAE, TrainConfig, UpgradeConfig
from rsae.files import write_json
from rsae.steps import say
from rsae.upgrading import target_for

FAMILIES = ("relu", "jump_relu", "top_k")
FITTERS: dict[str, Callable[..., approx.Fit]] = {
    "remez": approx.remez,
    "least_squares": approx.least_squares,
    "minimax": approx.minimax,
}


def demo(config: DemoConfig, out: str | os.PathLike) -> Path:
    """Run the main job into the directory `out` and return the path of its report."""
    bench = Bench(replace(config.harvest, seed=config.seed), config.evaluate, Path(out))
    bench.prepare()
    for name in FAMILIES:
        teacher = bench.teachers({name: teacher_plan(config, name)})[name]
        fit = fit_gate(bench, name, config.upgrade.type)
        configs = {v: upgrade_config(config, teacher.sae, v) for v in config.upgrade.variants}
        cells = bench.upgrades(name, teacher, configs, fit)
        measured = bench.measure(name, cells)
        for variant, cell in cells.items():
            result = {
                "family": name,
                "variant": variant,
                "control": cell.control,
                "seed": config.seed,
                "metrics": measured[variant],
                "config": config.model_dump(mode="json"),
                **bench.record(cell),
            }
            write_json(bench.out / "results" / f"{name}-{variant}.json", result)
    report = write_report(bench.out)
    say(f"the report: {report}")
    return report


def teacher_plan(config: DemoConfig, name: str) -> Plan:
    """A family's teacher, in the demo's size."""
    t = config.teachers
    sparsity = {"relu": t.sparsity_relu, "jump_relu": t.sparsity_jump_relu, "top_k": 0.0}[name]
    settings = {"d_sae": t.d_sae} | ({"k": t.k} if name == "top_k" else {})
    train = TrainConfig(steps=t.steps, batch=t.batch, lr=t.lr, sparsity=sparsity, seed=config.seed)
    return Plan(name, settings, train)


def upgrade_config(config: DemoConfig, teacher: SAE, variant: Variant) -> UpgradeConfig:
    """The budget; its penalty has the weight that it has in the training of a teacher."""
    u, t = config.upgrade, config.teachers
    upgrade = UpgradeConfig(variant=variant, type=u.type, form=u.form)
    weight = {"l1": t.sparsity_relu, "l0": t.sparsity_jump_relu, None: 0.0}[upgrade.penalty_for(teacher)]
    tune = TrainConfig(
        steps=u.steps, batch=t.batch, lr=u.lr, sparsity=weight, sparsity_warmup=0.0, seed=config.seed + 1
    )
    return replace(upgrade, tune=tune)


def fit_gate(bench: Bench, name: str, type_: tuple[int, int]) -> approx.Rational:
    """A teacher's gate by three fitters, with a certificate of the minimax one, which `soft` starts from."""
    directory = bench.out / "fits"

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

    bench.steps.run(f"{name}-fit", [name, list(type_)], make)
    return approx.load(directory / f"{name}.json")
