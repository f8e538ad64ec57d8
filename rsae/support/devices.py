"""Devices by name."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rsae.support.errors import InputError


def check_device(device: str) -> None:
    """Raise `InputError` where nothing can be put on a device.

    Under torchrun `cuda` is the card of this process's number on its machine, from here on.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, ...
    """
    try:
        if device == "cuda" and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before the first process's card is touched
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, not there, not built in
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise InputError(
            f"device {device!r} cannot be used ({reason}); here are: {', '.join(there)}"
        ) from error


def products_in(precision: str, device: torch.device) -> str:
    """A precision of products, with `auto` settled: bfloat16 where a device multiplies in it, else float32.

    Args:
        precision: The precision, or `auto`.
        device: Where the products are made.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself: it only pays there.

    Args:
        device: Where the host runs.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"})
