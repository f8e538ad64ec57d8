"""The soft SAE's fast loss beside its definition, differentiated by torch."""

from __future__ import annotations

import pytest
import torch

import approx
from rsae import RationalActivation, SoftRational
from rsae.sae.soft_rational import supplied_threshold

B, D, F = 40, 12, 60


def soft(gate: str, subtract_b_dec: bool) -> SoftRational:
    torch.manual_seed(0)
    target = approx.gate(0.0, 0.05) if gate == "top_k" else approx.relu()
    activation = RationalActivation.from_fit(approx.minimax(target, (3, 2)), torch.full((F,), 3.0))
    sae = SoftRational(D, F, gate, activation, 5 if gate == "top_k" else None, subtract_b_dec)
    sae.initialise(torch.randn(200, D) + 1)
    return sae.train()


@pytest.mark.parametrize("gate", ["relu", "top_k"])
@pytest.mark.parametrize("subtract_b_dec", [True, False])
@pytest.mark.parametrize("penalty", ["l1", None])
def test_loss_and_gradients_are_those_of_the_definition(gate, subtract_b_dec, penalty):
    sae, x_BD = soft(gate, subtract_b_dec), torch.randn(B, D)
    loss = sae.loss(x_BD, 0.3, penalty)
    loss.total.backward()
    got = {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None}
    sae.zero_grad()
    z_BF = sae.soft_code(sae.pre_activations(x_BD))
    sse = (z_BF @ sae.W_dec + sae.b_dec - x_BD).square().sum(1).mean()
    total = sse + (0.3 * (z_BF.abs() @ sae.W_dec.norm(dim=1)).mean() if penalty else 0.0)
    total.backward()
    torch.testing.assert_close(loss.total, total)
    torch.testing.assert_close(loss.sse, sse)
    assert loss.l0.item() == pytest.approx((z_BF != 0).sum().item() / B)
    assert torch.equal(loss.fired_F, (z_BF != 0).any(0))
    want = {name: p.grad for name, p in sae.named_parameters() if p.grad is not None}
    assert got.keys() == want.keys()
    for name, grad in want.items():
        torch.testing.assert_close(got[name], grad, rtol=1e-4, atol=1e-4 * float(grad.abs().max()), msg=name)


@pytest.mark.parametrize("shape", [(B, F), (3, 4, F)])
def test_the_supplied_threshold_lies_midway(shape):
    h = torch.randn(shape).round(decimals=1)  # with equal ones
    top = h.sort(dim=-1, descending=True).values
    assert torch.equal(supplied_threshold(h, 5), (top[..., 4:5] + top[..., 5:6]) / 2)
