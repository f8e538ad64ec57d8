"""Scores of SAEs that are known to be right or wrong, and of random ones against a slow reference."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import World, ground_truth
from evals.metrics.ground_truth import CARRIES, match
from rsae import InputError, ReLU, TopK
from tests.rsae.helpers import random_sae


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000))
def test_the_match_is_the_best_of_all(rows, columns, seed):
    score = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    row_G = match(torch.tensor(score)).numpy()
    matched = row_G >= 0
    assert len(set(row_G[matched])) == matched.sum() == min(rows, columns)
    got = score[row_G[matched], np.flatnonzero(matched)].sum()
    if rows >= columns:
        best = max(sum(score[r, g] for g, r in enumerate(p)) for p in permutations(range(rows), columns))
    else:
        best = max(sum(score[r, g] for r, g in enumerate(p)) for p in permutations(range(columns), rows))
    assert got == pytest.approx(best, rel=1e-5, abs=1e-5)


class Oracle(ReLU):
    """Its code is given: that of the world's own features."""

    def __init__(self, W_FD: torch.Tensor, code, signed: bool = False):
        super().__init__(W_FD.shape[1], len(W_FD))
        self.W_dec.data, self.code, self.signed, self.seen = W_FD.clone(), code, signed, 0

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        start = self.seen % len(self.code)  # the samples are read more than once
        self.seen += len(x_BD)
        return self.code[start : start + len(x_BD)]


@pytest.fixture(scope="module")
def world():
    return World(features=32, d_in=16, seed=0)


@pytest.fixture(scope="module")
def coefficients(world):
    return world.coefficients(4000, seed=1)


def test_the_truth_is_found_whole(world, coefficients):
    got = ground_truth(Oracle(world.W_GD, coefficients), world, 4000)
    assert got.precision == got.recall == got.f1 == 1
    assert got.mcc == pytest.approx(1)
    assert got.uniqueness == pytest.approx(
        (32 - 2) / 32
    )  # the poles of 2 pairs have one direction, up to the sign
    assert got.split == got.absorbed == got.absorption == 0
    assert got.l0 == got.true_l0
    assert got.explained_variance > 0.99
    assert sum(band.features for band in got.bands) == 32
    assert all(band.f1 == 1 for band in got.bands)


def test_a_signed_latent_detects_both_poles(world, coefficients):
    first = [g for g, other in enumerate(world.opposite_G.tolist()) if other > g]
    second = world.opposite_G[first]
    kept = [g for g in range(32) if g not in second.tolist()]
    z = coefficients.clone()
    z[:, first] -= coefficients[:, second]
    got = ground_truth(Oracle(world.W_GD[kept], z[:, kept], signed=True), world, 4000)
    assert got.f1 == 1
    assert got.uniqueness == 1
    one_sided = ground_truth(Oracle(world.W_GD[kept], coefficients[:, kept]), world, 4000)
    assert one_sided.recall == pytest.approx(30 / 32)


@pytest.mark.parametrize("first", [True, False])
def test_latents_that_never_fire_detect_nothing(world, coefficients, first):
    """Though their rows are the features': wherever they stand, the others are the detectors."""
    dead = torch.zeros_like(coefficients)
    W, z = torch.cat([world.W_GD, world.W_GD]), torch.cat([dead, coefficients][:: 1 if first else -1], dim=1)
    W[32 if first else 0 :][:32] += 0.1 * torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    got = ground_truth(Oracle(W, z), world, 4000)
    assert got.recall == 1
    assert got.alive == 0.5
    none = ground_truth(Oracle(world.W_GD, dead), world, 4000)
    assert (none.f1, none.recall, none.alive) == (0, 0, 0)


def test_a_split_feature(world, coefficients):
    """Two latents share the first feature's samples, by chance."""
    half = torch.rand(4000) < 0.5
    z = torch.cat([coefficients, coefficients[:, :1] * half[:, None]], dim=1)
    z[:, 0] *= ~half
    got = ground_truth(Oracle(torch.cat([world.W_GD, world.W_GD[:1]]), z), world, 4000)
    assert got.split == pytest.approx(1 / 32)
    assert got.recall_G[0] == pytest.approx(0.5, abs=0.05)
    assert got.precision_G[0] == 1
    assert all(r == 1 for r in got.recall_G[1:])


