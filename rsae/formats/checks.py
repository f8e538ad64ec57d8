"""What all formats share: reading files without trusting them, and filling a family with their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, TypeAdapter, ValidationError

from rsae.provenance import Provenance
from rsae.sae import SAE, family
from rsae.support.errors import InputError
from rsae.support.files import read_json, read_tensors, read_torch

Tensors = dict[str, torch.Tensor]
Config = TypeVar("Config", bound=BaseModel)


def read_config(file: Path, model: type[Config]) -> Config:
    """Read a JSON file into a pydantic model; `InputError` names the file and the field."""
    return parse_config(read_json(file), file, model)


def parse_config(value: Any, file: Path, model: type[Config]) -> Config:
    """The same for what has been read.

    Args:
        value: What the file holds.
        file: Where it stands, for messages.
        model: What it should be.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{file}: {field}: {first['msg'].lower()}; is this the config of this SAE?"
        ) from None


def read_state(file: Path) -> dict[str, Any]:
    """A dictionary saved by `torch.save`; see `rsae.support.files.read_torch`.

    Args:
        file: Where it lies.
    """
    value = read_torch(file)
    if not isinstance(value, dict):
        raise InputError(f"{file}: holds a {type(value).__name__}, not a state dict")
    return value


def read_weights(file: Path) -> Tensors:
    """A safetensors file, or the shards that `FILE.index.json` beside it names, as the hub's libraries write them.

    Args:
        file: The file; it need not exist where the index does.
    """
    index = file.with_name(f"{file.name}.index.json")
    if file.exists() or not index.exists():
        return read_tensors(file)
    names = read_json(index)
    names = names.get("weight_map") if isinstance(names, dict) else None
    if not isinstance(names, dict) or not names:
        raise InputError(f"{index}: weight_map is missing; fetch the SAE anew")
    tensors: Tensors = {}
    for shard in sorted({str(name) for name in names.values()}):
        if Path(shard).name != shard:
            raise InputError(f"{index}: weight_map names {shard!r}, which is not a file beside it")
        tensors |= read_tensors(file.with_name(shard))
    if missing := names.keys() - tensors.keys():
        raise InputError(f"{index}: tensor {min(missing)!r} is in none of its shards; fetch the SAE anew")
    return tensors


def read_provenance(metadata: Mapping[str, Any], file: Path) -> Provenance:
    """A file's metadata as a `Provenance`.

    Args:
        metadata: By SAELens's names.
        file: Where they stand, for messages.
    """
    model = metadata.get("model_name")
    hooks = {
        key: _settled(metadata.get(key), model) for key in ("hook_name", "hook_name_out") if key in metadata
    }
    metadata = {**metadata, **hooks}
    try:
        return TypeAdapter(Provenance).validate_python(Provenance.from_metadata(metadata).__dict__)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{file}: metadata of {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; mend the file"
        ) from None


def renamed(
    tensors: Mapping[str, Any], file: Path, names: Mapping[str, str], ignore: Sequence[str] = ()
) -> Tensors:
    """Our names for a file's tensors, as float32. One that is missing, unknown or not of floats is an error.

    Args:
        tensors: What the file holds.
        file: Where it lies, for messages.
        names: Ours -> theirs.
        ignore: What else may be there.
    """
    for theirs in names.values():
        if not isinstance(tensors.get(theirs), torch.Tensor):
            held = ", ".join(sorted(map(str, tensors))[:6]) or "nothing"
            raise InputError(f"{file}: tensor {theirs!r} is missing; the file holds {held}")
    if extra := tensors.keys() - set(names.values()) - set(ignore):
        raise InputError(f"{file}: unknown tensor {min(extra)!r}; is the config of another SAE beside it?")
    floats = as_floats({theirs: tensors[theirs] for theirs in names.values()}, file)
    return {ours: floats[theirs] for ours, theirs in names.items()}


