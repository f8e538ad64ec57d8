"""EleutherAI's `sparsify`: `cfg.json` and `sae.safetensors`, a directory a hook point.

z = topk(relu(W (x - b_dec) + b)). Its cfg fields normalize_decoder and multi_topk concern training only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt, PositiveInt

from rsae.formats.checks import (
    assemble,
    encoder_bias,
    hook_name,
    parse_config,
    read_provenance,
    read_weights,
    renamed,
    transposed,
)
from rsae.sae import SAE
from rsae.support.errors import InputError
from rsae.support.files import read_json, write_json, write_tensors

CFG, WEIGHTS = "cfg.json", "sae.safetensors"
FAMILIES = ("top_k",)
#: where the file's own cfg waits for the next save
_FOREIGN = "sparsify_cfg"
_NAMES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}


class _Cfg(BaseModel):
    d_in: PositiveInt
    k: PositiveInt = 32
    num_latents: NonNegativeInt = 0
    expansion_factor: PositiveInt = 32
    activation: str = "topk"
    signed: bool = False
    transcode: bool = False
    skip_connection: bool = False


def load(path: str | os.PathLike) -> SAE:
    """Read a hook point's directory.

    Raises `InputError` for a skip connection of an autoencoder, for the activation `groupmax`, and for files that do
    not fit.
    """
    path = Path(path)
    cfg_file, weights_file = path / CFG, path / WEIGHTS
    raw = read_json(cfg_file)
    cfg = parse_config(raw, cfg_file, _Cfg)
    if cfg.activation != "topk" or cfg.signed:
        what = "signed" if cfg.signed else f"activation {cfg.activation!r}"
        raise InputError(f"{cfg_file}: {what} is not supported, only the activation 'topk' is")
    if cfg.skip_connection and not cfg.transcode:
        raise InputError(
            f"{cfg_file}: skip_connection without transcode: an autoencoder would only copy its input"
        )
    names = _NAMES | ({"W_skip": "W_skip"} if cfg.skip_connection else {})
    tensors = renamed(read_weights(weights_file), weights_file, names)
    tensors["W_enc"] = transposed(tensors["W_enc"])
    settings: dict[str, Any] = {
        "d_in": cfg.d_in,
        "d_sae": cfg.num_latents or cfg.d_in * cfg.expansion_factor,
        "k": cfg.k,
    }
    if cfg.transcode:
        d_out = tensors["W_dec"].shape[-1] if tensors["W_dec"].ndim == 2 else cfg.d_in
        settings["target"] = {"d_out": d_out, "skip": cfg.skip_connection}
    sae = assemble("top_k", settings, tensors, cfg_file, weights_file)
    run = path.parent / "config.json"  # of the run that trained all hook points
    of_run = read_json(run) if run.exists() else {}
    model = of_run.get("model") if isinstance(of_run, dict) else None
    # sparsify names a hook point's directory by the module: its own layout, not a guess
    module = path.absolute().name
    metadata = {"model_name": model, "hook_name": hook_name(module), _FOREIGN: raw}
    if cfg.transcode:  # of a module's input and output
        metadata |= {"hook_name": hook_name(f"{module}.input"), "hook_name_out": hook_name(module)}
    sae.provenance = read_provenance(metadata, run)
    return sae


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Write `cfg.json` and `sae.safetensors`."""
    path = Path(path)
    bias_F = sae.encoder_bias.detach() if sae.transcodes else encoder_bias(sae, subtract_b_dec=True)
    ours = sae.state_dict() | {"b_enc": bias_F}
    ours["W_enc"] = ours["W_enc"].T
    skip = sae.target is not None and sae.target.skip
    names = _NAMES | ({"W_skip": "W_skip"} if skip else {})
    write_tensors(path / WEIGHTS, {theirs: ours[k] for k, theirs in names.items()})
    foreign = sae.provenance.extra.get(_FOREIGN)
    write_json(
        path / CFG,
        (foreign if isinstance(foreign, dict) else {})
        | {
            "activation": "topk",
            "expansion_factor": max(1, sae.d_sae // sae.d_in),
            "normalize_decoder": True,
            "num_latents": sae.d_sae,
            "k": sae.settings()["k"],
            "multi_topk": False,
            "skip_connection": skip,
            "transcode": sae.transcodes,
            "d_in": sae.d_in,
        },
    )
