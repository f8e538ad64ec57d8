"""Targets from formulas in x: parsed, never run as code, and enclosed in ball arithmetic."""

from __future__ import annotations

import ast
import copy
import operator
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from flint import arb, arb_series, ctx, fmpq

from approx.domain import Domain
from approx.dyadic import dyadic, precision
from approx.functions import BALLS, EXACT, Functions
from approx.landmarks import landmarks
from approx.operands import Quotient
from approx.spans import enclosure
from approx.target import Expression, Target, points
from approx.zeros import Zero, bisected, multiplicity, quotient, vanishes

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_NAMES = (
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "expm1",
    "log1p",
    "log2",
    "log10",
    "gamma",
    "lgamma",
    "sigmoid",
    "normal_cdf",
)


#: Functions that are written in others
_WRITTEN = {
    "relu": "max(x, 0)",
    "gelu": "x*normal_cdf(x)",
    "silu": "x*sigmoid(x)",
    "softplus": "log1p(exp(x))",
}

#: Relative radius up to which balls do well enough
_NARROW = 1e-6


def formula(
    text: str, domain: Any = (-1, 1), kinks: Iterable[float] = (), jumps: Iterable[float] = ()
) -> Target:
    """A target from a formula in x such as "exp(-x**2)", with an enclosure.

    Known are + - * / **, numbers (read as float64), pi, e, abs, max, min (of two) and the functions exp log
    sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc expm1 log1p log2 log10 gamma lgamma (of
    positive numbers) sigmoid normal_cdf relu gelu silu softplus. A power has x in its base (any real exponent;
    x >= 0 then, unless it is an integer), in its exponent, or in both. Where `abs`, `max` and
    `min` fold is found by their arguments' signs on a grid; folds that lie closer than a thousandth of the domain need
    naming.
    A quotient is continued over a float64 zero that its two parts share, and where a part is infinite and the whole is
    not the formula has its limit: x*log(x), exp(-1/x), x**x at 0.

    Args:
        text: the formula.
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
        kinks: where it folds; by default what is found.
        jumps: where it jumps; a fold at which it has two limits, as x/abs(x) has at 0, is found to be one.

    Raises:
        ValueError: for anything else; the text is parsed, never evaluated as code.
    """
    tree = _parsed(text)
    inner = _completed(_compile(tree, text, Domain(domain)), tree, text, Domain(domain))
    kinks, jumps = points(kinks, "kinks"), points(jumps, "jumps")

    def run(x: Any) -> Any:
        value = inner(x)
        return value if isinstance(value, arb) else value + 0 * x  # a constant formula takes the shape of x

    given = _parameters(text, kinks, jumps)
    if not kinks:
        folds = _folds(tree, text, domain)
        jumps = sorted({*jumps, *(c for c in folds if _is_jump(run, c, Domain(domain)))})
        kinks = [c for c in folds if c not in jumps]
    target = Target.of_branches(
        "formula",
        run,
        [run] * (len({*kinks, *jumps}) + 1),
        domain,
        formula,
        params=_parameters(text, kinks, jumps),
        given=given,
        kinks=kinks,
        jumps=jumps,
    )
    with np.errstate(all="ignore"):
        sample = np.concatenate([np.linspace(a, b, 33) for a, b in target.domain])
        try:
            values = target(sample)
        except ArithmeticError as error:  # of numbers in it
            raise ValueError(f"formula {text!r} is not a function: {error}") from None
        if not np.all(np.isfinite(np.broadcast_to(values, sample.shape))):
            raise ValueError(
                f"formula {text!r} is not finite on all of {list(target.domain)}: change domain="
            )
    return target


def _parameters(text: str, kinks: list[float], jumps: list[float]) -> dict[str, Any]:
    return {"text": text} | ({"kinks": kinks} if kinks else {}) | ({"jumps": jumps} if jumps else {})


def _is_jump(f: Expression, c: float, domain: Domain) -> bool:
    """Whether a function has two limits at a fold, as x/abs(x) has: what it changes by does not shrink with the way."""
    low, high = domain.hull
    far = 1e-9 * (high - low)
    with np.errstate(all="ignore"):
        x = np.array([np.nextafter(c, low), np.nextafter(c, high), max(c - far, low), min(c + far, high)])
        a, b, left, right = np.broadcast_to(np.asarray(f(x), dtype=float), x.shape)
        return bool(abs(b - a) > max(0.9 * abs(right - left), 1e-6 * max(abs(left), abs(right))))


