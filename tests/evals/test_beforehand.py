"""What is wrong with a suite is said before its first step: nothing is harvested, trained or written by then."""

import importlib.util
import re

import pytest
import torch

import rsae
from evals import beforehand
from evals.config import SuiteConfig
from evals.site import SiteRun
from evals.suite import units
from rsae.provenance import Provenance
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals

HOOK = "blocks.1.hook_resid_post"


def sae_of(directory, d_in=32, hook=HOOK):
    sae = rsae.TopK(d_in, 48, 4)
    sae.initialise(torch.randn(64, d_in))
    sae.provenance = Provenance(hook=hook)
    rsae.save(sae, directory)
    return directory


def table(file, *rows):
    file.write_text("\n".join(["text,label,label2", *rows]))
    return file


MISTAKES = {
    "a hook point of the second site": (
        lambda _: {f'["{HOOK}"]': f'["{HOOK}", "blocks.9.hook_resid_post"]'},
        ["blocks.9.hook_resid_post", "L from 0 to 2"],
    ),
    "a host of the second site": (
        lambda _: {"[harvest]": f'[[sites]]\nhost = "nowhere"\nhooks = ["{HOOK}"]\n[harvest]'},
        ["host 'nowhere' cannot be loaded"],
    ),
    "no such teacher": (
        lambda t: {"[harvest]": f'teachers = ["{t / "none"}"]\n[harvest]'},
        ["none: no such file or directory"],
    ),
    "a teacher of another width": (
        lambda t: {"[harvest]": f'teachers = ["{sae_of(t / "wide", 40)}"]\n[harvest]'},
        ["wide: the SAE takes 40 dimensions", "has 32"],
    ),
    "a teacher of another hook point": (
        lambda t: {
            "[harvest]": f'teachers = ["{sae_of(t / "other", hook="blocks.2.hook_resid_post")}"]\n[harvest]'
        },
        ["other: the SAE belongs to hook point 'blocks.2.hook_resid_post'"],
    ),
    "a task without labels": (
        lambda t: {r"tasks = .*": f'tasks = ["{table(t / "few.csv", "a")}"]'},
        ["few.csv: row 1 has no `label`"],
    ),
    "more texts than a task has": (
        lambda _: {"probe_train = 40": "probe_train = 400000"},
        ["fewer than 10 examples a class"],
    ),
    "a set of one class": (
        lambda t: {r"classes = .*": f'classes = ["{table(t / "one.csv", *["a,b,c"] * 40)}"]'},
        ["one.csv: has one class"],
    ),
    "a crossed set of one label": (
        lambda t: {r"crossed = .*": f'crossed = ["{table(t / "one.csv", *["a,b,c", "a,c,c"] * 40)}"]'},
        ["one.csv"],
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_mistake_is_said_before_anything_is_written(suite_file, tmp_path, mistake, jobs):
    changes, words = MISTAKES[mistake]
    text = suite_file.read_text()
    for old, new in changes(tmp_path).items():
        text, count = re.subn(re.escape(old) if old.startswith("[") else old, lambda _, new=new: new, text)
        assert count == 1
    file = tmp_path / "suite.toml"
    file.write_text(text)
    assert_one_clear_line(evals("run", file, "--out", tmp_path / "run", "--jobs", jobs), *words)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_said_before_anything_is_written(suite_file, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sae_probes" else found(name)
    )
    file = tmp_path / "suite.toml"
    file.write_text(re.sub("tasks = .*", 'tasks = ["spam"]', suite_file.read_text()))
    done = evals("run", file, "--out", tmp_path / "run")
    assert_one_clear_line(done, "package sae_probes is missing", "pip install")
    assert not (tmp_path / "run").exists()


def test_a_site_alone_costs_no_look_of_its_own(suite_file, tmp_path, monkeypatch):
    """Its harvest begins with one."""
    monkeypatch.setattr(beforehand, "Stream", None)
    config = SuiteConfig.read(suite_file)
    place = SiteRun(units(config)[0].site, config.harvest, tmp_path)
    beforehand.check_places([place], [[]])
    with pytest.raises(TypeError):
        beforehand.check_places([place, place], [[], []])
