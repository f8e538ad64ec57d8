"""The host's predictions as an objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import rsae
from rsae import InputError, TrainConfig
from rsae.host_loss import HostLoss
from rsae.sae.registry import FAMILIES
from tests.rsae.helpers import random_sae

PLAIN = sorted(name for name, cls in FAMILIES.items() if not cls.rational)


@pytest.fixture(scope="module")
def pair(harvest_config, host, tmp_path_factory):
    config = replace(harvest_config, hook="blocks.1.hook_mlp_in", target="blocks.1.hook_mlp_out")
    return rsae.harvest(config, tmp_path_factory.mktemp("pair"), host)


def by_hand(sae: rsae.SAE, store, host, sequences: list[list[int]]) -> float:
    """One sequence at a time, by a plain hook on the block; predictions made at position 0 do not count."""
    total, count = 0.0, 0
    for ids in sequences:
        tokens = torch.tensor([ids])
        with torch.no_grad():
            clean = host.model(input_ids=tokens).logits[0, 1:-1].log_softmax(-1)

            def put(module, args, output):
                x = output[0] if isinstance(output, tuple) else output
                new = sae(x.flatten(0, 1) * store.scale).reshape(x.shape) / store.scale
                kept = x.norm(dim=-1, keepdim=True) > store.provenance.norm_limit
                new = torch.where(kept, x, new)
                new[:, 0] = x[:, 0]
                return (new, *output[1:]) if isinstance(output, tuple) else new

            handle = host.blocks[1].register_forward_hook(put)  # the store's hook is blocks.1.hook_resid_post
            try:
                now = host.model(input_ids=tokens).logits[0, 1:-1].log_softmax(-1)
            finally:
                handle.remove()
        total += (clean.exp() * (clean - now)).sum().item()
        count += len(clean)
    return total / count


@pytest.mark.parametrize("step", [0, 3])
def test_it_is_the_kl_of_the_host_itself(store, host, step):
    sae = random_sae("top_k", store).eval().in_units(store.scale)
    loss = HostLoss(store, False, host)
    got = loss(sae, step, 128, 0).item()
    assert got == pytest.approx(by_hand(sae, store, host, loss._chosen(step, 128, 0)), rel=1e-3)
    assert loss(sae, step, 128, 0).item() == got
    assert loss._chosen(step, 128, 0) != loss._chosen(step + 1, 128, 0)


@pytest.mark.parametrize("skip", [None, False, True], ids=["sae", "transcoder", "skip"])
def test_gradients_against_finite_differences(store, pair, host, skip):
    activations = store if skip is None else pair
    sae = rsae.new("top_k", activations, d_sae=40, k=5, skip=bool(skip))
    sae = sae.in_units(activations.scale, activations.target.scale if activations.target else None)
    sae.subtract_b_dec = False  # so that no step changes which latents are on
    with torch.no_grad():
        sae.W_dec *= 20  # a small host hardly notices small errors, and float32 rounds them
    loss = HostLoss(activations, skip is not None, host)
    loss(sae, 0, 128, 0).backward()
    for parameter in (sae.W_dec, sae.b_dec, sae.W_skip):
        if parameter is None:
            continue
        gradient, values = parameter.grad, []
        assert gradient is not None
        step, size = gradient / gradient.norm(), 0.5
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * size * step
                values.append(loss(sae, 0, 128, 0).item())
                parameter -= sign * size * step
        assert (values[0] - values[1]) / (2 * size) == pytest.approx(gradient.norm().item(), rel=0.05)
    assert all(p.grad is None for p in host.model.parameters())


@pytest.mark.parametrize("objective", ["kl", "mse+kl"])
@pytest.mark.parametrize("name", [*PLAIN, "pursuit_top_k"])
def test_the_host_notices_less_after_training_for_it(name, objective, store, host):
    start = random_sae(name.removeprefix("pursuit_"), store).train()
    start = rsae.pursuit(start, candidates=20) if name.startswith("pursuit_") else start
    measured = HostLoss(store, False, host)

    def kl(sae: rsae.SAE) -> float:
        with torch.no_grad():
            sae = sae.eval().in_units(store.scale)
            return sum(measured(sae, step, 256, 1).item() for step in range(3))

    before = kl(start)
    config = TrainConfig(steps=30, batch=128, lr=1e-2, sparsity=1e-3, objective=objective, kl_tokens=128)
    history = rsae.train(start, store, config, host=host)
    assert history[-1]["kl"] > 0
    assert kl(start) < 0.9 * before


def test_a_killed_run_goes_on_to_the_same_weights(store, host, tmp_path, monkeypatch):
    import rsae.training

    monkeypatch.setattr(rsae.training, "CHECKPOINT_EVERY", 4)
    monkeypatch.setattr(rsae.training, "LOG_EVERY", 2)
    config = TrainConfig(steps=10, batch=64, objective="mse+kl", kl_tokens=64)
    whole = random_sae("top_k", store)
    rsae.train(whole, store, config, host=host)
    killed, calls = random_sae("top_k", store), []

    def kill(self, *args):
        calls.append(args)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(self, *args)

    original = HostLoss.__call__
    monkeypatch.setattr(HostLoss, "__call__", kill)
    with pytest.raises(KeyboardInterrupt):
        rsae.train(killed, store, config, tmp_path / "state.safetensors", host=host)
    monkeypatch.setattr(HostLoss, "__call__", original)
    rsae.train(killed, store, config, tmp_path / "state.safetensors", host=host)
    assert torch.equal(killed.W_dec, whole.W_dec)


def test_an_upgrade_and_its_control_have_the_objective(store, host):
    teacher = random_sae("top_k", store).eval()
    tune = TrainConfig(steps=2, batch=64, objective="mse+kl", kl_tokens=64)
    new = rsae.upgrade(teacher, store, config=rsae.UpgradeConfig(type=(3, 2), tune=tune), host=host)
    assert new.history["control"][-1]["kl"] > 0
    assert new.history["tuned"][-1]["kl"] > 0


def test_activations_of_no_host_are_told():
    mine = rsae.Store.of(torch.randn(300, 12))
    with pytest.raises(InputError, match="an objective of the host's predictions needs a host model"):
        rsae.train(random_sae("top_k"), mine, TrainConfig(steps=1, batch=16, objective="kl"))
