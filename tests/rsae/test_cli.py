"""The command line as its user meets it: a whole small job, and one clear line for each mistake."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import evals
from rsae import HarvestConfig, InputError, Store, load, save
from rsae.cli import main
from rsae.formats import WRITERS
from tests.command import Done, assert_one_clear_line, run_command


def rsae(*arguments: object) -> Done:
    return run_command(main, *arguments)


def process(*arguments: object, **kwargs) -> subprocess.Popen[str]:
    """The same in a process of its own."""
    code = "from rsae.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stderr=-1, text=True, **kwargs
    )


@pytest.fixture(scope="module")
def harvest_arguments(host_directory, text_file):
    return [
        *("--host", host_directory, "--hook", "blocks.1.hook_resid_post", "--text", text_file),
        *("--context", 32, "--tokens", 2000, "--heldout-tokens", 300),
    ]


@pytest.fixture(scope="module")
def job(tmp_path_factory, harvest_arguments):
    """A directory in which `rsae harvest`, `train` and `upgrade` have run."""
    path = tmp_path_factory.mktemp("job")
    for command in (
        ["harvest", path / "store", *harvest_arguments],
        [
            "train",
            "top_k",
            path / "store",
            path / "teacher",
            "--d-sae",
            40,
            "--k",
            5,
            "--steps",
            30,
            "--batch",
            64,
        ],
    ):
        done = rsae(*command)
        assert done.returncode == 0, done.stderr
    return path


def test_an_upgrade_takes_no_directory_of_its_own_ingredients_and_no_penalty_that_there_is_not(job):
    given = ["upgrade", job / "teacher", "--activations", job / "store"]
    for place in ("teacher", "store"):
        before = sorted(path.name for path in (job / place).iterdir())
        assert_one_clear_line(rsae(*given, "--out", job / place), "--out", "choose another directory")
        assert sorted(path.name for path in (job / place).iterdir()) == before
    (job / "afile").touch()
    assert_one_clear_line(rsae(*given, "--out", job / "afile"), "afile is a file", "choose another directory")
    wrong = rsae(*given, "--out", job / "penal", "--sparsity", 3)
    assert_one_clear_line(wrong, "--sparsity 3", "no penalty")
    assert not (job / "penal").exists()


def test_from_text_to_a_rational_sae(job):
    arguments = [
        "upgrade",
        job / "teacher",
        "--activations",
        job / "store",
        "--out",
        job / "new",
        "--batch",
        64,
    ]
    done = rsae(*arguments, "--steps", 10)
    assert done.returncode == 0, done.stderr
    assert load(job / "new" / "tuned").family == "rational_top_k"
    assert load(job / "new" / "control").family == "top_k"
    pair = f"{job / 'new'}/control {job / 'new'}/tuned --activations {job / 'store'}"
    assert done.stdout.endswith(f"with intervals, and what the host loses: evals compare {pair}\n")
    told = dict(re.findall(r"^  (\S+): FVU (\S+) at l0", done.stdout, flags=re.M))
    for name in ("teacher", "new/initial", "new/control", "new/tuned"):
        fvu = evals.reconstruction(load(job / name), Store.open(job / "store")).fvu
        assert float(told[str(job / name)]) == pytest.approx(fvu, abs=1e-3)
    again = rsae(*arguments, "--steps", 10)
    assert "tuned: reused" in again.stderr
    rounded = [*arguments, "--steps", 10, "--precision", "bfloat16"]
    assert_one_clear_line(rsae(*rounded), "holds another upgrade (initial, control, tuned)", "--force")
    done = rsae(*rounded, "--force")
    assert done.returncode == 0, done.stderr
    assert "tuned: reused" not in done.stderr  # another training
    assert_one_clear_line(rsae(*arguments, "--precision", "bf16"), "--precision 'bf16'", "bfloat16")


def test_a_grid_in_one_pass(job, tmp_path):
    done = rsae(
        *("train", "jump_relu", job / "store", tmp_path, "--d-sae", 40, "--steps", 20, "--batch", 64),
        *("--sparsity", "0.1,2", "--seed", "0,1", "--setting", "bandwidth=0.5", "--penalty", "tanh"),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    saes = {p.name: load(p) for p in tmp_path.iterdir()}
    assert set(saes) == {f"jump_relu-sparsity{s}-seed{i}" for s in ("0.1", "2") for i in (0, 1)}
    weights = sorted(s.trained.sparsity for s in saes.values() if s.trained)
    assert weights == pytest.approx(
        [0.1, 0.1, 2.0, 2.0], rel=0.1
    )  # means of the last steps, the first still rising
    assert {s.trained.penalty for s in saes.values() if s.trained} == {"tanh"}
    a, b = (saes[f"jump_relu-sparsity2-seed{i}"] for i in (0, 1))
    assert not torch.equal(a.W_dec, b.W_dec)


def test_seeds_that_six_digits_do_not_tell_apart_have_a_directory_each(job, tmp_path):
    sizes = ["--d-sae", 40, "--k", 5, "--steps", 3, "--batch", 64]
    done = rsae("train", "top_k", job / "store", tmp_path, *sizes, "--seed", "20240101,20240102")
    assert done.returncode == 0, done.stderr
    made = [load(tmp_path / f"top_k-seed{seed}") for seed in (20240101, 20240102)]
    assert not torch.equal(made[0].W_dec, made[1].W_dec)


def test_l0_is_the_goal_where_nothing_else_is_said(job, tmp_path):
    done = rsae("train", "relu", job / "store", tmp_path, "--d-sae", 40, "--steps", 20, "--batch", 64)
    assert done.returncode == 0, done.stderr
    trained = load(tmp_path).trained
    assert trained is not None
    assert trained.sparsity > 0


def test_a_window_changes_the_order(job, tmp_path):
    arguments = ["--d-sae", 40, "--k", 5, "--steps", 5, "--batch", 64]
    for window in (0, 512):
        rsae("train", "top_k", job / "store", tmp_path / str(window), *arguments, "--window", window)
    assert not torch.equal(load(tmp_path / "0").W_dec, load(tmp_path / "512").W_dec)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("top_k", "--sparsity", 1), "its l0 is set by --k"),
        (("relu", "--k", 3), "set its l0 by --l0"),
        (("relu", "--l0", 3, "--sparsity", 1), "either --sparsity or --l0"),
        (("relu", "--l0", "3;4"), "write a number, or several"),
        (("jump_relu", "--setting", "bandwith=1"), "did you mean 'bandwidth'"),
        (("jump_relu", "--setting", "bandwidth=wide"), "bandwidth = 'wide'"),
        (("jump_relu", "--setting", "bandwidth"), "write NAME=VALUE"),
        (("jump_relu", "--setting", "bandwidth=1,2"), "give one value; a list as bandwidth=[1,2]"),
        (("top_k", "--setting", "objective=klein"), "objective = 'klein'"),
        (("rational_relu",), "upgrade it"),
        (("relu", "--lr", -1), "--lr -1"),
        (("relu", "--precision", "float64"), "--precision 'float64'"),
        (("relu", "--penalty", "l2"), "choose from l1"),
        (("relu", "--lr", 0.1, "--setting", "lr=0.01"), "it has an option of its own, --lr"),
        (("top_k", "--setting", "k=3"), "it has an option of its own, --k"),
        (("jump_relu", "--setting", "bandwidth=1", "--setting", "bandwidth=2"), "NAME=VALUE once"),
        (("top_k", "--k", "3,3"), "--k 3,3: give each value once"),
        (("top_k", "--seed", 2**63), f"seed = {2**63}: input should be less"),
    ],
)
def test_options_that_do_not_fit(job, tmp_path, arguments, words):
    family, *rest = arguments
    assert_one_clear_line(rsae("train", family, job / "store", tmp_path, *rest), words)


def test_two_processes_equal_one(job, tmp_path):
    """`torchrun -m rsae train` with two processes: the weights of one, within float error, and one writer."""
    arguments = [
        *("-m", "rsae", "train", "batch_top_k", job / "store"),
        *("--d-sae", 40, "--k", 5, "--steps", 60, "--batch", 64, "--lr", 3e-3),
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, command in (("one", [sys.executable]), ("two", launch)):
        words = [*command, *arguments, "--d-sae", 40]
        words.insert(words.index(job / "store") + 1, tmp_path / name)
        done = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_info(job):
    assert json.loads(rsae("info", job / "teacher").stdout)["k"] == 5
    assert json.loads(rsae("info", job / "store").stdout)["d_in"] == 32
    assert rsae("info", (job / "store").as_uri()).stdout == rsae("info", job / "store").stdout
    assert_one_clear_line(
        rsae("info", job / "store" / "manifest.json"), f"{job / 'store' / 'manifest.json'}: no SAE"
    )


def test_convert(job, tmp_path):
    done = rsae("convert", job / "teacher", tmp_path / "a", "--format", "dictionary_learning")
    assert done.stdout.strip().endswith("top_k, 40 latents of 32 dimensions, as dictionary_learning")
    assert rsae("convert", tmp_path / "a", tmp_path / "b", "--format", "sparsify").returncode == 0
    said = json.loads(rsae("info", tmp_path / "b").stdout)
    assert (said["format"], said["family"], said["k"]) == ("sparsify", "top_k", 5)
    assert_one_clear_line(
        rsae("convert", job / "teacher", tmp_path / "c", "--format", "gemma_scope"), "cannot hold", "sparsify"
    )
    assert_one_clear_line(rsae("convert", tmp_path / "none", tmp_path / "c"), "no such file or directory")


def test_help_teaches():
    text = rsae("--help").stdout
    for command in ("harvest", "train", "upgrade", "convert", "info"):
        assert command in text


def test_help_says_what_is_taken(tmp_path):
    for format in WRITERS:
        assert format in rsae("convert", "--help").stdout
    found = re.search(r"--context .*?x>=(\d+)", rsae("harvest", "--help").stdout, re.DOTALL)
    assert found is not None
    least = int(found[1])
    HarvestConfig(context=least)
    with pytest.raises(InputError):
        HarvestConfig(context=least - 1)


def test_unknown_host(tmp_path):
    assert_one_clear_line(rsae("harvest", tmp_path / "s", "--host", "smollm2-135"), "smollm2-135", "embedded")


def test_wrong_hook_point(tmp_path, harvest_arguments):
    arguments = [
        a if a != "blocks.1.hook_resid_post" else "blocks.7.hook_resid_post" for a in harvest_arguments
    ]
    assert_one_clear_line(
        rsae("harvest", tmp_path / "s", *arguments), "blocks.7.hook_resid_post", "L from 0 to 2"
    )


def test_unwritable_directory(tmp_path, harvest_arguments):
    (tmp_path / "file").write_text("")
    done = rsae("harvest", tmp_path / "file" / "store", *harvest_arguments)
    assert_one_clear_line(done, "is a file, where a directory is needed", "choose another directory")
    rsae("harvest", tmp_path / "store", *harvest_arguments)
    below = tmp_path / "file" / "sae"  # told before the training
    done = rsae("train", "top_k", tmp_path / "store", below, "--d-sae", 16, "--k", 4, "--steps", 1)
    assert_one_clear_line(done, "is a file, where a directory is needed")


def test_full_disk_loses_nothing_that_is_finished(tmp_path, harvest_arguments):
    """A file-size limit makes a shard's write fail half-way, as a full disk does."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    failed = process("harvest", tmp_path / "s", *harvest_arguments, preexec_fn=limit)
    _, stderr = failed.communicate()
    done = Done(failed.returncode, "", stderr)
    assert_one_clear_line(done, "train-00000.safetensors", "free some space")
    assert (tmp_path / "s" / "plan.json").exists()
    assert not list((tmp_path / "s").glob("*.safetensors")), "a torn file must not stay"
    assert not list((tmp_path / "s").glob(".*")), "nor a temporary one"
    assert rsae("harvest", tmp_path / "s", *harvest_arguments).returncode == 0


