"""Chains of odd maps that approximate the sign: narrow, deep, and certified as a whole.

Each step is the best odd function of its degree on the image of the last, max |1 - p(x)| over [a, b]; for odd
polynomials this greedy choice is the best chain (Lee and others 2022; Amsel and others, arXiv 2505.16932), for
odd rationals it is Zolotarev's function of the product of the degrees. The bound of a chain is proven: every
step maps an interval to an interval, whose ends are found exactly (`proofs.real_roots`) and rounded outwards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from numbers import Real
from typing import Any

import numpy as np
from flint import arb, arb_mat, fmpq, fmpq_poly

from approx.chain import Chain, check_safety
from approx.domain import Domain
from approx.dyadic import dyadic, precision, to_float
from approx.floating_point import Measured, count_inputs, every_input, known_dtype, runs
from approx.forms import Monomial
from approx.names import check_name
from approx.operands import BFloat16
from approx.proofs.decimals import float_below
from approx.rational import Rational
from approx.steps import Coefficients, Maps, best_chain, best_step, check_degrees
from approx.zolotarev import zolotarev_sign

_BITS = 256
_FEASIBLE, _RUNS = 1 << 20, 1 << 9  # numbers that are run one by one; runs of neighbours in a sample
FORMS = ("polynomial", "squares", "rational")
LANGUAGES = ("json", "python", "numpy", "torch")


@dataclass(frozen=True)
class CompositeSign(Chain):
    """A chain of odd maps, innermost first, and what is proven about it."""

    kind = "composite_sign"
    steps: tuple[Rational, ...]
    """The maps, innermost first; each has exact dyadic parameters."""
    lower: float
    """Left end of the interval [lower, 1] of |x| that the promise is about."""
    form: str
    """"polynomial", "squares" or "rational"."""
    dtype: str
    """The format that the coefficients are rounded to."""
    safety: float
    """Relative rounding error that the arithmetic of each step may have; the promise includes it."""
    images: tuple[tuple[float, float], ...]
    """Enclosures of |x| after each step, rounded outwards: the first is that of the first step."""

    @property
    def error(self) -> float:
        """Proven: max |sign(x) - chain(x)| <= error for lower <= |x| <= 1."""
        return super().error

    def __call__(self, x: Any) -> Any:
        """The chain at x: floats, float arrays, or balls."""
        for step in self.steps:
            x = step(x)
        return x

    def rational(self) -> Rational:
        """The chain as one Rational, exactly."""
        whole = self.steps[0]
        for step in self.steps[1:]:
            whole = step.compose(whole)
        return whole.with_domain([(-1, -self.lower), (self.lower, 1)])

    def coefficients(self) -> list[dict[str, Any]]:
        """The table: for each step the coefficients of x, x^3, x^5, ... ("num") over those of 1, x^2, ... ("den").

        In the form "squares" it holds "c", "u" and "v" of c x ((x^2 - u)^2 + v). All are numbers of `dtype`, exactly.
        """
        table: list[dict[str, Any]] = []
        for step in self.steps:
            if self.form == "squares":
                table.append(dict(zip("cuv", map(to_float, self._numbers(step)), strict=True)))
                continue
            assert isinstance(step.form, Monomial)
            num, den = step.form.num, step.form.den
            table.append({"num": list(map(to_float, num[1::2])), "den": list(map(to_float, den[::2]))})
        return table

    def measured(self) -> Measured:
        """The largest error of the chain that is run in `dtype` throughout, one number at a time as its code does it.

        Looked at are all numbers of the format in [lower, 1] where they can be counted through in seconds, else a
        sample. A step that subtracts nearly equal numbers may round by more than `safety` allows for.

        Returns:
            The error, and what it was measured on.
        """
        domain = Domain((self.lower, 1.0))
        every = self.dtype != "float64" and count_inputs(domain, self.dtype) <= _FEASIBLE
        blocks = (
            every_input(domain, self.dtype) if every else [runs(self.steps[0], domain, self.dtype, _RUNS)]
        )
        errors, sizes = [], 0
        for x in blocks:
            with np.errstate(all="ignore"):
                off = np.abs(1 - self._run(x))  # exactly: both are near 1, or it does not matter
            errors.append(float(np.max(np.where(np.isfinite(off), off, np.inf))))
            sizes += len(x)
        return Measured(max(errors), sizes, every)

    def _run(self, x: np.ndarray) -> np.ndarray:
        """What the code in Python does, in the arithmetic of the format."""
        y: Any = BFloat16(x.astype(np.float32)) if self.dtype == "bfloat16" else x.astype(self.dtype)
        for row in self.coefficients():
            if self.form == "squares":
                t = y * y - row["u"]
                y = y * ((t * t + row["v"]) * row["c"])
                continue
            square, p, q = y * y, row["num"][-1], row["den"][-1]
            for c in row["num"][-2::-1]:
                p = p * square + c
            for c in row["den"][-2::-1]:
                q = q * square + c
            y = y * p / q
        return np.asarray(y.value if isinstance(y, BFloat16) else y, dtype=float)

    def _first(self) -> tuple[fmpq, fmpq]:
        if not 0 < self.lower < 1:
            raise ValueError(f"lower={self.lower} must lie in (0, 1)")
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r}: expected one of {', '.join(FORMS)}")
        return dyadic(self.lower), fmpq(1)

    def _map(self, step: Rational) -> Rational:
        num, den = step.form.exact()
        if any(num.coeffs()[::2]) or any(den.coeffs()[1::2]) or not num:
            raise ValueError("a step is not odd")
        if self.form != "rational" and den.coeffs() != [1]:
            raise ValueError(f"a step has a denominator, and form is {self.form!r}")
        if self.form == "squares" and num.degree() != 5:
            raise ValueError("a step is no quintic, and form is 'squares'")
        return step

    def _numbers(self, step: Rational) -> list[fmpq]:
        if self.form == "squares":
            return _squares(step.form.exact()[0].coeffs()[1::2])
        return super()._numbers(step)

    def to_json(self) -> dict[str, Any]:
        """A self-contained record: the steps exactly, and the table of coefficients."""
        return self._record({"lower": self.lower.hex(), "form": self.form})

    @classmethod
    def from_json(cls, data: Any) -> CompositeSign:
        """The inverse of `to_json`; the images are proven anew.

        Args:
            data: the record, as `json` reads it.

        Raises:
            ValueError: for a malformed record, images that do not hold, or an error or a table of coefficients that
                are not those of the steps.
        """
        return cls._read(data, lambda d: {"lower": float.fromhex(d["lower"]), "form": d["form"]})

    def export(self, to: str = "python", name: str = "sign") -> str:
        """Source of the chain: a table of coefficients and the loop that runs it.

        Args:
            to: "json", "python" (floats and numpy arrays), "numpy" or "torch" (the matrix sign of a tensor
                whose singular values lie in [lower, 1]; polynomials only). The promise counts rounding relative to
                each singular value; a product of matrices rounds by a share of the largest one, so singular values
                near the rounding of the format need a finer one.
            name: what the function is called.

        Returns:
            The source.

        Raises:
            ValueError: for another language or name, or rational maps as a matrix sign.
        """
        if to not in LANGUAGES:
            raise ValueError(f"to={to!r}: expected one of {', '.join(LANGUAGES)}")
        if to == "json":
            return json.dumps(self.to_json(), indent=1)
        check_name(name, to)
        about = (
            f"{len(self.steps)} odd {self.form} maps; proven: |sgn(x) - {name}(x)| <= {self.error!r} for "
            f"{self.lower!r} <= |x| <= 1, "
            + (
                f"if each step rounds by at most {self.safety!r} of its value."
                if self.safety
                else "without rounding."
            )
        )
        found = self.measured()
        about += f" Run in {self.dtype}, one number at a time: {found.error:.3g}, the largest on " + (
            f"all {found.inputs} numbers of it there."
            if found.exhaustive
            else f"a sample of {found.inputs} numbers."
        )
        table = [
            [tuple(v) if isinstance(v, list) else v for v in row.values()] for row in self.coefficients()
        ]
        alone = self.form == "polynomial" and to != "python"  # without the denominators, which are 1
        rows = "".join(f"    {row[0] if alone else tuple(row)!r},\n" for row in table)
        if to == "python":
            return _PYTHON[self.form].format(name=name, rows=rows, about=about)
        if self.form == "rational":
            raise ValueError(f"to={to!r}: a matrix sign by rational maps needs solves; use form='polynomial'")
        return _matrix(to, self.form).format(name=name, rows=rows, about=about)


_PYTHON = {
    "polynomial": '''TABLE = [
{rows}]


def {name}(x):
    """{about}"""
    for num, den in TABLE:
        square, p, q = x * x, num[-1], den[-1]
        for c in num[-2::-1]:
            p = p * square + c
        for c in den[-2::-1]:
            q = q * square + c
        x = x * p / q
    return x
''',
    "squares": '''TABLE = [
{rows}]


def {name}(x):
    """{about}"""
    for c, u, v in TABLE:
        t = x * x - u
        x = x * ((t * t + v) * c)
    return x
''',
}
_PYTHON["rational"] = _PYTHON["polynomial"]

_LOOP = '''import {library}

TABLE = [
{{rows}}]


def {{name}}(x):
    """Matrix sign, for singular values in place of |x|. {{about}}"""
    flip = x.shape[-2] > x.shape[-1]
    x = {transpose} if flip else x
    eye = {eye}
{loop}
    return {transpose} if flip else x
'''
_STEPS = {
    "polynomial": """    for row in TABLE:
        gram = x @ {transpose}
        p = row[-1] * eye
        for c in row[-2::-1]:
            p = p @ gram + c * eye
        x = p @ x""",
    "squares": """    for c, u, v in TABLE:
        t = x @ {transpose} - u * eye
        x = ((t @ t + v * eye) * c) @ x""",
}
_WORDS = {
    "numpy": {"library": "numpy as np", "transpose": "np.swapaxes(x, -1, -2)", "eye": "np.eye(x.shape[-2])"},
    "torch": {
        "library": "torch",
        "transpose": "x.mT",
        "eye": "torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)",
    },
}


def _matrix(to: str, form: str) -> str:
    words = _WORDS[to]
    return _LOOP.format(loop=_STEPS[form].format(**words), **words)


def composite_sign(
    lower: float = 1e-3,
    degrees: int | tuple[int, ...] = (5, 5, 5, 5, 5),
    form: str = "polynomial",
    *,
    dtype: Any = "float64",
    safety: float = 0.0,
) -> CompositeSign:
    """The best chain of odd maps for the sign on [-1, -lower] u [lower, 1], certified as a whole.

    Args:
        lower: left end of the interval of |x|, inside (0, 1).
        degrees: the odd degree of each step, innermost first; a number alone is one step's. Where the coefficients of
            a degree need more digits than the format has, a lower one is taken, its table filled with zeros.
        form: "polynomial", "squares": quintics as c x ((x^2 - u)^2 + v), with c, u and v in the format, or "rational":
            maps of type (d, d - 1). In 16 bits take "squares": a quintic's powers nearly cancel where it is small, by
            more than its size in bfloat16 for lower = 1e-3, and squares do not.
        dtype: the format that the coefficients are numbers of: "float64", "float32", "bfloat16", "float16".
            Each step is fitted to the image of the rounded ones before it, and the proof is about these: about
            exact arithmetic with them, in each format, but for `safety`.
        safety: relative rounding error that the arithmetic of each step may have, 0.01 for bfloat16 say: the
            next step is fitted to the wider image, and the promise includes it.

    Returns:
        The chain, with its table of coefficients and its proven error.

    Raises:
        ValueError: for another form or dtype, even degrees, or numbers outside their range.

    Source:
        Zolotarev 1877; Nakatsukasa and Freund, SIAM Review 58, 2016; Amsel and others, arXiv 2505.16932.
    """
    if not (isinstance(lower, Real) and 0 < lower < 1):
        raise ValueError(f"lower={lower!r} must be a number in (0, 1)")
    if form not in FORMS:
        raise ValueError(f"form={form!r}: expected one of {', '.join(FORMS)}")
    wanted = check_degrees(degrees, 1, odd=True)
    if form == "squares" and set(wanted) != {5}:
        raise ValueError(f"degrees={degrees!r}: form='squares' has quintics alone")
    check_safety(safety)
    kind, maps = known_dtype(dtype), _Quintic("squares") if form == "squares" else _Odd(form)

    def made(rounded_to: str, lower_too: bool) -> tuple[CompositeSign, bool]:
        steps: list[Rational] = []
        low, high = dyadic(lower), fmpq(1)
        images: list[tuple[float, float]] = []
        close = True
        for k, degree in enumerate(wanted, start=1):
            enough = float("inf") if k == len(wanted) else 0.0
            step, low, high, kept = best_step(maps, low, high, degree, rounded_to, safety, enough, lower_too)
            steps.append(step)
            if low <= 0:
                raise ValueError(
                    f"step {k} maps a part of the interval to 0 or below in {kind}: use a larger lower, "
                    "a smaller safety, or a finer dtype"
                )
            images.append((float_below(low), -float_below(-high)))
            low, high = dyadic(images[-1][0]), dyadic(images[-1][1])
            close = close and kept
        return CompositeSign(tuple(steps), float(lower), form, kind, float(safety), tuple(images)), close

    return best_chain(made, kind)


@dataclass(frozen=True)
class _Odd(Maps):
    """Odd maps, polynomials or rational."""

    form: str

    @property
    def odd(self) -> bool:
        return True

    def best(self, low: fmpq, high: fmpq, degree: int) -> Coefficients:
        if self.form == "polynomial":
            return best_odd(low, high, degree), [fmpq(1)]
        return _rational(low, high, degree)

    def same_below(self, high: fmpq, degree: int, bits: int) -> fmpq:
        # the best polynomial for [low, high] has a limit; Zolotarev's functions have none
        return high / (degree**2 << bits) if self.form == "polynomial" else fmpq(0)

    def plain(self, degree: int) -> Coefficients:
        if self.form == "polynomial":
            return plain_odd(degree), [fmpq(1)]
        # ((1 + x)^d - (1 - x)^d)/((1 + x)^d + (1 - x)^d)
        terms = [fmpq(comb(degree, k)) for k in range(degree + 1)]
        return terms[1::2], terms[::2]

    def step(self, num: list[fmpq], den: list[fmpq]) -> Rational:
        spread = [value for c in num for value in (0, c)]
        return Rational.from_monomial(spread, [v for c in den for v in (c, 0)][:-1])


class _Quintic(_Odd):
    """Quintics as c x ((x^2 - u)^2 + v); what has a lower degree is none."""

    def best(self, low: fmpq, high: fmpq, degree: int) -> Coefficients:
        return _squares(best_odd(low, high, 5)), [fmpq(1)]

    def same_below(self, high: fmpq, degree: int, bits: int) -> fmpq:
        return high / (25 << bits)

    def plain(self, degree: int) -> Coefficients:
        return _squares(plain_odd(5)), [fmpq(1)]

    def scaled(self, coefficients: Coefficients, factor: fmpq) -> Coefficients:
        (c, u, v), den = coefficients
        return [c * factor, u, v], den

    def step(self, num: list[fmpq], den: list[fmpq]) -> Rational:
        c, u, v = num
        return super().step([c * (u * u + v), -2 * c * u, c], den)


def _squares(powers: list[fmpq]) -> list[fmpq]:
    """c, u and v of c x ((x^2 - u)^2 + v), from the coefficients of x, x^3 and x^5."""
    a, b, c = powers
    u = -b / (2 * c)
    return [c, u, a / c - u * u]


def plain_odd(degree: int) -> list[fmpq]:
    """The odd polynomial p with 1 - p of the highest order at 1, as a step of Newton and Schulz is.

    Args:
        degree: the odd degree.

    Returns:
        The coefficients of x, x^3, x^5, ...
    """
    away, power, total = fmpq_poly([1, -1]), fmpq_poly([1]), fmpq_poly()
    for k in range((degree + 1) // 2):
        total += fmpq(comb(2 * k, k), 4**k) * power
        power *= away
    return total.coeffs()


def _odd_powers(x: arb, count: int) -> list[arb]:
    powers, square = [x], x * x
    while len(powers) < count:
        powers.append(powers[-1] * square)
    return powers


@lru_cache(maxsize=1024)  # the formats ask for the same ones
def best_odd(a: fmpq, b: fmpq, degree: int) -> list[fmpq]:
    """The odd polynomial of least max |1 - p| on [a, b]: an exchange whose extrema are the roots of p'.

    Args:
        a: left end, above 0.
        b: right end.
        degree: the odd degree.

    Returns:
        The coefficients of x, x^3, x^5, ...
    """
    count = (degree + 1) // 2
    with precision(_BITS):
        points = [arb(a) + arb(b - a) * (1 - arb.cos_pi(arb(fmpq(k, count)))) / 2 for k in range(count + 1)]
        coefficients: list[fmpq] = []
        for _ in range(60):
            rows = [[*_odd_powers(x, count), arb((-1) ** i)] for i, x in enumerate(points)]
            found = (
                arb_mat(rows).solve(arb_mat(count + 1, 1, [1] * (count + 1)), algorithm="approx").entries()
            )
            coefficients = [dyadic(c.mid(), _BITS) for c in found[:-1]]
            slope = fmpq_poly([c * (2 * j + 1) for j, c in enumerate(coefficients)])
            # to a relative precision; of a real polynomial's real roots arb knows that they are real
            roots: Any = slope.numer().complex_roots()
            real = sorted(z.real.mid().fmpq() for z, _ in roots if z.imag == 0 and z.real > 0)
            inner = [arb(x).sqrt() for x in real]
            new = [arb(a), *(x for x in inner if arb(a) < x and x < arb(b)), arb(b)]
            if len(new) != len(points):
                # too far from the best one: a step back to points that crowd less
                points = [(x + y) / 2 for x, y in zip(points, [arb(a), *points[:-1]], strict=True)]
                points[-1] = arb(b)
                continue
            moved = max(abs(x - y) for x, y in zip(points, new, strict=True))
            points = [x.mid() for x in new]
            if moved < arb(b) * arb(2) ** -80:
                break
    return coefficients


def _rational(a: fmpq, b: fmpq, degree: int) -> tuple[list[fmpq], list[fmpq]]:
    """Zolotarev's function of type (degree, degree - 1), brought from [a/b, 1] to [a, b]."""
    if degree == 1:
        return [2 / (a + b)], [fmpq(1)]
    num, den = zolotarev_sign((degree - 1) // 2, a / b, bits=_BITS).exact()
    square = fmpq_poly([0, 1 / b])
    num, den = num(square), den(square)
    return num.coeffs()[1::2], den.coeffs()[::2]
