"""The pursuit of any family: no more latents, no larger error, the same function as an independent one in numpy."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rsae
from rsae import InputError, PursuitSAE, TrainConfig
from rsae.sae import FAMILIES, family, pursuit_cpu, pursuit_cuda
from rsae.sae.records import Trained
from rsae.upgrading.decide import decide, fit_of
from tests.rsae.helpers import random_sae

D, F = 12, 40


def given_sae(name: str, spread: float = 0.0, seed: int = 0) -> rsae.SAE:
    """A random SAE, decoder rows of norms exp(+-spread)."""
    sae = random_sae(name, seed=seed).eval()
    with torch.no_grad():
        sae.W_dec *= torch.exp(spread * torch.randn(F, 1))
    return sae


def error(sae: rsae.SAE, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (sae.decode(z, x) - x).square().sum(-1)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@given(
    seed=st.integers(0, 10**6),
    rounds=st.integers(0, 3),
    steps=st.integers(1, 4),
    candidates=st.sampled_from([None, 8, 20, 200]),
    spread=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_each_token_keeps_its_l0_and_never_loses(name, seed, rounds, steps, candidates, spread):
    sae = given_sae(name, spread, seed % 7)
    x = torch.randn(30, D, generator=torch.Generator().manual_seed(seed)) * 2
    pursued = rsae.pursuit(sae, rounds, steps, candidates)
    plain, z = sae.encode(x), pursued.encode(x)
    assert torch.equal(pursued.plain_encode(x), plain)
    assert ((z != 0).sum(1) <= (plain != 0).sum(1)).all()
    assert (error(sae, x, z) <= error(sae, x, plain) * (1 + 1e-4) + 1e-5).all()
    if not sae.signed:
        # only a rational magnitude can give a plain code of the wrong sign
        assert (z >= plain.clamp_max(0) * (1 + 1e-5) - 1e-6).all()


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("compiled", [True, False])
@given(power=st.integers(-40, 40), seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
@torch.no_grad()
def test_the_unit_of_the_activations_does_not_matter(name, compiled, power, seed):
    """A power of two scales float32 exactly: squares of activations of 1e-6 had been taken for zeros."""
    sae, c = given_sae(name, 1.0, seed), 2.0**power
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(seed)) * 2
    other = sae.in_units(c)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(pursuit_cpu, "available", lambda *_: False)
        z, scaled = rsae.pursuit(sae, steps=3).encode(x), rsae.pursuit(other, steps=3).encode(c * x)
        here, there = (error(s, y, w) for s, y, w in ((sae, x, z), (other, c * x, scaled)))
    torch.testing.assert_close(there / c**2, here, rtol=1e-2, atol=1e-4)


def by_numpy(
    sae: rsae.SAE, x: np.ndarray, rounds: int, steps: int, eta: float, candidates: int
) -> np.ndarray:
    """Hard thresholding pursuit of each token by itself, in float64: written from the description alone."""
    W = sae.W_dec.detach().double().numpy()
    norm = np.linalg.norm(W, axis=1)
    W = W / norm[:, None]
    z = sae.encode(torch.tensor(x, dtype=torch.float32)).detach().double().numpy()
    h = sae.pre_activations(torch.tensor(x, dtype=torch.float32)).detach().double().numpy() * norm
    out = np.zeros_like(z)
    for b, row in enumerate(x - sae.b_dec.detach().double().numpy()):
        count = np.count_nonzero(z[b])

        def solve(c, row=row):
            S = np.flatnonzero(c)
            G, target = W[S] @ W[S].T, W[S] @ row
            v = c[S].copy()
            r = target - G @ v
            p = r.copy()
            for _ in range(steps):
                alpha = (r @ r) / (p @ G @ p)
                v = v + alpha * p
                new = r - alpha * G @ p
                p = new + (new @ new) / (r @ r) * p
                r = new
            solved = np.zeros_like(c)
            solved[S] = v if sae.signed else np.maximum(v, 0)
            better = np.sum((row - solved @ W) ** 2) <= np.sum((row - c @ W) ** 2)
            return solved if better else c

        rank = np.where(z[b] != 0, np.inf, np.abs(h[b]) if sae.signed else h[b])
        others = np.argsort(-rank)[max(candidates, count) :]
        c = solve(z[b] * norm)
        for _ in range(rounds):
            score = c + eta * W @ (row - c @ W)
            score[others] = 0 if sae.signed else -np.inf
            size = np.abs(score) if sae.signed else score
            keep = np.argsort(-size)[:count]
            decided = np.zeros_like(c)
            decided[keep] = score[keep] if sae.signed else np.maximum(score[keep], 0)
            new = solve(decided)
            if np.sum((row - new @ W) ** 2) <= np.sum((row - c @ W) ** 2):
                c = new
        out[b] = c / norm
    return out


@pytest.mark.parametrize("name", ["top_k", "jump_relu", "abs_top_k", "sign_aware_gated", "relu"])
@pytest.mark.parametrize("rounds", [0, 1, 2])
@pytest.mark.parametrize("candidates", [None, 10, 30])
@torch.no_grad()
def test_equals_an_independent_pursuit(name, rounds, candidates):
    sae = given_sae(name, 0.5)
    x = np.random.default_rng(0).normal(size=(20, D)) * 2
    z = rsae.pursuit(sae, rounds, 2, candidates).encode(torch.tensor(x, dtype=torch.float32))
    want = by_numpy(sae, x.astype(np.float32).astype(float), rounds, 2, 0.7, candidates or F)
    np.testing.assert_allclose(z.detach().numpy(), want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@given(
    seed=st.integers(0, 10**6),
    rounds=st.integers(0, 3),
    steps=st.integers(1, 4),
    candidates=st.sampled_from([1, 6, 20, 39]),
    spread=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=6)
@torch.no_grad()
def test_the_compiled_pursuit_is_the_same(name, seed, rounds, steps, candidates, spread):
    x = torch.randn(25, D, generator=torch.Generator().manual_seed(seed)) * 2
    sae = rsae.pursuit(given_sae(name, spread, seed % 7), rounds, steps, candidates)
    assert pursuit_cpu.available(x)
    compiled = sae.encode(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pursuit_cpu, "available", lambda _: False)
        unfused = sae.encode(x)
    assert_the_same(sae, x, compiled, unfused)


@pytest.mark.parametrize("name", sorted(name for name in FAMILIES if "batch" not in name))
@pytest.mark.parametrize("compiled", [True, False])
@given(seed=st.integers(0, 10**6), candidates=st.sampled_from([1, 6, 39, None]))
@settings(max_examples=4)
@torch.no_grad()
def test_a_tokens_code_does_not_depend_on_the_others(name, compiled, seed, candidates):
    """The first of the tokens may open all gates."""
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(seed)) * 2
    sae = given_sae(name, seed=seed % 7)
    sae.W_enc.abs_()
    sae.W_dec[:] = torch.nn.functional.normalize(sae.W_dec.abs() + torch.eye(F, D), dim=1)
    x[0] = x[0].abs() * 50 + sae.b_dec
    pursued = rsae.pursuit(sae, rounds=2, steps=2, candidates=candidates)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(pursuit_cpu, "available", lambda _: False)
        together, others = pursued.encode(x), pursued.encode(x[1:])
    assert torch.isclose(together[1:], others, rtol=1e-3, atol=1e-3).all(1).float().mean() >= 0.8


@pytest.mark.parametrize("name", sorted(FAMILIES))
@given(
    seed=st.integers(0, 10**6),
    rounds=st.integers(0, 2),
    steps=st.integers(1, 3),
    candidates=st.sampled_from([1, 6, 20, 39]),
    spread=st.sampled_from([0.0, 1.0]),
    most=st.sampled_from([2, 12, 39]),
)
@settings(max_examples=3)
@torch.no_grad()
def test_the_pursuit_of_a_gpu_is_the_same(name, seed, rounds, steps, candidates, spread, most):
    """On a GPU, or by Triton's interpreter."""
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(25, D, generator=torch.Generator().manual_seed(seed)).to(device) * 2
    sae = rsae.pursuit(given_sae(name, spread, seed % 7), rounds, steps, candidates).to(device)
    sae.b_dec += 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pursuit_cpu, "available", lambda _: False)
        patch.setattr(pursuit_cuda, "available", lambda *_: False)
        unfused = sae.encode(x)
        patch.setattr(pursuit_cuda, "available", lambda *_: True)
        patch.setattr(pursuit_cuda, "MOST", most)  # tokens with more open gates go by torch
        fused = sae.encode(x)
    assert_the_same(sae, x, fused, unfused)


