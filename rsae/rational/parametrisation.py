"""Parametrisations of a rational function r(t), and how each starts from a fit.

A form holds coefficients of shape [G, n]: G = 1, shared by all latents, or G = F, one set a latent. It says which
function the kernels evaluate (`shape`) and gives them its parameters (`pack`, differentiable); the formulas themselves
are in reference.py.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from approx import Rational
from rsae.rational.kernels import reference
from rsae.rational.kernels.reference import Shape
from rsae.support.errors import InputError


class Parametrisation(nn.Module):
    """One parametrisation of r."""

    name: ClassVar[str]
    #: phi grows like the identity outside the design interval, and C_out is tied to C_in
    identity: ClassVar[bool] = False

    @property
    def shape(self) -> Shape:
        """Which function the kernels are to evaluate."""
        raise NotImplementedError

    def pack(self) -> torch.Tensor:
        """The kernels' parameters, [P, G]."""
        raise NotImplementedError

    def evaluate(self, t_BF: torch.Tensor) -> torch.Tensor:
        """r(t_BF), by the plain reference."""
        return reference.rational(t_BF, self.pack(), self.shape)

    @classmethod
    def start(cls, rational: Rational) -> dict[str, np.ndarray]:
        """Coefficients [n], by parameter name, that make the form equal to `rational`."""
        raise NotImplementedError

    @classmethod
    def from_rational(cls, rational: Rational, groups: int = 1) -> Parametrisation:
        return cls._from_start(cls.start(rational), groups)

    @classmethod
    def empty(cls, shapes: dict[str, list[int]]) -> Parametrisation:
        """A form whose parameters are to be loaded: `shapes` as `shapes()` gave them."""
        form = cls()
        for name, shape in shapes.items():
            form.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        return form

    @classmethod
    def _from_start(cls, start: dict[str, np.ndarray], groups: int) -> Parametrisation:
        form = cls()
        for name, value in start.items():
            row = torch.tensor(np.asarray(value, dtype=np.float32))
            form.register_parameter(name, nn.Parameter(row.repeat(groups, 1)))
        return form

    def shapes(self) -> dict[str, list[int]]:
        return {name: list(p.shape) for name, p in self.named_parameters()}


class _Pade(Parametrisation):
    """P(t) / Q(t), monomial coefficients a [G, p+1] and b [G, q]; Q's constant term is 1."""

    a: nn.Parameter
    b: nn.Parameter
    #: 0: Q = 1 + sum b_j t^j; 1: with |b_j| |t|^j; 2: Q = 1 + |sum b_j t^j|
    absolute: ClassVar[int]

    @property
    def shape(self) -> Shape:
        return Shape(p=self.a.shape[1] - 1, q=self.b.shape[1], absolute=self.absolute)

    def pack(self) -> torch.Tensor:
        b_Gn = self.b.abs() if self.absolute == 1 else self.b
        return torch.cat([self.a, b_Gn], dim=1).T

    @classmethod
    def start(cls, rational: Rational) -> dict[str, np.ndarray]:
        q = np.asarray(rational.denominator, dtype=float)
        if q[0] == 0:
            raise InputError(f"form {cls.name!r}: the rational has a pole at 0, so Q(0) = 1 is impossible")
        return {"a": np.asarray(rational.numerator, dtype=float) / q[0], "b": q[1:] / q[0]}


class Standard(_Pade):
    """Standard-Padé: Q = 1 + sum_j b_j t^j with signed b_j; training may move a pole into the domain."""

    name = "standard"
    absolute = 0


class SafeA(_Pade):
    """Safe-Padé, the paper's (3): Q = 1 + sum_j |b_j| |t|^j, never below 1 (PAU version A)."""

    name = "safe"
    absolute = 1

    @classmethod
    def start(cls, rational: Rational) -> dict[str, np.ndarray]:
        start = super().start(rational)
        b = start["b"]
        odd = b[::2]  # b_1, b_3, ...
        if np.any(np.abs(odd) > 1e-9 * np.abs(b).max()) or np.any(b[1::2] < 0):
            raise InputError(
                "form 'safe': the rational's denominator is not 1 + sum |b_j| |t|^j (it has odd or negative terms); "
                "use form 'partial', or fit one with approx.least_squares(..., denominator='safe')"
            )
        b = b.copy()
        b[::2] = 0.0
        return {"a": start["a"], "b": b}


