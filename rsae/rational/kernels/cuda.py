"""The fused Triton kernel for CUDA (and, in Triton's interpreter, for the tests).

A program takes a tile of rows and columns: it reads h once, keeps it in registers, and for each parameter in turn adds
up its gradient over the tile's rows. Each tile writes its sums to a place of its own, and torch adds them: no atomics.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from rsae.rational.kernels.reference import Shape

_ROWS, _COLUMNS = 64, 32


def available(h_BF: torch.Tensor) -> bool:
    """Whether the kernel can take this input."""
    return h_BF.is_cuda and importlib.util.find_spec("triton") is not None


def evaluate(h_BF: torch.Tensor, parameters_PF: torch.Tensor, shape: Shape) -> torch.Tensor:
    """phi(h_BF), see `reference.evaluate`; differentiable.

    Args:
        h_BF: Pre-activations.
        parameters_PF: The rational's parameters, laid out as `reference.Shape` says.
        shape: Which rational function it is.
    """
    return _Fused.apply(h_BF.contiguous(), parameters_PF.float().contiguous(), shape)  # type: ignore[return-value]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_BF, parameters_PF, shape):  # type: ignore[override]
        from rsae.rational.kernels import triton_kernels

        ctx.save_for_backward(h_BF, parameters_PF)
        ctx.shape = shape
        out_BF = torch.empty_like(h_BF)
        with torch.cuda.device_of(h_BF):  # Triton launches on the current card
            kernel: Any = triton_kernels.forward[_grid(h_BF)]
            kernel(h_BF, out_BF, parameters_PF, *h_BF.shape, *shape, _ROWS, _COLUMNS)
        return out_BF

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_BF):  # type: ignore[override]
        from rsae.rational.kernels import triton_kernels

        h_BF, parameters_PF = ctx.saved_tensors
        grad_h_BF = torch.empty_like(h_BF)
        grid = _grid(h_BF)
        sums_TPF = torch.empty(grid[0], *parameters_PF.shape, device=h_BF.device)
        grads = grad_BF.contiguous(), grad_h_BF
        numbers = *h_BF.shape, len(parameters_PF), *ctx.shape, _ROWS, _COLUMNS
        with torch.cuda.device_of(h_BF):
            kernel: Any = triton_kernels.backward[grid]
            kernel(h_BF, *grads, parameters_PF, sums_TPF, *numbers)
        return grad_h_BF, sums_TPF.sum(0), None


def _grid(h_BF: torch.Tensor) -> tuple[int, int]:
    return -(-h_BF.shape[0] // _ROWS), -(-h_BF.shape[1] // _COLUMNS)
