"""Input normalisations of foreign SAEs. Ours take activations as the host gives them.

`expected_average_only_in`: x times one number, sqrt(D) / mean ||x||. It is folded into the weights.
`constant_norm_rescale`, `layer_norm`: each token by statistics of its own, undone after decoding. No weights can hold
that, so such a file is refused, unless it is said that the activations will be given normalised.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rsae.support.errors import InputError, did_you_mean
from rsae.formats.checks import Tensors
from rsae.sae import SAE

EACH_TOKEN = ("constant_norm_rescale", "layer_norm")
_EPS = 1e-5


def normalise(x_BD: torch.Tensor, kind: str) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """x normalised token by token, and the function that takes a reconstruction back.

    `layer_norm`: (x - mean) / (std + 1e-5), std unbiased; `constant_norm_rescale`: x sqrt(D) / ||x||. As SAELens and
    OpenAI's TopK SAEs have them: the way back multiplies by std alone.
    """
    if kind == "layer_norm":
        mean_B1 = x_BD.mean(-1, keepdim=True)
        std_B1 = x_BD.std(-1, keepdim=True)
        return (x_BD - mean_B1) / (std_B1 + _EPS), lambda y_BD: y_BD * std_B1 + mean_B1
    if kind == "constant_norm_rescale":
        factor_B1 = x_BD.shape[-1] ** 0.5 / x_BD.norm(dim=-1, keepdim=True)
        return x_BD * factor_B1, lambda y_BD: y_BD / factor_B1
    raise InputError(f"normalisation {kind!r} is unknown{did_you_mean(kind, EACH_TOKEN)}")


def check_takes_host_activations(sae: SAE) -> None:
    """Raise `InputError` for an SAE of activations that have to be normalised first: a host or a store has others."""
    if kind := sae.metadata.get("input_normalisation"):
        raise InputError(
            f"the SAE takes activations after {kind!r}, which those of a host or a store are not: normalise them by "
            "rsae.normalise and call the SAE yourself"
        )


def folded(
    tensors: Tensors, kind: str, where: str, input_scale: float | None, normalised: bool
) -> tuple[Tensors, dict[str, str]]:
    """Weights that take activations as they come, and what to add to the metadata.

    where: file and field, for messages. The code keeps its values (as SAELens folds): W_enc s, W_dec / s, b_dec / s.
    """
    if input_scale is not None and kind != "expected_average_only_in":
        raise InputError(f"{where} = {kind!r}: there is no scale to give; leave input_scale out")
    if normalised and kind not in EACH_TOKEN:
        raise InputError(f"{where} = {kind!r}: it takes activations as they are; leave normalised out")
    if kind == "none":
        return tensors, {}
    if kind == "expected_average_only_in":
        if input_scale is None:
            raise InputError(
                f"{where} = {kind!r}: trained on x times sqrt(d_in) / mean ||x||, which the file does not hold; give "
                "that number as input_scale (it is a store's `scale`)"
            )
        s = float(input_scale)
        factors = {"W_enc": s, "W_dec": 1 / s, "b_dec": 1 / s}
        return {k: v * factors.get(k, 1.0) for k, v in tensors.items()}, {}
    if kind in EACH_TOKEN:
        if not normalised:
            raise InputError(
                f"{where} = {kind!r}: each token is normalised by its own statistics, which no weights can hold; with "
                "normalised=True you get the SAE of activations that you normalise yourself (rsae.normalise)"
            )
        return tensors, {"input_normalisation": kind}
    raise InputError(f"{where} = {kind!r} is not supported; fold it into the weights with SAELens first")
