"""What an SAE's methods hand to each other. Shapes: B batch, F d_sae, N entries of a sparse code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from rsae.sae.sparse import Pattern


class Entries(NamedTuple):
    """The pre-activations of a batch at the places where the code or its gradient can be non-zero."""

    h_N: torch.Tensor
    pattern: Pattern
    h_BF: torch.Tensor | None = None  # all of them, without gradient; None where nobody needs them any more


@dataclass(frozen=True)
class Target:
    """What a transcoder predicts."""

    d_out: int
    """Its width."""
    skip: bool = False
    """Whether a linear map of the input is added to what the code gives."""


@dataclass(frozen=True)
class Rates:
    """How to train a family: found by sweeps (docs/training-defaults.md)."""

    lr: float
    """Adam's peak rate."""
    bias_lr: float = 1.0
    """Factor on it for biases; 10 finds fewer known features."""
    beta2: float = 0.99
    """Adam's decay of the running mean of squares."""

    def beside(self, skip: bool) -> Rates:
        """Beside a skip connection, which explains most at once, a higher peak rate shuts gates for good.

        Args:
            skip: Whether there is one.
        """
        return replace(self, lr=min(self.lr, 5e-3)) if skip else self


class Decoder(NamedTuple):
    """The weights that a code is decoded with: the SAE's own, or the same held fixed."""

    W_dec: torch.Tensor
    b_dec: torch.Tensor


class Loss(NamedTuple):
    """A training loss and its parts: means over the batch."""

    total: torch.Tensor
    sse: torch.Tensor  # ||x - x_hat||^2
    l0: torch.Tensor  # non-zero entries of the code that is decoded in training
    fired_F: torch.Tensor  # True for latents that are non-zero somewhere in the batch
    error: torch.Tensor  # the reconstruction's part of the total
    entries: Entries | None = (
        None  # of the plain code: what `observe_` learns from, and a revival goes on with
    )


@dataclass(frozen=True)
class Trained:
    """The loss that an SAE was trained with, where that is known."""

    penalty: str | None
    """Name of the sparsity penalty; None for none."""
    sparsity: float
    """Its weight at the end, against ||x - x_hat||^2 at mean norm sqrt(d_in)."""
