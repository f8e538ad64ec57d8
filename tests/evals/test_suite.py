"""A tiny suite, as its user runs it: once, again, in parts, with units that fail, with protocols beside it."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace

import pytest

import rsae
from evals import suite, workers
from evals.config import SuiteConfig
from evals.labelled import load_classes
from evals.measures import columns
from evals.metrics.perturbation import targeted_perturbation
from evals.results import Role, read_results
from evals.site import Plan
from evals.suite import lacking, units
from evals.synthetic import pairs
from rsae import InputError
from rsae.support import devices, progress
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.rsae.helpers import random_sae


def test_every_cell_has_its_result_and_its_control(suite_run):
    found = read_results(suite_run)
    assert len(found) == 2 * 2 * 2 * 4  # families, levels, seeds; teacher, init, tuned, control
    for r in (r for r in found if r.compared):
        same = [
            c
            for c in found
            if c.role is Role.CONTROL and (c.group, c.level, c.seed) == (r.group, r.level, r.seed)
        ]
        (control,) = [c for c in same if c.control == r.control]
        assert control.how.train == r.how.train
        assert r.how.upgrade is not None
        assert r.how.upgrade.tune == r.how.train


def test_measures_of_features_stand_in_the_cells_and_the_table(suite_run):
    """As the measures by themselves give them; a start that is its teacher has its figures."""
    found = [r for r in read_results(suite_run) if r.level.value == 8 and r.seed == 0]
    for r in found:
        features = r.metrics.features
        assert features is not None
        assert features.absorption is None
        assert set(features.tpp) == set(features.scr) == {2, 8}
    one = next(r for r in found if r.role is Role.TEACHER)
    (task,) = SuiteConfig.read(suite_run / "suite.toml").evaluate.classes
    host = rsae.load_host(one.site.host)
    sae = rsae.load(suite_run / one.sae)
    alone = targeted_perturbation(sae, host, load_classes(task, 20, 10), [2, 8], context=12)
    assert one.metrics.features is not None
    assert one.metrics.features.tpp == {n.latents: pytest.approx(n.score) for n in alone.by_number}
    assert {"tpp2", "tpp8", "scr2", "scr8"} <= {measure.key for measure in columns(found)}


def test_a_second_run_does_nothing_and_a_lost_file_is_made_again(suite_run, suite_file):
    before = {f: f.stat().st_mtime_ns for f in suite_run.rglob("*") if f.is_file()}
    done = evals("run", suite_file, "--out", suite_run)
    assert done.returncode == 0
    assert "4 units, 4 of them finished" in done.stderr
    assert {f: f.stat().st_mtime_ns for f in before} == before
    lost = next((suite_run / "results").glob("*top_k*-gated.json"))
    whole = lost.read_text()
    lost.unlink()
    done = evals("run", suite_file, "--out", suite_run)
    assert done.returncode == 0
    assert "train " not in done.stderr
    assert lost.read_text() == whole


def test_a_torn_result_file_is_made_again(suite_run, suite_file):
    torn = next((suite_run / "results").glob("*top_k*-gated.json"))
    whole = torn.read_text()
    torn.write_text(whole[:99])
    with pytest.raises(InputError, match=f"{torn.name}: torn; the same command"):
        read_results(suite_run)
    assert evals("run", suite_file, "--out", suite_run).returncode == 0
    assert torn.read_text() == whole


def test_what_is_of_another_kind_is_left_alone(suite_run, suite_file):
    """A run does not go where a store or an SAE lies."""
    teacher = next(r for r in read_results(suite_run) if r.role is Role.TEACHER)
    store = suite_run / "sites" / teacher.site.place / "activations"
    for place, held in ((store, "an activation store"), (suite_run / teacher.sae, "an SAE")):
        assert_one_clear_line(evals("run", suite_file, "--out", place), f"holds {held}")


def test_a_cluster_without_an_address_is_told_before_anything_is_made(suite_file, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    done = evals("run", suite_file, "--out", tmp_path / "run", "--backend", "dask")
    assert_one_clear_line(done, "name the scheduler")
    assert not (tmp_path / "run").exists()


def test_a_measure_left_out_does_not_change_the_key_of_what_is_finished(suite_file):
    config = SuiteConfig.read(suite_file)
    unit = units(config)[0]
    measures = config.evaluate.model_copy(update={"intervention": 2})
    assert not {"intervention", "absorption"} & suite.settings_of(config)["evaluate"].keys()
    assert (
        suite.settings_of(config.model_copy(update={"evaluate": measures}))["evaluate"]["intervention"] == 2
    )
    assert suite._key(config, unit) != suite._key(config.model_copy(update={"evaluate": measures}), unit)


def test_a_wider_grid_keeps_what_is_there(suite_run, suite_file, tmp_path):
    wider = tmp_path / "wider.toml"
    wider.write_text(
        suite_file.read_text().replace("l0 = [4, 8]", "l0 = [4, 8, 12]").replace("[0, 1]", "[0]")
    )
    saes = [f for f in (suite_run / "sites").rglob("*.safetensors") if "teacher" in f.parts]
    before = {f: f.stat().st_mtime_ns for f in saes}
    done = evals("run", wider, "--out", suite_run)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("-l0_12-s0-teacher: reused") == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before
    for file in (suite_run / "results").glob("*12-s0*"):
        file.unlink()


def test_workers_side_by_side_make_what_one_makes(suite_run, suite_file, tmp_path):
    part = tmp_path / "part.toml"
    part.write_text(suite_file.read_text().replace("[0, 1]", "[1]"))
    out = tmp_path / "run"
    assert evals("run", part, "--out", out, "--jobs", "2").returncode == 0
    one = {r.cell: r.metrics.reconstruction.mse for r in read_results(suite_run)}
    for r in read_results(out):
        assert r.metrics.reconstruction.mse == pytest.approx(one[r.cell], rel=1e-4)


def test_a_cluster_makes_what_is_lost(suite_run, suite_file, tmp_path, cluster):
    """The unit that lacks a result file runs on a worker of dask, and makes the same file."""
    out = tmp_path / "run"
    shutil.copytree(suite_run, out)
    lost = next((out / "results").glob("*top_k*-gated.json"))
    whole = lost.read_text()
    lost.unlink()
    arguments = ("run", suite_file, "--out", out, "--backend", "dask", "--address")
    done = evals(*arguments, cluster.scheduler_address)
    assert done.returncode == 0, done.stderr
    assert lost.read_text() == whole
    assert "4 of them finished" in evals(*arguments, cluster.scheduler_address).stderr


def test_the_first_machine_settles_the_precisions_of_a_run(suite_file, tmp_path, monkeypatch):
    """Units of one run on other machines: SAEs and figures of one table are of one precision."""
    ran = []
    monkeypatch.setattr(suite, "run_unit", lambda config, *_: ran.append(config))
    data = tomllib.loads(suite_file.read_text())
    data["train"]["precision"] = data["tune"]["precision"] = "auto"
    data["evaluate"]["downstream_precision"] = "auto"
    config = SuiteConfig.model_validate(data)
    for has in (True, False):
        monkeypatch.setattr(devices, "has_bfloat16", lambda _, has=has: has)
        suite.run(config, tmp_path / "run")
    for settled in ran:
        assert settled.train.precision == settled.tune.precision == "bfloat16"
        assert settled.evaluate.downstream_precision == "bfloat16"
    assert SuiteConfig.read(tmp_path / "run" / "suite.toml") == ran[0]
    given = config.model_copy(update={"tune": replace(config.tune, precision="float32")})
    assert given.settled("cpu", tmp_path / "run" / "suite.toml").tune.precision == "float32"


@pytest.mark.parametrize("error", [InputError("boom"), RuntimeError("boom\nand more")])
def test_a_failing_unit_does_not_stop_the_others(suite_file, tmp_path, monkeypatch, error, capsys):
    tried = []

    def failing(config, out, unit, device, part):
        tried.append(unit)
        if len(tried) == 2:
            raise error

    monkeypatch.setattr(suite, "run_unit", failing)
    with pytest.raises(InputError, match=r"^1 of 4 units failed, the first: .*boom \(the rest is kept"):
        suite.run(suite_file, tmp_path / "run")
    assert len(tried) == 4
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, RuntimeError)


def test_a_few_units_run_in_parts_and_what_failed_is_not_tried_again(suite_file, tmp_path, monkeypatch):
    """Two processes here are one, which does what is given to them in order."""
    tried = []

    def failing(config, out, unit, device, part):
        tried.append((unit.name, part))
        if part == "training" and unit.source == "top_k" and unit.seed == 1:
            raise InputError("boom")
        if part == "probing" and unit.source == "top_k" and unit.seed == 0:
            raise InputError("bang")

    monkeypatch.setattr(suite, "run_unit", failing)
    monkeypatch.setattr(
        workers, "Parallel", lambda n_jobs: lambda calls: [f(*given, **named) for f, given, named in calls]
    )
    monkeypatch.setattr(progress, "crowded", False)
    with pytest.raises(InputError, match=r"^2 of 4 units failed, the first: .*boom \(the rest is kept"):
        suite.run(suite_file, tmp_path / "run", jobs=2)
    names = [unit.name for unit in units(SuiteConfig.read(suite_file))]
    _, bad, *others = sorted(names, key=lambda name: ("top_k" not in name, name))
    measures = ["downstream", "features", "probing", "reconstruction"]
    assert tried[:4] == [(name, "training") for name in names]
    assert tried[4:-2] == [(name, part) for part in measures for name in names if name != bad]
    assert tried[-2:] == [(name, None) for name in names if name in others]
    place = tmp_path / "run" / "sites"
    assert len(list(place.glob("*/steps/*.json"))) == 4  # what units share: bounds, a task, two labelled sets


def test_files_that_were_edited_make_other_units(suite_file, tmp_path):
    """Labelled texts and public SAEs are known by path; what they hold counts."""
    task, teacher = tmp_path / "t.csv", tmp_path / "sae"
    task.write_text("text,label\n")
    rsae.save(random_sae("top_k"), teacher)
    config = SuiteConfig.read(suite_file)
    evaluate = config.evaluate.model_copy(update={"tasks": [f"{task}#a"]})
    place = config.sites[0].model_copy(update={"teachers": [str(teacher)]})
    config = config.model_copy(update={"evaluate": evaluate, "sites": [place]})
    unit = units(config)[0]
    keys = [suite._key(config, unit)]
    task.write_text("text,label\nx,1\n")
    keys.append(suite._key(config, unit))
    rsae.save(random_sae("top_k", seed=1), teacher)
    keys.append(suite._key(config, unit))
    assert len({*keys}) == 3


def test_two_public_saes_of_one_name_as_a_file_are_told(suite_file):
    data = tomllib.loads(suite_file.read_text())
    data["sites"][0]["teachers"] = ["saes/one", "saes_one"]
    with pytest.raises(InputError, match="'saes/one' and 'saes_one' give files one name"):
        units(SuiteConfig.model_validate(data))


def test_a_wrong_hook_point_is_one_clear_line(suite_file, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(suite_file.read_text().replace("[0, 1]", "[0]").replace("blocks.1", "blocks.9"))
    assert_one_clear_line(evals("run", bad, "--out", tmp_path / "run"), "blocks.9.hook_resid_post")


def test_a_unit_says_how_many_cells_it_lacks(suite_run, suite_file):
    config = SuiteConfig.read(suite_file)
    unit, results = units(config)[0], read_results(suite_run)
    assert lacking(config, unit, results) == 0
    assert lacking(config, unit, [r for r in results if r.role is not Role.CONTROL]) == 2
    assert lacking(config, unit, []) == 2 * 3  # no upgrade says yet what its control is called


# --- synthetic protocols -------------------------------------------------------------------------------------


def test_protocols_alone_need_no_site(tmp_path, monkeypatch):
    """What `evals synthetic` makes, and a second run takes it over."""
    monkeypatch.setattr(pairs, "PROTOCOL", replace(pairs.PROTOCOL, points=pairs.PROTOCOL.points[:1]))
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


def test_protocols_beside_a_grid_leave_its_units_as_they_are(suite_file, tmp_path):
    both = tmp_path / "both.toml"
    both.write_text(suite_file.read_text() + '[synthetic]\nprotocols = ["A"]\n')
    one, other = SuiteConfig.read(suite_file), SuiteConfig.read(both)
    assert units(one) == units(other)
    assert suite.settings_of(one) == suite.settings_of(other)


def test_a_device_that_is_not_there_is_one_clear_line(suite_file, tmp_path):
    found = evals("run", suite_file, "--out", tmp_path / "run", "--device", "cuda:77")
    assert_one_clear_line(found, "device 'cuda:77' cannot be used", "here are: cpu")
    assert not (tmp_path / "run").exists()


def test_a_family_is_trained_with_its_settings(suite_file):
    config = SuiteConfig.read(suite_file)
    given = config.grid.model_copy(update={"settings": {"top_k": {"subtract_b_dec": False}}})
    changed = config.model_copy(update={"grid": given})
    for unit in units(config):
        same = suite._key(config, unit) == suite._key(changed, unit)
        assert same == (unit.source != "top_k")
    plan = Plan("top_k", 48, config.grid.levels("top_k")[0], config.train, given.options("top_k"))
    assert plan.settings == {"d_sae": 48, "k": 4, "subtract_b_dec": False}


def test_results_of_other_settings_do_not_stand_in_the_tables(suite_run, suite_file, tmp_path, monkeypatch):
    """An upgrade of one budget is never paired with a control of another; what is of now stays."""
    run = shutil.copytree(suite_run, tmp_path / "run")
    config = SuiteConfig.read(suite_file)
    cells = {r.cell for r in read_results(run)}

    def stopped(config, out, unit, *_):
        raise InputError("stopped")

    monkeypatch.setattr(suite, "run_unit", stopped)
    narrow = config.model_copy(
        update={"grid": config.grid.model_copy(update={"families": ["top_k"], "seeds": [1]})}
    )
    suite.run(narrow, run)
    assert {r.cell for r in read_results(run)} == cells
    longer = replace(config.tune, steps=config.tune.steps + 1)
    with pytest.raises(InputError, match="stopped"):
        suite.run(narrow.model_copy(update={"tune": longer}), run)
    former = {r.cell for r in read_results(suite_run) if (r.family, r.seed) == ("top_k", 1)}
    assert former
    assert {file.stem for file in (run / "results" / "former").iterdir()} == former
    assert {r.cell for r in read_results(run)} == cells - former


def test_where_all_units_fail_the_first_one_s_reason_is_told(suite_file, tmp_path, monkeypatch):
    """Stability has nothing to match then, and its reader would ask for another suite."""

    def broken(*_):
        raise InputError("too few words")

    monkeypatch.setattr(suite, "run_unit", broken)
    monkeypatch.setattr(suite, "_harvest", lambda *_: None)
    monkeypatch.setattr(suite, "_share", lambda *_: None)
    config = SuiteConfig.read(suite_file)
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"stability": True})})
    with pytest.raises(InputError, match="4 of 4 units failed, the first: .*too few words"):
        suite.run(config, tmp_path / "run")


def test_a_suite_takes_the_settings_that_tune_writes(suite_file, tmp_path):
    config = SuiteConfig.read(suite_file)
    family, settings = "matryoshka_batch_top_k", {"group_sizes": [2, 6], "subtract_b_dec": True}
    given = config.grid.model_dump() | {"families": [family], "settings": {family: settings}}
    config = config.model_copy(update={"grid": type(config.grid).model_validate(given)})
    config.write(tmp_path / "suite.toml")
    read = SuiteConfig.read(tmp_path / "suite.toml")
    assert read.grid.options(family) == config.grid.options(family) == settings
