"""Each figure is measured once; what changes is measured again, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
    assert calls[5:] == ["reconstruction", "downstream", "probe_all"]  # of the other one alone
    changed = Measuring(place, e.model_copy(update={"k": [1]})).measure("t", [one])[0]
    assert calls[8:] == ["probe_all"]
    assert replace(changed, probing=first.probing) == first
    assert changed.probing["spam"].accuracy == {1: first.probing["spam"].accuracy[1]}
    assert changed.probing["spam"].baseline == first.probing["spam"].baseline


def test_an_intervention_is_measured_where_it_is_asked_for(place, store):
    e = Evaluate(downstream_tokens=60, tasks=[], intervention=1)
    (found,) = Measuring(place, e).measure("t", [cell(random_sae("relu", store))])
    assert found.probing == {}
    assert found.intervention is not None
    assert found.intervention.dials <= 1
