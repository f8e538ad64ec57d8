"""Formulas with a limit where a part of them has none: exp(-1/x) and x log(x) at 0.

Balls cannot say that 1/x is at least 10 on [0, 0.1]; spans can, which are intervals with ends that may be infinite.
They are used where balls give no answer, or a wide one. R. E. Moore, R. B. Kearfott, M. J. Cloud, "Introduction to
Interval Analysis", SIAM 2009 (extended intervals: 0 times infinity is 0, since no infinite value is ever taken).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from flint import arb, fmpq

from approx.domain import Domain
from approx.dyadic import dyadic
from approx.functions import Functions

#: How far, at least, a span reaches beyond a point, since a limit is taken where the formula has no value; nothing that
#: is returned is finer, but 0
_LEAST = arb(2) ** -(1 << 14)
#: And beyond a single point: where a logarithm is 1e33
_NEXT = arb((1, -(1 << 110)))
#: Of its radius, by how much rounding makes a ball larger
_BEYOND = arb(2) ** -24
#: Beyond it an exponential is taken at infinity, or here, whichever bounds it
_LARGE = arb(2) ** 20
#: Monotone functions: where each begins, if it does
_MONOTONE = {
    "exp": None,
    "expm1": None,
    "sinh": None,
    "tanh": None,
    "atan": None,
    "asinh": None,
    "erf": None,
    "erfc": None,
    "sigmoid": None,
    "normal_cdf": None,
    "sqrt": 0,
    "log": 0,
    "log2": 0,
    "log10": 0,
    "log1p": -1,
}
#: Limits at -infinity and infinity that balls do not know
_LIMITS = {"erf": (-1, 1), "erfc": (2, 0), "normal_cdf": (0, 1)}


@dataclass(frozen=True)
class Span:
    """The reals between two ends, which are exact or infinite."""

    low: arb
    """The lower end."""
    high: arb
    """The upper end."""

    @property
    def ends(self) -> tuple[arb, arb]:
        """Both ends."""
        return self.low, self.high

    @classmethod
    def of(cls, *values: arb) -> Span:
        """The smallest that holds all values; an unknown one may be anything."""
        if any(v.is_nan() for v in values):
            return EVERYTHING
        return cls(min(v.lower() for v in values), max(v.upper() for v in values))

    def __add__(self, other: Span) -> Span:
        return Span.of(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Span:
        return Span(-self.high, -self.low)

    def __mul__(self, other: Span) -> Span:
        return Span.of(*(arb(0) if a == 0 or b == 0 else a * b for a in self.ends for b in other.ends))

    def inverse(self) -> Span:
        """1 over it."""
        if self.low < 0 < self.high or self.low == self.high == 0:
            return EVERYTHING
        ends = (
            (arb.pos_inf() if self.high > 0 else arb.neg_inf()) if end == 0 else 1 / end for end in self.ends
        )
        return Span.of(*ends)

    def size(self) -> Span:
        """Its absolute values."""
        if self.low >= 0:
            return self
        return -self if self.high <= 0 else Span(arb(0), max(-self.low, self.high))


@dataclass(frozen=True)
class Beside(Span):
    """What lies beside a point, and closer to it than the working precision can say; the ends reach farther."""

    point: fmpq
    """The point."""
    below: arb
    """How far it reaches below the point, as a number that is not above 0."""
    above: arb
    """How far it reaches above."""

    def root(self, line: tuple[fmpq, fmpq] | None) -> Span | None:
        """What a line, slope and rest, is beside its root, exactly; None where that is elsewhere."""
        if line is None or line[0] * self.point + line[1] != 0:
            return None
        return Span.of(self.below * arb(line[0]), self.above * arb(line[0]))


EVERYTHING = Span(arb.neg_inf(), arb.pos_inf())
_ONE = Span.of(arb(1))


def enclosure(tree: ast.expr, domain: Domain, x: arb) -> arb:
    """What a formula's values on a ball lie in, but for its parts in gaps of the domain and what rounding adds.

    Args:
        tree: the formula, whose names are known.
        domain: where it is used.
        x: a ball, which may reach beyond the domain.

    Returns:
        A ball; nan where there is no bound.
    """
    low, high = x.lower() - _LEAST, x.upper() + _LEAST
    edge = x.rad() * _BEYOND
    within = x.lower() + edge >= domain.hull[0] and x.upper() - edge <= domain.hull[1]
    found = []
    for a, b in domain if within else [(x.lower(), x.upper())]:
        if x.upper() >= a and x.lower() <= b:
            span = Span(max(low.lower(), arb(a)), min(high.upper(), arb(b)))
            if x.rad() == 0 and within:
                reach = arb(0) if x <= a else -_NEXT, arb(0) if x >= b else _NEXT
                span = Beside(*span.ends, dyadic(x), *reach)
            found.append(_values(tree, span))
    ends = [end for span in found for end in span.ends]
    if not ends or not all(end.is_finite() for end in ends):
        return arb.nan()
    low, high = min(ends), max(ends)
    if abs(low) < _LEAST:
        low = arb(0) if low >= 0 else -_LEAST
    if abs(high) < _LEAST:
        high = arb(0) if high <= 0 else _LEAST
    return low.union(high)


def _line(node: ast.expr) -> tuple[fmpq, fmpq] | None:
    """The slope and the rest of a part of a formula that is a line, exactly; None for any other."""
    match node:
        case ast.Name(id="x"):
            return fmpq(1), fmpq(0)
        case ast.Constant(value=int() | float() as value):
            return fmpq(0), dyadic(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand) if (u := _line(operand)) is not None:
            return -u[0], -u[1]
        case ast.BinOp(left=left, op=op, right=right):
            u, v = _line(left), _line(right)
            if u is None or v is None:
                return None
            match op:
                case ast.Add():
                    return u[0] + v[0], u[1] + v[1]
                case ast.Sub():
                    return u[0] - v[0], u[1] - v[1]
                case ast.Mult() if u[0] == 0 or v[0] == 0:
                    return u[0] * v[1] + u[1] * v[0], u[1] * v[1]
                case ast.Div() if v[0] == 0 and v[1] != 0:
                    return u[0] / v[1], u[1] / v[1]
                case _:
                    return None
        case _:
            return None


def _values(node: ast.expr, x: Span) -> Span:
    """The values of a part of a formula."""
    if isinstance(x, Beside) and (near := x.root(_line(node))) is not None:
        return near
    match node:
        case ast.Constant(value=int() | float() as value):
            return Span.of(arb(dyadic(value)))
        case ast.Name(id="x"):
            return x
        case ast.Name(id=name):
            return Span.of(arb.pi() if name == "pi" else arb(1).exp())
        case ast.UnaryOp(operand=operand):
            return -_values(operand, x)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _power(base, exponent, x)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _values(left, x) + _values(right, x)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _values(left, x) + -_values(right, x)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _values(left, x) * _values(right, x).inverse()
        case ast.BinOp():
            return _product(list(_factors(node)), x)
        case ast.Call(func=ast.Name(id="max"), args=[left, right]):
            a, b = _values(left, x), _values(right, x)
            return Span(max(a.low, b.low), max(a.high, b.high))
        case ast.Call(func=ast.Name(id="min"), args=[left, right]):
            a, b = _values(left, x), _values(right, x)
            return Span(min(a.low, b.low), min(a.high, b.high))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _called(name, _values(argument, x))
        case _:
            return EVERYTHING


def _called(name: str, u: Span) -> Span:
    if name == "abs":
        return u.size()
    if name == "cosh":
        u, name = u.size(), "exp"
        return (_called(name, u) + _called(name, -u)) * Span.of(arb(0.5))
    if name in ("exp", "expm1", "sinh"):  # balls do not hold exp(2^10000)
        u = Span(
            min(u.low, _LARGE) if u.low > -_LARGE else arb.neg_inf(),
            u.high if u.high < _LARGE else arb.pos_inf(),
        )
        u = Span(u.low, max(u.high, -_LARGE))
    if name in _MONOTONE:
        return Span.of(*(_at(name, end) for end in u.ends)) if _defined(u, _MONOTONE[name]) else EVERYTHING
    if not all(end.is_finite() for end in u.ends):
        return Span.of(arb(-1), arb(1)) if name in ("sin", "cos") else EVERYTHING
    return Span.of(getattr(Functions, name)(u.low.union(u.high)))


def _defined(u: Span, begins: int | None) -> bool:
    """Whether there is a value: the rest is a ball's rounding, since a formula is defined on all of its domain."""
    return begins is None or u.high > begins


