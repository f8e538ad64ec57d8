"""Input normalisations of foreign SAEs.

`expected_average_only_in`: x times one number, sqrt(D) / mean ||x||. It is folded into the weights.
`covariance_whitening`: (x - mean) M, one matrix for all tokens. It is folded, too, where the file has the matrix.
`constant_norm_rescale`, `layer_norm`: each token by statistics of its own. No weights can hold that: the SAE carries it
as a layer (`SAE.input_norm`). Shapes: D d_in.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from rsae.formats.checks import Tensors, read_config
from rsae.sae.input_norm import KINDS, InputNorm
from rsae.support.errors import InputError
from rsae.support.files import read_tensors

#: Beside SAELens's training checkpoints: the scale, and the whitening
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"


class _Scaler(BaseModel):
    scaling_factor: float | None = None


class Normalised(NamedTuple):
    """Weights that take activations as they come, and what stays to be done for each token."""

    tensors: Tensors
    input_norm: InputNorm | None


def folded(
    tensors: Tensors,
    kind: str,
    where: str,
    directory: Path,
    input_scale: float | None,
    subtract_b_dec: bool,
) -> Normalised:
    """Fold a normalisation into the weights, as far as they can hold it. The code keeps its values, as SAELens folds.

    Args:
        tensors: The weights by our names.
        kind: SAELens's name of the normalisation.
        where: File and field, for messages.
        directory: Where SAELens's scaler files may lie.
        input_scale: sqrt(D) / mean ||x||, where no file says it.
        subtract_b_dec: Whether the encoder sees x - b_dec.

    Raises:
        InputError: The kind is unknown, or a number that it needs is not there.
    """
    scaler = _scaler(directory)
    if input_scale is None and kind == "expected_average_only_in":
        input_scale = scaler.scaling_factor
    if input_scale is not None and kind != "expected_average_only_in":
        raise InputError(f"{where} = {kind!r}: there is no scale to give; leave input_scale out")
    if kind == "none":
        return Normalised(tensors, None)
    if kind == "expected_average_only_in":
        if input_scale is None:
            raise InputError(
                f"{where} = {kind!r}: trained on x times sqrt(d_in) / mean ||x||, which no file here holds "
                f"({SCALER} would); give that number as input_scale (it is a store's `scale`)"
            )
        if not 0 < input_scale < math.inf:
            raise InputError(f"{where} = {kind!r}: the scale {input_scale} is no positive number")
        s = float(input_scale)
        factors = {"W_enc": s, "W_dec": 1 / s, "b_dec": 1 / s}
        return Normalised({k: v * factors.get(k, 1.0) for k, v in tensors.items()}, None)
    if kind in KINDS:
        return Normalised(tensors, InputNorm(kind))
    if kind == "covariance_whitening":
        if not (directory / WHITENING).exists():
            raise InputError(
                f"{where} = {kind!r}: {WHITENING} is not beside it; fold the whitening into the weights with SAELens "
                "first, or add the file"
            )
        return Normalised(_whitened(tensors, directory / WHITENING, subtract_b_dec), None)
    raise InputError(f"{where} = {kind!r} is not supported; fold it into the weights with SAELens first")


def _scaler(directory: Path) -> _Scaler:
    file = directory / SCALER
    return read_config(file, _Scaler) if file.exists() else _Scaler()


def _whitened(tensors: Tensors, file: Path, subtract_b_dec: bool) -> Tensors:
    """W_enc <- M W_enc, W_dec <- W_dec M^-1, b_dec <- b_dec M^-1 + mean; without b_dec subtracted, biases shift."""
    given = read_tensors(file)
    for name in ("mean", "matrix", "inverse_matrix"):
        if name not in given:
            raise InputError(f"{file}: tensor {name!r} is missing")
    mean_D, M_DD, inverse_DD = (given[n].double() for n in ("mean", "matrix", "inverse_matrix"))
    if "W_enc" not in tensors or M_DD.shape != (tensors["W_enc"].shape[0],) * 2:
        raise InputError(f"{file}: the matrix has shape {list(M_DD.shape)}, which does not fit the SAE")
    out = dict(tensors)
    W_enc_DF = M_DD @ tensors["W_enc"].double()
    out["W_enc"] = W_enc_DF.float()
    out["W_dec"] = (tensors["W_dec"].double() @ inverse_DD).float()
    out["b_dec"] = (tensors["b_dec"].double() @ inverse_DD + mean_D).float()
    if not subtract_b_dec:
        shift_F = mean_D @ W_enc_DF
        for bias in ("b_enc", "b_gate"):
            if bias in out:
                out[bias] = (out[bias].double() - shift_F).float()
        if "b_mag" in out:  # the magnitude sees the input through the same weights, times exp(r_mag)
            out["b_mag"] = (out["b_mag"].double() - out["r_mag"].double().exp() * shift_F).float()
    return out