def test_ctrl_c_says_how_to_go_on(job, tmp_path):
    training = process(
        "train", "relu", job / "store", tmp_path / "sae", "--d-sae", 40, "--steps", 10**6, "--batch", 64
    )
    while not (tmp_path / "sae" / "checkpoint.safetensors").exists():
        assert training.poll() is None
        time.sleep(0.1)
    os.kill(training.pid, signal.SIGINT)
    _, stderr = training.communicate()
    assert training.returncode == 130
    assert stderr.strip().splitlines()[-1].startswith("interrupted; run the same command again")
    assert "Traceback" not in stderr


def test_corrupt_shard(job, tmp_path):
    store = shutil.copytree(job / "store", tmp_path / "store")
    shard = store / "train-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    done = rsae("train", "relu", store, tmp_path / "sae")
    assert_one_clear_line(done, "train-00000.safetensors", "corrupt", "run the same")


def test_unknown_family(job, tmp_path):
    assert_one_clear_line(
        rsae("train", "jumprelu", job / "store", tmp_path / "sae"), "did you mean 'jump_relu'"
    )


def test_bad_option_is_a_usage_error():
    done = rsae("train", "--steeps", 3)
    assert done.returncode == 2
    assert "No such option" in done.stderr


# --- finished results, starts and one's own activations -----------------------------------------------------


