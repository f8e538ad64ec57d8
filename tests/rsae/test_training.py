from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rsae import BatchTopK, InputError, Store, TrainConfig, checkpoints, new, pursuit, train
from rsae.l0_controller import L0Controller
from rsae.sae import FAMILIES, family
from rsae.sae.shard import Whole
from rsae.support import devices
from rsae.support.seeds import LARGEST, folded
from rsae.training import Diverged
from tests.rsae.helpers import random_sae

CONFIG = TrainConfig(steps=230, batch=64, lr=3e-3, sparsity=0.1)


class Killed(Exception):
    pass


@pytest.fixture
def steps_from(store, monkeypatch):
    """Train anew until `die_at` (for ever without one) and return the number of each step that ran."""
    real = Store.batch

    def run(sae, config, checkpoint, die_at=None):
        steps = []

        def batch(self, step, size, seed):
            if step == die_at:
                raise Killed
            steps.append(step)
            return real(self, step, size, seed)

        with monkeypatch.context() as patch, pytest.raises(Killed) if die_at else nullcontext():
            patch.setattr(Store, "batch", batch)
            train(sae, store, config, checkpoint)
        return steps

    return run


def test_a_checkpoint_of_the_other_kind_is_not_lost(store, tmp_path, steps_from, monkeypatch):
    """A dictionary in parts and one in a piece do not read each other's state."""
    checkpoint = tmp_path / "run.safetensors"
    parts = tmp_path / "run.parts" / "00000100"
    parts.mkdir(parents=True)
    with pytest.raises(InputError, match="go on from it with --shard 1"):
        steps_from(random_sae("relu", store), CONFIG, checkpoint)
    assert parts.exists()
    parts.rename(tmp_path / "elsewhere")
    parts.parent.rmdir()
    steps_from(random_sae("relu", store), CONFIG, checkpoint, die_at=105)
    monkeypatch.setattr(checkpoints, "_in_parts", lambda runs: True)
    with pytest.raises(InputError, match="leave --shard out"):
        steps_from(random_sae("relu", store), CONFIG, checkpoint)
    assert checkpoint.exists()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(store, name, tmp_path, steps_from):
    whole = random_sae(name, store)
    train(whole, store, CONFIG)
    checkpoint = tmp_path / "run.safetensors"
    steps_from(random_sae(name, store), CONFIG, checkpoint, die_at=215)
    assert checkpoint.exists()
    resumed = random_sae(name, store)
    assert steps_from(resumed, CONFIG, checkpoint) == list(range(200, CONFIG.steps))
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
    assert not checkpoint.exists()


def test_history_is_the_same_after_a_kill(store, tmp_path, steps_from):
    history = train(random_sae("relu", store), store, CONFIG)
    steps_from(random_sae("relu", store), CONFIG, tmp_path / "c", die_at=110)
    assert (tmp_path / "c").exists()
    assert train(random_sae("relu", store), store, CONFIG, tmp_path / "c") == history


def test_a_checkpoint_of_other_settings_is_not_used(store, tmp_path, steps_from):
    checkpoint = tmp_path / "run.safetensors"
    steps_from(random_sae("relu", store), CONFIG, checkpoint, die_at=105)
    assert steps_from(random_sae("relu", store), replace(CONFIG, lr=1e-3), checkpoint)[0] == 0


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_checkpoint_of_another_start_is_not_used(store, name, tmp_path, steps_from, capsys, monkeypatch):
    """Whatever the start differs in: the values of any parameter or buffer, their order, their type, what is frozen."""
    monkeypatch.setattr("rsae.training.CHECKPOINT_EVERY", 2)
    short = replace(CONFIG, steps=4)
    checkpoint = tmp_path / "run.safetensors"
    steps_from(random_sae(name, store), short, checkpoint, die_at=3)
    made = checkpoint.read_bytes()
    state = random_sae(name, store).state_dict()
    starts = [("half", None), ("frozen", None)]
    starts += [
        (kind, key) for key, v in state.items() for kind in ("other", "turned") if kind == "other" or v.ndim
    ]
    for kind, key in starts:
        sae = random_sae(name, store)
        value = sae.state_dict()[key] if key else sae.W_enc
        before = value.clone()
        with torch.no_grad():
            if kind == "half":
                sae.half()
            elif kind == "frozen":
                sae.W_dec.requires_grad_(False)
            elif kind == "other":
                value += 0.01
            else:
                value.copy_(value.roll(1, -1))
        checkpoint.write_bytes(made)
        same = kind == "turned" and torch.equal(value, before)
        first = steps_from(sae, short, checkpoint)[0]
        assert first == (2 if same else 0), (kind, key)
        assert ("begins anew" in capsys.readouterr().err) != same


