"""Results in SAEBench's form (0.6.0), for its tables and plots: core and sparse probing.

A file is `RELEASE_ID_eval_results.json`. Under SAEBench's names stand the figures by SAEBench's definitions, two of
which are not what they are called (`mse`, `explained_variance`); what they should be is in `eval_result_unstructured`,
with everything else of ours. The tokens are ours: see `positions` and `excluded_positions` there.
"""

from __future__ import annotations

import copy
import math
import os
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evals.metrics.codes import place_of
from evals.metrics.downstream import downstream
from evals.metrics.probing import correct_dense, correct_with_best, pooled, probe, probe_data
from evals.metrics.reconstruction import largest_cosines, reconstruction
from evals.results import Probing, dump, slug
from evals.tasks import load_task
from rsae import SAE, Host, Store, load_host
from rsae.activations.harvest import sequences_like
from rsae.activations.protocol import check_fits
from rsae.support.files import write_json

#: Tokens that SAEBench's defaults put into one batch: 16 prompts of 128. Its `mse` and legacy figure depend on it.
BATCH_TOKENS = 16 * 128
_KS = (1, 2, 5, 10, 20, 50, 100)


@torch.no_grad()
def core(sae: SAE, activations: Store, host: Host, tokens: list[list[int]]) -> dict[str, Any]:
    """SAEBench's core result of an SAE.

    Args:
        sae: The SAE.
        activations: A store of its hook point; the held-out tokens count.
        host: The model.
        tokens: Sequences of token ids to splice the reconstruction into.

    Returns:
        The result in SAEBench's form, with our own figures in `eval_result_unstructured`.
    """
    ours = reconstruction(sae, activations)
    known = activations.provenance
    spliced = downstream(sae, host, tokens, known.hook, known.norm_limit, exclude_tokens=known.exclude_tokens)
    legacy = _legacy(sae, activations)
    density_F = legacy.pop("density")
    total = density_F.sum().item()
    encoder_F, decoder_F = largest_cosines(sae.W_enc.T), largest_cosines(sae.W_dec)

    def above(share: float) -> float:
        return density_F[density_F > share].sum().item() / total if total else 0.0

    metrics = {
        "model_behavior_preservation": {
            "kl_div_score": 1 - spliced.kl / spliced.kl_zero,
            "kl_div_with_ablation": spliced.kl_zero,
            "kl_div_with_sae": spliced.kl,
        },
        "model_performance_preservation": {
            "ce_loss_score": spliced.loss_recovered,
            "ce_loss_with_ablation": spliced.ce_zero,
            "ce_loss_with_sae": spliced.ce,
            "ce_loss_without_sae": spliced.ce_clean,
        },
        "reconstruction_quality": {
            "explained_variance": legacy["explained_variance"],
            "explained_variance_legacy": legacy["explained_variance_legacy"],
            "mse": legacy["mse"],
            "cossim": ours.cosine,
        },
        "shrinkage": {
            "l2_norm_in": legacy["l2_norm_in"],
            "l2_norm_out": legacy["l2_norm_out"],
            "l2_ratio": ours.l2_ratio,
            "relative_reconstruction_bias": legacy["relative_reconstruction_bias"],
        },
        "sparsity": {"l0": ours.l0, "l1": legacy["l1"]},
        "token_stats": {
            "total_tokens_eval_reconstruction": spliced.predictions,
            "total_tokens_eval_sparsity_variance": ours.tokens,
        },
        "misc_metrics": {
            "freq_over_1_percent": (density_F > 0.01).double().mean().item(),
            "freq_over_10_percent": (density_F > 0.1).double().mean().item(),
            "normalized_freq_over_1_percent": above(0.01),
            "normalized_freq_over_10_percent": above(0.1),
            "average_max_encoder_cosine_sim": encoder_F.mean().item(),
            "average_max_decoder_cosine_sim": decoder_F.mean().item(),
            "frac_alive": (density_F > 0).double().mean().item(),
        },
    }
    config = {
        "model_name": known.model,
        "dataset": known.text,
        "context_size": known.context,
        "batch_size_prompts": BATCH_TOKENS // 128,
    }
    unstructured = {
        "reconstruction": dump(ours),
        "downstream": dump(spliced),
        "excluded_positions": activations.manifest.excluded_positions,
    }
    return _result("core", config, metrics, [], sae, unstructured)


