"""Pushes against whole forward passes, one sequence, latent and sign at a time."""

from __future__ import annotations

import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch

from evals.metrics.intervention import intervention
from evals.results import Intervention
from rsae import AbsTopK
from rsae.activations.hooks import HookPoint, activations_at, pad
from tests.evals.helpers import HOOK, exact_sae


def axes(d_in: int, size: float = 1.0) -> AbsTopK:
    """A signed latent an axis: z = size x, so that a latent's typical magnitude is `size` times that of x."""
    sae = AbsTopK(d_in, d_in, d_in).eval()
    sae.W_enc.data = size * torch.eye(d_in)
    sae.W_dec.data = torch.eye(d_in)
    return sae


def test_intervention_is_its_definition(host, sequences):
    """Against whole forward passes of the host, one sequence, latent and sign at a time."""
    sae, most = axes(host.d_model, 0.5), 3
    clean, x = {}, {}
    with torch.no_grad():
        for i, ids in enumerate(sequences):
            x[i] = activations_at(host, HookPoint.parse(HOOK, host), *pad([ids]))[0]
            clean[i] = host.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    z = 0.5 * torch.cat([x[i][1:-1] for i in x])
    log_p = torch.cat([clean[i][1:-1] for i in x])
    rarer = torch.minimum((z > 0).sum(0), (z < 0).sum(0))
    chosen = sorted(range(host.d_model), key=lambda f: -rarer[f])[:most]
    kl, changes, contexts = {1: [], -1: []}, {1: [], -1: []}, []
    for latent in chosen:
        # plus is the sign that is on for more tokens
        plus = 1 if (z[:, latent] > 0).sum() >= (z[:, latent] < 0).sum() else -1
        on = {side: (side * plus * z[:, latent]) > 0 for side in (1, -1)}
        contexts.append(log_p[on[1]].mean(0) - log_p[on[-1]].mean(0))
        for sign in (1, -1):
            size = z[on[sign], latent].mean().item()

            def push(_module, _args, output, latent=latent, size=size):
                first = (output[0] if isinstance(output, tuple) else output).clone()
                first[:, 1:, latent] += size
                return (first, *output[1:]) if isinstance(output, tuple) else first

            handle = host.blocks[1].register_forward_hook(push)
            with torch.no_grad():
                logits = [host.model(input_ids=torch.tensor([ids])).logits[0] for ids in sequences]
            handle.remove()
            now = torch.cat([y[1:-1].double().log_softmax(-1) for y in logits])
            kl[sign].append((log_p.exp() * (log_p - now)).sum(1).mean().item())
            changes[sign].append((now - log_p).mean(0))
    got = intervention(sae, host, sequences, most, HOOK)
    assert got.dials == most
    assert got.eligible == int((rarer >= 5).sum())
    assert got.row_cosine == pytest.approx(-1)
    assert got.kl_plus == pytest.approx(np.mean(kl[1]), rel=1e-3)
    assert got.kl_minus == pytest.approx(np.mean(kl[-1]), rel=1e-3)
    both = zip(changes[1], changes[-1], strict=True)
    opposition = [np.corrcoef(a.numpy(), b.numpy())[0, 1] for a, b in both]
    assert got.opposition == pytest.approx(np.mean(opposition), rel=1e-3)
    agreement = np.array(
        [
            [np.corrcoef((a - b).numpy(), c.numpy())[0, 1] for c in contexts]
            for a, b in zip(changes[1], changes[-1], strict=True)
        ]
    )
    assert got.agreement == pytest.approx(agreement.diagonal().mean(), rel=1e-3)
    others = (agreement.sum() - agreement.trace()) / (most * (most - 1))
    assert got.agreement_others == pytest.approx(others, rel=1e-2, abs=1e-3)
    whole = intervention(sae, host, sequences, most, HOOK, batch=1)
    assert asdict(whole) == pytest.approx(asdict(got), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_signs_and_the_order_of_latents_are_arbitrary(host, sequences, seed):
    rng = np.random.default_rng(seed)
    sae, other = axes(host.d_model, 0.7), axes(host.d_model, 0.7)
    order = torch.from_numpy(rng.permutation(host.d_model))
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], host.d_model)).float()
    other.W_enc.data = (other.W_enc * sign)[:, order]
    other.W_dec.data = (other.W_dec * sign[:, None])[order]
    for one, two in ((sae, other), (pairs := exact_sae(host.d_model), shuffled(pairs, rng))):
        got = [asdict(intervention(each, host, sequences, host.d_model, HOOK)) for each in (one, two)]
        assert got[1] == pytest.approx(got[0], rel=1e-3, abs=1e-4)


