"""OpenAI's sparse_autoencoder: one `.pt` file with a state dict.

z = act(W_enc (x - pre_bias) + latent_bias), x_hat = W_dec z + pre_bias; act is ReLU or TopK. With TopK, each token is
layer-normalised first: the SAE carries that (`SAE.input_norm`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rsae.formats.checks import assemble, read_state, renamed, transposed
from rsae.sae import SAE
from rsae.sae.input_norm import InputNorm
from rsae.support.errors import InputError

_NAMES = {
    "W_enc": "encoder.weight",
    "b_enc": "latent_bias",
    "W_dec": "decoder.weight",
    "b_dec": "pre_bias",
}
_IGNORED = ("activation", "activation_state_dict", "stats_last_nonzero")


def load(path: str | os.PathLike) -> SAE:
    """Read the file.

    Args:
        path: The file.

    Raises:
        InputError: The activation is another one, or the file does not fit.
    """
    path = Path(path)
    state = read_state(path)
    activation = state.get("activation", "ReLU")
    if activation not in ("ReLU", "TopK"):
        raise InputError(f"{path}: activation {activation!r} is not supported, only ReLU and TopK are")
    tensors = renamed(state, path, _NAMES, _IGNORED)
    tensors |= {k: transposed(tensors[k]) for k in ("W_enc", "W_dec")}
    if tensors["W_enc"].ndim != 2:
        raise InputError(f"{path}: encoder.weight is no matrix")
    d_in, d_sae = tensors["W_enc"].shape
    settings: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae}
    if activation == "TopK":
        how = state.get("activation_state_dict")
        if not isinstance(how, dict) or not isinstance(how.get("k"), int):
            raise InputError(f"{path}: activation_state_dict does not say k")
        if how.get("postact_fn", "ReLU") != "ReLU":
            raise InputError(f"{path}: postact_fn {how['postact_fn']!r} is not supported, only ReLU is")
        settings["k"] = how["k"]
    sae = assemble("top_k" if activation == "TopK" else "relu", settings, tensors, path, path)
    sae.input_norm = InputNorm("layer_norm") if activation == "TopK" else None
    return sae
