"""Gemma Scope: `params.npz` (Gemma 2) or `params.safetensors` with lower-case names (Gemma Scope 2, Gemma 3).

JumpReLU SAEs that do not subtract b_dec: z = relu(h) 1[h > threshold], h = x W_enc + b_enc. A config.json beside the
weights is believed. Where there is none, the release's own directory names say what the SAE is, such as
`gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`: whole names in this order, not parts of names.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from rsae.formats.checks import (
    assemble,
    encoder_bias,
    hook_name,
    module_name,
    read_config,
    read_provenance,
    read_weights,
    renamed,
)
from rsae.sae import SAE
from rsae.support.errors import InputError
from rsae.support.files import read_json, write_json, writing

NPZ, SAFETENSORS, CONFIG = "params.npz", "params.safetensors", "config.json"
FAMILIES = ("jump_relu", "relu", "batch_top_k", "matryoshka_batch_top_k")
_NAMES = {k: k for k in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
#: the skip connection of Gemma Scope 2's transcoders
_AFFINE = "affine_skip_connection"
_LOWER = _NAMES | {"W_enc": "w_enc", "W_dec": "w_dec"}

#: The parts of the host that a release's name ends in (Gemma 2), or that a directory is named by (Gemma Scope 2)
_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_SITES_2 = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z"}
_UNKNOWN = "unknown"  # another point than the input's
_PREDICTORS = ("transcoder", "transcoders", "clt", "crosscoder")
_RELEASE = re.compile(
    r"gemma-scope-(?P<second>2-)?(?P<size>\d+(?:m|b))-(?P<tuned>pt|it)(?:-(?P<part>[a-z]+))?"
)
_LAYER = re.compile(r"layer_(\d+)(?:_.*)?")


class _Config(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    architecture: str = "jump_relu"
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None
    affine_connection: bool = False


@dataclass(frozen=True)
class _Named:
    """What the names of a path's directories say."""

    model: str | None = None
    hook: str | None = None
    kind: str = "sae"
    embedding: bool = False
    target: str | None = None


def load(path: str | os.PathLike, hook: str | None = None, kind: str | None = None) -> SAE:
    """Read a directory with `params.npz` or `params.safetensors`, or one of these files.

    Args:
        path: The directory or file.
        hook: The hook point, where names would say another or none.
        kind: `sae` or `transcoder`, where names would say another.

    Raises:
        InputError: It is a cross-layer transcoder or crosscoder, config.json and the directory's name disagree, or the
            file does not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / NPZ if (path / NPZ).exists() else path / SAFETENSORS
    named = _from_names(path.absolute().parent.parts)
    config_file = path.parent / CONFIG
    metadata: dict[str, Any] = {"model_name": named.model, "hook_name": named.hook}
    if config_file.exists():
        config = read_config(config_file, _Config)
        if config.architecture not in ("jump_relu", "jumprelu"):
            raise InputError(f"{config_file}: architecture {config.architecture!r} is not supported")
        out = config.hf_hook_point_out
        transcodes = config.affine_connection or out not in (None, config.hf_hook_point_in)
        if transcodes:
            metadata["hook_name_out"] = (_hook(out) if out else None) or named.target
        if kind is None and transcodes:
            kind = "transcoder"
        said = _hook(config.hf_hook_point_in) if config.hf_hook_point_in else None
        if said and named.hook and said != named.hook and hook is None:
            raise InputError(
                f"{config_file}: hf_hook_point_in means {said}, the directory's name {named.hook}; say which by hook="
            )
        metadata |= {"model_name": config.model_name or named.model, "hook_name": said or named.hook}
        if config.hf_hook_point_in:
            metadata["hf_hook_point_in"] = config.hf_hook_point_in
    elif named.hook or named.model:
        print(
            f"{path}: host {named.model}, hook point {named.hook}: read off the directory's name",
            file=sys.stderr,
        )
    kind = kind or named.kind
    if kind not in ("sae", "transcoder"):
        raise InputError(
            f"{path}: by its directory's name a {named.kind}, which reads or predicts several layers; if it is of one "
            "layer, say so by kind='sae' or kind='transcoder'"
        )
    raw = _read_npz(path) if path.suffix == ".npz" else read_weights(path)
    names = _NAMES if path.suffix == ".npz" else _LOWER
    skip = kind == "transcoder" and _AFFINE in raw
    tensors = renamed(raw, path, names | ({"W_skip": _AFFINE} if skip else {}))
    if tensors["W_enc"].ndim != 2 or tensors["W_dec"].ndim != 2:
        raise InputError(f"{path}: W_enc or W_dec is no matrix")
    d_in, d_sae = tensors["W_enc"].shape
    settings: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "subtract_b_dec": False}
    if kind == "transcoder":
        settings["target"] = {"d_out": tensors["W_dec"].shape[1], "skip": skip}
        metadata.setdefault("hook_name_out", named.target)
        if skip:  # theirs is [D, O]
            tensors["W_skip"] = tensors["W_skip"].T
    # relu(h) 1[h > theta] = h 1[h > max(theta, 0)]
    tensors["threshold"] = tensors["threshold"].clamp_min(0)
    if named.embedding:  # trained on embeddings before Gemma multiplies them by sqrt(d_in)
        tensors["W_enc"] = tensors["W_enc"] / d_in**0.5
        tensors["W_dec"] = tensors["W_dec"] * d_in**0.5
    sae = assemble("jump_relu", settings, tensors, path, path)
    if hook is not None:
        metadata["hook_name"] = hook
    sae.provenance = read_provenance(metadata, config_file)
    return sae


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Write `params.npz`; a ReLU SAE is a JumpReLU with threshold 0, a BatchTopK one with the same for all latents.

    The weights do not tell a transcoder from an SAE: it gets Gemma Scope 2's `config.json` beside them.

    Args:
        sae: The SAE.
        path: The directory.
    """
    bias_F = sae.encoder_bias.detach() if sae.transcodes else encoder_bias(sae, subtract_b_dec=False)
    ours: dict[str, Any] = sae.state_dict() | {"b_enc": bias_F}
    if sae.one_threshold:
        ours["threshold"] = ours["threshold"].clamp_min(0).expand(sae.d_sae)
    ours.setdefault("threshold", torch.zeros(sae.d_sae))
    arrays = {k: ours[k].contiguous().cpu().numpy() for k in _NAMES}
    if sae.W_skip is not None:
        arrays[_AFFINE] = sae.W_skip.detach().T.contiguous().cpu().numpy()
    if sae.transcodes:
        own = sae.provenance
        config = _Config(
            model_name=own.model,
            hf_hook_point_in=module_name(own.hook) if own.hook else None,
            hf_hook_point_out=module_name(own.target) if own.target else _UNKNOWN,
            affine_connection=sae.W_skip is not None,
        )
        write_json(Path(path) / CONFIG, config.model_dump(exclude_none=True))
    elif (stale := Path(path) / CONFIG).exists() and "hf_hook_point_out" in read_json(stale):
        stale.unlink()  # of a transcoder that was here before
    with writing(Path(path) / NPZ) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _hook(module: str) -> str | None:
    """The hook point that a `config.json` names."""
    return module if module.startswith("blocks.") else hook_name(module)


