"""Cards against the codes of the same activations, token by token."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import rsae
from evals.firings import GAP, Texts
from evals.latents import BARS, Extent, Vocabulary, by_density, cards, count, parse_latents
from rsae import InputError, harvest
from tests.rsae.helpers import random_sae

EXTENT = Extent(contexts=4, intervals=3, each=2, around=3, logits=5)


@pytest.fixture(scope="module")
def excluding(harvest_config, host, tmp_path_factory):
    """A store without the letter e."""
    return harvest(
        replace(harvest_config, exclude_tokens=("e",)), tmp_path_factory.mktemp("no-e") / "s", host
    )


def made(sae, store, host, latents):
    with torch.no_grad():
        z_NF = sae.encode(torch.cat(list(store.blocks("heldout"))))
    counts = count(sae, store)
    words = Vocabulary(host, store.provenance)
    return z_NF, counts, words, cards(sae, store, latents, counts, words, EXTENT)


@pytest.mark.parametrize("name", ["top_k", "sign_aware_gated"])
def test_numbers_are_their_definitions(store, host, name):
    sae = random_sae(name, store)
    latents = [3, 0, 21]
    z_NF, counts, words, found = made(sae, store, host, latents)
    assert [card.latent for card in found] == latents
    np.testing.assert_array_equal(counts.fired_F, (z_NF != 0).sum(0))
    for card in found:
        z_N = z_NF[:, card.latent].double()
        assert card.density == (z_N != 0).double().mean().item()
        assert [side.sign for side in card.sides] == ([1, -1] if sae.signed else [1])
        for side in card.sides:
            size_N = (side.sign * z_N).clamp_min(0)
            assert side.density == (size_N > 0).double().mean().item()
            assert abs(side.max) == pytest.approx(size_N.max().item())
            if not side.density:
                assert side.intervals == side.contexts == side.values.counts == ()
                continue
            on = size_N[size_N > 0].numpy()
            # open below: a value on an edge belongs to the part below it
            edges = np.linspace(0, abs(side.max), BARS + 1)
            bars = [((on > low) & (on <= high)).sum() for low, high in pairwise(edges)]
            assert sum(side.values.counts) == len(on)
            assert np.abs(np.array(side.values.counts) - bars).sum() <= 2  # but for rounding at an edge
            assert [part.high for part in side.intervals] == pytest.approx(
                [abs(side.max) * i / 3 for i in (3, 2, 1)]
            )
            assert sum(part.share for part in side.intervals) == pytest.approx(1)
            assert side.intervals[-1].share >= 1 - side.density - 1e-12
            for part in side.intervals:
                inside = int(((on > part.low) & (on <= part.high * (1 + 1e-6))).sum())
                assert len(part.contexts) == min(2, inside)
                assert all(part.low <= abs(c.value) <= part.high * (1 + 1e-6) for c in part.contexts)
            effect_V = host.model.get_output_embeddings().weight @ (side.sign * sae.W_dec[card.latent])
            assert sum(side.logits.counts) == len(effect_V)
            assert (side.logits.low, side.logits.high) == pytest.approx(
                (effect_V.min().item(), effect_V.max().item())
            )
            assert [e.logit for e in side.promotes] == pytest.approx(effect_V.topk(5).values.tolist())
            assert side.suppresses[0].token == words.text(int(effect_V.argmin()))


@pytest.mark.parametrize("name", ["top_k", "sign_aware_gated"])
def test_contexts_are_the_text_with_the_code_at_each_token(store, host, name):
    sae = random_sae(name, store)
    z_NF, _, words, found = made(sae, store, host, [5, 30])
    texts = Texts(store, "heldout")
    for card in found:
        for side in card.sides:
            groups = [side.contexts, *(part.contexts for part in side.intervals)]
            size_N = (side.sign * z_NF[:, card.latent]).clamp_min(0)
            best = [
                size_N[texts.sequence_N == s].max().item() for s in range(texts.sequence_N.max() + 1)
            ]  # the largest value of each sequence
            expected = [v for v in sorted(best, reverse=True)[:4] if v > 0]
            assert [abs(c.value) for c in side.contexts] == pytest.approx(expected)
            for context in (c for group in groups for c in group):
                nearest = (size_N - abs(context.value)).abs()
                row = next(
                    n
                    for n in nearest.topk(4, largest=False).indices.tolist()
                    if context.tokens == tuple(words.text(int(texts.token_N[m])) for m in texts.window(n, 3))
                )
                window = texts.window(row, 3)
                assert window[context.at] == row
                values = side.sign * size_N[window.start : window.stop]
                assert list(context.values) == pytest.approx(values.tolist())


def test_left_out_tokens_are_marked(excluding, host):
    sae = random_sae("top_k", excluding)
    _, _, _, found = made(sae, excluding, host, list(range(20)))
    contexts = [c for card in found for side in card.sides for c in side.contexts]
    assert contexts
    assert any(GAP in c.tokens for c in contexts)
    for c in contexts:
        assert "e" not in c.tokens
        assert len(c.tokens) == len(c.values)
        assert c.values[c.at] == pytest.approx(c.value)
        assert all(v == 0 for t, v in zip(c.tokens, c.values, strict=True) if t == GAP)


def test_logits_only_where_the_row_writes_to_the_residual_stream(store, host):
    inside = replace(store.provenance, hook="blocks.1.attn.hook_z")
    assert Vocabulary(host, inside).unembedding_VD is None
    assert Vocabulary(host, store.provenance).unembedding_VD is not None


def test_activations_without_text_show_numbers(store):
    sae = random_sae("top_k", store)
    x = rsae.Store.of(torch.cat(list(store.blocks("heldout"))), heldout=0.5)
    counts = count(sae, x)
    (card,) = cards(sae, x, [by_density(counts.fired_F, 1)[0]], counts, None, EXTENT)
    assert card.sides[0].contexts == card.sides[0].promotes == ()
    assert card.sides[0].values.counts


def test_latents_in_words():
    assert parse_latents(" 3, 17,40 ") == [3, 17, 40]
    with pytest.raises(InputError, match="such as 3,17,40"):
        parse_latents("3;17")
