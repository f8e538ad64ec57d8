"""What all families share: encoder and decoder, the loss's frame, units, norms, and transcoding.

A family is a file: where its gate is open, what it lets through, what sets its l0 (`k` or a penalty), the `approx`
target that its gate is, its settings, its rational form, its name in SAELens. Nothing else of the project tests for it.
An SAE with a `target` is a transcoder: it predicts another activation than it reads. Everything else is the same.
Shapes: B batch, D d_in, O d_out (D but for a transcoder), F d_sae, N entries of a sparse code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import nn

from rsae.provenance import Provenance
from rsae.sae import sparse
from rsae.sae.input_norm import InputNorm
from rsae.sae.layout import Layout
from rsae.sae.norms import balance_
from rsae.sae.records import Decoder, Entries, Loss, Rates, Target, Trained
from rsae.sae.shard import WHOLE, Whole
from rsae.sae.sparse import Pattern, at, decode_at, encode_at, l1_norm, mean_square, reconstruction_square
from rsae.sae.transcoding import begin_
from rsae.support.errors import InputError

if TYPE_CHECKING:
    import approx

#: Candidates for a rational gate's C_in: these multiples of a latent's 99.9 % quantile of |h|
SPREADS = (0.25, 0.5, 1.0, 2.0, 4.0)


class SAE(nn.Module):
    """h = (x - b_dec) W_enc + b_enc, z = activate(h), x_hat = z W_dec + b_dec.

    `encode` returns the code that is decoded and that l0 counts. A family gives two pieces: `support`, where its gate
    is open, and `values`, what passes there. With `subtract_b_dec` off, h = x W_enc + b_enc. With `input_norm`, each
    token is first normalised by its own statistics, which `decode` takes from the input and undoes.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents.
        subtract_b_dec: Whether the encoder sees x - b_dec.
    """

    #: name in checkpoints and configs
    family: ClassVar[str]
    #: SAELens's name of the architecture that is the same function; None where SAELens has none
    saelens: ClassVar[str | None] = None
    #: SAELens's name in its training checkpoints, where it differs
    saelens_training: ClassVar[str | None] = None
    #: what sets the family's l0: its setting `k`, or the weight of a penalty
    sparsity_by: ClassVar[Literal["k", "penalty"]] = "penalty"
    #: sparsity penalties that the family can be trained with; the first is its own, None means none
    penalties: ClassVar[tuple[str | None, ...]]
    #: learning rates of a training that gives none
    rates: ClassVar[Rates] = Rates(1e-2)
    #: the magnitude behind the family's gate is a rational function
    rational: ClassVar[bool] = False
    #: whether the gate compares latents with each other, so that only a common factor leaves its choice alone
    compares_latents: ClassVar[bool] = False
    #: the gate has one threshold for all latents, which formats hold once a latent
    one_threshold: ClassVar[bool] = False
    #: whether the code uses both signs
    signed: bool = False
    #: whether the penalised code is never negative, and a shut gate drops every gradient
    ramp: ClassVar[bool] = False
    #: whether its latents may lie in several processes (`rsae.sae.shard`)
    shardable: ClassVar[bool] = False
    #: whether the loss reads all pre-activations, not only those at the places of the code
    needs_all: ClassVar[bool] = False
    #: whether `values` takes all places at once, which is faster for a dense code
    takes_all: bool = False

    def __init__(self, d_in: int, d_sae: int, subtract_b_dec: bool = True):
        super().__init__()
        self.d_in, self.d_sae, self.subtract_b_dec = d_in, d_sae, subtract_b_dec
        # a latent's encoder weights lie side by side in memory, as its gradient arrives
        self.W_enc = nn.Parameter(torch.zeros(d_sae, d_in).T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        #: the linear way past the code of a skip transcoder, [O, D]; None for others
        self.W_skip: nn.Parameter | None
        self.register_parameter("W_skip", None)
        #: what a transcoder predicts; None for an autoencoder
        self.target: Target | None = None
        #: the hook points of a crosscoder or cross-layer transcoder; None for one
        self.layout: Layout | None = None
        #: how each token is normalised first; None for not at all
        self.input_norm: InputNorm | None = None
        #: where the activations come from; saved with the weights
        self.provenance = Provenance()
        #: the loss that it was trained with; None where nobody says
        self.trained: Trained | None = None
        self.shard: Whole = WHOLE  #: which latents of the dictionary these are

    @torch.no_grad()
    def initialise(self, x_BD: torch.Tensor, seed: int = 0, y_BO: torch.Tensor | None = None) -> None:
        """Random unit decoder rows, the encoder its transpose, b_dec the mean of a sample; transcoders: `begin_`.

        Args:
            x_BD: A sample of the activations.
            seed: Of the random directions.
            y_BO: What a transcoder is to predict of them.
        """
        generator = torch.Generator().manual_seed(seed)
        x_BD = self.standardise(x_BD)
        if self.target is not None:
            begin_(self, x_BD, self._predicted(x_BD, y_BO), self._code, generator)
            return
        self.shard.random_rows_(self.W_dec, generator)
        self.constrain_()
        self.W_enc.copy_(self.W_dec.T)
        self.b_dec.copy_(x_BD.mean(0))

    def _code(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The plain code z_BF of standardised activations, as training chooses it."""
        z_N, pattern = self.plain_entries(self._linear(x_BD))
        return pattern.scatter(z_N)

    # --- transcoding ---------------------------------------------------------------------------------------

    @property
    def transcodes(self) -> bool:
        """Whether it predicts another activation than it reads."""
        return self.target is not None

    @property
    def d_out(self) -> int:
        """Width of what it predicts."""
        return self.W_dec.shape[1]

    def predict_(self, target: Target) -> None:
        """Make a transcoder of an SAE that has no weights yet.

        Args:
            target: What it is to predict.
        """
        self.target, self.subtract_b_dec = target, False  # b_dec is of the target's space
        self.W_dec = nn.Parameter(self.W_dec.new_zeros(self.d_sae, target.d_out))
        self.b_dec = nn.Parameter(self.b_dec.new_zeros(target.d_out))
        if target.skip:
            self.W_skip = nn.Parameter(self.W_dec.new_zeros(target.d_out, self.d_in))

    def _predicted(self, x_BD: torch.Tensor, y_BO: torch.Tensor | None) -> torch.Tensor:
        """What is to be predicted of a batch (standardised): x itself, or a transcoder's target."""
        if self.target is None:
            return x_BD
        if y_BO is None:
            raise InputError("a transcoder predicts another activation than it reads: give that, too (y_BO)")
        return y_BO

    # --- the code ------------------------------------------------------------------------------------------

    def readings(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        """The codes that can be read of the same weights, by the prefix of their figures; "" is `encode`."""
        return {"": self.encode}

    @property
    def encoder_bias(self) -> torch.Tensor:
        """The bias of the pre-activations, [F]."""
        return self.b_enc

    def standardise(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The input after the SAE's own normalisation of each token: what encoder and loss see.

        Args:
            x_BD: Activations as the host gives them.
        """
        return x_BD if self.input_norm is None else self.input_norm.apply(x_BD)

    def pre_activations(self, x_BD: torch.Tensor) -> torch.Tensor:
        """h_BF.

        Args:
            x_BD: Activations as the host gives them; any number of leading dimensions will do.
        """
        return self._linear(self.standardise(x_BD))

    def _linear(self, x_BD: torch.Tensor) -> torch.Tensor:
        x_BD = x_BD.to(self.W_enc.dtype)  # hosts run in float16 and bfloat16, too
        return F.linear(x_BD - self.b_dec if self.subtract_b_dec else x_BD, self.W_enc.T, self.encoder_bias)

    def support(self, h_BF: torch.Tensor) -> Pattern:
        """Where the code or its gradient can be non-zero; no gradient, and nothing changes.

        Args:
            h_BF: Pre-activations of a batch.
        """
        raise NotImplementedError

    def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        """The code z_N at supported places, exactly 0 where the gate is shut.

        Args:
            h_N: Pre-activations at the places.
            latent_N: The latent of each place; None where h_N is [B, F] (for families with `takes_all`).
        """
        raise NotImplementedError

    def magnitude(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        """What an open gate lets through: h itself, but for the rational families.

        Args:
            h_N: Pre-activations at open gates.
            latent_N: The latent of each.
        """
        return h_N

    def activate(self, h_BF: torch.Tensor) -> torch.Tensor:
        """The code z_BF, exactly zero where the family's gate is shut.

        Args:
            h_BF: Pre-activations; any number of leading dimensions will do.
        """
        rows_BF = h_BF.reshape(-1, self.d_sae)
        pattern = self.support(rows_BF.detach())
        z_N = self.values(pattern.gather(rows_BF), pattern.latent_N)
        return pattern.scatter(z_N).reshape(h_BF.shape)

    def plain_entries(self, h_BF: torch.Tensor) -> tuple[torch.Tensor, Pattern]:
        """The non-zero entries z_N of the code of a batch, and their places.

        Args:
            h_BF: Pre-activations, [B, F].
        """
        pattern = self.support(h_BF.detach())
        z_N = self.values(pattern.gather(h_BF), pattern.latent_N)
        on_N = z_N.detach() != 0
        return (z_N, pattern) if bool(on_N.all()) else (z_N[on_N], pattern.where(on_N))

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code z_BF that is decoded and counted.

        Args:
            x_BD: Activations as the host gives them; any number of leading dimensions will do.
        """
        return self.activate(self.pre_activations(x_BD))

    def trained_code(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code of activations whose gradients a loss of the whole reconstruction trains."""
        return self.encode(x_BD)

    def decode(self, z_BF: torch.Tensor, x_BD: torch.Tensor | None = None) -> torch.Tensor:
        """The reconstruction of a code.

        Args:
            z_BF: The code.
            x_BD: The input that was encoded. An SAE with an `input_norm` needs it, to undo each token's statistics, and
                a skip transcoder.

        Raises:
            InputError: The input is needed and not given.
        """
        x_hat_BO = sparse.decode_all(z_BF, self.W_dec, self.b_dec)
        undoes = self.input_norm is not None and self.target is None
        if not undoes and self.W_skip is None:
            return x_hat_BO
        if x_BD is None:
            why = f"normalises each token ({n.kind})" if (n := self.input_norm) else "has a skip connection"
            raise InputError(
                f"this SAE {why}: its decoder needs the input; write sae.decode(z, x), or sae(x) for both"
            )
        if self.W_skip is not None:
            return x_hat_BO + F.linear(self.standardise(x_BD).to(self.W_skip.dtype), self.W_skip)
        assert self.input_norm is not None
        return self.input_norm.undo(x_hat_BO, x_BD)

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x_BD), x_BD)

    # --- training ------------------------------------------------------------------------------------------

    def loss(
        self,
        x_BD: torch.Tensor,
        sparsity: float = 0.0,
        penalty: str | None = "own",
        y_BO: torch.Tensor | None = None,
    ) -> Loss:
        """||x - x_hat||^2 + sparsity * penalty, means over the batch. Not differentiable in x; changes nothing.

        Args:
            x_BD: A batch. With an `input_norm` the error is that of the normalised tokens.
            sparsity: Weight of the penalty.
            penalty: One of the family's `penalties`, or "own" for its first.
            y_BO: What a transcoder is to predict of it; then the error is ||y - y_hat||^2.
        """
        x_BD = self.standardise(x_BD)
        entries = self.entries(x_BD)
        z_N = self.values(entries.h_N, entries.pattern.latent_N)
        term = self.sparsity_penalty(self.penalty_named(penalty), entries.h_N, z_N, entries.pattern)
        return self.loss_of(self.left_to_code(x_BD, y_BO), z_N, entries, term, sparsity)

    def left_to_code(self, x_BD: torch.Tensor, y_BO: torch.Tensor | None) -> torch.Tensor:
        """What code and b_dec have to give of a standardised batch (y_BO: a transcoder's target): all, or what a skip
        connection leaves."""
        y_BO = self._predicted(x_BD, y_BO)
        return y_BO if self.W_skip is None else y_BO - F.linear(x_BD, self.W_skip)

    def loss_of(
        self,
        y_BO: torch.Tensor,
        z_N: torch.Tensor,
        entries: Entries,
        penalty: torch.Tensor | None,
        sparsity: float,
    ) -> Loss:
        """The loss of a code, and its parts.

        Args:
            y_BO: What the code has to give; see `left_to_code`.
            z_N: The code's entries.
            entries: The pre-activations and places of these entries.
            penalty: The penalty's value; None for none.
            sparsity: Its weight.
        """
        decoder = Decoder(self.W_dec, self.b_dec)
        error, sse = self.reconstruction_error(y_BO, z_N, entries, decoder)
        on, fired_F = entries.pattern.firings(z_N.detach())
        return Loss(
            error if penalty is None else error + sparsity * self.shard.sum(penalty),
            sse.detach(),
            self.shard.sum(torch.tensor(on / len(y_BO), device=z_N.device)),
            fired_F,
            error,
            Entries(entries.h_N.detach(), entries.pattern),
        )

    def entries(self, x_BD: torch.Tensor) -> Entries:
        """Pre-activations of a batch at the supported places, and the places.

        Args:
            x_BD: The batch, standardised.
        """
        b_dec = self.shard.spread(self.b_dec) if self.subtract_b_dec else None
        return Entries(*encode_at(x_BD, self.W_enc, self.encoder_bias, b_dec, self.support, self.takes_all))

    def reconstruction_error(
        self, y_BO: torch.Tensor, z_N: torch.Tensor, entries: Entries, decoder: Decoder
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss's reconstruction part and ||x - x_hat||^2, which are the same for most families.

        Args:
            y_BO: What the code has to give.
            z_N: The code's entries.
            entries: Their pre-activations and places.
            decoder: What they are decoded with.
        """
        if self.shard.parts == 1:
            sse = reconstruction_square(z_N, decoder.W_dec, decoder.b_dec, y_BO, entries.pattern)
        else:
            sse = mean_square(self.decoded(z_N, entries.pattern, decoder) - y_BO)
        return sse, sse

    def decoded(self, z_N: torch.Tensor, pattern: Pattern, decoder: Decoder) -> torch.Tensor:
        """What a code's entries, here and in other processes, give through a decoder.

        Args:
            z_N: The entries here.
            pattern: Their places.
            decoder: The decoder.
        """
        return self.shard.sum(decode_at(z_N, decoder.W_dec, None, pattern)) + decoder.b_dec

    def sparsity_penalty(
        self, penalty: str | None, h_N: torch.Tensor, z_N: torch.Tensor, pattern: Pattern
    ) -> torch.Tensor | None:
        """Mean over the batch of `l1` (sum_i |z_i| ||d_i||), `l0` (open gates) or `tanh`; None for no penalty.

        Args:
            penalty: Its name; a family with another penalty overrides this method.
            h_N: Pre-activations at the supported places.
            z_N: The code there.
            pattern: The places.
        """
        if penalty is None:
            return None
        if penalty == "l0":
            return self.open_gates(h_N, pattern.latent_N).sum() / pattern.shape[0]
        norm_F = self.W_dec.norm(dim=1) if self.layout is None else self.layout.norms(self.W_dec).sum(1)
        if penalty == "l1" and pattern.latent_N is None:
            return l1_norm(z_N, norm_F, not self.ramp) / pattern.shape[0]
        weighted_N = z_N.abs() * at(norm_F, pattern.latent_N)
        return (weighted_N.tanh() if penalty == "tanh" else weighted_N).sum() / pattern.shape[0]

    def open_gates(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
        """1 where the gate is open, with a straight-through gradient: only families with penalty `l0`.

        Args:
            h_N: Pre-activations.
            latent_N: The latent of each.
        """
        raise NotImplementedError

    def first_sparsity(self, penalty: str) -> float:
        """A weight of a penalty to start a search for a wanted l0 from.

        At mean norm sqrt(D) the right weight usually lies above these values. The search starts low: too high a weight
        kills latents.

        Args:
            penalty: One of the family's `penalties`.
        """
        return self.d_in / 3000 if penalty == "l0" else math.sqrt(self.d_in) / 60

    def penalty_named(self, penalty: str | None) -> str | None:
        """The penalty that a config means.

        Args:
            penalty: One of `penalties`; "own" for the first; None or "none" for none.

        Raises:
            InputError: The family cannot be trained with it.
        """
        if penalty == "own":
            return self.penalties[0]
        named = None if penalty == "none" else penalty
        if named not in self.penalties:
            raise InputError(
                f"penalty {penalty!r} does not fit family {self.family!r}: "
                f"choose from {', '.join(map(str, self.penalties))}"
            )
        return named

    def observe_(self, entries: Entries) -> None:
        """Once a training step: a family may learn from the batch what its inference needs, such as a threshold.

        Args:
            entries: The batch's pre-activations at the supported places.
        """

    def revive_(self, dead_F: torch.Tensor) -> None:
        """After a training step with dead latents: a family may put their gates back.

        Args:
            dead_F: Which latents are dead.
        """

    @torch.no_grad()
    def constrain_(self, norm_F: torch.Tensor | float = 1.0) -> None:
        """After each step: decoder rows back to the norms that training began with.

        Args:
            norm_F: The norms; 1 for SAEs that begin here.
        """
        if self.layout is not None:
            self.layout.mask_(self.W_enc, self.W_dec, self.W_skip)
        # exactly 0 for a pruned latent: a pursuit would solve for a tiny row
        self.W_dec *= (norm_F / self.W_dec.norm(dim=1).clamp_min(1e-30))[:, None]

    def balance_(self, fires: Callable[[], torch.Tensor] | None = None) -> torch.Tensor:
        """See `rsae.sae.norms.balance_`: before training decoder rows are brought near unit norm."""
        return balance_(self, fires)

    @property
    def homogeneous(self) -> bool:
        """Whether any latent can be scaled by itself (`scale_latents_`) without changing the function."""
        return not self.compares_latents

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        """Multiply each latent's code and divide its decoder row by a factor: the same function.

        Exact for any factors where the SAE is `homogeneous`, else for a factor that is common to all latents.

        Args:
            factor_F: Positive factors.
        """
        self.W_enc *= factor_F
        self.encoder_bias.mul_(factor_F)
        self.W_dec /= factor_F[:, None]

    @property
    def parameter_count(self) -> int:
        """Trainable numbers; for a large SAE make it under `torch.device("meta")`."""
        return sum(p.numel() for p in self.parameters())

    # --- what an upgrade asks ------------------------------------------------------------------------------

    @classmethod
    def gate_target(cls) -> approx.Target | None:
        """The family's gate on the design interval [-1, 1], where one rational function can stand for it; else None."""
        return None

    #: the gate target is odd, and the code has two signs
    gate_is_odd: ClassVar[bool] = False
    #: the gate's argument is h minus a threshold that the token supplies, and the rational is the gate alone
    supplied_threshold: ClassVar[bool] = False

    def check_soft_form(self) -> None:
        """Raise `InputError` where no rational function can stand for this SAE's gate."""
        if self.gate_target() is None:
            raise InputError(
                f"a teacher of family {self.family!r} has no gate that one rational function can stand for; choose "
                "another teacher, or variant 'gated'"
            )

    def scale_candidates(self, spread_F: torch.Tensor) -> list[torch.Tensor]:
        """Candidates for the C_in of a rational gate, each [F].

        Args:
            spread_F: A robust scale of each latent's pre-activations.
        """
        return [spread_F * factor for factor in SPREADS]

    def behind_dead_zone(self, bandwidth: float) -> SAE | None:
        """The same function with a trainable dead zone (a threshold that starts at 0); None where it has a gate.

        Args:
            bandwidth: Width of the threshold's straight-through kernel, in the units of h.
        """
        return None

    def take_over_(self, other: SAE) -> None:
        """Copy all parameters and buffers that both have, and what is known of the other.

        Args:
            other: An SAE of the same width.
        """
        self.load_state_dict(other.state_dict(), strict=False)
        self.input_norm = other.input_norm
        self.provenance, self.trained = other.provenance, other.trained

    def become_(self, other: Self) -> None:
        """Take over another member's weights and numbers: both are of one family and width.

        Args:
            other: The SAE, such as a trained copy.
        """
        self.load_state_dict(other.state_dict())
        # settings that have a unit, such as a bandwidth, are plain numbers
        self.__dict__.update({k: v for k, v in other.__dict__.items() if isinstance(v, float)})

    # --- units and settings --------------------------------------------------------------------------------

    @torch.no_grad()
    def rescale_(self, factor: float, out: float | None = None) -> None:
        """Change units in place: afterwards f_new(factor x) = out f_old(x). An SAE's decoder stays as it is.

        An SAE that normalises each token has no unit but that of the normalisation's epsilon.

        Args:
            factor: New units an old one.
            out: The same for what a transcoder predicts; an autoencoder's is `factor`.
        """
        if self.input_norm is None:
            self._rescale_(factor)
        else:
            self.input_norm = self.input_norm.rescaled(factor)
        if self.target is not None and out is not None:
            inner = 1.0 if self.input_norm else factor
            self.b_dec *= out / inner
            self.W_dec *= out / inner
            if self.W_skip is not None:
                self.W_skip.mul_(out / inner)

    def _rescale_(self, factor: float) -> None:
        """What a family with more numbers in the activations' unit extends."""
        self.encoder_bias.mul_(factor)
        self.b_dec *= factor

    def in_units(self, factor: float, out: float | None = None) -> Self:
        """A copy in other units, in float32 whatever precision this one is held in; see `rescale_`.

        Args:
            factor: New units an old one.
            out: The same for what a transcoder predicts.
        """
        sae = copy.deepcopy(self).float()
        sae.rescale_(factor, out)
        return sae

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs beside the weights; JSON-able."""
        records = {name: asdict(r) for name in ("target", "layout") if (r := getattr(self, name)) is not None}
        d_sae = self.shard.latents(self.d_sae)
        return {"d_in": self.d_in, "d_sae": d_sae, "subtract_b_dec": self.subtract_b_dec} | records

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> SAE:
        """A family member with weights yet to be loaded.

        Args:
            settings: As `settings` gives them.
        """
        settings = dict(settings)
        target, layout = settings.pop("target", None), settings.pop("layout", None)
        sae = cls(**settings)
        if target is not None:
            sae.predict_(Target(**target))
        sae.layout = None if layout is None else Layout.of(layout)
        return sae
