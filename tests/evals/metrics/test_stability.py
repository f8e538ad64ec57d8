"""Matches of latents against trying all of them, and what must not change them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rsae
from evals.metrics.stability import cosines, matched, stability
from rsae import AbsTopK, InputError, ReLU
from tests.rsae.helpers import random_sae


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_the_match_is_the_best_of_all(seed, first, second, signed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, 4, generator=generator) for n in (first, second))
    cosine = cosines(a, b, signed)
    for i in range(first):
        for j in range(second):
            own = (a[i] @ b[j] / a[i].norm() / b[j].norm()).item()
            assert cosine[i, j].item() == pytest.approx(abs(own) if signed else own, abs=1e-5)
    row, column = matched(cosine)
    few, many = sorted((first, second))
    table = cosine.numpy() if first <= second else cosine.numpy().T
    best = max(sum(table[i, p[i]] for i in range(few)) for p in permutations(range(many), few))
    assert cosine[row, column].sum().item() == pytest.approx(best, abs=1e-5)


@given(st.integers(0, 10_000))
def test_order_and_scale_of_latents_change_nothing(seed):
    """Latents in another order and, of a signed SAE, with reversed signs are the same latents."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 8, generator=generator)
    rows = rsae.Store.of(torch.cat([x, x]), heldout=200)
    for make in (lambda: ReLU(8, 12), lambda: AbsTopK(8, 12, 3)):
        one = make().eval()
        one.W_enc.data = torch.randn(8, 12, generator=generator)
        one.W_dec.data = torch.randn(12, 8, generator=generator)
        other = make().eval()
        order = torch.randperm(12, generator=generator)
        sign = torch.randint(0, 2, (12,), generator=generator) * 2 - 1 if one.signed else torch.ones(12)
        other.W_enc.data = (one.W_enc * sign)[:, order]
        other.W_dec.data = 2 * (one.W_dec * sign[:, None])[order]
        found = stability(one, other, rows)
        assert found.cosine == pytest.approx(1, abs=1e-5)
        assert found.kept == found.overlap == 1
        assert order[torch.tensor(found.match_F)].tolist() == list(range(12))
        own = stability(one, one, rows)
        assert own.in_place == 1
        assert found.by_chance == pytest.approx(own.by_chance)


def test_figures_are_their_definitions(store):
    one, other = (random_sae("top_k", store, seed=seed) for seed in (0, 1))
    found = stability(one, other, store)
    x = torch.cat(list(store.blocks("heldout")))
    with torch.no_grad():
        a, b = one.encode(x) != 0, other.encode(x) != 0
    overlaps = []
    for latent, match in enumerate(found.match_F):
        both, either = (a[:, latent] & b[:, match]).sum().item(), (a[:, latent] | b[:, match]).sum().item()
        if either:
            overlaps.append(both / either)
            assert found.overlap_F[latent] == pytest.approx(overlaps[-1])
        else:
            assert found.overlap_F[latent] is None
    assert found.overlap == pytest.approx(np.mean(overlaps))
    assert found.cosine == pytest.approx(np.mean(found.cosine_F))
    assert found.kept == np.mean([c >= 0.7 for c in found.cosine_F])
    assert sorted(found.match_F) == list(range(40))
    # random rows are as alike as random rows are
    assert abs(found.cosine - found.by_chance) < 0.1


def test_widths_and_kinds(store):
    narrow, wide = random_sae("top_k", store, d_sae=20), random_sae("top_k", store, d_sae=40, seed=1)
    found = stability(wide, narrow, store)
    assert found.in_place is None
    assert found.match_F.count(-1) == 20
    assert found.cosine == pytest.approx(stability(narrow, wide, store).cosine, abs=1e-6)
    with pytest.raises(InputError, match="signed"):
        stability(narrow, random_sae("sign_aware_gated", store), store)
