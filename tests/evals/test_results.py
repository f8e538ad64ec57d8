"""The record: written and read back, its names, and what is said of files that are no such record."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evals.results import Level, Metrics, Role, Site, dump, parse, read_results, variant, write_result
from rsae import InputError
from tests.evals.helpers import control, result, tuned


def test_what_is_written_is_read(tmp_path):
    wanted = [result(k1=0.7), control(), tuned(fvu=0.3), result(Role.START, "gated", "control")]
    for one in wanted:
        write_result(tmp_path, one)
    found = read_results(tmp_path)
    assert sorted(found, key=lambda r: r.cell) == sorted(wanted, key=lambda r: r.cell)
    assert [r.variant for r in found] == ["teacher", "gated-init", "gated", "control"]
    assert parse(Metrics, json.loads(json.dumps(dump(found[0].metrics)))) == found[0].metrics


def test_cells_are_in_the_order_of_their_levels(tmp_path):
    for level in (16, 4, 128):
        write_result(tmp_path, replace(result(), level=Level("l0", level)))
    assert [r.level.value for r in read_results(tmp_path)] == [4, 16, 128]


def test_real_runs_are_read_whole(demo_run, suite_run):
    for run in (demo_run, suite_run):
        for r in read_results(run):
            file = run / "results" / f"{r.cell}.json"
            assert json.loads(file.read_text()) == {"version": 2, **json.loads(json.dumps(dump(r)))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: made.pop("version"), "earlier version.*evals run demo --out NEW"),
        (lambda made: made.update(version=1), "earlier version"),
        (lambda made: made["metrics"]["reconstruction"].pop("fvu"), "metrics.reconstruction.fvu"),
        (lambda made: made.update(role="boss"), "'role'.*delete the file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, change, words):
    write_result(tmp_path, result())
    (file,) = (tmp_path / "results").glob("*.json")
    made = json.loads(file.read_text())
    change(made)
    file.write_text(json.dumps(made))
    with pytest.raises(InputError, match=words) as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_results(tmp_path):
    with pytest.raises(InputError, match="no result files.*evals run demo"):
        read_results(tmp_path)


def test_names():
    assert str(Level("l0", 16)) == "l0_16"
    assert str(Level("k", 32)) == "k32"
    assert str(Level("sparsity", 1.5)) == "sparsity1.5"
    assert str(Level("source", "me/saes:layer")) == "me/saes:layer"
    assert Site("a/b c", "blocks.1.hook_resid_post").name == "b_c-blocks.1.hook_resid_post"
    assert variant(Role.START, "soft", "control-l1") == "soft-init"
    assert variant(Role.CONTROL, None, "control-l1") == "control-l1"
    assert tuned(level=4).cell == "host-blocks.1.hook_resid_post-jump_relu-16-l0_4-s0-gated"
