"""Gemma Scope: `params.npz` (Gemma 2) or `params.safetensors` with lower-case names (Gemma Scope 2, Gemma 3).

JumpReLU SAEs that do not subtract b_dec: z = relu(h) 1[h > threshold], h = x W_enc + b_enc. The files say nothing of
the host; what the name of their directory says is put into the metadata.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from rsae.support.errors import InputError
from rsae.support.files import read_tensors, writing
from rsae.formats.checks import assemble, encoder_bias, read_config, renamed
from rsae.sae import SAE, BatchTopK

NPZ, SAFETENSORS, CONFIG = "params.npz", "params.safetensors", "config.json"
FAMILIES = ("jump_relu", "relu", "batch_top_k", "matryoshka_batch_top_k")
_NAMES = {k: k for k in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
_LOWER = _NAMES | {"W_enc": "w_enc", "W_dec": "w_dec"}


class _Config(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    architecture: str = "jump_relu"
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None


def load(path: str | os.PathLike) -> SAE:
    """Read a directory with `params.npz` or `params.safetensors`, or one of these files.

    Raises `InputError` for transcoders, and for files that do not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / NPZ if (path / NPZ).exists() else path / SAFETENSORS
    metadata = _from_name(str(path.absolute().parent))
    config_file = path.parent / CONFIG
    if config_file.exists():
        config = read_config(config_file, _Config)
        if config.architecture != "jump_relu":
            raise InputError(f"{config_file}: architecture {config.architecture!r} is not supported")
        if config.hf_hook_point_out not in (None, config.hf_hook_point_in):
            raise InputError(f"{config_file}: a transcoder is no autoencoder")
        if config.model_name:
            metadata["model_name"] = config.model_name
    if path.suffix == ".npz":
        tensors = renamed(_read_npz(path), path, _NAMES)
    else:
        tensors = renamed(read_tensors(path), path, _LOWER)
    if tensors["W_enc"].ndim != 2:
        raise InputError(f"{path}: W_enc is no matrix")
    d_in, d_sae = tensors["W_enc"].shape
    # relu(h) 1[h > theta] = h 1[h > max(theta, 0)]
    tensors["threshold"] = tensors["threshold"].clamp_min(0)
    sae = assemble("jump_relu", {"d_in": d_in, "d_sae": d_sae, "subtract_b_dec": False}, tensors, path, path)
    sae.metadata = metadata
    return sae


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Write `params.npz`; a ReLU SAE is a JumpReLU with threshold 0, a BatchTopK one with the same for all latents."""
    ours: dict[str, Any] = sae.state_dict() | {"b_enc": encoder_bias(sae, subtract_b_dec=False)}
    if isinstance(sae, BatchTopK):
        ours["threshold"] = sae.threshold.clamp_min(0).expand(sae.d_sae)
    ours.setdefault("threshold", torch.zeros(sae.d_sae))
    arrays = {k: ours[k].contiguous().numpy() for k in _NAMES}
    with writing(Path(path) / NPZ) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _read_npz(file: Path) -> dict[str, torch.Tensor]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {k: torch.from_numpy(np.array(arrays[k], dtype=np.float32)) for k in arrays.files}
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except Exception as error:  # a torn or hostile archive can fail in many ways
        raise InputError(
            f"{file}: not a whole .npz file of numbers ({error}); pickled objects are not opened: fetch it anew"
        ) from error


def _from_name(directory: str) -> dict[str, Any]:
    """Metadata from a path such as `google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`."""
    metadata = {}
    if model := re.search(r"gemma-scope-(2-)?(\d+m|\d+b)-(pt|it)", directory):
        generation, suffix = ("3", f"-{model[3]}") if model[1] else ("2", "-it" if model[3] == "it" else "")
        metadata["model_name"] = f"google/gemma-{generation}-{model[2]}{suffix}"
    layer = re.search(r"layer_(\d+)", directory)
    for mark, site in (("resid_post", "resid_post"), ("-res", "resid_post"), ("mlp", "mlp_out")):
        if layer and mark in directory:
            metadata["hook_name"] = f"blocks.{layer[1]}.hook_{site}"
            break
    return metadata
