"""Normalisation of each token by its own statistics, which an SAE carries as a layer: no weights can hold it.

`layer_norm`: (x - mean) / (std + 1e-5), std unbiased; `constant_norm_rescale`: x sqrt(D) / ||x||. As SAELens and
OpenAI's TopK SAEs have them: the way back multiplies by std alone. Shapes: B batch, D d_in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from rsae.support.errors import InputError, did_you_mean

_EPS = 1e-5
KINDS = ("constant_norm_rescale", "layer_norm")


@dataclass(frozen=True)
class InputNorm:
    """One normalisation, by its name in SAELens's `normalize_activations`."""

    kind: str
    """`layer_norm` or `constant_norm_rescale`."""
    unit: float = 1.0
    """Size of the host's unit in that of the activations that are given: layer_norm's epsilon is 1e-5 in the host's."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"normalisation {self.kind!r} is unknown{did_you_mean(self.kind, KINDS)}")

    def rescaled(self, factor: float) -> InputNorm:
        """The same function of activations in other units.

        Args:
            factor: New units an old one.
        """
        unit = self.unit * factor
        return replace(self, unit=1.0 if math.isclose(unit, 1.0, rel_tol=1e-12) else unit)  # there and back

    def apply(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The normalised tokens.

        Args:
            x_BD: Activations; any number of leading dimensions will do.
        """
        if self.kind == "layer_norm":
            return (x_BD - x_BD.mean(-1, keepdim=True)) / (x_BD.std(-1, keepdim=True) + _EPS * self.unit)
        return x_BD * self._factor(x_BD)

    def undo(self, y_BD: torch.Tensor, x_BD: torch.Tensor) -> torch.Tensor:
        """A reconstruction of normalised tokens, taken back to the scale of the tokens themselves.

        Args:
            y_BD: The reconstruction.
            x_BD: The activations that were normalised.
        """
        if self.kind == "layer_norm":
            return y_BD * x_BD.std(-1, keepdim=True) + x_BD.mean(-1, keepdim=True)
        return y_BD / self._factor(x_BD)

    @staticmethod
    def _factor(x_BD: torch.Tensor) -> torch.Tensor:
        # SAELens divides by the norm itself; a token of zeros stays zeros here
        return x_BD.shape[-1] ** 0.5 / x_BD.norm(dim=-1, keepdim=True).clamp_min(1e-12)
