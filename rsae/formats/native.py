"""SAELens's directory layout, which is also the native one: `cfg.json` and `sae_weights.safetensors`.

What SAELens knows, it is given under its own names: ReLU is `standard`, TopK `topk`, JumpReLU `jumprelu`, Gated
`gated`, BatchTopK and Matryoshka BatchTopK `jumprelu` with a constant threshold. Other families are architecture
`rsae_` and their name, which SAELens reads after `import rsae.formats.saelens`. Our own settings lie under `rsae` in
cfg.json.

Read are version 6, the flat cfg before it, and SAELens's training checkpoints.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import read_json, read_tensors, write_json, write_tensors
from rsae.formats.checks import Tensors, assemble, parse_config
from rsae.formats.normalisation import folded
from rsae.sae import FAMILIES, SAE

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
#: version of the layout that is written; SAELens takes a cfg without one for an old flat one
_LAYOUT = "6.0.0"
#: SAELens's own names; every other family is `rsae_` and its name
ARCHITECTURE = {name: f"rsae_{name}" for name in FAMILIES} | {
    "relu": "standard",
    "jump_relu": "jumprelu",
    "top_k": "topk",
    "gated": "gated",
    "batch_top_k": "jumprelu",
    "matryoshka_batch_top_k": "jumprelu",
}
_FAMILY = {f"rsae_{name}": name for name in FAMILIES} | {
    "standard": "relu",
    "jumprelu": "jump_relu",
    "topk": "top_k",
    "gated": "gated",
    # of training checkpoints
    "batchtopk": "batch_top_k",
    "matryoshka_batchtopk": "matryoshka_batch_top_k",
}
_BATCH_TOP_K = ("batch_top_k", "matryoshka_batch_top_k")
#: fields of a flat cfg that are metadata since version 6
_METADATA = (
    "model_name",
    "hook_name",
    "hook_head_index",
    "context_size",
    "prepend_bos",
    "dataset_path",
    "sae_lens_training_version",
    "neuronpedia_id",
)


class _Cfg(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    d_in: PositiveInt
    d_sae: PositiveInt
    architecture: str = "standard"
    apply_b_dec_to_input: bool = True
    normalize_activations: str | bool | None = "none"
    rescale_acts_by_decoder_norm: bool = False
    k: PositiveFloat | None = None
    matryoshka_widths: list[PositiveInt] | None = None
    finetuning_scaling_factor: bool = False
    metadata: dict[str, Any] | None = None
    rsae: dict[str, Any] | None = None
    # before version 6
    activation_fn: str = Field("relu", validation_alias=AliasChoices("activation_fn", "activation_fn_str"))
    activation_fn_kwargs: dict[str, Any] | None = None

    @property
    def normalisation(self) -> str:
        value = self.normalize_activations
        if isinstance(value, bool):
            return "expected_average_only_in" if value else "none"
        return value or "none"


def save(sae: SAE, path: str | os.PathLike) -> None:
    """Write the directory `path`; weights first, so that a cfg.json says that they are there."""
    path = Path(path)
    tensors, settings = sae.state_dict(), sae.settings()
    if sae.family in _BATCH_TOP_K:
        tensors["threshold"] = tensors["threshold"].clamp_min(0).expand(sae.d_sae)
    write_tensors(path / WEIGHTS, tensors)
    cfg: dict[str, Any] = {
        "architecture": ARCHITECTURE[sae.family],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": sae.metadata.get("input_normalisation", "none"),
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _LAYOUT} | sae.metadata,
        "rsae": {"family": sae.family} | settings,
    }
    if sae.family == "top_k":
        cfg |= {"k": settings["k"], "rescale_acts_by_decoder_norm": False}
    write_json(path / CFG, cfg)


def load(path: str | os.PathLike, input_scale: float | None = None, normalised: bool = False) -> SAE:
    """Read what `save` wrote, or a SAELens directory; see `rsae.load` for the options.

    Raises `InputError` that names the file, the field or tensor, and what was expected there.
    """
    cfg_file, weights_file = Path(path) / CFG, Path(path) / WEIGHTS
    raw = read_json(cfg_file)
    cfg = parse_config(raw, cfg_file, _Cfg)
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in read_tensors(weights_file).items()}
    name, settings = _settings(cfg, raw, cfg_file)
    if cfg.rsae is None:
        tensors = _as_ours(tensors, cfg, name, weights_file)
    elif name in _BATCH_TOP_K:
        tensors["threshold"] = _one_threshold(tensors, cfg, weights_file)
    tensors, note = folded(
        tensors, cfg.normalisation, f"{cfg_file}: normalize_activations", input_scale, normalised
    )
    if cfg.rescale_acts_by_decoder_norm:
        if input_scale is not None and "threshold" in tensors:
            tensors["threshold"] = tensors["threshold"] / input_scale  # it is compared with z ||d||
        tensors = _with_unit_decoder(tensors, cfg)
    sae = assemble(name, settings, tensors, cfg_file, weights_file)
    flat = {k: raw[k] for k in _METADATA if raw.get(k) is not None}
    if "hook_point" in raw:
        flat.setdefault("hook_name", raw["hook_point"])
    sae.metadata = (flat if cfg.metadata is None else cfg.metadata) | note
    if sae.metadata.get("sae_lens_version") == _LAYOUT:
        del sae.metadata["sae_lens_version"]  # ours; `save` writes it again
    return sae


def _settings(cfg: _Cfg, raw: dict[str, Any], file: Path) -> tuple[str, dict[str, Any]]:
    """Family and settings."""
    architecture = cfg.architecture
    if cfg.metadata is None and cfg.activation_fn == "topk":
        architecture = "topk"
    if architecture not in _FAMILY:
        raise InputError(
            f"{file}: architecture {architecture!r} is not supported{did_you_mean(architecture, _FAMILY)}"
        )
    name = _FAMILY[architecture]
    if cfg.rsae is not None:
        settings = dict(cfg.rsae)
        name = settings.pop("family", name)
        for field, ours, theirs in (
            ("architecture", ARCHITECTURE.get(name), architecture),
            ("d_in", settings.get("d_in"), cfg.d_in),
            ("d_sae", settings.get("d_sae"), cfg.d_sae),
            ("apply_b_dec_to_input", settings.get("subtract_b_dec", True), cfg.apply_b_dec_to_input),
        ):
            if ours != theirs:
                raise InputError(f"{file}: {field} = {theirs!r}, but `rsae` in the same file means {ours!r}")
        return name, settings
    if cfg.activation_fn not in ("relu", "topk"):
        raise InputError(
            f"{file}: activation_fn {cfg.activation_fn!r} is not supported, only relu and topk are"
        )
    settings = {"d_in": cfg.d_in, "d_sae": cfg.d_sae, "subtract_b_dec": cfg.apply_b_dec_to_input}
    if "top_k" in name:
        k = cfg.k or (cfg.activation_fn_kwargs or {}).get("k")
        if not isinstance(k, int | float) or k != int(k):
            raise InputError(f"{file}: k = {k!r} is not a whole number, which {architecture!r} needs")
        settings["k"] = int(k)
    if name == "matryoshka_batch_top_k":
        settings["group_sizes"] = _group_sizes(cfg, file)
    return name, settings


def _group_sizes(cfg: _Cfg, file: Path) -> list[int]:
    """SAELens's widths are nested: each holds the ones before."""
    widths: list[int] = sorted({int(w) for w in cfg.matryoshka_widths or []} | {cfg.d_sae})
    if widths[-1] > cfg.d_sae:
        raise InputError(f"{file}: matryoshka_widths {widths} reach beyond d_sae = {cfg.d_sae}")
    return [b - a for a, b in zip([0, *widths], widths, strict=False)]


