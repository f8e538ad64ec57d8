"""The Sign-Aware Gated family, its rational form, and AbsTopK: what the generic tests of families do not say."""

from __future__ import annotations

import pytest
import torch

import approx
import rsae
from rsae import (
    AbsTopK,
    Gated,
    InputError,
    RationalActivation,
    SignAwareGated,
    SoftRational,
    TrainConfig,
    UpgradeConfig,
)
from rsae.sae import family
from rsae.sae.dead_zone import bi_jump_relu
from rsae.sae.revival import revival_loss
from rsae.upgrading.start import start
from tests.rsae.helpers import K, random_sae

D, F = 12, 40


def untied(**switches) -> SignAwareGated:
    """All parameters in use, those of the two signs apart."""
    torch.manual_seed(0)
    sae = SignAwareGated(D, F, tie_r=False, tie_threshold=False, **switches)
    sae.initialise(torch.randn(64, D) + 1)
    for p in (sae.b_gate, sae.b_mag, sae.r_mag):
        p.data.normal_(std=0.2)
    sae.threshold.data.uniform_(0.3, 0.9)
    return sae


# --- Bi-Jump-ReLU ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [(0.3, 0.3), (0.4, 1.1)])
def test_gradients_to_thresholds_are_those_of_the_smoothed_surrogate(theta):
    """Against finite differences of the surrogate, in which each jump is a ramp as wide as the kernel."""
    generator = torch.Generator().manual_seed(0)
    h, weight, slope = torch.randn(3, 20_000, generator=generator, dtype=torch.float64)
    value = h * slope.exp()
    t = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    bandwidth, step = 0.2, 1e-7
    (weight * bi_jump_relu(value, h, torch.where(h > 0, t[0], t[1]), bandwidth)).mean().backward()
    assert t.grad is not None

    def surrogate(plus: float, minus: float) -> float:
        edge = torch.where(h > 0, h.new_tensor(plus), h.new_tensor(minus))
        return (weight * value * ((h.abs() - edge) / bandwidth + 0.5).clamp(0, 1)).mean().item()

    p, m = theta
    finite = [
        (surrogate(p + step, m) - surrogate(p - step, m)) / (2 * step),
        (surrogate(p, m + step) - surrogate(p, m - step)) / (2 * step),
    ]
    assert t.grad.tolist() == pytest.approx(finite, rel=1e-4)


def test_bi_jump_relu_is_its_formula():
    h = torch.tensor([-2.0, -0.5, -0.4, 0.0, 0.5, 0.6], requires_grad=True)
    theta = torch.tensor([0.5, 0.5, 0.3, 0.5, 0.5, 0.5], requires_grad=True)
    z = bi_jump_relu(3 * h, h, theta, 0.0)
    torch.testing.assert_close(z.detach(), torch.tensor([-6.0, 0.0, -1.2, 0.0, 0.0, 1.8]))
    z.sum().backward()
    assert h.grad is not None
    assert theta.grad is not None
    assert h.grad.tolist() == [3, 0, 3, 0, 0, 3]
    assert not theta.grad.any()  # no bandwidth, no estimate


# --- the family --------------------------------------------------------------------------------------------


def test_code_and_loss_are_their_formulas():
    sae = untied().eval()
    x = torch.randn(50, D) + 1
    linear = (x - sae.b_dec) @ sae.W_enc
    pi = linear + sae.b_gate
    side = (pi < 0).long()
    column = torch.arange(F)
    opened = pi.abs() > sae.threshold[side, column]
    magnitude = sae.r_mag[side, column].exp() * linear + sae.b_mag
    want = torch.where(opened & (magnitude.sign() == pi.sign()), magnitude, 0.0)
    z = sae.encode(x)
    torch.testing.assert_close(z, want)
    assert (z > 0).any()
    assert (z < 0).any()
    gate = pi.sign() * (pi.abs() - sae.threshold[side, column]).relu()
    auxiliary = (gate @ sae.W_dec + sae.b_dec - x).square().sum(1).mean()
    sse = (sae(x) - x).square().sum(1).mean()
    loss = sae.loss(x, 0.7)
    torch.testing.assert_close(loss.total, sse + 0.7 * gate.abs().sum(1).mean() + auxiliary)
    assert loss.l0.item() == pytest.approx((z != 0).sum(1).float().mean().item())
    assert torch.equal(loss.fired_F, (z != 0).any(0))


