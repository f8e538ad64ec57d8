"""Jacobians against whole ones that autograd makes, and where they are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import evals
import rsae
from rsae import InputError
from rsae.activations.hooks import HookPoint, mlp_of

IN, OUT = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def pairs(harvest_config, host, tmp_path_factory):
    config = replace(harvest_config, hook=IN, target=OUT)
    return rsae.harvest(config, tmp_path_factory.mktemp("pairs"), host)


def mlp(host):
    return mlp_of(host, HookPoint.parse(IN, host), HookPoint.parse(OUT, host))


def test_the_function_of_the_mlp_gives_the_target(host, pairs):
    x = torch.cat([*pairs.blocks("heldout")])
    y = torch.cat([*pairs.target.blocks("heldout")])
    with torch.no_grad():
        torch.testing.assert_close(mlp(host)(x), y, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["top_k", "jump_relu", "gated"])
@pytest.mark.parametrize("skip", [False, True])
def test_with_all_directions_they_are_those_of_whole_jacobians(host, pairs, family, skip):
    """torch.autograd.functional.jacobian, a token at a time."""
    own: dict[str, Any] = {"k": 4} if family == "top_k" else {}
    sae = rsae.new(family, pairs, d_sae=48, skip=skip, **own)
    got = evals.jacobians(sae, host, pairs, tokens=12, vectors=1000)
    assert got.tokens == 12
    x = pairs.sample(12, 0, "heldout")
    J = torch.stack(
        [torch.autograd.functional.jacobian(lambda r: sae(r[None])[0], row) for row in x]
    ).double()
    K = torch.stack([torch.autograd.functional.jacobian(lambda r: mlp(host)(r[None])[0], row) for row in x])
    K = K.double()
    cosine = [(a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-300) for a, b in zip(J, K, strict=True)]
    assert got.cosine == pytest.approx(torch.stack(cosine).mean().item(), abs=1e-4)
    assert got.norm_ratio == pytest.approx((J.norm() / K.norm()).item(), rel=1e-4)
    J, K_0 = J - J.mean(0), K - K.mean(0)
    assert got.varying_cosine == pytest.approx(((J * K_0).sum() / (J.norm() * K_0.norm())).item(), abs=1e-4)
    assert got.varying_share == pytest.approx((K_0.norm() / K.norm()).square().item(), rel=1e-4)


def test_a_linear_map_that_is_the_mean_jacobian(host, pairs):
    """A skip connection alone: nothing varies, and its cosine is that of one matrix with each token's own."""
    sae = rsae.new("relu", pairs, d_sae=48, skip=True)
    x = pairs.sample(16, 0, "heldout")
    K = torch.stack([torch.autograd.functional.jacobian(lambda r: mlp(host)(r[None])[0], row) for row in x])
    assert sae.W_skip is not None
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.W_skip.copy_(K.mean(0))
    got = evals.jacobians(sae, host, pairs, tokens=16, vectors=32)
    assert got.varying_cosine == pytest.approx(0.0, abs=1e-6)
    want = [torch.cosine_similarity(K.mean(0).flatten(), k.flatten(), 0) for k in K]
    assert got.cosine == pytest.approx(torch.stack(want).mean().item(), abs=1e-4)


def test_fewer_directions_estimate_the_same(host, pairs):
    sae = rsae.new("top_k", pairs, d_sae=48, k=8, skip=True)
    exact = evals.jacobians(sae, host, pairs, tokens=64, vectors=32)
    few = [evals.jacobians(sae, host, pairs, tokens=64, vectors=12, seed=seed) for seed in range(4)]
    assert sum(one.cosine for one in few) / 4 == pytest.approx(exact.cosine, abs=0.05)
    assert sum(one.norm_ratio for one in few) / 4 == pytest.approx(exact.norm_ratio, rel=0.1)


def test_what_is_no_transcoder_of_an_mlp_is_refused(host, pairs, store):
    with pytest.raises(InputError, match="no transcoder"):
        evals.jacobians(rsae.new("top_k", store, d_sae=48, k=4), host, store)
    points = [
        HookPoint.parse(name, host) for name in (IN, "blocks.2.hook_mlp_out", "blocks.1.hook_resid_mid")
    ]
    for point, target in ((points[0], points[1]), (points[2], points[1]), (points[1], points[0])):
        with pytest.raises(InputError, match="is no MLP"):
            mlp_of(host, point, target)