def _as_ours(tensors: Tensors, cfg: _Cfg, name: str, file: Path) -> Tensors:
    """What other versions of SAELens wrote otherwise."""
    tensors = dict(tensors)
    if "log_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    if "topk_threshold" in tensors and name in _BATCH_TOP_K:
        tensors["threshold"] = tensors.pop("topk_threshold").float()
    if "threshold" in tensors:
        # relu(h) 1[h > theta] = h 1[h > max(theta, 0)]
        tensors["threshold"] = tensors["threshold"].clamp_min(0)
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        if not cfg.finetuning_scaling_factor or scaling.shape != (cfg.d_sae,) or "W_dec" not in tensors:
            raise InputError(f"{file}: scaling_factor is not 1, but cfg.json does not say that it is in use")
        tensors["W_dec"] = tensors["W_dec"] * scaling[:, None]
    return tensors


def _with_unit_decoder(tensors: Tensors, cfg: _Cfg) -> Tensors:
    """Selected on z ||d||, decoded by d / ||d||: the same as with decoder norms moved into the encoder."""
    shapes = {"W_enc": (cfg.d_in, cfg.d_sae), "W_dec": (cfg.d_sae, cfg.d_in), "b_enc": (cfg.d_sae,)}
    if any(k not in tensors or tensors[k].shape != shape for k, shape in shapes.items()):
        return tensors  # `assemble` says what is wrong
    norm_F = tensors["W_dec"].norm(dim=-1).clamp_min(1e-8)
    moved = {k: tensors[k] * norm_F for k in ("W_enc", "b_enc")}
    return tensors | moved | {"W_dec": tensors["W_dec"] / norm_F[:, None]}


def _one_threshold(tensors: Tensors, cfg: _Cfg, file: Path) -> torch.Tensor:
    threshold_F = tensors.get("threshold")
    if threshold_F is None or threshold_F.shape != (cfg.d_sae,) or (threshold_F != threshold_F[0]).any():
        raise InputError(
            f"{file}: threshold must hold one value {cfg.d_sae} times, as a BatchTopK SAE's does; "
            "without `rsae` in cfg.json the file is read as a JumpReLU SAE"
        )
    return threshold_F[0]
