"""Exact numbers in files, and their outward rounding."""

from __future__ import annotations

import math
import re
from typing import Any

from flint import fmpq, fmpq_poly, fmpz

from approx.dyadic import to_float

_NUMBER = re.compile(r"(-?[0-9]+)(?:/([0-9]+)|e(-?[0-9]{1,5}))?")


def rounded(x: fmpq, digits: int, direction: int) -> fmpq:
    """`x` to that many decimal digits or one more, towards direction * infinity.

    Args:
        x: an exact number.
        digits: how many digits.
        direction: 1 or -1.
    """
    if x == 0:
        return x
    magnitude = math.log10(abs(int(x.p))) - math.log10(int(x.q))
    unit = fmpq(10) ** (math.floor(magnitude) + 1 - digits)
    return unit * ((x / unit).floor() if direction < 0 else (x / unit).ceil())


def decimal(x: fmpq) -> str:
    """A decimal fraction as "<digits>e-<places>", exactly.

    Args:
        x: an exact number.

    Raises:
        ValueError: for a number that is not one.
    """
    # 2^i 5^j divides 10^places for places = max(i, j), which is at most the bit length
    places = int(x.q).bit_length()
    scaled = x * fmpq(10) ** places
    if scaled.q != 1:
        raise ValueError(f"{x} is not a decimal fraction")
    digits = str(scaled.p)
    kept = digits.rstrip("0") or "0"
    exponent = len(digits) - len(kept) - places
    return kept if exponent == 0 or kept == "0" else f"{kept}e{exponent}"


def number(text: Any) -> fmpq:
    """The exact number in a string "p", "p/q" or "<digits>e<exponent>"; ValueError for anything else.

    Args:
        text: what a file holds.
    """
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a number: expected 'p', 'p/q' or 'digits e exponent' in a string")
    p, q, exponent = match.groups()
    return fmpq(fmpz(p), fmpz(q or "1")) * fmpq(10) ** int(exponent or 0)


def polynomial(items: list[str]) -> fmpq_poly:
    """The polynomial with these coefficients, ascending.

    Args:
        items: strings, as `number` reads them.
    """
    return fmpq_poly([number(c) for c in items])


def index(item: Any) -> int:
    """A count or position of modest size.

    Args:
        item: what a file holds.

    Raises:
        ValueError: for anything else.
    """
    if type(item) is not int or not 0 <= item < 1 << 20:
        raise ValueError(f"{item!r} is not a whole number >= 0")
    return item


def float_below(x: fmpq) -> float:
    """The largest float64 <= x.

    Args:
        x: an exact number.
    """
    value = to_float(x)
    if math.isinf(value):
        return value if value < 0 else math.nextafter(math.inf, 0)
    return value if fmpq(*value.as_integer_ratio()) <= x else math.nextafter(value, -math.inf)
