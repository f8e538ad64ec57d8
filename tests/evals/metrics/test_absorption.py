"""Absorption on planted words, and against SAEBench's rule word by word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.metrics.absorption import absorbed, of_word, own_latents, vocabulary
from rsae import InputError


def saebenchs_rule(x, z, rows, probe, own):
    """The text of FeatureAbsorptionCalculator.calculate_absorption, latent by latent in plain Python, for unit rows."""
    cos = [float(np.dot(r, probe) / np.linalg.norm(r)) for r in rows]
    projection = [a * c for a, c in zip(z, cos, strict=True)]
    total = float(np.dot(x, probe))
    main = sum(projection[f] for f in own)
    absorbers = [p for f, p in enumerate(projection) if f not in own and cos[f] >= 0.1 and p > 0]
    absorbers = sum(sorted(absorbers, reverse=True)[:3])
    if main >= total or absorbers / total < 0.4:
        fraction = 0.0
    elif main <= 0.0:
        fraction = 1.0
    else:
        taken = min(absorbers, total - main)
        fraction = float(np.clip(taken / (taken + main), 0.0, 1.0))
    top = max(range(len(projection)), key=lambda f: projection[f])
    full = all(z[f] < 1e-8 for f in own) and cos[top] >= 0.025 and total >= 0
    return fraction, full and projection[top] / total >= 0.4


@settings(max_examples=200)
@given(st.integers(0, 10**6))
def test_a_word_is_judged_as_saebench_does(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(12, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    z = rng.exponential(size=12) * (rng.random(12) < 0.4)
    probe = rng.normal(size=5)
    probe /= np.linalg.norm(probe)
    x = z @ rows + 0.3 * rng.normal(size=5)
    own = rng.choice(12, rng.integers(1, 4), replace=False).tolist()
    fraction, full = of_word(x, z, rows, probe, own)
    expected = saebenchs_rule(x, z, rows, probe, own)
    assert fraction == pytest.approx(expected[0])
    assert full == expected[1]
    # rows of any norm: the same SAE with its latents scaled is judged alike
    factor = rng.uniform(0.1, 10, 12)
    scaled = of_word(x, z * factor, rows / factor[:, None], probe, own)
    assert scaled[0] == pytest.approx(fraction)
    assert scaled[1] == full
    # and the same SAE with latents of the other sign: a negative code of the reversed row
    sign = rng.choice([-1, 1], 12)
    flipped = of_word(x, z * sign, rows * sign[:, None], probe, own)
    assert flipped[0] == pytest.approx(fraction)
    assert flipped[1] == full


def planted(absorbing: bool, words: int = 600, seed: int = 0):
    """Words of three letters in 8 dimensions: a direction a letter; latent 3 stands for some words of the first."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abc"))[rng.integers(0, 3, words)]
    rows = np.eye(8)
    word = (letters == "a") & (rng.random(words) < 0.4)
    x = rng.normal(scale=0.05, size=(words, 8))
    z = np.zeros((words, 4))
    for i, letter in enumerate("abc"):
        x[letters == letter, i] += 1
        z[letters == letter, i] = 1
    x[word, 3] += 1
    z[word, 3] = 1
    decoder = rows[:4].copy()
    if absorbing:  # the word's latent holds the letter too, and the letter's is silent there
        z[word, 0] = 0
        decoder[3] = rows[3] + rows[0]
    return x, z, decoder, letters, word


def test_absorption_is_found_where_it_is_planted():
    clean = absorbed(*planted(False)[:4])
    assert clean.fraction < 0.05
    assert clean.full < 0.05
    assert [one.latents for one in clean.letters] == [(0,), (1,), (2,)]
    x, z, decoder, letters, word = planted(True)
    # the letter's own latent, with one only: a second would be the absorbing one itself
    test = np.arange(len(letters)) % 5 == 0
    probe = np.zeros(8)
    probe[0] = 1
    judged = [of_word(x[w], z[w], decoder, probe, [0]) for w in np.flatnonzero(test & (letters == "a"))]
    absorbing = word[test & (letters == "a")]
    for (fraction, full), planted_ in zip(judged, absorbing, strict=True):
        assert fraction == (1.0 if planted_ else 0.0)
        assert full == planted_


def test_a_letter_takes_a_latent_more_where_it_needs_one():
    _, z, _, letters, _ = planted(True)
    part = np.arange(len(letters)) % 5
    assert own_latents(z, [0, 3, 1, 2], letters == "a", part > 1, part == 1) == [0, 3]
    _, z, _, letters, _ = planted(False)
    assert own_latents(z, [0, 3, 1, 2], letters == "a", part > 1, part == 1) == [0]


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_the_scale_of_a_latent_and_its_sign_do_not_matter(seed):
    """They decide which latents are a letter's own, and they are no property of the SAE."""
    x, z, decoder, letters, _ = planted(True)
    rng = np.random.default_rng(seed)
    factor = np.exp(1.5 * rng.normal(size=4)) * rng.choice([-1, 1], 4)
    found = absorbed(x, z, decoder, letters)
    other = absorbed(x, z * factor, decoder / factor[:, None], letters)
    assert [one.latents for one in other.letters] == [one.latents for one in found.letters]
    assert (other.fraction, other.full) == pytest.approx((found.fraction, found.full))


def test_too_few_words(host):
    x, z, decoder, letters, _ = planted(False, words=30)
    with pytest.raises(InputError, match="read more words"):
        absorbed(x, z, decoder, letters)
    assert vocabulary(host) == []  # bytes are no words
