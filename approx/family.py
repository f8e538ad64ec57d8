"""All p/q of a type with some coefficients fixed: their names, and the linear family that they leave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flint import arb, fmpq, fmpq_poly

from approx.dyadic import dyadic

Fixed = dict[tuple[str, int], fmpq]
_NAME = re.compile(r"([pq])(\d+)")


def fixed_coefficients(fixed: Mapping[str, Any], type: tuple[int, int]) -> Fixed:
    """Fixed coefficients by polynomial and power, a denominator of degree 0 being 1.

    Args:
        fixed: {"p1": 1, "q0": 1}: what a user gave.
        type: (m, n), the degrees of numerator and denominator.

    Returns:
        {("p", 1): 1, ("q", 0): 1}.

    Raises:
        ValueError: for another name, a power beyond the type, or a numerator or denominator of zeros.
    """
    m, n = type
    found: Fixed = {}
    for name, value in fixed.items():
        parts = _NAME.fullmatch(str(name))
        if parts is None or int(parts[2]) > {"p": m, "q": n}[parts[1]]:
            raise ValueError(
                f"fixed=: {name!r} is no coefficient of type {type}; they are p0 to p{m}, of the numerator, and q0 to "
                f"q{n}, of the denominator"
            )
        found[parts[1], int(parts[2])] = dyadic(value)
    if not found:
        raise ValueError('fixed= is empty: expected coefficients by name, such as {"p1": 1, "q0": 1}')
    if n == 0:
        found.setdefault(("q", 0), fmpq(1))
    if all(found.get(("q", j)) == 0 for j in range(n + 1)):
        raise ValueError("fixed=: every coefficient of the denominator is 0")
    if all(found.get(("p", i)) == 0 for i in range(m + 1)):
        raise ValueError(
            "fixed=: every coefficient of the numerator is 0, so the function is 0: leave one free"
        )
    return found


def without_factor(fixed: Fixed, shift: int) -> Fixed:
    """The fixed coefficients that are left when numerators lose a factor of x.

    Args:
        fixed: by polynomial and power.
        shift: the power of x.
    """
    return {
        (name, i - shift if name == "p" else i): v
        for (name, i), v in fixed.items()
        if name == "q" or i >= shift
    }


def sides_of(fixed: Fixed, low: float, high: float) -> list[int]:
    """The signs that the fixed coefficients can have where q is to be positive: 1, -1, or either.

    Args:
        fixed: by polynomial and power.
        low: left end of the hull.
        high: right end.
    """
    if low <= 0 <= high and (at_0 := fixed.get(("q", 0), fmpq(0))) != 0:
        return [1 if at_0 > 0 else -1]
    return [1, -1] if any(fixed.values()) else [1]


@dataclass(frozen=True)
class Family:
    """(p, q) = base + sum c_j free_j."""

    base: tuple[fmpq_poly, fmpq_poly]
    """(p, q) with every c_j = 0."""
    free: list[tuple[fmpq_poly, fmpq_poly]]
    """What c_j multiplies."""

    @classmethod
    def of(
        cls, fixed: Mapping[tuple[str, int], fmpq], type: tuple[int, int], side: int, middle: fmpq
    ) -> Family:
        """The functions of a type with some coefficients; q(middle) = 1 where these leave the scale open.

        Args:
            fixed: coefficients, {("p", 1): 1}.
            type: (m, n), the degrees of numerator and denominator.
            side: 1, or -1 for the fixed ones with the other sign.
            middle: a point of the domain.

        Returns:
            The family.
        """
        m, n = type
        base = tuple(
            fmpq_poly([side * fixed.get((name, i), fmpq(0)) for i in range(degree + 1)])
            for name, degree in (("p", m), ("q", n))
        )
        zero = fmpq_poly()
        above = [(_power(i), zero) for i in range(m + 1) if ("p", i) not in fixed]
        powers = [j for j in range(n + 1) if ("q", j) not in fixed]
        if any(fixed.values()):
            return cls((base[0], base[1]), [*above, *((zero, _power(j)) for j in powers)])
        first, *rest = powers
        if first and middle == 0:
            raise ValueError("fixed=: q0 = 0 gives every function a pole at 0, in the middle of the domain")
        lowest = _power(first) / _power(first)(middle) if first else _power(0)
        return cls((zero, lowest), [*above, *((zero, _power(j) - _power(j)(middle) * lowest) for j in rest)])

    def pair(self, c: list[arb]) -> tuple[fmpq_poly, fmpq_poly]:
        """p and q.

        Args:
            c: the free coefficients, as many as `free`.
        """
        p, q = self.base
        for value, (above, below) in zip(c, self.free, strict=True):
            exact = value.mid().fmpq()
            p, q = p + exact * above, q + exact * below
        return p, q


def _power(degree: int) -> fmpq_poly:
    return fmpq_poly([0] * degree + [1])
