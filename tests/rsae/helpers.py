"""SAEs for tests: random, but with every parameter in use."""

from __future__ import annotations

import torch

from rsae import SAE, Rational, RationalActivation, Store
from rsae.sae import family

K = 5


def random_sae(name: str, store: Store | None = None, d_in: int = 12, d_sae: int = 40, seed: int = 0) -> SAE:
    """A family member started on the store's activations (on random ones without a store)."""
    torch.manual_seed(seed)
    x = torch.randn(64, d_in) + 1 if store is None else store.sample(500)
    d_in = x.shape[1]
    if name == "rational":
        act = RationalActivation.identity(2, torch.rand(d_sae) + 0.5)
        for p in act.form.parameters():
            p.data.add_(0.1 * torch.randn_like(p))
        sae = Rational(d_in, d_sae, "jump_relu", "gated", act)
        assert sae.threshold is not None
        sae.threshold.data.uniform_(0.1, 0.5)
    else:
        sae = family(name)(d_in, d_sae, **({"k": K} if name == "top_k" else {}))
    if store is not None:
        sae.rescale_(1 / store.scale)
    sae.initialise(x, seed)
    sae.b_enc.data.normal_(std=0.3 / (store.scale if store else 1.0))
    return sae
