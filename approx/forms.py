"""The forms in which a rational function can be held.

A form is an immutable tuple of dyadic parameters with two meanings that agree by construction: `evaluate(t,
number)` runs the formula on anything with + - * / (float arrays, arb balls, power series, dual numbers,
code-writing symbols; `number` turns a parameter into an operand), and `exact()` expands it into two
polynomials over Q.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from flint import arb, arb_mat, fmpq, fmpq_poly, fmpz_poly

from approx.dyadic import decode, dyadic, encode, in_parts

Params = tuple[fmpq, ...]
Pairs = tuple[tuple[fmpq, ...], ...]

_LONG = 32  # coefficients, from which on a Chebyshev series in balls is summed by blocks


@dataclass(frozen=True)
class Number:
    """How a parameter becomes an operand."""

    make: Callable[[fmpq], Any]
    """The operand of a parameter."""
    bits: int | None = None
    """Bits of the format that it is rounded to; None where it is not."""

    def __call__(self, value: fmpq) -> Any:
        return self.make(value)

    def beside(self, t: Any, value: fmpq) -> Any:
        """t - value, with its relative digits where t is near.

        Args:
            t: anything with -.
            value: a parameter.
        """
        for part in in_parts(value, self.bits):
            t = t - self.make(part)
        return t


EXACT = Number(lambda value: value)


def horner(coefficients: Sequence[Any], t: Any) -> Any:
    """Value of sum_i coefficients[i] t^i.

    Args:
        coefficients: ascending, at least one.
        t: where: a number of any kind, or an array.
    """
    value = coefficients[-1] + 0 * t
    for c in reversed(coefficients[:-1]):
        value = value * t + c
    return value


def _clenshaw(coefficients: Sequence[Any], t: Any) -> Any:
    """Value of sum_i coefficients[i] T_i(t)."""
    b1 = b2 = 0 * t
    for c in reversed(coefficients[1:]):
        b1, b2 = 2 * t * b1 - b2 + c, b1
    return t * b1 - b2 + coefficients[0]


class _Blocks:
    """A long Chebyshev series, for its value in a ball: sum_j q_j T_j(T_s), q_j of degree below s.

    The radius of Clenshaw's recurrence in balls grows as 2.4^degree; this one's as the square of the degree.
    """

    def __init__(self, coefficients: Params) -> None:
        size = math.isqrt(len(coefficients) - 1) + 1
        c = [*coefficients, *[fmpq(0)] * (-len(coefficients) % size)]
        for k in range(len(c) - size, 0, -size):  # T_(k+i) = 2 T_k T_i - T_(k-i)
            for i in range(1, size):
                c[k - i] -= c[k + i]
                c[k + i] *= 2
        exact = [arb((x.p, 1 - int(x.q).bit_length())) for x in map(dyadic, c)]  # refuses what is none
        self._size, self._rows = size, arb_mat(len(c) // size, size, exact)

    def __call__(self, t: arb) -> arb:
        low = _chebyshev_values(t, self._size + 1)
        high = _chebyshev_values(low.pop(), self._rows.nrows())
        return (arb_mat(1, len(high), high) * (self._rows * arb_mat(len(low), 1, low)))[0, 0]


def _chebyshev_values(t: arb, count: int) -> list[arb]:
    """T_0(t), T_1(t), ... by doubling."""
    values = [arb(1), t]
    for k in range(2, count):
        values.append(2 * values[k // 2] * values[(k + 1) // 2] - values[k % 2])
    return values[:count]


def _quadratic(u: fmpq, v: fmpq) -> fmpq_poly:
    return fmpq_poly([u * u + v * v, -2 * u, 1])


@dataclass(frozen=True)
class Form:
    """Base of the forms: JSON by field, evaluation and expansion by the subclass."""

    name: ClassVar[str]

    def evaluate(self, t: Any, number: Number) -> Any:
        """The value at t.

        Args:
            t: anything with + - * /.
            number: turns a parameter into an operand.
        """
        raise NotImplementedError

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        """(num, den) as polynomials over Q in t."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse parameters that make no function.

        Raises:
            ValueError: for a denominator of 0, nodes that are not distinct, or lists of the wrong length.
        """

    @property
    def writable(self) -> bool:
        """Whether `evaluate` needs no case distinction, so that it can be written as straight-line code."""
        return True

    def parameters(self) -> tuple[fmpq, ...]:
        """All parameters, flat."""
        return tuple(_flat(getattr(self, f.name) for f in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """A record: the name of the form and its parameters, exactly."""
        return {"form": self.name} | {f.name: _encode(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Monomial(Form):
    """num(t)/den(t), coefficients ascending."""

    name: ClassVar[str] = "monomial"
    num: Params
    """Coefficients of the numerator."""
    den: Params
    """Coefficients of the denominator."""

    def check(self) -> None:
        _check_quotient(self.num, self.den)

    def evaluate(self, t: Any, number: Number) -> Any:
        num = horner([number(c) for c in self.num], t)
        return num if self.den == (1,) else num / horner([number(c) for c in self.den], t)

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        return fmpq_poly(list(self.num)), fmpq_poly(list(self.den))


@dataclass(frozen=True)
class Chebyshev(Form):
    """num/den, each a Chebyshev series in t, evaluated by Clenshaw's recurrence."""

    name: ClassVar[str] = "chebyshev"
    num: Params
    """Coefficients of the numerator."""
    den: Params
    """Coefficients of the denominator."""

    def check(self) -> None:
        _check_quotient(self.num, self.den)

    def evaluate(self, t: Any, number: Number) -> Any:
        if isinstance(t, arb) and max(len(self.num), len(self.den)) > _LONG:
            num, den = self._blocks
            return num(t) / den(t)
        num = _clenshaw([number(c) for c in self.num], t)
        return num if self.den == (1,) else num / _clenshaw([number(c) for c in self.den], t)

    @cached_property
    def _blocks(self) -> tuple[_Blocks, _Blocks]:
        return _Blocks(self.num), _Blocks(self.den)

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        def expand(series: Params) -> fmpq_poly:
            terms = (c * fmpq_poly(fmpz_poly.chebyshev_t(i)) for i, c in enumerate(series))
            return sum(terms, fmpq_poly())

        return expand(self.num), expand(self.den)


