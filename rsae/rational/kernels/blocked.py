"""Elementwise functions, evaluated a cache-sized block of rows at a time.

A rational activation in plain torch is a few dozen passes over a [batch, features] matrix, each from and to main
memory. A block that fits in the second-level cache makes the same passes there. Only the input is kept for the
backward pass: it recomputes a block and differentiates it at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_ELEMENTS = 1 << 16  # float32: 256 KiB a temporary


def blocked(
    function: Callable[..., torch.Tensor], h_BF: torch.Tensor, *parameters: torch.Tensor
) -> torch.Tensor:
    """`function(h_BF, *parameters)`, where each row of the result depends on its own row of `h_BF` alone.

    The result, the gradients and their sums over rows are `function`'s own, up to the order of summation.
    """
    out_BF = _Blocked.apply(function, h_BF.flatten(0, -2), *parameters)
    return out_BF.reshape(h_BF.shape)  # type: ignore[union-attr]


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, h_BF, *parameters):  # type: ignore[override]
        ctx.function = function
        ctx.save_for_backward(h_BF, *parameters)
        rows = _rows(h_BF)
        if rows >= len(h_BF):
            return function(h_BF, *parameters)
        out_BF = torch.empty_like(h_BF)
        for start in range(0, len(h_BF), rows):
            out_BF[start : start + rows] = function(h_BF[start : start + rows], *parameters)
        return out_BF

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_BF):  # type: ignore[override]
        h_BF, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        grad_h_BF = torch.empty_like(h_BF) if wanted[0] else None
        sums = [torch.zeros_like(p) if want else None for p, want in zip(parameters, wanted[1:], strict=True)]
        rows = _rows(h_BF)
        leaves = [p.detach().requires_grad_(want) for p, want in zip(parameters, wanted[1:], strict=True)]
        for start in range(0, len(h_BF), rows):
            block = slice(start, start + rows)
            with torch.enable_grad():
                h = h_BF[block].detach().requires_grad_(wanted[0])
                out = ctx.function(h, *leaves)
            inputs = [x for x in (h, *leaves) if x.requires_grad]
            grads = iter(torch.autograd.grad(out, inputs, grad_BF[block], allow_unused=True))
            if grad_h_BF is not None:
                grad_h_BF[block] = _or_zero(next(grads))
            for total in sums:
                if total is not None:
                    total += _or_zero(next(grads))
        return None, grad_h_BF, *sums


def _or_zero(grad: torch.Tensor | None) -> torch.Tensor | float:
    return 0.0 if grad is None else grad


def _rows(h_BF: torch.Tensor) -> int:
    return max(1, _ELEMENTS // h_BF.shape[-1])
