"""An SAE inside its host."""

from __future__ import annotations

import pytest
import torch

import rsae
from rsae import InputError, Provenance
from tests.rsae.helpers import random_sae

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def sae(store):
    sae = random_sae("sign_aware_gated", store).eval()
    sae.provenance = store.provenance
    return sae


def ids(n=20):
    return torch.arange(2 * n).reshape(2, n) % 200


def logits(host, tokens):
    with torch.no_grad():
        return host.model(input_ids=tokens).logits


def test_with_the_error_term_the_host_computes_what_it_always_does(host, sae):
    plain = logits(host, ids())
    with rsae.attached(host, sae) as inside:
        torch.testing.assert_close(logits(host, ids()), plain, rtol=1e-4, atol=1e-5)
        assert inside.features is not None
        assert inside.features.shape == (2, 20, sae.d_sae)
    assert torch.equal(logits(host, ids()), plain)  # and afterwards nothing is left of it


def test_without_it_the_reconstruction_takes_the_activations_place(host, sae):
    tokens = ids()
    with rsae.attached(host, sae, error=False) as inside:
        spliced = logits(host, tokens)
        x = inside.input
    assert x is not None
    from rsae.activations.hooks import HookPoint, logits_from

    y = sae(x).detach()
    y[:, 0] = x[:, 0]
    limit = sae.provenance.norm_limit
    y = torch.where((x.norm(dim=-1) > limit)[..., None], x, y)
    mask = torch.ones_like(tokens)
    want = logits_from(host, HookPoint.parse(HOOK, host), tokens, mask, y)
    torch.testing.assert_close(spliced, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_steering_adds_the_decoder_row(host, sae, value):
    with rsae.attached(host, sae) as inside:
        logits(host, ids())
        x = inside.input
        assert x is not None
        inside.add(7, value)
        after = inside._replace(x, x)
        torch.testing.assert_close(
            after[:, 1:], x[:, 1:] + value * sae.W_dec[7], rtol=1e-3, atol=1e-3 * x.abs().max().item()
        )
        inside.clear()
        inside.set(7, 0.0)
        inside.scale(3, 0.0)
        changed = logits(host, ids())
        assert changed.isfinite().all()
        with pytest.raises(InputError, match="latent 40 is not one of the SAE's 40"):
            inside.add(40, 1.0)


def test_gradients_are_the_features_and_leave_the_weights_alone(host, sae):
    with rsae.attached(host, sae) as inside:
        host.model(input_ids=ids()).logits[0, -1, 5].backward()
        assert inside.features is not None
        assert inside.features.grad is not None
        assert inside.features.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in sae.parameters())


def test_a_finite_difference_agrees_with_the_gradient(host, sae):
    def score():
        return host.model(input_ids=ids()).logits[0, -1, 5]

    with rsae.attached(host, sae) as inside:
        score().backward()
        assert inside.features is not None
        assert inside.features.grad is not None
        slope = inside.features.grad[0, 1:, 11].sum().item()
        with torch.no_grad():
            base = score().item()
            inside.add(11, 1e-2)
            moved = score().item()
    assert (moved - base) / 1e-2 == pytest.approx(slope, rel=0.1, abs=1e-3)


def test_generation_works_inside(host, sae):
    with rsae.attached(host, sae):
        out = host.model.generate(input_ids=ids(4), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert out.shape == (2, 7)


def test_what_does_not_belong_is_said(host, sae):
    sae.provenance = Provenance()
    with pytest.raises(InputError, match="needs a hook point"), rsae.attached(host, sae):
        pass
    sae.provenance = Provenance(hook="blocks.0.hook_attn_out")
    with pytest.raises(InputError, match="belongs to hook point"), rsae.attached(host, sae, hook=HOOK):
        pass
    sae.provenance = Provenance(model="gpt2", hook=HOOK)
    with pytest.raises(InputError, match="belongs to model 'gpt2'"), rsae.attached(host, sae):
        pass
    with rsae.attached(host, sae, allow_mismatch=True):
        logits(host, ids())


def test_an_exception_inside_leaves_host_and_sae_as_they_were(host, sae):
    plain = logits(host, ids())
    with pytest.raises(KeyError), rsae.attached(host, sae, error=False):
        raise KeyError
    assert torch.equal(logits(host, ids()), plain)
    assert all(p.requires_grad for p in sae.parameters())
