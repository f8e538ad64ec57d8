"""Each figure is measured once; what changes is measured again, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evals import measuring
from evals.config import Evaluate
from evals.measuring import Measuring
from evals.results import Level, Role, Site
from evals.site import Cell, SiteRun
from tests.evals.helpers import result
from tests.rsae.helpers import random_sae


@pytest.fixture
def place(harvest_config, tmp_path):
    return SiteRun(Site(harvest_config.host, harvest_config.hook), harvest_config, tmp_path)


def cell(sae, role: Role = Role.TEACHER, **rest) -> Cell:
    return Cell(sae, "somewhere", sae.family, Level("k", 5), role, result().how, **rest)


def test_what_is_measured_is_kept(place, store, monkeypatch):
    calls = []

    def counting(name):
        real = getattr(measuring, name)
        monkeypatch.setattr(measuring, name, lambda *a, **k: calls.append(name) or real(*a, **k))

    for name in ("reconstruction", "downstream", "bounds_of", "probe_all", "probe_data"):
        counting(name)
    e = Evaluate(
        downstream_tokens=60, tasks=["spam"], probe_train=40, probe_test=20, probe_context=8, k=[1, 2]
    )
    one = cell(random_sae("top_k", store))
    other = cell(random_sae("relu", store), Role.CONTROL, control="control")
    (first,) = Measuring(place, e).measure("t", [one])
    assert sorted(calls) == ["bounds_of", "downstream", "probe_all", "probe_data", "reconstruction"]
    assert Measuring(place, e).measure("t", [one]) == [first]
    assert len(calls) == 5
    both = Measuring(place, e).measure("t", [one, other])
    assert both[0] == first
    assert calls[5:] == ["downstream", "probe_all", "reconstruction"]  # of the other one alone
    changed = Measuring(place, e.model_copy(update={"k": [1]})).measure("t", [one])[0]
    assert calls[8:] == ["probe_all"]
    assert replace(changed, probing=first.probing) == first
    assert changed.probing["spam"].accuracy == {1: first.probing["spam"].accuracy[1]}
    assert changed.probing["spam"].baseline == first.probing["spam"].baseline


def test_a_run_reads_with_the_host_that_it_harvested_with(harvest_config, tmp_path):
    """Its activations are of one kind: in training, in probing, and before the hook point where it is spliced."""
    site = Site(harvest_config.host, harvest_config.hook)
    mixed = SiteRun(site, replace(harvest_config, host_dtype="mixed"), tmp_path)
    assert mixed.store.manifest.settings["host_dtype"] == "mixed"
    assert mixed.host.mixed
    # opened once more, with settings that leave it to the machine
    assert SiteRun(site, replace(harvest_config, host_dtype="auto"), tmp_path).harvest == mixed.harvest


def test_what_units_share_is_read_before_them(place, store, tmp_path, monkeypatch):
    """Units in processes of their own would each run the host over the same texts."""
    task = tmp_path / "colours.csv"
    rows = [f"{'red' if i % 2 else 'blue'} thing {i},{i % 2},{i % 4 // 2}" for i in range(240)]
    task.write_text("\n".join(["text,label,label2", *rows]))
    e = Evaluate(
        downstream_tokens=60,
        tasks=[str(task)],
        probe_train=40,
        probe_test=20,
        probe_context=8,
        k=[1],
        absorption=200,
        classes=[str(task)],
        crossed=[str(task)],
        ablate=[2],
    )
    letters = np.array(list("abcd") * 50)
    # the test's host has too few words of one token
    monkeypatch.setattr(measuring, "read_words", lambda *_: (torch.randn(200, store.d_in), letters))
    for part in Measuring(place, e).shared:
        Measuring(place, e).prepare(*part)
    for name in ("probe_data", "labelled_data", "read_words", "bounds_of"):
        monkeypatch.setattr(measuring, name, lambda *_, **__: pytest.fail("the host reads a text again"))
    (found,) = Measuring(place, e).measure("t", [cell(random_sae("relu", store))])
    assert found.features is not None
    assert found.features.tpp
    assert found.features.scr
    measures = Measuring(place, e).measures
    assert list(measures) == ["downstream", "features", "probing", "reconstruction"]
    for what, measure in measures.items():  # in parts, each is found again
        one = cell(random_sae("relu", store))
        monkeypatch.setattr(Measuring, measure.make.__name__, lambda *_: pytest.fail("measured again"))
        assert Measuring(place, e).figures("t", [one], what) == [getattr(found, what)]


def test_an_intervention_is_measured_where_it_is_asked_for(place, store):
    e = Evaluate(downstream_tokens=60, tasks=[], intervention=1)
    (found,) = Measuring(place, e).measure("t", [cell(random_sae("relu", store))])
    assert found.probing == {}
    assert found.intervention is not None
    assert found.intervention.dials <= 1
