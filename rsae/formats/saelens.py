"""SAELens's directory layout, which is also the native one: `cfg.json` and `sae_weights.safetensors`.

ReLU is written as `standard`, TopK as `topk`, JumpReLU as `jumprelu` (linear `threshold`), so that SAELens loads
them. Other families are architecture `rsae_` and their name: their own settings lie under `rsae` in cfg.json, their
coefficients beside the weights. Activations are taken as the host gives them (`normalize_activations: none`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from rsae.errors import InputError, did_you_mean
from rsae.files import read_json, read_tensors, write_json, write_tensors
from rsae.sae import FAMILIES, SAE, family

#: SAELens's own names; every other family is `rsae_` and its name
_ARCHITECTURE = {name: f"rsae_{name}" for name in FAMILIES} | {
    "relu": "standard",
    "jump_relu": "jumprelu",
    "top_k": "topk",
    "gated": "gated",
}
_FAMILY = {architecture: name for name, architecture in _ARCHITECTURE.items()}


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Write the directory `path`; weights first, so that a cfg.json says that they are there."""
    path = Path(path)
    write_tensors(path / "sae_weights.safetensors", sae.state_dict())
    settings = sae.settings()
    cfg: dict[str, Any] = {
        "architecture": _ARCHITECTURE[sae.family],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": sae.metadata,
        "rsae": settings,
    }
    if sae.family == "top_k":
        cfg |= {"k": settings["k"], "rescale_acts_by_decoder_norm": False}
    write_json(path / "cfg.json", cfg)


def load(path: str | os.PathLike) -> SAE:
    """Read what `save` wrote, or a SAELens (version 6) directory of architecture standard, topk or jumprelu.

    Raises `InputError` that names the file, the field or tensor, and what was expected there.
    """
    path = Path(path)
    cfg_file, weights_file = path / "cfg.json", path / "sae_weights.safetensors"
    if not cfg_file.exists():
        raise InputError(
            f"{path}: no cfg.json, so no SAE; give a directory with cfg.json and sae_weights.safetensors"
        )
    cfg = read_json(cfg_file)
    if not isinstance(cfg, dict) or not {"architecture", "d_in", "d_sae"} <= cfg.keys():
        raise InputError(f"{cfg_file}: needs the fields architecture, d_in and d_sae")
    if cfg["architecture"] not in _FAMILY:
        raise InputError(
            f"{cfg_file}: architecture {cfg['architecture']!r} is not supported"
            + did_you_mean(cfg["architecture"], _FAMILY)
        )
    for field, wanted in (
        ("normalize_activations", "none"),
        ("rescale_acts_by_decoder_norm", False),
        ("reshape_activations", "none"),
    ):
        if cfg.get(field, wanted) != wanted:
            raise InputError(f"{cfg_file}: {field} = {cfg[field]!r} is not supported, only {wanted!r} is")
    cls = family(_FAMILY[cfg["architecture"]])
    settings = cfg.get("rsae") or {
        "d_in": cfg["d_in"],
        "d_sae": cfg["d_sae"],
        "subtract_b_dec": cfg.get("apply_b_dec_to_input", True),
    } | ({"k": cfg["k"]} if "k" in cfg else {})
    try:
        sae = cls.from_settings(settings)
    except (TypeError, KeyError, RuntimeError) as error:
        raise InputError(f"{cfg_file}: the settings do not make a {cls.family} SAE ({error})") from error
    tensors = read_tensors(weights_file)
    expected = sae.state_dict()
    for name, value in expected.items():
        if name not in tensors:
            raise InputError(f"{weights_file}: tensor {name!r} is missing")
        if tensors[name].shape != value.shape:
            raise InputError(
                f"{weights_file}: {name} has shape {list(tensors[name].shape)}, cfg.json says {list(value.shape)}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise InputError(f"{weights_file}: {name} holds NaN or infinity")
    if extra := tensors.keys() - expected.keys():
        raise InputError(
            f"{weights_file}: unknown tensor {min(extra)!r} for architecture {cfg['architecture']!r}"
        )
    sae.load_state_dict({k: v.to(torch.float32) for k, v in tensors.items()})
    sae.metadata = cfg.get("metadata") or {}
    return sae.eval()
