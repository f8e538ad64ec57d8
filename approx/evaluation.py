"""What it costs to evaluate a form in a given floating-point format.

The form is run operation by operation in the format itself, with parameters rounded to it, on inputs that
the format can represent; the truth at the same inputs comes from ball arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from flint import arb

from approx.dyadic import precision, to_float
from approx.forms import SafePade, SafePadeB

if TYPE_CHECKING:
    from approx.rational import Rational

DTYPES = ("float64", "float32", "bfloat16", "float16")
WRITABLE = ("monomial", "chebyshev", "factored", "partial_fractions")
CONVERTIBLE = (*WRITABLE, "barycentric")


def round_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 values rounded to the nearest bfloat16, ties to even, as float32."""
    bits = np.asarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), rounded, np.asarray(x, dtype=np.float32))


@dataclass(frozen=True)
class BFloat16:
    """An array in bfloat16: float32 rounded after every operation, which is what hardware without fused
    steps does.
    """

    value: np.ndarray

    def _apply(self, function: Any, *operands: Any) -> BFloat16:
        raw = [o.value if isinstance(o, BFloat16) else np.float32(o) for o in operands]
        return BFloat16(round_bfloat16(function(*raw)))

    def __add__(self, o: Any) -> BFloat16:
        return self._apply(np.add, self, o)

    def __sub__(self, o: Any) -> BFloat16:
        return self._apply(np.subtract, self, o)

    def __rsub__(self, o: Any) -> BFloat16:
        return self._apply(np.subtract, o, self)

    def __mul__(self, o: Any) -> BFloat16:
        return self._apply(np.multiply, self, o)

    def __truediv__(self, o: Any) -> BFloat16:
        return self._apply(np.divide, self, o)

    def __rtruediv__(self, o: Any) -> BFloat16:
        return self._apply(np.divide, o, self)

    def __abs__(self) -> BFloat16:
        return BFloat16(np.abs(self.value))

    __radd__ = __add__
    __rmul__ = __mul__


def known_dtype(dtype: Any) -> str:
    """The name of a supported format; accepts names, numpy and torch dtypes. Raises ValueError for others."""
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else np.dtype(dtype).name
    if name not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    return name


def inputs(rational: Rational, domain: Any, dtype: str, count: int = 1001) -> np.ndarray:
    """Points of the domain that `dtype` represents exactly, float64: even ones, and some close to its
    special places.
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
    return np.unique(x[np.logical_or.reduce([(x >= a) & (x <= b) for a, b in domain])])


def run(rational: Rational, x: np.ndarray, dtype: str) -> np.ndarray:
    """r(x) computed in `dtype` throughout, returned as float64."""
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":
            value: Any = rational._run(
                BFloat16(round_bfloat16(x.astype(np.float32))), lambda c: _bfloat16(to_float(c))
            )
            return value.value.astype(float)
        kind = np.dtype(dtype).type
        return np.asarray(rational._run(x.astype(kind), lambda c: kind(to_float(c)))).astype(float)


def _bfloat16(value: float) -> np.float32:
    return np.float32(round_bfloat16(np.array([value], dtype=np.float32))[0])


def evaluation_error(
    rational: Rational, dtype: Any = "float32", form: str | None = None, domain: Any = None
) -> float:
    """See `Rational.evaluation_error`."""
    from approx.rational import as_domain

    name = known_dtype(dtype)
    held = (
        rational
        if form in (None, rational.form.name)
        else rational.to(str(form), bits=max(53, rational.bits))
    )
    x = inputs(held, rational.domain if domain is None else as_domain(domain), name)
    with precision(128 + rational.bits):
        truth = np.array([float(rational(arb(float(v)))) for v in x])
    error = np.abs(run(held, x, name) - truth)
    return float(np.max(np.where(np.isfinite(error), error, np.inf)))


def best_form(rational: Rational, dtype: Any = "float32", writable: bool = False) -> str:
    """See `Rational.best_form`; writable: only of forms that straight-line code can evaluate."""
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