def _folds(tree: ast.AST, text: str, domain: Any) -> list[float]:
    """Where an argument of `abs`, or the difference of those of `max` and `min`, changes its sign inside the domain."""
    found: set[float] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="abs"), args=[argument]):
                inside = _compile(argument, text)
            case ast.Call(func=ast.Name(id="max" | "min"), args=[left, right]):
                inside = _compile(ast.BinOp(left, ast.Sub(), right), text)
            case _:
                continue

        def argument_at(x: np.ndarray, inside: Expression = inside) -> np.ndarray:
            with np.errstate(all="ignore"):
                return np.broadcast_to(np.asarray(inside(x), dtype=float), x.shape)

        for low, high in Domain(domain):
            x = np.r_[np.linspace(low, high, 1025), 0.0 if low <= 0 <= high else low]
            if (
                max(-low, high) < 1e300
            ):  # where it does not overflow; between two turns there is one change at most
                x = np.r_[x, landmarks(Target(inside, (low, high), enclose=inside))]
            x = np.unique(x)
            sign = np.sign(argument_at(x))
            found |= {float(v) for v in x[1:-1][(sign[1:-1] == 0) & (sign[:-2] * sign[2:] < 0)]}
            ends = np.flatnonzero(sign[1:] * sign[:-1] < 0)
            found |= {bisected(argument_at, float(x[k]), float(x[k + 1])) for k in ends}
    return sorted(found)


def expression(text: str) -> Expression:
    """A formula without a domain, for complex numbers: it runs on acb and acb_series, and is checked nowhere.

    Args:
        text: the formula, as for `formula`.

    Returns:
        The function.

    Raises:
        ValueError: for what is not known, or not analytic: abs, max and min.
    """
    tree = _parsed(text)
    inner = _compile(tree, text)
    if folds := {"abs", "max", "min"} & _names(tree):
        raise ValueError(f"formula {text!r}: {', '.join(sorted(folds))} is not analytic in the complex plane")
    return _Everywhere(text, inner)


class _Everywhere(NamedTuple):
    """A formula on complex numbers, which is pickled as its text."""

    text: str
    inner: Expression

    def __call__(self, x: Any) -> Any:
        return self.inner(x) + 0 * x

    def __reduce__(self) -> tuple[Any, ...]:
        return expression, (self.text,)


