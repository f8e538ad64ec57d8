"""Exact facts about polynomials and rational functions on an interval.

Everything here is decided in integer and ball arithmetic (python-flint); no float takes part in a decision.
Real roots are isolated by Descartes' rule of signs with bisection (Vincent; Collins and Akritas 1976),
which is exact and needs no bound on the separation of the roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flint import arb, ctx, fmpq, fmpq_poly, fmpz_poly

MAX_BITS = 1 << 15
"""Where refinement gives up: 32768 bits, far beyond any approximation error that can be written down."""

_SHIFT = fmpz_poly([1, 1])


@dataclass(frozen=True)
class Root:
    """One distinct real root `x` of a polynomial, `lo <= x <= hi`; `lo == hi` where it is known exactly.

    Inside (lo, hi) the polynomial has no other root, and `sign` is its sign just right of `lo`.
    """

    poly: fmpz_poly
    lo: fmpq
    hi: fmpq
    sign: int = 0

    def refine(self, width: fmpq) -> Root:
        """The same root in an interval at most `width` wide: Newton's guess, accepted on exact signs only."""
        root = self
        while root.hi - root.lo > width:
            guess = root._newton(width)
            root = root._cut(guess - width / 3)._cut(guess + width / 3)
            if root.hi - root.lo > width:
                for _ in range(4):
                    root = root._cut((root.lo + root.hi) / 2)
        return root

    def _cut(self, x: fmpq) -> Root:
        if not self.lo < x < self.hi:
            return self
        sign = sign_of(self.poly(x))
        if sign == 0:
            return Root(self.poly, x, x)
        if sign == self.sign:
            return Root(self.poly, x, self.hi, self.sign)
        return Root(self.poly, self.lo, x, self.sign)

    def _newton(self, width: fmpq) -> fmpq:
        """A guess at the root, rounded to about `width`; it may be wrong, but never does harm."""
        span = self.hi - self.lo
        bits = max(0, bit_size(span) - bit_size(width)) + 8
        # the root in units of the interval: x = lo + span t
        local = compose_affine(fmpq_poly(self.poly), self.lo, span).numer()
        slope = local.derivative()
        with ctx.workprec(2 * bits + 4 * local.degree() + 64):
            t = arb(0.5)
            for _ in range(bits.bit_length() + 6):
                step = (local(t) / slope(t)).mid()
                if not step.is_finite():
                    break
                t = (t - step).mid()
                if not 0 < t < 1:
                    t = arb(0.5)
                    break
            return self.lo + span * fmpq((t.fmpq() * (1 << bits)).floor(), 1 << bits)


def sign_of(x: Any) -> int:
    return (x > 0) - (x < 0)


def bit_size(x: fmpq) -> int:
    """An integer k with 2**(k-1) < |x| < 2**(k+1), for x != 0."""
    return abs(int(x.p)).bit_length() - int(x.q).bit_length()


def compose_affine(p: fmpq_poly, shift: fmpq, scale: fmpq) -> fmpq_poly:
    """p(shift + scale t) as a polynomial in t."""
    return p(fmpq_poly([shift, scale]))


def square_free(p: fmpz_poly) -> fmpz_poly:
    common = p.gcd(p.derivative())
    return p if common.degree() <= 0 else p // common


def isolate(p: fmpq_poly, a: fmpq, b: fmpq) -> list[Root]:
    """The distinct real roots of `p` in the closed interval [a, b], in increasing order, isolated exactly.

    Raises ValueError if p is zero: then every point is a root.
    """
    if p.degree() < 0:
        raise ValueError("p: the zero polynomial has no isolated roots")
    if a == b:
        return [Root(p.numer(), a, a)] if p(a) == 0 else []
    poly = square_free(p.numer())
    local = compose_affine(fmpq_poly(poly), a, b - a).numer()
    # a negative denominator cannot occur, so `local` has the signs of `poly`
    roots = [Root(poly, b, b)] if local(1) == 0 else []
    todo = [(local, a, b)]
    while todo:  # depth first, right to left
        p01, lo, hi = todo.pop()
        if p01[0] == 0:
            roots.append(Root(poly, lo, lo))
            p01 = fmpz_poly(p01.coeffs()[1:])
        count = _variations(p01)
        if count == 1:
            roots.append(Root(poly, lo, hi, sign_of(p01[0])))
        elif count > 1:
            mid = (lo + hi) / 2
            degree = p01.degree()
            left = fmpz_poly([c << (degree - i) for i, c in enumerate(p01.coeffs())])
            todo += [(left, lo, mid), (left(_SHIFT), mid, hi)]
    return sorted(roots, key=lambda r: (r.lo, r.hi))


def _variations(p: fmpz_poly) -> int:
    """Sign changes of (1 + x)^n p(1 / (1 + x)): the number of roots in (0, 1) plus an even number >= 0."""
    changes, last = 0, 0
    for c in fmpz_poly(p.coeffs()[::-1])(_SHIFT).coeffs():
        sign = sign_of(c)
        if sign and sign != last:
            changes += last != 0
            last = sign
    return changes


def extrema(num: fmpq_poly, den: fmpq_poly, a: fmpq, b: fmpq, bits: int = 60) -> list[tuple[fmpq, arb]]:
    """The local extrema and the two ends of num/den on [a, b], as (point, ball around the value), in order.

    `den` must have no root in [a, b] (see `isolate`). Between neighbours in the list num/den is monotone,
    so the largest |value| is its largest modulus on [a, b]. Each ball holds the value at the extremum and
    at the point given for it; its radius is at most 2**-bits of the largest modulus.
    Raises ArithmeticError if that takes more than MAX_BITS bits.
    """
    slope = num.derivative() * den - num * den.derivative()
    roots = isolate(slope, a, b) if slope.degree() >= 0 else []
    points = [
        Root(slope.numer(), a, a),
        *(r for r in roots if a < r.hi and r.lo < b),
        Root(slope.numer(), b, b),
    ]
    if a == b:
        points = points[:1]
    # in units of the interval, where neither huge nor tiny numbers arise
    span = b - a if b > a else fmpq(1)
    upper, lower = compose_affine(num, a, span), compose_affine(den, a, span)
    top, bottom = upper.numer(), lower.numer()
    values: list[arb | None] = [None] * len(points)
    largest = arb(0)
    prec = bits + 64
    while prec <= MAX_BITS:
        with ctx.workprec(prec):
            ratio = arb(fmpq(lower.denom(), upper.denom()))
            for i, root in enumerate(points):
                if values[i] is not None:
                    continue
                points[i] = root = root.refine(span / (1 << prec // 2))
                t = arb((root.lo - a) / span).union(arb((root.hi - a) / span))
                value = ratio * top(t) / bottom(t)
                if not value.is_finite():
                    continue
                largest = max(largest, abs(value).lower())
                values[i] = value
            tolerance = largest.lower() * arb(2) ** -bits
            for i, value in enumerate(values):
                if value is not None and not value.rad() <= tolerance:
                    values[i] = None
        if all(v is not None for v in values):
            return [((r.lo + r.hi) / 2, v) for r, v in zip(points, values, strict=True) if v is not None]
        prec *= 2
    raise ArithmeticError(f"the extrema of the error are not resolved at {MAX_BITS} bits")
