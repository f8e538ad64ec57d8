"""`rsae train`'s own work: what is killed at any moment ends, when the same call runs again, as what was not."""

from __future__ import annotations

import itertools
import os

import pytest

import rsae.grid
from rsae import TrainConfig
from rsae.grid import RECORD, Grid, train_grid
from rsae.support.files import read_json


class Killed(BaseException):
    pass


def trained(store, out, steps, k=(4, 6)):
    config = TrainConfig(steps=steps, batch=64, lr=3e-3)
    return train_grid("top_k", store, out, config, Grid(k=k), {"d_sae": 24})


def files(out):
    return {
        str(f.relative_to(out)): f.read_bytes()
        for f in sorted(out.rglob("*"))
        if f.is_file() and f.name != "x"
    }


@pytest.mark.parametrize(("before", "steps"), [(0, 20), (10, 120)], ids=["fresh", "prolonged"])
def test_a_kill_while_results_are_saved_costs_nothing(store, tmp_path, monkeypatch, before, steps):
    """At each write, rename and removal after the last step; the results and what is left are those of a whole run."""
    whole = tmp_path / "whole"
    if before:
        trained(store, whole, before)
    trained(store, whole, steps)
    wanted = files(whole)
    assert not any("checkpoint" in name or name.startswith(".") for name in wanted)
    moments = 0
    for moment in itertools.count(1):
        out, calls = tmp_path / f"out{moment}", 0
        if before:
            trained(store, out, before)

        def hooked(real, out=out, moment=moment):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == moment:
                    raise Killed
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for module, name in (
                (rsae.grid, "save"),
                (rsae.grid, "write_json"),
                (rsae.grid.os, "replace"),
                (rsae.grid.checkpoints, "remove"),
                (rsae.grid.shutil, "rmtree"),
            ):
                patch.setattr(module, name, hooked(getattr(module, name)))
            try:
                trained(store, out, steps)
            except Killed:
                pass
            else:
                break
        moments += 1
        trained(store, out, steps)
        assert files(out) == wanted
        assert all(read_json(f)["steps"] == steps for f in out.rglob(RECORD))
    assert moments > 10


def test_what_killed_runs_began_to_write_is_cleared(store, tmp_path):
    left = tmp_path / ".checkpoint.safetensors.4711.tmp"
    left.write_bytes(b"x" * 100)
    trained(store, tmp_path, 20)
    assert not left.exists()
    assert sorted(os.listdir(tmp_path)) == ["top_k-k4", "top_k-k6"]