def arguments_of(job, out, *more):
    return ["train", "top_k", job / "store", out, "--d-sae", 40, "--k", 5, "--batch", 64, *more]


def test_a_finished_sae_is_never_trained_over(job, tmp_path):
    out = tmp_path / "sae"
    assert rsae(*arguments_of(job, out, "--steps", 20)).returncode == 0
    weights = (out / "sae_weights.safetensors").read_bytes()
    again = rsae(*arguments_of(job, out, "--steps", 20))
    assert "finished already" in again.stdout
    other = rsae(*arguments_of(job, out, "--steps", 20, "--lr", 0.01))
    assert_one_clear_line(other, "an SAE of other settings, finished", "--force")
    assert (out / "sae_weights.safetensors").read_bytes() == weights
    assert rsae(*arguments_of(job, out, "--steps", 20, "--lr", 0.01, "--force")).returncode == 0
    assert (out / "sae_weights.safetensors").read_bytes() != weights


def test_a_directory_with_somebody_elses_sae_is_left_alone(job, tmp_path):
    shutil.copytree(job / "teacher", tmp_path / "sae")
    (tmp_path / "sae" / "training.json").unlink()
    assert_one_clear_line(rsae(*arguments_of(job, tmp_path / "sae", "--steps", 5)), "holds another SAE")


