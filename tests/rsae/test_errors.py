# pyright: reportArgumentType=false, reportCallIssue=false

import pickle
from dataclasses import replace

import pytest
import torch

import rsae
from rsae.sae import PursuitConfig
from rsae.support.errors import did_you_mean


def test_a_near_name_or_the_options():
    assert did_you_mean("sead", ["seed", "steps"]) == "; did you mean 'seed'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; choose from a, b"


def test_hundreds_of_options_are_not_all_listed():
    told = did_you_mean("zzz", [f"option{i:03}" for i in range(300)])
    assert told.endswith("option024 and 275 more")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: rsae.TrainConfig(steps=0), r"TrainConfig: steps = 0: input should be greater than 0"),
        (
            lambda: replace(rsae.TrainConfig(), lr="fast"),
            r"TrainConfig: lr = 'fast': input should be a valid number",
        ),
        (lambda: rsae.TrainConfig(stepz=3), r"TrainConfig: stepz = 3: is no field; did you mean 'steps'\?"),
        (lambda: rsae.HarvestConfig(tokens=-3), r"HarvestConfig: tokens = -3: "),
        (lambda: rsae.UpgradeConfig(type=(3, "a")), r"UpgradeConfig: type.1 = 'a': "),
        (lambda: PursuitConfig(steps=-1), r"PursuitConfig: steps = -1: "),
    ],
)
def test_a_wrong_field_of_a_config_is_one_line(make, told):
    with pytest.raises(rsae.InputError, match=told) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(
        caught.value
    )  # it may come from another process


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: rsae.Store.of(torch.randn(99, 4).double() * 1e300),
            "row 0 holds NaN or infinity, or what float32",
        ),
        (lambda: rsae.Store.of(torch.randn(99, 4), heldout=float("nan")), "heldout=nan of 99 rows"),
    ],
)
def test_numbers_that_are_none_here(make, told):
    with pytest.raises(rsae.InputError, match=told):
        make()


def test_a_soft_gate_with_all_latents_open_is_one_line():
    store = rsae.Store.of(torch.randn(500, 8))
    sae, config = rsae.new("top_k", store, d_sae=16, k=16), rsae.UpgradeConfig(variant="soft")
    with pytest.raises(rsae.InputError, match="k = 16 of 16 latents"):
        rsae.upgrade(sae, store, config=config)


def test_a_norm_limit_that_leaves_nothing_is_one_line(harvest_config, host, tmp_path):
    for _ in range(2):  # the same again
        with pytest.raises(rsae.InputError, match=r"no training token is left, .* norm_limit 0.1 leaves out"):
            rsae.harvest(replace(harvest_config, norm_limit=0.1), tmp_path / "store", host)