def _at(name: str, end: arb) -> arb:
    """The value, or the limit, of a monotone function."""
    begins = _MONOTONE[name]
    if begins is not None and end <= begins:
        return arb(0) if name == "sqrt" else arb.neg_inf()
    if name in _LIMITS and not end.is_finite():
        return arb(_LIMITS[name][end > 0])
    return getattr(Functions, name)(end)


def _power(base: ast.expr, exponent: ast.expr, x: Span) -> Span:
    if not isinstance(exponent, ast.Constant):  # base^exponent = exp(exponent log base)
        logarithm = ast.Call(func=ast.Name(id="log"), args=[base], keywords=[])
        return _called("exp", _product([*_factors(exponent), logarithm], x))
    u, p = _values(base, x), float(exponent.value)  # pyright: ignore[reportArgumentType]
    return _raised(u, -p).inverse() if p < 0 else _raised(u, p)


def _raised(u: Span, p: float) -> Span:
    """u^p for p >= 0; where the exponent is not whole u >= 0, or the formula has no value."""
    if p.is_integer():
        u = u if p % 2 else u.size()
        return Span.of(*(end ** int(p) for end in u.ends)) if p else _ONE
    return Span.of(*(_positive(end, arb(dyadic(p))) for end in u.ends)) if _defined(u, 0) else EVERYTHING


