"""SAEs for tests: random, but with every parameter in use."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import approx
from rsae import (
    SAE,
    BatchTopK,
    Gated,
    HarvestConfig,
    Host,
    JumpReLU,
    RationalActivation,
    SignAwareGated,
    SoftRational,
    Store,
    harvest,
)
from rsae.activations import harvest as harvesting
from rsae.activations.in_memory import InMemory
from rsae.sae import family

K = 5


def random_sae(
    name: str, store: Store | InMemory | None = None, d_in: int = 12, d_sae: int = 40, seed: int = 0
) -> SAE:
    """A family member started on the store's activations (on random ones without a store)."""
    torch.manual_seed(seed)
    x = torch.randn(64, d_in) + 1 if store is None else store.sample(500)
    d_in = x.shape[1]
    kwargs: dict[str, Any] = {"k": K} if "top_k" in name else {}
    if "rational" in name:
        act = RationalActivation.identity(2, torch.rand(d_sae) + 0.5)
        for p in act.form.parameters():
            p.data.add_(0.1 * torch.randn_like(p))
        kwargs["activation"] = act
    if name == "soft_rational":
        act = RationalActivation.from_fit(approx.minimax(approx.relu(), (3, 2)), torch.rand(d_sae) + 0.5)
        kwargs |= {"gate": "relu", "activation": act}
    sae = family(name)(d_in, d_sae, **kwargs)
    if isinstance(sae, SoftRational):
        sae.tau.fill_(0.3)
    if isinstance(sae, JumpReLU):
        sae.threshold.data.uniform_(0.1, 0.5)
    if isinstance(sae, SignAwareGated):
        sae.threshold.data.uniform_(0.4, 0.8)
    if isinstance(sae, BatchTopK):
        sae.threshold.fill_(0.8)
    if store is not None:
        sae.rescale_(1 / store.scale)
    sae.initialise(x, seed)
    sae.encoder_bias.data.normal_(std=0.3 / (store.scale if store else 1.0))
    if isinstance(sae, Gated):
        sae.b_mag.data.copy_(sae.b_gate + 0.1 / (store.scale if store else 1.0))
        sae.r_mag.data.normal_(std=0.1)
    return sae


def begun_harvest(
    config: HarvestConfig, out: Path, host: Host, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is whole, or one that was stopped after its first shard."""
    real, calls = harvesting.run_sequences, []

    def dying(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > 1 and not finished:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(harvesting, "run_sequences", dying)
        with nullcontext() if finished else pytest.raises(KeyboardInterrupt):
            harvest(config, out, host)
