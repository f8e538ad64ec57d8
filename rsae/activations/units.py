"""Where training has its origin, and its unit: a mean that outweighs what varies would set the unit by itself.

Rates, thresholds and bandwidths suit activations of mean norm sqrt(D) whose features are of that order. Of
activations with a mean of 30 times their spread the features are 30 times smaller in that unit, and Adam's steps, the
same for all, are as large as they are. Shapes: B batch, D d_in.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from rsae.activations.protocol import Activations

CENTRED = 2.0  # times the spread: a longer mean is taken off
_SAMPLE = 4096


class Units(NamedTuple):
    """x in training is (x - origin) scale."""

    origin_D: torch.Tensor | None
    """The mean, float32; None for 0."""
    scale: float
    """New units an old one."""

    @classmethod
    def measured(cls, x_BD: torch.Tensor, scale: float) -> Units:
        """Those for activations: about 0 at mean norm sqrt(D), or about a mean that is much longer than they vary.

        Args:
            x_BD: A sample.
            scale: What brings their mean norm to sqrt(D).
        """
        x_BD = x_BD.double()
        mean_D = x_BD.mean(0)
        norm_B = (x_BD - mean_D).norm(dim=1)
        spread = norm_B.square().mean().sqrt()
        if not mean_D.norm() > CENTRED * spread > 0:
            return cls(None, scale)
        return cls(mean_D.float(), (x_BD.shape[1] ** 0.5 / norm_B.mean()).item())

    def shift(self, factor: float) -> torch.Tensor | None:
        """A factor times the origin; None for 0.

        Args:
            factor: The factor.
        """
        return None if self.origin_D is None else factor * self.origin_D

    def of(self, x_BD: torch.Tensor) -> torch.Tensor:
        """Activations as training sees them.

        Args:
            x_BD: Activations as they come.
        """
        return (x_BD if self.origin_D is None else x_BD - self.origin_D.to(x_BD.device)) * self.scale

    def undone(self, x_BD: torch.Tensor) -> torch.Tensor:
        """What training sees, as it comes.

        Args:
            x_BD: Activations in training.
        """
        x_BD = x_BD / self.scale
        return x_BD if self.origin_D is None else x_BD + self.origin_D.to(x_BD.device)


_KNOWN: WeakKeyDictionary[Activations, Units] = WeakKeyDictionary()


def units_of(activations: Activations) -> Units:
    """The units that training on some activations has.

    Args:
        activations: The activations; a stream tells its own, which it has measured.
    """
    if (known := getattr(activations, "units", None)) is not None:
        return known
    if activations not in _KNOWN:
        _KNOWN[activations] = Units.measured(activations.sample(_SAMPLE, 0), activations.scale)
    return _KNOWN[activations]
