"""Suites as files: what is wrong is one line that names the file, the key and the remedy."""

from __future__ import annotations

import tomllib
from typing import get_args

import pytest

from evals.config import PRESETS, Baseline, SuiteConfig, preset
from evals.results import Level
from evals.suite import units
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hooks = ", "hokos = ", ("unknown key 'sites.0.hokos'", "did you mean 'hooks'")),
        ("seeds = ", "sedes = ", ("unknown key 'grid.sedes'", "did you mean 'seeds'")),
        ("probe_test = 20", "probe_test = 20\nk = [1, 49]", ("evaluate.k 49 is more than the 48 latents",)),
        ("ablate = [2, 8]", "ablate = [2, 80]", ("evaluate.ablate 80 is more than",)),
        (
            "steps = 40",
            'steps = 40\npenalty = "L1"',
            ("train.penalty 'L1' does not fit family 'jump_relu'", "l1"),
        ),
        ("context = 32", "context = 7", ("harvest.context = 7", "greater than or equal to 8")),
        ("seeds = [0, 1]", "seeds = [0, 1, 0]", ("seeds holds 0 twice",)),
        ("d_sae = [48]", "widths.top_k = [48, 48]", ("widths holds 48 twice",)),
        (
            'hooks = ["blocks.1.hook_resid_post"]',
            f"hooks = {['blocks.1.hook_resid_post'] * 2}",
            ("hooks holds",),
        ),
        ("type = [3, 2]", "typ = [3, 2]", ("unknown key 'upgrades.gated.typ'", "did you mean 'type'")),
        ("type = [3, 2]", "type = [4, 2]", ("upgrades.gated.type", "[3, 2]")),
        ('"top_k"]', '"topk"]', ("'topk'", "did you mean 'top_k'")),
        ("l0 = [4, 8]", "l0 = [4, 48]", ("48", "d_sae")),
        ("d_sae = [48]", "d_sae = [48]\nwidths.jump_rleu = [24]", ("grid.widths.jump_rleu", "'jump_relu'")),
        ("d_sae = [48]", "d_sae = [48]\nwidths.top_k = [8]", ("l0 8", "widths.top_k")),
        (
            "d_sae = [48]",
            "d_sae = [48]\nsettings.top_k = { subtract_bdec = false }",
            ("grid.settings.top_k.subtract_bdec", "'subtract_b_dec'"),
        ),
        (
            "d_sae = [48]",
            "d_sae = [48]\nsettings.topk = { subtract_b_dec = false }",
            ("grid.settings.topk", "'top_k'"),
        ),
        ("blocks.1.hook", "block.1.hook", ("block.1.hook", "blocks.L.POINT")),
        ("[train]", "[train]\nseed = 1", ("train.seed", "[grid]")),
        ("[harvest]", "[harvest]\nhost = 'a'", ("harvest.host", "[sites]")),
        ("[[sites]]", "[sites]", ("write [[sites]]",)),
        ("steps = 40", "steps = true", ("train.steps is true or false", "a number")),
        ("l0 = [4, 8]", "l0 = [true, 8]", ("grid.l0.0 is true or false",)),
        ("steps = 40", "steps = 40\nlr = inf", ("train.lr = inf", "finite")),
        ("steps = 40", "steps = 40\nsparsity_warmup = nan", ("train.sparsity_warmup = nan", "finite")),
        ("d_sae = [48]", "d_sae = [48]\nsparsity.jump_relu = [inf]", ("sparsity.jump_relu", "finite")),
        ("batch = 64", "batch = 640000", ("train.batch 640000", "harvest.tokens")),
        ("upgrades.gated", f"upgrades.{'g' * 250}", ("choose another name", "64")),
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


@pytest.mark.parametrize(
    "name",
    ["teacher", "control", *get_args(Baseline), "omp", "longer", "wider", "pursued", "l0", "l1", "held"],
)
def test_no_upgrade_is_named_as_another_cell(suite_file, tmp_path, name):
    """Nor as what stands behind `control-`: a unit's cells would be one too few, after all its trainings."""
    bad = tmp_path / "bad.toml"
    bad.write_text(suite_file.read_text().replace("upgrades.gated", f"upgrades.{name}"))
    assert_one_clear_line(evals("run", bad, "--out", tmp_path / "run"), f"upgrades.{name}: choose another")


def test_soft_wants_a_family_with_one_gate(suite_file, tmp_path):
    bad = tmp_path / "bad.toml"
    text = suite_file.read_text().replace('"jump_relu"', '"batch_top_k"')
    bad.write_text(text.replace("type = [3, 2]", 'type = [3, 2]\nvariant = "soft"'))
    assert_one_clear_line(evals("run", bad, "--out", tmp_path / "run"), "upgrades.gated", "'batch_top_k'")


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


def test_presets_are_valid():
    for name in PRESETS:
        assert units(SuiteConfig.read(name))
        assert evals("run", name, "--out", "unused", "--show-config").stdout.count("[grid]") == 1


def test_what_is_written_is_read(suite_file, demo_file, tmp_path):
    for file in (suite_file, demo_file, preset("paper")):
        config = SuiteConfig.read(file)
        config.write(tmp_path / "again.toml")
        assert SuiteConfig.read(tmp_path / "again.toml") == config
    assert "seed" not in tomllib.loads(SuiteConfig().to_toml())["train"]


def test_levels():
    grid = SuiteConfig.read("quick").grid
    assert [grid.levels(family) for family in grid.families] == [
        [Level("sparsity", 2.5)],
        [Level("sparsity", 2.0)],
        [Level("k", 16)],
    ]
    demo = SuiteConfig.read("demo").grid
    assert [demo.levels(family) for family in demo.families] == [
        [Level("l0", 32)],
        [Level("l0", 32)],
        [Level("k", 32)],
    ]
    assert SuiteConfig().grid.levels("gated") == [Level("l0", 16), Level("l0", 32), Level("l0", 64)]


def test_missing_config(tmp_path):
    assert_one_clear_line(evals("run", tmp_path / "none.toml", "--out", tmp_path), "none.toml")
    assert_one_clear_line(evals("run", "domo", "--out", tmp_path), "domo", "demo, quick")
    assert_one_clear_line(evals("run", "quick"), "--out")
