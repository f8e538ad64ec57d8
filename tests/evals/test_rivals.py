"""Baselines, second controls and the ceiling in a suite on a tiny host, and what is claimed of them."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import rsae
from evals.claims import TOLERANCE, claims, shares
from evals.config import SuiteConfig
from evals.matching import read_stability
from evals.measures import FVU, KL, columns, probing
from evals.metrics.reconstruction import reconstruction
from evals.report.html import missing, write_report
from evals.results import Role, read_results
from evals.rivals import control_of
from evals.site import load_sae, open_store
from rsae import InputError
from tests.evals.conftest import SUITE, evals
from tests.evals.helpers import control, result
from tests.evals.report.conftest import Page

BASELINES = ["random_decoder", "random_encoder", "shuffled", "pca", "neurons", "untrained"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, host_directory, text_file):
    directory = tmp_path_factory.mktemp("rivals")
    task = directory / "task.csv"
    task.write_text(
        "\n".join(["text,label", *(f"{'red' if i % 2 else 'blue'} {i},{i % 2}" for i in range(120))])
    )
    suite = SUITE.format(host=host_directory, text=text_file, task=task)
    for old, new in (
        ('families = ["jump_relu", "top_k"]', 'families = ["top_k"]'),
        ("l0 = [4, 8]", "l0 = [4]"),
        ("seeds = [0, 1]", "seeds = [0, 1, 2]"),
        ("[evaluate]", "[evaluate]\nstability = true"),
        ("[upgrades.gated]\ntype = [3, 2]", '[upgrades.htp]\nvariant = "pursuit"'),
    ):
        assert old in suite
        suite = suite.replace(old, new)
    head = f'baselines = {BASELINES}\nsecond_controls = ["pursued", "longer", "wider", "omp"]\n'
    file = directory / "suite.toml"
    file.write_text(head + suite)
    done = evals("run", file, "--out", directory / "run")
    assert done.returncode == 0, done.stderr
    return directory / "run"


@pytest.fixture(scope="module")
def cells(run):
    return {(r.variant, r.seed): r for r in read_results(run)}


def test_all_are_there_and_the_record_says_where(run, cells):
    second = ["control-htp", "control-longer", "control-wider"]
    variants = ["teacher", "htp-init", "htp", "control", *second, "omp", *BASELINES]
    assert {v for v, _ in cells} == set(variants)
    assert len(cells) == 3 * len(variants)
    roles = {v: cells[v, 0].role for v in variants}
    assert {v for v, role in roles.items() if role is Role.BASELINE} == set(BASELINES)
    assert {v for v, role in roles.items() if role is Role.SECOND_CONTROL} == set(second)
    assert roles["omp"] is Role.CEILING
    for cell in cells.values():
        sae, store = load_sae(run, cell), open_store(run, cell)
        fvu = reconstruction(sae, store, allow_mismatch=True).fvu
        assert fvu == pytest.approx(cell.metrics.reconstruction.fvu, rel=1e-3), cell.variant
    assert not missing(run, list(cells.values())).unfinished


def test_they_are_what_they_are_called(run, cells):
    plain, pursued = cells["control", 0], cells["control-htp", 0]
    same = load_sae(run, pursued)
    assert isinstance(same, rsae.PursuitSAE)
    torch.testing.assert_close(same.W_dec, load_sae(run, plain).W_dec)
    assert load_sae(run, cells["control-wider", 0]).d_sae == 2 * load_sae(run, plain).d_sae
    longer, tune = cells["control-longer", 0], plain.how.train
    assert tune is not None
    assert longer.how.history[-1]["step"] == pytest.approx(2 * tune.steps, abs=1)
    assert longer.how.train is not None
    assert longer.how.train.steps == 2 * tune.steps
    for seed in range(3):
        fvu = {v: FVU.of(cells[v, seed]) for v in ("control", "control-htp", "omp")}
        assert fvu["omp"] < fvu["control-htp"] < fvu["control"]
        for baseline in ("random_decoder", "pca", "neurons", "shuffled"):
            own = cells[baseline, seed].metrics.reconstruction
            assert own.l0 == pytest.approx(cells["teacher", seed].metrics.reconstruction.l0, abs=0.6)
    assert str(open_store(run, cells["untrained", 0]).provenance.model).endswith("untrained s0")


def test_a_claim_is_against_the_best_that_costs_no_more(cells):
    (claim,) = claims(list(cells.values()))
    assert set(claim.rivals) | set(claim.dearer) == {
        "control",
        "control-htp",
        "control-longer",
        "control-wider",
    }
    mine = [cells["htp", seed] for seed in range(3)]
    for measure in (FVU, KL):
        gaps = {}
        for rival in claim.rivals:
            theirs = [cells[rival, seed] for seed in range(3)]
            gaps[rival] = np.mean(
                [measure.of(a) / measure.of(b) - 1 for a, b in zip(mine, theirs, strict=True)]
            )
        best = claim.best[measure.key]
        assert gaps[best.rival] == max(gaps.values())
        assert best.difference.mean == pytest.approx(max(gaps.values()))
        assert best.verdict in ("win", "tie", "loss")
    for rival in set(claim.rivals) - {"control-htp", "control"}:
        theirs = [cells[rival, seed] for seed in range(3)]
        for cost in (lambda r: r.how.seconds, lambda r: r.metrics.encode_us):
            assert min(map(cost, theirs)) <= TOLERANCE * min(map(cost, mine))


def test_the_control_with_the_same_inference_counts_whatever_the_clock_says(cells):
    def slower(r):
        slow = r.variant == "control-htp"
        return replace(r, metrics=replace(r.metrics, encode_us=1e6)) if slow else r

    (claim,) = claims([slower(r) for r in cells.values()])
    assert "control-htp" in claim.rivals


def test_a_control_of_the_same_budget_counts_however_slow_its_training_was(cells):
    """A process's first training is slow. What counts of others is their fastest."""

    def slower(r):
        if r.variant == "control" or (r.variant == "htp" and r.seed == 0):
            return replace(r, how=replace(r.how, seconds=1e6))
        return r

    plain, warmed = (claims([change(r) for r in cells.values()])[0] for change in (lambda r: r, slower))
    assert "control" in warmed.rivals
    assert warmed.rivals == plain.rivals