def assert_the_same(sae, x, compiled, unfused):
    # where a decision is level, rounding takes it, and later rounds go on from there
    same = torch.isclose(compiled, unfused, rtol=1e-3, atol=1e-3).all(1)
    assert same.float().mean() >= 0.8
    errors, others = error(sae, x, compiled), error(sae, x, unfused)
    # codes of some ten entries, each so near
    torch.testing.assert_close(errors[same], others[same], rtol=1e-2, atol=1e-3)
    assert abs(errors.mean() - others.mean()) <= 1e-2 * others.mean() + 1e-4


def test_without_a_compiler_it_runs_in_torch(monkeypatch):
    sae, x = rsae.pursuit(given_sae("top_k"), candidates=8), torch.randn(9, D)
    with torch.no_grad():
        compiled = sae.encode(x)
        pursuit_cpu._library.cache_clear()
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("CXX", "no-such-compiler")
        with pytest.warns(UserWarning, match="pursuits run unfused"):
            torch.testing.assert_close(sae.encode(x), compiled, rtol=1e-4, atol=1e-5)
    pursuit_cpu._library.cache_clear()


@pytest.mark.parametrize("name", ["top_k", "jump_relu", "abs_top_k"])
def test_all_candidates_are_none(name):
    sae, x = given_sae(name), torch.randn(30, D)
    assert torch.equal(
        rsae.pursuit(sae, candidates=None).encode(x), rsae.pursuit(sae, candidates=F).encode(x)
    )


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"soft_rational"}))
@torch.no_grad()
def test_open_latents_are_candidates_whatever_their_norms(name):
    """Few candidates, rows of norms e^+-3: a latent that is on may rank last, and is looked at all the same."""
    sae, x = given_sae(name, 3.0), torch.randn(40, D)
    pursued = rsae.pursuit(sae, candidates=6, rounds=2)
    plain, z = sae.encode(x), pursued.encode(x)
    assert (error(sae, x, z) <= error(sae, x, plain) * (1 + 1e-4) + 1e-5).all()
    want = rsae.pursuit(sae, candidates=None, rounds=2).encode(x)
    assert error(sae, x, want).mean() <= error(sae, x, plain).mean()


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("candidates", [8, None])
@torch.no_grad()
def test_half_precision_loses_its_rounding_alone(name, dtype, candidates):
    """It was solved in float16, where the smallest denominators are 0: NaN, or errors as large as the code."""
    half = given_sae(name).to(dtype)
    wide, x = (
        random_sae(name).eval(),
        torch.randn(60, D, generator=torch.Generator().manual_seed(1)).to(dtype),
    )
    wide.load_state_dict(half.state_dict())
    z = rsae.pursuit(half, candidates=candidates).encode(x)
    assert z.dtype == dtype
    x, z, plain = x.float(), z.float(), half.encode(x).float()
    best = error(wide, x, rsae.pursuit(wide, candidates=candidates).encode(x))
    assert (error(wide, x, z) <= error(wide, x, plain) * 1.02 + 1e-2).all()
    assert error(wide, x, z).mean() == pytest.approx(best.mean().item(), rel=0.1)  # a gate may tip


