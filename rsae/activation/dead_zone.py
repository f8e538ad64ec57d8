"""Gates that are exactly zero below a threshold, with straight-through gradients to the threshold.

The rectangle kernel is K(u) = 1[|u| < 1/2], u = (h - theta) / eps (Rajamanoharan et al. 2024, eqs. 11-12).
"""

from __future__ import annotations

import torch


def dead_zone(
    value_BF: torch.Tensor,
    h_BF: torch.Tensor,
    theta_F: torch.Tensor,
    bandwidth: torch.Tensor | float,
    edge_F: torch.Tensor,
) -> torch.Tensor:
    """`value_BF` where h > theta, exactly 0 elsewhere.

    The gradient passes to `value_BF` where h > theta, and to theta as -(edge / eps) K: `edge_F` is the height of
    the jump, the value at h = theta (theta itself for JumpReLU).
    """
    return _DeadZone.apply(value_BF, h_BF, theta_F, bandwidth, edge_F)  # type: ignore[return-value]


def heaviside(h_BF: torch.Tensor, theta_F: torch.Tensor, bandwidth: torch.Tensor | float) -> torch.Tensor:
    """1 where h > theta, else 0; the gradient to theta is -(1 / eps) K, none passes to h."""
    one = torch.ones((), dtype=h_BF.dtype, device=h_BF.device)
    return dead_zone(one.expand_as(h_BF), h_BF, theta_F, bandwidth, one)


class _DeadZone(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value_BF, h_BF, theta_F, bandwidth, edge_F):  # type: ignore[override]
        ctx.save_for_backward(h_BF, theta_F, edge_F)
        ctx.bandwidth = bandwidth
        return torch.where(h_BF > theta_F, value_BF, 0.0)

    @staticmethod
    def backward(ctx, grad_BF):  # type: ignore[override]
        h_BF, theta_F, edge_F = ctx.saved_tensors
        grad_value_BF = torch.where(h_BF > theta_F, grad_BF, 0.0) if ctx.needs_input_grad[0] else None
        grad_theta_F = None
        if ctx.needs_input_grad[2]:
            near_BF = (h_BF - theta_F).abs() < ctx.bandwidth / 2
            grad_theta_F = -(edge_F / ctx.bandwidth) * torch.where(near_BF, grad_BF, 0.0).flatten(0, -2).sum(
                0
            )
        return grad_value_BF, None, grad_theta_F, None, None
