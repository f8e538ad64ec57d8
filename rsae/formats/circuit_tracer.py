"""circuit-tracer's directory of transcoders: `config.yaml`, and `layer_L.safetensors` for each layer of the host.

y_hat = z W_dec + b_dec (+ x W_skip^T), z = h 1[h > threshold] where the file has `activation_function.threshold`, else
max(h, 0); no b_dec is subtracted. W_enc is [F, D]. Each layer is a transcoder of its own: a file is loaded, and saving
adds a layer to a directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from rsae.formats.checks import Tensors, assemble, read_provenance, read_weights, renamed, transposed
from rsae.sae import SAE
from rsae.support.errors import InputError
from rsae.support.files import write_tensors, write_text

CONFIG = "config.yaml"
FAMILIES = ("relu", "jump_relu", "batch_top_k", "matryoshka_batch_top_k")
_KIND = "transcoder_set"
_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_NAMES = {k: k for k in ("W_enc", "b_enc", "W_dec", "b_dec")}
_THRESHOLD = "activation_function.threshold"
#: Their hook points in a block, and ours. `ln2.hook_normalized` is none of ours: it stands before the norm's weights.
_HOOKS = {
    "mlp.hook_in": "hook_mlp_in",
    "hook_resid_pre": "hook_resid_pre",
    "hook_resid_mid": "hook_resid_mid",
    "hook_mlp_out": "hook_mlp_out",
    "mlp.hook_out": "hook_mlp_out",
    "hook_resid_post": "hook_resid_post",
}


def is_layer(path: Path) -> bool:
    """Whether a file is a layer of such a directory.

    Args:
        path: The file.
    """
    return _LAYER.fullmatch(path.name) is not None and (path.parent / CONFIG).exists()


def load(path: str | os.PathLike) -> SAE:
    """Read one layer.

    Args:
        path: Its file, `layer_L.safetensors`.

    Raises:
        InputError: A directory is given, the set is of another kind, or a file does not fit.
    """
    path = Path(path)
    if path.is_dir():
        layers = sorted((p for p in path.glob("layer_*.safetensors")), key=lambda p: (len(p.name), p.name))
        first = f", such as rsae.load({str(layers[0])!r})" if layers else ", which is not there"
        raise InputError(f"{path}: holds a transcoder for each layer: name one's file{first}")
    config_file = path.parent / CONFIG
    config = _read_config(config_file)
    if config.get("model_kind", _KIND) != _KIND:
        raise InputError(
            f"{config_file}: model_kind {config['model_kind']!r} is not supported, only {_KIND} is, layer by layer"
        )
    if (activation := config.get("activation")) not in (None, "relu", "jump_relu"):
        raise InputError(
            f"{config_file}: activation {activation!r} is not supported, which passes negative values; relu and "
            "thresholds are read"
        )
    raw = read_weights(path)
    names = dict(_NAMES)
    names |= {"threshold": _THRESHOLD} if _THRESHOLD in raw else {}
    names |= {"W_skip": "W_skip"} if "W_skip" in raw else {}
    tensors = renamed(raw, path, names)
    tensors["W_enc"] = transposed(tensors["W_enc"])
    if tensors["W_enc"].ndim != 2 or tensors["W_dec"].ndim != 2:
        raise InputError(f"{path}: W_enc or W_dec is no matrix")
    d_in, d_sae = tensors["W_enc"].shape
    target = {"d_out": tensors["W_dec"].shape[1], "skip": "W_skip" in tensors}
    settings = {"d_in": d_in, "d_sae": d_sae, "subtract_b_dec": False, "target": target}
    sae = assemble("jump_relu" if "threshold" in tensors else "relu", settings, tensors, path, path)
    match = _LAYER.fullmatch(path.name)
    layer = match[1] if match else None
    metadata: dict[str, Any] = {"model_name": config.get("model_name"), "circuit_tracer_config": config}
    for ours, theirs in (("hook_name", "feature_input_hook"), ("hook_name_out", "feature_output_hook")):
        point = _HOOKS.get(str(config.get(theirs)))
        metadata[ours] = f"blocks.{layer}.{point}" if point and layer else None
    sae.provenance = read_provenance(metadata, config_file)
    return sae


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Add a layer to a directory, or begin one.

    Args:
        sae: The transcoder; its provenance says the layer and both hook points.
        path: The directory.

    Raises:
        InputError: It does not say where it belongs, or the directory's layers have other hook points.
    """
    path = Path(path)
    provenance = sae.provenance
    layer, read = _in_block(provenance.known("hook", "circuit-tracer's directory"))
    of_target, predicted = _in_block(provenance.known("target", "circuit-tracer's directory"))
    if layer != of_target:
        raise InputError(
            f"{path}: a layer of circuit-tracer's reads and predicts in one block, not {layer} and {of_target}"
        )
    config = {
        "model_kind": _KIND,
        "model_name": provenance.model,
        "feature_input_hook": read,
        "feature_output_hook": predicted,
    }
    config_file = path / CONFIG
    there = _read_config(config_file) if config_file.exists() else config
    for name, value in config.items():
        if there.get(name) not in (None, value):
            raise InputError(
                f"{config_file}: {name} is {there[name]!r}, the transcoder's {value!r}; choose another directory"
            )
    ours: Tensors = dict(sae.state_dict())
    tensors = {name: ours[name] for name in _NAMES} | {"W_enc": ours["W_enc"].T}
    if "threshold" in ours:
        tensors[_THRESHOLD] = ours["threshold"].clamp_min(0).expand(sae.d_sae)
    if sae.W_skip is not None:
        tensors["W_skip"] = sae.W_skip.detach()
    write_tensors(path / f"layer_{layer}.safetensors", {k: v.contiguous() for k, v in tensors.items()})
    write_text(config_file, yaml.safe_dump(there | config, sort_keys=False))


def _in_block(hook: str) -> tuple[str, str]:
    """The block of a hook point, and circuit-tracer's name of the point in it."""
    match = re.fullmatch(r"blocks\.(\d+)\.(\w+)", hook)
    names = [theirs for theirs, ours in _HOOKS.items() if match and ours == match[2]]
    if match is None or not names:
        raise InputError(f"hook point {hook!r} has no name in circuit-tracer's directories")
    return match[1], names[0]


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: not readable as YAML ({error}); fetch it anew") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: is no mapping; is it circuit-tracer's config?")
    return config
