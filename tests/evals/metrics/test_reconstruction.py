"""Reconstruction against slow references."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.metrics.reconstruction import decoder_redundancy, largest_cosines, reconstruction
from evals.results import dump
from rsae import InputError, SoftRational
from tests.evals.helpers import exact_sae
from tests.rsae.helpers import random_sae


@pytest.mark.parametrize("name", ["relu", "jump_relu", "top_k", "rational_jump_relu", "soft_rational"])
def test_reconstruction_is_its_definition(store, name):
    """Against a slow float64 reference, token by token."""
    sae = random_sae(name, store)
    got = reconstruction(sae, store)
    sae64 = sae.double()
    error, active, fired, rows = [], [], torch.zeros(sae.d_sae, dtype=torch.bool), []
    for x in torch.cat(list(store.blocks("heldout"))).double():
        z = sae64.encode(x[None])[0]
        error.append(
            sum((a - b) ** 2 for a, b in zip(sae64.decode(z[None])[0].tolist(), x.tolist(), strict=True))
        )
        active.append(sum(v != 0 for v in z.tolist()))
        fired |= z != 0
        rows.append(x)
    centred = torch.stack(rows) - torch.stack(rows).mean(0)
    assert got.mse == pytest.approx(np.mean(error), rel=1e-5)
    assert got.fvu == pytest.approx(np.mean(error) / centred.square().sum(1).mean().item(), rel=1e-5)
    assert got.r2 == pytest.approx(1 - got.fvu)
    assert got.l0 == pytest.approx(np.mean(active), abs=0.02)
    assert got.alive == pytest.approx(fired.double().mean().item(), abs=1e-9)
    assert got.tokens == len(rows)
    x_hat = torch.stack([sae64(x) for x in rows])
    pairs = [(x.numpy(), y.detach().numpy()) for x, y in zip(rows, x_hat, strict=True)]
    cosine = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
    assert got.cosine == pytest.approx(np.mean(cosine), rel=1e-5)
    assert got.l2_ratio == pytest.approx(np.mean([np.sqrt(b @ b / (a @ a)) for a, b in pairs]), rel=1e-5)
    bias = sum(b @ b for _, b in pairs) / sum(a @ b for a, b in pairs)
    assert got.relative_bias == pytest.approx(bias, rel=1e-5)
    if isinstance(sae64, SoftRational):
        dense = [sae64.decode(sae64.soft_code(sae64.pre_activations(x)))[None] for x in rows]
        soft = (torch.cat(dense) - torch.stack(rows)).square().sum(1).mean().item()
        assert got.others["soft"].mse == pytest.approx(soft, rel=1e-5)
        assert got.others["soft"].l0 == sae64.d_sae
        assert got.others["soft"].fvu / got.fvu == pytest.approx(got.others["soft"].mse / got.mse)


def test_density_counts_every_latent_once(store):
    sae = random_sae("jump_relu", store)
    got = reconstruction(sae, store)
    z = sae.encode(torch.cat(list(store.blocks("heldout"))))
    density = (z != 0).double().mean(0)
    edges = got.density.up_to
    expected = [int((density == 0).sum())]
    expected += [int(((density > a) & (density <= b)).sum()) for a, b in itertools.pairwise(edges)]
    assert got.density.latents == tuple(expected)
    assert sum(expected) == sae.d_sae


@pytest.mark.parametrize("name", ["sign_aware_gated", "abs_top_k", "gated"])
def test_bipolar_is_the_share_of_latents_that_use_both_signs(store, name):
    sae = random_sae(name, store).eval()
    z = sae.encode(torch.cat(list(store.blocks("heldout"))))
    both = ((z > 0).any(0) & (z < 0).any(0)).double().mean().item()
    got = reconstruction(sae, store, rows=64)
    assert (got.bipolar or 0.0) == both
    rarer = torch.minimum((z > 0).double().mean(0), (z < 0).double().mean(0))
    assert (got.two_way or 0.0) == (rarer > 0.1 * (z != 0).double().mean(0)).double().mean().item()
    assert (both > 0) == sae.signed


def test_decoder_redundancy_is_the_mean_largest_cosine(store):
    sae = random_sae("relu", store)
    rows = [d / np.sqrt(d @ d) for d in sae.W_dec.detach().double().numpy()]
    largest = [max(a @ b for j, b in enumerate(rows) if j != i) for i, a in enumerate(rows)]
    np.testing.assert_allclose(largest_cosines(sae.W_dec, rows=7).numpy(), largest, rtol=1e-4, atol=1e-6)
    assert reconstruction(sae, store).decoder_redundancy == pytest.approx(np.mean(largest), rel=1e-5)


@given(n=st.integers(2, 60), d=st.integers(1, 6), rows=st.integers(1, 70), seed=st.integers(0, 99))
@settings(deadline=None)
def test_each_vector_has_its_largest_cosine_whatever_the_blocks(n, d, rows, seed):
    v = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    v[n // 2] = v[0] if seed % 2 else -v[0]  # a pair as near, or as far, as can be
    cosine = torch.nn.functional.cosine_similarity(v[:, None], v[None], dim=2)
    wanted = cosine.fill_diagonal_(-torch.inf).max(1).values
    torch.testing.assert_close(largest_cosines(v, rows), wanted, rtol=1e-5, atol=1e-6)
    of_either_sign = cosine.abs().fill_diagonal_(-torch.inf).max(1).values
    torch.testing.assert_close(largest_cosines(v, rows, signed=True), of_either_sign, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_redundancy_does_not_see_the_sign_of_a_latent_that_has_two(seed):
    """A reversed row, encoder column and code: the same function."""
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(40, 8, generator=g)
    turned = v * torch.where(torch.rand(40, 1, generator=g) < 0.5, -1.0, 1.0)
    assert decoder_redundancy(turned, signed=True) == pytest.approx(decoder_redundancy(v, signed=True))
    assert decoder_redundancy(torch.cat([v, -v]), signed=True) == pytest.approx(1)
    assert decoder_redundancy(torch.cat([v, -v])) < 0.99


def test_nothing_repeats_a_single_latent():
    assert decoder_redundancy(torch.ones(1, 3)) == 0


def test_redundancy_of_a_wide_dictionary_is_estimated(monkeypatch):
    v = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    whole = decoder_redundancy(v)
    assert whole == pytest.approx(largest_cosines(v).double().mean().item())
    monkeypatch.setattr("evals.metrics.reconstruction.EXACT", 2999)
    assert decoder_redundancy(v) == pytest.approx(whole, rel=1e-6)  # 4096 are all of them
    monkeypatch.setattr("evals.metrics.reconstruction.SAMPLE", 1000)
    assert decoder_redundancy(v) == pytest.approx(whole, abs=0.01)
    assert decoder_redundancy(v) == decoder_redundancy(v)


def test_shrinkage_is_seen(store):
    got = reconstruction(exact_sae(store.d_in, error=0.25), store)
    assert got.relative_bias == pytest.approx(0.75)
    assert got.l2_ratio == pytest.approx(0.75)
    assert got.cosine == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("name", ["top_k", "soft_rational"])
def test_reconstruction_does_not_depend_on_the_batch(store, rows, name):
    sae = random_sae(name, store)
    one, other = reconstruction(sae, store), reconstruction(sae, store, rows=rows)
    assert other.density == one.density
    for a, b in ((one, other), (one.others.get("soft"), other.others.get("soft"))):
        numbers = [
            {k: v for k, v in vars(x).items() if isinstance(v, float)} for x in (a, b) if x is not None
        ]
        assert not numbers or numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def test_perfect_reconstruction(store):
    got = reconstruction(exact_sae(store.d_in), store)
    assert got.mse < 1e-12
    assert got.l0 == store.d_in


def test_figures_by_name(store):
    got = reconstruction(random_sae("relu", store), store)
    assert got["fvu"] == got.fvu
    with pytest.raises(KeyError):
        got["fuv"]


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()])
def test_a_tensor_or_an_array_is_measured_whole(store, convert):
    """One's own activations: every row counts, and the figures are those of a store with the same rows held out."""
    sae = random_sae("top_k", store).eval()
    x = torch.cat(list(store.blocks("heldout")))
    assert reconstruction(sae, convert(x)).fvu == pytest.approx(reconstruction(sae, store).fvu)
    assert reconstruction(sae, convert(x)).tokens == len(x)
    for shape in ((2, -1, x.shape[1]), (-1, 2, 2, x.shape[1])):
        even = x[: len(x) // 4 * 4]
        assert reconstruction(sae, convert(even.reshape(shape))) == reconstruction(sae, convert(even))


@pytest.mark.parametrize("rows", [torch.full((50, 12), 0.1), torch.randn(1, 12), torch.zeros(9, 12)])
def test_what_does_not_vary_has_no_fvu(rows):
    with pytest.raises(InputError, match="all alike|all zero"):
        reconstruction(random_sae("top_k"), rows)


def test_a_token_of_zeros_has_no_direction():
    """Padding: it counts in the error and in l0, and its cosine and ratio of norms are not defined."""
    sae, x = random_sae("relu").eval(), torch.randn(60, 12)
    whole, padded = reconstruction(sae, x), reconstruction(sae, torch.cat([x, torch.zeros(20, 12)]))
    assert (padded.cosine, padded.l2_ratio) == pytest.approx((whole.cosine, whole.l2_ratio))
    assert padded.tokens == 80


def test_a_dead_sae_has_figures():
    sae = random_sae("jump_relu").eval()
    sae.W_enc.data.zero_()
    sae.encoder_bias.data.fill_(-1)
    found = reconstruction(sae, torch.randn(60, 12))
    assert (found.l0, found.alive) == (0, 0)
    assert found.fvu >= 1 - 1e-9
    json.dumps(dump(found), allow_nan=False)  # every figure is a number