def test_the_auxiliary_decoder_is_frozen_and_the_code_gives_the_gate_no_gradient():
    sae = untied().eval()
    x = torch.randn(50, D)
    sae.loss(x, 0.0).total.backward()
    with_auxiliary = sae.W_dec.grad
    sae.zero_grad()
    sae.auxiliary = False
    sae.loss(x, 0.0).total.backward()
    assert with_auxiliary is not None
    torch.testing.assert_close(sae.W_dec.grad, with_auxiliary)
    assert sae.threshold.grad is not None
    assert not sae.threshold.grad.any()
    sae.bandwidth = 0.5
    sae.train().loss(x, 0.0).total.backward()
    assert sae.threshold.grad.any()


@pytest.mark.parametrize("name", ["sign_aware_gated", "rational_sign_aware_gated", "abs_top_k"])
def test_a_latent_turned_round_leaves_the_reconstruction_as_it_was(name):
    """Encoder, biases and decoder negated, what belongs to the two signs exchanged."""
    sae = random_sae(name).eval()
    x = torch.randn(50, D)
    before, code = sae(x), sae.encode(x)
    turned = [1, 5, 17]
    with torch.no_grad():
        sae.W_enc[:, turned] *= -1
        sae.W_dec[turned] *= -1
        sae.encoder_bias[turned] *= -1
        if isinstance(sae, Gated):
            sae.b_mag[turned] *= -1
    after = sae.encode(x)
    torch.testing.assert_close(after[:, turned], -code[:, turned])
    torch.testing.assert_close(sae(x), before)


def test_turning_an_untied_latent_round_exchanges_its_sides():
    sae = untied().eval()
    x = torch.randn(50, D)
    before = sae(x)
    with torch.no_grad():
        for p in (sae.W_enc, sae.W_dec, sae.b_gate, sae.b_mag):
            p *= -1
        for p in (sae.r_mag, sae.threshold):
            p.copy_(p.flip(0))
    torch.testing.assert_close(sae(x), before)


def test_one_sided_without_a_dead_zone_is_gated():
    sae = random_sae("gated").eval()
    assert isinstance(sae, Gated)
    one = SignAwareGated(D, F, threshold=0.0, two_sided=False).eval()
    one.load_state_dict(sae.state_dict() | {"r_mag": sae.r_mag[None], "threshold": torch.zeros(1, F)})
    x = torch.randn(50, D)
    assert torch.equal(one.encode(x), sae.encode(x))
    torch.testing.assert_close(one.loss(x, 0.3).total, sae.loss(x, 0.3).total)


def test_parameters_at_h_against_gated_at_2h():
    gated = Gated(D, 2 * F).parameter_count
    assert gated == 2 * F * (2 * D + 3) + D
    assert SignAwareGated(D, F).parameter_count == F * (2 * D + 4) + D
    assert untied().parameter_count == F * (2 * D + 6) + D


def test_thresholds_of_dead_latents_go_back_to_the_start():
    dead = torch.zeros(F, dtype=torch.bool)
    dead[[2, 9]] = True
    for reset in (True, False):
        sae = untied(reset=reset)
        before = sae.threshold.detach().clone()
        sae.revive_(dead)
        assert torch.equal(sae.threshold[:, ~dead], before[:, ~dead])
        assert (sae.threshold[:, dead] == sae.start).all().item() == reset
    sae = untied()
    sae.rescale_(3.0)
    sae.revive_(dead)
    assert sae.threshold[:, dead].flatten().tolist() == pytest.approx([0.3] * 4)


def test_revival_gives_dead_signed_latents_either_sign():
    sae = random_sae("abs_top_k")
    dead = torch.zeros(F, dtype=torch.bool)
    dead[3] = True
    with torch.no_grad():
        sae.b_enc[3] = -50.0  # all of its pre-activations are negative
    revival_loss(sae, torch.randn(50, D), dead).backward()
    assert sae.W_enc.grad is not None
    assert torch.equal(sae.W_enc.grad.abs().sum(0) > 0, dead)


def test_abs_top_k_keeps_the_largest_magnitudes():
    h = torch.randn(30, F)
    z = AbsTopK(D, F, K).activate(h)
    kept = h.abs() >= h.abs().topk(K).values[:, -1:]
    assert torch.equal(z, h * kept)


# --- the rational form -------------------------------------------------------------------------------------