def constant(text: str) -> float:
    """A number from a formula without x, such as "pi/2".

    Args:
        text: the formula.

    Returns:
        Its value.

    Raises:
        ValueError: if it does not parse, or has an x.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"{text!r} is not a number") from None
    if "x" in _names(tree):
        raise ValueError(f"{text!r} is not a number: it has an x")
    try:
        return float(_compile(tree, text)(0.0))
    except ArithmeticError as error:
        raise ValueError(f"{text!r} is not a number: {error}") from None


class _Written(ast.NodeTransformer):
    """Puts what a function is written in, or an argument, in its place."""

    def __init__(self, argument: ast.expr | None = None):
        self.argument = argument

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node if self.argument is None or node.id != "x" else copy.deepcopy(self.argument)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _WRITTEN:
                return _Written(argument).visit(ast.parse(_WRITTEN[name], mode="eval").body)
            case _:
                return node


def _parsed(text: str) -> ast.expr:
    try:
        return _Written().visit(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"formula {text!r} does not parse: {error.msg}") from None


def _compile(node: ast.AST, text: str, domain: Domain | None = None) -> Expression:
    """The function of a syntax tree; with a domain, quotients are continued over the zeros there that they share."""

    def compiled(part: ast.AST) -> Expression:
        return _compile(part, text, domain)

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return lambda x, c=dyadic(value): c if isinstance(x, EXACT) else float(value)
        case ast.Name(id="x"):
            return lambda x: x
        case ast.Name(id="pi"):
            return lambda x: arb.pi() if isinstance(x, BALLS) else np.pi
        case ast.Name(id="e"):
            return lambda x: arb(1).exp() if isinstance(x, BALLS) else np.e
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = compiled(operand)
            return lambda x: -inner(x)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent) if "x" not in _names(exponent):
            return _power(compiled(base), _compile(exponent, text), text)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent) if "x" not in _names(base):
            number, inner = float(_compile(base, text)(0.0)), compiled(exponent)
            if not number > 0:
                raise ValueError(f"formula {text!r}: a power with x in its exponent needs a positive base")
            return lambda x: _exponential(number, _lifted(inner(x), x))
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _to_the(compiled(base), compiled(exponent))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b, run = compiled(left), compiled(right), _OPERATORS[type(op)]
            if isinstance(op, ast.Div) and domain is not None and (shared := _shared_zeros(a, b, domain)):
                return _continued(a, b, shared, min(high - low for low, high in domain))
            return lambda x: run(a(x), b(x))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in (*_NAMES, "abs"):
            inner, function = (
                compiled(argument),
                _absolute if name == "abs" else getattr(Functions, name),
            )
            return lambda x: function(_lifted(inner(x), x))
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=[left, right], keywords=[]):
            a, b, larger = compiled(left), compiled(right), name == "max"
            return lambda x: _extreme(_lifted(a(x), x), _lifted(b(x), x), larger)
        case _:
            pass
    power = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor)
    known = f"known are + - * / **, x, numbers, pi, e, abs, max, min, {', '.join((*_NAMES, *_WRITTEN))}"
    hint = "a power is written x**2" if power else known
    raise ValueError(f"formula {text!r}: {ast.unparse(node)!r} is not known; {hint}")


class _Numbers(ast.NodeTransformer):
    """Makes constants of exponents without an x, by the arithmetic that the compiled formula does."""

    def __init__(self, text: str):
        self.text = text

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        if isinstance(node.op, ast.Pow) and "x" not in _names(node.right):
            node.right = ast.Constant(value=float(_compile(node.right, self.text)(0.0)))
        self.generic_visit(node)
        return node


def _completed(inner: Expression, tree: ast.expr, text: str, domain: Domain) -> Expression:
    """A formula with its limits at points where a part of it is infinite, and with bounds around them."""
    tree = _Numbers(text).visit(copy.deepcopy(tree))

    def run(x: Any) -> Any:
        if isinstance(x, arb):
            value = arb(inner(x))
            if value.is_finite() and (x.is_exact() or x.rad() <= _NARROW * abs(x)):
                return value
            bounds = enclosure(tree, domain, x)
            if not bounds.is_finite():
                return value
            return value.intersection(bounds) if value.is_finite() else bounds
        if isinstance(x, EXACT):
            return inner(x)
        with np.errstate(all="ignore"):
            value = np.asarray(inner(x), dtype=float)
        if np.all(np.isfinite(value)):
            return value
        value = np.array(np.broadcast_to(value, np.shape(x)))
        with precision(128):
            for place in map(tuple, np.argwhere(~np.isfinite(value))):
                point = arb(float(np.asarray(x)[place]))
                limit = arb(inner(point))  # only float64 overflowed, perhaps
                if not limit.is_finite():
                    limit = enclosure(tree, domain, point)
                if limit.is_finite() and limit.rad() <= 1e-17 * (1 + abs(limit)):
                    value[place] = float(limit.mid())
        return value

    return run


def _shared_zeros(a: Expression, b: Expression, domain: Domain) -> tuple[Zero, ...]:
    """The float64 zeros of b in a domain that are zeros of a as well: where a/b may have a limit."""

    places: set[float] = set()
    for part in (a, b):  # abs(x - c) has a zero without a change of sign

        def floats(x: np.ndarray, part: Expression = part) -> np.ndarray:
            with np.errstate(all="ignore"):
                return np.broadcast_to(np.asarray(part(x), dtype=float), x.shape)

        for low, high in domain:
            x = np.unique(np.r_[np.linspace(low, high, 1025), 0.0 if low <= 0 <= high else low])
            f = floats(x)
            places |= {float(v) for v in x[f == 0]}
            changes = np.flatnonzero(np.sign(f[1:]) * np.sign(f[:-1]) < 0)
            places |= {bisected(floats, float(x[k]), float(x[k + 1])) for k in changes}
    found: list[Zero] = []
    for place in sorted(places):
        with precision(256):
            if not arb(b(arb(place))).contains(0):
                continue
        with suppress(ValueError):  # a zero that is not multiple, such as that of sqrt(x)
            zero = Zero(place, multiplicity(b, place))
            if vanishes(a, zero):
                found.append(zero)
    return tuple(found)


def _continued(a: Expression, b: Expression, zeros: tuple[Zero, ...], width: float) -> Expression:
    """a/b, where both are divided by (x - place)^k near a zero that they share."""

    def balls(x: Any) -> Any:
        near = x[0] if isinstance(x, arb_series) else x
        lost = 0
        for zero in zeros:
            gap = near - arb(zero.exact)
            if gap.contains(0):
                return quotient(a, x, zero) / quotient(b, x, zero)
            lost = max(lost, zero.multiplicity * int(-np.log2(float(abs(gap).lower()) + 1e-320)))
        with precision(ctx.prec + lost):  # both cancel beside a zero
            return a(x) / b(x)

    def run(x: Any) -> Any:
        if isinstance(x, arb | arb_series):
            return balls(x)
        if isinstance(x, EXACT):
            return a(x) / b(x)
        x = np.asarray(x, dtype=float)
        with np.errstate(all="ignore"):
            value = np.array(np.broadcast_to(np.asarray(a(x) / b(x), dtype=float), x.shape), ndmin=1)
        # next to a zero float64 sees its own cancellation
        close = np.logical_or.reduce([np.abs(x - zero.place) < 1e-2 * width for zero in zeros]).reshape(
            value.shape
        )
        if np.any(close):
            with precision(256):
                value[close] = [float(balls(arb(float(v)))) for v in np.atleast_1d(x)[close]]
        return value.reshape(x.shape)

    return run


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _lifted(value: Any, x: Any) -> Any:
    """Constants inside a function call become balls when x is one."""
    return arb(value) if isinstance(value, fmpq) and isinstance(x, BALLS) else value


def _power(base: Expression, exponent: Expression, text: str) -> Expression:
    number = float(exponent(0.0))
    if not np.isfinite(number) or abs(number) > 1 << 20:
        raise ValueError(f"formula {text!r}: an exponent must be a finite number")
    twice = 2 * number
    if twice != int(twice):
        return lambda x: Functions.power(_lifted(base(x), x), number)
    whole, half = divmod(int(twice), 2)

    def run(x: Any) -> Any:
        b = _lifted(base(x), x)
        value = b ** abs(whole) if whole >= 0 else 1 / b ** abs(whole)
        return value * Functions.sqrt(b) if half else value

    return run


def _exponential(base: float, x: Any) -> Any:
    return (x * arb(base).log()).exp() if isinstance(x, BALLS) else np.power(base, x)


def _to_the(base: Expression, exponent: Expression) -> Expression:
    """A positive base to an exponent, with an x in both."""

    def run(x: Any) -> Any:
        a, b = _lifted(base(x), x), _lifted(exponent(x), x)
        return (Functions.log(a) * b).exp() if isinstance(x, BALLS) else np.power(a, b)

    return run


def _extreme(a: Any, b: Any, larger: bool) -> Any:
    """max(a, b) or min(a, b); balls that overlap are joined, and series have to be apart."""
    if isinstance(a, Quotient) or isinstance(b, Quotient):
        return a if (a - b).positive() == larger else b
    if isinstance(a, arb_series) or isinstance(b, arb_series):
        heads = [v[0] if isinstance(v, arb_series) else arb(v) for v in (a, b)]
        below = heads[0] - heads[1]
    elif isinstance(a, arb) or isinstance(b, arb):
        return arb(a).max(arb(b)) if larger else arb(a).min(arb(b))
    else:
        return np.maximum(a, b) if larger else np.minimum(a, b)
    if below <= 0:
        return b if larger else a
    return (a if larger else b) if below >= 0 else arb_series([arb.nan()])


def _absolute(x: Any) -> Any:
    if isinstance(x, arb_series):
        return x if x[0] >= 0 else -x if x[0] <= 0 else arb_series([arb.nan()])
    return abs(x)
