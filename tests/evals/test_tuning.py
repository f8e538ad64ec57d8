"""Sweeps over training settings, against the trainings one by one."""

from __future__ import annotations

import json
import math
import shlex
import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rsae
from evals import tuning
from evals.metrics.reconstruction import reconstruction
from rsae import InputError, TrainConfig
from rsae.cli import main as rsae_main
from tests.command import assert_one_clear_line, run_command
from tests.evals.conftest import evals

L0 = 12
CONFIG = TrainConfig(steps=25, batch=64)
FAMILIES = ("top_k", "jump_relu")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("tune")


@pytest.fixture(scope="module")
def found(store, out):
    grid = {"lr": [1e-6, 3e-3], "bias_lr": [1.0, 10.0]}
    then = {"revival": [0.0, 0.1], "threshold": [0.2, 1.0]}
    return tuning.tune(store, out, FAMILIES, L0, grid, then, CONFIG, d_sae=48)


def test_each_combination_is_trained_as_it_would_be_by_itself(store, found):
    for family in FAMILIES:
        for tried in found[family].tried[:6]:
            own: dict[str, Any] = {o: v for o, v in tried.changes.items() if o == "threshold"}
            train = {option: value for option, value in tried.changes.items() if option != "threshold"}
            goal = {"l0": float(L0)} if family == "jump_relu" else {}
            own |= {"k": L0} if family == "top_k" else {}
            sae = rsae.new(family, store, d_sae=48, **own)
            rsae.train(sae, store, CONFIG.changed(train | goal))
            alone = reconstruction(sae, store)
            assert tried.fvu is not None
            assert (tried.fvu.mean, tried.l0) == (alone.fvu, alone.l0), tried.label


def test_the_stages_and_the_best(found):
    top = found["top_k"]
    assert len(top.tried) == 4 + 2  # no threshold; the grid, then revival beside its best
    assert {one.changes["lr"] for one in top.tried[4:]} == {top.tried[4].changes["lr"]}
    assert top.best.at_goal.mean == min(one.at_goal.mean for one in top.tried)
    assert top.best.changes["lr"] == 3e-3
    thresholds = [one for one in found["jump_relu"].tried if "threshold" in one.changes]
    assert [one.changes["threshold"] for one in thresholds] == [0.2, 1.0]


def test_fvu_is_brought_to_the_wanted_l0():
    """FVU that is a power of l0 is brought to exactly what the power says; what misses by a quarter is not compared."""

    def tried(l0):
        return tuning.Tried("relu", {}, tuning.Estimate(0.9 * l0**-0.4, 0.01, 3), l0, 1.0, None, 1.0)

    at = tuning.at_goal(tried(36.0), 32, elasticity=-0.4)
    assert at is not None
    assert at.se is not None
    assert at.mean == pytest.approx(0.9 * 32**-0.4, rel=1e-12)
    assert at.se / at.mean == pytest.approx(0.01 / (0.9 * 36**-0.4))
    assert tuning.at_goal(tried(32 * 1.26), 32, -0.4) is None
    assert tuning.at_goal(tried(32 / 1.26), 32, -0.4) is None


def test_a_divergence_costs_only_itself(store, tmp_path):
    (found,) = tuning.tune(
        store, tmp_path, ["top_k"], 4, {"lr": [3e-3, 1e30, 1e-3]}, config=CONFIG, d_sae=48
    ).values()
    assert [one.fvu is None for one in found.tried] == [False, True, False]
    assert found.best.changes == {"lr": 3e-3}
    # k is exact: nothing to bring anywhere
    assert found.beside is None
    assert all(one.at_goal == one.fvu for one in found.tried)
    assert json.loads((tmp_path / "tune.json").read_text())["families"]["top_k"]["tried"][1]["fvu"] is None


