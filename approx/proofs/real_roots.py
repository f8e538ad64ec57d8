"""Exact facts about polynomials and rational functions on an interval.

Everything here is decided in integer and ball arithmetic (python-flint); no float takes part in a decision.
Real roots are isolated by Descartes' rule of signs with bisection (Vincent; Collins and Akritas 1976),
which is exact and needs no bound on the separation of the roots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from flint import arb, arb_poly, ctx, fmpq, fmpq_poly, fmpz_poly

MAX_BITS = 1 << 15
"""Where refinement gives up: far beyond any error worth writing down."""

_SHIFT = fmpz_poly([1, 1])


@dataclass(frozen=True)
class Root:
    """One distinct real root x = start + span t of a polynomial, u <= t <= v; u == v if it is known exactly.

    `local` is the polynomial as a function of t, times some positive number. Inside (u, v) it has no other
    root, and `sign` is its sign just right of u.
    """

    start: fmpq
    """x at t = 0."""
    span: fmpq
    """dx/dt."""
    local: fmpz_poly
    """The polynomial as a function of t, times some positive number."""
    u: fmpq
    """The root lies at u or to the right of it,"""
    v: fmpq
    """and at v or to the left of it."""
    sign: int
    """The sign of `local` just right of u."""

    @property
    def lo(self) -> fmpq:
        """A lower bound of the root."""
        return self.start + self.span * self.u

    @property
    def hi(self) -> fmpq:
        """An upper bound of the root."""
        return self.start + self.span * self.v

    def refine(self, width: fmpq) -> Root:
        """The same root in an interval at most `width` wide: Newton's guess, accepted on proven signs.

        Args:
            width: the largest width of the interval.
        """
        if self.span == 0:
            return self
        root, width = self, width / self.span
        bits = max(0, 3 - bit_size(width))
        while root.v - root.u > width:
            guess = root._newton(bits)
            root = root._cut(guess - width / 3)._cut(guess + width / 3)
            if root.v - root.u > width:
                for _ in range(4):
                    root = root._cut((root.u + root.v) / 2)
        return root

    def _cut(self, t: fmpq) -> Root:
        if not self.u < t < self.v:
            return self
        sign = sign_at(self.local, t)
        if sign == 0:
            return replace(self, u=t, v=t)
        return replace(self, u=t) if sign == self.sign else replace(self, v=t)

    def _newton(self, bits: int) -> fmpq:
        """A guess at t, rounded to `bits` binary places; it may be wrong, but never does harm."""
        middle = (self.u + self.v) / 2
        slope = self.local.derivative()
        with ctx.workprec(2 * bits + 4 * self.local.degree() + 64):
            t = arb(middle)
            for _ in range(bits.bit_length() + 6):
                before, t = t, (t - self.local(t) / slope(t)).mid()
                if not self.u < t < self.v:  # nor if it is nan
                    return middle
                if abs(t - before) < arb(2) ** -(bits // 2 + 8):  # the next step would double that
                    break
            return fmpq((t.fmpq() * (1 << bits)).floor(), 1 << bits)


def sign_at(p: fmpz_poly, t: fmpq) -> int:
    """The sign of p(t): by ball arithmetic where that decides it, else exactly.

    Args:
        p: a polynomial over Z.
        t: an exact point.
    """
    bits = 64 + 2 * p.degree() + 2 * int(t.q).bit_length()
    for precision in (bits, 4 * bits):
        with ctx.workprec(precision):
            value = p(arb(t))
            if value > 0:
                return 1
            if value < 0:
                return -1
    return sign_of(p(t))


def sign_of(x: Any) -> int:
    """-1, 0 or 1.

    Args:
        x: an exact number.
    """
    return (x > 0) - (x < 0)


def bit_size(x: fmpq) -> int:
    """An integer k with 2**(k-1) < |x| < 2**(k+1), for x != 0.

    Args:
        x: an exact number, not 0.
    """
    return abs(int(x.p)).bit_length() - int(x.q).bit_length()


def compose_affine(p: fmpq_poly, shift: fmpq, scale: fmpq) -> fmpq_poly:
    """p(shift + scale t) as a polynomial in t.

    Args:
        p: a polynomial over Q.
        shift: the constant term of x(t).
        scale: the slope of x(t).
    """
    return p(fmpq_poly([shift, scale]))


def square_free(p: fmpz_poly) -> fmpz_poly:
    """p without its repeated factors.

    Args:
        p: a polynomial over Z.
    """
    common = p.gcd(p.derivative())
    return p if common.degree() <= 0 else p // common


def isolate(p: fmpq_poly, a: fmpq, b: fmpq) -> list[Root]:
    """The distinct real roots of `p` in the closed interval [a, b], in increasing order, isolated exactly.

    Args:
        p: a polynomial over Q.
        a: left end.
        b: right end.

    Raises:
        ValueError: if p is zero: then every point is a root.
    """
    if p.degree() < 0:
        raise ValueError("p: the zero polynomial has no isolated roots")
    poly = square_free(p.numer())
    if a == b:
        return [_point(a)] if poly(a) == 0 else []
    whole = compose_affine(fmpq_poly(poly), a, b - a).numer()
    roots = [_point(b)] if whole(1) == 0 else []
    todo = [(whole, a, b - a)]
    while todo:
        local, start, span = todo.pop()
        if local[0] == 0:
            roots.append(_point(start))
            local = fmpz_poly(local.coeffs()[1:])
        count = _variations(local)
        if count == 1:
            roots.append(Root(start, span, local, fmpq(0), fmpq(1), sign_of(local[0])))
        elif count > 1:
            degree = local.degree()
            left = fmpz_poly([c << (degree - i) for i, c in enumerate(local.coeffs())])
            todo += [(left, start, span / 2), (left(_SHIFT), start + span / 2, span / 2)]
    return sorted(roots, key=lambda r: (r.lo, r.hi))


def separated(roots: list[Root], width: fmpq) -> list[Root]:
    """The roots in intervals at most `width` wide whose closures do not touch.

    Args:
        roots: distinct roots, ascending.
        width: the largest width of an interval.
    """
    while True:
        roots = [root.refine(width) for root in roots]
        if all(left.hi < right.lo for left, right in pairwise(roots)):
            return roots
        width /= 1 << 60


def _point(x: fmpq) -> Root:
    return Root(x, fmpq(0), fmpz_poly([]), fmpq(0), fmpq(0), 0)


def _variations(p: fmpz_poly) -> int:
    """Sign changes of (1 + x)^n p(1 / (1 + x)): the number of roots in (0, 1) plus an even number >= 0."""
    turned = fmpz_poly(p.coeffs()[::-1])
    with ctx.workprec(128 + 3 * p.degree()):  # balls decide it sooner, if they decide it at all
        signs = [1 if c > 0 else -1 if c < 0 else None for c in arb_poly(turned)(arb_poly([1, 1])).coeffs()]
    if None in signs:
        signs = [sign_of(c) for c in turned(_SHIFT).coeffs()]
    certain = [sign for sign in signs if sign]
    return sum(left != right for left, right in pairwise(certain))


def extrema(num: fmpq_poly, den: fmpq_poly, a: fmpq, b: fmpq, bits: int = 60) -> list[tuple[fmpq, arb]]:
    """The local extrema and the two ends of num/den on [a, b], as (point, ball around the value), in order.

    `den` must have no root in [a, b] (see `isolate`). Between neighbours in the list num/den is monotone,
    so the largest |value| is its largest modulus on [a, b]. Each ball holds the value at the extremum and
    at the point given for it; its radius is at most 2**-bits of the largest modulus.

    Args:
        num: numerator.
        den: denominator.
        a: left end.
        b: right end.
        bits: how small, relatively, the balls are.

    Raises:
        ArithmeticError: if that takes more than MAX_BITS bits.
    """
    slope = num.derivative() * den - num * den.derivative()
    roots = isolate(slope, a, b) if slope.degree() >= 0 else []
    points = [_point(a), *(r for r in roots if a < r.hi and r.lo < b), _point(b)]
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
            tolerance = (largest * arb(2) ** -bits).lower()
            for i, value in enumerate(values):
                if value is not None and not value.rad() <= tolerance:
                    values[i] = None
        if all(v is not None for v in values):
            return [((r.lo + r.hi) / 2, v) for r, v in zip(points, values, strict=True) if v is not None]
        prec *= 2
    raise ArithmeticError(f"the extrema of the error are not resolved at {MAX_BITS} bits")
