"""Goodfire's SAEs: one torch file with two linear layers, `encoder_linear` and `decoder_linear`; a ReLU between them.

z = relu(W_enc x + b_enc), x_hat = W_dec z + b_dec: b_dec is not subtracted. The file says nothing of the host.
"""

from __future__ import annotations

import os
from pathlib import Path

from rsae.formats.checks import assemble, read_state, renamed, transposed
from rsae.sae import SAE
from rsae.support.errors import InputError

_NAMES = {
    "W_enc": "encoder_linear.weight",
    "b_enc": "encoder_linear.bias",
    "W_dec": "decoder_linear.weight",
    "b_dec": "decoder_linear.bias",
}


def load(path: str | os.PathLike) -> SAE:
    """Read the file.

    Args:
        path: The `.pt` or `.pth` file.

    Raises:
        InputError: A tensor is missing, unknown, or of another shape.
    """
    path = Path(path)
    tensors = renamed(read_state(path), path, _NAMES)
    tensors |= {k: transposed(tensors[k]) for k in ("W_enc", "W_dec")}
    if tensors["W_enc"].ndim != 2:
        raise InputError(f"{path}: encoder_linear.weight is no matrix")
    d_in, d_sae = tensors["W_enc"].shape
    return assemble("relu", {"d_in": d_in, "d_sae": d_sae, "subtract_b_dec": False}, tensors, path, path)
