"""What is kept of firings against sorting all of them at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evals.firings import Best, Texts, at_random, entries, values_at
from tests.rsae.helpers import random_sae

ENTRY = st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 4))  # group, key, sequence


@given(
    st.lists(ENTRY, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(1, 4),
    st.booleans(),
)
def test_best_is_a_sort_of_everything_however_it_is_cut(given_, cuts, most, once):
    best = Best(most, once)
    rows = [(g, k, s, row) for row, (g, k, s) in enumerate(given_)]
    edges = sorted({0, len(rows), *(c for c in cuts if c <= len(rows))})
    for low, high in pairwise(edges):
        part = np.array(rows[low:high]).T
        best.add(part[0], part[1].astype(float), part[3], part[1].astype(float), part[2])
    for group in range(4):
        mine = [r for r in rows if r[0] == group]
        # the larger key first; of equal ones the earlier sequence where each has one entry, else the earlier row
        mine.sort(key=lambda r: (-r[1], r[2] if once else 0, r[3]))
        kept, seen = [], set()
        for r in mine:
            if not once or r[2] not in seen:
                kept.append(r)
                seen.add(r[2])
        assert best.of(group)[0].tolist() == [r[3] for r in kept[:most]]


def test_random_keys_are_uniform_and_belong_to_their_pair():
    row, other = np.divmod(np.arange(40_000), 200)
    key = at_random(row, other)
    assert ((key >= 0) & (key < 1)).all()
    assert len(np.unique(key)) == len(key)
    # Kolmogorov-Smirnov: the largest distance from uniform, of 40,000 numbers, is below 0.01 but in one case in 1000
    assert np.abs(np.sort(key) - (np.arange(len(key)) + 0.5) / len(key)).max() < 0.01
    for column in (row, other):
        means = np.bincount(column, key) / np.bincount(column)
        assert abs(means - 0.5).max() < 0.12
    order = np.random.default_rng(0).permutation(len(key))
    np.testing.assert_array_equal(at_random(row[order], other[order]), key[order])
    assert np.abs(np.corrcoef(key, at_random(row, other, seed=1))[0, 1]) < 0.02


def test_texts_know_which_rows_belong_together(store):
    texts = Texts(store, "heldout")
    assert len(texts.token_N) == store.tokens("heldout")
    for row in range(0, len(texts.token_N), 37):
        window = texts.window(row, 5)
        expected = [
            n
            for n in range(len(texts.token_N))
            if texts.sequence_N[n] == texts.sequence_N[row]
            and abs(int(texts.position_N[n]) - int(texts.position_N[row])) <= 5
        ]
        assert list(window) == expected
    assert (np.diff(texts.sequence_N) >= 0).all()
    starts = np.flatnonzero(np.diff(texts.sequence_N)) + 1
    assert (texts.position_N[starts] == 1).all()


@pytest.mark.parametrize("name", ["top_k", "sign_aware_gated"])
def test_entries_are_the_code(store, name):
    sae = random_sae(name, store)
    x = torch.cat(list(store.blocks("heldout")))
    with torch.no_grad():
        z = sae.encode(x)
    chosen = [7, 3, 11]
    dense = torch.zeros(len(x), 3)
    for found in entries(sae, store, "heldout", chosen, "test"):
        dense[found.row_N, found.latent_N] = torch.as_tensor(found.value_N)
        np.testing.assert_array_equal(found.side_N % 2 == 1, found.value_N < 0)
    torch.testing.assert_close(dense, z[:, chosen])
    rng = np.random.default_rng(0)
    row, latent = rng.integers(0, len(x), 60), rng.integers(0, sae.d_sae, 60)
    got = values_at(sae, store, "heldout", row, latent, "test")
    np.testing.assert_allclose(got, z[row, latent].numpy(), rtol=1e-6)