def test_weights_without_a_config_are_somebodys_too(job, tmp_path):
    weights = tmp_path / "sae" / "sae_weights.safetensors"
    weights.parent.mkdir()
    weights.write_text("not mine")
    assert_one_clear_line(rsae(*arguments_of(job, weights.parent, "--steps", 5)), "holds another SAE")
    assert weights.read_text() == "not mine"


def test_what_is_of_another_kind_is_left_alone(job, tmp_path, harvest_arguments):
    """A store, an SAE and a run each have a folder of their own."""
    own = tmp_path / "own"
    shutil.copytree(job / "store", own / "store")
    shutil.copytree(job / "teacher", own / "sae")
    (own / "run" / "sites").mkdir(parents=True)
    (own / "run" / "suite.toml").touch()
    before = {f: f.stat().st_mtime_ns for f in own.rglob("*")}
    for place, held in (("store", "an activation store"), ("run", "a run of")):
        for force in ((), ("--force",)):
            assert_one_clear_line(
                rsae(*arguments_of(job, own / place, "--steps", 5, *force)), f"holds {held}"
            )
    for place, held in (("sae", "an SAE"), ("run", "a run of")):
        assert_one_clear_line(rsae("harvest", own / place, *harvest_arguments), f"holds {held}")
    assert {f: f.stat().st_mtime_ns for f in own.rglob("*")} == before


def test_more_steps_prolong_a_finished_run(job, tmp_path):
    out = tmp_path / "sae"
    rsae(*arguments_of(job, out, "--steps", 20))
    before = load(out)
    done = rsae(*arguments_of(job, out, "--steps", 60))
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "training.json").read_text())["steps"] == 60
    x = Store.open(job / "store").sample(300)
    assert (load(out)(x) - x).square().sum() < (before(x) - x).square().sum()


def test_a_saved_sae_can_be_the_start(job, tmp_path):
    out = tmp_path / "sae"
    still = ["--batch", 64, "--steps", 1, "--lr", 1e-9, "--from", job / "teacher"]
    done = rsae("train", "top_k", job / "store", out, *still)
    assert done.returncode == 0, done.stderr
    x = Store.open(job / "store").sample(300)
    torch.testing.assert_close(load(out)(x), load(job / "teacher")(x), rtol=1e-3, atol=1e-3)
    wrong = ["train", "relu", job / "store", tmp_path / "x", "--from", job / "teacher"]
    assert_one_clear_line(rsae(*wrong), "is a 'top_k' SAE, not 'relu'")
    for given, words in (
        (["--d-sae", 64], ["has d_sae 40, not 64", "without --from"]),
        *((["--k", k], [f"k={k} must lie between 1 and d_sae=40"]) for k in (99, 0, -1)),
        (["--seed", "0,1"], ["--seed 0,1", "give one seed a run"]),
        (["--setting", "subtract_b_dec=false"], ["has subtract_b_dec True, not False"]),
    ):
        refused = rsae("train", "top_k", job / "store", tmp_path / "y", *still, *given)
        assert_one_clear_line(refused, *words)
    assert not (tmp_path / "y").exists()


