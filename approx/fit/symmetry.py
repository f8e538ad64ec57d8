"""Reduction by symmetry: an even or odd problem becomes one of half the degrees on half the domain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import numpy as np
from flint import arb, arb_poly, fmpq, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.fit.error import jump_bound, target_values, weight_values
from approx.fit.exchange import Level, Problem, Values
from approx.granularity import grain
from approx.landmarks import landmarks
from approx.target import Target

START_BITS = 128
_TURNS = 16  # of a target, about the number that are looked at


class Symmetry(Enum):
    """What f is about the centre of its domain, up to a line."""

    NONE = ""
    EVEN = "even"
    ODD = "odd"


@dataclass(frozen=True)
class Reduced:
    """The problem in s: r(x) = line(x) + u^odd R(u^2), u = x - centre, s = u^2; or r = R, s = x without
    symmetry.
    """

    problem: Problem
    """The problem for R."""
    type: tuple[int, int]
    """The type of R."""
    symmetry: Symmetry
    """What was used."""
    centre: fmpq
    """The centre of the domain."""
    line: fmpq_poly
    """The polynomial in x, of degree 1 at most, that is subtracted first."""
    odd: int
    """1 for an odd function, else 0."""

    def x(self, s: arb) -> list[arb]:
        """The points of the original variable that s stands for, ascending.

        Args:
            s: a point of the reduced problem.
        """
        if self.symmetry is Symmetry.NONE:
            return [s]
        u = s.sqrt().mid()
        return [self.centre - u, self.centre + u] if u > 0 else [arb(self.centre)]

    def assemble(self, level: Level, p: arb_poly, q: arb_poly) -> tuple[fmpq_poly, fmpq_poly]:
        """num and den of r in x, exactly, from p and q in the variable of `level`.

        Args:
            level: the levelled function.
            p: its numerator.
            q: its denominator.
        """
        c, h = level.frame.centre.fmpq(), level.frame.half.fmpq()
        inner = fmpq_poly([-c / h, 1 / h])
        u = fmpq_poly([-self.centre, 1])
        if self.symmetry is not Symmetry.NONE:
            inner = inner(u * u)
        num, den = (fmpq_poly([k.fmpq() for k in poly.coeffs()])(inner) for poly in (p, q))
        return num * u**self.odd + self.line * den, den


def _resolution(target: Target) -> float:
    """How well f is known, relative to its size."""
    if target.enclosed:
        return 0.0
    x = np.concatenate([np.linspace(a, b, 35)[1:-1] for a, b in target.domain])
    size = float(np.max(np.abs(np.asarray(target(x), dtype=float))))
    return max(float(np.finfo(float).eps), grain(target) / max(size, 1e-300))


def plain(target: Target, type: tuple[int, int], sides: tuple[int, ...] = ()) -> Reduced:
    """The problem as it is, without a symmetry.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        sides: the sign of q on each interval; () for 1 everywhere.
    """
    intervals = [(arb(a), arb(b)) for a, b in target.domain]
    problem = Problem(
        target_values(target),
        weight_values(target),
        intervals,
        _resolution(target),
        tuple(arb(x) for x in target.breaks),
        tuple(arb(float(x)) for x in landmarks(target)),
        sides,
        jump_bound(target),
    )
    return Reduced(problem, type, Symmetry.NONE, fmpq(0), fmpq_poly(), 0)


def by_symmetry(target: Target, type: tuple[int, int], sides: tuple[int, ...] = ()) -> Reduced:
    """Use that f is a line plus an even function, or a constant plus an odd one, about the centre of its
    domain.

    By uniqueness the best r has the same symmetry when subtracting the line leaves the class of type (m, n)
    as it is: degree(line) + n <= m. Then r is a function of u^2 of half the degrees, on half the domain.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        sides: the sign of q on each interval; () for 1 everywhere.
    """
    whole = plain(target, type, sides)
    if sides != sides[::-1]:
        return whole
    m, n = type
    low, high = target.hull
    centre = (dyadic(low) + dyadic(high)) / 2
    reflected = [(2 * centre - dyadic(b), 2 * centre - dyadic(a)) for a, b in reversed(target.domain)]
    if reflected != [(dyadic(a), dyadic(b)) for a, b in target.domain]:
        return whole
    f, w = whole.problem.f, whole.problem.weight

    right = [(max(dyadic(a), centre), dyadic(b)) for a, b in target.domain if dyadic(b) > centre]
    with precision(START_BITS):
        close = arb(2) ** (-100 if target.enclosed else -50)
        us = [
            arb(a + (b - a) * fmpq(k, 97) - centre).mid()
            for a, b in right
            for k in (3, 17, 29, 44, 61, 83, 96)
        ]
        # a narrow peak is symmetric to nothing where nothing else looks
        turns = [arb(abs(dyadic(float(x)) - centre)) for x in landmarks(target)]
        turns = [u for u in turns if u > 0][:: max(1, len(turns) // _TURNS)]
        # nor does a fold tell what begins behind it
        edges = [arb(end - centre).mid() for part in right for end in part if end > centre]
        marks = sorted([*turns, *edges], key=float)
        us += [*marks, *(((a + b) / 2).mid() for a, b in pairwise(marks))]
        us = [u for u in us if any(arb(a) <= centre + u and centre + u <= arb(b) for a, b in right)]
        plus, minus = f([centre + u for u in us]), f([centre - u for u in us])
        size = max((abs(v) for v in (*plus, *minus)), key=float)
        if not size.is_finite():
            raise ValueError(f"target {target.name!r} is not finite on its domain: change domain=")
        if w and any(
            abs(a - b) > close * abs(a)
            for a, b in zip(w([centre + u for u in us]), w([centre - u for u in us]), strict=True)
        ):
            return whole

        def steady(values: list[arb], units: list[arb]) -> fmpq | None:
            """What the values are in these units, if they are one multiple of them up to rounding."""
            one = max(range(len(units)), key=lambda k: float(units[k]))
            share = values[one] / units[one]
            if any(abs(v - share * unit) > close * size for v, unit in zip(values, units, strict=True)):
                return None
            if abs(values[one]) <= close * size:
                return fmpq(0)
            return dyadic(share, 100 if target.enclosed else 50)

        slope = steady([(a - b) / 2 for a, b in zip(plus, minus, strict=True)], us)
        level = steady([(a + b) / 2 for a, b in zip(plus, minus, strict=True)], [arb(1)] * len(us))
    u = fmpq_poly([-centre, 1])
    if slope is not None and (slope == 0 or n + 1 <= m):
        odd, line, type = 0, slope * u, (m // 2, n // 2)
    elif level is not None and m >= 1 and (level == 0 or n <= m):
        odd, line, type = 1, fmpq_poly([level]), ((m - 1) // 2, n // 2)
    else:
        return whole

    def values(points: list[arb]) -> list[arb]:
        u = [s.sqrt().mid() for s in points]
        if odd:  # the part that a line adds to f cancels
            return [(v / x).mid() for v, x in zip(_part(f, centre, u, -1), u, strict=True)]
        return _part(f, centre, u, 1)

    def weights(points: list[arb]) -> list[arb]:
        u = [s.sqrt().mid() for s in points]
        outer = w([(centre + x).mid() for x in u]) if w else [arb(1)] * len(u)
        return [(x * k).mid() if odd else k for x, k in zip(u, outer, strict=True)]

    with precision(2 * START_BITS):
        intervals = [(arb((a - centre) ** 2), arb((b - centre) ** 2)) for a, b in right]
        corners = tuple(arb((dyadic(x) - centre) ** 2) for x in target.breaks)
        if odd and intervals[0][0] == 0:
            # an odd error vanishes at the centre: leave out a neighbourhood where it cannot be the largest
            intervals[0] = (intervals[-1][1] * arb(2) ** (-80 if target.enclosed else -30), intervals[0][1])
        turns = sorted({float((x - centre) ** 2): x for x in whole.problem.landmarks if x > centre}.items())
        inside = tuple(((x - centre) ** 2).mid() for _, x in turns)
    problem = Problem(
        values,
        weights if (odd or w) else None,
        intervals,
        _resolution(target),
        corners,
        inside,
        sides[-len(right) :],
        whole.problem.least,
    )
    return Reduced(problem, type, Symmetry.ODD if odd else Symmetry.EVEN, centre, line, odd)


def _part(f: Values, centre: fmpq, u: list[arb], sign: int) -> list[arb]:
    """(f(centre + u) + sign f(centre - u))/2."""
    plus, minus = f([(centre + x).mid() for x in u]), f([(centre - x).mid() for x in u])
    return [((a + sign * b) / 2).mid() for a, b in zip(plus, minus, strict=True)]


def mirrored(reduced: Reduced, extrema: list[arb]) -> list[arb]:
    """The alternation points in x, ascending. Mirroring an even error joins two points of one sign: one is
    left out.

    Args:
        reduced: the reduced problem.
        extrema: its alternation points.
    """
    points = [reduced.x(s) for s in extrema]
    right = [p[-1] for p in points]
    left = [p[0] for p in reversed(points) if len(p) == 2]
    if reduced.symmetry is Symmetry.EVEN and len(left) == len(right):
        left = left[:-1]
    return [*left, *right] if reduced.symmetry is not Symmetry.NONE else right
