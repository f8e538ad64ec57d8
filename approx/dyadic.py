"""Exact dyadic numbers (integer times a power of two), held as `flint.fmpq`.

Every parameter of a `Rational` is dyadic, so that arithmetic on it is exact and a file holds it without loss.
"""

from __future__ import annotations

import copyreg
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np
from flint import arb, ctx, fmpq, fmpq_poly, fmpz

_CONTEXT = RLock()

# flint says not how its numbers are pickled, and certificates hold them
copyreg.pickle(fmpq, lambda value: (fmpq, (int(value.p), int(value.q))))  # pyright: ignore[reportArgumentType]
copyreg.pickle(fmpq_poly, lambda poly: (fmpq_poly, (poly.coeffs(),)))  # pyright: ignore[reportArgumentType]


@contextmanager
def precision(bits: int) -> Generator[None]:
    """Run a block, or as a decorator a function, with flint's working precision set to `bits`.

    It belongs to all threads of a process, so that one thread at a time is within such blocks.

    Args:
        bits: the working precision inside the block.
    """
    with _CONTEXT:
        before = ctx.prec
        ctx.prec = bits
        try:
            yield
        finally:
            ctx.prec = before


def dyadic(value: Any, bits: int | None = None) -> fmpq:
    """`value` (int, float, fmpz, fmpq or arb) as an exact dyadic, rounded to `bits` bits where they are
    given.

    Args:
        value: int, float, fmpz, fmpq or arb.
        bits: to how many bits it is rounded; None for not at all.

    Raises:
        ValueError: for a value that is not finite, or not dyadic when no `bits` are given.
    """
    if isinstance(value, arb):
        if not value.is_finite():
            raise ValueError(f"parameter {value} is not finite")
        exact = value.mid().fmpq()
    elif isinstance(value, fmpq):
        exact = value
    elif isinstance(value, int | np.integer | fmpz):
        exact = fmpq(int(value))
    else:
        if isinstance(value, complex | np.complexfloating):
            if value.imag != 0:
                raise ValueError(f"parameter {value} is not real")
            value = value.real
        number = float(value)
        if not np.isfinite(number):
            raise ValueError(f"parameter {number} is not finite")
        exact = fmpq(*number.as_integer_ratio())
    if bits is not None and exact != 0:
        power = _power_of_two(bits - (int(exact.p).bit_length() - int(exact.q).bit_length()))
        if abs(exact) * power >= _power_of_two(bits):
            power /= 2
        exact = fmpq((exact * power + fmpq(1, 2)).floor()) / power
    denominator = int(exact.q)
    if denominator & (denominator - 1):
        raise ValueError(f"{exact} is not a dyadic number; give bits= to round it")
    return exact


def _power_of_two(exponent: int) -> fmpq:
    return fmpq(1 << exponent) if exponent >= 0 else fmpq(1, 1 << -exponent)


def to_float(value: fmpq) -> float:
    """The float64 nearest to `value`; +-inf beyond the range.

    Args:
        value: a dyadic number.
    """
    try:
        return int(value.p) / int(value.q)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def encode(value: fmpq) -> str | list[Any]:
    """JSON form of a dyadic: a float's hexadecimal string where that is exact, else [mantissa, exponent].

    Args:
        value: a dyadic number.
    """
    number = to_float(value)
    if np.isfinite(number) and fmpq(*number.as_integer_ratio()) == value:
        return number.hex()
    mantissa, exponent = int(value.p), -(int(value.q).bit_length() - 1)
    shift = (mantissa & -mantissa).bit_length() - 1
    return [str(mantissa >> shift), exponent + shift]


def decode(item: Any) -> fmpq:
    """The inverse of `encode`; raises ValueError for anything else.

    Args:
        item: what `encode` made.
    """
    if isinstance(item, str):
        return dyadic(float.fromhex(item))
    if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and type(item[1]) is int:
        mantissa, exponent = int(item[0]), item[1]
        if abs(exponent) > 1 << 20:
            raise ValueError(f"exponent {exponent} is out of range")
        return mantissa * _power_of_two(exponent)
    raise ValueError(f"{item!r} is not a number: expected a float's hex string or [mantissa, exponent]")


def power_of_two_above(value: Any) -> fmpq:
    """The smallest power of two that is at least |value|; 1 for zero.

    Args:
        value: a number, as `dyadic` takes it.
    """
    value = abs(dyadic(value))
    if value == 0:
        return fmpq(1)
    exponent = int(value.p).bit_length() - int(value.q).bit_length()
    power = _power_of_two(exponent)
    power /= 2
    while power < value:
        power *= 2
    return power


def significant_bits(value: fmpq) -> int:
    """Bits of the mantissa of a dyadic number.

    Args:
        value: a dyadic number.
    """
    mantissa = abs(int(value.p))
    return (mantissa // ((mantissa & -mantissa) or 1)).bit_length()


@lru_cache(maxsize=4096)
def in_parts(value: fmpq, bits: int | None) -> tuple[fmpq, ...]:
    """A number as a sum whose parts are to be subtracted in turn: two where a format rounds it.

    It rounds neither part, so that x - value keeps its digits where x is near (Cody and Waite).

    Args:
        value: a dyadic number.
        bits: of the format; None for exact arithmetic.
    """
    if bits is None or significant_bits(value) <= bits:
        return (value,) if value != 0 else ()
    first = dyadic(value, bits)
    return (first, dyadic(value - first, bits))
