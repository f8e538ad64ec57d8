"""The optimisers beside numpy's own arithmetic of their papers; exact resuming; constraints hold for what they give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from rsae import InputError, JumpReLU, Store, TrainConfig, new, train
from rsae.optimizers import polar
from rsae.sae.base import SAE
from tests.rsae.helpers import random_sae
from tests.rsae.test_training import CONFIG, assert_equal, steps_from  # noqa: F401 (a fixture)

OTHERS = ("muon", "schedule_free")
STEPS, BETA1, BETA2, EPS = 12, 0.9, 0.99, 1e-8


def recorded(sae: SAE, store, config: TrainConfig, monkeypatch) -> list[dict[str, np.ndarray]]:
    """Train, and give back each step's gradients; the constraint is left out, so that steps can be told one by one."""
    gradients = []
    real = torch.Tensor.backward

    def backward(total, *args, **kwargs):
        real(total, *args, **kwargs)
        found = {name: p.grad for name, p in moved[-1].named_parameters() if p.grad is not None}
        gradients.append({name: grad.double().numpy() for name, grad in found.items()})

    moved: list[SAE] = []

    def in_units(self, *args):
        moved.append(units(self, *args))
        return moved[-1]

    units = SAE.in_units
    monkeypatch.setattr(SAE, "in_units", in_units)
    monkeypatch.setattr(SAE, "balance_", lambda self, fires: torch.ones(self.d_sae))
    monkeypatch.setattr(type(sae), "constrain_", lambda self, norm_F: None)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    train(sae, store, config)
    return gradients


def config(optimizer: str, **changes) -> TrainConfig:
    return TrainConfig(
        steps=STEPS, batch=64, lr=3e-3, bias_lr=5.0, lr_warmup=4, beta2=BETA2, sparsity=0.1, revival=0.0
    ).changed({"optimizer": optimizer, **changes})


def rate(config: TrainConfig, name: str, step: int) -> float:
    assert config.lr is not None
    factors = {"b_enc": 5.0, "b_dec": 5.0, "threshold": config.threshold_lr}
    return config.lr * factors.get(name, 1.0) * config.lr_factor(step)


def in_training_units(sae: SAE, scale: float) -> dict[str, np.ndarray]:
    return {k: p.detach().double().numpy() for k, p in sae.in_units(scale).named_parameters()}


def adam(w, gradients, rates):
    mean = square = np.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        mean, square = BETA1 * mean + (1 - BETA1) * g, BETA2 * square + (1 - BETA2) * g * g
        w = w - lr * (mean / (1 - BETA1**t)) / (np.sqrt(square / (1 - BETA2**t)) + EPS)
    return w


def schedule_free(w, gradients, rates):
    """Algorithm 1 of arXiv 2405.15682."""
    z = x = w
    square, weights = np.zeros_like(w), 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        square = BETA2 * square + (1 - BETA2) * g * g
        z = z - lr * g / (np.sqrt(square / (1 - BETA2**t)) + EPS)
        weights += lr**2
        x = (1 - lr**2 / weights) * x + lr**2 / weights * z
    return x


def muon(w, gradients, rates):
    """With the exact polar factor."""
    momentum = np.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        momentum = BETA1 * momentum + (1 - BETA1) * g
        u, _, v = np.linalg.svd((1 - BETA1) * g + BETA1 * momentum, full_matrices=False)
        w = w - lr * 0.2 * np.sqrt(max(w.shape)) * u @ v
    return w


@pytest.mark.parametrize("optimizer", ["adam", *OTHERS])
def test_each_moves_as_its_paper_says(store, optimizer, monkeypatch):
    """From the gradients that training saw, numpy finds the weights that it ended with; rates are of each group."""
    sae = random_sae("jump_relu", store)
    before = in_training_units(sae, store.scale)
    chosen = config(optimizer)
    if (
        optimizer == "muon"
    ):  # chain and exact factor differ by a tenth, too much to compare by: take the exact one
        monkeypatch.setattr("rsae.optimizers.polar", exact_polar)
    gradients = recorded(sae, store, chosen, monkeypatch)
    monkeypatch.undo()
    after = in_training_units(sae, store.scale)
    for name, start in before.items():
        rule = {"adam": adam, "muon": muon if start.ndim == 2 else adam, "schedule_free": schedule_free}
        wanted = rule[optimizer](
            start, [g[name] for g in gradients], [rate(chosen, name, step) for step in range(STEPS)]
        )
        moved = np.abs(wanted - start).max()
        assert moved > 1e-3
        np.testing.assert_allclose(after[name], wanted, rtol=0, atol=2e-3 * moved, err_msg=name)


