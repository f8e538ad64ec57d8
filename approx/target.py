"""Targets: the functions to be approximated, with their domain, weight, kinks and jumps.

One definition serves float64 arrays, high-precision fitting and rigorous enclosures, so that the three
cannot drift apart: each piece of a target between two breaks is one analytic expression, written against
the `Functions` that exist for numpy arrays and for flint's arb, acb and arb_series alike.
"""

from __future__ import annotations

import ast
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flint import acb, acb_series, arb, arb_series, fmpq, fmpq_poly
from scipy import special

from approx.dyadic import dyadic
from approx.rational import Domain, as_domain

BALLS = (arb, acb, arb_series, acb_series)


class Functions:
    """Elementary functions on numpy arrays and on flint's balls and series (arb, acb, arb_series)."""

    @staticmethod
    def _through(name: str, on_arrays: Callable) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            return getattr(x, name)() if isinstance(x, BALLS) else on_arrays(x)

        return call

    exp = _through("exp", np.exp)
    log = _through("log", np.log)
    sin = _through("sin", np.sin)
    cos = _through("cos", np.cos)
    atan = _through("atan", np.arctan)
    erf = _through("erf", special.erf)

    @staticmethod
    def sqrt(x: Any) -> Any:
        if isinstance(x, arb) and x.contains(0):
            # where the target is defined the argument is not negative, a ball around it may reach below 0
            x = x.nonnegative_part()
        return x.sqrt() if isinstance(x, BALLS) else np.sqrt(x)

    @staticmethod
    def tan(x: Any) -> Any:
        return x.tan() if isinstance(x, BALLS) else np.tan(x)

    @staticmethod
    def sigmoid(x: Any) -> Any:
        return 1 / (1 + (-x).exp()) if isinstance(x, BALLS) else special.expit(x)

    @staticmethod
    def tanh(x: Any) -> Any:
        if isinstance(x, arb_series | acb_series):  # these have no tanh of their own
            return 1 - 2 / ((2 * x).exp() + 1)
        if isinstance(x, arb | acb):
            return x.tanh()
        return np.tanh(x)

    @staticmethod
    def sinh(x: Any) -> Any:
        return (x.exp() - (-x).exp()) / 2 if isinstance(x, BALLS) else np.sinh(x)

    @staticmethod
    def cosh(x: Any) -> Any:
        return (x.exp() + (-x).exp()) / 2 if isinstance(x, BALLS) else np.cosh(x)

    @staticmethod
    def normal_cdf(x: Any) -> Any:
        """The standard normal distribution function."""
        return (-x / arb(2).sqrt()).erfc() / 2 if isinstance(x, BALLS) else special.ndtr(x)


Expression = Callable[[Any], Any]


@dataclass(frozen=True)
class Piece:
    """A part [a, b] of a target's domain on which it is one analytic expression.

    `piece(x)` runs on float arrays, arb, acb and arb_series. `polynomial` is the exact polynomial, where it
    is one.
    """

    a: fmpq
    b: fmpq
    expression: Expression
    polynomial: fmpq_poly | None = None

    def __call__(self, x: Any) -> Any:
        if self.polynomial is None:
            return self.expression(x)
        if isinstance(x, BALLS):
            return _horner(self.polynomial.coeffs(), x)
        return _horner([float(c) for c in self.polynomial.coeffs()], np.asarray(x, dtype=float))


def _horner(coefficients: list, x: Any) -> Any:
    value = 0 * x
    for c in reversed(coefficients):
        value = value * x + c
    return value


Branch = Expression | fmpq_poly


