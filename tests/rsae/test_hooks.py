from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from rsae import Host, InputError
from rsae.activations import splicing
from rsae.activations.hooks import (
    SITES,
    HookPoint,
    activations_at,
    activations_at_all,
    batches,
    head_of,
    logits_from,
    pad,
    prefix_at,
)

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 97,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2),
    "gemma2": Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4),
    "gemma3": Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4),
    "gpt_neox": GPTNeoXConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=3, n_head=4),
}
#: The modules that give what is added to the residual stream, as each architecture names them.
MODULES = {
    "llama": ("self_attn", "mlp"),
    "qwen2": ("self_attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt_neox": ("attention", "mlp"),
    "gpt2": ("attn", "mlp"),
}


def random_host(name: str, config: Any) -> Host:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # norms and biases too: all of them are in use
        parameter.data += 0.05 * torch.randn_like(parameter)
    return Host(name, model.requires_grad_(False), tokenizer=None)


@pytest.fixture(params=CONFIGS, scope="module")
def host(request):
    return random_host(request.param, CONFIGS[request.param])


def batch():
    torch.manual_seed(1)
    return pad([torch.randint(97, (n,)).tolist() for n in (9, 12, 5)])


def logits_of(host, tokens, mask):
    return host.model(input_ids=tokens, attention_mask=mask).logits


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
def test_residual_points_read_the_hosts_own_hidden_state(host, layer, site):
    tokens, mask = batch()
    truth = host.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states
    x = activations_at(host, HookPoint(layer, site), tokens, mask)
    assert torch.equal(x, truth[layer + (site == "resid_post")])


@pytest.mark.parametrize("number", [0, 1])
def test_points_within_a_block_read_the_modules_own_output(host, number):
    tokens, mask = batch()
    seen = []
    module = getattr(host.blocks[1], MODULES[host.name][number])
    handle = module.register_forward_hook(lambda _m, _a, out: seen.append(out))
    logits_of(host, tokens, mask)
    handle.remove()
    truth = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    point = HookPoint.parse(f"blocks.1.hook_{('attn_out', 'mlp_out')[number]}", host)
    assert torch.equal(activations_at(host, point, tokens, mask), truth)


def test_a_block_adds_its_two_outputs_to_the_residual_stream(host):
    """What `attn_out` and `mlp_out` mean, in every architecture: sequential, parallel, with norms after."""
    tokens, mask = batch()
    x = {site: activations_at(host, HookPoint(1, site), tokens, mask) for site in SITES}
    torch.testing.assert_close(
        x["resid_pre"] + x["attn_out"] + x["mlp_out"], x["resid_post"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("site", SITES)
def test_splicing_the_activation_back_leaves_the_logits_bit_equal(host, layer, site):
    tokens, mask = batch()
    point = HookPoint.parse(f"blocks.{layer}.hook_{site}", host)
    logits = logits_of(host, tokens, mask)
    x, entering = prefix_at(host, point, tokens, mask)
    assert torch.equal(logits_from(host, point, tokens, mask, x, entering), logits)
    assert torch.equal(logits_from(host, point, tokens, mask, x), logits)  # runs the blocks before, too
    assert torch.equal(logits_of(host, tokens, mask), logits)  # the host is as it was


@pytest.mark.parametrize("site", SITES)
def test_the_suffix_alone_gives_what_the_whole_host_gives_with_another_activation(host, site):
    tokens, mask = batch()
    point = HookPoint.parse(f"blocks.1.hook_{site}", host)
    x, entering = prefix_at(host, point, tokens, mask)
    other = x + torch.randn_like(x)

    def replace(_module, _args, output):
        return (other, *output[1:]) if isinstance(output, tuple) else other

    # the plain way: a hook that replaces a module's output in a full forward pass
    module = host.blocks[0] if site == "resid_pre" else point._place(host).module
    handle = module.register_forward_hook(replace)
    truth = logits_of(host, tokens, mask)
    handle.remove()
    assert torch.equal(logits_from(host, point, tokens, mask, other, entering), truth)
    assert not torch.equal(truth, logits_of(host, tokens, mask))


@pytest.mark.parametrize("site", SITES)
def test_only_what_is_needed_runs(host, site):
    ran = []
    handles = [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(host.blocks)]
    ran_mlp = []
    handles.append(host.blocks[0].mlp.register_forward_hook(lambda *_: ran_mlp.append(0)))
    x, entering = prefix_at(host, HookPoint(1, site), *batch())
    assert 2 not in ran
    assert ran_mlp == [0]
    logits_from(host, HookPoint(1, site), *batch(), x, entering)
    assert ran_mlp == [0]  # the first block is passed over
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    "name",
    [
        "blocks.9.hook_resid_pre",
        "layer 1",
        "blocks.-1.hook_resid_pre",
        "blocks.1.attn.hook_pattern",
        "blocks.1.hook_resid_pre[0]",
    ],
)
def test_wrong_hook_points_are_named_with_the_remedy(host, name):
    with pytest.raises(InputError, match=rf"{host.name}.*L from 0 to 2.*resid_pre, hook_attn_out|have heads"):
        HookPoint.parse(name, host)


def test_a_block_without_the_module_is_an_error_that_says_so():
    """OPT keeps its MLP's layers in the block itself."""
    config = OPTConfig(
        vocab_size=97,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
    )
    host = random_host("opt", config)
    with pytest.raises(InputError, match=r"'opt' have no module named mlp.*use hook_resid_pre"):
        HookPoint.parse("blocks.0.hook_mlp_out", host)
    tokens, mask = batch()
    point = HookPoint.parse("blocks.1.hook_attn_out", host)
    x, entering = prefix_at(host, point, tokens, mask)
    assert torch.equal(logits_from(host, point, tokens, mask, x, entering), logits_of(host, tokens, mask))


# --- points within attention and MLP ------------------------------------------------------------------------

INSIDE = ("resid_mid", "mlp_in", "q", "k", "v", "z", "post")


def inside(host, site, head=None):
    point = HookPoint(1, site, head)
    if site == "resid_mid" and host.name == "gpt_neox":
        with pytest.raises(InputError, match="run in parallel"):
            point._place(host)
        pytest.skip("parallel")
    return point


@pytest.mark.parametrize("site", INSIDE)
def test_points_inside_splice_back_and_take_edits(host, site):
    tokens, mask = batch()
    point = inside(host, site)
    logits = logits_of(host, tokens, mask)
    x, entering = prefix_at(host, point, tokens, mask)
    same = logits_from(host, point, tokens, mask, x, entering)
    torch.testing.assert_close(same, logits, rtol=1e-4, atol=1e-5)
    other = logits_from(host, point, tokens, mask, x + torch.randn_like(x), entering)
    assert (other - logits).abs().max() > 1e-3
    torch.testing.assert_close(logits_from(host, point, tokens, mask, x), logits, rtol=1e-4, atol=1e-5)


def test_resid_mid_is_what_enters_plus_the_attention(host):
    tokens, mask = batch()
    point = inside(host, "resid_mid")
    x = activations_at(host, HookPoint(1, "resid_pre"), tokens, mask)
    a = activations_at(host, HookPoint(1, "attn_out"), tokens, mask)
    torch.testing.assert_close(activations_at(host, point, tokens, mask), x + a)


def test_mlp_in_and_post_are_what_the_mlp_reads_and_its_neurons(host):
    """The MLP run by itself on `mlp_in` gives `mlp_out` before any norm behind it; its last layer reads `post`."""
    tokens, mask = batch()
    mlp = host.blocks[1].mlp
    seen = []
    handle = mlp.register_forward_hook(lambda _m, a, out: seen.append((a[0], out)))
    logits_of(host, tokens, mask)
    handle.remove()
    assert torch.equal(activations_at(host, HookPoint(1, "mlp_in"), tokens, mask), seen[0][0])
    assert torch.equal(mlp(activations_at(host, HookPoint(1, "mlp_in"), tokens, mask)), seen[0][1])
    down = next(getattr(mlp, n) for n in ("down_proj", "c_proj", "dense_4h_to_h") if hasattr(mlp, n))
    assert torch.equal(down(activations_at(host, HookPoint(1, "post"), tokens, mask)), seen[0][1])


@pytest.mark.parametrize("site", ["q", "k", "v", "z"])
def test_heads_lie_side_by_side(host, site):
    tokens, mask = batch()
    whole = activations_at(host, HookPoint(1, site), tokens, mask)
    heads = 2 if site in "kv" and host.name in ("qwen2", "gemma2", "gemma3") else 4
    parts = [activations_at(host, HookPoint(1, site, h), tokens, mask) for h in range(heads)]
    assert torch.equal(torch.cat(parts, -1), whole)
    point = HookPoint.parse(f"blocks.1.attn.hook_{site}[1]", host)
    assert (point.head, point.name) == (1, f"blocks.1.attn.hook_{site}")
    changed = logits_from(host, point, tokens, mask, parts[1] + 1.0)
    assert (changed - logits_of(host, tokens, mask)).abs().max() > 0
    with pytest.raises(InputError, match=f"heads 0 to {heads - 1}"):
        HookPoint.parse(f"blocks.1.attn.hook_{site}[{heads}]", host)


def test_any_module_by_its_name(host):
    tokens, mask = batch()
    names = {id(m): n for n, m in host.model.named_modules()}
    name = names[id(host.blocks[1].mlp)]
    if not hasattr(host.blocks[1], "post_feedforward_layernorm"):
        point = HookPoint.parse(name, host)
        x = activations_at(host, point, tokens, mask)
        assert torch.equal(x, activations_at(host, HookPoint(1, "mlp_out"), tokens, mask))
        assert point.layer == 1
    at_input = HookPoint.parse(f"{name}:in", host)
    x, entering = prefix_at(host, at_input, tokens, mask)
    assert torch.equal(x, activations_at(host, HookPoint(1, "mlp_in"), tokens, mask))
    assert torch.equal(logits_from(host, at_input, tokens, mask, x, entering), logits_of(host, tokens, mask))


def test_several_points_in_one_pass(host):
    tokens, mask = batch()
    points = [
        HookPoint(2, "resid_pre"),
        HookPoint(0, "mlp_out"),
        HookPoint(1, "z"),
        HookPoint(0, "resid_pre"),
    ]
    together = activations_at_all(host, points, tokens, mask)
    for point, x in zip(points, together, strict=True):
        assert torch.equal(x, activations_at(host, point, tokens, mask))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_ends_at_the_hook_point(host, dtype):
    """What is read is float32, what is put back the host's own, logits are float32."""
    import copy

    half = Host(host.name, copy.deepcopy(host.model).to(dtype), None)
    tokens, mask = batch()
    for point in (HookPoint(1, "resid_pre"), HookPoint(1, "mlp_out"), HookPoint(1, "v", 0)):
        x, entering = prefix_at(half, point, tokens, mask)
        assert x.dtype == torch.float32
        logits = logits_from(half, point, tokens, mask, x, entering)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, logits_of(half, tokens, mask).float())


@pytest.mark.parametrize("name", CONFIGS)
def test_counted_logits_are_those_of_the_whole_host(name, monkeypatch):
    """By the head alone where nothing comes after it, else by the host's own code; in several blocks."""
    host = random_host(name, CONFIGS[name])
    tokens, mask = pad([[5, 6, 7, 8, 9], [3, 2, 1]])
    counted = mask[:, 1:].bool()
    assert (head_of(host) is None) == (name == "gemma2")  # which has a soft cap on its logits
    want = host.model(input_ids=tokens, attention_mask=mask).logits[:, :-1][counted].float()
    for block in (splicing._BLOCK, 6 * 40):
        monkeypatch.setattr(splicing, "_BLOCK", block)
        logits = splicing.counted_logits(host, tokens, mask, counted)
        assert logits.shape == want.shape == (6, 97)
        columns, parts = zip(*logits.blocks(), strict=True)
        assert [c.start for c in columns] == list(range(0, 97, 40 if block == 240 else 97))
        torch.testing.assert_close(torch.cat(parts, 1), want, rtol=1e-5, atol=1e-6)


def test_a_head_that_is_no_plain_linear_layer_is_left_to_the_host():
    class Halved(torch.nn.Linear):
        def forward(self, input):
            return super().forward(input) / 2

    other = random_host("llama", CONFIGS["llama"])
    head = other.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    assert head is head_of(other)
    own = Halved(head.in_features, head.out_features, bias=False)
    changed = random_host("llama", CONFIGS["llama"])
    changed.model.set_output_embeddings(own)
    assert head_of(changed) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_hold_all_sequences_of_like_lengths(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    lengths = torch.randint(1, 700, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    sequences = [[0] * n for n in [*lengths, *[3] * 40, 2000]]
    found = batches(sequences)
    assert sorted(i for chosen in found for i in chosen) == list(range(len(sequences)))
    assert [len(sequences[i]) for chosen in found for i in chosen] == sorted(map(len, sequences))
    for chosen in found:
        longest = max(len(sequences[i]) for i in chosen)
        assert len(chosen) == 1 or (len(chosen) <= 16 and len(chosen) * longest <= 512 * threads)
    assert max(map(len, found)) == 16
    assert len(batches(sequences, "meta")) == 9  # elsewhere by their number alone
    assert batches([]) == []
