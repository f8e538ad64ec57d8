"""A tiny suite, as its user runs it: once, again, in parts, with mistakes in the config; and its comparison."""

from __future__ import annotations

import json

import pytest

import evals as library
from evals import suite
from evals.cli import main
from evals.compare import ERRORS, Measure, front, hypervolume, on_front, verdict
from evals.config import PRESETS, SuiteConfig, preset
from evals.suite import units
from evals.synthetic import pairs
from tests.command import assert_one_clear_line, run_command

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


def evals(*arguments):
    return run_command(main, *arguments)


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory, host_directory, text_file):
    """With a task of the user's own."""
    path = tmp_path_factory.mktemp("suite") / "tiny.toml"
    task = path.with_name("colours.csv")
    rows = [f"{'red' if i % 2 else 'blue'} thing number {i},{i % 2}" for i in range(120)]
    task.write_text("\n".join(["text,label", *rows]))
    path.write_text(SUITE.format(host=host_directory, text=text_file, task=task))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, suite_file):
    """Run in parts: what is shared first, then two shards."""
    out = tmp_path_factory.mktemp("runs") / "suite"
    missing = evals("run", suite_file, "--out", out, "--shard", "0/2")
    assert_one_clear_line(missing, "--prepare")
    for arguments in (["--prepare"], ["--shard", "0/2"], ["--shard", "1/2"]):
        done = evals("run", suite_file, "--out", out, *arguments)
        assert done.returncode == 0, done.stderr
    return out


def results(run):
    return {f.stem: json.loads(f.read_text()) for f in (run / "results").glob("*.json")}


def test_every_cell_has_its_result_and_its_control(run):
    found = results(run)
    assert len(found) == 2 * 2 * 2 * 4  # families, levels, seeds; teacher, init, tuned, control
    for result in found.values():
        assert result["config"]["grid"]["seeds"] == [0, 1]
        if result["variant"] == "gated":
            twin = {k: result[k] for k in ("family", "level", "seed", "hook")}
            controls = [r for r in found.values() if r["variant"] == "control" and twin.items() <= r.items()]
            assert len(controls) == 1
            assert controls[0]["how"]["train"] == result["how"]["upgrade"]["tune"]


def test_a_second_run_does_nothing_and_a_lost_file_is_made_again(run, suite_file):
    before = {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file()}
    done = evals("run", suite_file, "--out", run)
    assert done.returncode == 0
    assert "4 units, 4 of them finished" in done.stderr
    assert {f: f.stat().st_mtime_ns for f in before} == before
    lost = next((run / "results").glob("*top_k*-gated.json"))
    whole = lost.read_text()
    lost.unlink()
    done = evals("run", suite_file, "--out", run)
    assert done.returncode == 0
    assert "train " not in done.stderr
    assert lost.read_text() == whole


def test_a_measure_left_out_does_not_change_the_key_of_what_is_finished(suite_file):
    config = SuiteConfig.read(suite_file)
    unit = units(config)[0]
    measures = config.evaluate.model_copy(update={"intervention": 2})
    assert "intervention" not in suite.settings_of(config)["evaluate"]
    assert (
        suite.settings_of(config.model_copy(update={"evaluate": measures}))["evaluate"]["intervention"] == 2
    )
    assert suite._key(config, unit) != suite._key(config.model_copy(update={"evaluate": measures}), unit)


def test_a_wider_grid_keeps_what_is_there(run, suite_file, tmp_path):
    wider = tmp_path / "wider.toml"
    wider.write_text(
        suite_file.read_text().replace("l0 = [4, 8]", "l0 = [4, 8, 12]").replace("[0, 1]", "[0]")
    )
    saes = [f for f in (run / "sites").rglob("*.safetensors") if "teacher" in f.parts]
    before = {f: f.stat().st_mtime_ns for f in saes}
    done = evals("run", wider, "--out", run)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("-l0_12-s0-teacher: reused") == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before
    for file in (run / "results").glob("*12-s0*"):
        file.unlink()


