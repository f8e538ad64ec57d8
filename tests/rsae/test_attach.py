"""An SAE inside its host."""

from __future__ import annotations

import numpy as np
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


@pytest.mark.parametrize("kind", ["set", "add", "scale"])
@pytest.mark.parametrize(
    ("latent", "value"),
    [
        ("a", 1.0),
        (1.5, 1.0),
        (None, 1.0),
        (-1, 1.0),
        (10**6, 1.0),
        (0, "b"),
        (0, None),
        (0, np.nan),
        (0, -np.inf),
    ],
)
def test_steering_by_what_is_no_number_is_told_where_it_is_asked_for(host, sae, kind, latent, value):
    with rsae.attached(host, sae) as inside, torch.no_grad():
        plain = host.model(input_ids=ids()).logits
        with pytest.raises(InputError, match="latent|finite"):
            getattr(inside, kind)(latent, value)
        assert torch.equal(host.model(input_ids=ids()).logits, plain)
        getattr(inside, kind)(np.int64(0), torch.tensor(2.0))


def test_an_exception_inside_leaves_host_and_sae_as_they_were(host, sae):
    plain = logits(host, ids())
    with pytest.raises(KeyError), rsae.attached(host, sae, error=False):
        raise KeyError
    assert torch.equal(logits(host, ids()), plain)
    assert all(p.requires_grad for p in sae.parameters())


@pytest.mark.parametrize("error", [True, False])
@pytest.mark.parametrize("parts", [(12,), (1, 11), (6, 6), (5, 1, 1, 5), (1,) * 12], ids=str)
def test_a_cache_that_is_continued_gives_what_one_pass_gives(host, sae, error, parts):
    """The first token keeps its value, and no part's first one beside it."""
    tokens = ids(12)
    with rsae.attached(host, sae, error=error) as inside, torch.no_grad():
        inside.add(3, 5.0)
        whole = host.model(input_ids=tokens).logits
        past, found = None, []
        for part in tokens.split(parts, dim=1):
            out = host.model(input_ids=part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            found.append(out.logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("error", [True, False])
def test_padding_on_the_left_changes_nothing(host, sae, error):
    tokens, pad = ids(9), 4
    padded = torch.cat([torch.zeros(2, pad, dtype=torch.long), tokens], 1)
    padded[1, :-5], mask = 0, torch.ones_like(padded)  # of the second sequence five tokens
    mask[0, :pad], mask[1, :-5] = 0, 0
    places = (mask.cumsum(1) - 1).clamp_min(0)
    with rsae.attached(host, sae, error=error) as inside, torch.no_grad():
        inside.add(3, 5.0)
        alone = [host.model(input_ids=one).logits[0, -1] for one in (tokens[:1], tokens[1:, -5:])]
        for given in ({"attention_mask": mask}, {"attention_mask": mask.bool()}):
            together = host.model(input_ids=padded, position_ids=places, **given).logits[:, -1]
            torch.testing.assert_close(together, torch.stack(alone), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_generation_from_one_token_keeps_it_and_nothing_after_it(host, sae, cached):
    tokens = torch.tensor([[7]])
    with rsae.attached(host, sae, error=False):
        made = host.model.generate(
            tokens, max_new_tokens=6, do_sample=False, use_cache=cached, pad_token_id=0
        )
        for end in range(1, 7):
            assert logits(host, made[:, :end])[0, -1].argmax() == made[0, end]
    plain = logits(host, tokens)
    with rsae.attached(host, sae, error=False):
        torch.testing.assert_close(logits(host, tokens), plain, rtol=1e-4, atol=1e-5)