def test_an_exact_code_stays():
    """Orthogonal decoder rows: the plain code is the solution."""
    sae = rsae.TopK(D, D, 4).eval()
    q = torch.linalg.qr(torch.randn(D, D)).Q
    with torch.no_grad():
        sae.W_dec.copy_(q)
        sae.W_enc.copy_(q.T)
    x = torch.randn(20, D)
    torch.testing.assert_close(rsae.pursuit(sae).encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)


def test_many_steps_are_least_squares_on_the_support():
    sae, x = given_sae("top_k"), torch.randn(10, D)
    z = rsae.pursuit(rsae_signed(sae), rounds=0, steps=12).encode(x)
    for row, code in zip(x, z, strict=True):
        S = code.nonzero()[:, 0]
        want = torch.linalg.lstsq(sae.W_dec[S].T, (row - sae.b_dec)[:, None]).solution[:, 0]
        torch.testing.assert_close(code[S], want, rtol=1e-3, atol=1e-3)


def rsae_signed(sae: rsae.SAE) -> rsae.SAE:
    """The same weights with a signed gate, so that nothing is clamped."""
    signed = rsae.AbsTopK(D, F, 4).eval()
    signed.load_state_dict(sae.state_dict())
    return signed


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_other_tokens_of_the_batch_do_not_matter(name):
    sae, x = rsae.pursuit(given_sae(name)), torch.randn(3, 7, D)
    with torch.no_grad():
        alone = torch.stack([sae.encode(row) for row in x.flatten(0, 1)[:, None]])[:, 0]
        torch.testing.assert_close(sae.encode(x).flatten(0, 1), alone, rtol=1e-3, atol=1e-4)