def test_what_begins_anew_ends_as_it_would_alone(store, tmp_path, steps_from):
    """Two SAEs with one W_enc: the second does not become the first."""
    checkpoint = tmp_path / "run.safetensors"
    steps_from(random_sae("jump_relu", store), CONFIG, checkpoint, die_at=105)
    others = [random_sae("jump_relu", store) for _ in range(2)]
    for other in others:
        with torch.no_grad():
            other.state_dict()["threshold"].mul_(5)
    train(others[0], store, CONFIG, checkpoint)
    train(others[1], store, CONFIG)
    assert_equal(*others)


@pytest.mark.parametrize("name", ["relu", "jump_relu", "top_k"])
def test_training_lowers_the_error_and_leaves_units_alone(store, name):
    sae = random_sae(name, store)
    x = store.sample(500)
    before = (sae(x) - x).square().sum(1).mean()
    history = train(sae, store, CONFIG)
    assert (sae(x) - x).square().sum(1).mean() < before
    assert history[-1]["sse"] < history[0]["sse"]
    assert history[-1]["step"] == CONFIG.steps
    assert not sae.training
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.d_sae))


def test_more_penalty_means_fewer_active_latents(store):
    l0 = []
    for sparsity in (0.01, 0.3):
        sae = random_sae("relu", store)
        train(sae, store, replace(CONFIG, sparsity=sparsity))
        l0.append((sae.encode(store.sample(500)) != 0).sum(1).float().mean())
    assert l0[1] < 0.8 * l0[0]


def test_groups_of_parameters_have_their_own_rates(store):
    frozen = replace(CONFIG, steps=20, coefficient_lr=0.0, threshold_lr=0.0)
    sae = random_sae("rational_jump_relu", store)
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    train(sae, store, frozen)
    for key, value in sae.state_dict().items():
        moved = not torch.allclose(value, before[key], rtol=1e-5, atol=1e-7)
        assert moved == (key in ("W_enc", "W_dec", "b_enc", "b_dec")), key


