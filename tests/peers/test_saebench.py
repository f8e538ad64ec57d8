"""SAEBench's own core and sparse-probing code on a rational SAE of ours, beside our figures of the same SAE."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evals.metrics.downstream import downstream
from evals.metrics.probing import ProbeData, probe
from evals.metrics.reconstruction import reconstruction
from rsae.activations.hooks import HookPoint, activations_at
from tests.peers.test_transformer_lens import hooked
from tests.rsae.helpers import random_sae
from tests.rsae.test_hooks import CONFIGS, random_host

HOOK = "blocks.1.hook_resid_pre"
BOS = 0
PROMPTS, LENGTH = 8, 24


@pytest.fixture(scope="module")
def host():
    return random_host("llama", CONFIGS["llama"])


@pytest.fixture(scope="module")
def tokens():
    """Prompts that begin with BOS, which comes nowhere else: SAEBench leaves special tokens out, we position 0."""
    generator = torch.Generator().manual_seed(3)
    tokens_BP = torch.randint(1, 97, (PROMPTS, LENGTH), generator=generator)
    tokens_BP[:, 0] = BOS
    return tokens_BP


@pytest.fixture(scope="module", params=["rational_jump_relu", "rational_top_k", "sign_aware_gated"])
def pair(request, host, tokens, tmp_path_factory):
    """Our SAE, and what SAELens reads from its files."""
    import sae_lens

    import rsae.formats.saelens

    x_BPD = activations_at(host, HookPoint.parse(HOOK, host), tokens, torch.ones_like(tokens))
    ours = random_sae(request.param, d_in=32, d_sae=80)
    ours.rescale_(x_BPD[:, 1:].norm(dim=-1).mean().item() / 32**0.5)
    ours.initialise(x_BPD[:, 1:].flatten(0, 1))
    ours.provenance = rsae.Provenance(hook=HOOK)
    path = tmp_path_factory.mktemp("sae")
    rsae.save(ours.eval(), path)
    theirs = sae_lens.SAE.load_from_disk(path)
    # its core evaluation reads these where SAELens 5 had them
    for name, value in {"hook_name": HOOK, "hook_layer": 1, "hook_head_index": None}.items():
        setattr(theirs.cfg, name, value)
    return rsae.load(path), theirs


def test_core_gives_our_figures(pair, host, tokens):
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.evals.core.main import run_evals

    ours, theirs = pair
    store = SimpleNamespace(
        get_batch_tokens=lambda size: tokens[:size],
        reset_input_dataset=lambda: None,
        store_batch_size_prompts=PROMPTS,
        context_size=LENGTH,
    )
    config = CoreEvalConfig(
        model_name="",
        batch_size_prompts=PROMPTS,
        n_eval_reconstruction_batches=1,
        n_eval_sparsity_variance_batches=1,
        exclude_special_tokens_from_reconstruction=True,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
    )
    metrics, features = run_evals(theirs, store, hooked(host), config, ignore_tokens={BOS})  # type: ignore

    x_BPD = activations_at(host, HookPoint.parse(HOOK, host), tokens, torch.ones_like(tokens))
    x_ND = x_BPD[:, 1:].flatten(0, 1)
    own = reconstruction(ours, x_ND)
    assert 0 < own["l0"] < 80
    got = {name: value for part in metrics.values() for name, value in part.items()}
    assert got["l0"] == pytest.approx(own["l0"], rel=1e-6)
    assert got["cossim"] == pytest.approx(own["cosine"], rel=1e-5)
    assert got["l2_ratio"] == pytest.approx(own["l2_ratio"], rel=1e-5)
    assert got["relative_reconstruction_bias"] == pytest.approx(own["relative_bias"], rel=1e-5)
    assert got["mse"] * len(x_ND) == pytest.approx(
        own["mse"], rel=1e-5
    )  # divided by the tokens once too often
    if not ours.signed:  # its density counts z > 0
        assert np.mean(np.array(features["feature_density"]) > 0) == pytest.approx(own["alive"])

    spliced = downstream(ours, host, tokens.tolist(), HOOK, norm_limit=float("inf"))
    assert got["ce_loss_with_sae"] == pytest.approx(spliced["ce"], rel=1e-4)
    assert got["ce_loss_without_sae"] == pytest.approx(spliced["ce_clean"], rel=1e-4)
    # its ablation zeroes position 0 too: another figure, and not the score's either


def test_sparse_probing_gives_our_accuracies(pair, tmp_path):
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
    from sae_bench.evals.sparse_probing.main import run_eval_single_dataset

    ours, theirs = pair
    generator = torch.Generator().manual_seed(4)
    scale = ours.b_dec.std().item() * 3
    texts, length = 120, 6
    x_TPD = scale * torch.randn(2, texts, length, 32, generator=generator)  # class, text, position
    x_TPD[1] += 0.4 * scale * torch.randn(32, generator=generator)
    split = texts * 3 // 4
    train = {str(c): x_TPD[c, :split] for c in (0, 1)}
    test = {str(c): x_TPD[c, split:] for c in (0, 1)}
    torch.save({"train": train, "test": test, "llm_results": {}}, tmp_path / "set_activations.pt")
    config = SparseProbingEvalConfig(
        model_name="", sae_batch_size=64, llm_dtype="float32", k_values=[1, 2, 5]
    )
    _, accuracies = run_eval_single_dataset(
        "set",
        config,
        theirs,
        None,
        1,
        HOOK,
        "cpu",
        str(tmp_path),
        save_activations=False,  # type: ignore
    )
    data = ProbeData(
        x_TPD.flatten(0, 2),
        torch.arange(2 * texts).repeat_interleave(length).int(),
        np.repeat([0, 1], texts),
        np.tile(np.arange(texts) < split, 2),
    )
    own = probe(ours, data, (1, 2, 5))
    assert own.accuracy[5].value > 0.6
    for k in (1, 2, 5):
        # the same latents and the same regression; its float32 may turn one text
        assert accuracies[f"sae_top_{k}_test_accuracy"]["1"] == pytest.approx(
            own.accuracy[k].value, abs=2 / 60
        )
