"""Hosts of many architectures: a hook point is what its name says, or one line refuses it."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as T

import rsae
from rsae import Host, InputError, attached, load_host
from rsae.activations import trial
from rsae.activations.hooks import (
    SITES,
    HookPoint,
    activations_at,
    activations_at_all,
    head_of,
    hooked,
    logits_from,
    pad,
    prefix_at,
)
from tests.rsae.helpers import random_sae

ENDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL: dict[str, Any] = ENDS | {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED: dict[str, Any] = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
FOUR: dict[str, Any] = GROUPED | {"num_hidden_layers": 4}
OLD: dict[str, Any] = ENDS | {
    "vocab_size": 97,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT: dict[str, Any] = SMALL | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 3,
}
MIXED = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["full_attention", "linear_attention", "full_attention"],
}
PICTURES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
#: What makes the config of each
HOSTS: dict[str, Callable[[], Any]] = {
    "bloom": lambda: T.BloomConfig(**ENDS, vocab_size=97, hidden_size=32, n_layer=3, n_head=4),
    "cohere": lambda: T.CohereConfig(**GROUPED),
    "deepseek_v2": lambda: T.DeepseekV2Config(**LATENT, q_lora_rank=None),
    "deepseek_v3": lambda: T.DeepseekV3Config(**LATENT, q_lora_rank=16),
    "falcon": lambda: T.FalconConfig(**SMALL),
    "falcon_apart": lambda: T.FalconConfig(**SMALL, multi_query=False, parallel_attn=False, alibi=True),
    "falcon_grouped": lambda: T.FalconConfig(**SMALL, new_decoder_architecture=True, num_kv_heads=2),
    "gemma2": lambda: T.Gemma2Config(**GROUPED),
    "gemma3_with_pictures": lambda: T.Gemma3Config(
        text_config=GROUPED, vision_config=PICTURES, mm_tokens_per_image=1, image_token_index=96
    ),
    "gemma4_shared": lambda: T.Gemma4TextConfig(
        **FOUR,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=97,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "glm4": lambda: T.Glm4Config(**GROUPED),
    "gpt_bigcode": lambda: T.GPTBigCodeConfig(**OLD, multi_query=False),
    "gpt_bigcode_one": lambda: T.GPTBigCodeConfig(**OLD, multi_query=True),
    "gpt_neo": lambda: T.GPTNeoConfig(
        **ENDS,
        vocab_size=97,
        hidden_size=32,
        num_layers=3,
        num_heads=4,
        attention_types=[[["global"], 3]],
        max_position_embeddings=64,
    ),
    "gpt_neox": lambda: T.GPTNeoXConfig(**SMALL),
    "gpt_neox_japanese": lambda: T.GPTNeoXJapaneseConfig(**SMALL),
    "gptj": lambda: T.GPTJConfig(**OLD, rotary_dim=4),
    "granite": lambda: T.GraniteConfig(**SMALL, residual_multiplier=0.22, logits_scaling=8.0),
    "hyperclovax": lambda: T.HyperCLOVAXConfig(**SMALL, residual_multiplier=0.5, use_post_norm=True),
    "minimax": lambda: T.MiniMaxConfig(
        **GROUPED,
        num_local_experts=2,
        layer_types=["full_attention"] * 3,
        full_attn_alpha_factor=2.0,
    ),
    "mixtral": lambda: T.MixtralConfig(**GROUPED, num_local_experts=4),
    "mpt": lambda: T.MptConfig(**ENDS, vocab_size=97, d_model=32, n_layers=3, n_heads=4, max_seq_len=64),
    "olmo2": lambda: T.Olmo2Config(**SMALL),
    "openai-gpt": lambda: T.OpenAIGPTConfig(**OLD),
    "opt": lambda: T.OPTConfig(
        **ENDS,
        vocab_size=97,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        word_embed_proj_dim=32,
    ),
    "phi": lambda: T.PhiConfig(**SMALL),
    "qwen3_5": lambda: T.Qwen3_5TextConfig(**GROUPED, **MIXED),
    "qwen3_next": lambda: T.Qwen3NextConfig(
        **GROUPED, **MIXED, **EXPERTS, shared_expert_intermediate_size=16
    ),
    "rwkv": lambda: T.RwkvConfig(**ENDS, vocab_size=97, hidden_size=32, num_hidden_layers=3, rescale_every=2),
    "stablelm": lambda: T.StableLmConfig(**SMALL, num_key_value_heads=2, use_parallel_residual=True),
}
#: Hosts where attn_out or mlp_out is another activation than what the block adds, and what is said of it
REFUSED = {
    "bloom": "not resid_post",  # attention and MLP give the residual stream
    "gemma4_shared": "not resid_post",  # the block multiplies its output
    "gpt_neox_japanese": "not resid_post",  # the last block adds a bias
    "minimax": "not resid_post",  # the block multiplies the residual stream
    "mpt": "no module named",
    "openai-gpt": "not resid_post",  # norms stand in the residual stream
    "opt": "no module named",
    "qwen3_5": "no module named",  # a block without attention
    "qwen3_next": "no module named",
    "rwkv": "not resid_post",  # the first block begins with a norm
}
PARALLEL = {"cohere", "falcon", "falcon_grouped", "gpt_neox", "gptj", "phi", "stablelm"}


def random_host(name: str) -> Host:
    torch.manual_seed(0)
    model = T.AutoModelForCausalLM.from_config(HOSTS[name]()).eval()
    for parameter in model.parameters():  # norms and biases too: all of them are in use
        parameter.data += 0.05 * torch.randn_like(parameter)
    for _, scalar in model.named_buffers():
        if (
            scalar.numel() == 1 and scalar.is_floating_point()
        ):  # Gemma 4 multiplies what leaves a block by one
            scalar.fill_(0.7)
    return Host(name, model.requires_grad_(False), tokenizer=None)


@pytest.fixture(params=HOSTS, scope="module")
def host(request):
    return random_host(request.param)


def batch():
    torch.manual_seed(1)
    return pad([torch.randint(3, 90, (n,)).tolist() for n in (9, 6)])


def logits_of(host, tokens, mask):
    return host.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


def test_the_residual_stream_spliced_back_gives_the_plain_logits(host):
    tokens, mask = batch()
    logits = logits_of(host, tokens, mask)
    for layer in range(len(host.blocks)):
        for site in ("resid_pre", "resid_post"):
            x = prefix_at(host, HookPoint(layer, site), tokens, mask).x_BPD
            assert x.shape == (2, 9, 32)
            spliced = logits_from(host, HookPoint(layer, site), tokens, mask, x)
            torch.testing.assert_close(spliced, logits.float(), rtol=1e-5, atol=1e-5)
            moved = logits_from(host, HookPoint(layer, site), tokens, mask, x + torch.randn_like(x))
            assert (moved - logits).abs().max() > 1e-3
    assert torch.equal(logits_of(host, tokens, mask), logits)  # the host is as it was
    head_of(host)


def test_blocks_before_the_point_are_passed_over_where_nothing_else_is_read_of_them(host):
    tokens, mask = batch()
    last = len(host.blocks) - 1
    x = activations_at(host, HookPoint(last, "resid_pre"), tokens, mask)
    logits_from(host, HookPoint(last, "resid_pre"), tokens, mask, x)  # tries the host
    ran = []
    inner = next(m for m in host.blocks[0].modules() if not list(m.children()))
    handle = inner.register_forward_hook(lambda *_: ran.append(0))
    logits_from(host, HookPoint(last, "resid_pre"), tokens, mask, x)
    handle.remove()
    assert bool(ran) == (host.name == "gemma4_shared")  # whose last blocks read keys of earlier ones


def test_a_block_adds_attention_and_mlp_or_says_that_it_does_not(host):
    tokens, mask = batch()
    refused = []
    for layer in range(len(host.blocks)):
        try:
            points = [HookPoint.parse(f"blocks.{layer}.hook_{site}", host) for site in SITES]
        except InputError as error:
            refused.append(str(error))
            continue
        pre, attn, mlp, post = activations_at_all(host, points, tokens, mask)
        torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-5, atol=1e-5)
        for point, x in zip(points, (pre, attn, mlp, post), strict=True):
            assert torch.equal(x, activations_at(host, point, tokens, mask))
            same = logits_from(host, point, tokens, mask, x, prefix_at(host, point, tokens, mask)[1])
            torch.testing.assert_close(same, logits_of(host, tokens, mask).float(), rtol=1e-4, atol=1e-5)
            assert torch.equal(
                x, activations_at(host, point, tokens, mask)
            )  # nothing was added to it in place
    assert bool(refused) == (host.name in REFUSED)
    for line in refused:
        assert REFUSED[host.name] in line
        assert f"host {host.name!r}" in line
        assert "hook_resid_pre" in line
        assert "\n" not in line


def test_resid_mid_is_there_where_attention_and_mlp_follow_each_other(host):
    if host.name in REFUSED:
        pytest.skip("refused as a whole")
    tokens, mask = batch()
    if host.name in PARALLEL:
        with pytest.raises(InputError, match=f"{host.name}.*run in parallel"):
            HookPoint.parse("blocks.1.hook_resid_mid", host)
        return
    point = HookPoint.parse("blocks.1.hook_resid_mid", host)
    x, entering = prefix_at(host, point, tokens, mask)
    assert entering is not None
    assert torch.equal(x, entering + activations_at(host, HookPoint(1, "attn_out"), tokens, mask))
    same = logits_from(host, point, tokens, mask, x, entering)
    torch.testing.assert_close(same, logits_of(host, tokens, mask).float(), rtol=1e-4, atol=1e-5)


#: Heads that are refused: DeepSeek has no projection of its own for them, the queries of Qwen3.5 share it with a gate
NO_HEADS = {"deepseek_v2": "kv", "deepseek_v3": "qkv", "mpt": "qkv", "qwen3_5": "q", "qwen3_next": "q"}
#: Heads that the architecture norms, scales or gates before or behind the attention
CHANGED = {
    "gemma3_with_pictures": "qk",
    "gemma4_shared": "qkv",
    "olmo2": "qk",
    "opt": "q",
    "qwen3_5": "kz",
    "qwen3_next": "kz",
}
#: They do not call torch's attention
OTHERS = {"bloom", "gemma2", "gpt_neo", "gptj", "openai-gpt", "rwkv", "mpt", "gpt_neox_japanese"}


def test_heads_are_what_the_attention_computes_with(host, monkeypatch):
    """At position 0, where no rotation turns queries and keys, against what torch's own attention is called with."""
    if host.name in OTHERS:
        pytest.skip("no call to compare with")
    tokens, mask = batch()
    called = []
    own = torch.nn.functional.scaled_dot_product_attention

    def attention(query, key, value, *args, **kwargs):
        z = own(query, key, value, *args, **kwargs)
        called.append({"q": query, "k": key, "v": value, "z": z})
        return z

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    host.model.set_attn_implementation("sdpa")
    logits_of(host, tokens, mask)
    for site in "qkvz":
        if site in NO_HEADS.get(host.name, ""):
            with pytest.raises(InputError, match=rf"{host.name}.*(no projection|columns)"):
                HookPoint.parse(f"blocks.0.attn.hook_{site}", host)
            continue
        if site in CHANGED.get(host.name, ""):
            continue
        whole = activations_at(host, HookPoint.parse(f"blocks.0.attn.hook_{site}", host), tokens, mask)
        theirs_BHD = called[0][site][:, :, 0]
        count = whole.shape[-1] // theirs_BHD.shape[-1]
        theirs_BHD = theirs_BHD[:, :: theirs_BHD.shape[1] // count]  # keys repeated for each of their queries
        for head in range(count):
            point = HookPoint.parse(f"blocks.0.attn.hook_{site}[{head}]", host)
            x = activations_at(host, point, tokens, mask)
            torch.testing.assert_close(x[:, 0], theirs_BHD[:, head], rtol=1e-5, atol=1e-6)
        with pytest.raises(InputError, match=f"heads 0 to {count - 1}"):
            HookPoint.parse(f"blocks.0.attn.hook_{site}[{count}]", host)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name", ["falcon", "gemma2", "glm4", "gpt_neox", "granite", "hyperclovax", "mixtral"]
)
def test_rounding_refuses_no_host(name, dtype):
    half = random_host(name)
    half.model.to(dtype)
    for site in ("attn_out", "mlp_out"):
        HookPoint.parse(f"blocks.1.hook_{site}", half)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_hides_no_host_that_does_not_add_up(dtype):
    half = random_host("minimax")
    half.model.to(dtype)
    with pytest.raises(InputError, match="not resid_post"):
        HookPoint.parse("blocks.1.hook_mlp_out", half)


