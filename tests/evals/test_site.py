"""What a run makes at a site: every variant with its control, and SAEs that are found by their record."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
import rsae
from evals.gates import read_gate
from evals.results import Level, Role, read_results
from evals.site import Plan, fingerprint, gate_curve, load_sae, open_store
from evals.stand_ins import MatchingPursuit, Shuffled
from rsae import InputError, TrainConfig
from rsae.formats.sealed import SUMS, load_sealed, save_sealed
from rsae.sae import FAMILIES
from rsae.sae.input_norm import InputNorm
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.rsae.helpers import random_sae


def by_name(run):
    return {f"{r.family}-{r.variant}": r for r in read_results(run)}


def test_every_cell_has_its_result_and_its_control(demo_run):
    found = by_name(demo_run)
    pursued = ("pursuit-init", "control-pursuit")
    variants = ("teacher", "soft-init", "soft", "gated-init", "gated", "control", *pursued)
    expected = {f"{family}-{v}" for family in ("relu", "jump_relu", "top_k") for v in variants}
    assert found.keys() == expected | {"jump_relu-control-l1", "relu-control-l0"}
    for name, r in found.items():
        if r.compared:
            control = found[f"{r.family}-{r.control}"]
            assert control.role is Role.CONTROL
            assert r.how.upgrade is not None
            assert control.how.train == r.how.upgrade.tune, name
        assert r.seed == 3
        assert r.how.seconds >= 0
        assert {"torch", "rsae", "transformers"} <= r.how.versions.keys()
        for task in ("spam", "wiki_people"):
            assert 0 <= r.metrics.probing[task].accuracy[1].value <= 1


def test_every_variant_is_compared_under_its_own_loss(demo_run):
    found = by_name(demo_run)
    assert found["relu-soft"].control == "control"
    assert found["relu-gated"].control == "control-l0"
    assert found["top_k-soft"].control == found["top_k-gated"].control == "control"
    assert found["jump_relu-soft"].control == "control-l1"
    assert found["jump_relu-control-l1"].how.penalty == "l1"
    assert found["jump_relu-gated"].control == "control"
    assert found["jump_relu-control"].how.penalty == "l0"


def test_gated_starts_as_the_teacher_in_every_metric(demo_run):
    found = by_name(demo_run)
    for family in ("relu", "jump_relu", "top_k"):
        teacher, start = (found[f"{family}-{v}"].metrics for v in ("teacher", "gated-init"))
        assert start.reconstruction.l0 == teacher.reconstruction.l0
        assert start.reconstruction.fvu == pytest.approx(teacher.reconstruction.fvu, rel=1e-4)
        assert start.downstream.ce == pytest.approx(teacher.downstream.ce, rel=1e-4)


def test_honest_and_soft_figures_stand_side_by_side(demo_run):
    honest = by_name(demo_run)["relu-soft"].metrics.reconstruction
    soft = honest.others["soft"]
    assert soft.l0 > 0.99 * 48 > honest.l0
    assert soft.fvu != honest.fvu


def test_the_record_says_where_the_sae_lies(demo_run):
    results = read_results(demo_run)
    for r in results:
        sae = load_sae(demo_run, r)
        assert isinstance(sae, rsae.RationalSAE) is (r.upgrade in ("soft", "gated"))
        assert isinstance(sae, rsae.PursuitSAE) is r.variant.endswith(("pursuit", "pursuit-init"))
        fvu = rsae_fvu(sae, open_store(demo_run, r))
        # other block sizes round otherwise, and a gate may flip at a token
        assert fvu == pytest.approx(r.metrics.reconstruction.fvu, rel=1e-3)
    with pytest.raises(InputError, match="is missing; run the same command"):
        load_sae(demo_run, replace(results[0], sae="sites/nowhere"))


def rsae_fvu(sae, store):
    x = torch.cat(list(store.blocks("heldout"))).double()
    with torch.no_grad():
        return ((sae.double()(x) - x).square().sum() / (x - x.mean(0)).square().sum()).item()


def test_gates_are_certified(demo_run):
    for family in ("relu", "jump_relu", "top_k"):
        gate = read_gate(demo_run, family, (3, 2))
        assert gate is not None
        assert gate.bounds.best_lower <= gate.bounds.lower <= gate.bounds.upper
        assert gate.bounds.lower <= gate.fits["minimax"].error * (1 + 1e-9)
        assert all(fit.error >= gate.bounds.best_lower * (1 - 1e-9) for fit in gate.fits.values())
        approx.verify(demo_run / "gates" / f"{family}-3-2.certificate.json")
        used = approx.load(demo_run / "gates" / f"{family}-3-2.rational.json")
        assert used(gate.t[7]) == pytest.approx(gate.fits["minimax"].r[7], rel=1e-12)
    assert read_gate(demo_run, "relu", (5, 4)) is None


def test_a_start_is_the_certified_fit(demo_run):
    start = by_name(demo_run)["relu-soft-init"]
    used = approx.load(demo_run / "gates" / "relu-3-2.rational.json")
    assert start.how.gate is not None
    for t, r in zip(start.how.gate.t[::40], start.how.gate.r[::40], strict=True):
        assert r == pytest.approx(used(t), abs=1e-5)
    assert gate_curve(load_sae(demo_run, by_name(demo_run)["relu-teacher"])) is None


def test_plans():
    train = TrainConfig(steps=3, seed=5, sparsity=2.0, lr=2e-3, bias_lr=1.0, beta2=0.99)
    plan = Plan("top_k", 64, Level("k", 8), train)
    assert (plan.name, plan.settings, plan.training()) == ("top_k-64-k8-s5", {"d_sae": 64, "k": 8}, train)
    assert Plan("relu", 64, Level("l0", 8), train).training() == replace(train, l0=8.0)
    assert Plan("relu", 64, Level("sparsity", 0.5), train).training() == replace(train, sparsity=0.5)
    own = Plan("relu", 64, Level("l0", 8), TrainConfig(steps=3)).training()
    assert (own.lr, own.bias_lr) == (rsae.ReLU.rates.lr, rsae.ReLU.rates.bias_lr)
    assert Plan("relu", 64, Level("l0", 8), TrainConfig(steps=3)).training(skip=True).lr == 5e-3


def test_a_public_teacher_is_found_by_its_address(demo_run, demo_file, tmp_path):
    teacher = by_name(demo_run)["top_k-teacher"]
    text = demo_file.read_text().replace("[harvest]", f'teachers = ["{demo_run / teacher.sae}"]\n[harvest]')
    file = tmp_path / "public.toml"
    file.write_text(text)
    done = evals("run", file, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = by_name(tmp_path / "run")
    assert found.keys() == {
        f"top_k-{v}"
        for v in (
            "teacher",
            "soft-init",
            "soft",
            "gated-init",
            "gated",
            "control",
            "pursuit-init",
            "control-pursuit",
        )
    }
    again = found["top_k-teacher"]
    assert again.level == Level("source", str(demo_run / teacher.sae))
    assert again.metrics.reconstruction == teacher.metrics.reconstruction
    assert load_sae(tmp_path / "run", again).family == "top_k"
    assert evals("report", tmp_path / "run").returncode == 0


def test_a_pursuit_without_fine_tuning_is_a_start_alone(demo_file, tmp_path):
    text = demo_file.read_text().replace('["relu", "jump_relu", "top_k"]', '["top_k"]')
    text = text.replace("sparsity.relu = [0.1]\nsparsity.jump_relu = [0.1]\n", "")
    a, b = text.index("[upgrades.pursuit]"), text.index("[tune]")
    upgrades = (
        '[upgrades.raw]\nvariant = "pursuit"\nfine_tune = false\n[upgrades.pursuit]\nvariant = "pursuit"\n'
    )
    file = tmp_path / "pursuit.toml"
    file.write_text(text[:a] + upgrades + text[b:])
    done = evals("run", file, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = by_name(tmp_path / "run")
    assert found.keys() == {
        f"top_k-{v}"
        for v in (
            "teacher",
            "raw-init",
            "pursuit-init",
            "pursuit",
            "control",
            "control-raw",
            "control-pursuit",
        )
    }
    assert found["top_k-raw-init"].control is None
    teacher, pursued = (found[f"top_k-{v}"].metrics.reconstruction for v in ("teacher", "raw-init"))
    assert pursued.fvu < teacher.fvu
    assert pursued.l0 <= teacher.l0
    assert pursued.others["plain"].fvu == pytest.approx(teacher.fvu, rel=1e-4)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "plain FVU" in page
    assert "(missing)" not in page


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 99), st.data())
def test_whatever_changes_a_weight_changes_the_fingerprint(family, seed, data):
    """Rows in another order, turned signs, one turned latent: all keep the norms."""
    sae = random_sae(family, seed=seed)
    other = copy.deepcopy(sae)
    assert fingerprint(other) == fingerprint(sae)
    name = data.draw(st.sampled_from([n for n, value in sae.state_dict().items() if value.numel()]))
    value = other.state_dict()[name]
    changed = {
        "flipped": lambda: value.flip(0) if value.dim() else value + 1,
        "turned": lambda: -value,
        "one bit": lambda: torch.nextafter(value, torch.full_like(value, torch.inf)),
        "one row": lambda: torch.cat([-value[:1], value[1:]]) if value.dim() else -value,
    }[data.draw(st.sampled_from(["flipped", "turned", "one bit", "one row"]))]()
    same = torch.equal(changed, value)
    value.copy_(changed)
    assert same or fingerprint(other) != fingerprint(sae)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_saved_and_loaded_keeps_its_fingerprint(family, tmp_path):
    sae = random_sae(family)
    save_sealed(sae, tmp_path / "sae")
    assert fingerprint(load_sealed(tmp_path / "sae")) == fingerprint(sae)


def test_settings_that_no_weight_tells_are_in_the_fingerprint():
    """Those of what is wrapped, too."""
    one, two, normed = (rsae.TopK(6, 12, k=k) for k in (2, 3, 2))
    for other in (two, normed):
        other.load_state_dict(one.state_dict())
    normed.input_norm = InputNorm("layer_norm")
    for made in (lambda sae: sae, lambda sae: Shuffled(sae, 0), MatchingPursuit):
        first, *others = (fingerprint(made(sae)) for sae in (one, two, normed))
        assert first not in others


def test_an_sae_that_changed_on_disk_is_told_and_one_that_is_gone_is_made_again(
    demo_run, demo_file, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    teacher = by_name(run)["top_k-teacher"]
    weights = run / teacher.sae / "sae_weights.safetensors"
    whole, result = weights.read_bytes(), run / "results" / f"{teacher.cell}.json"
    told = result.read_text()
    assert "sae_weights.safetensors" in (run / teacher.sae / SUMS).read_text()
    sae = rsae.load(run / teacher.sae)
    sae.W_dec.data.neg_()
    rsae.save(sae, run / teacher.sae)
    result.unlink()
    assert_one_clear_line(evals("run", demo_file, "--out", run), f"{weights}: not the file that was saved")
    with pytest.raises(InputError, match="put it back, or delete the folder"):
        load_sae(run, teacher)
    shutil.rmtree(run / teacher.sae)
    done = evals("run", demo_file, "--out", run)
    assert done.returncode == 0, done.stderr
    assert weights.read_bytes() == whole
    assert json.loads(result.read_text())["metrics"] == json.loads(told)["metrics"]