def test_shares(cells):
    results = list(cells.values())
    found = shares(results, columns(results))
    r = cells["htp", 1]
    baselines = [cells[name, 1] for name in BASELINES]
    low = min(FVU.of(b) for b in baselines)
    assert found[r.cell, "fvu"].share == pytest.approx(1 - FVU.of(r) / low)
    assert found[r.cell, "fvu"].value == low
    low = max(probing(1).of(b) for b in baselines)
    (task,) = r.metrics.probing.values()
    assert task.baseline is not None
    dense = task.baseline.dense.value
    if dense != low:
        share = found[r.cell, "k1"].share
        assert share == pytest.approx((probing(1).of(r) - low) / (dense - low))
    assert not any(cell in {b.cell for b in baselines} for cell, _ in found)
    assert (r.cell, "l0") not in found


def test_the_report_shows_them(run):
    text = write_report(run).read_text()
    for words in ("against the best control that costs no more", 'class="share"', "random_decoder", "omp"):
        assert words in text
    done = evals("compare", run)
    assert done.returncode == 0, done.stderr
    assert "costs no more" in done.stdout


def test_latents_are_matched_with_the_first_seed_and_the_teacher(run, cells):
    results = list(cells.values())
    found = read_stability(run, results)
    variants = {"teacher", "htp", "control"}
    kinds = {
        (one.kind, cells_of(results, one.cell).variant, cells_of(results, one.other).variant) for one in found
    }
    assert kinds == {("seeds", v, v) for v in variants} | {
        ("teacher", v, "teacher") for v in variants - {"teacher"}
    }
    assert len(found) == 3 * 2 + 2 * 3
    for one in found:
        if one.kind == "teacher":  # ten steps move little
            assert one.result.in_place is not None
            assert one.result.in_place > 0.9 > one.result.by_chance
    assert "are the latents the same as before?" in (run / "report.html").read_text()


def cells_of(results, cell):
    return next(r for r in results if r.cell == cell)


def test_a_figure_for_each_question(run, cells):
    text = write_report(run).read_text()
    figures = json.loads(Page(text).texts["figures"])
    lines = {trace["name"]: trace for trace in figures["position-0"]["data"]}
    for variant in ("htp", "control", "control-wider", "omp", "pca"):
        mine = [cells[variant, seed].metrics.downstream.by_position for seed in range(3)]
        assert lines[variant]["x"] == [at.first for at in mine[0]]
        means = [np.mean([at.kl for at in same]) for same in zip(*mine, strict=True)]
        assert lines[variant]["y"] == pytest.approx(means)
    assert lines["pca"]["visible"] == "legendonly"
    assert {trace["name"] for trace in figures["stable-0"]["data"]} == {"teacher", "htp", "control"}
    for trace in figures["stable-1"]["data"]:
        assert trace["x"] == sorted(trace["x"], reverse=True)
        assert trace["y"] == sorted(trace["y"])
        assert 0 < trace["y"][0] <= trace["y"][-1] <= 1
    assert "The trained gates" not in text or "htp" not in text.split("The trained gates")[1].split("<h2>")[0]


def test_without_rivals_there_is_no_claim():
    assert claims([result(), control()]) == ()
    assert shares([result(), control()], [FVU]) == {}


def test_an_untrained_pursuit_is_compared_with_the_teachers_own_fine_tuning():
    def cell(control: str | None) -> Any:
        return SimpleNamespace(control=control)

    controls = [cell("control-l1"), cell("control"), cell("control-held")]
    assert control_of(cell(None), controls) is controls[1]
    assert control_of(cell("control-held"), controls) is controls[2]
    assert control_of(cell(None), controls[:1]) is controls[0]


def test_second_controls_need_a_pursuit(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('second_controls = ["longer"]\n')
    with pytest.raises(InputError, match="variant 'pursuit'"):
        SuiteConfig.read(file)
    file.write_text('baselines = ["pac"]\n')
    with pytest.raises(InputError, match="baselines"):
        SuiteConfig.read(file)
