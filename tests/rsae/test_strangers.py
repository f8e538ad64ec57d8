"""SAEs that were not trained here: fine-tuning starts at their own function, whatever their decoder rows' norms are."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import approx
import rsae
from rsae import InputError, Provenance, TrainConfig, UpgradeConfig, upgrade
from rsae.sae import FAMILIES
from rsae.sae.input_norm import InputNorm
from rsae.upgrading.config import Variant
from tests.rsae.helpers import random_sae

ONE_STEP = TrainConfig(steps=1, batch=64, lr=1e-6, sparsity=0.05, sparsity_warmup=0.0)
VARIANTS: tuple[Variant, ...] = ("gated", "pursuit", "soft")
TEACHERS = sorted(name for name, cls in FAMILIES.items() if not cls.rational)


def fvu(sae: rsae.SAE, x: torch.Tensor) -> float:
    with torch.no_grad():
        return ((sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()).item()


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_pruned_latents_stay_pruned(store, name, scale):
    """Decoder rows of zeros, beside rows of any common norm: a step must not make unit rows of them."""
    teacher = random_sae(name, store).eval()
    with torch.no_grad():
        teacher.W_dec *= scale
        teacher.W_dec[::7] = 0
    x = store.sample(500, seed=3)
    variants: tuple[Variant, ...] = ("gated", "pursuit")
    for variant in variants:
        new = upgrade(
            teacher,
            store,
            config=UpgradeConfig(variant=variant, type=(3, 2), tune=ONE_STEP, calibration_tokens=512),
        )
        assert new.control is not None
        assert fvu(new.control, x) == pytest.approx(fvu(teacher, x), rel=0.01)
        assert fvu(new.tuned, x) == pytest.approx(fvu(new.initial, x), rel=0.01)
        assert not new.tuned.W_dec[::7].any()


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_of_zero_rows_alone_stays_what_it_is(store, name):
    teacher = random_sae(name, store).eval()
    teacher.W_dec.data.zero_()
    new = upgrade(teacher, store, config=UpgradeConfig(type=(3, 2), tune=ONE_STEP, calibration_tokens=512))
    assert new.control is not None
    assert not new.control.W_dec.any()
    assert not new.tuned.W_dec.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["top_k", "gated"])
def test_a_teacher_in_another_precision_and_frozen(store, name, dtype):
    """It is trained in float32, and itself left as it is."""
    teacher = random_sae(name, store).eval().to(dtype).requires_grad_(False)
    x = store.sample(500, seed=3)
    variants: tuple[Variant, ...] = ("gated", "pursuit")
    for variant in variants:
        config = UpgradeConfig(variant=variant, type=(3, 2), tune=ONE_STEP, calibration_tokens=512)
        new = upgrade(teacher, store, config=config)
        assert new.control is not None
        assert new.control.W_dec.dtype == torch.float32
        assert fvu(new.control, x) == pytest.approx(fvu(teacher, x), rel=0.01)
    assert teacher.W_dec.dtype == dtype
    assert not teacher.W_dec.requires_grad
    rsae.train(teacher, store, ONE_STEP)
    assert teacher.W_dec.dtype == dtype


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(store, value):
    teacher = random_sae("jump_relu", store).eval()
    assert isinstance(teacher, rsae.JumpReLU)
    teacher.threshold.data[3] = value
    with pytest.raises(InputError, match="threshold holds NaN or infinity"):
        upgrade(teacher, store)
    with pytest.raises(InputError, match="threshold holds NaN or infinity"):
        rsae.train(teacher, store, ONE_STEP)


def test_a_last_step_that_diverges_is_told(store):
    """The loss before the step is a number; the weights after it are none, and the caller's SAE is as it was."""
    sae = random_sae("top_k", store).eval()
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    with pytest.raises(InputError, match="diverged at step 1"):
        rsae.train(sae, store, TrainConfig(steps=1, batch=64, lr=1e38, bias_lr=1e3, lr_warmup=0))
    assert all(torch.equal(v, before[k]) for k, v in sae.state_dict().items())


def test_another_teacher_with_the_same_encoder_is_upgraded_anew(store, tmp_path):
    teacher = random_sae("top_k", store).eval()
    config = UpgradeConfig(type=(3, 2), tune=ONE_STEP, calibration_tokens=512)
    upgrade(teacher, store, config=config, out=tmp_path)
    with torch.no_grad():
        teacher.W_dec[0] *= -1
    with pytest.raises(rsae.InputError, match="holds another upgrade"):
        upgrade(teacher, store, config=config, out=tmp_path)
    again = upgrade(teacher, store, config=config, out=tmp_path, force=True)
    assert torch.equal(again.initial.W_dec, teacher.W_dec)


