"""Data whose truth is known: sparse signed features along fixed directions, plus noise.

Shapes: B samples, M axes, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsae import Store
from rsae.activations.in_memory import InMemory

#: Standard deviation of the noise in each dimension
NOISE = 0.02


def unit_directions(count: int, d_in: int, seed: int) -> torch.Tensor:
    """Random unit directions.

    Args:
        count: How many, M.
        d_in: Dimensions, D.
        seed: Of the choice.

    Returns:
        Unit rows [M, D], orthogonal to each other where there is room (count <= D).
    """
    # a stream of its own: an SAE of the same shape and seed would start from these very rows
    rows_MD = torch.randn(count, d_in, generator=torch.Generator().manual_seed(1_000_003 + seed))
    if count <= d_in:
        return torch.linalg.qr(rows_MD.T).Q.T.contiguous()
    return rows_MD / rows_MD.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class AxesWorld:
    """x = sum_m |c_m| v_m^(sign of c_m) + noise.

    c_m has either sign as often, and a magnitude uniform in [0.5, 1.5] times the sign's gain.
    """

    plus_MD: torch.Tensor
    """Unit directions of the positive poles."""
    minus_MD: torch.Tensor
    """Unit directions of the negative poles, -plus_MD for straight axes."""
    rate: float
    """Probability that a coefficient is not 0."""
    gain: tuple[float, float] = (1.0, 1.0)
    """Factor on the magnitude, by sign: plus, minus."""

    def coefficients(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Signed c_BM."""
        shape = (count, len(self.plus_MD))
        plus_BM = torch.rand(shape, generator=generator) < 0.5
        size_BM = 0.5 + torch.rand(shape, generator=generator)
        c_BM = torch.where(plus_BM, size_BM * self.gain[0], -size_BM * self.gain[1])
        return c_BM * (torch.rand(shape, generator=generator) < self.rate)

    def observe(self, c_BM: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """x_BD of given coefficients."""
        x_BD = c_BM.relu() @ self.plus_MD + (-c_BM).relu() @ self.minus_MD
        return x_BD + NOISE * torch.randn(x_BD.shape, generator=generator)

    def draw(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """c_BM and x_BD."""
        generator = torch.Generator().manual_seed(2_000_003 + seed)
        c_BM = self.coefficients(count, generator)
        return c_BM, self.observe(c_BM, generator)


def samples(train_ND: torch.Tensor, heldout_ND: torch.Tensor) -> InMemory:
    """Samples in memory as activations: `train_ND` to train on, `heldout_ND` to measure on."""
    return Store.of(torch.cat([train_ND, heldout_ND]), heldout=len(heldout_ND))
