"""What it costs to evaluate a form in a given floating-point format.

The form is run operation by operation in the format itself, with parameters rounded to it, on inputs that
the format can represent; the truth at the same inputs comes from ball arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb

from approx.domain import Domain
from approx.dyadic import precision, to_float
from approx.forms import SafePade, SafePadeB
from approx.operands import BFloat16, round_bfloat16
from approx.rational import Rational

DTYPES = ("float64", "float32", "bfloat16", "float16")
WRITABLE = ("monomial", "chebyshev", "factored", "partial_fractions")
CONVERTIBLE = (*WRITABLE, "barycentric")


def known_dtype(dtype: Any) -> str:
    """The name of a supported format; accepts names, numpy and torch dtypes.

    Args:
        dtype: "float64", "float32", "bfloat16" or "float16", or the numpy or torch dtype.

    Raises:
        ValueError: for others.
    """
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else np.dtype(dtype).name
    if name not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    return name


def inputs(rational: Rational, domain: Domain, dtype: str, count: int = 1001) -> np.ndarray:
    """Points of the domain that `dtype` represents exactly, float64: even ones, and some close to its
    special places.

    Args:
        rational: the rational function.
        domain: the intervals to take points of.
        dtype: the name of the format.
        count: evenly spaced points an interval.
    """
    points = []
    for a, b in domain:
        close = np.geomspace(1e-8, 1, 40) * (b - a)
        points += [np.linspace(a, b, count), a + close, b - close]
        points += [float(to_float(rational.centre)) + s * close for s in (-1, 1)]
    x = np.concatenate(points)
    if dtype == "bfloat16":
        x = round_bfloat16(x.astype(np.float32)).astype(float)
    else:
        x = x.astype(dtype).astype(float)
    return np.unique(x[domain.contains(x)])


def run(rational: Rational, x: np.ndarray, dtype: str) -> np.ndarray:
    """r(x) computed in `dtype` throughout, returned as float64.

    Args:
        rational: the rational function.
        x: float64 points that the format holds.
        dtype: the name of the format.
    """
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":
            value: Any = rational.run(
                BFloat16(round_bfloat16(x.astype(np.float32))), lambda c: _bfloat16(to_float(c))
            )
            return value.value.astype(float)
        kind = np.dtype(dtype).type
        return np.asarray(rational.run(x.astype(kind), lambda c: kind(to_float(c)))).astype(float)


def rounded(value: float, dtype: str) -> float:
    """A number rounded to a format.

    Args:
        value: the number.
        dtype: the name of the format.

    Returns:
        The nearest number of the format; infinite where it overflows.
    """
    if dtype == "float64":
        return value
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            return float(round_bfloat16(np.array([value], dtype=np.float32))[0])
        return float(np.dtype(dtype).type(value))


def _bfloat16(value: float) -> np.float32:
    return np.float32(round_bfloat16(np.array([value], dtype=np.float32))[0])


def evaluation_error(
    rational: Rational, dtype: Any = "float32", form: str | None = None, domain: Any = None
) -> float:
    """max |computed - exact| when a form is evaluated in a format throughout.

    Parameters are rounded to the format; inputs are about 1000 numbers of it in the domain.

    Args:
        rational: the function.
        dtype: "float64", "float32", "bfloat16" or "float16" (or the numpy or torch dtype).
        form: the form to evaluate; by default the held one.
        domain: where; by default the domain of `rational`.

    Returns:
        The largest error seen; infinite where the evaluation overflows.

    Raises:
        ValueError: for an unknown dtype or form, or partial fractions of a function with multiple poles.
    """
    name = known_dtype(dtype)
    held = (
        rational
        if form in (None, rational.form.name)
        else rational.to(str(form), bits=max(53, rational.bits))
    )
    x = inputs(held, rational.domain if domain is None else Domain(domain), name)
    with precision(128 + rational.bits):
        truth = np.array([float(rational(arb(float(v)))) for v in x])
    error = np.abs(run(held, x, name) - truth)
    return float(np.max(np.where(np.isfinite(error), error, np.inf)))


def best_form(rational: Rational, dtype: Any = "float32", writable: bool = False) -> str:
    """The form with the smallest `evaluation_error`, among the held one and all that it converts to.

    Args:
        rational: the function.
        dtype: the format, as for `evaluation_error`.
        writable: choose only among forms that straight-line code can evaluate.

    Returns:
        The name of the form.

    Raises:
        ValueError: for an unknown dtype.
    """
    names = [rational.form.name] if rational.form.writable or not writable else []
    if not isinstance(rational.form, SafePade | SafePadeB):
        num, den = rational.exact()
        simple = den.gcd(den.derivative()).degree() == 0
        # rounded partial fractions have a numerator of degree n - 1 at least
        fits = simple and num.degree() >= den.degree() - 1
        names += [
            f
            for f in (WRITABLE if writable else CONVERTIBLE)
            if f not in names and (f != "partial_fractions" or fits)
        ]
    return min(names, key=lambda f: evaluation_error(rational, dtype, f))
