"""Units of a suite on a cluster: a dask scheduler and one worker in this process; and what is refused."""

from __future__ import annotations

import importlib.util
import signal
import threading
from pathlib import Path

import pytest

from evals import suite, workers
from evals.config import SuiteConfig
from evals.suite import units
from evals.workers import Workers
from rsae import InputError
from rsae.support import progress
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals


def where(number: int) -> tuple[int, str]:
    return number, threading.current_thread().name


def nested(number: int) -> list[tuple[int, str]]:
    return Workers().run(where, [(number,), (number + 1,)], "within")


def test_a_lone_worker_runs_all_calls_and_none_of_what_they_call(cluster):
    found = Workers(backend="dask", address=cluster.scheduler_address).run(nested, [(0,), (10,)], "calls")
    assert sorted(number for two in found for number, _ in two) == [0, 1, 10, 11]
    threads = {name for two in found for _, name in two}
    assert threading.current_thread().name not in threads
    assert len(threads) == 1


def test_the_environment_may_name_the_scheduler(cluster):
    dask = pytest.importorskip("dask")
    with dask.config.set({"scheduler-address": cluster.scheduler_address}):
        ((number, _),) = Workers(backend="dask").run(where, [(3,)], "calls")
    assert number == 3
    with pytest.raises(InputError, match="name the scheduler"):
        Workers(backend="dask").run(where, [(3,)], "calls")


def test_nobody_waits_for_ever(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "ANSWER", 0.2)
    monkeypatch.setattr(workers, "ARRIVAL", 0.2)
    with pytest.raises(InputError, match=r"no dask scheduler answers at tcp://127.0.0.1:9"):
        Workers(backend="dask", address="tcp://127.0.0.1:9").run(where, [(3,)], "calls")
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty:
        address = empty.scheduler_address
        with pytest.raises(InputError, match=r"no worker came in 0.2 s; `dask worker"):
            Workers(backend="dask", address=address).run(where, [(3,)], "calls")


def test_a_worker_that_does_not_see_the_run_refuses(suite_file, tmp_path):
    config = SuiteConfig.read(suite_file)
    message = suite._attempt(config, tmp_path / "elsewhere", units(config)[0], "cpu")
    assert message is not None
    assert "must be common to all workers" in message
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "dusk"], "did you mean 'dask'"),
        (["--backend", "dask", "--jobs", "2"], "leave --jobs out"),
        (["--backend", "dask", "--address", "x:1", "--shard", "0/2"], "leave the shard out"),
        (["--address", "tcp://x:1"], "give --backend"),
    ],
    ids=["unknown", "jobs", "shard", "address"],
)
def test_what_contradicts_itself_is_refused_before_anything_is_written(
    suite_file, tmp_path, arguments, words
):
    out = tmp_path / "run"
    assert_one_clear_line(evals("run", suite_file, "--out", out, *arguments), words)
    assert not out.exists()


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_missing_package_is_named(suite_file, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = evals("run", suite_file, "--out", tmp_path / "run", "--backend", backend)
    assert_one_clear_line(done, f"pip install 'rsae[{backend}]'")
    assert not Path(tmp_path / "run").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_processes_side_by_side_know_that_they_share_a_terminal(jobs, monkeypatch):
    monkeypatch.setattr(progress, "crowded", True)
    told = Workers(jobs).run(getattr, [(progress, "crowded"), (progress, "crowded")], "test")
    assert told == [jobs > 1] * 2


def test_a_process_that_is_killed_is_one_clear_line():
    with pytest.raises(InputError, match=r"^units: one of 2 processes was killed.*run the command again"):
        Workers(2).run(signal.raise_signal, [(signal.SIGKILL,)] * 2, "units")
