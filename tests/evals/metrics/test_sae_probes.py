"""The sets of sae-probes: names, splits, leakage, probes against plain renderings of the package's rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import evals as library
import rsae
from evals.metrics.sae_probes import (
    STRENGTHS,
    auc_interval,
    clean_split,
    probe_scores,
    ranking,
    sae_probe_sets,
    scores,
    their_split,
)
from rsae import InputError
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.evals.helpers import HOOK, exact_sae


def planted(texts: int = 300, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.random(texts) < 0.5
    z = rng.exponential(size=(texts, 12)) * (rng.random((texts, 12)) < 0.5)
    z[:, 4] += 2 * y
    return y, z


def test_all_sets_are_there():
    names = sae_probe_sets()
    assert len(names) == 113
    assert "96_spam_is" in names


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(150, 400))
def test_splits(seed, texts):
    rng = np.random.default_rng(seed)
    y = rng.random(texts) < 0.5
    keys = [f"text {i}" for i in rng.integers(0, texts // 2, texts)]  # half of them twice
    train, test = their_split(y, seed % 1000)
    assert not set(train) & set(test)
    assert len(train) <= texts - 100
    assert abs(y[train].mean() - 0.5) < 0.15
    train, test = clean_split(keys, y, seed % 1000)
    assert not {keys[i] for i in train} & {keys[i] for i in test}
    for part in (train, test):
        assert len({keys[i] for i in part}) == len(part)
        assert y[part].sum() * 2 == len(part)


def test_their_split_is_the_packages():
    """Of utils_data.get_train_test_indices, sae-probes 0.4.2, line by line."""
    y = np.random.default_rng(0).random(700) < 0.5
    rng = np.random.RandomState(42)
    pos, neg = np.where(y == 1)[0], np.where(y == 0)[0]
    num_train, num_test = 600, 99
    train_pos = rng.choice(pos, size=300, replace=False)
    train_neg = rng.choice(neg, size=300, replace=False)
    test_pos = rng.choice(np.setdiff1d(pos, train_pos), size=min(50, len(pos) - 300), replace=False)
    test_neg = rng.choice(np.setdiff1d(neg, train_neg), size=min(49, len(neg) - 300), replace=False)
    train = rng.permutation(np.concatenate([train_pos, train_neg]))
    test = rng.permutation(np.concatenate([test_pos, test_neg]))
    assert num_train + num_test == 699
    got = their_split(y, 42)
    np.testing.assert_array_equal(got[0], train)
    np.testing.assert_array_equal(got[1], test)


def test_a_probe_is_its_definition():
    y, z = planted()
    train, test = np.arange(200), np.arange(200, 300)
    assert ranking(z[train], y[train])[0] == 4
    got = probe_scores(z[:, :6], y, train, test, True, 42)
    best, chosen = -1.0, 0.0
    for strength in STRENGTHS:  # the last 40 training texts choose
        model = LogisticRegression(C=strength, l1_ratio=1.0, solver="saga", random_state=42, max_iter=1000)
        model.fit(z[:160, :6], y[:160])
        value = roc_auc_score(y[160:200], model.predict_proba(z[160:200, :6])[:, 1])
        if value > best:
            best, chosen = value, strength
    model = LogisticRegression(C=chosen, l1_ratio=1.0, solver="saga", random_state=42, max_iter=1000)
    says = model.fit(z[train, :6], y[train]).predict_proba(z[test, :6])[:, 1]
    assert got.auc == pytest.approx(roc_auc_score(y[test], says), abs=1e-6)
    assert got.auc > 0.8
    assert got.auc_interval.low < got.auc < got.auc_interval.high


def test_the_interval_covers_the_truth():
    """AUC of two normals one apart is 0.7602; the interval holds it about 95 times of 100."""
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(200):
        y = np.arange(120) < 60
        found = auc_interval(y, rng.normal(size=120) + y)
        inside.append(found.low <= 0.7602 <= found.high)
    assert 0.88 < np.mean(inside) <= 0.99


def test_leakage_is_seen_and_the_clean_split_has_none():
    y, z = planted(400)
    texts = [f"Text {i}" for i in range(200)] + [f"text  {i}" for i in range(200)]
    y[200:] = y[:200]
    found = scores("t", texts, y, z, z, (1,))
    assert found.theirs.leaked > 0.3
    assert found.clean.leaked == 0
    assert found.clean.by_number[1].auc > 0.8


def test_on_a_host(host):
    found = library.sae_probes(exact_sae(host.d_model), host, ["96_spam_is"], (1,), context=32, hook=HOOK)
    (one,) = found
    assert one.name == "96_spam_is"
    assert one.theirs.train == 1024
    assert 0 <= one.clean.by_number[1].auc <= 1
    assert one.clean.dense.auc > 0.6
    with pytest.raises(InputError, match="did you mean '96_spam_is'"):
        library.sae_probes(exact_sae(host.d_model), host, ["96_spam_si"], hook=HOOK)


def test_the_command(host, store, tmp_path):
    sae = exact_sae(host.d_model)
    sae.provenance = store.provenance
    rsae.save(sae, tmp_path / "sae")
    arguments = ("--set", "96_spam_is", "--k", "1", "--context", "16", "--json", tmp_path / "j", "--markdown")
    done = evals("sae-probes", tmp_path / "sae", *arguments)
    assert done.returncode == 0, done.stderr
    assert "| 96_spam_is |" in done.stdout
    assert (tmp_path / "j").exists()
    assert_one_clear_line(evals("absorption", tmp_path / "sae"), "words of one token")


def test_more_latents_than_there_are_is_told_before_the_work(host):
    sae = rsae.new("top_k", rsae.Store.of(torch.randn(100, host.d_model)), d_sae=20, k=3)
    with pytest.raises(InputError, match="the SAE has 20"):
        library.sae_probes(sae, host, names=["96_spam_is"], numbers=(50,), hook="blocks.1.hook_resid_pre")