def test_a_finished_sweep_trains_nothing(store, out, found, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(tuning.rsae, "train", train)
    grid = {"lr": [1e-6, 3e-3], "bias_lr": [1.0, 10.0]}
    then = {"revival": [0.0, 0.1], "threshold": [0.2, 1.0]}
    assert tuning.tune(store, out, FAMILIES, L0, grid, then, CONFIG, d_sae=48) == found
    with pytest.raises(AssertionError):
        tuning.tune(store, out, FAMILIES, L0, grid, then, CONFIG.changed({"clip": 1.0}), d_sae=48)


def test_what_is_written(out, found):
    made = json.loads((out / "tune.json").read_text())
    assert made["l0"] == L0
    best = made["families"]["jump_relu"]["best"]
    assert best["at_goal"]["mean"] == pytest.approx(found["jump_relu"].best.at_goal.mean)
    copied = tomllib.loads((out / "tune.toml").read_text())
    best_train = {o: v for o, v in found["top_k"].best.changes.items() if o != "threshold"}
    own_default = TrainConfig()
    changed = {o: v for o, v in best_train.items() if v != getattr(own_default, o)}
    assert copied["top_k"]["train"] == changed | {"steps": 25, "batch": 64}
    assert copied["top_k"]["grid"] == {"d_sae": [48], "l0": [L0], "seeds": [0]}
    own = {o: v for o, v in found["jump_relu"].best.changes.items() if o == "threshold"}
    assert copied["jump_relu"].get("settings", {}) == own
    assert (out / "tune.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_give_a_mean_and_an_error(store, tmp_path):
    (found,) = tuning.tune(
        store, tmp_path, ["top_k"], L0, {"lr": [3e-3]}, config=CONFIG, seeds=(0, 1), d_sae=48
    ).values()
    single = []
    for seed in (0, 1):
        sae = rsae.new("top_k", store, seed, d_sae=48, k=L0)
        rsae.train(sae, store, CONFIG.changed({"lr": 3e-3}))
        single.append(reconstruction(sae, store).fvu)
    assert found.best.fvu is not None
    assert found.best.fvu.mean == pytest.approx(sum(single) / 2)
    assert found.best.fvu.se == pytest.approx(abs(single[0] - single[1]) / 2)
    assert math.isfinite(found.best.seconds)


def test_the_command_prints_what_rsae_train_takes(store, tmp_path):
    done = evals(
        *(
            "tune",
            store.path,
            tmp_path / "tuned",
            "--family",
            "jump_relu",
            "--l0",
            L0,
            "--d-sae",
            48,
            "--steps",
            30,
        ),
        *(
            "--vary",
            "lr=1e-3,3e-3",
            "--then",
            "beta2=0.99",
            "--then",
            "threshold=0.3",
            "--setting",
            "batch=64",
            "--setting",
            "precision=bfloat16",
            "--setting",
            "bandwidth=.5",
            "--seed",
            7,
        ),
    )
    assert done.returncode == 0, done.stderr
    assert "best" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("rsae train")]
    words = shlex.split(line.replace("STORE", str(store.path)).replace("OUT", str(tmp_path / "sae")))
    trained = run_command(rsae_main, *words[1:])
    assert trained.returncode == 0, trained.stderr
    best = json.loads((tmp_path / "tuned" / "tune.json").read_text())["families"]["jump_relu"]["best"]
    assert reconstruction(rsae.load(tmp_path / "sae"), store).fvu == pytest.approx(
        best["fvu"]["mean"], rel=1e-6
    )


@given(
    family=st.sampled_from(["top_k", "jump_relu", "gated", "matryoshka_batch_top_k"]),
    lr=st.floats(1e-9, 10),
    clip=st.none() | st.floats(1e-3, 10),
    optimizer=st.sampled_from(["adam", "muon", "schedule_free"]),
    objective=st.sampled_from(["mse", "kl"]),
    d_sae=st.integers(16, 10**7),
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_command_and_the_file_hold_all_that_was_set(
    monkeypatch, family, lr, clip, optimizer, objective, d_sae, seeds
):
    """`rsae train` reads the very training, SAE and seeds of the sweep from the line, a suite from tune.toml."""
    config = TrainConfig(steps=123, clip=clip, optimizer=optimizer, objective=objective, lr=lr)
    own = {"matryoshka_batch_top_k": {"group_sizes": [16, d_sae]}, "jump_relu": {"threshold": lr}}.get(
        family, {}
    )
    best = tuning.Tried(family, {"lr": lr}, None, 8.0, 1.0, None, 1.0)
    train = tuning._beyond_default(config)
    tuned = tuning.Tuned(family, best, (), None, 0.0, train, {"d_sae": d_sae, **own}, tuple(seeds))
    read = []

    def train_grid(family, activations, out, config, grid, settings, *_):
        read.append((family, config, list(grid.seed), settings))
        return []

    monkeypatch.setattr("rsae.grid.train_grid", train_grid)
    monkeypatch.setattr("rsae.activations.open.open_activations", lambda *_: None)
    done = run_command(rsae_main, *shlex.split(tuning.command(tuned, 8))[1:])
    assert done.returncode == 0, done.stderr
    assert read == [(family, config, seeds, tuned.settings)]
    copied = tomllib.loads(tuning.lines(tuned, 8))[family]
    assert TrainConfig(**copied["train"]) == config
    assert copied["grid"] == {"d_sae": [d_sae], "l0": [8], "seeds": seeds}
    assert copied.get("settings", {}) == own


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vary", "lr"], "NAME=VALUE"),
        (["--vary", "lr="], "NAME=VALUE"),
        (["--vary", "lrr=1"], "did you mean 'lr'"),
        (["--vary", "lr=-1"], "lr = -1"),
        (["--vary", "lr=fast"], "lr = 'fast'"),
        (["--then", "bandwith=1"], "did you mean 'bandwidth'"),
        (["--setting", "batch=1,2"], "one value"),
        (["--setting", "bach=1"], "did you mean 'batch'"),
        (["--setting", "steps=5"], "an option of its own, --steps"),
        (["--seed", "x"], "--seed 'x'"),
        (["--family", "topk"], "did you mean 'top_k'"),
        (["--l0", 64], "must lie between"),
        (["--skip"], "no target"),
        (["--vary", "lr=1e-3,0.001"], "give each option once, and each of its values"),
        (["--vary", "lr=1", "--vary", "lr=2"], "give each option once"),
        (["--seed", "0,1,0"], "no repetition"),
    ],
)
def test_mistakes_are_told_before_anything_runs(store, tmp_path, arguments, words):
    family = [] if "--family" in arguments else ["--family", "top_k", "--family", "jump_relu"]
    done = evals("tune", store.path, tmp_path / "out", "--d-sae", 48, *family, *arguments)
    assert_one_clear_line(done, words)
    assert not (tmp_path / "out").exists()


def test_no_training_near_the_goal(store, tmp_path):
    with pytest.raises(InputError, match="relu: no training came within a quarter of l0 3"):
        tuning.tune(store, tmp_path, ["relu"], 3, {"lr": [1e-9]}, config=CONFIG, d_sae=48)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_family_that_misses_the_goal_costs_only_itself(store, tmp_path, jobs):
    families = ["--family", "relu", "--family", "top_k"]
    sizes = ["--d-sae", 48, "--steps", 20, "--l0", 3, "--vary", "lr=1e-9", "--jobs", jobs]
    done = evals("tune", store.path, tmp_path, *families, *sizes)
    assert_one_clear_line(done, "relu: no training came within a quarter of l0 3", "the others are there")
    assert "rsae train top_k STORE OUT --k 3 --d-sae 48 --steps 20" in done.stdout
    assert set(json.loads((tmp_path / "tune.json").read_text())["families"]) == {"top_k"}
    assert (tmp_path / "tune.png").exists()
