"""SAELens's directory layout, which is also the native one: `cfg.json` and `sae_weights.safetensors`.

What SAELens knows, it is given under its own names: ReLU is `standard`, TopK `topk`, AbsTopK `abstopk`, JumpReLU
`jumprelu`, Gated `gated`, BatchTopK and Matryoshka BatchTopK `jumprelu` with a constant threshold. Other families are
architecture `rsae_` and their name, which SAELens reads after `import rsae.formats.saelens`. Our own settings lie under
`rsae` in cfg.json.

It reads version 6, the flat cfg before it, and SAELens's training checkpoints.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from rsae.checkpoints import write_whole
from rsae.formats.checks import Tensors, as_floats, assemble, parse_config, read_provenance, read_weights
from rsae.formats.normalisation import folded
from rsae.sae import FAMILIES, SAE, Target, Trained, family
from rsae.sae.shard import Shard
from rsae.support import distributed
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import read_json, write_json, write_tensors

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
#: version of the layout that is written; SAELens takes a cfg without one for an old flat one
_LAYOUT = "6.0.0"
#: where unknown fields of a foreign cfg wait for the next save
_FOREIGN = "foreign_cfg"


#: SAELens's transcoders, by its name of the SAE with the same gate
_TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}
_SKIP = {"transcoder": "skip_transcoder", "jumprelu_transcoder": "jumprelu_skip_transcoder"}


def architecture(cls: type[SAE], target: Target | None = None) -> str:
    """SAELens's name of a family's architecture; `rsae_` and its name where SAELens has none.

    Args:
        cls: The family.
        target: What a transcoder predicts.
    """
    # not an inherited one: a family that derives from another is another function
    own = cls.__dict__.get("saelens")
    if target is not None:
        own = _TRANSCODERS.get(own or "")
        own = _SKIP[own] if own and target.skip else own
    return own or f"rsae_{cls.family}"


def _families() -> dict[str, str]:
    """Family by architecture: our own names, SAELens's, and those of its training checkpoints."""
    found = {f"rsae_{name}": name for name in FAMILIES}
    for name, cls in FAMILIES.items():
        own = cls.__dict__
        if own.get("saelens") and not cls.one_threshold:
            found[own["saelens"]] = name
        if own.get("saelens_training"):
            found[own["saelens_training"]] = name
    for gate, plain in _TRANSCODERS.items():
        found[plain] = found[_SKIP[plain]] = found[gate]
    return found


#: fields of the cfg that say what the SAE is; everything else of a flat cfg is metadata since version 6
_OWN = (
    "d_in",
    "d_sae",
    "dtype",
    "device",
    "architecture",
    "apply_b_dec_to_input",
    "normalize_activations",
    "rescale_acts_by_decoder_norm",
    "k",
    "matryoshka_widths",
    "finetuning_scaling_factor",
    "d_out",
    "metadata",
    "rsae",
    "activation_fn",
    "activation_fn_str",
    "activation_fn_kwargs",
    "reshape_activations",
    "hook_point",
)