def as_floats(tensors: Tensors, file: Path) -> Tensors:
    """Weights in float32; `InputError` where one is not of floats, such as a quantised one without its scale.

    Args:
        tensors: The weights.
        file: Where they lie, for messages.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(
                f"{file}: tensor {name!r} is of {tensor.dtype}, not of floats; dequantise it first"
            )
    return {name: tensor.float() for name, tensor in tensors.items()}


def transposed(x: torch.Tensor) -> torch.Tensor:
    """A matrix transposed; anything else as it is, for the check of the shapes to find."""
    return x.T if x.ndim == 2 else x


def assemble(name: str, settings: dict[str, Any], tensors: Tensors, config: Path, weights: Path) -> SAE:
    """A member of the family `name` with the given tensors (weights), as float32, in eval mode.

    Raises `InputError` where the settings do not make one, or a tensor is missing, unknown, of another shape than the
    config says, or not finite.
    """
    # before anything of the config's size is allocated
    expected_enc = [settings.get("d_in"), settings.get("d_sae")]
    if "W_enc" in tensors and list(tensors["W_enc"].shape) != expected_enc:
        raise _wrong_shape("W_enc", tensors["W_enc"], expected_enc, config, weights)
    cls = family(name)
    try:
        sae = cls.from_settings(settings)
    except InputError as error:
        raise InputError(f"{config}: {error}") from error
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{config}: the settings do not make a {name} SAE ({error})") from error
    expected = sae.state_dict()
    tensors = renamed(tensors, weights, {k: k for k in expected})
    for key, value in expected.items():
        if tensors[key].shape != value.shape:
            raise _wrong_shape(key, tensors[key], list(value.shape), config, weights)
        if not torch.isfinite(tensors[key]).all():
            raise InputError(f"{weights}: {key} holds NaN or infinity")
    sae.load_state_dict(tensors)
    return sae.eval()


def _wrong_shape(name: str, found: torch.Tensor, said: list, config: Path, weights: Path) -> InputError:
    where = "its other tensors say" if config == weights else f"{config.name} says"
    return InputError(f"{weights}: {name} has shape {list(found.shape)}, {where} {said}")


def encoder_bias(sae: SAE, subtract_b_dec: bool) -> torch.Tensor:
    """The encoder's bias for a format in which b_dec is (not) subtracted from the input: the same h, rounded anew."""
    if sae.subtract_b_dec == subtract_b_dec:
        return sae.encoder_bias.detach()
    shift_F = (sae.b_dec.detach().double() @ sae.W_enc.detach().double()).float()
    return sae.encoder_bias.detach() + (shift_F if subtract_b_dec else -shift_F)


def hook_name(module: str) -> str | None:
    """The hook point of a module's output, from the module's name; None where none of ours is the same.

    Args:
        module: Such as `model.layers.5` (what the block puts out) or `layers.5.mlp`. An MLP and attention keep their
            name in the block, as in `blocks.5.mlp`: `read_provenance` knows the model, and settles it.
    """
    match = re.fullmatch(
        r"(?:[a-z_]+\.)*(?:layers|h|blocks)\.(\d+)(?:\.([a-z_.]+?))??(?:\.(output|input))?", module
    )
    if match is None:
        return None
    given = match[3] != "input"
    own = match[2] if given and match[2] in _ADDED else None
    site = own or _MODULES.get((match[2], "output" if given else "input"))
    return f"blocks.{match[1]}.{site}" if site else None


def module_name(hook: str) -> str:
    """A module whose output or input `hook_name` calls so; the hook point's own name where there is none.

    Args:
        hook: A hook point, such as `blocks.5.hook_mlp_out`.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    for (module, end), site in _MODULES.items():
        if match and site == match[2]:
            return ".".join(part for part in (f"model.layers.{match[1]}", module, end) if part)
    return hook


def _settled(hook: Any, model: Any) -> Any:
    """A hook point; for the output of an MLP or attention, what the block adds, if that is the same in the model."""
    match = re.fullmatch(r"(blocks\.\d+)\.(\w+)", hook) if isinstance(hook, str) else None
    if match is None or match[2] not in _ADDED or _CHANGES.search(str(model)):
        return hook
    return f"{match[1]}.{_ADDED[match[2]]}"


#: What a block's modules put out or take, as hook points
_MODULES = {
    (None, "output"): "hook_resid_post",
    (None, "input"): "hook_resid_pre",
    ("mlp", "input"): "hook_mlp_in",
    ("pre_feedforward_layernorm", "output"): "hook_mlp_in",
    ("post_feedforward_layernorm", "output"): "hook_mlp_out",
    ("self_attn.o_proj", "input"): "attn.hook_z",
}
#: Modules whose output a block adds to the residual stream
_ADDED = {
    "mlp": "hook_mlp_out",
    "self_attn": "hook_attn_out",
    "attn": "hook_attn_out",
    "attention": "hook_attn_out",
}
#: Names of models whose blocks norm it or multiply it first; Gemma's first models, such as gemma-2b, do not
_CHANGES = re.compile(
    r"gemma-?[234](?!\d*b)|olmo-?[23](?!\d*b)|glm-?4|exaone-?4|granite|hyperclova|minicpm-?3", re.IGNORECASE
)
