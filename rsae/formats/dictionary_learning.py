"""The layout of `dictionary_learning`: `ae.pt` (a state dict, torch.save) and `config.json`.

The names of its classes say how the file is read; see docs/formats.md. A mid-run `ae.pt`, which holds the state under
`ae`, was trained on activations divided by its `norm_factor`.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, PositiveInt

from rsae.formats.checks import (
    assemble,
    encoder_bias,
    hook_name,
    parse_config,
    read_provenance,
    read_state,
    renamed,
    transposed,
)
from rsae.provenance import Provenance
from rsae.sae import SAE
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import read_json, write_json, write_torch

CONFIG, WEIGHTS = "config.json", "ae.pt"
#: where the file's own config waits for the next save
_FOREIGN = "dictionary_learning_config"


class _Class(NamedTuple):
    family: str
    names: dict[str, str]  # ours -> theirs
    subtract_b_dec: bool
    buffers: tuple[str, ...] = ()  # what else may be in the file


_LINEAR = {"W_enc": "encoder.weight", "W_dec": "decoder.weight"}
_BIASED = _LINEAR | {"b_enc": "encoder.bias"}
_PLAIN = {k: k for k in ("W_enc", "W_dec", "b_enc", "b_dec")}
_GATED = {"b_dec": "decoder_bias", "r_mag": "r_mag", "b_gate": "gate_bias", "b_mag": "mag_bias"}
_THRESHOLD = {"threshold": "threshold"}
_CLASSES = {
    "AutoEncoder": _Class("relu", _BIASED | {"b_dec": "bias"}, True),
    "AutoEncoderNew": _Class("relu", _BIASED | {"b_dec": "decoder.bias"}, False),
    "GatedAutoEncoder": _Class("gated", _LINEAR | _GATED, True),
    "AutoEncoderTopK": _Class("top_k", _BIASED | {"b_dec": "b_dec"}, True, ("k", "threshold")),
    "BatchTopKSAE": _Class("batch_top_k", _BIASED | {"b_dec": "b_dec"} | _THRESHOLD, True, ("k",)),
    "JumpReluAutoEncoder": _Class("jump_relu", _PLAIN | _THRESHOLD, False),
    "MatryoshkaBatchTopKSAE": _Class(
        "matryoshka_batch_top_k", _PLAIN | _THRESHOLD, True, ("k", "group_sizes")
    ),
}
FAMILIES = tuple(dict.fromkeys(c.family for c in _CLASSES.values()))


class _Trainer(BaseModel):
    dict_class: str
    activation_dim: PositiveInt | None = None
    dict_size: PositiveInt | None = None
    k: PositiveInt | None = None
    layer: int | None = None
    lm_name: str | None = None
    submodule_name: str | None = None


class _Config(BaseModel):
    trainer: _Trainer


def load(path: str | os.PathLike) -> SAE:
    """Read a directory with `ae.pt` and `config.json`.

    As the library does on loading, the decoder of an `AutoEncoder` is brought to unit norm, its norms moved into the
    encoder. Raises `InputError` that names the file, the field or tensor, and what was expected there.
    """
    config_file, weights_file = Path(path) / CONFIG, Path(path) / WEIGHTS
    raw = read_json(config_file)
    trainer = parse_config(raw, config_file, _Config).trainer
    state = read_state(weights_file)
    norm_factor = None
    if isinstance(state.get("ae"), dict):
        norm_factor = state.get("norm_factor")
        state = state["ae"]
    cls = _CLASSES.get(trainer.dict_class)
    if cls is None:
        raise InputError(
            f"{config_file}: trainer.dict_class {trainer.dict_class!r} is not supported"
            + did_you_mean(trainer.dict_class, _CLASSES)
        )
    tensors = renamed(state, weights_file, cls.names, cls.buffers)
    if "encoder.weight" in cls.names.values():
        tensors |= {k: transposed(tensors[k]) for k in ("W_enc", "W_dec")}
    if tensors["W_enc"].ndim != 2:
        raise InputError(f"{weights_file}: the encoder's weight is no matrix")
    d_in, d_sae = tensors["W_enc"].shape
    settings: dict[str, Any] = {
        "d_in": trainer.activation_dim or d_in,
        "d_sae": trainer.dict_size or d_sae,
        "subtract_b_dec": cls.subtract_b_dec,
    }
    if "k" in cls.buffers:
        settings["k"] = _k(trainer, state, config_file)
    if "group_sizes" in cls.buffers:
        sizes = state.get("group_sizes")
        if not isinstance(sizes, torch.Tensor) or sizes.ndim != 1:
            raise InputError(f"{weights_file}: tensor 'group_sizes' is missing")
        settings["group_sizes"] = sizes.tolist()
    if "threshold" in tensors:
        # relu(h) 1[h > theta] = h 1[h > max(theta, 0)]; -1 stands for a threshold that is not set
        tensors["threshold"] = tensors["threshold"].clamp_min(0)
    sae = assemble(cls.family, settings, tensors, config_file, weights_file)
    if trainer.dict_class == "AutoEncoder":
        _normalise_decoder(sae)
    if norm_factor is not None:
        if not isinstance(norm_factor, int | float) or not 0 < norm_factor < math.inf:
            raise InputError(f"{weights_file}: norm_factor {norm_factor!r} is no positive number")
        sae.rescale_(norm_factor)
    sae.provenance = _provenance(raw, trainer, config_file)
    return sae


def _provenance(raw: dict[str, Any], trainer: _Trainer, file: Path) -> Provenance:
    """What the config says; a hook point only where it names the submodule. All else is kept."""
    metadata: dict[str, Any] = {"model_name": trainer.lm_name}
    buffer = raw.get("buffer")
    if isinstance(buffer, dict) and isinstance(buffer.get("ctx_len"), int):
        metadata["context_size"] = buffer["ctx_len"]
    if trainer.submodule_name:
        # the library's own names, such as resid_post_layer_12; or a module's
        own = re.fullmatch(
            r"(resid_post|resid_pre|attn_out|mlp_out)(?:_layer_(\d+))?", trainer.submodule_name
        )
        if own is None:
            metadata["hook_name"] = hook_name(trainer.submodule_name)
        elif own[2] is not None and trainer.layer is not None and int(own[2]) != trainer.layer:
            raise InputError(
                f"{file}: trainer.submodule_name {trainer.submodule_name!r} and trainer.layer {trainer.layer} disagree"
            )
        else:
            layer = own[2] if own[2] is not None else trainer.layer
            metadata["hook_name"] = None if layer is None else f"blocks.{layer}.hook_{own[1]}"
    metadata[_FOREIGN] = raw
    return read_provenance(metadata, file)


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Write `ae.pt` and `config.json`; of a ReLU SAE, the library normalises the decoder when it loads it.

    The class is the family's that subtracts b_dec as the SAE does, where there is one.
    """
    fitting = {name: c for name, c in _CLASSES.items() if c.family == sae.family}
    name = next(
        (n for n, c in fitting.items() if c.subtract_b_dec == sae.subtract_b_dec), next(iter(fitting))
    )
    cls = fitting[name]
    ours = sae.state_dict()
    bias_F = encoder_bias(sae, cls.subtract_b_dec)
    if "b_mag" in ours:
        # both of its paths see the input
        ours["b_mag"] = ours["b_mag"] + ours["r_mag"].exp() * (bias_F - ours["b_gate"])
        ours["b_gate"] = bias_F
    else:
        ours["b_enc"] = bias_F
    linear = "encoder.weight" in cls.names.values()
    state = {
        theirs: (transposed(ours[k]) if linear and k.startswith("W_") else ours[k]).contiguous().clone()
        for k, theirs in cls.names.items()
    }
    settings, known = sae.settings(), sae.provenance
    if "k" in settings:
        state["k"] = torch.tensor(settings["k"], dtype=torch.int)
    if cls.family == "top_k":
        state["threshold"] = torch.tensor(-1.0)
    if "group_sizes" in settings:
        state["group_sizes"] = torch.tensor(settings["group_sizes"])
    layer, _, site = (known.hook or "").removeprefix("blocks.").partition(".hook_")
    trainer = {
        "dict_class": name,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        "k": settings.get("k"),
        "layer": int(layer) if layer.isdigit() else None,
        "lm_name": known.model,
        "submodule_name": f"{site}_layer_{layer}" if site else None,
    }
    path = Path(path)
    write_torch(path / WEIGHTS, state)
    foreign = known.extra.get(_FOREIGN)
    foreign = foreign if isinstance(foreign, dict) else {}
    kept = foreign.get("trainer") if isinstance(foreign.get("trainer"), dict) else {}
    write_json(path / CONFIG, foreign | {"trainer": (kept or {}) | trainer})


def _k(trainer: _Trainer, state: dict[str, Any], file: Path) -> int:
    """k, which stands in the config, in the weights, or in both."""
    stored = int(state["k"]) if isinstance(state.get("k"), torch.Tensor) and state["k"].numel() == 1 else None
    if trainer.k is not None and stored is not None and trainer.k != stored:
        raise InputError(f"{file}: trainer.k = {trainer.k}, but {WEIGHTS} says {stored}")
    k = trainer.k or stored
    if k is None:
        raise InputError(f"{file}: trainer.k is missing, and {WEIGHTS} holds none")
    return k


@torch.no_grad()
def _normalise_decoder(sae: SAE) -> None:
    norm_F = sae.W_dec.norm(dim=1)
    if torch.allclose(norm_F, torch.ones_like(norm_F)):
        return
    norm_F = norm_F.clamp_min(1e-12)
    sae.W_dec.div_(norm_F[:, None])
    sae.W_enc.mul_(norm_F)
    sae.encoder_bias.mul_(norm_F)
