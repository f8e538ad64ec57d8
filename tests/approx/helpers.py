"""What several test modules need."""

from collections.abc import Iterator
from copy import deepcopy
from fractions import Fraction
from itertools import pairwise
from math import factorial
from typing import Any

from flint import arb, fmpq, fmpq_poly
from mpmath import mpf

import approx
from approx.dyadic import precision


def meinardus(n: int) -> float:
    """n! m! / (2^(m+n) (m+n)! (m+n+1)!) with m = n: the error of exp up to a factor 1 + O(1/(m+n)) (Braess
    1984).
    """
    return float(Fraction(factorial(n) ** 2, 2 ** (2 * n) * factorial(2 * n) * factorial(2 * n + 1)))


def alternates(fit: approx.Fit) -> bool:
    """Whether the exact function that is held equi-oscillates on the reference: the certificate of
    optimality.
    """
    with precision(128 + fit.rational.bits):
        points = [arb(float(x)) for x in fit.reference]
        errors = [fit.target.weight_at(x) * (fit.target(x) - fit.rational(x)) for x in points]
        signs = [e > 0 for e in errors]
        levels = [abs(float(e)) for e in errors]
    return all(a != b for a, b in pairwise(signs)) and min(levels) > fit.error * (1 - 1e-6)


def sturm(p: fmpq_poly, a: fmpq, b: fmpq) -> int:
    """The number of distinct roots in [a, b] by Sturm's theorem, another method than the one under test."""
    p = p // p.gcd(p.derivative())
    chain = [p, p.derivative()]
    while chain[-1] != 0:
        chain.append(-(chain[-2] % chain[-1]))

    def variations(x: fmpq) -> int:
        signs = [v > 0 for q in chain[:-1] if (v := q(x)) != 0]
        return sum(s != t for s, t in pairwise(signs))

    return variations(a) - variations(b) + (p(a) == 0)


def exact_mp(x: fmpq) -> Any:
    return mpf(int(x.p)) / int(x.q)


def changed(record: Any) -> Iterator[Any]:
    """Copies of a JSON record, each with one number, name, list or object in it changed or left out."""
    places: list[list[Any]] = [[]]
    for place in places:
        item = _at(record, place)
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        places += [[*place, key] for key in keys]
    for place in places[1:]:
        item = _at(record, place)
        others: list[Any] = [
            None,
            {},
            [],
            "",
            "banana",
            3,
            -1.5,
            "0x1p2",
            "-0x1p-1",
            "0x0p0",
            "0x1p5000",
            "nan",
        ]
        if isinstance(item, list):
            others += [item[::-1], item[:-1], item * 2, item[:1] * len(item)]
        elif isinstance(item, int | float):
            others += [item / 2, -item, item * (1 + 1e-3)]
        elif not isinstance(item, dict):
            others += ["-" + item, "float16", "rational", "torch"]
        for other in (o for o in others if o != item):
            copy = deepcopy(record)
            _at(copy, place[:-1])[place[-1]] = other
            yield copy
        copy = deepcopy(record)
        del _at(copy, place[:-1])[place[-1]]
        yield copy


def _at(record: Any, place: list[Any]) -> Any:
    for key in place:
        record = record[key]
    return record
