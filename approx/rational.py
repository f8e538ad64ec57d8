"""`Rational`: the value that every fitter returns.

A rational function is held in the form in which it is accurate, with exact dyadic parameters; `exact()`
gives the same function as two polynomials over Q, which is what a proof is about.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from flint import acb, arb, arb_series, fmpq, fmpq_poly

from approx.conversions import (
    complex_roots,
    converted,
    held_poles,
    parameters,
    reduced,
    to_barycentric,
    to_partial_fractions,
)
from approx.domain import Domain
from approx.dyadic import decode, dyadic, encode, power_of_two_above, significant_bits, to_float
from approx.files import read_json, write_json
from approx.forms import (
    EXACT,
    Barycentric,
    Chebyshev,
    Factored,
    Form,
    Monomial,
    Number,
    PartialFraction,
    PartialFractions,
    SafePade,
    SafePadeB,
    form_from_json,
)
from approx.operands import Dual

VERSION = 1
_float = lru_cache(maxsize=1 << 16)(to_float)
_DOUBLE = Number(_float, 53)


@dataclass(frozen=True)
class Expression(Form):
    """`left op right` for op in + - * / and "@" (composition), or the derivative "d" of `left`."""

    name: ClassVar[str] = "expression"
    op: str
    """The operation."""
    left: Rational
    """Its left operand."""
    right: Rational | None = None
    """Its right operand; None for a derivative."""

    def evaluate(self, t: Any, number: Number) -> Any:
        if self.op == "d":
            return self.left.run(Dual(t, 1 + 0 * t), number).slope
        assert self.right is not None
        right = self.right.run(t, number)
        if self.op == "@":
            return self.left.run(right, number)
        left = self.left.run(t, number)
        match self.op:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case _:
                return left / right

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        a, b = self.left.exact()
        if self.op == "d":
            return a.derivative() * b - a * b.derivative(), b * b
        assert self.right is not None
        c, d = self.right.exact()
        match self.op:
            case "+" | "-":
                sign = 1 if self.op == "+" else -1
                if not d % b:
                    return a * (d // b) + sign * c, d
                if not b % d:
                    return a + sign * c * (b // d), b
                return a * d + sign * c * b, b * d
            case "*":
                return a * c, b * d
            case "/":
                return a * d, b * c
            case _:
                pass
        degree = max(a.degree(), b.degree())
        powers = [c**i * d ** (degree - i) for i in range(degree + 1)]

        def substitute(p: fmpq_poly) -> fmpq_poly:
            return sum((k * powers[i] for i, k in enumerate(p.coeffs())), fmpq_poly())

        return substitute(a), substitute(b)

    @property
    def writable(self) -> bool:
        return self.left.form.writable and (self.right is None or self.right.form.writable)

    def parameters(self) -> tuple[fmpq, ...]:
        return (*self.left.form.parameters(), *(self.right.form.parameters() if self.right else ()))

    def to_json(self) -> dict[str, Any]:
        parts = {"left": self.left.to_json()} | ({"right": self.right.to_json()} if self.right else {})
        return {"form": self.name, "op": self.op} | parts


@dataclass(frozen=True)
class Rational:
    """An immutable rational function form((x - centre)/scale) on `domain`.

    Make one by `from_monomial`, `from_chebyshev`, `from_factored`, `from_partial_fractions`,
    `from_barycentric` or `from_exact`. Parameters are exact dyadic numbers, float64 unless a fit needed
    more. r(x) takes floats, float arrays of any shape (computed in the array's own dtype) and flint's arb,
    acb, fmpq and arb_series.
    """

    form: Form
    """The formula in t, with exact parameters."""
    domain: Domain = field(default_factory=lambda: Domain((-1, 1)))
    """Where the function is meant to be used."""
    centre: fmpq = field(default_factory=lambda: fmpq(0))
    """x where t is 0, a dyadic number."""
    scale: fmpq = field(default_factory=lambda: fmpq(1))
    """What is 1 in t = (x - centre)/scale, a dyadic number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", Domain(self.domain))
        object.__setattr__(self, "centre", dyadic(self.centre))
        object.__setattr__(self, "scale", dyadic(self.scale))
        if self.scale == 0:
            raise ValueError("scale must not be 0")

    # -- making one

    @classmethod
    def _make(cls, form: Form, domain: Any, centre: Any, scale: Any) -> Rational:
        form.check()
        return cls(form, Domain(domain), dyadic(centre), dyadic(scale))

    @classmethod
    def from_monomial(
        cls,
        num: Iterable[Any],
        den: Iterable[Any] = (1,),
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """num(t)/den(t) with t = (x - centre)/scale, coefficients ascending.

        Args:
            num: coefficients of the numerator, ascending.
            den: coefficients of the denominator, ascending.
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
            centre: where t is 0.
            scale: what is 1 in t = (x - centre)/scale.

        Raises:
            ValueError: when den is zero.
        """
        return cls._make(Monomial(parameters(num), parameters(den)), domain, centre, scale)

    @classmethod
    def from_chebyshev(
        cls,
        num: Iterable[Any],
        den: Iterable[Any] = (1,),
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """Quotient of two Chebyshev series in t = (x - centre)/scale.

        Args:
            num: Chebyshev coefficients of the numerator.
            den: Chebyshev coefficients of the denominator.
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
            centre: where t is 0.
            scale: what is 1 in t = (x - centre)/scale.

        Raises:
            ValueError: when den is zero.
        """
        return cls._make(Chebyshev(parameters(num), parameters(den)), domain, centre, scale)

    @classmethod
    def from_factored(
        cls,
        gain: Any,
        zeros: Iterable[Any],
        poles: Iterable[Any],
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """gain * prod (t - z)/prod (t - p). A root is a real number, or (u, v) for the conjugate pair u +-
        iv.

        Args:
            gain: the factor in front.
            zeros: roots of the numerator.
            poles: roots of the denominator.
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
            centre: where t is 0.
            scale: what is 1 in t = (x - centre)/scale.
        """

        def roots(items: Iterable[Any]) -> tuple[tuple[fmpq, ...], ...]:
            return tuple(
                parameters(item) if isinstance(item, tuple | list) else (dyadic(item),) for item in items
            )

        return cls._make(Factored(dyadic(gain), roots(zeros), roots(poles)), domain, centre, scale)

    @classmethod
    def from_partial_fractions(
        cls,
        poly: Iterable[Any],
        pairs: Iterable[Any],
        real: Iterable[Any] = (),
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """poly(t) + sum (alpha (t-u) + beta)/((t-u)^2 + v^2) over pairs (alpha, beta, u, v) + sum
        rho/(t-a).

        Args:
            poly: coefficients of the polynomial, ascending.
            pairs: (alpha, beta, u, v) of each pair of poles u +- iv.
            real: (rho, a) of each real pole.
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
            centre: where t is 0.
            scale: what is 1 in t = (x - centre)/scale.
        """
        form = PartialFractions(parameters(poly), tuple(map(parameters, pairs)), tuple(map(parameters, real)))
        return cls._make(form, domain, centre, scale)

    @classmethod
    def from_barycentric(
        cls,
        nodes: Iterable[Any],
        values: Iterable[Any],
        weights: Iterable[Any],
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """sum w_j f_j/(t - t_j) over sum w_j/(t - t_j).

        Args:
            nodes: the t_j, distinct.
            values: the f_j.
            weights: the w_j.
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
            centre: where t is 0.
            scale: what is 1 in t = (x - centre)/scale.

        Raises:
            ValueError: for unequal lengths, repeated nodes or no weight but 0.
        """
        form = Barycentric(parameters(nodes), parameters(values), parameters(weights))
        return cls._make(form, domain, centre, scale)

    @classmethod
    def from_exact(
        cls,
        num: fmpq_poly,
        den: fmpq_poly,
        domain: Any = (-1, 1),
        form: str = "factored",
        bits: int = 53,
        centre: Any = 0,
        scale: Any = None,
    ) -> Rational:
        """num(x)/den(x) brought into the named form, each parameter rounded to `bits` bits.

        The new variable is t = (x - centre)/scale; the default scale is the power of two nearest the
        domain's reach.

        Args:
            num: numerator.
            den: denominator.
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
            form: name of a form.
            bits: to how many bits each parameter is rounded.
            centre: where t is 0.
            scale: what is 1 in t = (x - centre)/scale.

        Raises:
            ValueError: for a name that is not a form, or multiple poles with form="partial_fractions".
        """
        domain = Domain(domain)
        if not den:
            raise ValueError("den must not be the zero polynomial")
        centre = dyadic(centre)
        scale = (
            power_of_two_above(max(abs(dyadic(domain[0][0]) - centre), abs(dyadic(domain[-1][1]) - centre)))
            if scale is None
            else dyadic(scale)
        )
        shift = fmpq_poly([centre, scale])
        num, den = reduced(num(shift), den(shift))
        if form == "barycentric":
            ends = sorted((dyadic(e) - centre) / scale for e in (domain[0][0], domain[-1][1]))
            return cls(to_barycentric(num, den, bits, *map(to_float, ends)), domain, centre, scale)
        return cls(converted(num, den, form, bits), domain, centre, scale)

    # -- values

    def run(self, x: Any, number: Number) -> Any:
        """The held formula on operands of any kind.

        Args:
            x: anything with + - * /.
            number: turns a parameter into an operand.
        """
        t = number.beside(x, self.centre)
        return self.form.evaluate(t if self.scale == 1 else t / number(self.scale), number)

    def __call__(self, x: Any) -> Any:
        if isinstance(x, arb | acb | arb_series | fmpq):
            return self.run(x, EXACT)
        x = np.asarray(x)
        t = x if x.dtype.kind in "fc" else x.astype(float)
        if x.dtype.kind == "c" and not self._analytic:
            raise ValueError("a safe-Pade form with |t| is no function of a complex number")
        with np.errstate(all="ignore"):  # a pole is an infinity, not a warning
            value = self.run(t if t.ndim else t[None], _DOUBLE)
        return value if t.ndim else value[0]

    @property
    def _analytic(self) -> bool:
        """Whether the formula does without |t|."""
        form = self.form
        if isinstance(form, Expression):
            return form.left._analytic and (form.right is None or form.right._analytic)
        return not isinstance(form, SafePadeB) and not (isinstance(form, SafePade) and any(form.b[::2]))

    def __getstate__(self) -> dict[str, Any]:
        return {"json": self.to_json()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(vars(Rational.from_json(state["json"])))

    @cached_property
    def _exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        num, den = self.form.exact()
        if self.centre != 0 or self.scale != 1:
            affine = fmpq_poly([-self.centre / self.scale, 1 / self.scale])
            num, den = num(affine), den(affine)
        return reduced(num, den)

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        """(num, den): the exact function of x that the held parameters define, without common factors.

        den is normalised to den(0) = 1, or to leading coefficient 1 where it vanishes at 0.
        Raises ValueError for a safe-Pade form that is not one rational function; see `branches`.
        """
        return self._exact

    def branches(self) -> list[tuple[float, float, Rational]]:
        """[(a, b, r)]: rational functions that agree with this one on [a, b], together the convex hull of
        the domain.

        One branch, this function itself, for every form but "safe" with odd powers of |t|, which has one a
        side. Raises ValueError for a "safe-b" form whose inner sum changes sign: it has kinks at irrational
        points.
        """
        low, high = self.hull
        middle = to_float(self.centre)
        if not isinstance(self.form, SafePade) or not any(self.form.b[::2]):
            self.exact()
            return [(low, high, self)]
        up = 1 if self.scale > 0 else -1
        sides = [(low, min(middle, high), -up), (max(middle, low), high, up)]
        return [(a, b, replace(self, form=self.form.side(sign))) for a, b, sign in sides if a < b]

    # -- what it looks like

    @property
    def type(self) -> tuple[int, int]:
        """Exact degrees of numerator and denominator, common factors removed (the formal ones of a safe-Pade
        form).
        """
        if isinstance(self.form, SafePade | SafePadeB):
            return len(self.form.num) - 1, len(self.form.b)
        num, den = self._exact
        return max(num.degree(), 0), den.degree()

    @property
    def numerator(self) -> np.ndarray:
        """Monomial coefficients in x, ascending, float64 (rounded: use `exact` for the truth)."""
        return np.array([_float(c) for c in self._exact[0].coeffs()] or [0.0])

    @property
    def denominator(self) -> np.ndarray:
        """Monomial coefficients in x, ascending, float64, denominator[0] = 1 where possible."""
        return np.array([_float(c) for c in self._exact[1].coeffs()])

    @cached_property
    def bits(self) -> int:
        """Bits of the longest parameter: 53 or fewer when all are float64."""
        return max((significant_bits(c) for c in self.form.parameters()), default=1)

    @property
    def hull(self) -> tuple[float, float]:
        """The convex hull of the domain."""
        return self.domain.hull

    def poles(self) -> np.ndarray:
        """Poles in x, complex128, by real then imaginary part."""
        held = held_poles(self.form, self.centre, self.scale)
        return complex_roots(self._exact[1]) if held is None else held

    def zeros(self) -> np.ndarray:
        """Zeros in x, complex128, by real then imaginary part."""
        return complex_roots(self._exact[0])

    def partial_fractions(self) -> PartialFraction:
        """The expansion in x as float64 arrays. Raises ValueError for multiple poles."""
        form = to_partial_fractions(*self._exact, bits=80)
        alpha, beta, u, v = (
            np.array([[_float(c) for c in _uncentred(p)] for p in form.pairs]).reshape(-1, 4).T
        )
        rho, a = np.array([[_float(c) for c in p] for p in form.real]).reshape(-1, 2).T
        return PartialFraction(np.array([_float(c) for c in form.poly]), alpha, beta, u, v, rho, a)

    # -- new ones from old

    def to(self, form: str, bits: int = 53, centre: Any = None) -> Rational:
        """The same function in another form, parameters rounded to `bits` bits.

        form: "monomial", "chebyshev", "factored", "partial_fractions" or "barycentric". Rounded barycentric
        parameters define a function of type (k, k), k = max(m, n), that differs from this one by as much.
        The variable stays t = (x - self.centre)/self.scale, unless another `centre` is given: 0 for
        coefficients in x itself, which for a sharp gate away from 0 is a good deal less accurate.

        Args:
            form: name of a form.
            bits: to how many bits each parameter is rounded.
            centre: where t is 0.

        Raises:
            ValueError: for an unknown form, or multiple poles with "partial_fractions".
        """
        num, den = self._exact
        centre = self.centre if centre is None else centre
        return self.from_exact(num, den, self.domain, form, bits, centre, self.scale)

    def with_domain(self, domain: Any) -> Rational:
        """The same function on another domain.

        Args:
            domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
        """
        return replace(self, domain=Domain(domain))

    def derivative(self) -> Rational:
        """The exact derivative; evaluated by differentiating the held form, so as accurate as that."""
        return Rational(Expression("d", self), self.domain)

    def compose(self, inner: Rational) -> Rational:
        """self o inner on inner's domain, exactly; evaluated as self(inner(x)).

        Args:
            inner: what is evaluated first.
        """
        return Rational(Expression("@", self, inner), inner.domain)

    def _combine(self, op: str, other: Any, swap: bool = False) -> Rational:
        if not isinstance(other, Rational):
            other = Rational.from_monomial([other], domain=self.domain)
        left, right = (other, self) if swap else (self, other)
        if op == "/" and right.exact()[0] == 0:
            raise ZeroDivisionError("division by the zero function")
        return Rational(Expression(op, left, right), self.domain)

    def __add__(self, other: Any) -> Rational:
        return self._combine("+", other)

    def __radd__(self, other: Any) -> Rational:
        return self._combine("+", other, swap=True)

    def __sub__(self, other: Any) -> Rational:
        return self._combine("-", other)

    def __rsub__(self, other: Any) -> Rational:
        return self._combine("-", other, swap=True)

    def __mul__(self, other: Any) -> Rational:
        return self._combine("*", other)

    def __rmul__(self, other: Any) -> Rational:
        return self._combine("*", other, swap=True)

    def __truediv__(self, other: Any) -> Rational:
        return self._combine("/", other)

    def __rtruediv__(self, other: Any) -> Rational:
        return self._combine("/", other, swap=True)

    def __neg__(self) -> Rational:
        return self._combine("*", -1)

    # -- files

    def to_json(self) -> dict[str, Any]:
        """A self-contained, versioned record; every number is kept exactly."""
        return {
            "kind": "rational",
            "version": VERSION,
            "domain": [[a.hex(), b.hex()] for a, b in self.domain],
            "centre": encode(self.centre),
            "scale": encode(self.scale),
            **self.form.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Rational:
        """The inverse of `to_json`; raises ValueError that says what is wrong.

        Args:
            data: the record, as `json` reads it.
        """
        if not isinstance(data, dict) or data.get("kind") != "rational":
            raise ValueError("not a rational function: expected an object with kind = 'rational'")
        if data.get("version") != VERSION:
            raise ValueError(
                f"version {data.get('version')!r} is not known (this release reads {VERSION}): upgrade `rsae`"
            )
        try:
            if data["form"] == "expression":
                if data["op"] not in {"+", "-", "*", "/", "@", "d"}:
                    raise ValueError(f"unknown operation {data['op']!r}")
                right = cls.from_json(data["right"]) if data["op"] != "d" else None
                if data["op"] == "/" and right is not None and not right.exact()[0]:
                    raise ValueError("division by the zero function")
                form: Form = Expression(data["op"], cls.from_json(data["left"]), right)
            else:
                form = form_from_json(data)
            domain = Domain([(float.fromhex(a), float.fromhex(b)) for a, b in data["domain"]])
            return cls(form, domain, decode(data["centre"]), decode(data["scale"]))
        except KeyError as key:
            raise ValueError(f"the record of a rational function lacks {key}") from None
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"malformed record of a rational function: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to `path`, whole or not at all.

        Args:
            path: the file.
        """
        write_json(path, self.to_json())

    def __repr__(self) -> str:
        held = f"{self.form.name} {self.form.op}" if isinstance(self.form, Expression) else self.form.name
        return f"<Rational {held} on {self.domain}>"


def load(path: str | os.PathLike[str]) -> Rational:
    """Read what `Rational.save` wrote.

    Args:
        path: the file.

    Raises:
        ValueError: , naming the file, when it is malformed.
    """
    data = read_json(path)
    try:
        return Rational.from_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _uncentred(pair: tuple[fmpq, ...]) -> tuple[fmpq, ...]:
    alpha, beta, u, v = pair
    return alpha, beta - alpha * u, u, v