def test_an_absorbed_parent(world, coefficients):
    """The parent's latent is silent where a child is active, whose row holds the parent's direction, too."""
    child = int((world.parent_G >= 0).nonzero()[0])
    parent = int(world.parent_G[child])
    W, z = world.W_GD.clone(), coefficients.clone()
    z[coefficients[:, child] > 0, parent] = 0
    assert W[child] @ W[parent] < CARRIES
    missing = ground_truth(Oracle(W, z), world, 4000)
    W[child] = torch.nn.functional.normalize(W[child] + 0.5 * W[parent], dim=0)
    got = ground_truth(Oracle(W, z), world, 4000)
    children = int((world.parent_G >= 0).sum())
    assert missing.recall_G[parent] < 1
    assert got.absorption == pytest.approx(1 / children)
    assert got.absorbed == pytest.approx(1 / len(set(world.parent_G[world.parent_G >= 0].tolist())))
    assert (
        missing.absorption == missing.absorbed == 0
    )  # a silent latent that nothing stands in for is not absorbed
    assert got.recall_G[child] == 1


@pytest.mark.parametrize("name", ["relu", "top_k", "sign_aware_gated", "abs_top_k", "soft_rational"])
def test_scores_are_their_definitions(name, world):
    """Against loops over features and samples, on the matches that the definition names."""
    sae = random_sae(name, d_in=16, d_sae=24).eval()
    x, active = world.sample(500, seed=9)
    got = ground_truth(sae, world, 500, seed=9)
    z = sae.encode(x).detach()
    rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    halves = [(f, s) for s in ((1, -1) if sae.signed else (0,)) for f in range(24)]
    cosine = torch.tensor([[float((s or 1) * rows[f] @ w) for w in world.W_GD] for f, s in halves])
    fires_H = [bool((z[:, f] != 0 if s == 0 else s * z[:, f] > 0).any()) for f, s in halves]
    living = [h for h, fires in enumerate(fires_H) if fires]
    detector = [living[row] if row >= 0 else -1 for row in match(cosine[living]).tolist()]
    f1 = []
    for g in range(32):
        if detector[g] < 0:
            assert got.precision_G[g] == got.recall_G[g] == got.f1_G[g] == 0
            f1.append(0.0)
            continue
        f, s = halves[int(detector[g])]
        fires = [bool(v != 0 if s == 0 else s * v > 0) for v in z[:, f]]
        both = sum(a and bool(b) for a, b in zip(fires, active[:, g], strict=True))
        precision, recall = both / max(1, sum(fires)), both / max(1, int(active[:, g].sum()))
        assert got.precision_G[g] == pytest.approx(precision)
        assert got.recall_G[g] == pytest.approx(recall)
        f1.append(2 * precision * recall / (precision + recall) if both else 0.0)
    assert got.f1 == pytest.approx(np.mean(f1))
    assert got.f1_G == pytest.approx(f1)
    absolute = (rows @ world.W_GD.T).abs()
    best = match(absolute)
    pairs = [float(absolute[r, g]) for g, r in enumerate(best.tolist()) if r >= 0]
    assert len(pairs) == 24
    assert got.mcc == pytest.approx(np.mean(pairs), rel=1e-5)
    alive = [f for f in range(24) if bool((z[:, f] != 0).any())]
    assert got.alive == pytest.approx(len(alive) / 24)
    assert got.uniqueness == pytest.approx(len({int(absolute[f].argmax()) for f in alive}) / 24)
    error = (sae.decode(z, x).detach() - x).double().square().sum()
    variance = (x - x.mean(0)).double().square().sum()
    assert got.explained_variance == pytest.approx(1 - (error / variance).item(), rel=1e-4)
    assert got.l0 == pytest.approx((z != 0).double().sum(1).mean().item())
    weights = [band.features for band in got.bands]
    assert np.average([band.f1 for band in got.bands], weights=weights) == pytest.approx(got.f1)


def test_another_width_is_refused(world):
    with pytest.raises(InputError, match="8 dimensions"):
        ground_truth(TopK(8, 16, 2), world)