@pytest.mark.parametrize("name", ["jump_relu", "relu", "top_k"])
@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_a_teacher_that_normalises_tokens_has_no_unit(name, kind):
    """Its upgrade and control are the same, whatever the activations' unit: the dead zone's kernel, too."""
    x = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0)) + 1
    found = []
    for c in (1.0, 2.0**10, 2.0**-3):  # layer_norm adds 1e-5 to the deviation, in the host's unit
        own = rsae.Store.of(c * x, heldout=500)
        teacher = random_sae(name).eval()  # as a file gives it: no bandwidth, no penalty's weight
        teacher = FAMILIES[name].from_settings(teacher.settings() | {"d_in": 12})
        teacher.initialise(x, 0)
        teacher.input_norm, teacher.trained = InputNorm(kind), None
        config = UpgradeConfig(type=(3, 2), tune=TrainConfig(steps=20, batch=64), calibration_tokens=512)
        new = upgrade(teacher.eval(), own, config=config)
        assert new.control is not None
        held = c * x[-500:]
        found.append([fvu(new.initial, held), fvu(new.control, held), fvu(new.tuned, held)])
    assert found[1] == pytest.approx(found[0], rel=2e-2)
    assert found[2] == pytest.approx(found[0], rel=2e-2)


@pytest.mark.parametrize("c", [1.0, 1e-4, 1e-6])
def test_what_training_sees_of_an_sae_with_layer_norm_is_what_it_is(c):
    """Its epsilon of 1e-5 is in the host's unit, and counts where activations are small."""
    x = c * torch.randn(2000, 12, generator=torch.Generator().manual_seed(0))
    own = rsae.Store.of(x, heldout=500)
    sae = random_sae("top_k")
    sae = FAMILIES["top_k"].from_settings(sae.settings() | {"d_in": 12})
    sae.initialise(x / c, 0)
    sae.input_norm = InputNorm("layer_norm")
    inside = sae.eval().in_units(own.scale)
    torch.testing.assert_close(inside(x * own.scale) / own.scale, sae(x), rtol=1e-3, atol=1e-3 * c)
    back = inside.in_units(1 / own.scale)
    assert back.input_norm == sae.input_norm
    step = TrainConfig(steps=1, batch=1500, lr=1e-9)
    before = sae.loss(x[:1500]).sse.item()
    assert rsae.train(sae, own, step)[0]["sse"] == pytest.approx(before, rel=1e-3)


def test_what_else_an_upgrade_is_made_of_is_in_its_key(store, tmp_path):
    """The teacher's normalisation, the fit and the control that are given: none is in the weights."""
    teacher = random_sae("top_k", store).eval()
    config = UpgradeConfig(type=(3, 2), tune=ONE_STEP, calibration_tokens=512)
    first = upgrade(teacher, store, config=config, out=tmp_path / "a")
    teacher.input_norm = InputNorm("layer_norm")
    with pytest.raises(rsae.InputError, match="holds another upgrade"):
        upgrade(teacher, store, config=config, out=tmp_path / "a")
    teacher.input_norm = None
    with pytest.raises(rsae.InputError, match="holds another upgrade"):
        upgrade(teacher, store, config=config, control=first.control or False, out=tmp_path / "a")
    again = upgrade(teacher.requires_grad_(False), store, config=config, out=tmp_path / "a")  # the same
    assert torch.equal(again.tuned.W_dec, first.tuned.W_dec)
    gate = random_sae("jump_relu", store).eval()
    soft = UpgradeConfig(variant="soft", type=(5, 4), tune=ONE_STEP, calibration_tokens=512)
    fits = [approx.minimax(approx.jump_relu(0.1, margin=margin), (5, 4)) for margin in (0.01, 0.05)]
    upgrade(gate, store, config=soft, fit=fits[0], out=tmp_path / "b")
    with pytest.raises(rsae.InputError, match="holds another upgrade"):
        upgrade(gate, store, config=soft, fit=fits[1], out=tmp_path / "b")