def test_workers_side_by_side_make_what_one_makes(run, suite_file, tmp_path):
    part = tmp_path / "part.toml"
    part.write_text(suite_file.read_text().replace("[0, 1]", "[1]"))
    out = tmp_path / "run"
    assert evals("run", part, "--out", out, "--jobs", "2").returncode == 0
    one, other = results(run), results(out)
    for name, result in other.items():
        assert result["metrics"]["reconstruction"]["mse"] == pytest.approx(
            one[name]["metrics"]["reconstruction"]["mse"], rel=1e-4
        )


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hooks = ", "hokos = ", ("unknown key 'sites.0.hokos'", "did you mean 'hooks'")),
        ("seeds = ", "sedes = ", ("unknown key 'grid.sedes'", "did you mean 'seeds'")),
        ("type = [3, 2]", "typ = [3, 2]", ("unknown key 'upgrades.gated.typ'", "did you mean 'type'")),
        ("type = [3, 2]", "type = [4, 2]", ("upgrades.gated.type", "[3, 2]")),
        ('"top_k"]', '"topk"]', ("'topk'", "did you mean 'top_k'")),
        ("l0 = [4, 8]", "l0 = [4, 48]", ("48", "d_sae")),
        ("d_sae = [48]", "d_sae = [48]\nwidths.jump_rleu = [24]", ("grid.widths.jump_rleu", "'jump_relu'")),
        ("d_sae = [48]", "d_sae = [48]\nwidths.top_k = [8]", ("l0 8", "widths.top_k")),
        ("blocks.1.hook", "block.1.hook", ("block.1.hook", "blocks.L.hook_SITE")),
        ("[train]", "[train]\nseed = 1", ("train.seed", "[grid]")),
        ("[harvest]", "[harvest]\nhost = 'a'", ("harvest.host", "[sites]")),
        ('families = ["jump_relu",', 'families = ["gated",', ()),
    ],
)
def test_config_mistakes(suite_file, tmp_path, old, new, words):
    bad = tmp_path / "bad.toml"
    assert old in suite_file.read_text()
    bad.write_text(suite_file.read_text().replace(old, new, 1))
    if not words:  # no mistake: a family beyond the three
        assert len(units(SuiteConfig.read(bad))) == 4
        return
    assert_one_clear_line(evals("run", bad, "--out", tmp_path / "run"), "bad.toml", *words)
    assert not (tmp_path / "run").exists()


def test_soft_wants_a_family_with_one_gate(suite_file, tmp_path):
    bad = tmp_path / "bad.toml"
    text = suite_file.read_text().replace('"jump_relu"', '"batch_top_k"')
    bad.write_text(text.replace("type = [3, 2]", 'type = [3, 2]\nvariant = "soft"'))
    assert_one_clear_line(evals("run", bad, "--out", tmp_path / "run"), "upgrades.gated", "'batch_top_k'")


