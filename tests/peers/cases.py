"""Checkpoints made by the peers' own code: each case writes one, and says what the peer computes with it.

They are both tests by themselves (test_peers.py) and the source of the golden files of the ordinary tests
(make_golden.py). OpenAI's package is on no registry: its case is written to the letter of its published model.py.
"""

# the peers are installed in an environment of their own
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file, save_file

D, F, K = 6, 16, 3


@dataclass
class Made:
    """What a peer computes: x [B, D], code [B, F], reconstruction [B, D]; and what `rsae.load` has to be told."""

    x: torch.Tensor
    code: torch.Tensor
    reconstruction: torch.Tensor
    by: str
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Callable[[Path], Made]] = {}


def case(make: Callable[[Path], Made]) -> Callable[[Path], Made]:
    CASES[make.__name__] = make
    return make


def inputs() -> torch.Tensor:
    return torch.randn(24, D, generator=torch.Generator().manual_seed(1)) * 2 + 0.5


@torch.no_grad()
def randomise(module: torch.nn.Module, unit_decoder: bool = False) -> None:
    """Every parameter in use; norms of decoder rows unlike 1 unless asked for."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        scale = 0.3 if parameter.ndim < 2 else 0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if name == "threshold":
            parameter.abs_()
        if unit_decoder and name == "decoder.weight":
            parameter.div_(parameter.norm(dim=0, keepdim=True))


# --- SAELens -----------------------------------------------------------------------------------------------

METADATA = {"model_name": "gpt2-small", "hook_name": "blocks.2.hook_resid_pre", "prepend_bos": True}


def saelens(path: Path, name: str, options: dict[str, Any] | None = None, **cfg: Any) -> Made:
    """An inference SAE of SAELens, saved and loaded again by SAELens."""
    import sae_lens
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    cls, cfg_cls = get_sae_class(name)
    sae = cls(cfg_cls(d_in=D, d_sae=F, metadata=SAEMetadata(**METADATA), **cfg))
    randomise(sae)
    sae.save_model(path)
    return by_saelens(sae_lens.SAE.load_from_disk(path), options)


@torch.no_grad()
def by_saelens(sae: Any, options: dict[str, Any] | None = None) -> Made:
    x = inputs()
    code = sae.encode(x)
    skips = getattr(sae, "W_skip", None) is not None  # what is past the code is not in their decode
    return Made(
        x, code, sae(x) if skips else sae.decode(code), f"sae-lens {version('sae-lens')}", options or {}
    )


@case
def saelens_standard(path: Path) -> Made:
    return saelens(path, "standard")


@case
def saelens_topk(path: Path) -> Made:
    return saelens(path, "topk", k=K)


@case
def saelens_topk_rescaled(path: Path) -> Made:
    return saelens(path, "topk", k=K, rescale_acts_by_decoder_norm=True)


@case
def saelens_abstopk(path: Path) -> Made:
    return saelens(path, "abstopk", k=K)


@case
def saelens_whitened_rescaled(path: Path) -> Made:
    """Decoder norms select before the whitening is undone, which changes them."""
    import sae_lens

    saelens(
        path, "topk", k=K, rescale_acts_by_decoder_norm=True, normalize_activations="covariance_whitening"
    )
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(D, generator=generator)
    M = torch.eye(D) + 0.3 * torch.randn(D, D, generator=generator)
    whitening = {"mean": mean, "matrix": M, "inverse_matrix": torch.linalg.inv(M).contiguous()}
    save_file(whitening, path / "activation_whitening.safetensors")
    sae = sae_lens.SAE.load_from_disk(path)
    sae.fold_activation_whitening(mean, M, whitening["inverse_matrix"])
    return by_saelens(sae)


@case
def saelens_jumprelu(path: Path) -> Made:
    return saelens(path, "jumprelu")


@case
def saelens_gated(path: Path) -> Made:
    return saelens(path, "gated")


@case
def saelens_bias_kept(path: Path) -> Made:
    """b_dec is not subtracted from the input."""
    return saelens(path, "jumprelu", apply_b_dec_to_input=False)


@case
def saelens_bfloat16(path: Path) -> Made:
    """Weights on disk in half precision; computed in single precision by both."""
    import sae_lens

    saelens(path, "standard", dtype="bfloat16")
    return by_saelens(sae_lens.SAE.load_from_disk(path, dtype="float32"))


@case
def saelens_layer_norm(path: Path) -> Made:
    return saelens(path, "topk", k=K, normalize_activations="layer_norm")


@case
def saelens_constant_norm(path: Path) -> Made:
    return saelens(path, "standard", normalize_activations="constant_norm_rescale")


@case
def saelens_expected_average(path: Path) -> Made:
    """The scale is not in the file; SAELens folds it in where it knows it."""
    import sae_lens

    saelens(path, "topk", k=K, normalize_activations="expected_average_only_in")
    sae = sae_lens.SAE.load_from_disk(path)
    sae.fold_activation_norm_scaling_factor(0.7)
    return by_saelens(sae, {"input_scale": 0.7})


@case
def saelens_negative_threshold(path: Path) -> Made:
    import sae_lens

    saelens(path, "jumprelu")
    weights = load_file(path / "sae_weights.safetensors")
    weights["threshold"][::2] *= -1
    save_file(weights, path / "sae_weights.safetensors")
    return by_saelens(sae_lens.SAE.load_from_disk(path))


@case
def saelens_transcoder(path: Path) -> Made:
    return saelens(path, "transcoder", d_out=D + 2, apply_b_dec_to_input=False)


@case
def saelens_skip_transcoder(path: Path) -> Made:
    return saelens(path, "skip_transcoder", d_out=D - 1, apply_b_dec_to_input=False)


@case
def saelens_jumprelu_transcoder(path: Path) -> Made:
    return saelens(path, "jumprelu_transcoder", d_out=D, apply_b_dec_to_input=False)


@case
def saelens_jumprelu_skip_transcoder(path: Path) -> Made:
    return saelens(path, "jumprelu_skip_transcoder", d_out=D + 2, apply_b_dec_to_input=False)


def flat(path: Path, **extra: Any) -> Made:
    """The cfg as it was before version 6, which SAELens still reads."""
    import sae_lens

    cfg = json.loads((path / "cfg.json").read_text())
    flat_cfg = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", **METADATA, **extra}
    assert cfg["architecture"] in ("standard", "topk", "jumprelu")
    (path / "cfg.json").write_text(json.dumps(flat_cfg))
    return by_saelens(sae_lens.SAE.load_from_disk(path))


@case
def saelens_flat_standard(path: Path) -> Made:
    saelens(path, "standard")
    return flat(path, activation_fn_str="relu", normalize_activations=None, finetuning_scaling_factor=False)


@case
def saelens_flat_topk(path: Path) -> Made:
    saelens(path, "topk", k=K)
    return flat(
        path,
        architecture="standard",
        activation_fn_str="topk",
        activation_fn_kwargs={"k": K},
        sae_lens_version="3.9",
    )


@case
def saelens_flat_jumprelu(path: Path) -> Made:
    """With the scaling factor of ones that was written for a while."""
    saelens(path, "jumprelu", apply_b_dec_to_input=False)
    weights = load_file(path / "sae_weights.safetensors")
    save_file(weights | {"scaling_factor": torch.ones(F)}, path / "sae_weights.safetensors")
    return flat(path, architecture="jumprelu", apply_b_dec_to_input=False)


def trained(path: Path, name: str, threshold: float | None, **cfg: Any) -> Made:
    """A training checkpoint; what the SAE that SAELens makes of it for inference computes."""
    import sae_lens
    from sae_lens.registry import get_sae_training_class

    cls, cfg_cls = get_sae_training_class(name)
    sae = cls(cfg_cls(d_in=D, d_sae=F, **cfg))
    randomise(sae)
    if threshold is not None:
        sae.topk_threshold.fill_(threshold)
    with torch.no_grad():
        inference = path.with_name(path.name + "-inference")
        sae.save_inference_model(inference)
        sae.save_model(path)
    made = by_saelens(sae_lens.SAE.load_from_disk(inference))
    for file in inference.iterdir():
        file.unlink()
    inference.rmdir()
    return made


@case
def saelens_training_jumprelu(path: Path) -> Made:
    """An old one, with the logarithm of the threshold."""
    made = trained(path, "jumprelu", None)
    weights = load_file(path / "sae_weights.safetensors")
    weights["log_threshold"] = weights.pop("threshold").log()
    save_file(weights, path / "sae_weights.safetensors")
    return made


@case
def saelens_training_batchtopk(path: Path) -> Made:
    return trained(path, "batchtopk", 0.6, k=K, rescale_acts_by_decoder_norm=True)


@case
def saelens_training_matryoshka(path: Path) -> Made:
    return trained(
        path,
        "matryoshka_batchtopk",
        0.6,
        k=K,
        rescale_acts_by_decoder_norm=False,
        matryoshka_widths=[4, 9, F],
    )


@case
def saelens_batchtopk(path: Path) -> Made:
    """As SAELens saves one for inference: JumpReLU with the same threshold everywhere."""
    import sae_lens
    from sae_lens.registry import get_sae_training_class

    cls, cfg_cls = get_sae_training_class("batchtopk")
    sae = cls(cfg_cls(d_in=D, d_sae=F, k=K))
    randomise(sae)
    sae.topk_threshold.fill_(0.6)
    with torch.no_grad():
        sae.save_inference_model(path)
    return by_saelens(sae_lens.SAE.load_from_disk(path))


# --- sparsify ----------------------------------------------------------------------------------------------


@case
def sparsify_topk(path: Path) -> Made:
    return sparsify(path)


@case
def sparsify_transcoder(path: Path) -> Made:
    return sparsify(path, transcode=True)


@case
def sparsify_skip_transcoder(path: Path) -> Made:
    return sparsify(path, transcode=True, skip_connection=True)


@torch.no_grad()
def sparsify(path: Path, **cfg: Any) -> Made:
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(D, SparseCoderConfig(num_latents=F, k=K, **cfg))
    randomise(coder)
    coder.save_to_disk(path)
    return by_sparsify(SparseCoder.load_from_disk(path))


@torch.no_grad()
def by_sparsify(coder: Any) -> Made:
    x = inputs()
    acts, indices, _ = coder.encode(x)
    code = torch.zeros(len(x), F).scatter_(1, indices, acts)
    return Made(x, code, coder(x).sae_out, f"eai-sparsify {version('eai-sparsify')}")


@case
def sparsify_expansion_factor(path: Path) -> Made:
    """`num_latents` 0 stands for d_in * expansion_factor."""
    sparsify_topk(path)
    cfg = json.loads((path / "cfg.json").read_text())
    weights = load_file(path / "sae.safetensors")
    wide = torch.zeros(3 * D - F, D)
    weights = {
        "encoder.weight": torch.cat([weights["encoder.weight"], wide]),
        "encoder.bias": torch.cat([weights["encoder.bias"], wide[:, 0]]),
        "W_dec": torch.cat([weights["W_dec"], wide]),
        "b_dec": weights["b_dec"],
    }
    save_file(weights, path / "sae.safetensors")
    (path / "cfg.json").write_text(json.dumps(cfg | {"num_latents": 0, "expansion_factor": 3}))
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(path)
    x = inputs()
    with torch.no_grad():
        acts, indices, _ = coder.encode(x)
        code = torch.zeros(len(x), 3 * D).scatter_(1, indices, acts)
        return Made(x, code, coder(x).sae_out, f"eai-sparsify {version('eai-sparsify')}")


# --- dictionary_learning -----------------------------------------------------------------------------------


def dictionary_classes() -> dict[str, type]:
    # its buffer imports nnsight, which is not needed to make or load a dictionary
    stub = types.ModuleType("nnsight")
    stub.LanguageModel = object  # type: ignore[attr-defined]
    sys.modules.setdefault("nnsight", stub)
    from dictionary_learning.dictionary import (
        AutoEncoder,
        AutoEncoderNew,
        GatedAutoEncoder,
        JumpReluAutoEncoder,
    )
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    classes = (
        AutoEncoder,
        AutoEncoderNew,
        GatedAutoEncoder,
        JumpReluAutoEncoder,
        AutoEncoderTopK,
        BatchTopKSAE,
        MatryoshkaBatchTopKSAE,
    )
    return {c.__name__: c for c in classes}


@torch.no_grad()
def dictionary(path: Path, name: str, *args: Any, threshold: float | None = None) -> Made:
    """A dictionary saved as the library's trainer saves it, loaded by its own `from_pretrained`."""
    cls = dictionary_classes()[name]
    ae = cls(D, F, *args)
    randomise(ae)
    if threshold is not None:
        ae.threshold.fill_(threshold)
    path.mkdir(parents=True, exist_ok=True)
    torch.save({k: v.cpu() for k, v in ae.state_dict().items()}, path / "ae.pt")
    trainer = {
        "dict_class": name,
        "activation_dim": D,
        "dict_size": F,
        "layer": 3,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "submodule_name": "resid_post_layer_3",
    } | ({"k": args[0]} if args else {})
    (path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    return by_dictionary(cls, path / "ae.pt")


@torch.no_grad()
def by_dictionary(cls: Any, file: Path) -> Made:
    ae = cls.from_pretrained(str(file))
    x = inputs()
    code = ae.encode(x)
    return Made(x, code, ae.decode(code), f"dictionary-learning {version('dictionary-learning')}")


@case
def dictionary_autoencoder(path: Path) -> Made:
    return dictionary(path, "AutoEncoder")


@case
def dictionary_autoencoder_new(path: Path) -> Made:
    return dictionary(path, "AutoEncoderNew")


@case
def dictionary_gated(path: Path) -> Made:
    return dictionary(path, "GatedAutoEncoder")


@case
def dictionary_jumprelu(path: Path) -> Made:
    return dictionary(path, "JumpReluAutoEncoder")


@case
def dictionary_topk(path: Path) -> Made:
    """Its stored threshold is not used when it encodes."""
    return dictionary(path, "AutoEncoderTopK", K, threshold=0.4)


@case
def dictionary_batchtopk(path: Path) -> Made:
    return dictionary(path, "BatchTopKSAE", K, threshold=0.4)


@case
def dictionary_batchtopk_unset(path: Path) -> Made:
    """A threshold of -1: not set yet."""
    return dictionary(path, "BatchTopKSAE", K)


@case
def dictionary_matryoshka(path: Path) -> Made:
    return dictionary(path, "MatryoshkaBatchTopKSAE", K, [4, 5, 7], threshold=0.4)


@case
@torch.no_grad()
def dictionary_mid_run(path: Path) -> Made:
    """A backup of a run on activations divided by norm_factor; at its end the library scales the biases."""
    made = dictionary(path, "BatchTopKSAE", K, threshold=0.4)
    state = torch.load(path / "ae.pt", weights_only=True)
    ae = dictionary_classes()["BatchTopKSAE"](D, F, K)
    ae.load_state_dict(state)
    ae.scale_biases(2.5)
    code = ae.encode(made.x)
    backup = {"step": 10, "ae": state, "optimizer": {}, "config": {"k": K}, "norm_factor": 2.5}
    torch.save(backup, path / "ae.pt")
    return Made(made.x, code, ae.decode(code), made.by)


# --- Gemma Scope -------------------------------------------------------------------------------------------


def gemma_arrays() -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
    arrays = {k: 0.5 * torch.randn(s, generator=generator) for k, s in shapes.items()}
    arrays["threshold"] = arrays["threshold"].abs()
    return {k: v.numpy() for k, v in arrays.items()}


def by_saelens_loader(cfg: dict[str, Any], state: dict[str, torch.Tensor]) -> Made:
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig

    cfg = handle_config_defaulting(cfg | {"d_in": D, "d_sae": F})
    sae = JumpReLUSAE(JumpReLUSAEConfig.from_dict(cfg))
    sae.load_state_dict(state)
    return by_saelens(sae)


@case
def gemma_scope_npz(path: Path) -> Made:
    """Read by SAELens's own loader of Gemma Scope, which otherwise fetches the file from the hub."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    path.mkdir(parents=True, exist_ok=True)
    np.savez(path / "params.npz", **gemma_arrays())  # type: ignore[arg-type]
    with mock.patch.object(loaders, "hf_hub_download", return_value=str(path / "params.npz")):
        cfg, state, _ = loaders.gemma_2_sae_huggingface_loader(
            "google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82"
        )
    return by_saelens_loader(cfg, state)


@case
def gemma_scope_2(path: Path) -> Made:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    path.mkdir(parents=True, exist_ok=True)
    arrays = {k.replace("W_", "w_"): torch.from_numpy(v) for k, v in gemma_arrays().items()}
    save_file(arrays, path / "params.safetensors")
    config = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-270m",
        "hf_hook_point_in": "model.layers.5",
    }
    (path / "config.json").write_text(json.dumps(config))

    def download(repo_id: str, filename: str, **_: Any) -> str:
        return str(path / Path(filename).name)

    shapes = {k: list(v.shape) for k, v in arrays.items()}
    with (
        mock.patch.object(loaders, "hf_hub_download", download),
        mock.patch.object(loaders, "get_safetensors_tensor_shapes", return_value=shapes),
    ):
        cfg, state, _ = loaders.gemma_3_sae_huggingface_loader(
            "google/gemma-scope-2-270m-pt", "resid_post/layer_5_width_16k_l0_small"
        )
    return by_saelens_loader(cfg, state)


# --- OpenAI ------------------------------------------------------------------------------------------------


@torch.no_grad()
def openai(path: Path, activation: str) -> Made:
    generator = torch.Generator().manual_seed(0)
    shapes = {"pre_bias": (D,), "encoder.weight": (F, D), "latent_bias": (F,), "decoder.weight": (D, F)}
    state: dict[str, Any] = {k: 0.5 * torch.randn(s, generator=generator) for k, s in shapes.items()}
    x = y = inputs()
    mean = std = torch.zeros(())
    if activation == "TopK":
        mean = x.mean(dim=-1, keepdim=True)
        std = (x - mean).std(dim=-1, keepdim=True)
        y = (x - mean) / (std + 1e-5)
    pre = torch.nn.functional.linear(y - state["pre_bias"], state["encoder.weight"], state["latent_bias"])
    if activation == "TopK":
        top = pre.topk(K, dim=-1)
        code = torch.zeros_like(pre).scatter_(-1, top.indices, top.values.relu())
    else:
        code = pre.relu()
    reconstruction = torch.nn.functional.linear(code, state["decoder.weight"]) + state["pre_bias"]
    if activation == "TopK":
        reconstruction = reconstruction * std + mean
    state |= {"stats_last_nonzero": torch.zeros(F, dtype=torch.long), "activation": activation}
    if activation == "TopK":
        state["activation_state_dict"] = {"k": K, "postact_fn": "ReLU"}
    path.mkdir(parents=True, exist_ok=True)
    torch.save(state, path / "4.pt")
    options: dict[str, Any] = {}
    return Made(x, code, reconstruction, "written to the letter of its model.py", options)


@case
def openai_topk(path: Path) -> Made:
    return openai(path, "TopK")


@case
def openai_relu(path: Path) -> Made:
    return openai(path, "ReLU")
