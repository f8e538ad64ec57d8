"""A world of known features: frequencies, hierarchy, signed pairs, correlations, as the module says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rsae
from evals import World
from evals.world import EXPONENT, FREQUENCY, NOISE
from rsae import InputError
from rsae.support.seeds import LARGEST

N = 20_000


@pytest.fixture(scope="module")
def world() -> World:
    return World(features=64, d_in=16, seed=3)


@pytest.fixture(scope="module")
def drawn(world):
    return world.sample(N, seed=5)


@settings(max_examples=15, deadline=None)
@given(st.integers(16, 200), st.integers(2, 40), st.integers(0, 1000))
def test_its_parts_are_what_they_are_called(features, d_in, seed):
    world = World(features, d_in, seed)
    assert world.W_GD.shape == (features, d_in)
    torch.testing.assert_close(world.W_GD.norm(dim=1), torch.ones(features))
    for child, parent in enumerate(world.parent_G.tolist()):
        assert parent < child  # and so more frequent
        assert parent < 0 or world.parent_G[parent] < 0
    for pole, other in enumerate(world.opposite_G.tolist()):
        if other >= 0:
            assert world.opposite_G[other] == pole
            assert world.parent_G[pole] < 0
            torch.testing.assert_close(world.W_GD[other], -world.W_GD[pole])


@settings(max_examples=10, deadline=None)
@given(st.integers(-LARGEST, LARGEST))
def test_any_seed_has_its_samples(seed):
    own = World(16, 4, seed).activations(heldout=8)
    assert own.batch(10**5, 8, seed).shape == (8, 4)
    assert own.sample(8, seed).shape == (8, 4)
    with pytest.raises(InputError, match="seed"):
        World(16, 4, LARGEST + 1)


def test_frequencies_are_zipfs(world, drawn):
    _, active_BG = drawn
    wanted = FREQUENCY * np.arange(1, 65) ** -EXPONENT
    np.testing.assert_allclose(world.frequency_G.numpy(), wanted)
    error = np.sqrt(wanted * (1 - wanted) / N)
    assert (np.abs(active_BG.double().mean(0).numpy() - wanted) < 5 * error).all()


def test_children_are_active_only_with_their_parents(world, drawn):
    _, active_BG = drawn
    children = (world.parent_G >= 0).nonzero().squeeze(1)
    assert len(children) == 16
    assert not (active_BG[:, children] & ~active_BG[:, world.parent_G[children]]).any()


def test_poles_are_never_active_together(world, drawn):
    _, active_BG = drawn
    poles = (world.opposite_G >= 0).nonzero().squeeze(1)
    assert len(poles) == 8
    assert not (active_BG[:, poles] & active_BG[:, world.opposite_G[poles]]).any()


def test_others_are_correlated_in_either_direction(world, drawn):
    _, active_BG = drawn
    free = ((world.parent_G < 0) & (world.opposite_G < 0)).nonzero().squeeze(1)
    correlation = np.corrcoef(active_BG[:, free].double().numpy().T)[np.triu_indices(len(free), 1)]
    by_chance = 1 / np.sqrt(N)
    assert (correlation > 6 * by_chance).mean() > 0.1
    assert (correlation < -6 * by_chance).mean() > 0.05


def test_an_activation_is_the_sum_of_its_features(world, drawn):
    x_BD, active_BG = drawn
    a_BG = world.coefficients(N, seed=5)
    assert torch.equal(a_BG > 0, active_BG)
    noise_BD = x_BD - a_BG @ world.W_GD
    assert noise_BD.std().item() == pytest.approx(NOISE, rel=0.02)
    on = a_BG[active_BG]
    assert on.min() >= 0.1
    assert on.mean().item() == pytest.approx(1, abs=0.02)


def test_samples_depend_on_both_seeds_and_on_nothing_else(world, drawn):
    again = World(features=64, d_in=16, seed=3).sample(N, seed=5)
    assert torch.equal(again[0], drawn[0])
    assert torch.equal(world.sample(100, seed=5)[0], drawn[0][:100])
    assert not torch.equal(world.sample(100, seed=6)[0], drawn[0][:100])
    assert not torch.equal(World(64, 16, seed=4).sample(100, seed=5)[0], drawn[0][:100])


def test_it_can_be_trained_on(world):
    activations = world.activations(tokens=4096, heldout=1500)
    assert torch.equal(activations.batch(3, 64, 0), activations.batch(3, 64, 0))
    assert not torch.equal(activations.batch(3, 64, 0), activations.batch(4, 64, 0))
    assert sum(map(len, activations.blocks("heldout", 700))) == 1500
    mean = activations.batch(0, 4096, 1).norm(dim=1).mean().item()
    assert activations.scale * mean == pytest.approx(4, rel=0.05)
    sae = rsae.new("top_k", activations, d_sae=64, k=4)
    before = ((sae(activations.sample(500)) - activations.sample(500)) ** 2).mean().item()
    rsae.train(sae, activations, rsae.TrainConfig(steps=60, batch=256, lr=3e-3))
    after = ((sae(activations.sample(500)) - activations.sample(500)) ** 2).mean().item()
    assert after < before


def test_too_small_a_world():
    with pytest.raises(InputError, match="16 and 2 at least"):
        World(features=8)
