"""The sparse kernels of a GPU beside what torch gives in float64; Triton's interpreter runs them without one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rsae
from rsae.sae import sparse_cuda
from rsae.sae.sparse import Pattern, decode_at, products_at

pytest.importorskip("triton", reason="there is no Triton for this platform")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def problem(B, F, D, share, seed):
    """Places with bags that are empty, and some that are longer than what a program reads at once; vectors."""
    generator = torch.Generator().manual_seed(seed)
    mask_BF = torch.rand(B, F, generator=generator) < share * torch.rand(B, 1, generator=generator).round()
    row_N, latent_N = mask_BF.to(DEVICE).nonzero(as_tuple=True)
    pattern = Pattern.of_places(row_N, latent_N, mask_BF.shape)
    x_BD, W_FD = torch.randn(B, D, generator=generator), torch.randn(F, D, generator=generator)
    z_N = torch.randn(len(pattern.latent_N), generator=generator)
    return pattern, z_N.to(DEVICE), x_BD.to(DEVICE), W_FD.to(DEVICE)


PROBLEMS = given(
    st.integers(1, 6), st.integers(1, 40), st.integers(1, 150), st.floats(0, 1), st.integers(0, 99)
)


@PROBLEMS
@settings(max_examples=8)
def test_bags_are_matrix_products(B, F, D, share, seed):
    pattern, z_N, x_BD, W_FD = problem(B, F, D, share, seed)
    z_BF = pattern.scatter(z_N.double())
    got = sparse_cuda.bag(pattern.latent_N, W_FD, pattern.start_B1, z_N)
    torch.testing.assert_close(got.double(), z_BF @ W_FD.double(), rtol=1e-5, atol=1e-5)
    order_N, start_F1 = pattern.by_latent
    got = sparse_cuda.bag(pattern.row_N[order_N], x_BD, start_F1, z_N[order_N])
    torch.testing.assert_close(got.double(), z_BF.T @ x_BD.double(), rtol=1e-5, atol=1e-5)


@PROBLEMS
@settings(max_examples=8)
def test_products_at_places_are_those_of_the_full_matrix(B, F, D, share, seed):
    pattern, _, x_BD, W_FD = problem(B, F, D, share, seed)
    got = sparse_cuda.products(x_BD, W_FD, pattern.row_N, pattern.latent_N)
    want = pattern.gather(x_BD.double() @ W_FD.double().T)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_rows_may_lie_in_any_order_in_memory():
    pattern, z_N, x_BD, W_FD = problem(4, 20, 30, 1.0, 0)
    crossed_FD = W_FD.T.contiguous().T
    bag, other = (sparse_cuda.bag(pattern.latent_N, W, pattern.start_B1, z_N) for W in (W_FD, crossed_FD))
    assert torch.equal(bag, other)
    found = [sparse_cuda.products(x_BD, W, pattern.row_N, pattern.latent_N) for W in (W_FD, crossed_FD)]
    assert torch.equal(*found)


def test_gradients_through_the_kernels_are_torchs(monkeypatch):
    """Decode, and products of activations with a dictionary, forward and backward."""
    pattern, z_N, x_BD, W_FD = problem(5, 100, 20, 0.1, 1)
    assert not pattern.dense
    inputs = [t.requires_grad_() for t in (z_N, x_BD, W_FD)]

    def made():
        out_BD = decode_at(z_N, W_FD, None, pattern)
        out_N = products_at(x_BD, W_FD, pattern)
        loss = (out_BD * x_BD.detach()).sum() + (out_N * z_N.detach()).square().sum()
        return out_BD, out_N, *torch.autograd.grad(loss, inputs)

    monkeypatch.setattr(sparse_cuda, "available", lambda x: False)
    want = made()
    calls = []
    monkeypatch.setattr(sparse_cuda, "available", lambda x: calls.append(x) or True)
    got = made()
    assert len(calls) == 6  # two products forward, two gradients of each
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles of a small matrix: the interpreter is slow."""
    monkeypatch.setattr(sparse_cuda, "_LATENTS", 16)
    monkeypatch.setattr(sparse_cuda, "_INNER", 16)


def test_a_training_step_by_the_kernels_is_torchs(monkeypatch, small_tiles):
    torch.manual_seed(0)
    x_BD = torch.randn(6, 20)
    sae = rsae.TopK(20, 50, 2)
    sae.initialise(x_BD)
    sae, x_BD = sae.to(DEVICE), x_BD.to(DEVICE)

    def gradients():
        sae.zero_grad()
        sae.loss(x_BD).total.backward()
        return [p.grad.clone() for p in sae.parameters() if p.grad is not None]

    monkeypatch.setattr(sparse_cuda, "available", lambda x: False)
    want = gradients()
    monkeypatch.setattr(sparse_cuda, "available", lambda x: True)
    assert sae.entries(x_BD).h_BF is not None
    torch.testing.assert_close(gradients(), want, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(sparse_cuda, "LARGE", 0)
    assert sae.entries(x_BD).h_BF is None
    torch.testing.assert_close(gradients(), want, rtol=1e-5, atol=1e-5)
    assert rsae.pursuit(sae).entries(x_BD).h_BF is not None  # which it reads


@pytest.mark.parametrize(("B", "F", "D", "k"), [(3, 40, 20, 5), (17, 16, 3, 16), (2, 50, 16, 1)])
@pytest.mark.parametrize("shift", [0.0, -100.0], ids=["", "all-negative"])
def test_the_largest_of_tiles_are_those_of_the_whole_matrix(small_tiles, B, F, D, k, shift):
    torch.manual_seed(0)
    x_BD, W_FD, b_F = (t.to(DEVICE) for t in (torch.randn(B, D), torch.randn(F, D), torch.randn(F) + shift))
    h_BK, latent_BK = sparse_cuda.largest(x_BD, W_FD, b_F, k)
    assert all(len(set(row)) == k for row in latent_BK.tolist())
    h_BF = x_BD.double() @ W_FD.double().T + b_F
    torch.testing.assert_close(h_BK.double(), h_BF.gather(1, latent_BK), rtol=1e-5, atol=1e-4)
    want_BK = h_BF.topk(k).values.sort(1).values
    torch.testing.assert_close(h_BK.double().sort(1).values, want_BK, rtol=1e-5, atol=1e-4)
