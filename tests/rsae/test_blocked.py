import pytest
import torch

from rsae.rational.kernels import blocked as module
from rsae.rational.kernels.blocked import blocked


def function(h_BF, scale_F, a_G2):
    t_BF = h_BF / scale_F
    return scale_F * (a_G2[:, 0] + t_BF * a_G2[:, 1]) / (1 + t_BF * t_BF)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of two rows of seven, so that seven rows make four blocks, the last one short."""
    monkeypatch.setattr(module, "_ELEMENTS", 15)


@pytest.mark.parametrize("groups", [1, 7])
def test_value_and_gradients_are_the_functions_own(small_blocks, groups):
    torch.manual_seed(0)
    h = torch.randn(7, 7, dtype=torch.float64, requires_grad=True)
    scale = (torch.rand(7, dtype=torch.float64) + 0.5).requires_grad_()
    a = torch.randn(groups, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 7, dtype=torch.float64)
    direct = torch.autograd.grad((function(h, scale, a) * weight).sum(), (h, scale, a))
    through = torch.autograd.grad((blocked(function, h, scale, a) * weight).sum(), (h, scale, a))
    assert torch.equal(blocked(function, h, scale, a), function(h, scale, a))
    for x, y in zip(direct, through, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_gradcheck(small_blocks):
    torch.manual_seed(1)
    inputs = (torch.randn(5, 7), torch.rand(7) + 0.5, torch.randn(1, 2))
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(lambda *x: blocked(function, *x), inputs)


def test_only_wanted_gradients_are_made(small_blocks):
    h = torch.randn(4, 7)
    a = torch.randn(1, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(blocked(function, h, torch.ones(7), a).sum(), a)
    (direct,) = torch.autograd.grad(function(h, torch.ones(7), a).sum(), a)
    torch.testing.assert_close(grad, direct)


def test_nothing_of_the_inputs_size_is_saved_but_the_input(small_blocks):
    saved = []
    h = torch.randn(6, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.shape) or x, lambda x: x):
        blocked(function, h, torch.ones(7), torch.ones(1, 2, requires_grad=True))
    assert saved.count(h.shape) == 1