def test_gradients_are_those_of_finite_differences():
    """Within one choice of support, where the code is smooth."""
    sae = rsae.pursuit(given_sae("top_k").double(), rounds=1, steps=2, candidates=None)
    x = torch.randn(4, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: sae(y), (x,), eps=1e-6, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_save_load_and_the_way_back(name, tmp_path):
    sae, x = given_sae(name), torch.randn(20, D)
    pursued = rsae.pursuit(sae, rounds=2, candidates=20)
    rsae.save(pursued, tmp_path)
    again = rsae.load(tmp_path)
    assert isinstance(again, PursuitSAE)
    assert again.pursuit == pursued.pursuit
    assert torch.equal(again.encode(x), pursued.encode(x))
    back = rsae.plain(again)
    assert type(back) is type(sae)
    assert torch.equal(back.encode(x), sae.encode(x))
    assert rsae.plain(sae) is sae
    assert rsae.pursuit(pursued).pursuit.rounds == 1  # of a pursuit, the plain SAE is taken


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"soft_rational"}))
def test_training_alternates(name):
    """The decoder learns from the pursued code alone, the encoder from the plain one with the decoder held fixed."""
    sae = rsae.pursuit(given_sae(name), candidates=None).train()
    x = torch.randn(50, D)
    sae.loss(x, 0.0).total.backward()
    with torch.no_grad():
        plain_N, pattern = sae.plain_entries(sae.pre_activations(x))
        z_N, support = sae._pursued(x, sae.pre_activations(x), plain_N, pattern)
        z = support.scatter(z_N)
    W = sae.W_dec.detach().clone().requires_grad_()
    (z @ W + sae.b_dec.detach() - x).square().sum(1).mean().backward()
    assert sae.W_dec.grad is not None
    assert W.grad is not None
    torch.testing.assert_close(sae.W_dec.grad, W.grad, rtol=1e-3, atol=1e-4)
    assert sae.W_enc.grad is not None
    assert sae.W_enc.grad.abs().sum() > 0


def test_trained_by_the_same_loop(store):
    sae = random_sae("top_k", store)
    pursued = rsae.pursuit(sae)
    x = store.sample(500)
    before = error(pursued, x, pursued.encode(x)).mean()
    rsae.train(pursued, store, TrainConfig(steps=150, batch=64, lr=3e-3))
    assert error(pursued, x, pursued.encode(x)).mean() < before


@pytest.mark.parametrize("bad", [{"steps": 0}, {"eta": 0.0}, {"rounds": -1}])
def test_settings_are_checked(bad: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(bad))):
        rsae.pursuit(given_sae("relu"), **bad)


def test_unknown_names_stay_unknown():
    with pytest.raises(InputError, match="pursuit_topk"):
        family("pursuit_topk")


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("candidates", [8, None])
@torch.no_grad()
def test_tokens_are_each_for_themselves(name, candidates):
    """Leading dimensions, an empty batch, a token that is not finite, pruned latents: no token touches another."""
    sae = given_sae(name)
    sae.W_dec[::3] = 0
    pursued = rsae.pursuit(sae, candidates=candidates)
    x = torch.randn(4, 5, D) * 2
    z = pursued.encode(x)
    assert z.shape == (4, 5, F)
    alone = torch.cat([pursued.encode(row[None]) for row in x.reshape(-1, D)])
    torch.testing.assert_close(z.reshape(-1, F), alone, rtol=1e-3, atol=1e-3)
    assert (error(sae, x, z) <= error(sae, x, sae.encode(x)) * (1 + 1e-4) + 1e-4).all()
    for one in (sae, pursued):
        assert one.encode(torch.zeros(0, D)).shape == (0, F)
        assert one(torch.zeros(2, 0, D)).shape == (2, 0, D)
    rows = x.reshape(-1, D).clone()
    rows[0, 0] = torch.nan
    assert pursued.encode(rows)[1:].isfinite().all()