class _Cfg(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    d_in: PositiveInt
    d_sae: PositiveInt
    d_out: PositiveInt | None = None
    architecture: str = "standard"
    apply_b_dec_to_input: bool = True
    normalize_activations: str | bool | None = "none"
    rescale_acts_by_decoder_norm: bool = False
    k: PositiveFloat | None = None
    matryoshka_widths: list[PositiveInt] | None = None
    finetuning_scaling_factor: bool = False
    reshape_activations: str = "none"
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
    """Write a directory; weights first, so that a cfg.json says that they are there.

    Args:
        sae: The SAE.
        path: The directory.
    """
    path = Path(path)
    tensors, settings = sae.state_dict(), sae.settings()
    if sae.one_threshold:
        tensors["threshold"] = tensors["threshold"].clamp_min(0).expand(sae.d_sae)
    if isinstance(sae.shard, Shard):  # all processes write the weights, one the rest
        write_whole(path / WEIGHTS, tensors, sae.shard)
        if not distributed.is_first():
            return
    else:
        write_tensors(path / WEIGHTS, tensors)
    # SAELens's ActivationsStore wants the two, whether they are known or not
    metadata: dict[str, Any] = {"context_size": None, "prepend_bos": None} | sae.provenance.metadata()
    kept = metadata.pop(_FOREIGN, None)
    extra: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
    if sae.trained is not None:
        metadata |= asdict(sae.trained)
    cfg: dict[str, Any] = {
        "architecture": architecture(type(sae), sae.target),
        "d_in": sae.d_in,
        "d_sae": settings["d_sae"],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none" if sae.input_norm is None else sae.input_norm.kind,
        "reshape_activations": extra.pop("reshape_activations", "none"),
        "metadata": {"sae_lens_version": _LAYOUT} | metadata,
        "rsae": {"family": sae.family} | settings,
    }
    if sae.transcodes:
        cfg["d_out"] = sae.d_out
    if cfg["architecture"] in ("topk", "abstopk"):
        cfg |= {"k": settings["k"], "rescale_acts_by_decoder_norm": False}
    write_json(path / CFG, extra | cfg)


def load(path: str | os.PathLike, input_scale: float | None = None) -> SAE:
    """Read what `save` wrote, or a SAELens directory.

    Args:
        path: The directory.
        input_scale: See `rsae.load`.

    Raises:
        InputError: The message names the file, the field or tensor, and what was expected there.
    """
    directory = Path(path)
    cfg_file, weights_file = directory / CFG, directory / WEIGHTS
    raw = read_json(cfg_file)
    cfg = parse_config(raw, cfg_file, _Cfg)
    tensors = as_floats(read_weights(weights_file), weights_file)
    name, settings = _settings(cfg, cfg_file)
    if cfg.rsae is None:
        tensors = _as_ours(tensors, cfg, name, weights_file)
    elif family(name).one_threshold:
        tensors["threshold"] = _one_threshold(tensors, cfg, weights_file)
    # other architectures pass over the field
    by_norm = cfg.rescale_acts_by_decoder_norm and cfg.rsae is None and family(name).sparsity_by == "k"
    if by_norm and cfg.normalisation == "covariance_whitening":
        # the norms before the whitening is undone are those that select
        tensors, by_norm = _with_unit_decoder(tensors, cfg), False
    norm = tensors["W_dec"].norm() if "W_dec" in tensors else 1.0
    tensors, input_norm = folded(
        tensors,
        cfg.normalisation,
        f"{cfg_file}: normalize_activations",
        directory,
        input_scale,
        cfg.apply_b_dec_to_input,
    )
    if by_norm:
        if cfg.normalisation == "expected_average_only_in" and "threshold" in tensors:
            # it is compared with z ||d||, and folding has divided ||d|| by the scale
            tensors["threshold"] = tensors["threshold"] * (tensors["W_dec"].norm() / norm)
        tensors = _with_unit_decoder(tensors, cfg)
    sae = assemble(name, settings, tensors, cfg_file, weights_file)
    sae.input_norm = input_norm
    metadata = (
        dict(cfg.metadata)
        if cfg.metadata is not None
        else {k: v for k, v in raw.items() if k not in _OWN and v is not None}
    )
    if "hook_point" in raw:
        metadata.setdefault("hook_name", raw["hook_point"])
    if metadata.get("sae_lens_version") == _LAYOUT:
        del metadata["sae_lens_version"]  # ours; `save` writes it again
    sae.trained = _trained(metadata, cfg_file)
    foreign = {k: v for k, v in raw.items() if k not in _OWN} if cfg.metadata is not None else {}
    if cfg.reshape_activations != "none":
        foreign["reshape_activations"] = cfg.reshape_activations
    if foreign:
        metadata[_FOREIGN] = foreign
    sae.provenance = read_provenance(metadata, cfg_file)
    return sae


def _trained(metadata: dict[str, Any], file: Path) -> Trained | None:
    if "sparsity" not in metadata or "penalty" not in metadata:
        return None
    penalty, sparsity = metadata.pop("penalty"), metadata.pop("sparsity")
    if not isinstance(sparsity, int | float) or not isinstance(penalty, str | None):
        raise InputError(f"{file}: metadata.penalty or metadata.sparsity is of the wrong kind")
    return Trained(penalty, float(sparsity))


def _settings(cfg: _Cfg, file: Path) -> tuple[str, dict[str, Any]]:
    """Family and settings."""
    architecture_ = cfg.architecture
    if cfg.metadata is None and cfg.activation_fn == "topk":
        architecture_ = "topk"
    families = _families()
    if cfg.rsae is None and architecture_ not in families:
        raise InputError(
            f"{file}: architecture {architecture_!r} is not supported{did_you_mean(architecture_, families)}"
        )
    name = families.get(architecture_, "")
    if cfg.rsae is not None:
        settings = dict(cfg.rsae)
        name = settings.pop("family", name)
        target = _target(settings, file)
        for field, ours, theirs in (
            ("architecture", _spelled(name, settings, architecture_, file), architecture_),
            ("d_in", settings.get("d_in"), cfg.d_in),
            ("d_sae", settings.get("d_sae"), cfg.d_sae),
            ("apply_b_dec_to_input", settings.get("subtract_b_dec", True), cfg.apply_b_dec_to_input),
            ("d_out", target and target.d_out, cfg.d_out),
            ("k", settings.get("k"), cfg.k),
            ("rescale_acts_by_decoder_norm", False, cfg.rescale_acts_by_decoder_norm),
        ):
            if ours != theirs and theirs is not None:
                raise InputError(f"{file}: {field} = {theirs!r}, but `rsae` in the same file means {ours!r}")
        return name, settings
    if cfg.activation_fn not in ("relu", "topk"):
        raise InputError(
            f"{file}: activation_fn {cfg.activation_fn!r} is not supported, only relu and topk are"
        )
    settings = {"d_in": cfg.d_in, "d_sae": cfg.d_sae, "subtract_b_dec": cfg.apply_b_dec_to_input}
    if architecture_ in (*_SKIP, *_SKIP.values()):
        if cfg.d_out is None:
            raise InputError(f"{file}: d_out is missing, which a {architecture_} needs")
        if cfg.normalisation != "none":
            raise InputError(
                f"{file}: normalize_activations {cfg.normalisation!r} of a transcoder is not supported: "
                "fold it into W_enc and W_dec"
            )
        settings["target"] = {"d_out": cfg.d_out, "skip": architecture_ in _SKIP.values()}
        settings["subtract_b_dec"] = False
    if family(name).sparsity_by == "k":
        k = cfg.k or (cfg.activation_fn_kwargs or {}).get("k")
        if not isinstance(k, int | float) or k != int(k):
            raise InputError(f"{file}: k = {k!r} is not a whole number, which {architecture_!r} needs")
        settings["k"] = int(k)
    if "group_sizes" in inspect.signature(family(name)).parameters:
        settings["group_sizes"] = _group_sizes(cfg, file)
    return name, settings


def _spelled(name: str, settings: dict[str, Any], found: str, file: Path) -> str:
    """The architecture that a file of ours should name; `rsae_` and the family's name always will do."""
    own = f"rsae_{name}"
    return own if found == own else architecture(family(name), _target(settings, file))


def _target(settings: dict[str, Any], file: Path) -> Target | None:
    target = settings.get("target")
    try:
        return None if target is None else Target(**target)
    except TypeError as error:
        raise InputError(f"{file}: rsae.target: {error}") from None


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
    if "topk_threshold" in tensors and family(name).one_threshold:
        tensors["threshold"] = tensors.pop("topk_threshold")
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