def _legacy(sae: SAE, activations: Store) -> dict[str, Any]:
    """The figures by SAEBench's own formulas, batch by batch as it has them."""
    per_token: dict[str, list[torch.Tensor]] = {}
    per_batch: dict[str, list[torch.Tensor]] = {}
    fired_F = torch.zeros(sae.d_sae, dtype=torch.int64)
    tokens = 0
    for x_BD in activations.blocks("heldout", BATCH_TOKENS):
        z_BF = sae.encode(x_BD.to(sae.W_enc.device))
        x_hat_BD, x_BD = sae.decode(z_BF, x_BD.to(z_BF)).double().cpu(), x_BD.double()
        residual_B = (x_BD - x_hat_BD).square().sum(1)
        norm_in_B, norm_out_B = x_BD.norm(dim=1), x_hat_BD.norm(dim=1)
        for name, values in {
            "mse": residual_B
            / len(x_BD),  # divided by the batch's tokens once too often: the mean follows below
            "explained_variance_legacy": 1 - residual_B / (x_BD - x_BD.mean(0)).square().sum(1),
            "l2_norm_in": norm_in_B,
            "l2_norm_out": norm_out_B,
            "l1": z_BF.double().sum(1).cpu(),  # signed: not the L1 norm of a code with negative entries
        }.items():
            per_token.setdefault(name, []).append(values)
        for name, value in {
            "relative_reconstruction_bias": norm_out_B.square().mean() / (x_BD * x_hat_BD).sum(1).mean(),
            "square": x_BD.square().sum(1).mean(),
            "residual": residual_B.mean(),
        }.items():
            per_batch.setdefault(name, []).append(value)
        fired_F += (z_BF > 0).sum(0).cpu()  # negative entries count in l0, but not here
        tokens += len(x_BD)
    figures: dict[str, Any] = {name: torch.cat(values).mean().item() for name, values in per_token.items()}
    means = {name: torch.stack(values).mean().item() for name, values in per_batch.items()}
    mean_square = means["square"] / sae.d_in  # m = mean x_j^2, where the mean of x_j belongs
    figures["explained_variance"] = 1 - means["residual"] / (means["square"] - mean_square**2)
    figures["relative_reconstruction_bias"] = means["relative_reconstruction_bias"]
    return figures | {"density": fired_F.double() / tokens}


def sparse_probing(
    sae: SAE,
    host: Host,
    tasks: list[str],
    k: tuple[int, ...] = (1, 2, 5),
    train: int = 4000,
    test: int = 1000,
    context: int = 128,
) -> dict[str, Any]:
    """SAEBench's sparse-probing result of an SAE on our tasks; `llm` is the host's own activation, k of its entries.

    `sae_test_accuracy`, a probe on all latents, is missing: SAEBench chooses its epoch on the test set.

    Args:
        sae: The SAE.
        host: The model.
        tasks: Probing tasks, embedded or from files.
        k: Numbers of latents.
        train: Training texts a task.
        test: Test texts a task.
        context: Tokens a text, truncated on the right.

    Returns:
        The result in SAEBench's form, with our own figures in `eval_result_unstructured`.
    """
    point, limit, excluded = place_of(sae, host, None, None)
    k = tuple(n for n in k if n in _KS)
    details: list[dict[str, Any]] = []
    ours: dict[str, Probing] = {}
    for name in tasks:
        data = probe_data(host, str(point), load_task(name, train, test), context, limit, excluded)
        ours[name] = probe(sae, data, k)
        row: dict[str, Any] = {"dataset_name": name}
        row["llm_test_accuracy"] = float(correct_dense(data).mean())
        for n, correct_T in correct_with_best(pooled(None, data), data, k).items():
            row[f"llm_top_{n}_test_accuracy"] = float(correct_T.mean())
        row |= {f"sae_top_{n}_test_accuracy": ours[name].accuracy[n].value for n in k}
        details.append(row)
    names = [name for name in details[0] if name != "dataset_name"]
    mean = {name: sum(row[name] for row in details) / len(details) for name in names}
    metrics: dict[str, dict[str, Any]] = {
        part: {name: value for name, value in mean.items() if name.startswith(part)}
        for part in ("llm", "sae")
    }
    config = {
        "random_seed": 42,
        "dataset_names": tasks,
        "probe_train_set_size": train,
        "probe_test_set_size": test,
        "context_length": context,
        "k_values": list(k),
        "model_name": sae.provenance.model or host.name,
    }
    return _result("sparse_probing", config, metrics, details, sae, dump(ours))