@pytest.mark.parametrize("name", ["relu", "jump_relu", "gated", "sign_aware_gated"])
def test_a_trained_pursuit_and_its_control_are_steered_to_the_teachers_l0(store, name):
    """Under the weight of its L1 a ReLU SAE's l0 grew from 32 to 55 within 300 steps."""
    teacher = random_sae(name, store)
    teacher.trained = Trained(teacher.penalties[0], 1.5)
    config = rsae.UpgradeConfig("pursuit", tune=rsae.TrainConfig(steps=20, batch=64))
    decided = decide(teacher, store, config)
    assert decided.control_name == "control-held"
    assert decided.tune.l0 == pytest.approx(fit_of(teacher, store, config.calibration_tokens)["l0"])
    assert decided.tune.sparsity == 1.5  # where the search starts
    told = dataclasses.replace(config, tune=rsae.TrainConfig(sparsity=2.0))
    assert decide(teacher, store, told).tune.l0 is None
    assert decide(teacher, store, told).control_name == "control"


@pytest.mark.parametrize("name", ["relu", "top_k", "jump_relu", "sign_aware_gated", "rational_top_k"])
def test_it_is_pickled_and_copied_as_other_saes_are(name):
    sae = rsae.pursuit(random_sae(name).eval(), candidates=7, eta=0.6)
    x = torch.randn(30, 12)
    for again in (pickle.loads(pickle.dumps(sae)), copy.deepcopy(sae)):
        assert type(again) is type(sae)
        assert again.settings() == sae.settings()
        assert torch.equal(again(x), sae(x))
        assert [n for n, _ in again.named_parameters()] == [n for n, _ in sae.named_parameters()]


@pytest.mark.parametrize("name", ["relu", "top_k", "batch_top_k", "sign_aware_gated"])
@pytest.mark.parametrize("options", [{}, {"rounds": 2, "steps": 6}, {"rounds": 0, "steps": 4}])
def test_gradients_of_solved_tokens_are_no_rounding(name, options):
    """A token of one or two latents is solved in as many steps; what further ones would divide is 0 by 0."""
    torch.manual_seed(0)
    sae = rsae.pursuit(random_sae(name, d_in=16, d_sae=24).eval(), **options)
    with torch.no_grad():
        sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    z = torch.zeros(200, 24).scatter(1, torch.randint(24, (200, 2)), 5 * torch.rand(200, 2) + 1)
    x = (z @ sae.W_dec.detach() + sae.b_dec.detach()).requires_grad_()
    sae(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    # the code is about linear in x where its support is: its gradient is of the size of 2 x_hat
    assert x.grad.norm(dim=1).max() < 40 * sae(x).norm(dim=1).max()


@pytest.mark.parametrize("candidates", [None, 16], ids=["torch", "compiled"])
@pytest.mark.parametrize("name", ["relu", "top_k", "batch_top_k", "jump_relu", "abs_top_k"])
def test_many_steps_are_no_worse_than_few(name, candidates):
    """Conjugate gradients that have arrived divide rounding by rounding: they stop, and no token ends above its plain
    code."""
    sae = random_sae(name, d_in=16, d_sae=64).eval()
    x = torch.randn(400, 16)
    with torch.no_grad():
        plain_B = (sae(x) - x).square().sum(1)
        few = (rsae.pursuit(sae, steps=16, candidates=candidates)(x) - x).square().sum()
        for steps in (8, 32, 64):
            error_B = (rsae.pursuit(sae, steps=steps, candidates=candidates)(x) - x).square().sum(1)
            assert (error_B <= plain_B * (1 + 1e-4) + 1e-6).all()
            if steps > 16 and sae.signed:  # else what is solved below 0 is cut off
                assert error_B.sum() <= 1.01 * few