class SafeB(_Pade):
    """Safe-Padé: Q = 1 + |sum_j b_j t^j| (PAU version B)."""

    name = "safe-b"
    absolute = 2

    @classmethod
    def start(cls, rational: Rational) -> dict[str, np.ndarray]:
        start = super().start(rational)
        t = np.linspace(-1, 1, 4001)
        if np.any(np.polynomial.polynomial.polyval(t, np.r_[0.0, start["b"]]) < -1e-12):
            raise InputError("form 'safe-b': the denominator falls below 1 on [-1, 1]; use form 'partial'")
        return start


class _Poles(Parametrisation):
    """Terms sum_j (alpha_j (t - u_j) + beta_j v_j) / ((t - u_j)^2 + v_j^2), v_j = exp(log_v_j) > 0: no real pole."""

    alpha: nn.Parameter
    beta: nn.Parameter
    u: nn.Parameter
    log_v: nn.Parameter

    @property
    def shape(self) -> Shape:
        return Shape(pairs=self.alpha.shape[1])

    def polynomial(self) -> torch.Tensor:
        """c_0 and c_1 of the polynomial part c_0 + c_1 t, [G, 2]."""
        raise NotImplementedError

    def pack(self) -> torch.Tensor:
        v_Gn = self.log_v.exp()
        return torch.cat([self.polynomial(), self.alpha, self.beta * v_Gn, self.u, v_Gn * v_Gn], dim=1).T


class Partial(_Poles):
    """Partial fractions: c_0 + c_1 t + sum_j (alpha_j (t - u_j) + beta_j v_j) / ((t - u_j)^2 + v_j^2).

    Type (2n + 1, 2n), pole-free by construction (v_j > 0), and well-conditioned in float32 where monomials are
    not: each pole pair has parameters of its own, at its own scale.
    """

    name = "partial"
    c: nn.Parameter

    def polynomial(self) -> torch.Tensor:
        return self.c

    @classmethod
    def start(cls, rational: Rational) -> dict[str, np.ndarray]:
        polynomial, terms = partial_fractions(rational)
        if len(polynomial) > 2:
            raise InputError("form 'partial' takes types (m, n) with m <= n + 1; choose such a type")
        return {"c": np.pad(polynomial, (0, 2 - len(polynomial))), **terms}


class Identity(_Poles):
    """Identity plus a proper rational correction, t + p(t)/q(t) with deg p < deg q, in partial fractions.

    It starts as exactly the identity (p = 0) with the pole pairs spread over the design interval, and grows
    like the identity outside it.
    """

    name = "identity"
    identity = True

    def polynomial(self) -> torch.Tensor:
        return torch.tensor([[0.0, 1.0]]).to(self.alpha).expand(len(self.alpha), 2)

    @classmethod
    def at_identity(cls, pairs: int, groups: int = 1) -> Identity:
        """`pairs` pole pairs over t in [0, 1] as wide as they are apart, with zero residues."""
        zero = np.zeros(pairs)
        u = (np.arange(pairs) + 0.5) / pairs
        log_v = np.full(pairs, np.log(1.0 / pairs))
        return cls._from_start({"alpha": zero, "beta": zero, "u": u, "log_v": log_v}, groups)  # type: ignore[return-value]


class Polynomial(Parametrisation):
    """a_0 + a_1 t + ... + a_m t^m, which starts as the identity: the second control of a rational magnitude.

    What an affine or quadratic magnitude gains, too, is no gain of a rational one.
    """

    name = "polynomial"
    identity = True
    a: nn.Parameter

    @property
    def shape(self) -> Shape:
        return Shape(p=self.a.shape[1] - 1)

    def pack(self) -> torch.Tensor:
        return self.a.T

    @classmethod
    def at_identity(cls, degree: int, groups: int = 1) -> Polynomial:
        """a = (0, 1, 0, ...), of a degree of 1 at least."""
        return cls._from_start({"a": np.eye(degree + 1)[1]}, groups)  # type: ignore[return-value]


def partial_fractions(rational: Rational) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Polynomial part (ascending) and the terms {alpha, beta, u, log_v}.

    Raises `InputError` where the rational has a real pole, which the form cannot hold.
    """
    parts = rational.partial_fractions()
    if parts.rho.size:
        raise InputError(
            "form 'partial': the rational has a real pole; use an even denominator degree or form 'standard'"
        )
    # alpha t + beta = alpha (t - u) + (beta + alpha u)
    beta = (parts.beta + parts.alpha * parts.u) / parts.v
    return parts.polynomial, {"alpha": parts.alpha, "beta": beta, "u": parts.u, "log_v": np.log(parts.v)}


PARAMETRISATIONS: dict[str, type[Parametrisation]] = {
    form.name: form for form in (Standard, SafeA, SafeB, Partial, Identity, Polynomial)
}
