"""Pursuit: the same weights and the same l0, the active latents solved together.

The plain code gives each latent its value as if the others were not there. Here the values of the open gates S are
those of a few steps of conjugate gradients for min ||x - b - c W_S||^2 (limit: least squares, (W_S W_S')^-1 W_S (x -
b), a matrix rational function of the Gram matrix); then the gate decides once more, on c + eta W r with the residual r,
and keeps as many as before; then the values are solved again. W are unit decoder rows and c the code in their units.

Hard thresholding pursuit (Foucart 2011) from a warm start; the decision is a step of iterative hard thresholding
(Blumensath and Davies 2009). Any family has this form: `pursuit` makes it, and nothing but the encoding changes.
Shapes: B batch, D d_in, F d_sae, N entries of a sparse code, C candidates a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as valid

from rsae.sae import pursuit_cpu, pursuit_cuda
from rsae.sae.base import SAE
from rsae.sae.records import Decoder, Entries
from rsae.sae.registry import DERIVED, FAMILIES
from rsae.sae.sparse import Pattern, decode_at, mean_square, products_at
from rsae.support.errors import InputError, checked

#: Instead of 0 in a quotient: the smallest that float32 holds, since the squares of activations have any unit
_TINY = torch.finfo(torch.float32).tiny
_SOLVED = 16.0  # times the rounding of a residual: the gradients of a code that is solved
#: Decoder rows whose norms all differ from 1 by less are taken as unit rows
_UNIT = 1e-4


@checked
@valid(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class PursuitConfig:
    """How far a pursuit goes."""

    rounds: NonNegativeInt = 1
    """Decisions of the gate after the first; 0 solves on the plain code's support alone."""
    steps: PositiveInt = 2
    """Steps of conjugate gradients for each solve."""
    candidates: NonNegativeInt = 128
    """Latents a token that a decision looks at: those of largest pre-activation, the open ones among them; 0 for
    all."""
    eta: PositiveFloat = 0.7
    """Step of the decision, as a share of the gradient."""


class Code(NamedTuple):
    """A sparse code in units of unit decoder rows, and what it leaves over."""

    c_N: torch.Tensor
    pattern: Pattern
    residual_BD: torch.Tensor


