"""Runs on a tiny host that several test files look at; made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals.cli import main
from tests.command import Done, assert_one_clear_line, run_command

SUITE = """
[[sites]]
host = "{host}"
hooks = ["blocks.1.hook_resid_post"]
[harvest]
text = "{text}"
context = 32
tokens = 2500
heldout_tokens = 400
[grid]
families = ["jump_relu", "top_k"]
d_sae = [48]
l0 = [4, 8]
seeds = [0, 1]
[train]
steps = 40
batch = 64
[upgrades.gated]
type = [3, 2]
[tune]
steps = 10
batch = 64
[evaluate]
downstream_tokens = 100
tasks = ["{task}"]
probe_train = 40
probe_test = 20
probe_context = 12
"""
FEATURES = """
classes = ["{task}"]
crossed = ["{task}"]
ablate = [2, 8]
"""

DEMO = """
second_controls = ["pursued"]
soft_sparsity = 0.1
[[sites]]
host = "{host}"
hooks = ["blocks.1.hook_resid_post"]
[harvest]
text = "{text}"
context = 32
tokens = 2500
heldout_tokens = 400
[grid]
families = ["relu", "jump_relu", "top_k"]
d_sae = [48]
k = [6]
sparsity.relu = [0.1]
sparsity.jump_relu = [0.1]
seeds = [3]
[train]
steps = 40
batch = 64
[upgrades.pursuit]
variant = "pursuit"
fine_tune = false
[upgrades.soft]
variant = "soft"
type = [3, 2]
[upgrades.gated]
type = [3, 2]
[tune]
steps = 20
batch = 64
sparsity_warmup = 0.0
[evaluate]
downstream_tokens = 200
tasks = ["spam", "wiki_people"]
probe_train = 40
probe_test = 20
probe_context = 12
k = [1, 2, 5]
"""


def evals(*arguments: object) -> Done:
    """The command line."""
    return run_command(main, *arguments)


@pytest.fixture(scope="session")
def suite_file(tmp_path_factory, host_directory, text_file) -> Path:
    """With a task of the user's own."""
    path = tmp_path_factory.mktemp("suite") / "tiny.toml"
    task = path.with_name("colours.csv")
    rows = [
        f"{'red' if i % 2 else 'blue'} {'thing' if i % 4 < 2 else 'being'} {i},{i % 2},{i % 4 // 2}"
        for i in range(240)
    ]
    task.write_text("\n".join(["text,label,label2", *rows]))
    path.write_text((SUITE + FEATURES).format(host=host_directory, text=text_file, task=task))
    return path


@pytest.fixture(scope="session")
def suite_run(tmp_path_factory, suite_file) -> Path:
    """Run in parts: what is shared first, then two shards."""
    out = tmp_path_factory.mktemp("runs") / "suite"
    missing = evals("run", suite_file, "--out", out, "--shard", "0/2")
    assert_one_clear_line(missing, "--prepare")
    for arguments in (["--prepare"], ["--shard", "0/2"], ["--shard", "1/2"]):
        done = evals("run", suite_file, "--out", out, *arguments)
        assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def demo_file(tmp_path_factory, host_directory, text_file) -> Path:
    """The demo's form at a tiny size."""
    path = tmp_path_factory.mktemp("demo") / "tiny.toml"
    path.write_text(DEMO.format(host=host_directory, text=text_file))
    return path


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory, demo_file) -> Path:
    out = tmp_path_factory.mktemp("runs") / "demo"
    done = evals("run", demo_file, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def cluster():
    """One worker with one thread: joblib by itself would then run everything where it is called."""
    distributed = pytest.importorskip("distributed")
    local = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
    )
    with local:
        yield local
