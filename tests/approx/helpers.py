"""What several test modules need."""

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