def test_a_host_is_tried_once_and_not_for_residual_points(monkeypatch):
    host = random_host("granite")
    tokens, mask = batch()
    tried = []
    monkeypatch.setattr(trial, "_tried", lambda host, own=trial._tried: tried.append(0) or own(host))
    point = HookPoint.parse("blocks.1.hook_resid_pre", host)
    activations_at(host, point, tokens, mask)
    assert not tried
    for site in ("attn_out", "mlp_out", "attn_out"):
        activations_at(host, HookPoint.parse(f"blocks.1.hook_{site}", host), tokens, mask)
    assert tried == [0]


def test_what_else_is_hooked_and_dropout_do_not_refuse_a_host():
    host = random_host("falcon_apart")
    for module in host.model.modules():
        if hasattr(module, "hidden_dropout"):
            setattr(module, "hidden_dropout", 0.5)  # noqa: B010  # a module's own number
    host.model.train()
    host.blocks[0].eval()
    with (
        hooked(host, HookPoint(1, "resid_post"), lambda x: 2 * x),
        hooked(host, HookPoint(1, "resid_pre"), lambda x: 2 * x),
    ):
        HookPoint.parse("blocks.1.hook_mlp_out", host)
    assert host.blocks[1].training
    assert not host.blocks[0].training


def test_blocks_that_are_parted_into_several_lists_are_no_blocks():
    config = T.XLMConfig(vocab_size=97, emb_dim=32, n_layers=3, n_heads=4)
    host = Host("xlm", T.AutoModelForCausalLM.from_config(config).eval(), None)
    with pytest.raises(InputError, match=r"'xlm': no list of 3 decoder blocks.*transformer.attentions.*ffns"):
        HookPoint.parse("blocks.1.hook_resid_pre", host)


