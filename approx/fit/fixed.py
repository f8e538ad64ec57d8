"""Best approximation with fixed coefficients, by an exchange that needs no alternation.

The p/q with some coefficients fixed are (p, q) = (p_0, q_0) + sum_j c_j (p_j, q_j), q > 0 on the domain. Monomials with
gaps have zeros where they like, so the error of the best one need not alternate. What holds is duality. Take as many
points t_k as there are c_j, and one more, signs s_k, a level lam, and multipliers y_k >= 0, not all 0, with

    sum_k y_k (s_k w_k (f q_j - p_j) - lam q_j)(t_k) = 0  for all j.

Then sum_k y_k (s_k w_k (f q - p) - lam q)(t_k) is the same number C for all p/q of the family. If C >= 0, no p/q has
all its errors at the t_k below lam: a lower bound. Without fixed coefficients it is de la Vallee-Poussin's.

On such a reference the levelled p/q, s_k w_k (f - p/q)(t_k) = lam, follows by Newton's method, whose matrix also gives
the multipliers. A point with a larger error enters, and the one leaves that keeps the multipliers positive, as in the
dual simplex method (Stiefel 1960; Cheney and Loeb 1962 for the rational case). lam rises until no error is larger.

For polynomials any points do as a start, with the right signs. For rationals the denominator in the level is first held
at the last one (Loeb), which makes a linear problem of it; where that is of no use, differential correction finds a
start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flint import arb, arb_mat, arb_poly, ctx, fmpq, fmpq_poly
from scipy.optimize import linprog

from approx.dyadic import dyadic, precision
from approx.fit.correction import places
from approx.fit.error import float_above, honest_error, measured
from approx.fit.exchange import Failure, Frame, Level, Problem
from approx.fit.holding import poles_inside
from approx.fit.result import Fit, Verdict, check_target
from approx.fit.symmetry import plain
from approx.rational import Rational
from approx.target import Target
from approx.zeros import divided, zeros_of

_NAME = re.compile(r"([pq])(\d+)")
_MAX_BITS = 1 << 11
_POINTS = 20  # of the grid for a start, for each free coefficient
_LOOKS = 60  # times the peaks of the error are searched at most
_PIVOTS = 400  # exchanges of one point between two of these at most


def fixed_coefficients(fixed: Mapping[str, Any], type: tuple[int, int]) -> dict[tuple[str, int], fmpq]:
    """Fixed coefficients by polynomial and power, a denominator of degree 0 being 1.

    Args:
        fixed: {"p1": 1, "q0": 1}: what a user gave.
        type: (m, n), the degrees of numerator and denominator.

    Returns:
        {("p", 1): 1, ("q", 0): 1}.

    Raises:
        ValueError: for another name, a power beyond the type, or a denominator of zeros.
    """
    m, n = type
    found: dict[tuple[str, int], fmpq] = {}
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
    return found


@dataclass(frozen=True)
class _Family:
    """(p, q) = base + sum c_j free_j."""

    base: tuple[fmpq_poly, fmpq_poly]
    free: list[tuple[fmpq_poly, fmpq_poly]]

    @classmethod
    def of(
        cls, fixed: Mapping[tuple[str, int], fmpq], type: tuple[int, int], side: int, middle: fmpq
    ) -> _Family:
        """The functions with these coefficients times `side`; q(middle) = 1 where that leaves the scale open."""
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
        lowest = _power(first) / _power(first)(middle) if first else _power(0)
        return cls((zero, lowest), [*above, *((zero, _power(j) - _power(j)(middle) * lowest) for j in rest)])

    def pair(self, c: list[arb]) -> tuple[fmpq_poly, fmpq_poly]:
        p, q = self.base
        for value, (above, below) in zip(c, self.free, strict=True):
            exact = value.mid().fmpq()
            p, q = p + exact * above, q + exact * below
        return p, q


def _power(degree: int) -> fmpq_poly:
    return fmpq_poly([0] * degree + [1])


@dataclass(frozen=True)
class _Node:
    """A point with a sign, and s w (f q_j - p_j) and q_j there: first of the base, then of each free pair."""

    t: arb
    sign: int
    above: list[arb]
    below: list[arb]

    def flipped(self) -> _Node:
        return replace(self, sign=-self.sign, above=[-v for v in self.above])

    def row(self, lam: arb) -> list[arb]:
        return [(a - lam * b).mid() for a, b in zip(self.above[1:], self.below[1:], strict=True)]

    def values(self, c: list[arb]) -> tuple[arb, arb]:
        """s w (f q - p), and q."""
        above = sum((x * v for x, v in zip(c, self.above[1:], strict=True)), self.above[0]).mid()
        return above, sum((x * v for x, v in zip(c, self.below[1:], strict=True)), self.below[0]).mid()


@dataclass(frozen=True)
class _State:
    """A levelled function on a reference."""

    nodes: list[_Node]
    c: list[arb]
    lam: arb
    y: list[arb]


# q at a node in the level; None for the own one
_Below = Callable[[_Node], arb] | None


@dataclass(frozen=True)
class _Exchange:
    problem: Problem
    family: _Family
    tolerance: float
    negligible: arb
    """What counts as rounding of an error."""

    @property
    def count(self) -> int:
        return len(self.family.free) + 1

    def nodes(self, points: list[arb], signs: list[int] | None = None) -> list[_Node]:
        pairs = [self.family.base, *self.family.free]
        p, q = ([arb_poly(pair[k]) for pair in pairs] for k in (0, 1))
        found: list[_Node] = []
        f, w = self.problem.f(points), self.problem.weights(points)
        for t, s, value, weight in zip(points, signs or [1] * len(points), f, w, strict=True):
            below = [poly(t).mid() for poly in q]
            above = [(s * weight * (value * b - poly(t))).mid() for b, poly in zip(below, p, strict=True)]
            found.append(_Node(t, s, above, below))
        return found

    def level(self, state: _State) -> Level:
        p, q = (arb_poly(part) for part in self.family.pair(state.c))
        # the reference may leave out half of a symmetric domain: look between other points too
        even = [
            (a + (b - a) * arb((1 - np.cos(np.pi * u)) / 2)).mid()
            for a, b in self.problem.intervals
            for u in np.linspace(0, 1, self.count + 3)
        ]
        places = {float(t): t for t in (*even, *(node.t for node in state.nodes))}
        return Level(
            p, q, state.lam, [t for _, t in sorted(places.items())], Frame(arb(0), arb(1)), ctx.prec, ctx.prec
        )

    # -- one reference

    def solved(self, nodes: list[_Node], c: list[arb], lam: arb, below: _Below = None) -> _State:
        """The levelled function near c and its multipliers."""
        size = len(nodes)
        for _ in range(60):
            values = [node.values(c) for node in nodes]
            level = [q if below is None else below(node) for node, (_, q) in zip(nodes, values, strict=True)]
            slope = lam if below is None else arb(0)
            matrix = arb_mat([[*node.row(slope), -d] for node, d in zip(nodes, level, strict=True)])
            rest = arb_mat(size, 1, [lam * d - v for (v, _), d in zip(values, level, strict=True)])
            step = _solved(matrix, rest)
            c, lam = [(x + s).mid() for x, s in zip(c, step, strict=False)], (lam + step[-1]).mid()
            close = max(abs(lam) * arb(1e-3 * self.tolerance), self.negligible * arb(2) ** -8, key=float)
            if below is not None or abs(step[-1]) <= close:
                y = _solved(matrix.transpose(), arb_mat(size, 1, [0] * (size - 1) + [-1]))
                return _State(nodes, c, lam, y)
        raise Failure("Newton's method for the levelled function does not settle")

    def pivoted(self, state: _State, new: _Node, below: _Below = None) -> _State:
        """The reference with a new point in place of the one that keeps the multipliers positive."""
        slope = state.lam if below is None else arb(0)

        def column(node: _Node) -> list[arb]:
            return [*node.row(slope), -(node.values(state.c)[1] if below is None else below(node))]

        matrix = arb_mat([column(node) for node in state.nodes]).transpose()
        z = _solved(matrix, arb_mat(self.count, 1, column(new)))
        least = max((abs(v) for v in z), key=float) * arb(1e-12)
        ratios = [max(float(y / v), 0.0) if v > least else np.inf for y, v in zip(state.y, z, strict=True)]
        if not np.isfinite(min(ratios)):
            raise Failure("no point can leave the reference")
        # of those that are level, as points without a part are, the one that leaves the best equations
        level = [k for k, ratio in enumerate(ratios) if ratio <= min(ratios) * (1 + 1e-9) + 1e-30]
        k = max(level, key=lambda k: float(z[k]))
        nodes = [*state.nodes]
        nodes[k] = new
        return self.solved(nodes, state.c, state.lam, below)

    def settled(self, state: _State, pool: list[_Node], below: _Below = None) -> tuple[_State, bool]:
        """Pivots until no point of a pool, with either sign, has a larger error; and whether there were any."""
        moved = False
        for _ in range(_PIVOTS):
            worst = None
            height = max(state.lam * (1 + arb(0.1 * self.tolerance)), self.negligible, key=float)
            for node in pool:
                above, q = node.values(state.c)
                if below is not None:
                    q = below(node)
                # where q has lost its sign the error counts as larger than any other
                excess = abs(above) / q if q > 0 else (1 + abs(q)) * (abs(above) + 2 * height) * arb(1e9)
                if excess > height:
                    worst, height = node if above > 0 else node.flipped(), excess
            if worst is None:
                return state, moved
            state, moved = self.pivoted(state, worst, below), True
        raise Failure("the exchange of points goes on and on")

    # -- starts

    def linear(self, pool: list[_Node], below: Callable[[_Node], arb]) -> _State:
        """The best function on a pool for a level with a given denominator, from any of its points."""
        length = float(pool[-1].t - pool[0].t)
        apart = pool[:1]
        for node in pool:
            if float(node.t - apart[-1].t) > length / (8 * self.count):
                apart.append(node)
        apart = apart if len(apart) >= self.count else pool
        # not symmetric: that is singular where powers are missing
        nodes = [apart[int((k + 0.4) / self.count * len(apart))] for k in range(self.count)]
        start = [arb(0)] * (self.count - 1)
        for k in range(
            self.count + 1
        ):  # alternating but for one place; the equations may be singular with some signs
            signs = [(-1) ** (i + (i >= k > 0)) for i in range(self.count)]
            tried = [node if sign > 0 else node.flipped() for node, sign in zip(nodes, signs, strict=True)]
            with suppress(Failure):
                y = self.solved(tried, start, arb(0), below).y
                tried = [node if v >= 0 else node.flipped() for node, v in zip(tried, y, strict=True)]
                state = self.solved(tried, start, arb(0), below)
                break
        else:
            raise Failure("the equations of every first reference are singular")
        if state.lam < 0:
            state = self.solved([node.flipped() for node in tried], start, arb(0), below)
        return self.settled(state, pool, below)[0]

    def iterated(self, pool: list[_Node]) -> _State:
        """By Loeb's iteration: the denominator in the level is the last one; of polynomials it is the only one."""
        whole = all(not below for _, below in self.family.free)
        last = arb_poly(self.family.base[1]) if whole else arb_poly([1])
        state = None
        for _ in range(1 if whole else 10):
            if not all(last(node.t) > 0 for node in pool):
                raise Failure("the denominator is not positive on the domain")
            state = self.linear(pool, lambda node, last=last: last(node.t).mid())
            last = arb_poly(self.family.pair(state.c)[1])
        assert state is not None
        return self.solved(state.nodes, state.c, state.lam)

    def corrected(self, pool: list[_Node]) -> _State:
        """By differential correction in float64: min lam over |w (f q - p)| - D q <= lam q_last."""
        raw = [
            np.array([[float(v) for v in row] for row in rows])
            for rows in zip(*((n.above, n.below) for n in pool), strict=True)
        ]
        if not all(np.all(np.isfinite(M)) for M in raw):
            raise Failure("float64 does not hold the powers")
        unit = max(float(np.max(np.abs(raw[0]))), 1e-300)
        R = np.linalg.qr(np.vstack([raw[0][:, 1:] / unit, raw[1][:, 1:]]))[1]
        if np.linalg.cond(R) > 1e12:
            raise Failure("the powers are as good as dependent in float64")
        inverse = np.linalg.inv(R)
        A, B = (np.c_[M[:, :1], M[:, 1:] @ inverse] for M in raw)
        free, ones = A.shape[1] - 1, np.ones((len(A), 1))
        reach = [(-1e6, 1e6)] * free

        def program(rows: np.ndarray, right: np.ndarray, last: tuple[float | None, float]) -> Any:
            cost = np.r_[np.zeros(free), 1.0]
            options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
            return linprog(cost, rows, right, bounds=[*reach, last], method="highs", options=options)

        solved = program(np.hstack([-B[:, 1:], -ones]), B[:, 0], (-1.0, np.inf))  # q >= -tau
        c = np.r_[1.0, solved.x[:-1]] if solved.x is not None else np.zeros(free + 1)
        if not np.all(B @ c > 1e-9):
            raise Failure("no denominator with these coefficients is positive on the domain")
        top, multipliers = float(np.max(np.abs(A @ c) / (B @ c))), np.zeros(2 * len(A))
        for _ in range(60):
            scale = (1 / (B @ c))[:, None]
            rows = np.vstack([(s * A - top * B) * scale / unit for s in (1, -1)])
            solved = program(np.hstack([rows[:, 1:], -np.vstack([ones, ones])]), -rows[:, 0], (None, 0.0))
            if solved.x is None:
                break
            new = np.r_[1.0, solved.x[:-1]]
            if not np.all(B @ new > 0):
                break
            reached = float(np.max(np.abs(A @ new) / (B @ new)))
            multipliers = -solved.ineqlin.marginals
            if not reached < top * (1 - 1e-9):
                break
            c, top = new, reached
        order = np.argsort(-multipliers, kind="stable")[: self.count]
        if not multipliers[order[0]] > 0:
            raise Failure("differential correction found no level")
        chosen = sorted(order, key=lambda k: k % len(A))
        nodes = [pool[k] if k < len(A) else pool[k - len(A)].flipped() for k in chosen]
        state = self.solved(nodes, [arb(float(v)) for v in inverse @ c[1:]], arb(top))
        if any(y < 0 for y in state.y) or not state.lam > 0:
            raise Failure("the multipliers of differential correction are not positive")
        return state

    # -- the whole

    def best(self) -> tuple[_State, arb, bool]:
        """The levelled function whose error is nowhere larger, that error, and whether it arrived."""
        pool = self.nodes(places(self.problem, _POINTS * self.count))
        reasons: list[str] = []
        for start in (self.iterated, self.corrected):
            try:
                return self.climbed(self.settled(start(pool), pool)[0])
            except Failure as reason:
                reasons.append(str(reason))
        raise Failure("; ".join(reasons))

    def climbed(self, state: _State) -> tuple[_State, arb, bool]:
        top = arb("inf")
        for _ in range(_LOOKS):
            peaks = self.problem.peaks(self.level(state), min(1e-3 * self.tolerance, 1e-10))
            top = max((abs(e) for _, e in peaks), key=float)
            pool = self.nodes([t for t, _ in peaks])
            if top <= state.lam * (1 + arb(self.tolerance)) or top <= self.negligible:
                return state, top, True
            state, moved = self.settled(state, pool)
            if not moved:
                break
        return state, top, False

    def bound(self, state: _State, both: bool) -> float:
        """A lower bound on the error of every function of the family, from the multipliers in balls; 0 for none.

        At the level itself the sum is 0 for every multiple of the fixed coefficients: the bound holds for the family
        of q < 0 as well if the sum is negative just above.
        """
        size = len(state.nodes)
        least = arb(2) ** -(ctx.prec // 3)  # a point that takes no part, up to rounding
        for side in (1, -1) if both else (1,):
            lam = (state.lam * (1 - side * arb(1e-13))).mid()
            rows = [
                [*(a - lam * b for a, b in zip(n.above[1:], n.below[1:], strict=True)), arb(1)]
                for n in state.nodes
            ]
            try:
                y = arb_mat(rows).transpose().solve(arb_mat(size, 1, [0] * (size - 1) + [1])).entries()
            except ZeroDivisionError:
                return 0.0
            sums = [v * (n.above[0] - lam * n.below[0]) for v, n in zip(y, state.nodes, strict=True)]
            if not (lam > 0 and all(v > -least for v in y) and side * sum(sums, arb(0)) > 0):
                return 0.0
        return float(state.lam) * (1 - 1e-12)


def _solved(matrix: arb_mat, right: arb_mat) -> list[arb]:
    try:
        found = [x.mid() for x in matrix.solve(right, algorithm="approx").entries()]
    except ZeroDivisionError:
        raise Failure("the equations of the reference are singular") from None
    if not all(x.is_finite() for x in found):
        raise Failure("the equations of the reference are singular")
    return found


def with_fixed(
    target: Target, type: tuple[int, int], fixed: Mapping[str, Any], bits: int, tolerance: float
) -> Fit:
    """The best approximation among those p/q with given coefficients of x^i.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        fixed: {"p1": 1, "q0": 1}: coefficients of the numerator and the denominator, held exactly.
        bits: the fewest bits of the others.
        tolerance: relative excess of the error over the bound at which it counts as best.

    Returns:
        The fit, in powers of x.

    Raises:
        ValueError: for malformed coefficients, or a relative error that is not finite with them.
        RuntimeError: where no function was found.
    """
    given = fixed_coefficients(fixed, type)
    shift = _zeros_at_0(target, given, type[0])
    inner = divided(target, zeros_of(target)) if shift else target
    check_target(inner)
    kind = (type[0] - shift, type[1])
    moved = {
        (name, i - shift if name == "p" else i): v
        for (name, i), v in given.items()
        if name == "q" or i >= shift
    }
    low, high = target.hull
    middle = (dyadic(low) + dyadic(high)) / 2
    sides = [1, -1] if any(moved.values()) else [1]
    if low <= 0 <= high and (at_0 := moved.get(("q", 0), fmpq(0))) != 0:
        sides = [1 if at_0 > 0 else -1]
    problem = plain(inner, kind).problem
    found: list[tuple[_Found, int]] = []
    reasons: list[str] = []
    for side in sides:
        try:
            one = _found(problem, _Family.of(moved, kind, side, middle), tolerance, len(sides) > 1)
        except Failure as failure:
            reasons.append(str(failure))
            continue
        found.append((one, side))
        if one.floor > 0 or one.exact:
            break
    if not found:
        raise RuntimeError(f"minimax({target!r}, {type}, fixed={dict(fixed)!r}): {reasons[0]}")
    best, side = min(found, key=lambda item: float(item[0].top))
    floor = best.floor
    scale = fmpq(side) if any(moved.values()) or best.q[0] == 0 else 1 / best.q[0]
    limit = best.top * arb(1 + max(1e-9, tolerance))

    def held(name: str, poly: fmpq_poly, degree: int, bits: int) -> list[fmpq]:
        return [moved.get((name, i), dyadic(scale * poly[i], bits)) for i in range(degree + 1)]

    while True:
        num, den = held("p", best.p, kind[0], bits), held("q", best.q, kind[1], bits)
        part = Rational.from_monomial(num, den, target.domain)
        error = measured(part, inner, best.reference, count=64)
        if error <= limit or bits > _MAX_BITS:
            break
        bits *= 2
    size = honest_error(part, inner, float_above(error), best.reference)
    verdict = Verdict.UNLEVELLED
    if best.exact:
        verdict = Verdict.EXACT if target.enclosed else Verdict.ROUNDING
    elif best.arrived and floor > 0:
        lost = Verdict.LOST if target.enclosed else Verdict.ROUNDING
        verdict = Verdict.BEST if size <= floor * (1 + max(1e-8, 10 * tolerance)) else lost
    if kind[1] > 0 and poles_inside(part):
        verdict = Verdict.POLE
    notes = ["fixed: " + ", ".join(f"{name}{i} = {float(arb(v)):g}" for (name, i), v in given.items())]
    if part.bits > 53:
        notes.append(f"float64 parameters would raise the error: held with {part.bits} bits")
    rational = Rational.from_monomial([fmpq(0)] * shift + num, den, target.domain)
    floor = 0.0 if best.exact else floor
    return Fit(
        rational,
        max(size, floor),
        best.reference,
        verdict,
        [size],
        "minimax",
        target,
        type,
        floor,
        "; ".join(notes),
    )


@dataclass(frozen=True)
class _Found:
    """The best of a family, before its coefficients are rounded."""

    p: fmpq_poly
    q: fmpq_poly
    top: arb
    floor: float
    arrived: bool
    exact: bool
    reference: np.ndarray


def _found(problem: Problem, family: _Family, tolerance: float, both: bool) -> _Found:
    """The exchange at the precision that it takes."""
    a, b = problem.intervals[0][0], problem.intervals[-1][1]
    reach = float(2 * max(abs(a), abs(b), key=float) / (b - a))
    bits = 128 + int(4 * (len(family.free) + 1) * max(np.log2(reach), 0.5))
    bits += max(0, int(-3 * np.log2(tolerance)) - 110)
    while True:
        with precision(bits):
            points = places(problem, 4 * len(family.free) + 16)
            f, w = problem.f(points), problem.weights(points)
            size = max((abs(x * v) for x, v in zip(f, w, strict=True)), key=float)
            rounding = size * (arb(2) ** -(2 * bits // 3) + 8 * problem.resolution)
            exchange = _Exchange(problem, family, tolerance, rounding.mid())
            try:
                state, top, arrived = exchange.best()
            except Failure:
                if bits > 512:
                    raise
            else:
                exact = bool(top <= rounding)
                if not exact or problem.resolution or bits > 512:
                    reference = np.array(sorted(float(node.t) for node in state.nodes))
                    p, q = family.pair(state.c)
                    return _Found(p, q, top, exchange.bound(state, both), arrived, exact, reference)
        bits *= 2


def _zeros_at_0(target: Target, given: Mapping[tuple[str, int], fmpq], m: int) -> int:
    """How many factors x the relative error takes out of target and numerator."""
    zeros = zeros_of(target) if target.weight == "relative" else ()
    if not zeros:
        return 0
    first, *others = zeros
    count = first.multiplicity
    if others or first.exact != 0:
        where = ", ".join(f"{zero.place:g}" for zero in zeros)
        raise ValueError(
            f"fixed=: the relative error needs zeros at {where}, which rounded coefficients do not hold; only one "
            "at 0 can be had"
        )
    if m < count or any(name == "p" and i < count and v != 0 for (name, i), v in given.items()):
        needed = " = ".join(f"p{i}" for i in range(count))
        raise ValueError(
            f"fixed=: the relative error is finite only with {needed} = 0 and a numerator of degree {count} or more"
        )
    return count
