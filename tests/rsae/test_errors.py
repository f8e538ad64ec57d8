# pyright: reportArgumentType=false, reportCallIssue=false

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch

import evals
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
            "row 0 holds NaN or infinity, or numbers whose squares float32",
        ),
        (lambda: rsae.Store.of(torch.randn(99, 4) * 1e25), "squares float32 does not hold.*another unit"),
        (lambda: rsae.Store.of(torch.randn(99, 4), heldout=1.0), r"heldout=1\.0 of 99 rows"),
        (lambda: rsae.Store.of(torch.randn(99, 4), heldout=float("nan")), "heldout=nan of 99 rows"),
    ],
)
def test_numbers_that_are_none_here(make, told):
    with pytest.raises(rsae.InputError, match=told):
        make()


def misuses() -> list[tuple[Any, str]]:
    x = torch.randn(300, 8)
    store, config = rsae.Store.of(x), rsae.TrainConfig(steps=1, batch=32)
    sae = rsae.new("top_k", store, d_sae=16, k=2)
    wrong: Any = rsae
    measures: Any = evals
    return [
        (lambda: wrong.train(sae, x, config), "a Tensor is no activations: give rsae.Store.of"),
        (lambda: wrong.train(sae, x.numpy(), config), "a ndarray is no activations"),
        (lambda: wrong.train(sae, store, {"steps": 3}), "a dict is no config: give a rsae.TrainConfig"),
        (lambda: wrong.train([sae, sae], store, config), "stands there twice"),
        (lambda: wrong.train("sae", store, config), "SAE"),
        (lambda: wrong.new("top_k", x, d_sae=16, k=2), "a Tensor is no activations"),
        (lambda: wrong.new("pursuit_top_k", store, d_sae=16, k=2), "rsae.pursuit"),
        (lambda: wrong.pursuit("runs/a"), "a str is no SAE: give a loaded one"),
        (lambda: wrong.upgrade(sae, x), "a Tensor is no activations"),
        (lambda: wrong.upgrade("runs/a", store), "a str is no SAE"),
        (lambda: measures.reconstruction(sae, "x.npy"), "a str is no activations"),
        (lambda: measures.reconstruction("runs/a", x), "a str is no SAE"),
        (lambda: measures.compare_saes([sae, sae], store), "by name"),
    ]


@pytest.mark.parametrize("number", range(len(misuses())))
def test_what_stands_for_something_else_is_one_line(number):
    use, told = misuses()[number]
    with pytest.raises(rsae.InputError, match=told) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_one_config_serves_several_saes():
    store = rsae.Store.of(torch.randn(300, 8))
    saes = [rsae.new("top_k", store, seed, d_sae=16, k=2) for seed in (0, 1)]
    apart = [copy.deepcopy(sae) for sae in saes]
    config = rsae.TrainConfig(steps=5, batch=32)
    rsae.train(saes, store, config)
    rsae.train(apart, store, [config, config])
    for one, other in zip(saes, apart, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_soft_gate_with_all_latents_open_is_one_line():
    store = rsae.Store.of(torch.randn(500, 8))
    sae, config = rsae.new("top_k", store, d_sae=16, k=16), rsae.UpgradeConfig(variant="soft")
    with pytest.raises(rsae.InputError, match="k = 16 of 16 latents"):
        rsae.upgrade(sae, store, config=config)


def test_a_norm_limit_that_leaves_nothing_is_one_line(harvest_config, host, tmp_path):
    for _ in range(2):  # the same again
        with pytest.raises(rsae.InputError, match=r"no training token is left, .* norm_limit 0.1 leaves out"):
            rsae.harvest(replace(harvest_config, norm_limit=0.1), tmp_path / "store", host)
