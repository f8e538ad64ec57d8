"""The main job: harvest, train teachers, fit their gates, upgrade, run the controls, evaluate, report.

Each step is idempotent (see `evals.site`), and rerunning goes on where it stopped. One result file a cell:
`results/FAMILY-VARIANT.json`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from evals.config import DemoConfig, Variant
from evals.gates import fit_gate
from evals.report.html import write_report
from evals.site import Bench, Plan
from rsae import SAE, TrainConfig, UpgradeConfig
from rsae.support.cache import say
from rsae.support.files import write_json

FAMILIES = ("relu", "jump_relu", "top_k")


def demo(config: DemoConfig, out: str | os.PathLike) -> Path:
    """Run the main job into the directory `out` and return the path of its report."""
    bench = Bench(replace(config.harvest, seed=config.seed), config.evaluate, Path(out))
    bench.prepare()
    for name in FAMILIES:
        teacher = bench.teachers({name: teacher_plan(config, name)})[name]
        fit, _ = fit_gate(bench.out, name, config.upgrade.type)
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
    """The budget; its L1 has the weight that it has in a teacher's training, its l0 the teacher's weight or l0."""
    u, t = config.upgrade, config.teachers
    upgrade = UpgradeConfig(variant=variant, type=u.type, form=u.form)
    weight = t.sparsity_relu if upgrade.penalty_for(teacher) == "l1" else 0.0
    tune = TrainConfig(
        steps=u.steps, batch=t.batch, lr=u.lr, sparsity=weight, sparsity_warmup=0.0, seed=config.seed + 1
    )
    return replace(upgrade, tune=tune)