def test_the_seed_of_a_start_orders_the_data(job, tmp_path):
    common = ["--batch", 64, "--steps", 3, "--from", job / "teacher"]
    for seed in (0, 1):
        done = rsae("train", "top_k", job / "store", tmp_path / str(seed), *common, "--seed", seed)
        assert done.returncode == 0, done.stderr
    assert not torch.equal(load(tmp_path / "0").W_dec, load(tmp_path / "1").W_dec)


def test_a_start_that_was_replaced_is_another_start(job, tmp_path):
    """Other weights under the same path are other settings; the same weights under another path are none."""
    sizes = ["--steps", 3, "--batch", 64]
    fresh = ["train", "top_k", job / "store", tmp_path / "start", "--d-sae", 40, "--k", 5, *sizes]
    rsae(*fresh)
    command = ["train", "top_k", job / "store", tmp_path / "sae", *sizes, "--from"]
    assert rsae(*command, tmp_path / "start").returncode == 0
    shutil.copytree(tmp_path / "start", tmp_path / "copy")
    assert "finished already" in rsae(*command, tmp_path / "copy").stdout
    rsae(*fresh, "--seed", 7, "--force")
    assert_one_clear_line(rsae(*command, tmp_path / "start"), "holds an SAE of other settings", "--force")


def test_a_start_with_another_k_is_trained_with_it(job, tmp_path):
    still = ["--d-sae", 40, "--batch", 64, "--steps", 1, "--lr", 1e-9, "--from", job / "teacher"]
    done = rsae("train", "top_k", job / "store", tmp_path, *still, "--k", "3,5")
    assert done.returncode == 0, done.stderr
    assert "l0 3.0" in done.stdout
    assert "l0 5.0" in done.stdout
    x = Store.open(job / "store").sample(300)
    for k in (3, 5):
        assert (load(tmp_path / f"top_k-k{k}").encode(x) != 0).sum(1).max() == k


def test_a_batch_top_k_start_with_another_k_gets_its_own_threshold(job, tmp_path):
    """The threshold belongs to k; a start that keeps its k keeps its threshold."""
    sizes = ["--batch", 64, "--steps", 5]
    fresh = ["train", "batch_top_k", job / "store", tmp_path / "start", "--d-sae", 40, "--k", 4, *sizes]
    assert rsae(*fresh).returncode == 0
    again = ["train", "batch_top_k", job / "store", tmp_path / "again", *sizes, "--from", tmp_path / "start"]
    assert rsae(*again, "--k", "4,8").returncode == 0
    x = Store.open(job / "store").sample(10**6)
    for path, k in (("start", 4), ("again/batch_top_k-k8", 8), ("again/batch_top_k-k4", 4)):
        assert (load(tmp_path / path).encode(x) != 0).sum(1).float().mean().item() == pytest.approx(
            k, rel=0.05
        )
    start, kept = (load(tmp_path / path) for path in ("start", "again/batch_top_k-k4"))
    torch.testing.assert_close(kept.threshold, start.threshold, rtol=0.05, atol=0)