class Target:
    """A function to approximate, on an interval or a union of intervals.

    Parameters
    ----------
    f: callable on float64 arrays of any shape.
    domain: (a, b), or [(a, b), (c, d), ...] for a union with gaps.
    weight: positive callable on arrays, or "relative" for 1/|f|; the fitters minimise max |w (f - r)|.
    kinks, jumps: points where f has a kink or a jump: pieces, sampling and proofs split there.
    name, params: what `to_json` writes; only built-ins and formulas can be written.
    enclose: the same function on `flint.arb` and, for certificates, `flint.arb_series`: without it fits
        stop at double precision and bounds are estimates.

    Raises ValueError for a malformed domain, or kinks and jumps that are not finite.
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        domain: Any = (-1, 1),
        weight: Callable[[Any], Any] | str | None = None,
        kinks: Iterable[float] = (),
        jumps: Iterable[float] = (),
        name: str = "user",
        params: Mapping[str, Any] | None = None,
        enclose: Expression | None = None,
        _branches: list[Branch] | None = None,
    ) -> None:
        if not callable(f):
            raise ValueError(
                "f must be callable on float arrays; for a formula use approx.formula('exp(-x**2)')"
            )
        if isinstance(weight, str) and weight != "relative":
            raise ValueError(f"weight={weight!r}: expected a callable, 'relative' or None")
        self.domain: Domain = as_domain(domain)
        self.weight = weight
        self.kinks = tuple(sorted(float(x) for x in kinks))
        self.jumps = tuple(sorted(float(x) for x in jumps))
        if not np.all(np.isfinite(self.breaks)):
            raise ValueError("kinks and jumps must be finite numbers")
        self.name = name
        self.params = dict(params or {})
        self._f = f
        self._branches: list[Branch] | None = _branches
        if _branches is None and enclose is not None:
            self._branches = [enclose] * (len(self.breaks) + 1)
        if self._branches is not None and len(self._branches) != len(self.breaks) + 1:
            raise ValueError("a target needs one branch more than it has breaks")

    @cached_property
    def breaks(self) -> tuple[float, ...]:
        return tuple(sorted({*self.kinks, *self.jumps}))

    @property
    def hull(self) -> tuple[float, float]:
        return self.domain[0][0], self.domain[-1][1]

    @property
    def enclosed(self) -> bool:
        """Whether the target can be evaluated in ball arithmetic."""
        return self._branches is not None

    def __call__(self, x: Any) -> Any:
        """f on floats: float64 of the shape of x; on arb, acb or arb_series: the branch that x's midpoint
        lies in.
        """
        if isinstance(x, BALLS):
            return self._branch_at(x)(x)
        return self._f(np.asarray(x, dtype=float))

    def _branch_at(self, x: Any) -> Expression:
        if self._branches is None:
            raise ValueError(f"target {self.name!r} has no version for ball arithmetic: give enclose=")
        point = x[0] if isinstance(x, arb_series | acb_series) else x
        at = float((point.real if isinstance(point, acb) else point).mid())
        return _run(self._branches[bisect_left(self.breaks, at)])

    @cached_property
    def _pieces(self) -> list[Piece]:
        branches = self._branches
        if branches is None:
            raise ValueError(f"target {self.name!r} has no version for ball arithmetic: give enclose=")
        found = []
        for low, high in self.domain:
            inner = [x for x in self.breaks if low < x < high]
            for a, b in zip([low, *inner], [*inner, high], strict=True):
                branch = branches[bisect_right(self.breaks, a)]
                polynomial = branch if isinstance(branch, fmpq_poly) else None
                found.append(Piece(dyadic(a), dyadic(b), _run(branch), polynomial))
        return found

    def pieces(self) -> list[Piece]:
        """The analytic pieces, left to right, split at gaps, kinks and jumps. At a jump inside the domain
        each side has its own limit, so an error measured over the pieces is the supremum.

        Raises ValueError for a callable without `enclose=`.
        """
        return list(self._pieces)

    def weight_at(self, x: Any) -> Any:
        """The weight at x, floats or balls; 1 where there is none."""
        if self.weight is None:
            return np.ones_like(np.asarray(x, dtype=float)) if not isinstance(x, BALLS) else 0 * x + 1
        if callable(self.weight):
            return self.weight(x)
        return 1 / abs(self(x))

    def with_domain(self, domain: Any) -> Target:
        """The same function on another domain."""
        return self._copy(domain=domain)

    def with_weight(self, weight: Callable[[Any], Any] | str | None) -> Target:
        """The same function with another weight."""
        return self._copy(weight=weight)

    def _copy(self, **changes: Any) -> Target:
        now = {"domain": self.domain, "weight": self.weight} | changes
        return Target(
            self._f,
            now["domain"],
            now["weight"],
            self.kinks,
            self.jumps,
            self.name,
            self.params,
            _branches=self._branches,
        )

    def to_json(self) -> dict[str, Any]:
        """Name, parameters and domain of a built-in or a formula.

        Raises ValueError for a user's callable (code cannot be kept in a file) and a callable weight.
        """
        if self.name not in _BUILT_IN:
            raise ValueError(
                f"target {self.name!r} is a callable and cannot be written: use a formula or a built-in"
            )
        if callable(self.weight):
            raise ValueError("a callable weight cannot be written to a file: use weight='relative' or None")
        return {
            "name": self.name,
            "params": {k: _encode(v) for k, v in self.params.items()},
            "domain": [[a.hex(), b.hex()] for a, b in self.domain],
            "weight": self.weight,
        }

    @staticmethod
    def from_json(data: Any) -> Target:
        """The inverse of `to_json`. Raises ValueError that says what is wrong."""
        try:
            make = _BUILT_IN[data["name"]]
            params = {k: v if k == "text" else _decode(v) for k, v in data["params"].items()}
            domain = [(float.fromhex(a), float.fromhex(b)) for a, b in data["domain"]]
            return make(**params, domain=domain).with_weight(data["weight"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed record of a target: {type(error).__name__}: {error}") from None

    def __repr__(self) -> str:
        params = ", ".join(f"{k}={v!r}" for k, v in self.params.items())
        return f"<Target {self.name}({params}) on {' u '.join(f'[{a:g}, {b:g}]' for a, b in self.domain)}>"


def check_kind(target: Any) -> None:
    """Raise ValueError unless this is a Target."""
    if not isinstance(target, Target):
        raise ValueError(
            f"target={target!r:.80}: expected an approx.Target such as approx.relu(), "
            "approx.formula('exp(-x**2)') or approx.Target(f, domain=(-1, 1))"
        )


def _encode(value: Any) -> Any:
    return (
        [v.hex() for v in value]
        if isinstance(value, list)
        else value
        if isinstance(value, str)
        else value.hex()
    )


def _decode(item: Any) -> Any:
    return [float.fromhex(v) for v in item] if isinstance(item, list) else float.fromhex(item)


def _run(branch: Branch) -> Expression:
    if not isinstance(branch, fmpq_poly):
        return branch
    coefficients = branch.coeffs()
    return lambda x: _horner(coefficients, x)


def _built_in(name: str, f: Expression, branches: list[Branch], domain: Any, **kwargs: Any) -> Target:
    return Target(f, domain, name=name, _branches=branches, **kwargs)


_ZERO, _ONE, _X = fmpq_poly([]), fmpq_poly([1]), fmpq_poly([0, 1])


def relu(domain: Any = (-1, 1)) -> Target:
    """max(x, 0)."""
    return _built_in("relu", lambda x: np.maximum(x, 0.0), [_ZERO, _X], domain, kinks=(0,))


def absolute(domain: Any = (-1, 1)) -> Target:
    """|x|."""
    return _built_in("absolute", np.abs, [-_X, _X], domain, kinks=(0,))


def sqrt(domain: Any = (0, 1)) -> Target:
    """The square root. Raises ValueError when the domain reaches below 0."""
    if as_domain(domain)[0][0] < 0:
        raise ValueError(f"domain={domain!r}: sqrt needs a domain in [0, inf)")
    return _built_in("sqrt", np.sqrt, [Functions.sqrt], domain)


def _without(domain: Any, low: float, high: float, names: str) -> list[tuple[float, float]]:
    """The domain without the open interval (low, high) around a jump."""
    domain = as_domain(domain)
    a, b = domain[0][0], domain[-1][1]
    if not a < low < high < b:
        raise ValueError(f"{names}: the gap from {low} to {high} must not be empty and lie inside ({a}, {b})")
    parts = [part for x, y in domain for part in ((x, min(y, low)), (max(x, high), y))]
    return [(x, y) for x, y in parts if x < y]


def sign(delta: float = 0.1, domain: Any = (-1, 1)) -> Target:
    """sign(x) on the domain without (-delta, delta). Raises ValueError when this gap is not inside it."""
    return _sign(delta, _without(domain, -delta, delta, f"delta={delta}"))


def _sign(delta: float, domain: Any) -> Target:
    return _built_in("sign", np.sign, [-_ONE, _ONE], domain, jumps=(0,), params={"delta": float(delta)})


def gate(theta: float = 0.0, margin: float = 0.01, domain: Any = (-1, 1)) -> Target:
    """The Heaviside gate 1[h > theta] on the domain without (theta - margin, theta + margin).

    Raises ValueError when this gap is not inside the domain. `with_domain` puts the jump back: no rational
    function is closer to it than half its height.
    """
    names = f"theta={theta}, margin={margin}"
    return _gate(theta, margin, _without(domain, theta - margin, theta + margin, names))


def _gate(theta: float, margin: float, domain: Any) -> Target:
    params = {"theta": float(theta), "margin": float(margin)}
    return _built_in(
        "gate", lambda x: (x > theta) * 1.0, [_ZERO, _ONE], domain, jumps=(theta,), params=params
    )


def jump_relu(theta: float = 0.1, margin: float = 0.01, domain: Any = (-1, 1)) -> Target:
    """h 1[h > theta] on the domain without (theta - margin, theta + margin). Raises ValueError as `gate`
    does.
    """
    names = f"theta={theta}, margin={margin}"
    return _jump_relu(theta, margin, _without(domain, theta - margin, theta + margin, names))


def _jump_relu(theta: float, margin: float, domain: Any) -> Target:
    params = {"theta": float(theta), "margin": float(margin)}
    return _built_in(
        "jump_relu", lambda x: x * (x > theta), [_ZERO, _X], domain, jumps=(theta,), params=params
    )


def bi_jump_relu(theta: float = 0.1, margin: float = 0.01, domain: Any = (-1, 1)) -> Target:
    """h 1[|h| > theta] (arXiv 2605.28149) on the domain without gaps of theta +- margin on either side of 0.

    On a symmetric domain it is odd, and so is its best approximation. Raises ValueError as `gate` does, and where the
    two gaps leave nothing of the dead zone between them.
    """
    names = f"theta={theta}, margin={margin}"
    if not theta > margin:
        raise ValueError(
            f"{names}: theta must be larger than margin, or no dead zone is left between the gaps"
        )
    for jump in (-theta, theta):
        domain = _without(domain, jump - margin, jump + margin, names)
    return _bi_jump_relu(theta, margin, domain)


def _bi_jump_relu(theta: float, margin: float, domain: Any) -> Target:
    return _built_in(
        "bi_jump_relu",
        lambda x: x * (np.abs(x) > theta),
        [_X, _ZERO, _X],
        domain,
        jumps=(-theta, theta),
        params={"theta": float(theta), "margin": float(margin)},
    )


def exp(domain: Any = (-1, 1)) -> Target:
    """The exponential."""
    return _built_in("exp", np.exp, [Functions.exp], domain)


def tanh(domain: Any = (-1, 1)) -> Target:
    """The hyperbolic tangent."""
    return _built_in("tanh", np.tanh, [Functions.tanh], domain)


def sigmoid(domain: Any = (-1, 1)) -> Target:
    """1/(1 + exp(-x))."""
    return _built_in("sigmoid", special.expit, [Functions.sigmoid], domain)


def _silu(x: Any) -> Any:
    return x * Functions.sigmoid(x)


def _gelu(x: Any) -> Any:
    return x * Functions.normal_cdf(x)


def silu(domain: Any = (-1, 1)) -> Target:
    """x/(1 + exp(-x)), also called swish."""
    return _built_in("silu", _silu, [_silu], domain)


def gelu(domain: Any = (-1, 1)) -> Target:
    """x times the standard normal distribution function."""
    return _built_in("gelu", _gelu, [_gelu], domain)


# -- formulas

_OPERATORS: dict[type, Callable] = {
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
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "erf",
    "sigmoid",
    "normal_cdf",
)


def formula(
    text: str, domain: Any = (-1, 1), kinks: Iterable[float] = (), jumps: Iterable[float] = ()
) -> Target:
    """A target from a formula in x such as "exp(-x**2)", with an enclosure.

    Known are + - * / **, numbers (read as float64), pi, e, abs and the functions exp log sqrt sin cos tan
    atan sinh cosh tanh erf sigmoid normal_cdf. An exponent must be an integer or a half-integer. `abs` needs
    its kinks named.

    Raises ValueError for anything else; the text is parsed, never evaluated as code.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"formula {text!r} does not parse: {error.msg}") from None
    inner = _compile(tree, text)
    kinks, jumps = sorted(float(k) for k in kinks), sorted(float(k) for k in jumps)

    def run(x: Any) -> Any:  # a constant formula takes the shape of x
        return inner(x) + 0 * x

    if "abs" in _names(tree) and not kinks:
        raise ValueError(f"formula {text!r} has abs: name the points where it folds in kinks=")
    params = {"text": text} | ({"kinks": kinks} if kinks else {}) | ({"jumps": jumps} if jumps else {})
    target = Target(run, domain, kinks=kinks, jumps=jumps, name="formula", params=params, enclose=run)
    with np.errstate(all="ignore"):
        sample = np.concatenate([np.linspace(a, b, 33) for a, b in target.domain])
        if not np.all(np.isfinite(np.broadcast_to(target(sample), sample.shape))):
            raise ValueError(
                f"formula {text!r} is not finite on all of {list(target.domain)}: change domain="
            )
    return target


