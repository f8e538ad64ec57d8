"""Rational functions as source code: Python, C, torch, JSON and sympy.

The code is written by running the form on symbols that record what is done to them, so an export evaluates
exactly as the form does, operation by operation, with parameters rounded to the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from approx.dyadic import to_float
from approx.fitted import Fitted, opened
from approx.floating_point import (
    BITS,
    best_form,
    evaluation_error,
    in_form,
    inputs,
    known_dtype,
    measured,
    rounded,
    run,
)
from approx.forms import Number, SafePade, SafePadeB
from approx.names import check_name
from approx.rational import Rational
from approx.target import Target

if TYPE_CHECKING:
    import sympy

LANGUAGES = ("python", "c", "torch", "json", "sympy")
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}


@dataclass
class _Writer:
    """Straight-line code under construction."""

    lines: list[str] = field(default_factory=list)
    absolute: str = "abs"
    quotient: str = "{0} / {1}"  # of a parameter by a value

    def name(self, expression: str, constant: bool = False) -> _Symbol:
        self.lines.append(expression)
        return _Symbol(self, f"t{len(self.lines)}", constant)


@dataclass(frozen=True)
class _Symbol:
    """A value in the code: arithmetic on it writes a line."""

    writer: _Writer
    text: str
    constant: bool = False

    def _binary(self, op: str, left: Any, right: Any) -> _Symbol:
        a, b = (
            o if isinstance(o, _Symbol) else _Symbol(self.writer, _integer(o), True) for o in (left, right)
        )
        if op == "*" and "0" in (a.text, b.text):
            return _Symbol(self.writer, "0", True)
        if op == "+" and "0" in (a.text, b.text):
            return b if a.text == "0" else a
        if op in ("-", "/") and (b if op == "-" else a).text == "0":
            return a
        if op == "/" and a.constant and not b.constant:
            return self.writer.name(self.writer.quotient.format(a.text, b.text))
        return self.writer.name(f"{a.text} {op} {b.text}", a.constant and b.constant)

    def __add__(self, o: Any) -> _Symbol:
        return self._binary("+", self, o)

    def __radd__(self, o: Any) -> _Symbol:
        return self._binary("+", o, self)

    def __sub__(self, o: Any) -> _Symbol:
        return self._binary("-", self, o)

    def __rsub__(self, o: Any) -> _Symbol:
        return self._binary("-", o, self)

    def __mul__(self, o: Any) -> _Symbol:
        return self._binary("*", self, o)

    def __rmul__(self, o: Any) -> _Symbol:
        return self._binary("*", o, self)

    def __truediv__(self, o: Any) -> _Symbol:
        return self._binary("/", self, o)

    def __rtruediv__(self, o: Any) -> _Symbol:
        return self._binary("/", o, self)

    def __abs__(self) -> _Symbol:
        return self.writer.name(f"{self.writer.absolute}({self.text})")


def _integer(value: Any) -> str:
    return str(int(value))


def export(
    rational: Rational | Fitted,
    to: str,
    dtype: Any = "float64",
    *,
    name: str = "rational",
    form: str | None = None,
    force: bool = False,
    target: Target | None = None,
) -> Any:
    """Source of a function `name(x)`, ready to paste, that evaluates `rational` in `dtype`.

    Args:
        rational: the function, or a fit: then the header states the weighted error against its target.
        to: "python" (math on floats and numpy arrays), "c" (float64 and float32), "torch" (a function of
            tensors that works under autograd and torch.compile), "json" (the exact record that `approx.load`
            reads), "sympy" (an expression with exact rational coefficients in the symbol x).
        dtype: "float64", "float32", "bfloat16" or "float16".
        name: what the function is called.
        form: the form to write; by default the one with the least evaluation error in `dtype`. The header of
            the code states the error, and on which inputs it was measured.
        force: write a form even if it is useless in `dtype`.
        target: what the error in the header is measured against, with its weight; a fit brings its own.

    Returns:
        The source, or a sympy expression.

    Raises:
        ValueError: for an unknown language, dtype or form, and for a form whose evaluation error in `dtype`
            exceeds 100 rounding units of the largest value: "monomial" with centre 0 in float32 for a sharp
            gate, say.
    """
    rational, target = opened(rational, target)
    kind = _checked(to, dtype, name)
    if to == "json":
        return json.dumps(rational.to_json(), indent=1)
    if to == "sympy":
        return sympy_expression(rational)
    code, _ = _function(rational, target, to, kind, name, form, force)
    return _head(to, kind) + code


def export_pieces(
    pieces: Sequence[tuple[Rational, Target | None]],
    to: str,
    dtype: Any = "float64",
    *,
    name: str = "rational",
    form: str | None = None,
    force: bool = False,
) -> Any:
    """Source of a function `name(x)` that evaluates functions side by side, each on its domain.

    Each is a function of its own, `name_0` and so on, with its header; `name` looks for the one that x belongs to. A
    point where two meet belongs to the right one, and what lies beyond the ends to the last.

    Args:
        pieces: the functions, left to right, and what the error in the header of each is measured against.
        to: "python", "c" or "torch", or "sympy" (a sympy.Piecewise).
        dtype: as for `export`.
        name: what the function is called.
        form: the form to write; by default each piece's best.
        force: write a form even if it is useless in `dtype`.

    Returns:
        The source, or a sympy expression.

    Raises:
        ValueError: as `export` does, and for "json".
    """
    kind = _checked(to, dtype, name)
    if to == "json":
        raise ValueError("to='json' holds one function: export, or save, the pieces one by one")
    starts = [rational.domain.hull[0] for rational, _ in pieces[1:]]
    if to == "sympy":
        return _sympy_pieces([rational for rational, _ in pieces], starts)
    names = [f"{name}_{k}" for k in range(len(pieces))]
    written = [_function(r, t, to, kind, n, form, force) for n, (r, t) in zip(names, pieces, strict=True)]
    low, high = pieces[0][0].domain.hull[0], pieces[-1][0].domain.hull[1]
    about = (
        f"A table of {len(pieces)} functions on [{low!r}, {high!r}]; "
        f"the largest of their errors, as measured, is {_up(max(error for _, error in written))}."
    )
    # a number of the format is beyond a start just if it is beyond the first number of the format there
    table = _TABLE[to](name, names, [_upwards(start, kind) for start in starts], about, kind)
    heads = "import numpy as np\n\n\n" if to == "python" else _head(to, kind)
    return heads + ("\n\n" if to != "c" else "\n").join([*(code for code, _ in written), table])


def _checked(to: str, dtype: Any, name: str) -> str:
    """The name of the dtype, once the three are known to go together."""
    if to not in LANGUAGES:
        raise ValueError(f"to={to!r}: expected one of {', '.join(LANGUAGES)}")
    if to in ("json", "sympy"):
        return "float64"
    kind = known_dtype(dtype)
    if to == "c" and kind not in ("float64", "float32"):
        raise ValueError(f"dtype={kind!r}: C has float64 and float32")
    if to == "python" and kind == "bfloat16":
        raise ValueError("dtype='bfloat16': numpy has no such type; use to='torch'")
    check_name(name, to)
    return kind


def _function(
    rational: Rational, target: Target | None, to: str, kind: str, name: str, form: str | None, force: bool
) -> tuple[str, float]:
    """The code of one function, and the error that its header states."""
    best = best_form(rational, kind, True, target)
    form = best if form is None else form
    held = in_form(rational, form)
    if not held.form.writable:
        raise ValueError(f"form={form!r} divides by zero at its nodes, which code cannot: use form={best!r}")
    error = evaluation_error(held, kind, target=target)
    x = inputs(rational, rational.domain, "float64")
    with np.errstate(all="ignore"):
        # rounding is that of the target's size: what the form makes of it in float64 may be off itself
        sizes = np.abs(run(rational, x, "float64") if target is None else target(x) * target.weight_at(x))
    scale = float(np.nanmax(np.where(np.isfinite(sizes), sizes, 0.0), initial=0.0))
    limit = 100 * _EPS[kind] * scale
    if form == best and not error <= limit and not isinstance(held.form, SafePade | SafePadeB):
        # where r nearly vanishes beside 0, x keeps the digits that its distance from the middle has not got
        about_zero = Rational.from_exact(
            *rational.exact(), rational.domain, "monomial", max(53, rational.bits)
        )
        if (other := evaluation_error(about_zero, kind, target=target)) < error:
            held, error = about_zero, other
    if not error <= limit and not force:
        remedy = "a finer dtype" if form == best else f"form={best!r}"
        raise ValueError(
            f"form={held.form.name!r} evaluated in {kind} is wrong by {error:.1e}, where rounding alone is "
            f"{_EPS[kind] * scale:.0e}: use {remedy} (or force=True)"
        )
    writer = _Writer(absolute={"c": "fabs" if kind == "float64" else "fabsf"}.get(to, "abs"))
    if to == "torch":  # which takes a number by a tensor as 1/tensor times it, and so rounds twice
        writer.quotient = "torch.full_like({1}, {0}) / {1}"
    suffix = "f" if to == "c" and kind == "float32" else ""

    def literal(value: Any) -> _Symbol:
        number = rounded(to_float(value), kind)
        if not np.isfinite(number):
            raise ValueError(f"a parameter overflows in {kind}: use another form or dtype")
        if number == 0:
            return _Symbol(writer, "0", True)
        text = f"{number.hex()}{suffix}" if to == "c" else repr(number)
        return _Symbol(writer, f"({text})" if number < 0 else text, True)

    result = held.run(_Symbol(writer, "x"), Number(literal, BITS[kind]))
    value, lines = _used(result.text, writer.lines)
    if not any("x" in line.split() for line in lines) and value != "x":
        value = f"{value} + 0 * x"  # a constant takes the shape of x
    about, error = _about(held, kind, target)
    return _LAYOUT[to](name, lines, value, about, kind), error


def _used(value: str, lines: list[str]) -> tuple[str, list[str]]:
    """A value of code, and the lines that it needs: parameters that are 0 leave some without a use."""
    needed = {value}
    for k in range(len(lines), 0, -1):
        if f"t{k}" in needed:
            needed |= set(re.findall(r"\bt\d+\b", lines[k - 1]))
    kept = [k for k in range(1, len(lines) + 1) if f"t{k}" in needed]
    names = {f"t{k}": f"t{i}" for i, k in enumerate(kept, 1)}

    def renamed(text: str) -> str:
        return re.sub(r"\bt\d+\b", lambda found: names[found[0]], text)

    return renamed(value), [renamed(lines[k - 1]) for k in kept]


def _about(held: Rational, kind: str, target: Target | None) -> tuple[str, float]:
    """What a header says, and the error in it."""
    domain = " u ".join(f"[{a!r}, {b!r}]" for a, b in held.domain)  # every digit counts here
    m, n = held.type
    found = measured(held, kind, target)
    weight = ""
    if target is not None and target.weight is not None:
        weight = "relative " if target.weight == "relative" else "weighted "
    against = "its exact values"
    if target is not None:
        against = f"the target {target.text!r}"
    about = f"Rational function of type ({m}, {n}) on {domain}, {held.form.name} form; {weight}error against {against}"
    if found.exhaustive:
        how = f"at most {_up(found.error)}, measured on all {found.inputs} numbers of {kind} there"
    else:
        how = f"{_up(found.error)}, the largest measured on a sample of {found.inputs} numbers of {kind}"
    normal = (
        ", but those where the target is too small to be a normal number of it" if found.subnormal else ""
    )
    return f"{about} {how}{normal}.", found.error


def _up(value: float) -> str:
    """Three digits, rounded up."""
    text = f"{value:.2e}"
    return text if not np.isfinite(value) or float(text) >= value else f"{value * 1.005:.2e}"


def _upwards(value: float, kind: str) -> float:
    """The first number of a format that is not below a float."""
    found = rounded(value, kind)
    step = value - found
    while found < value:
        step *= 2
        found = rounded(value + step, kind)
    return found


def _head(to: str, kind: str) -> str:
    """What stands above the functions of a file."""
    if to == "python":
        return "import numpy as np\n\n\n" if kind != "float64" else ""
    return "import torch\n\n\n" if to == "torch" else "#include <math.h>\n\n"


def _python(name: str, lines: list[str], result: str, about: str, kind: str) -> str:
    # Python's floats are weak operands: an array of the dtype keeps it
    cast = "" if kind == "float64" else f"    x = np.asarray(x, dtype=np.{kind})\n"
    return f'def {name}(x):\n    """{about}"""\n{cast}{_body(lines)}    return {result}\n'


def _torch(name: str, lines: list[str], result: str, about: str, kind: str) -> str:
    head = f"def {name}(x: torch.Tensor) -> torch.Tensor:\n"
    return f'{head}    """{about}"""\n    x = x.to(torch.{kind})\n{_body(lines)}    return {result}\n'


def _c(name: str, lines: list[str], result: str, about: str, kind: str) -> str:
    real = "double" if kind == "float64" else "float"
    rounds = "Each operation rounds by itself: for gcc -O3 -march=native add -ffp-contract=off."
    head = f"/* {about}\n   {rounds} */\n{real} {name}({real} x) {{\n"
    return f"{head}{_body(lines, f'const {real} ', ';')}    return {result};\n}}\n"


def _python_table(name: str, names: list[str], starts: list[float], about: str, kind: str) -> str:
    return f'''def {name}(x):
    """{about}"""
    x = np.asarray(x, dtype=np.{kind})
    value, which = np.empty_like(x), np.searchsorted({starts!r}, x, side="right")
    for k, piece in enumerate([{", ".join(names)}]):
        value[which == k] = piece(x[which == k])
    return value[()]
'''


def _torch_table(name: str, names: list[str], starts: list[float], about: str, kind: str) -> str:
    ends = [None, *starts, None]
    # each piece sees its own interval alone: beyond it a pole would spoil the gradient
    runs = [
        f"{piece}(x.clamp({a!r}, {b!r}))" if (a, b) != (None, None) else f"{piece}(x)"
        for piece, a, b in zip(names, ends, ends[1:], strict=False)
    ]
    wheres = [
        f"    value = torch.where(x >= {a!r}, {run}, value)\n"
        for a, run in zip(starts, runs[1:], strict=True)
    ]
    head = f'def {name}(x: torch.Tensor) -> torch.Tensor:\n    """{about}"""\n    x = x.to(torch.{kind})\n'
    # a NaN goes through the first piece
    return f"{head}    value = {runs[0]}\n{''.join(wheres)}    return value\n"


def _c_table(name: str, names: list[str], starts: list[float], about: str, kind: str) -> str:
    real, suffix = ("double", "") if kind == "float64" else ("float", "f")
    numbers = ", ".join(f"{start.hex()}{suffix}" for start in starts) or "0"  # C has no empty array
    return f"""/* {about} */
{real} {name}({real} x) {{
    static const {real} starts[] = {{{numbers}}};
    static {real} (*const pieces[])({real}) = {{{", ".join(names)}}};
    int low = 0, high = {len(starts)};
    while (low < high) {{
        const int k = (low + high) / 2;
        if (x >= starts[k])
            low = k + 1;
        else
            high = k;
    }}
    return pieces[low](x);
}}
"""


def _body(lines: list[str], before: str = "", after: str = "") -> str:
    return "".join(f"    {before}t{i} = {line}{after}\n" for i, line in enumerate(lines, 1))


_LAYOUT = {"python": _python, "torch": _torch, "c": _c}
_TABLE = {"python": _python_table, "torch": _torch_table, "c": _c_table}


def sympy_expression(rational: Rational) -> sympy.Expr:
    """num(x)/den(x) with exact rational coefficients, as a sympy expression in the symbol x.

    Args:
        rational: the rational function.

    Raises:
        ValueError: for a safe-Pade form that is not one rational function.
    """
    import sympy

    x = sympy.Symbol("x")

    def poly(p: Any) -> Any:
        return sympy.Add(*(sympy.Rational(int(c.p), int(c.q)) * x**i for i, c in enumerate(p.coeffs())))

    num, den = rational.exact()
    return poly(num) / poly(den)


def _sympy_pieces(pieces: list[Rational], starts: list[float]) -> sympy.Expr:
    import sympy

    x = sympy.Symbol("x")
    ends = [x < sympy.Rational(*start.as_integer_ratio()) for start in starts]
    return sympy.Piecewise(*zip(map(sympy_expression, pieces), [*ends, True], strict=True))