def test_lists_in_the_blocks_are_not_the_blocks():
    host = random_host("glm4")
    blocks = host.blocks
    for block in blocks:
        block.add_module("experts", torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(3)]))
    assert Host("experts", host.model, None).blocks is blocks


def test_a_module_by_its_name_in_the_block():
    host = random_host("gemma2")
    tokens, mask = batch()
    seen = []
    handle = (
        host.blocks[1]
        .get_submodule("mlp")
        .register_forward_hook(lambda _m, args, out: seen.extend((args[0], out)))
    )
    logits_of(host, tokens, mask)
    handle.remove()
    for name, truth in zip(("blocks.1.mlp:in", "blocks.1.mlp"), seen, strict=True):
        point = HookPoint.parse(name, host)
        assert (point.layer, point.name) == (1, name)
        assert torch.equal(activations_at(host, point, tokens, mask), truth)
    for name in ("blocks.3.mlp", "blocks.1.nothing", "blocks.1."):
        with pytest.raises(InputError, match="is not in host 'gemma2'"):
            HookPoint.parse(name, host)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bert", T.BertConfig(**SMALL)),
        ("a decoder", T.BertConfig(**SMALL, is_decoder=True)),
        ("gpt_neox", T.GPTNeoXConfig(**SMALL)),  # whose config says is_decoder = False
        ("roberta", T.RobertaConfig(**SMALL)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_host_that_sees_later_tokens_is_refused(name, config, dtype, host_directory, tmp_path):
    path = shutil.copytree(host_directory, tmp_path / "host")
    torch.manual_seed(0)
    model = T.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # as trained ones, so that attention is seen beside rounding
        parameter.data *= 4 if parameter.ndim == 2 else 1
    model.save_pretrained(path)
    if name in ("bert", "roberta"):
        with pytest.raises(InputError, match=r"host '.*': .*LM.* predicts a token from those behind it"):
            load_host(str(path), dtype=dtype)
    else:
        load_host(str(path), dtype=dtype)


@pytest.mark.parametrize(
    ("model", "added"),
    [
        ("google/gemma-2-2b", "{0}"),
        ("gemma2", "{0}"),
        ("google/gemma-2b", "hook_{1}"),
        ("HuggingFaceTB/SmolLM2-135M", "hook_{1}"),
        ("EleutherAI/pythia-160m", "hook_{1}"),
        ("gpt2", "hook_{1}"),
        (None, "hook_{1}"),
    ],
)
def test_a_modules_output_keeps_its_name_where_the_model_changes_it_before_it_is_added(
    model, added, tmp_path
):
    for module, site in (("mlp", "mlp_out"), ("self_attn", "attn_out")):
        rsae.save(random_sae("top_k", d_in=32), tmp_path / f"layers.1.{module}", format="sparsify")
        (tmp_path / "config.json").write_text(json.dumps({"model": model}))
        sae = rsae.load(tmp_path / f"layers.1.{module}")
        assert sae.provenance.hook == f"blocks.1.{added.format(module, site)}"
        rsae.save(sae, tmp_path / "own")
        assert rsae.load(tmp_path / "own").provenance.hook == sae.provenance.hook


def test_such_an_sae_meets_the_modules_own_output(tmp_path):
    host = random_host("gemma2")
    path = tmp_path / "layers.1.mlp"
    rsae.save(random_sae("top_k", d_in=32), path, format="sparsify")
    cfg = json.loads((path / "cfg.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model": "gemma2"}))
    tokens, mask = batch()
    truth = []
    handle = (
        host.blocks[1]
        .get_submodule("mlp")
        .register_forward_hook(lambda _m, args, out: truth.extend((args[0], out)))
    )
    with attached(host, rsae.load(path)) as inside:
        logits_of(host, tokens, mask)
    handle.remove()
    assert inside.input is not None
    assert torch.equal(inside.input, truth[1])
    (path / "cfg.json").write_text(json.dumps(cfg | {"transcode": True}))
    transcoder = rsae.load(path)
    with attached(host, transcoder) as inside:
        logits_of(host, tokens, mask)
    assert inside.input is not None
    assert torch.equal(inside.input, truth[0])
    assert transcoder.provenance.target == "blocks.1.mlp"
