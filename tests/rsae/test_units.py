"""Training does not feel where the activations' origin lies, however far their mean is from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rsae
from rsae import TrainConfig, UpgradeConfig
from rsae.activations.units import Units, units_of
from rsae.sae import FAMILIES, Gated
from rsae.sae.input_norm import InputNorm
from rsae.sae.units import entered, left, move_, units_for
from tests.rsae.helpers import random_sae

D = 12
TEACHERS = sorted(name for name, cls in FAMILIES.items() if not cls.rational)


def features(rows: int = 3000) -> torch.Tensor:
    """Sparse sums of 40 directions, mean and all."""
    g = torch.Generator().manual_seed(0)
    code = torch.rand(rows, 40, generator=g) * (torch.rand(rows, 40, generator=g) < 0.06)
    x_ND = code @ torch.nn.functional.normalize(torch.randn(40, D, generator=g), dim=1)
    return x_ND - x_ND.mean(0)


def fvu(sae: rsae.SAE, x_ND: torch.Tensor) -> float:
    with torch.no_grad():
        return ((sae(x_ND) - x_ND).square().sum() / (x_ND - x_ND.mean(0)).square().sum()).item()


def moved(sae: rsae.SAE, by_D: torch.Tensor) -> rsae.SAE:
    """The same function of activations whose origin lies elsewhere."""
    other = sae.in_units(1.0)
    move_(other, -by_D, None)
    return other.eval()


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.booleans(),
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.integers(0, 99),
)
def test_an_sae_in_the_units_of_training_is_the_same_function(name, subtracts, size, scale, seed):
    sae = random_sae(name, seed=seed).eval().double()
    sae.subtract_b_dec = subtracts
    origin_D = 10.0**size * torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x_BD = torch.randn(20, D, dtype=torch.float64) + 1
    here, _ = units_for(sae, rsae.Store.of((x_BD + 100).float(), heldout=2))
    two_scales = isinstance(sae, Gated) and len(sae.r_mag.flatten()) > sae.d_sae
    assert (here.origin_D is None) == (two_scales and not subtracts)
    units = Units(origin_D if here.origin_D is not None else None, 10.0**scale)
    inside = entered(sae, units, units).double()
    back = left(entered(sae, units, units), units, units).double()
    near = 1e-5 * (1 + 10.0**size)
    torch.testing.assert_close(units.undone(inside(units.of(x_BD))), sae(x_BD), rtol=1e-3, atol=near)
    torch.testing.assert_close(back(x_BD), sae(x_BD), rtol=1e-3, atol=near)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_has_two_origins(skip):
    x_ND, found = features(), []
    for far in (0, 1):
        own = rsae.Store.of(x_ND + 50 * far, heldout=300, target=x_ND[:, :7] - 20 * far)
        sae = rsae.new("top_k", own, d_sae=30, skip=skip, k=4)
        here, there = units_for(sae, own)
        assert (here.origin_D is None, there.origin_D is None) == (not far, not far)
        inside = entered(sae, here, there)
        x_BD = x_ND[-300:] + 50 * far
        torch.testing.assert_close(there.undone(inside(here.of(x_BD))), sae(x_BD), rtol=1e-3, atol=1e-3)
        rsae.train(sae, own, TrainConfig(steps=200, batch=256))
        found.append((sae(x_BD) - x_ND[-300:, :7] + 20 * far).square().sum().item())
    assert found[1] == pytest.approx(found[0], rel=0.1, abs=1e-3)
    assert found[0] < 0.8 * x_ND[-300:, :7].square().sum().item()


@pytest.mark.parametrize("subtracts", [True, False], ids=["subtracts", "plain"])
@pytest.mark.parametrize("name", TEACHERS)
def test_training_does_not_feel_a_far_mean(name, subtracts):
    """A teacher that is the same function about each origin goes to the same function, by upgrade and control."""
    if name == "sign_aware_gated" and not subtracts:
        pytest.skip("its two magnitudes have one bias: it stays about 0")
    x_ND, mean_D = features(), torch.linspace(-1, 1, D)
    teacher = random_sae(name, rsae.Store.of(x_ND + 3 * mean_D)).eval()
    teacher.subtract_b_dec, teacher.trained = subtracts, None
    rsae.train(teacher, rsae.Store.of(x_ND + 3 * mean_D), TrainConfig(steps=100, batch=256))
    teacher = moved(teacher, -3 * mean_D)
    found = []
    for size in (10.0, 300.0):
        own = rsae.Store.of(x_ND + size * mean_D, heldout=500)
        assert units_of(own).origin_D is not None
        config = UpgradeConfig(type=(3, 2), tune=TrainConfig(steps=60, batch=256), calibration_tokens=512)
        new = rsae.upgrade(moved(teacher, size * mean_D), own, config=config, allow_mismatch=True)
        assert new.control is not None
        held = x_ND[-500:] + size * mean_D
        found.append([fvu(s, held) for s in (new.initial, new.control, new.tuned)])
    assert found[1] == pytest.approx(found[0], rel=0.03)


@pytest.mark.parametrize(
    ("name", "wanted"), [("jump_relu", {"l0": 3.0}), ("top_k", {}), ("gated", {"l0": 3.0})]
)
def test_a_fresh_sae_learns_beside_a_far_mean(name, wanted):
    x_ND, found = features(), []
    for size in (0.0, 30.0):
        own = rsae.Store.of(x_ND + size, heldout=500)
        k: dict[str, Any] = {"k": 3} if name == "top_k" else {}
        sae = rsae.new(name, own, d_sae=48, **k)
        rsae.train(sae, own, TrainConfig(steps=300, batch=256, **wanted))
        found.append(fvu(sae, x_ND[-500:] + size))
    assert found[1] < 1.15 * found[0] < 0.6


def test_ordinary_activations_keep_their_origin(store):
    assert units_of(store) == Units(None, store.scale)
    x_ND = features()
    spread = x_ND.norm(dim=1).square().mean().sqrt()
    for size, centred in ((1.9, False), (2.1, True)):
        far_D = size * spread * torch.nn.functional.normalize(torch.ones(D), dim=0)
        units = Units.measured(x_ND + far_D, 1.0)
        assert (units.origin_D is not None) == centred
        if centred:
            assert units.of(x_ND + far_D).norm(dim=1).mean().item() == pytest.approx(D**0.5, rel=1e-4)
    assert Units.measured(torch.ones(5, D), 2.0) == Units(None, 2.0)  # what does not vary has no spread


def test_saes_in_one_pass_see_their_own_units():
    """One that normalises tokens stays about 0, beside one whose reading and target have other origins."""
    x_ND = features()
    own = rsae.Store.of(x_ND + 1, heldout=300, target=x_ND[:, :7] - 20)

    def made(which: int) -> rsae.SAE:
        sae = rsae.new("top_k", own, seed=which, d_sae=30, k=4)
        sae.input_norm = InputNorm("layer_norm") if which else None
        return sae

    config = TrainConfig(steps=60, batch=256)
    alone = [made(0), made(1)]
    for sae in alone:
        rsae.train(sae, own, config)
    together = [made(0), made(1)]
    rsae.train(together, own, config)
    for one, other in zip(alone, together, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
