"""What all families share: encoder and decoder, the loss's frame, units, and the registry.

A family is a file: where its gate is open, what it lets through, its penalty, its settings. Shapes: B batch, D d_in,
F d_sae, N entries of a sparse code.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from rsae.support.errors import InputError, did_you_mean
from rsae.sae.sparse import Pattern, decode_at, encode_at


class Loss(NamedTuple):
    """A training loss and its parts: means over the batch."""

    total: torch.Tensor
    sse: torch.Tensor  # ||x - x_hat||^2
    l0: torch.Tensor  # non-zero entries of the code that is decoded in training
    fired_F: torch.Tensor  # True for latents that are non-zero somewhere in the batch


class SAE(nn.Module):
    """h = (x - b_dec) W_enc + b_enc, z = activate(h), x_hat = z W_dec + b_dec.

    `encode` returns the code that is decoded and that l0 counts. A family gives two pieces: `support`, where its gate
    is open, and `values`, what passes there. With `subtract_b_dec` off, h = x W_enc + b_enc.
    """

    #: name in checkpoints and configs
    family: ClassVar[str]
    #: whether the code uses both signs
    signed = False
    #: sparsity penalties that the family can be trained with; the first is the default, None means none
    penalties: tuple[str | None, ...]

    def __init__(self, d_in: int, d_sae: int, subtract_b_dec: bool = True):
        super().__init__()
        self.d_in, self.d_sae, self.subtract_b_dec = d_in, d_sae, subtract_b_dec
        # a latent's encoder weights lie side by side in memory, as its gradient arrives
        self.W_enc = nn.Parameter(torch.zeros(d_sae, d_in).T)
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

    # --- the code ------------------------------------------------------------------------------------------

    @property
    def encoder_bias(self) -> torch.Tensor:
        """The bias of the pre-activations."""
        return self.b_enc

    def pre_activations(self, x_BD: torch.Tensor) -> torch.Tensor:
        """h_BF; any number of leading dimensions will do."""
        return F.linear(x_BD - self.b_dec if self.subtract_b_dec else x_BD, self.W_enc.T, self.encoder_bias)

    def support(self, h_BF: torch.Tensor) -> Pattern:
        """Where the code or its gradient can be non-zero; no gradient."""
        raise NotImplementedError

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        """The code z_N at supported places with pre-activations h_N, exactly 0 where the gate is shut."""
        raise NotImplementedError

    def magnitude(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        """What an open gate lets through: h itself, but for the rational families."""
        return h_N

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The code z_BF of pre-activations h_BF, exactly zero where the family's gate is shut."""
        rows_BF = h_BF.reshape(-1, self.d_sae)
        pattern = self.support(rows_BF.detach())
        z_N = self.values(pattern.gather(rows_BF), pattern.latent_N)
        return pattern.scatter(z_N).reshape(h_BF.shape)

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code z_BF that is decoded and counted."""
        return self.activate(self.pre_activations(x_BD))

    def decode(self, z_BF: torch.Tensor) -> torch.Tensor:
        """The reconstruction of a code."""
        return F.linear(z_BF, self.W_dec.T, self.b_dec)

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x_BD))

    # --- training ------------------------------------------------------------------------------------------

    def loss(self, x_BD: torch.Tensor, sparsity: float) -> Loss:
        """||x - x_hat||^2 + sparsity * penalty, means over the batch. Not differentiable in x."""
        h_N, pattern = self.entries(x_BD)
        z_N = self.values(h_N, pattern.latent_N)
        return self.loss_of(x_BD, z_N, pattern, self.sparsity_penalty(h_N, z_N, pattern), sparsity)

    def loss_of(
        self,
        x_BD: torch.Tensor,
        z_N: torch.Tensor,
        pattern: Pattern,
        penalty: torch.Tensor | None,
        sparsity: float,
    ) -> Loss:
        """The loss of a code with entries z_N, and its parts."""
        error, sse = self.reconstruction_error(x_BD, z_N, pattern)
        fired_N = pattern.latent_N[z_N.detach() != 0]
        fired_F = torch.zeros(self.d_sae, dtype=torch.bool, device=z_N.device)
        fired_F[fired_N] = True
        return Loss(
            error if penalty is None else error + sparsity * penalty,
            sse.detach(),
            torch.tensor(len(fired_N) / len(x_BD)),
            fired_F,
        )

    def entries(self, x_BD: torch.Tensor) -> tuple[torch.Tensor, Pattern]:
        """Pre-activations h_N of a batch at the supported places, and the places."""
        b_dec = self.b_dec if self.subtract_b_dec else None
        return encode_at(x_BD, self.W_enc, self.encoder_bias, b_dec, self.support)

    def reconstruction_error(
        self, x_BD: torch.Tensor, z_N: torch.Tensor, pattern: Pattern
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss's reconstruction part and ||x - x_hat||^2, which are the same for most families."""
        sse = mean_square(decode_at(z_N, self.W_dec, self.b_dec, pattern) - x_BD)
        return sse, sse

    def sparsity_penalty(self, h_N: torch.Tensor, z_N: torch.Tensor, pattern: Pattern) -> torch.Tensor | None:
        """Mean over the batch of `l1` (sum_i |z_i| ||d_i||), `l0` (open gates) or `tanh`; None for no penalty."""
        if self.penalty is None:
            return None
        if self.penalty == "l0":
            return self.open_gates(h_N, pattern.latent_N).sum() / pattern.shape[0]
        weighted_N = z_N.abs() * self.W_dec.norm(dim=1).index_select(0, pattern.latent_N)
        if self.penalty == "tanh":
            weighted_N = torch.tanh(weighted_N)
        return weighted_N.sum() / pattern.shape[0]

    def open_gates(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        """1 where the gate is open, with a straight-through gradient: only families with penalty `l0`."""
        raise NotImplementedError

    def revival_loss(self, x_BD: torch.Tensor, dead_F: torch.Tensor) -> torch.Tensor:
        """AuxK (Gao et al. 2024, A.2): the top D/2 dead latents predict the detached residual x - x_hat.

        Scaled by min(dead / (D/2), 1), as a mean over the batch of squared errors.
        """
        with torch.no_grad():
            residual_BD = x_BD - self(x_BD)
        dead = dead_F.nonzero().squeeze(1)
        k = min(len(dead), max(1, self.d_in // 2))
        centred_BD = x_BD - self.b_dec.detach() if self.subtract_b_dec else x_BD
        h_BA = F.linear(centred_BD, self.W_enc[:, dead].T, self.encoder_bias[dead])
        if not self.signed:
            h_BA = h_BA.relu()
        top_BK = h_BA.abs().topk(k, dim=1).indices
        z_BA = torch.zeros_like(h_BA).scatter(1, top_BK, h_BA.gather(1, top_BK))
        scale = min(1.0, len(dead) / max(1, self.d_in // 2))
        return scale * mean_square(z_BA @ self.W_dec[dead] - residual_BD)

    def revive_(self, dead_F: torch.Tensor) -> None:
        """After each step, told which latents are dead: a family may put their gates back."""

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

    @property
    def parameter_count(self) -> int:
        """Trainable numbers; for a large SAE make it under `torch.device("meta")`."""
        return sum(p.numel() for p in self.parameters())

    # --- units and settings --------------------------------------------------------------------------------

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        """Change units in place: afterwards f_new(factor x) = factor f_old(x). Decoder norms stay as they are."""
        self.encoder_bias.mul_(factor)
        self.b_dec *= factor

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs beside the weights; JSON-able."""
        return {"d_in": self.d_in, "d_sae": self.d_sae, "subtract_b_dec": self.subtract_b_dec}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> SAE:
        """A family member with weights yet to be loaded."""
        return cls(**settings)


def mean_square(error_BD: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the squared norm."""
    return error_BD.square().sum(1).mean()


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