def rescaled_rows(sae: rsae.SAE, norm_F: torch.Tensor) -> rsae.SAE:
    """Decoder rows of other norms. Where the gate compares latents that is another function: a teacher all the same."""
    with torch.no_grad():
        if sae.homogeneous:
            sae.scale_latents_(1 / norm_F)
        else:
            sae.W_dec *= norm_F[:, None]
    return sae


def norms(seed: int, low: float, high: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    exponent = torch.rand(40, generator=generator) * (high - low) + low
    return 10**exponent


@pytest.mark.parametrize("name", TEACHERS)
@given(seed=st.integers(0, 1000), low=st.sampled_from([-2.0, -0.5]), high=st.sampled_from([0.0, 0.5, 2.0]))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_tiny_step_changes_nothing(store, name, seed, low, high):
    teacher = rescaled_rows(random_sae(name, store).eval(), norms(seed, low, high))
    x = store.sample(500, seed=3)
    for variant in VARIANTS if teacher.gate_target() is not None else VARIANTS[:2]:
        config = UpgradeConfig(variant=variant, type=(3, 2), tune=ONE_STEP, calibration_tokens=512)
        new = upgrade(teacher, store, config=config)
        assert new.control is not None
        assert fvu(new.control, x) == pytest.approx(fvu(teacher, x), rel=0.01)
        if variant == "soft":  # its dead zone is set anew after training
            x_hat = new.tuned.decode(new.tuned.readings()["soft_"](x)) - x
            start = new.initial.decode(new.initial.readings()["soft_"](x)) - x
            assert x_hat.square().sum().item() == pytest.approx(start.square().sum().item(), rel=0.01)
        else:
            assert fvu(new.tuned, x) == pytest.approx(fvu(new.initial, x), rel=0.01)
        if variant == "gated":
            assert fvu(new.initial, x) == pytest.approx(fvu(teacher, x), rel=1e-3)


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("common", [True, False])
def test_norms_move_without_changing_the_function(name, common):
    sae = random_sae(name).eval()
    if name == "sign_aware_gated":
        sae.W_enc.data *= 2
    factor = torch.full((40,), 3.7) if common else torch.rand(40) * 5 + 0.1
    if not (common or sae.homogeneous):
        pytest.skip("only a common factor leaves this gate's choice alone")
    x = torch.randn(50, 12) * 3
    before, z = sae(x), sae.encode(x)
    sae.scale_latents_(factor)
    torch.testing.assert_close(sae(x), before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sae.encode(x), z * factor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_balance_keeps_the_function_and_names_the_norms(name):
    sae = random_sae(name).eval()
    if sae.homogeneous:
        sae.scale_latents_(1 / norms(1, -2, 2))
    else:
        sae.W_dec.data *= norms(1, -2, 2)[:, None]
    x = torch.randn(50, 12)
    before = sae(x)
    kept = sae.balance_()
    torch.testing.assert_close(sae(x), before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), kept, rtol=1e-4, atol=1e-5)
    after = {k: v.clone() for k, v in sae.state_dict().items()}
    sae.constrain_(kept)
    for key, value in sae.state_dict().items():
        torch.testing.assert_close(value, after[key], rtol=1e-4, atol=1e-6)


def test_unit_rows_are_left_bit_for_bit():
    sae = random_sae("top_k")
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    assert torch.equal(sae.balance_(), torch.ones(40))
    assert all(torch.equal(v, before[k]) for k, v in sae.state_dict().items())


def test_a_folded_input_scale_is_a_teacher_like_others(store, tmp_path):
    """`input_scale` folds into rows of norm 1/s: what destroyed every such teacher once."""
    teacher = random_sae("top_k", store).eval().in_units(store.scale)  # as if trained on scaled activations
    rsae.save(teacher, tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    cfg |= {"normalize_activations": "expected_average_only_in"}
    del cfg["rsae"]
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    loaded = rsae.load(tmp_path, input_scale=store.scale)
    x = store.sample(500)
    torch.testing.assert_close(loaded(x), teacher(x * store.scale) / store.scale, rtol=1e-4, atol=1e-4)
    new = upgrade(loaded, store, type=(3, 2), config=UpgradeConfig(tune=ONE_STEP))
    assert new.control is not None
    for sae in (new.initial, new.tuned, new.control):
        assert fvu(sae, x) == pytest.approx(fvu(loaded, x), rel=0.01)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("name", ["top_k", "jump_relu", "relu"])
def test_an_sae_that_normalises_each_token_is_upgraded_as_what_it_is(store, name, kind, tmp_path):
    settings_: dict[str, Any] = {"k": 5} if name == "top_k" else {}
    teacher = rsae.new(name, store, d_sae=40, **settings_)
    teacher.input_norm = InputNorm(kind)
    teacher.initialise(store.sample(500))
    before = fvu(teacher, store.sample(500))
    rsae.train(teacher, store, TrainConfig(steps=100, batch=64, lr=3e-3, sparsity=0.02))
    x = store.sample(500)
    assert fvu(teacher, x) < before
    new = upgrade(teacher, store, type=(3, 2), config=UpgradeConfig(tune=ONE_STEP), out=tmp_path)
    assert new.control is not None
    for sae in (new.initial, new.tuned, new.control, rsae.load(tmp_path / "tuned")):
        assert sae.input_norm == teacher.input_norm
        assert fvu(sae, x) == pytest.approx(fvu(teacher, x), rel=0.01)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"hook": "blocks.0.hook_attn_out"}, "belongs to hook point 'blocks.0.hook_attn_out'"),
        ({"model": "gpt2"}, "belongs to model 'gpt2'"),
        ({"head": 3}, None),
        ({"hook": "blocks.2.hook_resid_pre"}, None),  # the same place by another name
        ({}, None),
    ],
)
def test_a_mismatch_is_one_clear_error_with_a_named_override(store, said, message):
    teacher = random_sae("top_k", store).eval()
    teacher.provenance = Provenance(**said)
    config = UpgradeConfig(type=(3, 2), tune=ONE_STEP)
    if message is None:
        upgrade(teacher, store, config=config, control=False)
        return
    with pytest.raises(InputError, match=message + r".*allow_mismatch=True"):
        upgrade(teacher, store, config=config, control=False)
    with pytest.raises(InputError, match=message):
        rsae.train(teacher, store, ONE_STEP)
    upgrade(teacher, store, config=config, control=False, allow_mismatch=True)


