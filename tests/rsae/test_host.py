"""Hosts by name: a directory, a GGUF file; what is wrong is said in one line."""

import shutil
from dataclasses import replace

import gguf
import pytest
import torch

from rsae import InputError, load_host
from rsae.activations import host as module
from rsae.activations.hooks import HookPoint, activations_at, pad
from rsae.activations.text import Document


@pytest.fixture(scope="module")
def gguf_file(host, host_directory, tmp_path_factory):
    """The tiny Llama of `host`, as llama.cpp would store it."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    config, vocabulary = host.model.config, host.tokenizer.get_vocab()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.__getitem__), "qz", "zq"])
    writer.add_token_types([1] * (len(vocabulary) + 2))
    writer.add_token_merges(
        ["q z", "z q"]
    )  # some of transformers' versions read one alone as a text, not a list
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{p}_proj": f"attn_{p}" for p in "qkv"},
        "self_attn.o_proj": "attn_output",
        **{f"mlp.{p}_proj": f"ffn_{p}" for p in ("gate", "up", "down")},
    }
    heads = config.num_attention_heads
    for name, value in host.model.state_dict().items():
        parts = name.split(".")
        if parts[1] == "layers":
            target = f"blk.{parts[2]}.{names['.'.join(parts[3:-1])]}.weight"
        else:
            target = names[".".join(parts[:-1])] + ".weight"
        if "attn_q" in target or "attn_k" in target:  # llama.cpp interleaves the rotary halves
            value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(target, value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_the_host_that_was_written(gguf_file, host):
    loaded = load_host(str(gguf_file))
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(loaded.model(tokens).logits, host.model(tokens).logits)
    text = [Document("", "the river stone")]
    assert loaded.sequences(text, 32, shortest=1) == host.sequences(text, 32, shortest=1)


@pytest.mark.parametrize("puts_bos", [False, True])
def test_pieces_begin_with_bos_where_the_hosts_tokenizer_puts_one(host, puts_bos):
    class Tokenizer:
        bos_token_id = 7

        def __call__(self, text, add_special_tokens=True):
            if isinstance(text, list):
                return {"input_ids": [self(t, add_special_tokens)["input_ids"] for t in text]}
            ids = [10 + n for n, _ in enumerate(text.split())]
            return {"input_ids": [7, *ids] if add_special_tokens and puts_bos else ids}

    pieces = replace(host, tokenizer=Tokenizer()).sequences([Document("", "a b c d e")], 3, shortest=1)
    assert pieces == ([[7, 10, 11], [7, 12, 13], [7, 14]] if puts_bos else [[10, 11, 12], [13, 14]])


def test_dtype_of_the_weights(host_directory):
    assert next(load_host(str(host_directory), dtype="bfloat16").model.parameters()).dtype == torch.bfloat16
    with pytest.raises(InputError, match="did you mean 'bfloat16'"):
        load_host(str(host_directory), dtype="bfloat")


def test_a_mixed_host_keeps_weights_and_stream_and_rounds_its_products(host, host_directory):
    """So that it is nearer to the float32 host than one whose weights and stream are bfloat16."""
    mixed = load_host(str(host_directory), dtype="mixed")
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}
    batch = pad([[5, 6, 7, 8, 9, 10, 11, 12]] * 2)
    point = HookPoint.parse("blocks.1.hook_resid_post", host)
    exact, near, rough = (
        activations_at(h, point, *batch)
        for h in (host, mixed, load_host(str(host_directory), dtype="bfloat16"))
    )
    assert near.dtype == torch.float32
    assert 0 < (near - exact).norm() < (rough - exact).norm() < 0.02 * exact.norm()
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_mixed_where_the_processor_multiplies_in_bfloat16(host_directory, monkeypatch, has):
    monkeypatch.setattr(module, "has_bfloat16", lambda _: has)
    assert load_host(str(host_directory), dtype="auto").mixed == has


@pytest.mark.parametrize("name", ["nobody/no-model", "missing.gguf", "smollm2"])
def test_unknown_hosts(name):
    with pytest.raises(InputError, match=rf"host '{name}' cannot be loaded.*smollm2-135m.*hub name"):
        load_host(name)


@pytest.mark.parametrize("name", ["smollm2-135", "smolm2-135m", "SmolLM2-135M"])
def test_a_mistyped_embedded_host_is_told_at_once(name, monkeypatch):
    """Before the hub is asked, which has no names without an owner that are so near, and tries five times."""
    monkeypatch.setattr("rsae.activations.host._load", lambda *a: pytest.fail("the hub is asked"))
    with pytest.raises(InputError, match="did you mean 'smollm2-135m'"):
        load_host(name)


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(InputError, match="x.gguf' cannot be loaded"):
        load_host(str(tmp_path / "x.gguf"))


@pytest.mark.parametrize("faster", [True, False])
def test_converting_the_embedded_host_where_another_process_is_faster(
    faster, host, host_directory, tmp_path, monkeypatch
):
    """The other one's directory stands already when ours is to take its name; where none does, the error stays."""

    def load(*_):
        target = tmp_path / "smollm2-135m-instruct-q4_1-float32"
        if faster:
            shutil.copytree(host_directory, target)
        else:
            target.write_text("no directory")
        return host.model, host.tokenizer

    monkeypatch.setenv("RSAE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_load_gguf", load)
    monkeypatch.setattr(module, "package_directory", lambda _: tmp_path)
    if not faster:
        with pytest.raises(InputError, match="cannot write"):
            load_host()
        return
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(load_host().model(tokens).logits, host.model(tokens).logits)
    assert [p.name for p in tmp_path.iterdir()] == ["smollm2-135m-instruct-q4_1-float32"]
