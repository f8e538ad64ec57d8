"""Proven bounds on the error of a rational function: its sup norm, and the least error of its type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from flint import arb, arb_mat, fmpq, fmpq_poly, fmpz_poly

from approx.dyadic import dyadic, precision
from approx.functions import Functions
from approx.operands import Quotient
from approx.proofs.real_roots import MAX_BITS, bit_size, compose_affine, extrema, isolate, sign_of
from approx.proofs.taylor import models
from approx.rational import Rational
from approx.target import Piece, Target


@dataclass(frozen=True)
class Branch:
    """r = num/den on [a, b]. A safe-Pade function may have one on either side of its centre."""

    a: fmpq
    """Left end."""
    b: fmpq
    """Right end."""
    num: fmpq_poly
    """Numerator in x."""
    den: fmpq_poly
    """Denominator in x."""

    def near(self, x: fmpq, bits: int) -> arb:
        """A ball around r(x) of that many bits at least: exactly it takes much longer where there are many digits.

        Args:
            x: an exact point.
            bits: bits of its relative accuracy.
        """
        scale = fmpq(self.den.denom(), self.num.denom())
        for more in (bits + 64, 2 * bits + 256):
            with precision(more):
                value = arb(scale) * self._top(arb(x)) / self._bottom(arb(x))
                if value.rel_accuracy_bits() >= bits:
                    return value
        with precision(bits):
            return arb(self.num(x) / self.den(x))

    @cached_property
    def _top(self) -> fmpz_poly:
        return self.num.numer()

    @cached_property
    def _bottom(self) -> fmpz_poly:
        return self.den.numer()


def branches(rational: Rational, target: Target) -> list[Branch]:
    """The exact branches of a function on the convex hull of a target's domain, left to right.

    Args:
        rational: the rational function.
        target: the function to approximate.

    Raises:
        ValueError: for a function that has none (see `Rational.branches`).
    """
    low, high = map(dyadic, target.hull)
    parts = [r for _, _, r in rational.with_domain(target.domain).branches()]
    cuts = [rational.centre] if len(parts) == 2 else []  # exactly: `branches` gives the nearest float
    if not cuts and parts[0].form != rational.form and low < rational.centre < high:
        raise ValueError("the function's centre lies in the domain, too close to its end: change domain=")
    intervals = pairwise([low, *cuts, high])
    return [Branch(a, b, *r.exact()) for (a, b), r in zip(intervals, parts, strict=True)]


@dataclass(frozen=True)
class Point:
    """A point `x` of the piece of that index, and a ball around the weighted error there."""

    piece: int
    """Index of the piece."""
    x: fmpq
    """The point, exactly."""
    error: arb
    """A ball around the error."""


@dataclass(frozen=True)
class Box:
    """Part of a piece: |w (f - r)(x(t)) - num(t)/den(t)| <= radius for lo <= t <= hi, x(t) a polynomial."""

    lo: fmpq
    """Left end in t."""
    hi: fmpq
    """Right end in t."""
    num: fmpq_poly
    """Numerator in t."""
    den: fmpq_poly
    """Denominator in t."""
    radius: fmpq = field(default_factory=lambda: fmpq(0))
    """How far the error may be from num/den."""
    x: fmpq_poly = field(default_factory=lambda: fmpq_poly([0, 1]))
    """x as a polynomial in t."""


@dataclass(frozen=True)
class Error:
    """The weighted error w (f - r) of a function without poles on the target's domain.

    Its pieces, counted from the left, are those of the target, cut where a branch of r ends.
    """

    target: Target
    """What is approximated."""
    branches: list[Branch]
    """The branches of r, left to right."""

    @cached_property
    def pieces(self) -> list[tuple[Piece, Branch]]:
        """(piece of the target, branch of r) for each part, left to right."""
        found = []
        for p in self.target.pieces():
            for r in self.branches:
                a, b = max(p.a, r.a), min(p.b, r.b)
                if a < b:
                    found.append((replace(p, a=a, b=b), r))
        return found

    def at(self, piece: int, x: fmpq, bits: int = 128) -> arb:
        """A ball around the error at `x` on a piece, at `bits` bits of working precision.

        Args:
            piece: index of a piece.
            x: a point of it.
            bits: bits of precision.
        """
        f, w = self.given(piece, x, bits)
        r = self.pieces[piece][1]
        value = r.near(x, bits)
        with precision(bits):
            return w * (f - value)

    def given(self, piece: int, x: fmpq, bits: int) -> tuple[arb, arb]:
        """Balls around the target and the weight at `x`.

        Args:
            piece: index of a piece.
            x: a point of it.
            bits: bits of precision.
        """
        p = self.pieces[piece][0]
        with precision(bits):
            f = arb(p.polynomial(x)) if p.polynomial is not None else arb(p(arb(x)))
            if self.target.weight is None:
                return f, arb(1)
            if self.target.weight == "relative":
                return f, 1 / abs(f)
            w = arb(self._weight(arb(x)))
        if not w > 0:
            raise ValueError(f"weight must be positive: it is {w} at x = {x}")
        return f, w

    def on_piece(self, piece: int, x: fmpq) -> bool:
        """Whether `x` lies on the piece of that index.

        Args:
            piece: index of a piece.
            x: the points.
        """
        return piece < len(self.pieces) and self.pieces[piece][0].a <= x <= self.pieces[piece][0].b

    def _weight(self, x: Any) -> Any:
        return self.target.weight_at(x)

    def sharp(self, piece: int, x: fmpq, rel: fmpq) -> arb:
        """`at` with the bits that make the ball far narrower than `rel`; an error of 0 never gets there.

        Args:
            piece: index of a piece.
            x: a point of it.
            rel: the relative distance between two bounds, at most.
        """
        good, bits = _bits(rel) + 8, 128
        while (error := self.at(piece, x, bits)).rel_accuracy_bits() < good and bits < MAX_BITS:
            bits *= 2
        return error

    def extrema(self, rel: fmpq) -> list[Point]:
        """The local extrema of the error and the ends of the pieces, from left to right.

        The ball at a point holds the error there and the extremum beside it. The largest upper bound in the
        list bounds the sup norm from above, the largest lower bound from below, and they agree to `rel`.

        Args:
            rel: the relative distance between two bounds, at most.

        Raises:
            ArithmeticError: where the target has no enclosure, ValueError for a weight that is infinite.
        """
        bits = _bits(rel)
        exact = not callable(self.target.weight) and all(p.polynomial is not None for p, _ in self.pieces)
        tolerance = fmpq(0) if exact else self._size() * rel / 8
        found = []
        for i, (piece, branch) in enumerate(self.pieces):
            for box in self._boxes(piece, branch, tolerance):
                for t, value in extrema(box.num, box.den, box.lo, box.hi, bits):
                    x = box.x(t)
                    with precision(bits + 64):
                        value += arb(0, arb(box.radius).upper())
                        if self.target.weight == "relative":  # the boxes hold (f - r) / f
                            f = self._certain(piece, x, bits + 64)
                            value = value if f > 0 else -value if f < 0 else value.union(-value)
                        found.append(Point(i, x, value))
        return found

    def _certain(self, piece: Piece, x: fmpq, bits: int) -> arb:
        """f at `x`, with the bits that tell its sign: beside a zero that was divided out it cancels."""
        while True:
            with precision(bits):
                f = arb(piece(arb(x)))
            if f > 0 or f < 0 or bits > MAX_BITS:
                return f
            bits *= 2

    def _size(self) -> fmpq:
        """A lower bound on the sup norm, in practice a good one; 0 for an error that seems to be 0."""
        places = []
        for i, (p, r) in enumerate(self.pieces):
            steps = 2 * (r.num.degree() + r.den.degree()) + 9
            places += [(i, p.a + (p.b - p.a) * k / steps) for k in range(1, steps)]
            # a pole next to the domain makes a peak that a grid would miss
            places += [(i, x) for x, _ in extrema(r.num, r.den, p.a, p.b)]
        bits = 128
        while bits <= MAX_BITS:
            size = max(least(self.at(i, x, bits)) for i, x in places)
            if size > 0:
                return size
            bits *= 4
        return fmpq(0)

    def _boxes(self, p: Piece, r: Branch, tolerance: fmpq) -> Iterator[Box]:
        weight, num, den = self.target.weight, r.num, r.den
        f = p.polynomial
        if f is not None and weight is None:
            yield Box(p.a, p.b, f * den - num, den)
        elif f is not None and weight == "relative":
            yield self._relative(f, p, r)
        elif p.expression is Functions.sqrt and p.a == 0 and weight is None:
            # x = b t^2 makes a polynomial of the square root; only the constant sqrt(b) is rounded
            with precision(64 + max(0, bit_size(p.b)) - min(0, bit_size(tolerance))):
                root = arb(p.b).sqrt()
                f, radius = fmpq_poly([0, root.mid().fmpq()]), root.rad().upper().fmpq()
            square = fmpq_poly([0, 0, p.b])
            num, den = num(square), den(square)
            yield Box(fmpq(0), fmpq(1), f * den - num, den, radius, square)
        elif tolerance == 0 and _is(p, num, den):
            yield Box(p.a, p.b, fmpq_poly(), fmpq_poly([1]))
        else:
            yield from self._modelled(p, r, tolerance)

    def _relative(self, f: fmpq_poly, p: Piece, r: Branch) -> Box:
        if not f:
            raise ValueError("weight='relative': the target is zero on a whole interval of its domain")
        num, den = f * r.den - r.num, f * r.den
        if (common := num.gcd(den)).degree() > 0:
            num, den = num // common, den // common
        if isolate(den, p.a, p.b):
            raise ValueError("weight='relative': the target has a zero in its domain that the rational lacks")
        return Box(p.a, p.b, num, den)

    def _modelled(self, p: Piece, r: Branch, tolerance: fmpq) -> Iterator[Box]:
        """Boxes from Taylor models of w f and of w, or of 1 and 1/f for the relative error."""
        weight, num, den = self.target.weight, r.num, r.den
        bits = 64 - min(0, bit_size(tolerance))
        if weight is None:
            for lo, hi, (f,) in models([p], p.a, p.b, [tolerance], bits + _places([p], p)):
                yield Box(lo, hi, f.poly * den - num, den, f.radius)
            return
        size = max(most(value) for _, value in extrema(num, den, p.a, p.b))
        limits = [tolerance / 2, tolerance / 2 / max(size, fmpq(1))]
        if weight == "relative":
            if (arb(p(arb(p.a))) * arb(p(arb(p.b)))) < 0:
                raise ValueError("weight='relative': the target has a zero in its domain")
            both: list[Any] = [lambda s: 1 + 0 * s, lambda s: 1 / p(s)]
        else:
            both = [lambda s: self._weight(s) * p(s), self._weight]
        bits -= min(0, bit_size(limits[1] / tolerance)) if tolerance else 0
        for lo, hi, (f, w) in models(both, p.a, p.b, limits, bits + _places(both, p)):
            yield Box(lo, hi, f.poly * den - w.poly * num, den, f.radius + w.radius * size)


def _is(piece: Piece, num: fmpq_poly, den: fmpq_poly) -> bool:
    """Whether the target is num/den on a piece."""
    own = Quotient.of(piece.expression, (piece.a + piece.b) / 2)
    if own is None or own.num * den != num * own.den:
        return False
    ends = (piece.a, piece.b)
    return all(root.lo == root.hi and root.lo in ends for p in own.signs if p for root in isolate(p, *ends))


def _places(functions: Sequence[Any], piece: Piece) -> int:
    """Bits before the point of the values of functions on a piece, seen at a few points."""
    places = 0
    with precision(64):
        for k in range(1, 16):
            x = arb(piece.a + (piece.b - piece.a) * k / 16)
            values = [abs(arb(f(x))) for f in functions]
            places = max(places, *(bit_size(most(v)) for v in values if v.is_finite() and v > 1), 0)
    return places


def _bits(rel: fmpq) -> int:
    """Bits for balls much narrower than `rel`."""
    return max(60, 12 - bit_size(rel))


#: Below it a modulus is none: exp(-10^14) has too many bits
_NONE = arb(2) ** -(1 << 18)


def least(ball: arb) -> fmpq:
    """The smallest modulus in a ball, exactly; 0 if it is below all errors, or the ball is not finite.

    Args:
        ball: a real ball.
    """
    if not ball.is_finite() or abs(ball) < _NONE:
        return fmpq(0)
    return max(abs(ball.mid().fmpq()) - ball.rad().fmpq(), fmpq(0))


def most(ball: arb) -> fmpq:
    """The largest modulus in a finite ball, exactly but where it is below all errors.

    Args:
        ball: a finite real ball.
    """
    if 0 < abs(ball) < _NONE:
        return _NONE.fmpq()
    return abs(ball.mid().fmpq()) + ball.rad().fmpq()


def reference(points: list[Point], den: fmpq_poly, count: int) -> list[Point]:
    """`count` of the points at which (f - r) den alternates in sign, their least |error| as large as may be.

    Empty if there are fewer alternations. Points whose sign is not certain do not take part.

    Args:
        points: the candidates, ascending.
        den: the denominator of r.
        count: how many are wanted.
    """
    runs: list[Point] = []
    last = 0
    for p in points:
        sign = sign_of(den(p.x)) * (1 if p.error > 0 else -1 if p.error < 0 else 0)
        if sign == 0:
            continue
        if sign != last:
            runs.append(p)
        elif least(p.error) > least(runs[-1].error):
            runs[-1] = p
        last = sign

    def size(i: int) -> fmpq:
        return least(runs[i].error)

    while len(runs) > count:
        # leave out the smallest; an inner point takes a neighbour with it, so that the signs still alternate
        i = min(range(len(runs)), key=size)
        if len(runs) == count + 1 or i in (0, len(runs) - 1):
            del runs[0 if size(0) <= size(len(runs) - 1) else -1]
        else:
            neighbour = min(i - 1, i + 1, key=size)
            del runs[min(i, neighbour) : max(i, neighbour) + 1]
    return runs if len(runs) == count else []


def enough(r: Branch, kind: tuple[int, int]) -> int:
    """How many alternations of r prove a bound on the best error of type `kind`: two more than the degree of
    num q - p den may be, so m + n + 2, or fewer where r has fewer degrees.

    Args:
        r: the function, num/den.
        kind: the (m, n) that the bound is about.
    """
    m, n = kind
    right = m + min(r.den.degree(), n)
    return (right if not r.num else max(min(r.num.degree(), m) + n, right)) + 2


def alternation(error: Error, points: Sequence[tuple[int, fmpq]], kind: tuple[int, int], rel: fmpq) -> fmpq:
    """The bound on the best error of type `kind` that the points prove; 0 for none, or a branched r.

    De la Vallee-Poussin: let r = num/den have degrees at most (m, n), and let (f - r) den alternate in sign
    at `enough` points. If s = p/q of type (m, n), q > 0 on the hull, had a smaller weighted error at all of
    them, then (r - s) den q = num q - p den would alternate too, and have more zeros than its degree.
    Two points may share their x where f jumps: r - s cannot have both signs there.

    Args:
        error: the error of num/den.
        points: pairs (piece, x), ascending.
        kind: the (m, n) that the bound is about.
        rel: how sharp the values have to be.
    """
    m, n = kind
    if len(error.branches) != 1 or len(points) < enough(error.branches[0], kind):
        return fmpq(0)
    num, den = error.branches[0].num, error.branches[0].den
    if not den or num.degree() > m or den.degree() > n:
        return fmpq(0)
    smallest, last = None, None
    for piece, x in points:
        side = sign_of(den(x))
        if not side or not error.on_piece(piece, x):
            return fmpq(0)
        value = error.sharp(piece, x, rel)
        sign = side * (1 if value > 0 else -1 if value < 0 else 0)
        if not sign or (last is not None and not (last[:2] < (piece, x) and sign != last[2])):
            return fmpq(0)
        smallest = least(value) if smallest is None else min(smallest, least(value))
        last = (piece, x, sign)
    return smallest or fmpq(0)


def improved(error: Error, points: list[Point], kind: tuple[int, int]) -> Branch | None:
    """A rational p/q of type `kind` near r with its error levelled at the points: what they prove at best.

    Newton's method on p(x_i) = (f(x_i) - s_i E / w(x_i)) q(x_i), s_i the signs of the error. The result is no
    proof by itself: hand it to `alternation`. None where the iteration fails.

    Args:
        error: the error of r.
        points: m + n + 2 alternation points.
        kind: the (m, n) that the bound is about.
    """
    m, n = kind
    (r,) = error.branches
    middle, half = (r.a + r.b) / 2, (r.b - r.a) / 2
    smallest = min(least(p.error) for p in points)
    digits = 64 + 2 * (m + n) - 2 * min(0, bit_size(smallest))
    bits = 4 * digits
    with precision(bits):
        signs = [1 if p.error > 0 else -1 for p in points]
        values = [error.given(p.piece, p.x, bits) for p in points]
        t = [arb((p.x - middle) / half) for p in points]
        start = compose_affine(r.den, middle, half)
        q = [arb(start[j]) for j in range(n + 1)]
        level = arb(smallest)
        for _ in range(10):
            rows = []
            for ti, s, (f, w) in zip(t, signs, values, strict=True):
                target = f - s * level / w
                slope = s / w * sum((c * ti**j for j, c in enumerate(q)), arb(0))
                rows.append([ti**j for j in range(m + 1)] + [-target * ti**j for j in range(n + 1)] + [slope])
            rows.append([arb(0)] * (m + 1) + q + [arb(0)])  # the scale of q stays
            right = arb_mat([[arb(0)]] * len(points) + [[sum((c * c for c in q), arb(0))]])
            try:
                found = [row[0].mid() for row in arb_mat(rows).solve(right).tolist()]
            except ZeroDivisionError:
                return None
            if not all(c.is_finite() for c in found):
                return None
            p, q, step = found[: m + 1], found[m + 1 : -1], found[-1]
            level = (level + step).mid()
            if abs(step) <= level * arb(2) ** (-digits // 2):
                back = fmpq_poly([-middle / half, 1 / half])
                num, den = (fmpq_poly([dyadic(c, digits) for c in part])(back) for part in (p, q))
                return Branch(r.a, r.b, num, den)
    return None