def test_another_width_cannot_be_allowed(store):
    for allow in (False, True):
        with pytest.raises(InputError, match="the SAE takes 12 dimensions, the store .* has 32"):
            upgrade(random_sae("top_k"), store, allow_mismatch=allow)


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_an_exception_in_training_leaves_the_sae_as_it_was(store, monkeypatch, error):
    sae = random_sae("jump_relu", store).eval()
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    bandwidth, provenance = sae.settings()["bandwidth"], sae.provenance
    real = rsae.Store.batch

    def dying(self, step, size, seed):
        if step == 7:
            raise error
        return real(self, step, size, seed)

    monkeypatch.setattr(rsae.Store, "batch", dying)
    with pytest.raises(error):
        rsae.train(sae, store, TrainConfig(steps=20, batch=64))
    assert all(torch.equal(v, before[k]) for k, v in sae.state_dict().items())
    assert not sae.training
    assert (sae.settings()["bandwidth"], sae.provenance, sae.trained) == (bandwidth, provenance, None)


@settings(max_examples=8)
@given(
    st.sampled_from([name for name in TEACHERS if "top_k" in name]),
    st.floats(-12, 3),
    st.sampled_from([0.3, 0.9]),
)
def test_rows_of_dead_latents_say_nothing(name, size, share):
    """However short or long they are, and however many: fine-tuning goes where it goes with unit rows."""
    x = torch.relu(torch.randn(3000, 12, generator=torch.Generator().manual_seed(0)) - 0.5) @ torch.randn(
        12, 12, generator=torch.Generator().manual_seed(1)
    )
    own, found = rsae.Store.of(x, heldout=500), []
    for norm in (1.0, 10.0**size):
        teacher = random_sae(name, own, d_sae=80).eval()
        dead_F = torch.arange(80) < share * 80
        with torch.no_grad():
            teacher.W_enc[:, dead_F] = 0
            teacher.encoder_bias[dead_F] = 0 if teacher.signed else -1e3
            teacher.W_dec[dead_F] *= norm
        tune = TrainConfig(steps=30, batch=256, revival=0.0)
        new = upgrade(teacher, own, config=UpgradeConfig(type=(3, 2), tune=tune, calibration_tokens=512))
        assert new.control is not None
        found.append([fvu(s, x[-500:]) for s in (teacher, new.control, new.tuned)])
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[0][1] <= 1.02 * found[0][0]
