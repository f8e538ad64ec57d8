"""SAEBench's result files: its names, and its formulas against a plain rendering of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import rsae
from evals.cli import main
from evals.metrics.reconstruction import reconstruction
from evals.results import dump
from evals.saebench import BATCH_TOKENS, core, sparse_probing, write_result
from tests.command import run_command
from tests.rsae.helpers import random_sae

#: Field names of sae-bench 0.6.0, `evals/core/eval_output.py` and `evals/sparse_probing/eval_output.py`
CORE = {
    "model_behavior_preservation": ["kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"],
    "model_performance_preservation": [
        "ce_loss_score",
        "ce_loss_with_ablation",
        "ce_loss_with_sae",
        "ce_loss_without_sae",
    ],
    "reconstruction_quality": ["explained_variance", "explained_variance_legacy", "mse", "cossim"],
    "shrinkage": ["l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"],
    "sparsity": ["l0", "l1"],
    "token_stats": ["total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"],
    "misc_metrics": [
        "freq_over_1_percent",
        "freq_over_10_percent",
        "normalized_freq_over_1_percent",
        "normalized_freq_over_10_percent",
        "average_max_encoder_cosine_sim",
        "average_max_decoder_cosine_sim",
        "frac_alive",
    ],
}


@pytest.fixture(scope="module")
def sae(store):
    sae = random_sae("rational_jump_relu", store)
    rsae.train(sae, store, rsae.TrainConfig(steps=2, batch=64))  # so that it knows where it belongs
    return sae


def test_core_has_saebenchs_names_and_its_legacy_figures(sae, store, host, tmp_path):
    tokens = [list(range(20 + n)) for n in range(4)]
    result = core(sae, store, host, tokens)
    metrics = result["eval_result_metrics"]
    assert {part: list(figures) for part, figures in metrics.items()} == CORE
    x = torch.cat(list(store.blocks("heldout"))).double()
    assert len(x) < BATCH_TOKENS  # one batch
    with torch.no_grad():
        x_hat = sae(x.float()).double()
        z = sae.encode(x.float())
    error, mean_square = (x - x_hat).square().sum(1), x.square().mean()
    got = metrics["reconstruction_quality"]
    assert got["mse"] == pytest.approx((error.mean() / len(x)).item(), rel=1e-5)
    wrong_variance = store.d_in * mean_square - mean_square**2
    assert got["explained_variance"] == pytest.approx((1 - error.mean() / wrong_variance).item(), rel=1e-5)
    own = reconstruction(sae, store)
    assert result["eval_result_unstructured"]["reconstruction"] == dump(own)
    assert got["mse"] * len(x) == pytest.approx(own.mse)  # ours is the mean squared error
    assert metrics["sparsity"]["l1"] == pytest.approx(z.sum(1).mean().item(), rel=1e-5)
    assert metrics["misc_metrics"]["frac_alive"] == (z > 0).any(0).double().mean().item()
    score = metrics["model_behavior_preservation"]
    expected = (score["kl_div_with_ablation"] - score["kl_div_with_sae"]) / score["kl_div_with_ablation"]
    assert score["kl_div_score"] == pytest.approx(expected)
    path = write_result(result, tmp_path, "my release")
    assert path.name == "my_release_custom_sae_eval_results.json"
    assert json.loads(path.read_text())["eval_result_metrics"] == metrics


def test_the_command_writes_both_files(sae, store, tmp_path):
    rsae.save(sae, tmp_path / "sae")
    options = ["--activations", store.path, "--out", tmp_path, "--release", "r", "--task", "spam"]
    sizes = ["--tokens", 50, "--train", 40, "--test", 20]
    done = run_command(main, "saebench", tmp_path / "sae", *options, *sizes)
    assert done.returncode == 0, done.stderr
    for kind in ("core", "sparse_probing"):
        assert (
            json.loads((tmp_path / kind / "r_custom_sae_eval_results.json").read_text())["eval_type_id"]
            == kind
        )


def test_sparse_probing_has_saebenchs_names(sae, host, tmp_path):
    task = tmp_path / "colours.csv"
    rows = [f"{'red' if i % 2 else 'blue'} {i},{i % 2}" for i in range(120)]
    task.write_text("\n".join(["text,label", *rows]))
    result = sparse_probing(sae, host, [str(task), "spam"], (1, 5), train=40, test=20, context=12)
    assert result["eval_type_id"] == "sparse_probing"
    assert list(result["eval_result_metrics"]["sae"]) == [
        "sae_top_1_test_accuracy",
        "sae_top_5_test_accuracy",
    ]
    assert [row["dataset_name"] for row in result["eval_result_details"]] == [str(task), "spam"]
    for part, names in result["eval_result_metrics"].items():
        for name, value in names.items():
            assert name.startswith(part)
            assert value == pytest.approx(np.mean([row[name] for row in result["eval_result_details"]]))
