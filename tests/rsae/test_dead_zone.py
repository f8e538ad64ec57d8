import pytest
import torch

from rsae.sae.dead_zone import dead_zone, heaviside


def test_zero_below_and_untouched_above():
    h = torch.tensor([[-1.0, 0.5, 0.500001, 2.0]])
    theta = torch.full((4,), 0.5)
    assert dead_zone(3 * h, h, theta, 0.1, theta).tolist() == [[0.0, 0.0, (3 * h)[0, 2].item(), 6.0]]
    assert heaviside(h, theta, 0.1).tolist() == [[0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("theta", [0.3, 1.1])
def test_gradient_to_theta_is_the_derivative_of_the_mean(theta):
    """Over uniform h the straight-through estimate has a truth to meet: d/dtheta E[h 1(h > theta)] = -theta p."""
    h = torch.linspace(-2, 2, 400_001, dtype=torch.float64)[:, None]
    t = torch.tensor([theta], dtype=torch.float64, requires_grad=True)
    dead_zone(h, h, t, 0.2, t.detach()).mean().backward()
    step = 1e-3
    mean = lambda x: torch.where(h > x, h, 0.0).mean()  # noqa: E731
    finite = (mean(theta + step) - mean(theta - step)) / (2 * step)
    assert t.grad is not None
    assert t.grad.item() == pytest.approx(finite.item(), rel=1e-3)


def test_gradient_of_heaviside_is_the_derivative_of_the_mean():
    h = torch.linspace(-2, 2, 400_001, dtype=torch.float64)[:, None]
    t = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    heaviside(h, t, 0.2).mean().backward()
    assert t.grad is not None
    assert t.grad.item() == pytest.approx(-0.25, rel=1e-3)  # the density of h


def test_value_gets_its_gradient_where_the_gate_is_open():
    h = torch.tensor([[0.1, 0.9]])
    value = torch.tensor([[5.0, 7.0]], requires_grad=True)
    theta = torch.full((2,), 0.5)
    dead_zone(value, h, theta, 0.1, theta).sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[0.0, 1.0]]