def shuffled(sae, rng):
    other = copy.deepcopy(sae)
    order = torch.from_numpy(rng.permutation(sae.d_sae))
    other.W_enc.data, other.b_enc.data, other.W_dec.data = (
        sae.W_enc[:, order],
        sae.b_enc[order],
        sae.W_dec[order],
    )
    return other


def test_small_pushes_are_opposite_whatever_the_latent(host, sequences):
    """To first order: why the figure says little without its size and its agreement."""
    small = intervention(axes(host.d_model, 0.01), host, sequences, 4, HOOK)
    large = intervention(axes(host.d_model, 30.0), host, sequences, 4, HOOK)
    assert small["opposition"] < -0.999
    assert large["opposition"] > small["opposition"] + 0.01
    assert small["kl_plus"] < 1e-2 * large["kl_plus"]


def test_a_push_agrees_with_its_contexts_where_the_latent_is_what_the_host_reads(host, sequences):
    """At the end of the last block an axis is read by the unembedding alone."""
    got = intervention(axes(host.d_model), host, sequences, 8, "blocks.2.hook_resid_post")
    assert got["agreement"] > 0.2
    assert got["agreement"] > abs(got["agreement_others"]) + 0.1


def test_without_signs_a_dial_is_the_most_opposite_pair(host, sequences):
    """x = relu(x) - relu(-x): each pair is the two sides of an axis, and does what the signed latent does."""
    pair = intervention(exact_sae(host.d_model), host, sequences, host.d_model, HOOK)
    assert pair.row_cosine == pytest.approx(-1)
    assert pair.dials == pair.eligible
    one = intervention(axes(host.d_model), host, sequences, host.d_model, HOOK)
    assert pair.dials == one.dials
    assert pair["kl_plus"] + pair["kl_minus"] == pytest.approx(one["kl_plus"] + one["kl_minus"], rel=1e-3)
    for key in ("opposition", "agreement"):
        assert pair[key] == pytest.approx(one[key], abs=1e-3), key


def test_no_dial_no_figures(host, sequences):
    sae = axes(host.d_model)
    sae.b_enc.data.fill_(1e3)  # every code is positive
    assert intervention(sae, host, sequences, 4, HOOK) == Intervention(0, 0)
    off = exact_sae(host.d_model)
    off.b_enc.data.fill_(-1e3)
    assert intervention(off, host, sequences, 4, HOOK) == Intervention(0, 0)


def test_excluded_tokens_are_not_pushed_and_do_not_count(host, sequences):
    """To exclude the tokens that one sequence is made of is to leave that sequence out."""
    sae = axes(host.d_model, 0.5)
    others = [[min(token, 254) for token in ids] for ids in sequences]
    every = [[255] * 12, *others]
    some = intervention(sae, host, every, 2, HOOK, exclude_tokens=[255])
    rest = intervention(sae, host, others, 2, HOOK)
    assert some.dials == rest.dials == 2
    assert some.kl_plus == pytest.approx(rest.kl_plus, rel=1e-5)
    assert some.agreement == pytest.approx(rest.agreement, rel=1e-3)
    assert intervention(sae, host, every, 2, HOOK).kl_plus != pytest.approx(rest.kl_plus, rel=1e-3)
