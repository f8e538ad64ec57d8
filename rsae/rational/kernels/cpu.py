"""The fused CPU kernel: cpu.cpp, compiled once for each rational function's shape and kept in the cache directory.

It uses GCC's vector extensions. Where there is no compiler, `available` is false and the blocked evaluation serves.
Rows are shared among `torch.get_num_threads()` threads.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from rsae.rational.kernels.reference import Shape
from rsae.support.compiled import compiled, pointer

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_SOURCE = Path(__file__).with_name("cpu.cpp")


def available(h_BF: torch.Tensor, shape: Shape) -> bool:
    """Whether the kernel can take this input."""
    return h_BF.device.type == "cpu" and h_BF.dtype in _DTYPES and _library(shape) is not None


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
        ctx.save_for_backward(h_BF, parameters_PF)
        ctx.shape = shape
        out_BF = torch.empty_like(h_BF)
        function = getattr(_library(shape), f"forward_{_DTYPES[h_BF.dtype]}")
        function(*map(pointer, (h_BF, out_BF)), *h_BF.shape, pointer(parameters_PF), _threads(h_BF))
        return out_BF

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_BF):  # type: ignore[override]
        h_BF, parameters_PF = ctx.saved_tensors
        grad_BF, grad_h_BF = grad_BF.contiguous(), torch.empty_like(h_BF)
        threads = _threads(h_BF)
        sums_TPF = torch.zeros(threads, *parameters_PF.shape, dtype=torch.float64)
        function = getattr(_library(ctx.shape), f"backward_{_DTYPES[h_BF.dtype]}")
        inputs = map(pointer, (h_BF, grad_BF, grad_h_BF))
        function(*inputs, *h_BF.shape, pointer(parameters_PF), pointer(sums_TPF), threads)
        return grad_h_BF, sums_TPF.sum(0).float(), None


def _threads(h_BF: torch.Tensor) -> int:
    return max(1, min(torch.get_num_threads(), len(h_BF) // 16))


@cache
def _library(shape: Shape) -> ctypes.CDLL | None:
    """The compiled kernel, or None (with a warning) where it cannot be compiled."""
    library = compiled(_SOURCE, shape.macros(), "rational activations")
    if library is None:
        return None
    for name in ("forward_float32", "forward_bfloat16", "backward_float32", "backward_bfloat16"):
        function = getattr(library, name)
        inputs, tail = (2, 1) if name.startswith("forward") else (3, 2)
        address, long = ctypes.c_void_p, ctypes.c_long
        function.argtypes = [address] * inputs + [long] * 2 + [address] * tail + [ctypes.c_int]
        function.restype = None
    return library
