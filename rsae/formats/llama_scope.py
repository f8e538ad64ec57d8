"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`.

As released JumpReLU SAEs with one threshold for all latents, trained on activations scaled to mean norm sqrt(D): the
scale stands in the file and is folded into the weights. The library that writes them (Language-Model-SAEs) also has
TopK and ReLU, gates that look at a latent times its decoder row's norm (`sparsity_include_decoder_norm`), a subtracted
b_dec, and tokens scaled one by one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt

from rsae.formats.checks import assemble, parse_config, read_provenance, read_weights, renamed, transposed
from rsae.sae import SAE
from rsae.sae.input_norm import InputNorm
from rsae.support.errors import InputError
from rsae.support.files import read_json

CFG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
_NAMES = {
    "W_enc": "encoder.weight",
    "b_enc": "encoder.bias",
    "W_dec": "decoder.weight",
    "b_dec": "decoder.bias",
}


class _Norm(BaseModel):
    in_: PositiveFloat

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class _Cfg(BaseModel):
    d_model: PositiveInt
    d_sae: PositiveInt
    act_fn: Literal["jumprelu", "relu", "topk"] = "jumprelu"
    jump_relu_threshold: float = 0.0
    top_k: PositiveInt | None = None
    norm_activation: Literal["dataset-wise", "token-wise", "inference", "none"] = "dataset-wise"
    dataset_average_activation_norm: _Norm | None = None
    apply_decoder_bias_to_pre_encoder: bool = False
    sparsity_include_decoder_norm: bool = False
    use_glu_encoder: Literal[False] = False
    hook_point_in: str
    hook_point_out: str | None = None


def load(path: str | os.PathLike) -> SAE:
    """Read a directory of the release.

    Args:
        path: The directory with `hyperparams.json`.

    Raises:
        InputError: It is a transcoder, or a file does not fit.
    """
    directory = Path(path)
    cfg_file, weights_file = directory / CFG, directory / WEIGHTS
    raw = read_json(cfg_file)
    cfg = parse_config(raw, cfg_file, _Cfg)
    if cfg.hook_point_out not in (None, cfg.hook_point_in):
        raise InputError(f"{cfg_file}: a transcoder is no autoencoder")
    tensors = renamed(read_weights(weights_file), weights_file, _NAMES)
    tensors |= {k: transposed(tensors[k]) for k in ("W_enc", "W_dec")}
    scale = 1.0
    if cfg.norm_activation == "dataset-wise":
        if cfg.dataset_average_activation_norm is None:
            raise InputError(
                f"{cfg_file}: norm_activation = 'dataset-wise' needs dataset_average_activation_norm"
            )
        scale = cfg.d_model**0.5 / cfg.dataset_average_activation_norm.in_
    norm_F = (
        tensors["W_dec"].float().norm(dim=1) if cfg.sparsity_include_decoder_norm else torch.ones(cfg.d_sae)
    )
    # the code keeps the values that it has in the file's own units
    tensors["W_enc"] = tensors["W_enc"] * scale
    tensors |= {k: tensors[k] / scale for k in ("W_dec", "b_dec")}
    settings = {
        "d_in": cfg.d_model,
        "d_sae": cfg.d_sae,
        "subtract_b_dec": cfg.apply_decoder_bias_to_pre_encoder,
    }
    family = {"jumprelu": "jump_relu", "relu": "relu", "topk": "top_k"}[cfg.act_fn]
    if family == "jump_relu":
        tensors["threshold"] = (cfg.jump_relu_threshold * scale / norm_F.clamp_min(1e-30)).clamp_min(0.0)
    if family == "top_k":
        if cfg.top_k is None:
            raise InputError(f"{cfg_file}: act_fn = 'topk' needs top_k")
        settings["k"] = cfg.top_k
        # the largest by code times norm: the same function with unit rows
        alive_F = norm_F.clamp_min(1e-30)
        tensors |= {"W_enc": tensors["W_enc"] * alive_F, "b_enc": tensors["b_enc"] * alive_F}
        tensors["W_dec"] = tensors["W_dec"] / alive_F[:, None]
    sae = assemble(family, settings, tensors, cfg_file, weights_file)
    if cfg.norm_activation == "token-wise":
        sae.input_norm = InputNorm("constant_norm_rescale")
    sae.provenance = read_provenance({"hook_name": cfg.hook_point_in, "llama_scope": raw}, cfg_file)
    return sae