class PursuitSAE(SAE):
    """What makes a family's encoding a pursuit. `pursuit` derives a class from it and the family.

    Trained, it alternates: the decoder fits the pursued code held fixed, the encoder fits the plain code with the
    decoder held fixed. So the plain reading of the same weights stays good; gradients through the pursuit would spoil
    it.
    """

    pursuit: PursuitConfig
    needs_all = True

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The pursued code z_BF; each token has at most as many non-zeros as its plain code.

        Args:
            x_BD: Activations as the host gives them; any number of leading dimensions will do.
        """
        rows_BD = self.standardise(x_BD).reshape(-1, self.d_in).to(self.W_dec.dtype)
        h_BF = self._linear(rows_BD)
        z_N, pattern = self.plain_entries(h_BF)
        z_N, pattern = self._pursued(rows_BD, h_BF, z_N, pattern)
        return pattern.scatter(z_N).reshape(*x_BD.shape[:-1], self.d_sae)

    def plain_encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The plain code of the same weights.

        Args:
            x_BD: Activations as the host gives them.
        """
        return self.activate(self.pre_activations(x_BD))

    def trained_code(self, x_BD: torch.Tensor) -> torch.Tensor:
        # held fixed, as in `reconstruction_error`: the decoder alone learns from it
        with torch.no_grad():
            return self.encode(x_BD)

    def readings(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        return super().readings() | {"plain_": self.plain_encode}

    def reconstruction_error(
        self, y_BO: torch.Tensor, z_N: torch.Tensor, entries: Entries, decoder: Decoder
    ) -> tuple[torch.Tensor, torch.Tensor]:
        frozen = Decoder(decoder.W_dec.detach(), decoder.b_dec.detach())
        plain, _ = super().reconstruction_error(y_BO, z_N, entries, frozen)
        assert entries.h_BF is not None
        with torch.no_grad(), torch.autocast(y_BO.device.type, enabled=False):  # solved in float32
            on_N = z_N != 0
            code = (z_N[on_N], entries.pattern.where(on_N))
            pursued_N, support = self._pursued(y_BO, entries.h_BF, *code)
        sse = mean_square(decode_at(pursued_N, decoder.W_dec, decoder.b_dec, support) - y_BO)
        return plain + sse, sse

    def __reduce__(self) -> tuple[Any, ...]:  # its class has no place in a module, where pickle could find it
        return _blank, (type(self).__bases__[1],), self.__dict__

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"pursuit": asdict(self.pursuit)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> SAE:
        settings = dict(settings)
        config = PursuitConfig(**settings.pop("pursuit"))
        sae = super().from_settings(settings)
        assert isinstance(sae, PursuitSAE)
        sae.pursuit = config
        return sae

    # --- the pursuit ---------------------------------------------------------------------------------------

    def _pursued(
        self, x_BD: torch.Tensor, h_BF: torch.Tensor, z_N: torch.Tensor, pattern: Pattern
    ) -> tuple[torch.Tensor, Pattern]:
        """The entries and places of the pursued code, from those of the plain one; solved in float32 at least."""
        config, dtype = self.pursuit, z_N.dtype
        if not len(z_N):  # no gate is open, or there is no token
            return z_N, pattern
        wide = torch.promote_types(dtype, torch.float32)
        x_BD, h_BF, z_N, unit_FD, b_D = (t.to(wide) for t in (x_BD, h_BF, z_N, self.W_dec, self.b_dec))
        centred_BD = x_BD - b_D
        norm_F = unit_FD.norm(dim=1).clamp_min(_TINY)
        unit = bool(((norm_F - 1).abs() < _UNIT).all())
        if not unit:
            unit_FD = unit_FD / norm_F[:, None]
            z_N = z_N * norm_F.index_select(0, pattern.latent_N)
        fixed = not (torch.is_grad_enabled() and (z_N.requires_grad or x_BD.requires_grad))
        if fixed and self._looks_at_some and pursuit_cpu.available(centred_BD):
            factor_F = None if unit else norm_F
            solver = {**asdict(config), "signed": self.signed}
            c_N, pattern = pursuit_cpu.pursue(centred_BD, unit_FD, h_BF, factor_F, z_N, pattern, **solver)
        else:
            rank_BF = h_BF if unit else h_BF * norm_F
            if fixed and self._looks_at_some and pursuit_cuda.available(centred_BD, config.candidates):
                c_N, pattern = self._by_gpu(centred_BD, rank_BF, unit_FD, z_N, pattern)
            else:
                c_N, pattern = self._by_torch(centred_BD, rank_BF, unit_FD, z_N, pattern)
        c_N = c_N if unit else c_N / norm_F.index_select(0, pattern.latent_N)
        return c_N.to(dtype), pattern

    @property
    def _looks_at_some(self) -> bool:
        """Whether decisions look at some of the latents, not at all of them; whatever tokens are there."""
        return 0 < self.pursuit.candidates < self.d_sae

    def _by_torch(
        self,
        centred_BD: torch.Tensor,
        rank_BF: torch.Tensor,
        unit_FD: torch.Tensor,
        c_N: torch.Tensor,
        pattern: Pattern,
    ) -> tuple[torch.Tensor, Pattern]:
        plain = Code(c_N, pattern, centred_BD - decode_at(c_N, unit_FD, None, pattern))
        code = self._solved(plain, unit_FD)
        if self.pursuit.rounds:
            pool = self._candidates(rank_BF, pattern) if self._looks_at_some else None
            for _ in range(self.pursuit.rounds):
                decided = self._decided(code, plain, pool, unit_FD, centred_BD)
                code = _better(self._solved(decided, unit_FD), code)
        return code.c_N, code.pattern

    @torch.no_grad()
    def _by_gpu(
        self,
        centred_BD: torch.Tensor,
        rank_BF: torch.Tensor,
        unit_FD: torch.Tensor,
        c_N: torch.Tensor,
        pattern: Pattern,
    ) -> tuple[torch.Tensor, Pattern]:
        """By the kernel; tokens with more open gates than it holds by torch."""
        held_B = pattern.counts_B <= pursuit_cuda.MOST
        if bool(held_B.all()):
            solver = {**asdict(self.pursuit), "signed": self.signed}
            pool = self._candidates(rank_BF, pattern)
            return pursuit_cuda.pursue(centred_BD, unit_FD, pool, c_N, pattern, **solver)
        parts = []
        for chosen_B, pursued in ((held_B, self._by_gpu), (~held_B, self._by_torch)):
            on_N, row_B = chosen_B[pattern.row_N], chosen_B.cumsum(0) - 1
            shape = torch.Size((int(chosen_B.sum()), self.d_sae))
            own = Pattern.of_places(row_B[pattern.row_N[on_N]], pattern.latent_N[on_N], shape)
            if shape[0]:
                found_N, own = pursued(centred_BD[chosen_B], rank_BF[chosen_B], unit_FD, c_N[on_N], own)
                parts.append((found_N, chosen_B.nonzero()[:, 0][own.row_N], own.latent_N))
        return _in_rows(parts, pattern.shape)

    def _solved(self, code: Code, unit_FD: torch.Tensor) -> Code:
        """Steps of conjugate gradients on the code's support, from the code itself; never worse than it."""
        c_N, pattern, residual_BD = code
        row_N = pattern.row_N
        g_N = products_at(residual_BD, unit_FD, pattern)
        p_N, square_B = g_N, pattern.sum_by_row(g_N * g_N)
        for step in range(self.pursuit.steps):
            y_BD = decode_at(p_N, unit_FD, None, pattern)
            # of a token that is solved what is left is rounding, and so would be its gradient, over a number near 0
            left_B = square_B > (_SOLVED * torch.finfo(c_N.dtype).eps) ** 2 * residual_BD.square().sum(1)
            alpha_B = torch.where(
                left_B, square_B / torch.where(left_B, y_BD.square().sum(1), 1.0).clamp_min(_TINY), 0
            )
            c_N = c_N + alpha_B.index_select(0, row_N) * p_N
            residual_BD = residual_BD - alpha_B[:, None] * y_BD
            if step + 1 < self.pursuit.steps:
                g_N = products_at(residual_BD, unit_FD, pattern)
                last_B, square_B = square_B, pattern.sum_by_row(g_N * g_N)
                beta_B = torch.where(left_B, square_B / torch.where(left_B, last_B, 1.0).clamp_min(_TINY), 0)
                p_N = g_N + beta_B.index_select(0, row_N) * p_N
        if self.signed or not bool((c_N < 0).any()):
            return _better(Code(c_N, pattern, residual_BD), code)
        cut_N = c_N.clamp_max(0)
        residual_BD = residual_BD + decode_at(cut_N, unit_FD, None, pattern)
        return _better(Code(c_N - cut_N, pattern, residual_BD), code)

    @torch.no_grad()
    def _candidates(self, rank_BF: torch.Tensor, plain: Pattern) -> Pattern:
        """The latents that a decision looks at, [B, C]; by falling rank where more than these are open in a token."""
        wanted, most = self.pursuit.candidates, int(plain.counts_B.max())
        rank_BF = rank_BF.abs() if self.signed else rank_BF.clone()
        rank_BF.view(-1)[plain.flat_N] = torch.inf  # the open ones need not rank first
        latent_BC = rank_BF.topk(max(wanted, most), dim=1, sorted=most > wanted).indices
        return Pattern.of_columns(latent_BC, self.d_sae)

    @staticmethod
    def _at(pool: Pattern, code: Code) -> torch.Tensor:
        """The code's entries at the pool's places, which hold all of the code's: by a search among sorted places."""
        with torch.no_grad():
            place_N, order_N = pool.flat_N.reshape(pool.shape[0], -1).sort(1)
            found_N = torch.searchsorted(place_N.flatten(), code.pattern.flat_N)
            at_N = (
                order_N + torch.arange(0, len(pool.flat_N), order_N.shape[1])[:, None].to(order_N)
            ).flatten()
        return code.c_N.new_zeros(len(pool.flat_N)).index_put((at_N[found_N],), code.c_N)

    def _decided(
        self, code: Code, plain: Code, pool: Pattern | None, unit_FD: torch.Tensor, centred_BD: torch.Tensor
    ) -> Code:
        """The gate's decision on c + eta W r: each token keeps as many latents as its plain code has."""
        eta, count_B = self.pursuit.eta, plain.pattern.counts_B
        if pool is None:
            score_BC = code.pattern.scatter(code.c_N) + eta * (code.residual_BD @ unit_FD.T)
        else:
            at_N = self._at(pool, code)
            score_BC = (at_N + eta * products_at(code.residual_BD, unit_FD, pool)).reshape(
                len(centred_BD), -1
            )
        most = int(count_B.max())
        size_BC = score_BC.abs() if self.signed else score_BC
        if (
            pool is not None and most > self.pursuit.candidates
        ):  # a token's pool is its own, whatever the others need
            own_B1 = count_B.clamp_min(self.pursuit.candidates)[:, None]
            beyond_BC = torch.arange(size_BC.shape[1], device=centred_BD.device) >= own_B1
            size_BC = size_BC.masked_fill(beyond_BC, -torch.inf)
        top_BK = size_BC.topk(most, dim=1).indices
        keep_BK = torch.arange(most, device=centred_BD.device) < count_B[:, None]
        value_BK = score_BC.gather(1, top_BK)
        if not self.signed:
            keep_BK = keep_BK & (value_BK > 0)
        latent_BK = top_BK if pool is None else pool.latent_N.reshape(len(centred_BD), -1).gather(1, top_BK)
        support = Pattern.of_columns(latent_BK, self.d_sae).where(keep_BK.flatten())
        c_N = value_BK.flatten()[keep_BK.flatten()]
        residual_BD = centred_BD - decode_at(c_N, unit_FD, None, support)
        return Code(c_N, support, residual_BD)


def _better(new: Code, old: Code) -> Code:
    """Of each token the code that leaves less over."""
    with torch.no_grad():
        # nor is what is no number better
        worse_B = ~(new.residual_BD.square().sum(1) <= old.residual_BD.square().sum(1))
        if not bool(worse_B.any()):
            return new
        from_new_N = ~worse_B[new.pattern.row_N]
        from_old_N = worse_B[old.pattern.row_N]
    parts = []
    for code, keep_N in ((new, from_new_N), (old, from_old_N)):
        kept = code.pattern.where(keep_N)
        parts.append((code.c_N[keep_N], kept.row_N, kept.latent_N))
    c_N, pattern = _in_rows(parts, new.pattern.shape)
    return Code(c_N, pattern, torch.where(worse_B[:, None], old.residual_BD, new.residual_BD))


def _in_rows(
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], shape: torch.Size
) -> tuple[torch.Tensor, Pattern]:
    """One code of the parts' entries (values, rows, latents), in row order."""
    c_N, row_N, latent_N = (torch.cat(of) for of in zip(*parts, strict=True))
    order_N = torch.sort(row_N, stable=True).indices
    return c_N[order_N], Pattern.of_places(row_N[order_N], latent_N[order_N], shape)