@pytest.mark.parametrize("told", [True, False], ids=["own weight", "own l0"])
def test_a_start_keeps_its_sparsity(job, tmp_path, told):
    """Without --sparsity or --l0 its penalty's weight is kept, or its l0 where it does not say the weight."""
    first = ["train", "jump_relu", job / "store", tmp_path / "a", "--d-sae", 40, "--batch", 64]
    assert rsae(*first, "--steps", 60, "--sparsity", 0.7).returncode == 0
    if not told:
        sae = load(tmp_path / "a")
        sae.trained = None
        save(sae, tmp_path / "a")
    again = ["train", "jump_relu", job / "store", tmp_path / "b", "--batch", 64, "--steps", 5]
    done = rsae(*again, "--from", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    trained = load(tmp_path / "b").trained
    assert trained is not None
    assert (abs(trained.sparsity - 0.7) < 1e-9) == told
    x = Store.open(job / "store").sample(600)
    before, after = ((load(tmp_path / name).encode(x) != 0).sum(1).float().mean() for name in "ab")
    assert abs(after / before - 1) < 0.2


def test_finished_work_is_never_lost_unasked(job, tmp_path):
    """By an upgrade of another teacher, a conversion, or fewer steps; asked for, nothing of the old stays beside it."""
    upgrade = ["--activations", job / "store", "--out", tmp_path / "up", "--batch", 64, "--steps", 3]
    assert rsae(*arguments_of(job, tmp_path / "other", "--steps", 9)).returncode == 0
    assert rsae("upgrade", job / "teacher", *upgrade).returncode == 0
    weights = {f: f.read_bytes() for f in tmp_path.rglob("*.safetensors")}
    for command, words in (
        (["upgrade", tmp_path / "other", *upgrade], "holds another upgrade"),
        (["convert", job / "teacher", tmp_path / "other"], "not empty"),
        (arguments_of(job, tmp_path / "other", "--steps", 3), "of 9 steps, which are more than 3"),
    ):
        assert_one_clear_line(rsae(*command), words, "--force")
        assert {f: f.read_bytes() for f in tmp_path.rglob("*.safetensors")} == weights
    forced = ["upgrade", tmp_path / "other", *upgrade[:-2], "--steps", 0, "--force"]
    assert rsae(*forced).returncode == 0
    assert {p.name for p in (tmp_path / "up").iterdir()} == {"initial", "initial.json"}
    assert rsae("convert", job / "teacher", tmp_path / "other", "--force").returncode == 0
    refused = rsae(*arguments_of(job, tmp_path / "other", "--steps", 9))
    assert_one_clear_line(refused, "holds another SAE")  # no record of what is gone


def test_ones_own_activations_from_a_file(tmp_path):
    import numpy as np

    np.save(tmp_path / "acts.npy", np.random.default_rng(0).normal(size=(500, 16)).astype("float32"))
    sizes = ["--d-sae", 40, "--k", 5, "--batch", 64, "--steps", 20]
    done = rsae("train", "top_k", tmp_path / "acts.npy", tmp_path / "sae", *sizes)
    assert done.returncode == 0, done.stderr
    done = rsae(
        *("upgrade", tmp_path / "sae", "--activations", tmp_path / "acts.npy", "--out", tmp_path / "new"),
        *("--steps", 0, "--variant", "pursuit"),
    )
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "new" / "initial").family == "pursuit_top_k"


def test_an_sae_of_another_hook_point_is_named(job, tmp_path):
    shutil.copytree(job / "teacher", tmp_path / "sae")
    cfg = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    cfg["metadata"]["hook_name"] = "blocks.0.hook_mlp_out"
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps(cfg))
    arguments = ["upgrade", tmp_path / "sae", "--activations", job / "store", "--out", tmp_path / "new"]
    assert_one_clear_line(rsae(*arguments), "blocks.0.hook_mlp_out", "--allow-mismatch")
    assert rsae(*arguments, "--steps", 2, "--batch", 64, "--allow-mismatch").returncode == 0


def test_several_hook_points_in_one_pass(tmp_path, harvest_arguments):
    hooks = ["blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"]
    done = rsae("harvest", tmp_path / "s", *harvest_arguments, "--hook", hooks[1])
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "s").iterdir()} == set(hooks)
    single = rsae("harvest", tmp_path / "one", *harvest_arguments)
    assert single.returncode == 0, single.stderr
    together = Store.open(tmp_path / "s" / hooks[0])
    assert torch.equal(together.batch(1, 64, 0), Store.open(tmp_path / "one").batch(1, 64, 0))


def test_a_store_in_parts(tmp_path, harvest_arguments, job):
    for part in ("1/2", "0/2"):
        done = rsae("harvest", tmp_path / "s", *harvest_arguments, "--part", part)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "s" / "manifest.json").exists()
    done = rsae("harvest", tmp_path / "s", *harvest_arguments)
    assert "training and" in done.stdout
    assert (tmp_path / "s" / "manifest.json").read_text() == (job / "store" / "manifest.json").read_text()
    for text in ("0", "1-2", "/2", "a/2", "2/2", "0/0"):
        assert_one_clear_line(
            rsae("harvest", tmp_path / "t", *harvest_arguments, "--part", text), "write i/n"
        )
    assert not (tmp_path / "t").exists()