@dataclass(frozen=True)
class Factored(Form):
    """gain * prod (t - z) / prod (t - p). A conjugate pair u +- iv is held as (u, v), a real root as (u,).

    Numerator and denominator factors take turns, so that no partial product over- or underflows. A real zero
    is subtracted in two parts where a format rounds it: beside it the relative error is what counts.
    """

    name: ClassVar[str] = "factored"
    gain: fmpq
    """The factor in front."""
    zeros: Pairs
    """Roots of the numerator."""
    poles: Pairs
    """Roots of the denominator."""

    def check(self) -> None:
        if any(len(root) not in (1, 2) for root in (*self.zeros, *self.poles)):
            raise ValueError("a root must be one number, or two for a pair")

    @cached_property
    def _turns(self) -> list[tuple[bool, fmpq, fmpq | None]]:
        """The factors in the order in which they are taken: whether above, the root's real part, v^2 of a pair."""
        found: list[tuple[bool, fmpq, fmpq | None]] = []
        balance = sum(map(len, self.zeros)) - sum(map(len, self.poles))
        zeros, poles = list(self.zeros), list(self.poles)
        while zeros or poles:
            above = bool(zeros) and (balance >= 0 or not poles)
            root = zeros.pop() if above else poles.pop()
            found.append((above, root[0], root[1] * root[1] if len(root) > 1 else None))
            balance += -len(root) if above else len(root)
        return found

    def evaluate(self, t: Any, number: Number) -> Any:
        value = number(self.gain) + 0 * t
        for above, root, square in self._turns:
            if above and square is None:
                d = number.beside(t, root)
            else:
                d = t if root == 0 else t - number(root)
            if square is not None:
                d = d * d + number(square)
            value = value * d if above else value / d
        return value

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        def expand(roots: Pairs) -> fmpq_poly:
            product = fmpq_poly([1])
            for root in roots:
                product *= fmpq_poly([-root[0], 1]) if len(root) == 1 else _quadratic(*root)
            return product

        return self.gain * expand(self.zeros), expand(self.poles)


@dataclass(frozen=True)
class PartialFractions(Form):
    """poly(t) + sum (alpha (t-u) + beta) / ((t-u)^2 + v^2) over `pairs` (alpha, beta, u, v) + sum rho/(t-a)
    over `real`.

    The numerators are centred on u: next to a pole close to the axis that is where the digits are.
    """

    name: ClassVar[str] = "partial_fractions"
    poly: Params
    """Coefficients of the polynomial, ascending."""
    pairs: Pairs
    """(alpha, beta, u, v) of each pair of poles u +- iv."""
    real: Pairs = ()
    """(rho, a) of each real pole."""

    def check(self) -> None:
        if any(len(pair) != 4 for pair in self.pairs) or any(len(pole) != 2 for pole in self.real):
            raise ValueError("pairs must have four numbers each, and real poles two")

    def evaluate(self, t: Any, number: Number) -> Any:
        value = horner([number(c) for c in self.poly], t) if self.poly else 0 * t
        for alpha, beta, u, v in self.pairs:
            d = t if u == 0 else t - number(u)
            top = (
                number(beta)
                if alpha == 0
                else number(alpha) * d + number(beta)
                if beta != 0
                else number(alpha) * d
            )
            value = value + top / (d * d + number(v * v))
        for rho, a in self.real:
            value = value + number(rho) / (t - number(a))
        return value

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        terms = [(fmpq_poly([b - a * u, a]), _quadratic(u, v)) for a, b, u, v in self.pairs]
        terms += [(fmpq_poly([rho]), fmpq_poly([-a, 1])) for rho, a in self.real]
        num, den = _sum_of_fractions(terms)
        return num + fmpq_poly(list(self.poly)) * den, den


