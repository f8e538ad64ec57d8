"""A suite's grid in a world: every cell with its control is scored, kept, printed and shown."""

from __future__ import annotations

import pytest

from evals import World, ground_truth
from evals.config import SuiteConfig
from evals.results import Role
from evals.suite import settings_of
from evals.truth import read_truth, run_truth
from rsae import load
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals


def test_a_suite_is_scored_in_a_world(suite_file, tmp_path):
    text = suite_file.read_text().replace("[0, 1]", "[1]").replace("l0 = [4, 8]", "l0 = [4]")
    file = tmp_path / "truth.toml"
    file.write_text(text + "\n[ground_truth]\nfeatures = 48\nd_in = 16\nsamples = 600\n")
    done = evals("run", file, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "in a world of known features" in done.stdout
    cells = read_truth(tmp_path / "run")
    assert [(c.family, c.role) for c in cells] == [
        (family, role)
        for family in ("jump_relu", "top_k")
        for role in (Role.TEACHER, Role.START, Role.TUNED, Role.CONTROL)
    ]
    for c in cells:
        again = ground_truth(load(tmp_path / "run" / c.sae), World(48, 16), 600)
        assert again.mcc == pytest.approx(c.truth.mcc)
        assert again.f1 == pytest.approx(c.truth.f1)
    teacher, start = (c.truth for c in cells[:2])
    assert start.f1 == pytest.approx(teacher.f1, abs=0.01)  # `gated` starts as the teacher
    assert "Are the features true?" in (tmp_path / "run" / "report.html").read_text()
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.safetensors")}
    assert run_truth(SuiteConfig.read(file), tmp_path / "run") == sorted(cells, key=lambda c: c.family)
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_a_world_changes_no_unit(suite_file, tmp_path):
    file = tmp_path / "truth.toml"
    file.write_text(suite_file.read_text() + "\n[ground_truth]\nfeatures = 48\n")
    assert settings_of(SuiteConfig.read(file)) == settings_of(SuiteConfig.read(suite_file))
    file.write_text(suite_file.read_text() + "\n[ground_truth]\nfeatures = 8\n")
    done = evals("run", file, "--out", tmp_path / "run")
    assert_one_clear_line(done, "ground_truth.features", "16 features")


def test_a_run_without_a_world_has_no_such_cells(suite_run):
    assert read_truth(suite_run) == []
