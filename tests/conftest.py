"""A tiny random host with a byte-level tokenizer, its text and a store: real code paths, in a second."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "untimed", deadline=None
)  # no timing in the ordinary tests: a busy machine is no failure
settings.load_profile("untimed")

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported: its kernels run without a GPU
os.environ["HF_HUB_OFFLINE"] = "1"  # an unknown host is an error at once, not after a look at a hub


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tests' matrices are tiny: more threads only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def host_directory(tmp_path_factory) -> Path:
    """A three-block Llama of width 32 with random weights, saved as `transformers` saves a model."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("host")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def host(host_directory):
    from rsae import load_host

    return load_host(str(host_directory))


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """Two hundred short documents of random words."""
    rng = random.Random(0)
    words = [
        "the",
        "of",
        "river",
        "stone",
        "light",
        "code",
        "zeta",
        "omega",
        "print",
        "return",
        "seven",
        "green",
        "wave",
    ]
    path = tmp_path_factory.mktemp("text") / "documents.jsonl"
    rows = [
        {"title": f"d{i}", "text": " ".join(rng.choices(words, k=rng.randint(4, 14)))} for i in range(200)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="session")
def harvest_config(host_directory, text_file):
    from rsae import HarvestConfig

    return HarvestConfig(
        host=str(host_directory),
        hook="blocks.1.hook_resid_post",
        text=str(text_file),
        context=32,
        tokens=3000,
        heldout_tokens=400,
    )


@pytest.fixture(scope="session")
def store(harvest_config, host, tmp_path_factory):
    from rsae import harvest

    return harvest(harvest_config, tmp_path_factory.mktemp("store") / "activations", host)
