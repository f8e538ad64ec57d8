"""Probes on data with a planted answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.metrics.probing import ProbeData, accuracy, baseline, pooled, probe, probe_data
from evals.stand_ins import wrap
from evals.tasks import Task
from rsae import SoftRational
from rsae.activations.hooks import pad
from tests.evals.helpers import HOOK, exact_sae
from tests.rsae.helpers import random_sae


def planted(feature: int, d_in: int = 6, texts: int = 120, seed: int = 0) -> ProbeData:
    """Texts of three tokens; coordinate `feature` is high in positives only, all else is noise."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, texts)
    x = rng.normal(size=(texts, 3, d_in))
    x[:, :, feature] += 4 * label[:, None]
    return ProbeData(
        torch.tensor(x.reshape(-1, d_in), dtype=torch.float32),
        torch.arange(texts).repeat_interleave(3).int(),
        label,
        np.arange(texts) < 80,
    )


@pytest.mark.parametrize("feature", [0, 4])
def test_probe_finds_the_planted_latent(feature):
    data = planted(feature)
    got = probe(exact_sae(6), data, k=(1, 2, 5))
    assert got.accuracy[1].value >= 0.97
    assert baseline(data).dense.value >= 0.97
    assert (baseline(data).train, baseline(data).test) == (80, 40)


def test_a_shuffled_code_tells_no_label():
    """Texts stand in the order of their labels: shuffled among its neighbours a code of 1 in 4 tokens told them."""
    rng, texts = np.random.default_rng(0), 600
    label = np.repeat([0, 1, 0, 1], [200, 200, 100, 100])
    x_ND = torch.tensor(rng.random((texts * 16, 6)) * 0.1, dtype=torch.float32)
    text_N = torch.arange(texts).repeat_interleave(16).int()
    x_ND[:, 2] += torch.tensor((label[text_N] == 1) & (rng.random(len(text_N)) < 0.25))
    data = ProbeData(x_ND, text_N, label, np.arange(texts) < 400)
    sae = exact_sae(6)
    shuffled = wrap("shuffled", sae)
    assert shuffled is not None
    assert probe(sae, data, k=(1,)).accuracy[1].value > 0.95
    assert 0.35 < probe(shuffled, data, k=(1,)).accuracy[1].value < 0.65


def test_more_latents_and_the_dense_code_stand_beside(store):
    sae = random_sae("soft_rational", store)
    data = planted(2, d_in=store.d_in)
    got = probe(sae, data)
    soft = got.others["soft"]
    assert got.accuracy.keys() == soft.keys() == {1, 2, 5, 20}
    assert isinstance(sae, SoftRational)
    sae.tau.zero_()
    assert probe(sae, data).accuracy == soft


def test_the_interval_covers_the_accuracy():
    """Near a resampling of the texts one by one; over many test sets it covers the truth about 95 % of the time."""
    rng = np.random.default_rng(3)
    correct = rng.random(200) < 0.8
    found = accuracy(correct)
    assert found.value == correct.mean()
    means = [rng.choice(correct, len(correct)).mean() for _ in range(2000)]
    assert [found.low, found.high] == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.015)
    for right, texts in ((0.8, 200), (0.98, 50), (0.98, 200)):  # where all are right, too
        covered = [
            a.low <= right <= a.high for a in (accuracy(rng.random(texts) < right) for _ in range(300))
        ]
        assert 0.88 < np.mean(covered) <= 0.99, (right, texts)


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_the_scale_of_a_latent_does_not_matter(seed):
    """What a latent gives to its code and takes from its decoder row leaves the function as it is."""
    data, sae = planted(1), exact_sae(6)
    factor = torch.exp(torch.randn(12, generator=torch.Generator().manual_seed(seed)))
    other = exact_sae(6)
    with torch.no_grad():
        other.W_enc *= factor
        other.encoder_bias.mul_(factor)
        other.W_dec /= factor[:, None]
    torch.testing.assert_close(other(data.x_ND), sae(data.x_ND))
    assert probe(other, data, k=(1, 2, 5)).accuracy == probe(sae, data, k=(1, 2, 5)).accuracy


def test_more_latents_than_there_are_cannot_be_probed():
    assert probe(exact_sae(6), planted(1), k=(1, 12, 13)).accuracy.keys() == {1, 12}


def test_probe_on_noise_is_a_coin():
    data = planted(0)
    rng = np.random.default_rng(1)
    shuffled = ProbeData(data.x_ND, data.text_N, rng.permutation(data.label_T), data.is_train_T)
    assert 0.25 < probe(exact_sae(6), shuffled).accuracy[1].value < 0.75


def test_pooling_is_the_mean_of_the_code_over_a_texts_tokens():
    data, sae = planted(1), exact_sae(6)
    z = pooled(sae.encode, data, rows=7)
    for text in (0, 57, 119):
        rows = data.x_ND[data.text_N == text]
        np.testing.assert_allclose(z[text], sae.encode(rows).mean(0).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_codes_of_any_precision_are_added_up_exactly(dtype):
    """A code in bfloat16 is rounded, not its sums: all tokens of a text lie in one block here."""
    data, sae = planted(1), exact_sae(6)
    z_NF = sae.encode(data.x_ND).detach().to(dtype)
    z = pooled(lambda x_BD: sae.encode(x_BD).to(dtype), data, rows=10_000)
    want = torch.stack([z_NF[data.text_N == text].double().mean(0) for text in range(len(data.label_T))])
    np.testing.assert_allclose(z, want.numpy(), rtol=1e-6, atol=1e-9)


def test_probe_data_leaves_out_position_0_and_padding(host):
    task = Task("t", (["one two", "a longer text here"], np.array([0, 1])), (["three"], np.array([1])))
    data = probe_data(host, HOOK, task, context=16)
    assert torch.bincount(data.text_N).tolist() == [
        len("one two") - 1,
        15,
        len("three") - 1,
    ]  # bytes are tokens
    tokens, mask = pad([list(host.tokenizer("three")["input_ids"])])
    hidden = host.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states[2][
        0, 1:
    ]
    torch.testing.assert_close(data.x_ND[data.text_N == 2], hidden, rtol=1e-4, atol=1e-5)
    assert data.is_train_T.tolist() == [True, True, False]


def test_excluded_tokens_are_no_part_of_a_text(host):
    """A text's mean is over the others; a text of such tokens alone is left out."""
    texts = ["one two three", "a longer text here", "xeeee"]
    task = Task("t", (texts, np.array([0, 1, 1])), (["three"], np.array([1])))
    (e,) = host.token_ids(["e"])
    every, some = probe_data(host, HOOK, task, 32), probe_data(host, HOOK, task, 32, exclude_tokens=(e,))
    sae = exact_sae(host.d_model)
    z, z_some = pooled(sae.encode, every), pooled(sae.encode, some)
    assert (len(z), len(z_some)) == (4, 3)
    assert some.label_T.tolist() == [0, 1, 1]
    for row, text in enumerate((0, 1, 3)):
        words = (*texts, "three")[text]
        kept = torch.tensor([letter != "e" for letter in words[1:]])
        codes = sae.encode(every.x_ND[every.text_N == text][kept]).mean(0)
        np.testing.assert_allclose(z_some[row], codes.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_probe_data_round_trip(tmp_path):
    data = planted(2)
    data.save(tmp_path / "p.safetensors")
    again = ProbeData.load(tmp_path / "p.safetensors")
    assert probe(exact_sae(6), again) == probe(exact_sae(6), data)