def test_schedule():
    config = TrainConfig(steps=100, lr_warmup=10, lr_decay=0.2, sparsity=2.0, sparsity_warmup=0.5)
    factors = [config.lr_factor(s) for s in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[50] == 1
    assert factors[-1] == pytest.approx(1 / 20)
    assert factors[:11] == sorted(factors[:11])
    assert [config.sparsity_factor(s) for s in (0, 49, 99)] == pytest.approx([0.02, 1.0, 1.0])


@given(st.integers())
@example(LARGEST)
@example(-LARGEST)
@example(2**63)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_seed_trains_or_is_told_at_once(store, seed):
    """Those of epochs, which are made of it, too."""
    if abs(seed) <= LARGEST:
        sae = new("relu", store, seed, d_sae=4)
        train(sae, store, TrainConfig(steps=1, batch=8, seed=seed))
        assert len(store.batch(10**6, 8, seed)) == 8
        return
    with pytest.raises(InputError, match="seed"):
        new("relu", store, seed, d_sae=4)
    with pytest.raises(InputError, match="seed"):
        TrainConfig(seed=seed)


@given(st.integers(-(2**63), 2**63 - 1), st.integers())
def test_a_seed_that_torch_takes_stays_as_it_is(seed, other):
    assert folded(seed) == seed
    torch.Generator().manual_seed(folded(other))


def test_divergence_is_told(store):
    with pytest.raises(InputError, match="diverged.*lower `lr`"):
        train(random_sae("relu", store), store, replace(CONFIG, lr=1e30))


def test_wrong_width(store):
    with pytest.raises(InputError, match="the SAE takes 5 dimensions"):
        train(family("relu")(5, 8), store, CONFIG)


def test_batch_larger_than_the_store(store):
    with pytest.raises(InputError, match="lower `batch`"):
        train(random_sae("relu", store), store, replace(CONFIG, batch=10**6))


@pytest.mark.parametrize("field", [{"steps": 0}, {"lr": -1.0}, {"lr_decay": 1.5}, {"sparsityy": 1.0}])
def test_config_is_validated(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        TrainConfig(**field)


@pytest.mark.parametrize(
    ("name", "l0"), [("relu", 8.0), ("jump_relu", 3.0), ("gated", 3.0), ("rational_jump_relu", 8.0)]
)
def test_a_wanted_l0_is_reached(store, name, l0):
    sae = random_sae(name, store)
    train(sae, store, replace(CONFIG, steps=1500, lr=1e-3, sparsity=0.0, l0=l0))
    reached = (sae.encode(store.sample(2000)) != 0).sum(1).float().mean().item()
    assert reached == pytest.approx(l0, rel=0.05)
    assert sae.trained is not None
    assert sae.trained.sparsity > 0


def test_an_l0_that_cannot_be_steered(store):
    with pytest.raises(InputError, match="l0 is set by `k`"):
        train(random_sae("top_k", store), store, replace(CONFIG, l0=4.0))
    with pytest.raises(InputError, match="not below the 40 latents"):
        train(random_sae("relu", store), store, replace(CONFIG, l0=40.0))


def test_many_saes_in_one_pass_end_as_each_by_itself(store, steps_from, tmp_path):
    names = ["top_k", "relu", "rational_jump_relu"]
    configs = [replace(CONFIG, steps=120, sparsity=s) for s in (0.0, 0.05, 0.2)]
    alone = [random_sae(name, store) for name in names]
    histories = [train(sae, store, config) for sae, config in zip(alone, configs, strict=True)]
    together = [random_sae(name, store) for name in names]
    steps_from(together, configs, tmp_path / "c", die_at=110)
    together = [random_sae(name, store) for name in names]
    assert train(together, store, configs, tmp_path / "c") == histories
    for one, other in zip(alone, together, strict=True):
        assert_equal(one, other)
    with pytest.raises(InputError, match="same batch, steps and seed"):
        train(together, store, [CONFIG, CONFIG, replace(CONFIG, seed=1)])


def assert_equal(sae, other):
    for key, value in sae.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("family", "lr"), [("top_k", 3e-3), ("rational_top_k", 3e-3), ("relu", 1e-2), ("rational_gated", 1e-2)]
)
def test_a_family_has_rates_of_its_own(family, lr, store):
    """A rational form has its family's; what a config gives stands."""
    own, other = random_sae(family, store), random_sae(family, store)
    short = TrainConfig(steps=3, batch=64)
    train(own, store, short)
    train(other, store, replace(short, lr=own.rates.lr, bias_lr=own.rates.bias_lr))
    assert_equal(own, other)
    assert own.rates.lr == lr
    assert replace(short, lr=0.1).rated(own.rates).lr == 0.1


@pytest.mark.parametrize("bias_lr", [1.0, 10.0])
@pytest.mark.parametrize("optimiser", ["adam", "muon", "schedule_free"])
def test_clipping_bounds_each_kind_by_itself_whatever_its_rate(store, monkeypatch, bias_lr, optimiser):
    norms, real = [], Whole.clip_

    def clip(self, parameters, most):
        real(self, parameters, most)
        norms.append((sorted(parameters), torch.stack([p.grad.norm() for p in parameters.values()]).norm()))

    monkeypatch.setattr(Whole, "clip_", clip)
    config = replace(CONFIG, steps=30, clip=0.01, bias_lr=bias_lr, optimizer=optimiser)
    sae = random_sae("rational_jump_relu", store)
    train(sae, store, config)
    kinds = [["W_dec", "W_enc"], ["b_dec", "b_enc"], ["threshold"]]
    assert [names for names, _ in norms[:3]] == kinds
    assert all(name.startswith("activation.") for name in norms[3][0])
    found = torch.stack([norm for _, norm in norms]).view(-1, 4)
    assert found.max() <= 0.01 * (1 + 1e-4)
    assert found[:, 0].min() > 0.0099  # the weights' gradients are larger than that


@pytest.mark.parametrize("name", ["rational_top_k", "relu", "gated", "soft_rational", "pursuit_jump_relu"])
def test_bfloat16_is_near_float32(store, name):
    """It is products that are rounded; weights and optimiser stay in float32."""
    ends = []
    for precision in ("float32", "bfloat16"):
        sae = random_sae(name.removeprefix("pursuit_"), store)
        sae = pursuit(sae) if "pursuit" in name else sae
        history = train(sae, store, replace(CONFIG, precision=precision))
        assert {p.dtype for p in sae.parameters()} == {torch.float32}
        ends.append(history[-1]["sse"])
    assert ends[0] != ends[1]
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_what_the_device_multiplies_in(store, monkeypatch, has):
    monkeypatch.setattr(devices, "has_bfloat16", lambda _: has)
    saes = []
    for precision in ("auto", "bfloat16" if has else "float32"):
        saes.append(random_sae("relu", store))
        train(saes[-1], store, replace(CONFIG, steps=30, precision=precision))
    assert torch.equal(saes[0].W_enc, saes[1].W_enc)


def test_a_checkpoint_of_another_precision_is_not_used(store, tmp_path, steps_from, monkeypatch):
    """`auto`, and the machine that goes on multiplies in another: a training has one precision."""
    config, checkpoint = replace(CONFIG, precision="auto"), tmp_path / "run.safetensors"
    monkeypatch.setattr(devices, "has_bfloat16", lambda _: True)
    steps_from(random_sae("relu", store), config, checkpoint, die_at=105)
    monkeypatch.setattr(devices, "has_bfloat16", lambda _: False)
    assert steps_from(random_sae("relu", store), config, checkpoint)[0] == 0


def test_dead_latents_are_revived(store):
    """Twenty latents whose bias keeps them shut: most stay so without the revival loss."""

    def alive(revival):
        sae = random_sae("top_k", store)
        sae.encoder_bias.data[:20] = -2.5 / store.scale
        train(sae, store, replace(CONFIG, steps=400, revival=revival, dead_after=20))
        return (sae.encode(store.sample(2000))[:, :20] != 0).any(0).sum()

    assert alive(1 / 32) >= alive(0.0) + 5


def test_a_goal_that_is_missed_is_told(store, capsys):
    train(random_sae("relu", store), store, replace(CONFIG, steps=30, lr=1e-5, l0=2.0))
    assert "wanted was 2; train for more steps" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["top_k", "relu", "gated", "batch_top_k"])
