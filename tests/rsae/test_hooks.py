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
from rsae.activations.hooks import SITES, HookPoint, activations_at, logits_from, pad, prefix_at

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