def _compile(node: ast.AST, text: str) -> Expression:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return lambda x, c=dyadic(value): c if isinstance(x, BALLS) else float(value)
        case ast.Name(id="x"):
            return lambda x: x
        case ast.Name(id="pi"):
            return lambda x: arb.pi() if isinstance(x, BALLS) else np.pi
        case ast.Name(id="e"):
            return lambda x: arb(1).exp() if isinstance(x, BALLS) else np.e
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand, text)
            return lambda x: -inner(x)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent) if "x" not in _names(exponent):
            return _power(_compile(base, text), _compile(exponent, text), text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b, run = _compile(left, text), _compile(right, text), _OPERATORS[type(op)]
            return lambda x: run(a(x), b(x))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in (*_NAMES, "abs"):
            inner, function = (
                _compile(argument, text),
                _absolute if name == "abs" else getattr(Functions, name),
            )
            return lambda x: function(_lifted(inner(x), x))
    raise ValueError(
        f"formula {text!r}: {ast.unparse(node)!r} is not known; see `help(approx.formula)` for what is"
    )


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _lifted(value: Any, x: Any) -> Any:
    """Constants inside a function call become balls when x is one."""
    return arb(value) if isinstance(value, fmpq) and isinstance(x, BALLS) else value


def _power(base: Expression, exponent: Expression, text: str) -> Expression:
    twice = 2 * exponent(0.0)
    if twice != int(twice):
        raise ValueError(f"formula {text!r}: an exponent must be an integer or a half-integer")
    whole, half = divmod(int(twice), 2)

    def run(x: Any) -> Any:
        b = _lifted(base(x), x)
        value = b ** abs(whole) if whole >= 0 else 1 / b ** abs(whole)
        return value * Functions.sqrt(b) if half else value

    return run


def _absolute(x: Any) -> Any:
    if isinstance(x, arb_series):
        return x if x[0] >= 0 else -x if x[0] <= 0 else arb_series([arb.nan()])
    return abs(x)


# What a file names: the domain in it is whole, nothing is cut out of it again.
_BUILT_IN: dict[str, Callable[..., Target]] = {
    "relu": relu,
    "absolute": absolute,
    "sqrt": sqrt,
    "sign": _sign,
    "gate": _gate,
    "jump_relu": _jump_relu,
    "bi_jump_relu": _bi_jump_relu,
    "exp": exp,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "silu": silu,
    "gelu": gelu,
    "formula": formula,
}
