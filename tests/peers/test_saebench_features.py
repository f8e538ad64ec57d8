"""SAEBench's own code of TPP, SCR and absorption beside ours: the same latents, activations and verdicts."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evals.metrics.absorption import of_word
from evals.metrics.perturbation import effects, pool
from evals.metrics.probing import ProbeData
from tests.rsae.helpers import random_sae

TEXTS, LENGTH, D, F = 24, 6, 16, 40


@pytest.fixture(params=["relu", "top_k", "jump_relu"])
def planted(request):
    """Tokens of two classes, an SAE, and a probe; the last two tokens of some texts are padding."""
    generator = torch.Generator().manual_seed(5)
    label_T = torch.arange(TEXTS) % 2 == 0
    x_TLD = torch.randn(TEXTS, LENGTH, D, generator=generator) + label_T[:, None, None] * torch.randn(
        D, generator=generator
    )
    kept_TL = torch.ones(TEXTS, LENGTH, dtype=torch.bool)
    kept_TL[::3, -2:] = False
    sae = random_sae(request.param, d_in=D, d_sae=F)
    weight_D = torch.randn(D, generator=generator)
    text_TL = torch.arange(TEXTS)[:, None].expand(TEXTS, LENGTH)
    labels = torch.stack([label_T, ~label_T], 1).numpy()
    data = ProbeData(x_TLD[kept_TL], text_TL[kept_TL].int(), labels, np.ones(TEXTS, bool))
    return sae, data, x_TLD * kept_TL[..., None], label_T, weight_D


def theirs(sae):
    """An SAE that takes [texts, tokens, dimensions], as theirs do."""
    flat = lambda x: (sae.encode(x.reshape(-1, D)) if x.any() else x).reshape(*x.shape[:-1], F)  # noqa: E731
    return SimpleNamespace(
        W_dec=sae.W_dec, encode=flat, decode=lambda z: sae.decode(z.reshape(-1, F)).reshape(*z.shape[:-1], D)
    )


@pytest.mark.parametrize("spurious", [False, True])
@torch.no_grad()
def test_the_same_latents_speak_for_a_probe(planted, spurious):
    from sae_bench.evals.scr_and_tpp.main import get_effects_per_class_precomputed_acts
    from sae_bench.evals.sparse_probing import probe_training
    from sae_bench.sae_bench_utils import dataset_info

    sae, data, x_TLD, label_T, weight_D = planted
    first, second = (
        ("male / female", dataset_info.PAIRED_CLASS_KEYS["male / female"]) if spurious else ("a", "b")
    )
    probe = probe_training.Probe(D, torch.float32)
    probe.net.weight.data = weight_D[None].clone()
    acts = {first: x_TLD[label_T], second: x_TLD[~label_T]}
    found_F = get_effects_per_class_precomputed_acts(theirs(sae), probe, first, acts, spurious, 5).numpy()
    pooled = pool(sae, data)
    ours_F = effects(pooled, weight_D.double().numpy(), label_T.numpy(), data.is_train_T)
    if spurious:
        ours_F = np.abs(ours_F)
    else:  # as `perturb` has it for codes of one sign
        gap_F = pooled.z_TF[label_T.numpy()].mean(0) - pooled.z_TF[~label_T.numpy()].mean(0)
        ours_F = np.where(gap_F > 0, ours_F, 0.0)
    assert (ours_F != 0).sum() > 5
    np.testing.assert_allclose(ours_F, found_F, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_same_activations_are_left(planted):
    from sae_bench.evals.scr_and_tpp.main import ablated_precomputed_activations

    sae, data, x_TLD, *_ = planted
    pooled = pool(sae, data)
    latents = np.argsort(-pooled.z_TF.mean(0))[:7]
    left = ablated_precomputed_activations(x_TLD, theirs(sae), torch.as_tensor(latents.copy()), 5)
    kept_T = (
        np.bincount(data.text_N.numpy()) == LENGTH
    )  # of padded tokens theirs decodes the bias, and counts it
    assert not np.allclose(pooled.ablated(latents), pooled.x_TD)
    np.testing.assert_allclose(pooled.ablated(latents)[kept_T], left.numpy()[kept_T], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_words_are_judged_alike():
    """Their calculator on a host that gives the activations that we choose."""
    from sae_bench.evals.absorption.feature_absorption_calculator import FeatureAbsorptionCalculator

    rng = np.random.default_rng(2)
    words = 300
    W_FD = rng.normal(size=(12, 5))
    W_FD /= np.linalg.norm(W_FD, axis=1, keepdims=True)
    probe_D = rng.normal(size=5)
    probe_D /= np.linalg.norm(probe_D)
    z_WF = rng.exponential(size=(words, 12)) * (rng.random((words, 12)) < 0.4)
    x_WD = z_WF @ W_FD + 0.3 * rng.normal(size=(words, 5))
    own = [2, 7]

    class Host:
        """Hands out the activations in the words' order."""

        def __init__(self):
            self.next = 0

        def to_tokens(self, text):
            return [[0, 0, 0]]

        def run_with_cache(self, texts, names_filter):
            x = torch.tensor(x_WD[self.next : self.next + len(texts)])
            self.next += len(texts)
            return None, {names_filter[0]: x[:, None].expand(-1, 3, -1)}

    codes = {tuple(np.round(x, 9)): z for x, z in zip(x_WD, z_WF, strict=True)}
    sae = SimpleNamespace(
        device="cpu",
        W_dec=torch.tensor(W_FD),
        encode=lambda x_BD: torch.tensor(np.array([codes[tuple(np.round(x, 9))] for x in x_BD.numpy()])),
    )
    calculator = FeatureAbsorptionCalculator(Host(), ["an", "it"], shuffle_examples=False)
    found = calculator.calculate_absorption(
        sae, ["word"] * words, torch.tensor(probe_D), own, 0, show_progress=False
    )
    full = 0
    for x_D, z_F, theirs_ in zip(x_WD, z_WF, found.word_results, strict=True):
        fraction, is_full = of_word(x_D, z_F, W_FD, probe_D, own)
        assert fraction == pytest.approx(float(theirs_.absorption_fraction), abs=1e-6)
        assert is_full == theirs_.is_full_absorption
        full += is_full
    assert 0 < full < words