def _read_npz(file: Path) -> dict[str, torch.Tensor]:
    try:
        # opened here, since numpy leaves a torn file open
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {k: torch.from_numpy(np.array(arrays[k], dtype=np.float32)) for k in arrays.files}
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except Exception as error:  # a torn or hostile archive can fail in many ways
        raise InputError(
            f"{file}: not a whole .npz file of numbers ({error}); pickled objects are not opened: fetch it anew"
        ) from error


def _from_names(parts: tuple[str, ...]) -> _Named:
    """What a release's own layout says: a release's name, and behind it the names of site and layer."""
    # the hub's cache writes a repository as models--google--gemma-scope-...
    names = [part.rsplit("--", 1)[-1] if part.startswith("models--") else part for part in parts]
    releases = [(i, m) for i, name in enumerate(names) if (m := _RELEASE.fullmatch(name))]
    if not releases:
        return _Named()
    at, release = releases[-1]
    inside = names[at + 1 :]
    second = release["second"] is not None
    suffix = f"-{release['tuned']}" if second or release["tuned"] == "it" else ""
    model = f"google/gemma-{3 if second else 2}-{release['size']}{suffix}"
    layers = [m[1] for name in inside if (m := _LAYER.fullmatch(name))]
    layer = layers[-1] if layers else None
    if second:
        stems = [name.removesuffix("_all") for name in inside]
        kind = next((stem for stem in stems if stem in _PREDICTORS), "sae")
        site = next((_SITES_2[stem] for stem in stems if stem in _SITES_2), None)
    else:
        part = release["part"] or ""
        kind = part if part in _PREDICTORS else "sae"
        site = _SITES.get(part)
    if kind == "sae" and "embedding" in inside:
        return _Named(model, "blocks.0.hook_resid_pre", embedding=True)
    if kind.removesuffix("s") == "transcoder" and layer is not None:
        return _Named(
            model, f"blocks.{layer}.hook_mlp_in", "transcoder", target=f"blocks.{layer}.hook_mlp_out"
        )
    hook = f"blocks.{layer}.{site}" if layer is not None and site is not None else None
    return _Named(model, hook, kind.removesuffix("s"))