def _sum_of_fractions(terms: list[tuple[fmpq_poly, fmpq_poly]]) -> tuple[fmpq_poly, fmpq_poly]:
    """Add by halves: the degrees stay balanced."""
    if len(terms) < 2:
        return terms[0] if terms else (fmpq_poly(), fmpq_poly([1]))
    half = len(terms) // 2
    (a, b), (c, d) = _sum_of_fractions(terms[:half]), _sum_of_fractions(terms[half:])
    return a * d + b * c, b * d


@dataclass(frozen=True)
class Barycentric(Form):
    """sum w_j f_j / (t - t_j)  over  sum w_j / (t - t_j): AAA's form (Nakatsukasa, Sete, Trefethen 2018, eq.
    1.1).
    """

    name: ClassVar[str] = "barycentric"
    nodes: Params
    """The t_j."""
    values: Params
    """The f_j."""
    weights: Params
    """The w_j."""

    def check(self) -> None:
        if not len(self.nodes) == len(self.values) == len(self.weights) == len(set(self.nodes)) > 0:
            raise ValueError("nodes must be distinct, with as many values and weights as nodes")
        if not any(w != 0 for w in self.weights):
            raise ValueError("weights must not all be 0")

    @property
    def writable(self) -> bool:
        return False  # at a node the formula is 0/0

    def evaluate(self, t: Any, number: Number) -> Any:
        # without a weight there is no interpolation
        terms = [x for x in zip(self.nodes, self.values, self.weights, strict=True) if x[2] != 0]
        if isinstance(t, arb | fmpq):
            for x, f, _ in terms:
                if t - x == 0:
                    return f + 0 * t
        places, slopes = getattr(t, "value", t), getattr(t, "slope", None)
        array, hits = isinstance(places, np.ndarray), list[Any]()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            num = den = 0 * t
            for x, f, w in terms:
                cauchy = number(w) / (t - number(x))
                term = cauchy * number(f)
                num, den = num + term, den + cauchy
                if array:
                    hits.append(
                        ~np.all([np.isfinite(getattr(v, "value", v)) for v in (cauchy, term)], axis=0)
                    )
            value: Any = num / den
        # arrays, also those of dual and of emulated numbers: fill in the nodes, and what is so near that it overflows
        for (x, f, _), hit in zip(terms if array else [], hits, strict=True):
            if hit.any():
                getattr(value, "value", value)[hit] = number(f)
                if slopes is not None:
                    value.slope[hit] = number(self._slope(x, f)) * slopes[hit]
        return value

    def _slope(self, node: fmpq, value: fmpq) -> fmpq:
        """The derivative at a node (Schneider, Werner 1986, proposition 11)."""
        terms = list(zip(self.nodes, self.values, self.weights, strict=True))
        (weight,) = (w for x, _, w in terms if x == node)
        return sum((w * (f - value) / (node - x) for x, f, w in terms if x != node), fmpq()) / weight

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        linear = [fmpq_poly([-x, 1]) for x in self.nodes]
        weighted = zip(self.weights, self.values, strict=True)
        num, _ = _sum_of_fractions(
            [(fmpq_poly([w * f]), q) for (w, f), q in zip(weighted, linear, strict=True)]
        )
        den, _ = _sum_of_fractions([(fmpq_poly([w]), q) for w, q in zip(self.weights, linear, strict=True)])
        return num, den


