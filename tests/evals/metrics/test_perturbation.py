"""TPP and SCR on planted concepts, and against ablation token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import evals as library
import rsae
from evals.labelled import Labelled, load_classes
from evals.metrics.codes import row_unit
from evals.metrics.perturbation import Pooled, effects, perturb, pool, remove
from evals.metrics.probing import labelled_data, text_activations
from rsae import InputError
from rsae.sae.input_norm import InputNorm
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.evals.helpers import HOOK, exact_sae
from tests.rsae.helpers import random_sae


def planted(classes: int, d_in: int = 8, texts: int = 400, seed: int = 0, crossed: bool = False) -> Pooled:
    """Codes that are the activations' coordinates; class c lifts coordinate c, a crossed label moves it either way."""
    rng = np.random.default_rng(seed)
    if crossed:
        label = rng.integers(0, 2, (texts, 2)).astype(bool)
    else:
        label = np.eye(classes, dtype=bool)[rng.integers(0, classes, texts)]
    x = rng.normal(scale=0.3, size=(texts, d_in))
    x[:, : label.shape[1]] += 2.0 * label - (1.0 if crossed else 0.0)
    z = np.concatenate([x.clip(0), (-x).clip(0)], axis=1)
    rows = np.concatenate([np.eye(d_in), -np.eye(d_in)])
    return Pooled(x, z, rows, label, np.arange(texts) < texts // 2, False)


@settings(max_examples=20)
@given(st.integers(0, 50), st.integers(3, 5))
def test_a_latent_a_class_is_taken_out_alone(seed, classes):
    found = perturb(planted(classes, seed=seed), [str(c) for c in range(classes)], (1, 16))
    one, all_ = found.by_number
    assert min(found.clean) > 0.97
    assert one.intended > 0.2
    assert abs(one.unintended) < 0.1
    assert one.score == pytest.approx(one.intended - one.unintended)
    # all latents that are more on for the class: its probe is a coin, the others see theirs
    assert all_.intended == pytest.approx(0.5, abs=0.05)
    assert all_.unintended < 0.2


@settings(max_examples=20)
@given(st.integers(0, 50))
def test_the_spurious_concept_is_taken_out(seed):
    data = planted(0, seed=seed, crossed=True)
    found = remove(data, ("a", "b"), (2,))  # two latents hold a concept, one for each way
    assert min(found.clean) > 0.97
    assert max(found.biased) < 0.95
    (one,) = found.by_number
    assert one.first > 0.9
    assert one.second > 0.9
    assert one.score == (one.first if found.biased[0] < found.biased[1] else one.second)


def test_where_the_bias_costs_nothing_there_is_nothing_to_recover():
    """The second concept cannot be read, so that the biased probe reads the first one alone."""
    data = planted(0, crossed=True)
    x = data.x_TD * np.array([10, 0, 1, 1, 1, 1, 1, 1])
    z = np.concatenate([x.clip(0), (-x).clip(0)], axis=1)
    found = remove(Pooled(x, z, data.W_FD, data.label_TC, data.is_train_T, False), ("a", "b"), (2,))
    assert found.clean[0] == found.biased[0] == 1
    assert found.by_number[0].first == 0


@pytest.mark.parametrize("norm", [None, "layer_norm", "constant_norm_rescale"])
def test_ablation_is_that_of_every_token(host, store, norm):
    """x - decode(z) + decode(z without the latents), pooled, as SAEBench has it."""
    sae = random_sae("top_k", store)
    sae.input_norm = None if norm is None else InputNorm(norm)
    labels = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    texts = ("one two three", "a longer text here", "zeta", "omega light")
    labelled = Labelled("t", texts, labels, np.array([1, 1, 0, 0], bool), ("a", "b"))
    data = pool(sae, labelled_data(host, HOOK, labelled, 16))
    latents = np.array([3, 7, 11, 20, 21, 22, 30])
    x, number, _ = text_activations(host, HOOK, texts, 16, float("inf"), (), "t")
    with torch.no_grad():
        z = sae.encode(x)
        without = z.clone()
        without[:, latents] = 0
        ablated = x - sae.decode(z, x) + sae.decode(without, x)
        assert (without != z).any()
    for text in range(4):
        own = ablated[number == text].mean(0).numpy()
        np.testing.assert_allclose(data.ablated(latents)[text], own, rtol=1e-3, atol=1e-4)
    assert norm is None or torch.as_tensor(row_unit(sae, x)).shape == (len(x), 1)


def test_probes_and_effects_are_their_definitions():
    data = planted(3)
    y, train = data.label_TC[:, 0], data.is_train_T
    found = perturb(data, ["a", "b", "c"], (1,))
    unit = np.linalg.norm(data.x_TD[train], axis=1).mean() / np.sqrt(8)
    model = LogisticRegression(max_iter=1000, class_weight="balanced").fit(data.x_TD[train] / unit, y[train])
    test = ~train
    right = model.predict(data.x_TD[test] / unit) == y[test]
    assert found.clean[0] == pytest.approx((right[y[test]].mean() + right[~y[test]].mean()) / 2)
    weight = np.arange(8.0)
    got = effects(data, weight, y, train)
    for latent in range(16):
        z = data.z_TF[:, latent]
        assert got[latent] == pytest.approx(
            (z[train & y].mean() - z[train & ~y].mean()) * (data.W_FD[latent] @ weight)
        )


def test_texts_are_balanced_and_parted_by_source(tmp_path):
    file = tmp_path / "texts.csv"
    rows = [f"text {i} of {'abc'[i % 3]},{'abc'[i % 3]},{i // 6},{'xy'[i % 2]}" for i in range(600)]
    file.write_text("\n".join(["text,label,source,label2", *rows, rows[0]]))
    found = library.load_classes(str(file), 30, 12)
    assert found.classes == ("a", "b", "c")
    for split in (True, False):
        counts = found.label_TC[found.is_train_T == split].sum(0)
        assert len(set(counts)) == 1
        assert counts[0] == (30 if split else 12)
    sources = [
        {int(t.split()[1]) // 6 for t, tr in zip(found.texts, found.is_train_T, strict=True) if tr == s}
        for s in (1, 0)
    ]
    assert not sources[0] & sources[1]
    assert len(set(found.texts)) == len(found.texts)
    two = tmp_path / "two.csv"
    rows = [f"text {i},{'ab'[i % 2]},{'xy'[i // 2 % 2]}" for i in range(400)]
    two.write_text("\n".join(["text,label,label2", *rows]))
    crossed = library.load_crossed(str(two), 20, 10)
    assert crossed.classes == ("b", "y")
    kinds, counts = np.unique(crossed.label_TC[crossed.is_train_T], axis=0, return_counts=True)
    assert (len(kinds), set(counts)) == (4, {20})
    with pytest.raises(InputError, match="two values"):
        library.load_crossed(str(file))
    with pytest.raises(InputError, match="did you mean 'wiki_topics'"):
        load_classes("wiki_topic")


def test_embedded_sets():
    for name in ("wiki_topics", "languages", "agnews", "code"):
        found = load_classes(name, 12, 10)
        assert len(found.classes) >= 3
        assert found.label_TC.sum(1).max() == 1
    crossed = library.load_crossed("people_french", 12, 10)
    assert crossed.label_TC.sum(0).tolist() == [44, 44]


def test_the_command(host, store, host_directory, tmp_path):
    sae = exact_sae(host.d_model)
    sae.provenance = store.provenance
    rsae.save(sae, tmp_path / "sae")
    file = tmp_path / "t.csv"
    rows = [
        f"{'red' if i % 2 else 'blue'} {'one' if i // 2 % 2 else 'two'} {i},{i % 2},{i // 2 % 2}"
        for i in range(200)
    ]
    file.write_text("\n".join(["text,label,label2", *rows]))
    done = evals(
        "perturb", tmp_path / "sae", "--classes", file, "--crossed", file, "--markdown", "--context", "16"
    )
    assert done.returncode == 0, done.stderr
    assert "| latents | score | intended | unintended |" in done.stdout
    assert_one_clear_line(evals("perturb", tmp_path / "sae"), "--classes wiki_topics")
    with pytest.raises(InputError, match="two labels"):
        library.spurious_removal(sae, host, load_classes(str(file), 20, 10))
