"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`.

JumpReLU SAEs with one threshold for all latents, trained on activations scaled to mean norm sqrt(D): the scale stands
in the file and is folded into the weights. b_dec is not subtracted.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt

from rsae.formats.checks import assemble, parse_config, read_provenance, read_weights, renamed, transposed
from rsae.sae import SAE
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
    jump_relu_threshold: float
    dataset_average_activation_norm: _Norm
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
    scale = cfg.d_model**0.5 / cfg.dataset_average_activation_norm.in_
    # the code keeps the values that it has in the file's own units
    tensors["W_enc"] = tensors["W_enc"] * scale
    tensors |= {k: tensors[k] / scale for k in ("W_dec", "b_dec")}
    tensors["threshold"] = torch.full((cfg.d_sae,), max(0.0, cfg.jump_relu_threshold * scale))
    settings = {"d_in": cfg.d_model, "d_sae": cfg.d_sae, "subtract_b_dec": False}
    sae = assemble("jump_relu", settings, tensors, cfg_file, weights_file)
    sae.provenance = read_provenance({"hook_name": cfg.hook_point_in, "llama_scope": raw}, cfg_file)
    return sae
