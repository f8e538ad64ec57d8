"""What all families share: encoder and decoder, the loss's frame, units, and the registry.

A family is a file: its activation, its penalty, its settings. Shapes: B batch, D d_in, F d_sae.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from rsae.errors import InputError, did_you_mean


class Loss(NamedTuple):
    """A training loss and its parts: means over the batch."""

    total: torch.Tensor
    sse: torch.Tensor  # ||x - x_hat||^2
    l0: torch.Tensor  # non-zero entries of the code that is decoded in training


class SAE(nn.Module):
    """h = (x - b_dec) W_enc + b_enc, z = activate(h), x_hat = z W_dec + b_dec.

    `encode` returns the code that is decoded and that l0 counts.
    """

    #: name in checkpoints and configs
    family: ClassVar[str]
    #: sparsity penalties that the family can be trained with; the first is the default, None means none
    penalties: tuple[str | None, ...]

    def __init__(self, d_in: int, d_sae: int):
        super().__init__()
        self.d_in, self.d_sae = d_in, d_sae
        self.W_enc = nn.Parameter(torch.zeros(d_in, d_sae))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.penalty = self.penalties[0]
        #: where the activations come from (host, hook point, ...); saved with the weights
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def initialise(self, x_BD: torch.Tensor, seed: int = 0) -> None:
        """Random unit decoder rows, the encoder its transpose, b_dec the mean of the sample `x_BD`."""
        generator = torch.Generator().manual_seed(seed)
        self.W_dec.copy_(torch.randn(self.W_dec.shape, generator=generator))
        self.constrain_()
        self.W_enc.copy_(self.W_dec.T)
        self.b_dec.copy_(x_BD.mean(0))

    def pre_activations(self, x_BD: torch.Tensor) -> torch.Tensor:
        """h_BF; any number of leading dimensions will do."""
        return F.linear(x_BD - self.b_dec, self.W_enc.T, self.b_enc)

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The code z_BF of pre-activations h_BF, exactly zero where the family's gate is shut."""
        raise NotImplementedError

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code z_BF that is decoded and counted."""
        return self.activate(self.pre_activations(x_BD))

    def decode(self, z_BF: torch.Tensor) -> torch.Tensor:
        """The reconstruction of a code."""
        return F.linear(z_BF, self.W_dec.T, self.b_dec)

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x_BD))

    def loss(self, x_BD: torch.Tensor, sparsity: float) -> Loss:
        """||x - x_hat||^2 + sparsity * penalty, means over the batch."""
        h_BF = self.pre_activations(x_BD)
        z_BF = self.training_code(h_BF)
        sse = (self.decode(z_BF) - x_BD).square().sum(1).mean()
        penalty = self.sparsity_penalty(h_BF, z_BF)
        total = sse if penalty is None else sse + sparsity * penalty
        return Loss(total, sse.detach(), (z_BF.detach() != 0).sum(1).float().mean())

    def training_code(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The code that the loss sees; a family that trains on another code than it decodes overrides this."""
        return self.activate(h_BF)

    def sparsity_penalty(self, h_BF: torch.Tensor, z_BF: torch.Tensor) -> torch.Tensor | None:
        """Mean over the batch of `l1` (sum_i |z_i| ||d_i||) or `l0` (open gates); None for no penalty."""
        if self.penalty is None:
            return None
        if self.penalty == "l1":
            return (z_BF.abs() @ self.W_dec.norm(dim=1)).mean()
        return self.open_gates(h_BF).sum(1).mean()

    def open_gates(self, h_BF: torch.Tensor) -> torch.Tensor:
        """1 where the gate is open, with a straight-through gradient: only families with penalty `l0`."""
        raise NotImplementedError

    def set_penalty(self, penalty: str | None) -> None:
        """Choose among the family's penalties."""
        if penalty not in self.penalties:
            raise InputError(
                f"penalty {penalty!r} does not fit family {self.family!r}: "
                f"choose from {', '.join(map(str, self.penalties))}"
            )
        self.penalty = penalty

    @torch.no_grad()
    def constrain_(self) -> None:
        """After each step: decoder rows back to unit norm."""
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8)

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        """Change units in place: afterwards f_new(factor x) = factor f_old(x). Decoder norms stay as they are."""
        self.b_enc *= factor
        self.b_dec *= factor

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs beside the weights; JSON-able."""
        return {"d_in": self.d_in, "d_sae": self.d_sae}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> SAE:
        """A family member with weights yet to be loaded."""
        return cls(**settings)


FAMILIES: dict[str, type[SAE]] = {}


Family = TypeVar("Family", bound=SAE)


def register(cls: type[Family]) -> type[Family]:
    """Class decorator: make a family known by its name."""
    FAMILIES[cls.family] = cls
    return cls


def family(name: str) -> type[SAE]:
    """The class of a family, by name."""
    if name not in FAMILIES:
        raise InputError(f"family {name!r} is unknown{did_you_mean(name, FAMILIES)}")
    return FAMILIES[name]