def test_rational_magnitude_is_odd_and_starts_at_the_teacher(store):
    teacher = random_sae("sign_aware_gated", store).eval()
    sae = start(teacher, store, UpgradeConfig())
    assert sae.family == "rational_sign_aware_gated"
    x = store.sample(200)
    assert torch.equal(sae.encode(x) != 0, teacher.encode(x) != 0)
    torch.testing.assert_close(sae.encode(x), teacher.encode(x), rtol=1e-5, atol=1e-6)
    moved = random_sae("rational_sign_aware_gated")
    h, latent = torch.randn(100), torch.randint(F, (100,))
    phi = moved.magnitude(h, latent)
    assert torch.equal(moved.magnitude(-h, latent), -phi)
    assert (phi - h).abs().max() > 1e-3


def test_rational_at_the_identity_has_the_familys_loss():
    plain = random_sae("sign_aware_gated").eval()
    act = RationalActivation.identity(2, torch.rand(F) + 0.5)
    settings = plain.settings() | {"activation": act.settings()}
    rational = family("rational_sign_aware_gated").from_settings(settings).eval()
    rational.load_state_dict({f"activation.{k}": v for k, v in act.state_dict().items()}, strict=False)
    rational.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(50, D)
    torch.testing.assert_close(rational.loss(x, 0.3).total, plain.loss(x, 0.3).total)


# --- the soft form -----------------------------------------------------------------------------------------

TUNE = TrainConfig(steps=20, batch=64, lr=1e-3, sparsity=0.05, sparsity_warmup=0.0)
SOFT = UpgradeConfig(variant="soft", type=(9, 8), tune=TUNE, calibration_tokens=1024)


@pytest.mark.parametrize("tied", [True, False])
def test_soft_starts_near_the_teacher_with_both_signs(tied, store, tmp_path):
    teacher = SignAwareGated(store.d_in, F, tie_r=tied, tie_threshold=tied)
    teacher.rescale_(1 / store.scale)
    teacher.initialise(store.sample(500))
    rsae.train(teacher, store, TrainConfig(steps=300, batch=64, lr=3e-3, l0=6.0))
    new = rsae.upgrade(teacher, store, config=SOFT, control=False, out=tmp_path)
    assert isinstance(new.initial, SoftRational)
    assert new.initial.signed
    assert new.initial.activation.start["type"] == [9, 8]
    x = store.sample(1024, seed=1)  # where tau is set
    z, theirs = new.initial.encode(x), teacher.encode(x)
    assert (z != 0).sum().item() == pytest.approx((theirs != 0).sum().item(), rel=0.01)
    assert (z < 0).any()
    assert (z > 0).any()
    soft = new.initial.soft_code(new.initial.pre_activations(x))
    assert (soft != 0).float().mean() > 0.99  # dense, and that is why it is truncated
    assert torch.equal(z, torch.where(soft.abs() > new.initial.tau, soft, 0.0))
    (told,) = new.history["initial"]
    assert told["teacher_fvu"] < 0.5
    assert told["fvu"] < 1.05 * told["teacher_fvu"] + 0.01
    both = (z != 0) & (theirs != 0)
    assert both.sum() > 0.85 * (theirs != 0).sum()
    assert torch.equal(z[both].sign(), theirs[both].sign())
    again = rsae.load(tmp_path / "tuned")
    assert again.signed
    assert again.settings() == new.tuned.settings()
    assert torch.equal(again.encode(x), new.tuned.encode(x))
    assert not torch.equal(new.tuned.encode(x), z)


def test_soft_stays_odd_wherever_training_leads():
    phi = RationalActivation.from_fit(approx.minimax(approx.relu(), (3, 2)), torch.rand(F) + 0.5)
    sae = SoftRational(D, F, "sign_aware_gated", phi).eval()
    sae.initialise(torch.randn(64, D))
    sae.tau.fill_(0.2)
    h = torch.randn(50, F)
    assert not torch.allclose(phi(-h), -phi(h), atol=1e-2)
    assert torch.equal(sae.activate(-h), -sae.activate(h))
    torch.testing.assert_close(sae.soft_code(h), (phi(h) - phi(-h)) / 2)
    assert sae.loss(torch.randn(50, D), 0.1).total.isfinite()


def test_a_one_sided_teacher_has_no_soft_form(store):
    teacher = SignAwareGated(store.d_in, F, two_sided=False)
    with pytest.raises(InputError, match="one-sided"):
        start(teacher, store, SOFT)
