"""Orthogonal matching pursuit against scikit-learn's; what is shuffled; what is made of an SAE alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp

import rsae
from evals.stand_ins import STAND_INS, MatchingPursuit, orthogonal_matching_pursuit, stand_in, wrap
from tests.rsae.helpers import random_sae


def dictionary(seed: int, rows: int, d_in: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, d_in, generator=generator), dim=1)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_omp_is_scikit_learns(seed, k):
    unit_FD = dictionary(seed, 24, 10)
    y_BD = torch.randn(5, 10, generator=torch.Generator().manual_seed(seed + 1))
    got = orthogonal_matching_pursuit(y_BD, unit_FD, torch.full((5,), k))
    theirs = orthogonal_mp(unit_FD.T.double().numpy(), y_BD.T.double().numpy(), n_nonzero_coefs=k)
    theirs = np.reshape(theirs, (24, 5)).T
    np.testing.assert_allclose(got.numpy(), theirs, rtol=1e-3, atol=1e-4)


def test_each_token_has_its_own_number_of_latents():
    unit_FD = dictionary(0, 30, 12)
    y_BD = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    y_BD[4] = 0
    count_B = torch.tensor([0, 1, 3, 7, 5, 12])
    got = orthogonal_matching_pursuit(y_BD, unit_FD, count_B)
    assert (got != 0).sum(1).tolist() == [0, 1, 3, 7, 0, 12]
    alone = [orthogonal_matching_pursuit(y_BD[i : i + 1], unit_FD, count_B[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(got, torch.cat(alone))
    for row in (1, 2, 3, 5):  # least squares on what is chosen: the rest is orthogonal to it
        left = y_BD[row] - got[row] @ unit_FD
        assert (unit_FD[got[row] != 0] @ left).abs().max() < 1e-4


def test_a_dictionary_with_equal_rows():
    unit_FD = dictionary(2, 8, 6)
    unit_FD[1] = unit_FD[0]
    unit_FD[2] = -unit_FD[0]
    y_BD = unit_FD[:1] * 3 + 0.1 * unit_FD[5:6]
    got = orthogonal_matching_pursuit(y_BD, unit_FD, torch.tensor([2]))
    torch.testing.assert_close(got @ unit_FD, y_BD, rtol=1e-4, atol=1e-4)
    assert got.isfinite().all()


@pytest.mark.parametrize("name", ["top_k", "jump_relu", "gated", "sign_aware_gated"])
def test_the_ceiling_has_the_sae_own_l0_and_is_no_worse_than_least_squares(store, name):
    sae = random_sae(name, store)
    with torch.no_grad():
        sae.W_dec *= torch.linspace(0.5, 2, sae.d_sae)[:, None]  # rows of any norm
    x = store.sample(200)
    ceiling = MatchingPursuit(sae)
    with torch.no_grad():
        plain, z = sae.encode(x), ceiling.encode(x)
        assert ((z != 0).sum(1) <= (plain != 0).sum(1)).all()
        assert ((z != 0).sum(1) == (plain != 0).sum(1)).double().mean() > 0.9
        error = (ceiling.decode(z, x) - x).square().sum(1)
    for row in range(0, 200, 17):  # the first latent is the best single one
        if (plain[row] != 0).sum() == 1:
            centred = x[row] - sae.b_dec
            unit = torch.nn.functional.normalize(sae.W_dec, dim=1)
            best = centred.square().sum() - (unit @ centred).square().max()
            assert error[row].item() == pytest.approx(best.item(), rel=1e-3)
    pursued = MatchingPursuit(rsae.pursuit(sae))
    torch.testing.assert_close(pursued.encode(x), z)


def test_what_is_made_of_an_sae_alone(store):
    sae = random_sae("top_k", store)
    assert wrap("pca", sae) is None
    shuffled, ceiling = wrap("shuffled", sae, 3), wrap("omp", sae)
    assert shuffled is not None
    assert ceiling is not None
    x = store.sample(300)
    with torch.no_grad():
        z, moved = sae.encode(x), shuffled.encode(x)
    torch.testing.assert_close(z.sort(0).values, moved.sort(0).values)
    for name in STAND_INS:
        made = stand_in(name, sae, store, 5.0, 3, 0)
        with torch.no_grad():
            assert made.decode(made.encode(x), x).shape == x.shape