@pytest.mark.parametrize(
    ("changes", "useless"), [({}, False), ({"lr": 1e6}, True), ({"lr": 30.0, "optimizer": "muon"}, True)]
)
def test_a_result_that_is_worse_than_a_constant_is_told(store, capsys, name, changes, useless):
    sae = random_sae(name, store)
    try:
        history = train(sae, store, replace(CONFIG, steps=110, **changes))
    except Diverged:  # not even finite: told, too
        assert useless
        return
    x = store.sample(10**6)
    spread = (x - x.mean(0)).square().sum(1).mean() * store.scale**2
    assert (history[-1]["sse"] > spread or not history[-1]["l0"]) == useless
    assert ("of no use" in capsys.readouterr().err) == useless


@pytest.mark.parametrize("start", [4.0, 30.0])
def test_the_controller_does_not_wind_up(start):
    """l0 that stays out of reach, then answers: the weight has not run away meanwhile."""
    sae = random_sae("relu")
    controller = L0Controller(sae, "l1", steps=500, l0=15.0, sparsity=0.0)
    first = controller.weight
    for step in range(2000):
        controller.update(step, start, 10.0)
    assert first * 1e-3 < controller.weight < 2 * sae.d_in
    steps = 0
    while (controller.weight > first) == (
        start > 15
    ) and steps < 300:  # l0 now lies on the other side of the goal
        controller.update(2000 + steps, 30.0 if start < 15 else 4.0, 10.0)
        steps += 1
    assert steps < 300


def l0_of(sae, x):
    return (sae.encode(x) != 0).sum(1).float().mean().item()


@pytest.mark.parametrize("name", ["batch_top_k", "matryoshka_batch_top_k", "rational_batch_top_k"])
@pytest.mark.parametrize("changes", [{}, {"optimizer": "schedule_free"}, {"precision": "bfloat16"}])
@pytest.mark.parametrize("k", [3, 9])
def test_a_short_training_ends_at_the_threshold_of_its_k(store, name, changes, k):
    sae, x = random_sae(name, store), store.sample(10**6)
    assert isinstance(sae, BatchTopK)
    sae.threshold.zero_()
    vars(sae)["k"] = k
    train(sae, store, replace(CONFIG, steps=20, **changes))
    assert not sae.training
    assert l0_of(sae, x) == pytest.approx(k, rel=0.05)


def test_a_threshold_that_an_sae_came_with_is_moved_by_its_steps_alone(store):
    sae = random_sae("batch_top_k", store)
    assert isinstance(sae, BatchTopK)
    sae.threshold.fill_(1e3)
    train(sae, store, replace(CONFIG, steps=2))
    assert 1e3 > sae.threshold >= 1e3 * 0.99**2