@dataclass(frozen=True)
class SafePade(Form):
    """P(t)/(1 + sum_j b_j |t|^j), b_j >= 0, j = 1..n: pole-free on the whole line (arXiv 2606.14990, eq. 3;
    PAU "A").

    With an odd power of |t| it is two rational functions that meet at 0, not one.
    """

    name: ClassVar[str] = "safe"
    num: Params
    """Coefficients of P, ascending."""
    b: Params
    """b_1, b_2, ..."""

    def check(self) -> None:
        _check_quotient(self.num, (fmpq(1),))
        if any(c < 0 for c in self.b):
            raise ValueError("the b of a safe form must not be negative")

    def evaluate(self, t: Any, number: Number) -> Any:
        # without odd powers |t| is t: no kink, and nothing that a power series cannot do
        size = abs(t) if any(self.b[::2]) else t
        return horner([number(c) for c in self.num], t) / horner(
            [number(c) for c in (fmpq(1), *self.b)], size
        )

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        if any(self.b[::2]):
            raise ValueError(
                "a safe-Pade function with odd powers of |t| is not one rational function: use branches()"
            )
        return fmpq_poly(list(self.num)), fmpq_poly([1, *self.b])

    def side(self, sign: int) -> Monomial:
        """The rational function that this is for t of the given sign."""
        return Monomial(self.num, (fmpq(1), *(c * sign**j for j, c in enumerate(self.b, start=1))))


@dataclass(frozen=True)
class SafePadeB(Form):
    """P(t)/(1 + |sum_j b_j t^j|), j = 1..n: pole-free on the whole line, a kink wherever the sum changes
    sign.
    """

    name: ClassVar[str] = "safe-b"
    num: Params
    """Coefficients of P, ascending."""
    b: Params
    """b_1, b_2, ..."""

    def check(self) -> None:
        _check_quotient(self.num, (fmpq(1),))

    def evaluate(self, t: Any, number: Number) -> Any:
        total = horner([number(c) for c in (fmpq(0), *self.b)], t)
        return horner([number(c) for c in self.num], t) / (1 + abs(total))

    def exact(self) -> tuple[fmpq_poly, fmpq_poly]:
        if any(self.b) and not (all(c >= 0 for c in self.b) and not any(self.b[::2])):
            raise ValueError("a safe-Pade (b) function whose sum changes sign is not one rational function")
        return fmpq_poly(list(self.num)), fmpq_poly([1, *self.b])


@dataclass(frozen=True)
class PartialFraction:
    """r(t) = sum_i polynomial[i] t^i + sum_j (alpha_j t + beta_j) / ((t - u_j)^2 + v_j^2) + sum_k rho_k / (t
    - a_k).

    All float64 arrays, v > 0; `rho` and `a` (real poles) are empty for a pole-free function.
    """

    polynomial: np.ndarray
    """Coefficients, ascending."""
    alpha: np.ndarray
    """alpha_j."""
    beta: np.ndarray
    """beta_j."""
    u: np.ndarray
    """Real parts of the pairs of poles."""
    v: np.ndarray
    """Their imaginary parts, positive."""
    rho: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Residues at the real poles."""
    a: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """The real poles."""

    def __call__(self, t: Any) -> Any:
        t = np.asarray(t, dtype=float)[..., None]
        value = (self.polynomial * t ** np.arange(len(self.polynomial))).sum(-1)
        value = value + ((self.alpha * t + self.beta) / ((t - self.u) ** 2 + self.v**2)).sum(-1)
        return value + (self.rho / (t - self.a)).sum(-1)


def _check_quotient(num: Params, den: Params) -> None:
    if not any(c != 0 for c in den) or not num:
        raise ValueError("den must have a non-zero coefficient, and num at least one")


_ALL = (Monomial, Chebyshev, Factored, PartialFractions, Barycentric, SafePade, SafePadeB)
FORMS: dict[str, type[Form]] = {cls.name: cls for cls in _ALL}


def _flat(values: Iterable[Any]) -> Iterator[fmpq]:
    for value in values:
        if isinstance(value, tuple):
            yield from _flat(value)
        else:
            yield value


def _encode(value: Any) -> Any:
    return [_encode(v) for v in value] if isinstance(value, tuple) else encode(value)


def form_from_json(data: dict[str, Any]) -> Form:
    """The inverse of `Form.to_json`; raises ValueError for an unknown form, a missing or a malformed
    parameter, and for parameters that make no function.

    Args:
        data: the record, as `json` reads it.
    """
    cls = FORMS.get(data.get("form", ""))
    if cls is None:
        raise ValueError(f"unknown form {data.get('form')!r}: expected one of {', '.join(FORMS)}")

    def read(item: Any, kind: str) -> Any:
        if kind == "fmpq":
            return decode(item)
        if not isinstance(item, list):
            raise ValueError(f"expected a list of numbers in form {cls.name!r}, got {item!r}")
        return tuple(read(i, "fmpq" if kind == "Params" else "Params") for i in item)

    values = {}
    for f in fields(cls):
        if f.name not in data:
            raise ValueError(f"form {cls.name!r} lacks {f.name!r}")
        values[f.name] = read(data[f.name], str(f.type))
    form = cls(**values)
    form.check()
    return form
