"""Our hook points against TransformerLens's own, by its conversion of the same small random models."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import pytest
import torch

from rsae import Host
from rsae.activations.hooks import SITES, HookPoint, activations_at
from tests.rsae.test_hooks import CONFIGS, random_host

_ROTARY: dict[str, Any] = {"positional_embedding_type": "rotary"}
_RMS = _ROTARY | {"normalization_type": "RMS", "final_rms": True, "gated_mlp": True, "rotary_dim": 8}
_GROUPED: dict[str, Any] = {"n_key_value_heads": 2}
_GEMMA = (
    _RMS
    | _GROUPED
    | {
        "act_fn": "gelu_pytorch_tanh",
        "use_normalization_before_and_after": True,
        "use_local_attn": True,
        "window_size": 4,
    }
)
#: What TransformerLens says of each architecture, at our size (its loading_from_pretrained.py).
LENS: dict[str, dict[str, Any]] = {
    "gpt2": {"act_fn": "gelu_new", "d_mlp": 128},
    "gpt_neox": _ROTARY
    | {"act_fn": "gelu", "parallel_attn_mlp": True, "rotary_dim": 2, "rotary_adjacent_pairs": False},
    "llama": _RMS | {"act_fn": "silu", "eps": 1e-6},
    "qwen2": _RMS | _GROUPED | {"act_fn": "silu", "eps": 1e-6},
    "gemma2": _GEMMA
    | {
        "eps": 1e-6,
        "attn_types": ["local", "global", "local"],
        "attn_scores_soft_cap": 50.0,
        "output_logits_soft_cap": 30.0,
        "attn_scale": 16.0,
    },
    "gemma3": _GEMMA
    | {
        "eps": 1e-6,
        "attn_types": ["local"] * 3,
        "use_qk_norm": True,
        "rotary_base": 1_000_000,
        "rotary_base_local": 10_000,
        "attn_scale": 16.0,
    },
}


def hooked(host: Host) -> Any:
    """The same model in TransformerLens."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import get_pretrained_state_dict

    cfg = HookedTransformerConfig(
        **{"d_model": 32, "d_head": 8, "n_heads": 4, "n_layers": 3, "n_ctx": 64, "d_mlp": 64, "d_vocab": 97}
        | LENS[host.name],
        original_architecture=type(host.model).__name__,
        device="cpu",
    )
    lens = HookedTransformer(cfg)
    lens.load_state_dict(get_pretrained_state_dict("gpt2", cfg, host.model), strict=False)
    return lens


@pytest.mark.parametrize("name", CONFIGS)
def test_transformer_lens_has_the_same_activation_under_the_same_name(name):
    host = random_host(name, CONFIGS[name])
    lens = hooked(host)
    torch.manual_seed(2)
    tokens = torch.randint(97, (2, 11))
    with torch.no_grad():
        _, cache = lens.run_with_cache(tokens)
    for layer in range(3):
        for site in SITES:
            x = activations_at(host, HookPoint(layer, site), tokens, torch.ones_like(tokens))
            torch.testing.assert_close(x, cache[f"blocks.{layer}.hook_{site}"], rtol=1e-4, atol=1e-5)