def test_a_failing_unit_does_not_stop_the_others(suite_file, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(suite_file.read_text().replace("[0, 1]", "[0]").replace("blocks.1", "blocks.9"))
    assert_one_clear_line(evals("run", bad, "--out", tmp_path / "run"), "blocks.9.hook_resid_post")


def test_presets_are_valid():
    for name in PRESETS:
        assert units(SuiteConfig.read(preset(f"suite-{name}")))
        assert evals("run", name, "--out", "unused", "--show-config").stdout.count("[grid]") == 1


# --- synthetic protocols -------------------------------------------------------------------------------------


def test_protocols_alone_need_no_site(tmp_path, monkeypatch):
    """What `evals synthetic` makes, and a second run takes it over."""
    monkeypatch.setattr(pairs, "PROTOCOL", pairs.PROTOCOL._replace(points=pairs.PROTOCOL.points[:1]))
    monkeypatch.setattr(pairs, "TRAIN", 600)
    monkeypatch.setattr(pairs, "HELDOUT", 300)
    file = tmp_path / "protocols.toml"
    file.write_text('[synthetic]\nprotocols = ["C"]\nseeds = 1\nsteps = 3\n')
    done = evals("run", file, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "sites").exists()
    made = tmp_path / "run" / "synthetic" / "protocol-C.json"
    assert evals("synthetic", "C", "--out", tmp_path / "own", "--seeds", 1, "--steps", 3).returncode == 0
    assert json.loads(made.read_text()) == json.loads((tmp_path / "own" / "protocol-C.json").read_text())
    again = evals("run", file, "--out", tmp_path / "run")
    assert "C-0-0: reused" in again.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[synthetic]\nprotocols = ["D"]\n', ("synthetic.protocols.0", "'D'")),
        ('[synthetic]\nprotocols = ["A"]\nstep = 3\n', ("synthetic.step", "did you mean 'steps'")),
        ('[synthetic]\nprotocols = ["A"]\n[train]\nsteps = 3\n', ("train", "[[sites]]")),
        ("[synthetic]\nsteps = 3\n", ("sites is empty", "[synthetic]")),
    ],
)
def test_mistakes_in_protocols(text, words, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    assert_one_clear_line(evals("run", file, "--out", tmp_path / "run"), "bad.toml", *words)
    assert not (tmp_path / "run").exists()


def test_protocols_beside_a_grid_leave_its_units_as_they_are(suite_file, tmp_path):
    both = tmp_path / "both.toml"
    both.write_text(suite_file.read_text() + '[synthetic]\nprotocols = ["A"]\n')
    one, other = SuiteConfig.read(suite_file), SuiteConfig.read(both)
    assert units(one) == units(other)
    assert suite.settings_of(one) == suite.settings_of(other)


# --- comparing -----------------------------------------------------------------------------------------------


def test_no_figure_without_its_control(run, tmp_path):
    done = evals("compare", "--markdown", "--brief", "--json", tmp_path / "c.json", run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| gated |") >= 4
    found = json.loads((tmp_path / "c.json").read_text())
    assert found == json.loads(json.dumps(library.compare([run])))
    top_k = next(
        r for r in found["matched"] if r["family"] == "top_k"
    )  # its l0 is the control's, but for zeros
    assert (top_k["variant"], top_k["control"], top_k["seeds"]) == ("gated", "control", 2)
    assert top_k["fvu"]["se"] >= 0
    assert top_k["fvu"]["n"] == 2
    by_place = {}
    for r in found["fronts"]:
        by_place.setdefault((r["family"], r["x"], r["y"]), set()).add(r["variant"])
    assert all(variants == {"teacher", "gated", "control"} for variants in by_place.values())
    zone = found["sweet_zone"][0]
    assert zone["figures"]["cells"] == zone["controls"]["cells"] == 4
    assert {r["against"] for r in found["tally"] if r["variant"] == "gated"} == {"control", "teacher"}
    assert all(r["win"] == r["loss"] == 0 for r in found["tally"])  # two seeds claim nothing


def test_families_of_their_own_widths_without_upgrades(suite_file, tmp_path):
    text = suite_file.read_text()
    text = text.replace('["jump_relu", "top_k"]', '["top_k", "abs_top_k"]').replace("[0, 1]", "[0]")
    text = text.replace("d_sae = [48]", "d_sae = [48]\nwidths.abs_top_k = [24]")
    text = text.replace("[upgrades.gated]\ntype = [3, 2]\n", "")
    start = text.index("tasks = ")
    file = tmp_path / "signs.toml"
    file.write_text(text[:start] + "tasks = []\nintervention = 2\n")
    out = tmp_path / "run"
    done = evals("run", file, "--out", out)
    assert done.returncode == 0, done.stderr
    made = {(r["family"], r["d_sae"], r["variant"]) for r in results(out).values()}
    assert made == {("top_k", 48, "teacher"), ("abs_top_k", 24, "teacher")}
    pushed = [r["metrics"]["intervention"] for r in results(out).values()]
    assert all(figures["dials"] == 2 and figures["kl_plus"] > 0 for figures in pushed)
    assert "opposition" in evals("compare", out, "--markdown").stdout
    wrong = evals("compare", out, "--brief", "--reference", "top_k-84")
    assert_one_clear_line(wrong, "'top_k-84'", "did you mean 'top_k-48'")
    (record,) = library.compare([out], "top_k-48")["reference"]
    assert (record["family"], record["cells"], record["seeds"]) == ("abs_top_k", 2, 1)
    by_level = {(r["family"], r["level"]): r["metrics"]["reconstruction"] for r in results(out).values()}
    gaps = [by_level["abs_top_k", k]["r2"] - by_level["top_k", k]["r2"] for k in ("k4", "k8")]
    assert record["r2"]["mean"] == pytest.approx(sum(gaps) / 2, abs=1e-3)  # k is the l0 of both
    assert record["verdicts"]["r2"] == "open"
    # trained SAEs alone have a report and a figure, too
    done = evals("report", out, "--reference", "top_k-48", "--figures", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (out / "report.html").read_text()
    assert "at matched l0, minus top_k-48" in text
    assert text.count("data-front=") == 1  # both families in the hook point's one panel
    assert '"name": "abs_top_k 24"' in text
    assert (tmp_path / "families.png").read_bytes().startswith(b"\x89PNG")


def test_matched_l0_is_read_off_the_controls_front():
    fvu, k5 = ERRORS[1], Measure("k5", "k", more=True)
    controls = [{"l0": 10.0, "fvu": 0.4, "k5": 0.9}, {"l0": 40.0, "fvu": 0.1, "k5": 0.7}]
    assert on_front(20.0, controls, fvu) == pytest.approx(0.2)  # the middle, in logarithms of both
    assert on_front(20.0, controls, k5) == pytest.approx(0.8)
    dominated = [*controls, {"l0": 20.0, "fvu": 0.9, "k5": 0.8}]
    assert on_front(20.0, dominated, fvu) == pytest.approx(0.2)
    assert on_front(43.0, controls, fvu) == pytest.approx(0.4 * 4.3**-1)  # a little prolonged
    assert on_front(50.0, controls, fvu) is None
    assert on_front(20.0, controls[:1], fvu) is None


def test_front_and_hypervolume():
    points = [(0.0, 0.5), (0.5, 0.0), (0.5, 0.5), (0.6, 0.1), (0.0, 0.5)]
    assert sorted(points[i] for i in front(points)) == [(0.0, 0.5), (0.5, 0.0)]
    assert hypervolume(points, (1.0, 1.0)) == pytest.approx(0.75)
    assert hypervolume([(1.0, 0.0)], (1.0, 1.0)) == 0.0
    grid = [(i / 200, j / 200) for i in range(200) for j in range(200)]
    counted = sum(any(x >= a and y >= b for a, b in points) for x, y in grid) / len(grid)
    assert hypervolume(points, (1.0, 1.0)) == pytest.approx(counted, abs=0.01)


def test_verdicts_need_three_seeds_and_two_standard_errors():
    fvu, k5 = ERRORS[1], Measure("k5", "k", more=True)
    assert verdict([-0.1, -0.1], fvu) == "open"
    assert verdict([-0.1, -0.11, -0.12], fvu) == "win"
    assert verdict([-0.1, -0.11, -0.12], k5) == "loss"
    assert verdict([-0.3, 0.1, 0.05], fvu) == "tie"