def _result(
    kind: str,
    config: dict[str, Any],
    metrics: dict[str, dict[str, Any]],
    details: list[dict[str, Any]],
    sae: SAE,
    unstructured: dict[str, Any],
) -> dict[str, Any]:
    return {
        "eval_type_id": kind,
        "eval_config": config,
        "eval_id": str(uuid.uuid4()),
        "datetime_epoch_millis": int(time.time() * 1000),
        "eval_result_metrics": {
            part: {name: -1 if math.isnan(value) else value for name, value in figures.items()}
            for part, figures in metrics.items()
        },
        "eval_result_details": details,
        "sae_bench_commit_hash": f"rsae {version('rsae')}",  # not made by SAEBench
        "sae_lens_id": "custom_sae",
        "sae_lens_release_id": None,
        "sae_lens_version": None,
        "sae_cfg_dict": {
            "architecture": sae.family,
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "model_name": sae.provenance.model,
            "hook_name": sae.provenance.hook,
        },
        "eval_result_unstructured": unstructured,
    }


def write_result(result: dict[str, Any], directory: str | os.PathLike, release: str) -> Path:
    """Write a result as SAEBench names it.

    Args:
        result: The result.
        directory: Where to write.
        release: First part of the file's name.

    Returns:
        The path, `RELEASE_custom_sae_eval_results.json`.
    """
    named = result | {"sae_lens_release_id": release}
    path = Path(directory) / f"{slug(release)}_{named['sae_lens_id']}_eval_results.json"
    write_json(path, named)
    return path


def write_results(
    sae: SAE,
    activations: Store,
    out: str | os.PathLike,
    release: str,
    tasks: list[str],
    tokens: int = 2500,
    train: int = 4000,
    test: int = 1000,
) -> list[Path]:
    """Write SAEBench's result files of an SAE: core, and sparse probing where there are tasks.

    Args:
        sae: The SAE; it belongs to the store's hook point.
        activations: A store of that hook point.
        out: Directory; the files go to `core` and `sparse_probing` in it.
        release: First part of the files' names.
        tasks: Probing tasks, embedded or from files.
        tokens: Held-out tokens to splice.
        train: Training texts a task.
        test: Test texts a task.

    Returns:
        The files.
    """
    check_fits(sae, activations)
    known = activations.provenance
    sae = copy.copy(sae)
    sae.provenance = known
    host = load_host(known.known("model", "SAEBench's core evaluation"))
    context = known.known("context", "SAEBench's core evaluation")
    sequences = sequences_like(known, host, "heldout", tokens)
    found = {"core": core(sae, activations, host, sequences)}
    if tasks:
        found["sparse_probing"] = sparse_probing(sae, host, tasks, train=train, test=test, context=context)
    return [write_result(result, Path(out) / kind, release) for kind, result in found.items()]
