"""The trainable rational activation phi(h) = C_out r(h / C_in)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from approx import Fit, Rational
from rsae.rational import kernels
from rsae.rational.kernels import reference
from rsae.rational.parametrisation import PARAMETRISATIONS, Identity, Parametrisation, Polynomial
from rsae.support.errors import InputError, did_you_mean

Scale = float | torch.Tensor


class RationalActivation(nn.Module):
    """phi(h) = C_out r(h / C_in), elementwise on h_BF; scales shared by all latents or one a latent.

    `C_in` and `C_out` map the pre-activations into r's design interval and back (RSAE, eq. 2); they are trained
    through their logarithms, so that they stay positive. For the forms that start as the identity, C_out is C_in.
    """

    def __init__(
        self,
        form: Parametrisation,
        c_in: Scale,
        c_out: Scale | None = None,
        start: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.form = form
        self.log_c_in = nn.Parameter(_log(c_in))
        self.log_c_out = None if form.identity else nn.Parameter(_log(c_in if c_out is None else c_out))
        #: what is known of the start: the fit's type, method, error and certified bounds
        self.start = start or {}

    @classmethod
    def from_fit(
        cls,
        fit: Fit | Rational,
        c_in: Scale = 1.0,
        c_out: Scale | None = None,
        form: str = "partial",
        groups: int = 1,
        certificate: Any = None,
    ) -> RationalActivation:
        """Start from an `approx` fit, in one of the forms `standard`, `safe`, `safe-b`, `partial`.

        `groups` is 1 (coefficients shared by all latents) or the number of latents. Raises `InputError` where
        the form cannot hold the rational.
        """
        known = {name for name, cls_ in PARAMETRISATIONS.items() if not cls_.identity}
        if form not in known:
            raise InputError(f"form {form!r} is no form of a fit{did_you_mean(form, known)}")
        rational = fit if isinstance(fit, Rational) else fit.rational
        start: dict[str, Any] = {"type": list(rational.type)}
        if not isinstance(fit, Rational):
            start |= {"method": fit.method, "error": float(fit.error)}
        if certificate is not None:
            start |= {
                "certified_lower": float(certificate.lower),
                "certified_upper": float(certificate.upper),
            }
        return cls(PARAMETRISATIONS[form].from_rational(rational, groups), c_in, c_out, start)

    @classmethod
    def identity(cls, pairs: int, c_in: Scale, groups: int = 1) -> RationalActivation:
        """h + C p(h/C)/q(h/C) with deg p < deg q = 2 `pairs` and p = 0: starts as exactly the identity."""
        start = {"type": [2 * pairs + 1, 2 * pairs], "method": "identity", "error": 0.0}
        return cls(Identity.at_identity(pairs, groups), c_in, start=start)

    @classmethod
    def polynomial(cls, degree: int, c_in: Scale, groups: int = 1) -> RationalActivation:
        """C a(h/C) with a polynomial a: starts as exactly the identity. A second control of rational magnitudes."""
        start = {"type": [degree, 0], "method": "identity", "error": 0.0}
        return cls(Polynomial.at_identity(degree, groups), c_in, start=start)

    @property
    def c_in(self) -> torch.Tensor:
        return self.log_c_in.exp()

    @property
    def c_out(self) -> torch.Tensor:
        return (self.log_c_in if self.log_c_out is None else self.log_c_out).exp()

    def forward(self, h_BF: torch.Tensor) -> torch.Tensor:
        """phi(h_BF), the same shape."""
        parameters_PF = torch.cat([r.expand(-1, self._columns) for r in self._rows()])
        return kernels.evaluate(h_BF, parameters_PF, self.form.shape)

    def at(self, h_N: torch.Tensor, latent_N: torch.Tensor) -> torch.Tensor:
        """phi of single pre-activations h_N, each of the latent that `latent_N` names: the sparse way."""
        packed_PN, in_N, out_N = (
            rows if rows.shape[1] == 1 else rows.index_select(1, latent_N) for rows in self._rows()
        )
        return out_N[0] * reference.rational(h_N * in_N[0], packed_PN, self.form.shape)

    def _rows(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The kernels' parameters: r's own [P, G], 1 / c_in and c_out [1, G or F]."""
        return self.form.pack(), 1 / self.c_in[None], self.c_out[None]

    @property
    def _columns(self) -> int:
        return max(rows.shape[1] for rows in self._rows())

    @property
    def scales(self) -> int:
        """How many scales C_in there are: 1, or one a latent."""
        return len(self.log_c_in)

    @torch.no_grad()
    def scale_latents_(self, factor_F: torch.Tensor, output: bool = True) -> None:
        """In place: phi_new(factor h) = factor phi_old(h), latent by latent (the first factor for a shared scale).

        Args:
            factor_F: Positive factors.
            output: Whether the value is scaled too, or the argument alone.
        """
        self.log_c_in += factor_F[: self.scales].log()
        if output and self.log_c_out is not None:
            self.log_c_out += factor_F[: len(self.log_c_out)].log()

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs beside the weights; JSON-able."""
        return {
            "form": self.form.name,
            "coefficients": self.form.shapes(),
            "scales": len(self.log_c_in),
            "start": self.start,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> RationalActivation:
        """An activation with parameters yet to be loaded."""
        form = PARAMETRISATIONS[settings["form"]].empty(settings["coefficients"])
        return cls(form, torch.ones(settings["scales"]), start=settings["start"])

    @torch.no_grad()
    def rescale_(self, factor: float, output: bool = True) -> None:
        """In place: phi_new(factor h) = factor phi_old(h), or = phi_old(h) where `output` is false."""
        self.log_c_in += math.log(factor)
        if output and self.log_c_out is not None:
            self.log_c_out += math.log(factor)


def _log(scale: Scale) -> torch.Tensor:
    scale_F = torch.as_tensor(scale, dtype=torch.float32).reshape(-1)
    if not (torch.isfinite(scale_F) & (scale_F > 0)).all():
        raise InputError("C_in and C_out must be positive and finite")
    return scale_F.log()
