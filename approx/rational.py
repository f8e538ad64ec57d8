"""`Rational`: the value that every fitter returns.

A rational function is held in the form in which it is accurate, with exact dyadic parameters; `exact()`
gives the same function as two polynomials over Q, which is what a proof is about.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flint import acb, arb, arb_series, ctx, fmpq, fmpq_poly

from approx import evaluation
from approx.dyadic import decode, dyadic, encode, power_of_two_above, precision, to_float
from approx.forms import (
    Barycentric,
    Chebyshev,
    Factored,
    Form,
    Monomial,
    PartialFractions,
    SafePade,
    SafePadeB,
    form_from_json,
    horner,
)

VERSION = 1
Domain = tuple[tuple[float, float], ...]
_float = lru_cache(maxsize=1 << 16)(to_float)


def as_domain(domain: Any) -> Domain:
    """`(a, b)` or `[(a, b), (c, d), ...]` as a sorted tuple of intervals of float64 ends.

    Raises ValueError for empty, unordered, overlapping or unbounded intervals.
    """
    try:
        flat = np.asarray(domain, dtype=float)
        intervals = sorted((float(a), float(b)) for a, b in ([domain] if flat.ndim == 1 else domain))
    except (TypeError, ValueError):
        raise ValueError(f"domain={domain!r}: expected (a, b) or a list of such intervals") from None
    ends = [end for interval in intervals for end in interval]
    if not ends or not np.all(np.isfinite(ends)):
        raise ValueError(f"domain={domain!r} must be bounded and not empty")
    if any(a >= b for a, b in intervals) or any(
        x >= y for x, y in zip(ends[1:-1:2], ends[2::2], strict=True)
    ):
        raise ValueError(f"domain={domain!r}: intervals need a < b and must not touch or overlap")
    return tuple(intervals)


@dataclass(frozen=True)
class Dual:
    """A value with its derivative: enough arithmetic to differentiate a form by running it."""

    value: Any
    slope: Any

    def __add__(self, o: Any) -> Dual:
        return (
            Dual(self.value + o.value, self.slope + o.slope)
            if isinstance(o, Dual)
            else Dual(self.value + o, self.slope)
        )

    def __mul__(self, o: Any) -> Dual:
        if isinstance(o, Dual):
            return Dual(self.value * o.value, self.slope * o.value + self.value * o.slope)
        return Dual(self.value * o, self.slope * o)

    def __truediv__(self, o: Any) -> Dual:
        if not isinstance(o, Dual):
            return Dual(self.value / o, self.slope / o)
        value = self.value / o.value
        return Dual(value, (self.slope - value * o.slope) / o.value)

    def __rtruediv__(self, o: Any) -> Dual:
        value = o / self.value
        return Dual(value, -(value * self.slope) / self.value)

    def __neg__(self) -> Dual:
        return self * -1

    def __sub__(self, o: Any) -> Dual:
        return self + (-o)

    def __rsub__(self, o: Any) -> Dual:
        return -self + o

    def __abs__(self) -> Dual:
        # only ever used away from the kink, or where the slope there does not matter
        return Dual(abs(self.value), self.slope * np.sign(self.value))

    __radd__ = __add__
    __rmul__ = __mul__


@dataclass(frozen=True)
class Expression(Form):
    """`left op right` for op in + - * / and "@" (composition), or the derivative "d" of `left`."""

    name: ClassVar[str] = "expression"
    op: str
    left: Rational
    right: Rational | None = None

    def evaluate(self, t: Any, number: Callable[[fmpq], Any]) -> Any:
        if self.op == "d":
            return self.left._run(Dual(t, 1 + 0 * t), number).slope
        assert self.right is not None
        right = self.right._run(t, number)
        if self.op == "@":
            return self.left._run(right, number)
        left = self.left._run(t, number)
        match self.op:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
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
                if d % b == 0:
                    return a * (d // b) + sign * c, d
                if b % d == 0:
                    return a + sign * c * (b // d), b
                return a * d + sign * c * b, b * d
            case "*":
                return a * c, b * d
            case "/":
                return a * d, b * c
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
class PartialFraction:
    """r(t) = sum_i polynomial[i] t^i + sum_j (alpha_j t + beta_j) / ((t - u_j)^2 + v_j^2) + sum_k rho_k / (t
    - a_k).

    All float64 arrays, v > 0; `rho` and `a` (real poles) are empty for a pole-free function.
    """

    polynomial: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    u: np.ndarray
    v: np.ndarray
    rho: np.ndarray = field(default_factory=lambda: np.zeros(0))
    a: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __call__(self, t: Any) -> Any:
        t = np.asarray(t, dtype=float)[..., None]
        value = (self.polynomial * t ** np.arange(len(self.polynomial))).sum(-1)
        value = value + ((self.alpha * t + self.beta) / ((t - self.u) ** 2 + self.v**2)).sum(-1)
        return value + (self.rho / (t - self.a)).sum(-1)


@dataclass(frozen=True)
class Rational:
    """An immutable rational function form((x - centre)/scale) on `domain`.

    Make one by `from_monomial`, `from_chebyshev`, `from_factored`, `from_partial_fractions`,
    `from_barycentric` or `from_exact`. Parameters are exact dyadic numbers, float64 unless a fit needed
    more. r(x) takes floats, float arrays of any shape (computed in the array's own dtype) and flint's arb,
    acb, fmpq and arb_series.
    """

    form: Form
    domain: Domain = ((-1.0, 1.0),)
    centre: fmpq = field(default_factory=lambda: fmpq(0))
    scale: fmpq = field(default_factory=lambda: fmpq(1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", as_domain(self.domain))
        object.__setattr__(self, "centre", dyadic(self.centre))
        object.__setattr__(self, "scale", dyadic(self.scale))
        if self.scale == 0:
            raise ValueError("scale must not be 0")

    # -- making one

    @classmethod
    def _make(cls, form: Form, domain: Any, centre: Any, scale: Any) -> Rational:
        return cls(form, as_domain(domain), dyadic(centre), dyadic(scale))

    @classmethod
    def from_monomial(
        cls, num: Iterable, den: Iterable = (1,), domain: Any = (-1, 1), centre: Any = 0, scale: Any = 1
    ) -> Rational:
        """num(t)/den(t) with t = (x - centre)/scale, coefficients ascending. Raises ValueError when den is
        zero.
        """
        form = Monomial(_params(num), _params(den))
        if not any(c != 0 for c in form.den) or not form.num:
            raise ValueError("den must have a non-zero coefficient, and num at least one")
        return cls._make(form, domain, centre, scale)

    @classmethod
    def from_chebyshev(
        cls, num: Iterable, den: Iterable = (1,), domain: Any = (-1, 1), centre: Any = 0, scale: Any = 1
    ) -> Rational:
        """Quotient of two Chebyshev series in t = (x - centre)/scale."""
        form = Chebyshev(_params(num), _params(den))
        if not any(c != 0 for c in form.den) or not form.num:
            raise ValueError("den must have a non-zero coefficient, and num at least one")
        return cls._make(form, domain, centre, scale)

    @classmethod
    def from_factored(
        cls,
        gain: Any,
        zeros: Iterable,
        poles: Iterable,
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """gain * prod (t - z)/prod (t - p). A root is a real number, or (u, v) for the conjugate pair u +-
        iv.
        """

        def roots(items: Iterable) -> tuple[tuple[fmpq, ...], ...]:
            return tuple(
                _params(item) if isinstance(item, tuple | list) else (dyadic(item),) for item in items
            )

        return cls._make(Factored(dyadic(gain), roots(zeros), roots(poles)), domain, centre, scale)

    @classmethod
    def from_partial_fractions(
        cls,
        poly: Iterable,
        pairs: Iterable,
        real: Iterable = (),
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """poly(t) + sum (alpha (t-u) + beta)/((t-u)^2 + v^2) over pairs (alpha, beta, u, v) + sum
        rho/(t-a).
        """
        form = PartialFractions(_params(poly), tuple(map(_params, pairs)), tuple(map(_params, real)))
        return cls._make(form, domain, centre, scale)

    @classmethod
    def from_barycentric(
        cls,
        nodes: Iterable,
        values: Iterable,
        weights: Iterable,
        domain: Any = (-1, 1),
        centre: Any = 0,
        scale: Any = 1,
    ) -> Rational:
        """sum w_j f_j/(t - t_j) over sum w_j/(t - t_j). Raises ValueError for unequal lengths, repeated nodes
        or no weight but 0.
        """
        form = Barycentric(_params(nodes), _params(values), _params(weights))
        if not len(form.nodes) == len(form.values) == len(form.weights) == len(set(form.nodes)) > 0:
            raise ValueError("nodes must be distinct, with as many values and weights as nodes")
        if not any(w != 0 for w in form.weights):
            raise ValueError("weights must not all be 0")
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
        domain's reach. Raises ValueError for a name that is not a form, or multiple poles with
        form="partial_fractions".
        """
        domain = as_domain(domain)
        if den == 0:
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
            return cls(_to_barycentric(num, den, bits, *map(to_float, ends)), domain, centre, scale)
        return cls(_FROM_EXACT[_known(form)](num, den, bits), domain, centre, scale)

    # -- values

    def _run(self, x: Any, number: Callable[[fmpq], Any]) -> Any:
        t = x if self.centre == 0 else x - number(self.centre)
        return self.form.evaluate(t if self.scale == 1 else t / number(self.scale), number)

    def __call__(self, x: Any) -> Any:
        if isinstance(x, arb | acb | arb_series | fmpq):
            return self._run(x, lambda c: c)
        x = np.asarray(x)
        t = x if x.dtype.kind == "f" else x.astype(float)
        with np.errstate(all="ignore"):  # a pole is an infinity, not a warning
            value = self._run(t if t.ndim else t[None], _float)
        return value if t.ndim else value[0]

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
        return max((_significant(c) for c in self.form.parameters()), default=1)

    @property
    def hull(self) -> tuple[float, float]:
        """The convex hull of the domain."""
        return self.domain[0][0], self.domain[-1][1]

    def poles(self) -> np.ndarray:
        """Poles in x, complex128, by real then imaginary part."""
        return _as_complex(roots(self._exact[1], 64))

    def zeros(self) -> np.ndarray:
        """Zeros in x, complex128, by real then imaginary part."""
        return _as_complex(roots(self._exact[0], 64))

    def partial_fractions(self) -> PartialFraction:
        """The expansion in x as float64 arrays. Raises ValueError for multiple poles."""
        form = _to_partial_fractions(*self._exact, bits=80)
        alpha, beta, u, v = (
            np.array([[_float(c) for c in _uncentred(p)] for p in form.pairs]).reshape(-1, 4).T
        )
        rho, a = np.array([[_float(c) for c in p] for p in form.real]).reshape(-1, 2).T
        return PartialFraction(np.array([_float(c) for c in form.poly]), alpha, beta, u, v, rho, a)

    # -- what it costs

    def evaluation_error(self, dtype: Any = "float32", form: str | None = None, domain: Any = None) -> float:
        """max |computed - exact| when `form` (default: the held one) is evaluated in `dtype` throughout.

        dtype: "float64", "float32", "bfloat16" or "float16" (or the numpy or torch dtype). Parameters are
        rounded to it, inputs are about 1000 numbers of that format in the domain. Infinite where the
        evaluation overflows. Raises ValueError for an unknown dtype or form, or partial fractions of a
        function with multiple poles.
        """
        return evaluation.evaluation_error(self, dtype, form, domain)

    def best_form(self, dtype: Any = "float32") -> str:
        """The form with the smallest `evaluation_error` in `dtype`, among the held one and all it converts
        to.
        """
        return evaluation.best_form(self, dtype)

    def export(self, to: str, dtype: Any = "float64", **options: Any) -> Any:
        """Source code that evaluates this function; see `approx.export.export` for languages and options."""
        from approx.export import export

        return export(self, to, dtype, **options)

    # -- new ones from old

    def to(self, form: str, bits: int = 53, centre: Any = None) -> Rational:
        """The same function in another form, parameters rounded to `bits` bits.

        form: "monomial", "chebyshev", "factored", "partial_fractions" or "barycentric". Rounded barycentric
        parameters define a function of type (k, k), k = max(m, n), that differs from this one by as much.
        The variable stays t = (x - self.centre)/self.scale, unless another `centre` is given: 0 for
        coefficients in x itself, which for a sharp gate away from 0 is a good deal less accurate.
        Raises ValueError for an unknown form, or multiple poles with "partial_fractions".
        """
        num, den = self._exact
        centre = self.centre if centre is None else centre
        return self.from_exact(num, den, self.domain, form, bits, centre, self.scale)

    def with_domain(self, domain: Any) -> Rational:
        """The same function on another domain."""
        return replace(self, domain=as_domain(domain))

    def derivative(self) -> Rational:
        """The exact derivative; evaluated by differentiating the held form, so as accurate as that."""
        return Rational(Expression("d", self), self.domain)

    def compose(self, inner: Rational) -> Rational:
        """self o inner on inner's domain, exactly; evaluated as self(inner(x))."""
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
        """The inverse of `to_json`; raises ValueError that says what is wrong."""
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
                form: Form = Expression(data["op"], cls.from_json(data["left"]), right)
            else:
                form = form_from_json(data)
            domain = as_domain([(float.fromhex(a), float.fromhex(b)) for a, b in data["domain"]])
            return cls(form, domain, decode(data["centre"]), decode(data["scale"]))
        except KeyError as key:
            raise ValueError(f"the record of a rational function lacks {key}") from None
        except (TypeError, AttributeError) as error:
            raise ValueError(f"malformed record of a rational function: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to `path`, whole or not at all."""
        write_json(path, self.to_json())

    def __repr__(self) -> str:
        held = f"{self.form.name} {self.form.op}" if isinstance(self.form, Expression) else self.form.name
        return f"<Rational {held} on {' u '.join(f'[{a:g}, {b:g}]' for a, b in self.domain)}>"


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write JSON under a temporary name beside `path`, then rename: a reader never sees half a file."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file; ValueError names the file when it is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from None


def load(path: str | os.PathLike[str]) -> Rational:
    """Read what `Rational.save` wrote. Raises ValueError, naming the file, when it is malformed."""
    data = read_json(path)
    try:
        return Rational.from_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_rational(rational: Any) -> None:
    """Raise ValueError unless this is a Rational."""
    if not isinstance(rational, Rational):
        raise ValueError(f"rational={rational!r:.80}: expected an approx.Rational; a fit's is `fit.rational`")


# -- exact polynomials


def _significant(value: fmpq) -> int:
    mantissa = abs(int(value.p))
    return (mantissa // ((mantissa & -mantissa) or 1)).bit_length()


def _params(values: Iterable) -> tuple[fmpq, ...]:
    return tuple(dyadic(v) for v in values)


def reduced(num: fmpq_poly, den: fmpq_poly) -> tuple[fmpq_poly, fmpq_poly]:
    """num/den in lowest terms, with den(0) = 1, or leading coefficient 1 where den(0) = 0."""
    if den == 0:
        raise ValueError("the denominator is the zero polynomial")
    common = num.gcd(den)
    if common.degree() > 0:
        num, den = num // common, den // common
    norm = den[0] if den[0] != 0 else den[den.degree()]
    return num / norm, den / norm


def roots(poly: fmpq_poly, bits: int) -> list[tuple[arb, ...]]:
    """Roots with multiplicity to `bits` relative bits: (u,) for a real one, (u, v) with v > 0 for a pair u
    +- iv.
    """
    found: list[tuple[arb, ...]] = []
    if poly.degree() < 1:
        return found
    with precision(bits + 20):
        pairs: Any = poly.numer().complex_roots()
        for root, multiplicity in pairs:
            if root.imag == 0:
                found += [(root.real.mid(),)] * multiplicity
            elif root.imag > 0:
                # an even polynomial's pairs lie on the imaginary axis exactly
                real = arb(0) if root.real.contains(0) else root.real.mid()
                found += [(real, root.imag.mid())] * multiplicity
    return sorted(found, key=lambda r: (float(r[0]), float(r[-1])))


def _as_complex(found: list[tuple[arb, ...]]) -> np.ndarray:
    values = [
        complex(float(r[0]), s * float(r[1]) if len(r) == 2 else 0.0)
        for r in found
        for s in (-1, 1)[-len(r) :]
    ]
    return np.array(values, dtype=complex)


def _to_monomial(num: fmpq_poly, den: fmpq_poly, bits: int) -> Form:
    return Monomial(_rounded(num.coeffs() or [fmpq(0)], bits), _rounded(den.coeffs(), bits))


def _to_chebyshev(num: fmpq_poly, den: fmpq_poly, bits: int) -> Form:
    def series(poly: fmpq_poly) -> list[fmpq]:
        # Horner's rule on Chebyshev series: T_1 T_k = (T_{k+1} + T_{|k-1|})/2
        held = [fmpq(0)]
        for c in reversed(poly.coeffs()):
            shifted = [fmpq(0)] * (len(held) + 1)
            for k, h in enumerate(held):
                shifted[k + 1] += h / 2
                shifted[abs(k - 1)] += h / 2
            shifted[0] += c
            held = shifted
        return held[: max(poly.degree(), 0) + 1]

    return Chebyshev(_rounded(series(num), bits), _rounded(series(den), bits))


def _to_factored(num: fmpq_poly, den: fmpq_poly, bits: int) -> Form:
    gain = num[max(num.degree(), 0)] / den[den.degree()]
    if num == 0:
        return Factored(fmpq(0), (), ())

    def factors(p: fmpq_poly) -> tuple:
        return tuple(_rounded(root, bits) for root in roots(p, bits))

    return Factored(dyadic(gain, bits), factors(num), factors(den))


def _to_partial_fractions(num: fmpq_poly, den: fmpq_poly, bits: int) -> PartialFractions:
    if den.gcd(den.derivative()).degree() > 0:
        raise ValueError("the function has a multiple pole: partial fractions here hold simple poles only")
    poly, rest = divmod(num, den)
    slope = den.derivative()
    pairs, real = [], []
    # cancellation in rest(p)/den'(p) costs at most the bits that the ball's radius tells: raise until it is
    # small
    for root in roots(den, bits):
        work = bits + 64
        while True:
            with precision(work):
                p = acb(*_polished(den, root))
                residue = acb_horner(rest, p) / acb_horner(slope, p)
                good = residue.rel_accuracy_bits() > bits + 8
                if good or work > 64 * bits + 4096:
                    break
            work *= 2
        with precision(work):
            if len(root) == 1:
                real.append(_rounded((residue.real, p.real), bits))
            else:
                # rho/(t-p) + conj = (2 Re(rho) (t-u) - 2 Im(rho) v) / ((t-u)^2 + v^2)
                pairs.append(_rounded((2 * residue.real, -2 * residue.imag * p.imag, p.real, p.imag), bits))
    return PartialFractions(_rounded(poly.coeffs(), bits), tuple(pairs), tuple(real))


def _to_barycentric(num: fmpq_poly, den: fmpq_poly, bits: int, low: float, high: float) -> Barycentric:
    """Interpolation at Leja points of [low, high] for the weight 1/|den|: they crowd where the poles are near."""
    count = max(num.degree(), den.degree(), 0) + 1
    real, imag = np.array(
        [(float(r[0]), float(r[1]) if len(r) == 2 else 0.0) for r in roots(den, 53)] or [(0.0, 1.0)]
    ).T
    nearest = np.clip(real, low, high)
    steps = np.multiply.outer([-1.0, 1.0], 2.0 ** np.arange(-2, 60))[..., None] * np.hypot(
        real - nearest, imag
    )
    close = np.ravel(nearest + steps)
    places = np.unique(np.clip(np.r_[np.linspace(low, high, 50 * count), close], low, high))
    with precision(bits + 20 * count):
        coefficients = [arb(c) for c in den.coeffs()]
        sizes = [abs(horner(coefficients, arb(x))) for x in places]
        usable = np.array([bool(size > 0) for size in sizes])
        attraction = np.array([float(s.log()) if ok else 0.0 for s, ok in zip(sizes, usable, strict=True)])
    places, attraction = places[usable], attraction[usable]
    nodes, score = [places[0]], np.zeros(len(places))
    with np.errstate(divide="ignore"):
        for k in range(1, count):
            score += np.log(np.abs(places - nodes[-1]))
            nodes.append(places[np.argmax(score - k / count * attraction)])
    at = sorted(map(dyadic, nodes))
    weights = [den(x) / math.prod((x - y for y in at if y != x), start=fmpq(1)) for x in at]
    unit = power_of_two_above(dyadic(max(map(abs, weights)), bits))
    values = _rounded((num(x) / den(x) for x in at), bits)
    return Barycentric(tuple(at), values, _rounded((w / unit for w in weights), bits))


def _polished(poly: fmpq_poly, root: Sequence[arb]) -> tuple[arb, ...]:
    """A root refined by Newton's method to the working precision (midpoints: the result is not a proof)."""
    p, slope = acb(*root), poly.derivative()
    for _ in range(8):
        step = acb_horner(poly, p) / acb_horner(slope, p)
        p = acb((p - step).real.mid(), (p - step).imag.mid())
        if abs(step) < abs(p) * arb(2) ** (-3 * ctx.prec // 4):  # quadratic: the next is below rounding
            break
    return p.real, p.imag


def acb_horner(poly: fmpq_poly, z: acb) -> acb:
    """poly(z) in ball arithmetic at the working precision."""
    return horner([acb(c) for c in poly.coeffs()] or [acb(0)], z)


def _rounded(values: Iterable, bits: int) -> tuple[fmpq, ...]:
    return tuple(dyadic(v, bits) for v in values)


def _uncentred(pair: tuple[fmpq, ...]) -> tuple[fmpq, ...]:
    alpha, beta, u, v = pair
    return alpha, beta - alpha * u, u, v


_FROM_EXACT: dict[str, Callable[[fmpq_poly, fmpq_poly, int], Form]] = {
    "monomial": _to_monomial,
    "chebyshev": _to_chebyshev,
    "factored": _to_factored,
    "partial_fractions": _to_partial_fractions,
}


def _known(form: str) -> str:
    if form not in _FROM_EXACT:
        raise ValueError(f"form={form!r}: expected one of {', '.join(_FROM_EXACT)}, barycentric")
    return form
