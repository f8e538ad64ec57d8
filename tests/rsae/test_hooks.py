from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from rsae import Host, InputError
from rsae.activations.hooks import HookPoint, activations_at, logits_from, pad

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


@pytest.fixture(params=CONFIGS, scope="module")
def random_host(request):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    return Host(request.param, model.requires_grad_(False), tokenizer=None)


def batch():
    torch.manual_seed(1)
    return pad([torch.randint(97, (n,)).tolist() for n in (9, 12, 5)])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("side", ["pre", "post"])
def test_hook_reads_the_hosts_own_hidden_state(random_host, layer, side):
    tokens, mask = batch()
    truth = random_host.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states
    x = activations_at(random_host, HookPoint(layer, side), tokens, mask)
    assert torch.equal(x, truth[layer + (side == "post")])


@pytest.mark.parametrize(
    "name", ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.2.hook_resid_post"]
)
def test_splicing_the_activation_back_leaves_the_logits_bit_equal(random_host, name):
    tokens, mask = batch()
    point = HookPoint.parse(name, random_host)
    logits = random_host.model(input_ids=tokens, attention_mask=mask).logits
    x = activations_at(random_host, point, tokens, mask)
    assert torch.equal(logits_from(random_host, point, tokens, mask, x), logits)
    # the host is as it was, and a changed activation does change the logits
    assert torch.equal(random_host.model(input_ids=tokens, attention_mask=mask).logits, logits)
    assert not torch.equal(logits_from(random_host, point, tokens, mask, x + torch.randn_like(x)), logits)


def test_nothing_after_the_hook_point_runs(random_host):
    ran = []
    handles = [
        b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(random_host.blocks)
    ]
    activations_at(random_host, HookPoint(1, "post"), *batch())
    for handle in handles:
        handle.remove()
    assert 2 not in ran
    assert 0 in ran


@pytest.mark.parametrize(
    "name", ["blocks.9.hook_resid_pre", "blocks.1.hook_resid_mid", "layer 1", "blocks.-1.hook_resid_pre"]
)
def test_wrong_hook_points_are_named_with_the_remedy(random_host, name):
    with pytest.raises(InputError, match="L from 0 to 2"):
        HookPoint.parse(name, random_host)