def _positive(end: arb, p: arb) -> arb:
    """end^p for p > 0; 0 for what is not positive."""
    return (end.log() * p).exp() if end > 0 else arb(0)


def _factors(node: ast.expr) -> Iterator[ast.expr]:
    """The factors of a product, which may be one."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            yield from _factors(left)
            yield from _factors(right)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield ast.Constant(value=-1)
            yield from _factors(operand)
        case _:
            yield node


def _product(factors: list[ast.expr], x: Span) -> Span:
    """A product; u^p log(c u)^k is bounded for constants p, k > 0 and c, though its logarithm is not."""
    whole, left = _ONE, list(factors)
    for factor in factors:
        power, k = (factor.left, _whole(factor.right)) if _is_raised(factor) else (factor, 1)
        match power:
            case ast.Call(func=ast.Name(id="log" | "log2" | "log10" as name), args=[argument]) if k:
                inner, c = _core(argument)
                partner = next((one for one in left if _is_power(one, inner)), None)
                if partner is None or _values(argument, x).high < 0:  # or no logarithm
                    continue
                left = [one for one in left if one is not factor and one is not partner]
                base, p = _root(partner)
                lines = _line(argument), _line(base)
                if lines[0] is not None and lines[1] is not None and lines[1][0] != 0:
                    c = arb(lines[0][0] / lines[1][0])
                v, q = _values(base, x), arb(dyadic(p)) / k  # u^p log(u)^k = (u^q log(u))^k
                u, unit = (
                    v.size(),
                    Span.of(arb({"log2": 2, "log10": 10}[name]).log() if name != "log" else arb(1)),
                )
                sign = _sign(v, p)  # of u^p with a logarithm of abs(u)
                own = _with_logarithm(u, q) + Span.of(*(_positive(end, q) for end in u.ends)) * Span.of(
                    abs(c).log()
                )
                whole *= _raised(own * unit.inverse(), float(k)) * sign
            case _:
                pass
    for one in left:
        whole *= _values(one, x)
    return whole


def _is_raised(node: ast.expr) -> TypeGuard[ast.BinOp]:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)


def _whole(node: ast.expr) -> int:
    """A positive whole exponent; 0 for any other."""
    match node:
        case ast.Constant(value=int() | float() as k) if k > 0 and k == int(k):
            return int(k)
        case _:
            return 0


def _sign(v: Span, p: float) -> Span:
    """Of v^p."""
    if v.low >= 0:
        return _ONE
    one = v.high <= 0 and p.is_integer()
    return Span.of(arb(-1 if p % 2 else 1)) if one else Span.of(arb(-1), arb(1))


def _is_power(node: ast.expr, u: ast.expr) -> bool:
    """Whether it is u^p with p > 0, up to signs."""
    base, p = _root(node)
    return p > 0 and _unsigned(base) == _unsigned(u)


def _unsigned(node: ast.expr) -> str:
    """What tells a part of a formula from others, but for its sign: x and -x, x - 1 and 1 - x, abs(x), multiples."""
    line = _line(node)
    if line is not None and line[0] != 0:
        return f"a line through {line[1] / line[0]}"
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _unsigned(operand)
        case ast.BinOp(left=ast.Constant(value=0), op=ast.Sub(), right=right):
            return _unsigned(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return " - ".join(sorted((ast.dump(left), ast.dump(right))))
        case ast.BinOp(op=ast.Mult()) if abs((found := _core(node))[1]) == 1:
            return _unsigned(found[0])
        case ast.Call(func=ast.Name(id="abs"), args=[argument]):
            return _unsigned(argument)
        case _:
            return ast.dump(node)


def _core(node: ast.expr) -> tuple[ast.expr, arb]:
    """u and c of c u, with a constant c other than 0."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right) if (c := _number(right)) != 0:
            return left, c
        case ast.BinOp(left=left, op=ast.Mult(), right=right) if (c := _number(left)) != 0:
            return right, c
        case ast.BinOp(left=left, op=ast.Div(), right=right) if (c := _number(right)) != 0:
            return left, 1 / c
        case _:
            return node, arb(1)


def _number(node: ast.expr) -> arb:
    """The number that it is; 0 for anything else."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return arb(dyadic(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case _:
            return arb(0)


def _root(node: ast.expr) -> tuple[ast.expr, float]:
    """u and p of u^p."""
    match node:
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int() | float() as p)):
            return base, float(p)
        case ast.Call(func=ast.Name(id="sqrt"), args=[base]):
            return base, 0.5
        case _:
            return node, 1.0


def _with_logarithm(u: Span, p: arb) -> Span:
    """u^p log(u) for u >= 0: it falls to -1/(p e) at exp(-1/p), and rises from there."""
    lowest = (-1 / p).exp()
    ends = [_positive(end, p) * end.log() if end > 0 else arb(0) for end in u.ends]
    turns = u.low <= lowest.upper() and u.high >= lowest.lower()
    return Span.of(*ends, *([-1 / (p * arb(1).exp())] if turns else []))