#: Families that are pursuits, by the plain family
_FORMS: dict[type[SAE], type[SAE]] = {}


def pursuit_form(cls: type[SAE]) -> type[SAE]:
    """The class of a family's pursuit; its name in checkpoints is `pursuit_` and the family's.

    Args:
        cls: A plain family.
    """
    if cls not in _FORMS:
        name = f"pursuit_{cls.family}"
        body = {
            "family": name,
            "saelens": None,
            "saelens_training": None,
            "one_threshold": False,
            "shardable": False,
            "takes_all": False,
        }
        body["__doc__"] = f"The pursuit of {cls.__name__}."
        _FORMS[cls] = type(f"Pursuit{cls.__name__}", (PursuitSAE, cls), body)
    return _FORMS[cls]


def _blank(cls: type[SAE]) -> SAE:
    form = pursuit_form(cls)
    return form.__new__(form)


def pursuit(
    sae: SAE, rounds: int = 1, steps: int = 2, candidates: int | None = 128, eta: float = 0.7
) -> PursuitSAE:
    """The same weights with the active latents solved together, at the same l0: no training, no new parameter.

    Each token keeps at most as many active latents as its plain code has (TopK: k), and the error is never larger than
    that of the plain code. What it costs is meaning: a latent's value depends on the others (see docs/pursuit.md).

    Args:
        sae: Any SAE, decoder rows of any norm; it is left as it is. Of a pursuit, the plain SAE is taken.
        rounds: Decisions of the gate after the first; 0 solves on the plain code's support.
        steps: Steps of conjugate gradients for each solve.
        candidates: Latents a token that a decision looks at, those of largest pre-activation; None or 0 for all.
        eta: Step of the decision, as a share of the gradient.

    Returns:
        An SAE whose `encode` is the pursuit. `plain(sae)` is the way back.

    Raises:
        InputError: It is no SAE, or one of a transcoder, which does not see what it predicts.

    Source: Foucart 2011 (hard thresholding pursuit); Blumensath and Davies 2009 (iterative hard thresholding).
    """
    if not isinstance(sae, SAE):
        raise InputError(f"a {type(sae).__name__} is no SAE: give a loaded one, rsae.load(path)")
    sae = plain(sae)
    if sae.transcodes:
        raise InputError("a transcoder does not see what it predicts: there is nothing to pursue")
    config = PursuitConfig(rounds=rounds, steps=steps, candidates=candidates or 0, eta=eta)
    made = pursuit_form(type(sae)).from_settings(sae.settings() | {"pursuit": asdict(config)})
    made = made.to(sae.W_enc)
    made.load_state_dict(sae.state_dict())
    made.input_norm, made.provenance, made.trained = sae.input_norm, sae.provenance, sae.trained
    made.train(sae.training)
    assert isinstance(made, PursuitSAE)
    return made


def plain(sae: SAE) -> SAE:
    """The plain SAE of a pursuit's weights; any other SAE is given back as it is.

    Args:
        sae: The SAE.
    """
    if not isinstance(sae, PursuitSAE):
        return sae
    cls = next(base for base, form in _FORMS.items() if form is type(sae))
    settings = {k: v for k, v in sae.settings().items() if k != "pursuit"}
    made = cls.from_settings(settings).to(sae.W_enc)
    made.load_state_dict(sae.state_dict())
    made.input_norm, made.provenance, made.trained = sae.input_norm, sae.provenance, sae.trained
    return made.train(sae.training)


def _by_name(name: str) -> type[SAE] | None:
    bases = {f"pursuit_{known}": cls for known, cls in FAMILIES.items()}
    return pursuit_form(bases[name]) if name in bases else None


DERIVED.append(_by_name)
