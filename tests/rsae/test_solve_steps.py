"""Steps of a solve: the spectrum is that of the supports, and so many steps of the pursuit keep the promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
import rsae
from rsae import InputError
from tests.rsae.helpers import random_sae


def wide_sae(seed: int = 0) -> rsae.SAE:
    """Five latents a token in 30 dimensions: their rows are far from dependent."""
    return random_sae("top_k", d_in=30, d_sae=60, seed=seed).eval()


def test_the_spectrum_is_that_of_each_tokens_own_rows():
    sae = wide_sae()
    x = torch.randn(300, 30)
    found = rsae.pursuit_steps(sae, rsae.Store.of(x, heldout=0), 0.1, tokens=300)
    W = torch.nn.functional.normalize(sae.W_dec.detach().double(), dim=1)
    values = []
    with torch.no_grad():
        for code in (sae, rsae.pursuit(sae)):
            for z in code.encode(x):
                rows = W[z != 0]
                values += torch.linalg.eigvalsh(rows @ rows.T).tolist()
    assert found.lowest == pytest.approx(min(values), rel=1e-6)
    assert found.lowest <= min(values)
    assert found.largest == pytest.approx(max(values), rel=1e-6)
    assert found.bound == approx.chebyshev_bound(found.lowest, found.largest, found.steps) <= 0.1
    assert found.steps == 1 or approx.chebyshev_bound(found.lowest, found.largest, found.steps - 1) > 0.1
    assert f"{found.steps} steps leave at most" in str(found)


@given(seed=st.integers(0, 1000), error=st.sampled_from([0.5, 0.1, 0.01]))
@settings(max_examples=10)
@torch.no_grad()
def test_so_many_steps_keep_the_promise(seed, error):
    """Each token's solve on its plain support, against least squares: what is left in the energy norm."""
    sae = wide_sae(seed % 5)
    x = torch.randn(100, 30, generator=torch.Generator().manual_seed(seed))
    found = rsae.pursuit_steps(sae, rsae.Store.of(x, heldout=0), error, tokens=100)
    sae.signed = True  # no value is cut off at 0
    solved = rsae.pursuit(sae, rounds=0, steps=found.steps)
    solved.signed = True
    plain, z = sae.encode(x), solved.encode(x)
    norm = sae.W_dec.norm(dim=1)
    W = (sae.W_dec / norm[:, None]).double()
    for row, start, end in zip(x - sae.b_dec, plain * norm, z * norm, strict=True):
        on = start != 0
        if not on.any():
            continue
        gram, target = W[on] @ W[on].T, W[on] @ row.double()
        best = torch.linalg.solve(gram, target)

        def energy(code: torch.Tensor, gram=gram, best=best, on=on) -> float:
            left = code[on].double() - best
            return (left @ gram @ left).sqrt().item()

        assert energy(end) <= found.bound * energy(start) * (1 + 1e-3) + 1e-5


def test_dependent_rows_are_told():
    sae = random_sae("top_k", d_in=3, d_sae=40).eval()  # five rows in three dimensions
    with pytest.raises(InputError, match="linearly dependent"):
        rsae.pursuit_steps(sae, rsae.Store.of(torch.randn(100, 3)), 0.1)