def exact_polar(X_FD, total):
    u, _, v = torch.linalg.svd(X_FD.double(), full_matrices=False)
    return (u @ v).to(X_FD)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**31 - 1), st.floats(-20, 20))
def test_singular_values_come_near_one(rows, columns, seed, size):
    """Of any matrix: those above 1e-3 of the bound within what is proven; the singular vectors stay."""
    chain = approx.composite_sign(1e-3, (5,) * 5, dtype="float32")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    s = torch.logspace(0, -5, len(s), dtype=torch.float64)[torch.randperm(len(s), generator=generator)]
    x = (u * s @ v) * 10.0**size
    share = s / (s**4).sum() ** 0.25
    found = u.T @ polar(x) @ v.T
    values = found.diagonal()
    assert (found - values.diag()).abs().max() < 1e-6
    assert ((values - 1).abs() <= chain.error + 1e-6)[share >= 1e-3].all()
    assert ((values > 0) & (values < 1 + chain.error + 1e-6)).all()


def test_the_polar_factor_in_float32_and_of_nothing():
    torch.manual_seed(0)
    x = torch.randn(300, 40) * torch.logspace(0, -2, 40)
    assert (torch.linalg.svdvals(polar(x)) - 1).abs().max() < 0.114
    assert (polar(torch.zeros(5, 3)) == 0).all()
    parts = x.split([100, 200])
    of_all = torch.stack([part.T @ part for part in parts]).sum(0)
    torch.testing.assert_close(torch.cat([polar(part, lambda _: of_all) for part in parts]), polar(x))


@pytest.mark.parametrize(
    ("optimizer", "name"), [("muon", "rational_top_k"), ("schedule_free", "sign_aware_gated")]
)
def test_a_killed_run_resumes_to_the_same_weights(store, optimizer, name, tmp_path, steps_from, monkeypatch):  # noqa: F811
    monkeypatch.setattr("rsae.training.CHECKPOINT_EVERY", 25)
    chosen = CONFIG.changed(
        {"optimizer": optimizer, "bias_lr": 3.0, "clip": 1.0, "dead_after": 9, "steps": 60}
    )
    whole, resumed = random_sae(name, store), random_sae(name, store)
    train(whole, store, chosen)
    steps_from(random_sae(name, store), chosen, tmp_path / "c", die_at=55)
    assert steps_from(resumed, chosen, tmp_path / "c") == list(range(50, 60))
    assert_equal(whole, resumed)


@pytest.mark.parametrize("optimizer", OTHERS)
@pytest.mark.parametrize("name", ["jump_relu", "top_k"])
def test_they_train_and_hold_the_constraints(store, optimizer, name):
    sae, x = random_sae(name, store), store.sample(2000)
    error = (x - sae(x)).square().mean()
    train(sae, store, CONFIG.changed({"optimizer": optimizer}))
    assert (x - sae(x)).square().mean() < 0.6 * error
    assert (sae.W_dec.norm(dim=1) - 1).abs().max() < 1e-5
    if isinstance(sae, JumpReLU):
        assert (sae.threshold >= 0).all()


def test_the_schedule_has_no_end_where_none_is_needed():
    assert TrainConfig(steps=100).lr_factor(99) < 0.05
    assert TrainConfig(steps=100, optimizer="muon").lr_factor(99) < 0.05
    assert TrainConfig(steps=100, optimizer="schedule_free").lr_factor(99) == 1
    assert TrainConfig(steps=100, optimizer="schedule_free", lr_decay=0.3).lr_factor(99) < 0.05


def test_an_unknown_optimiser_is_told():
    with pytest.raises(InputError, match="optimizer = 'sgd'.*'adam', 'muon' or 'schedule_free'"):
        TrainConfig().changed({"optimizer": "sgd"})


@pytest.mark.parametrize("optimizer", OTHERS)
def test_a_skip_connection_is_moved_too(optimizer):
    """From its start, the best linear map, away from it and to a lower error."""
    torch.manual_seed(0)
    x = torch.randn(600, 10)
    activations = Store.of(x, target=x[:, :6].square() + x[:, 4:], heldout=50)
    sae = new("top_k", activations, d_sae=24, k=4, skip=True)
    assert sae.W_skip is not None
    before = sae.W_skip.detach().clone()
    history = train(sae, activations, TrainConfig(steps=60, batch=64, optimizer=optimizer))
    assert not torch.allclose(sae.W_skip, before, atol=1e-3)
    assert history[-1]["sse"] < 0.95 * history[0]["sse"]
