"""Devices by name."""

from __future__ import annotations

import torch

from rsae.support.errors import InputError


def check_device(device: str) -> None:
    """Raise `InputError` where nothing can be put on a device.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, ...
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, not there, not built in
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise InputError(
            f"device {device!r} cannot be used ({reason}); here are: {', '.join(there)}"
        ) from error
