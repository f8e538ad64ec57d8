"""The exchange of single points by multipliers: best p/q of a linear family, where nothing may alternate.

The p/q of a family are (p, q) = (p_0, q_0) + sum_j c_j (p_j, q_j), q > 0 on the domain: all of a type with one scale of
q, or those with some coefficients fixed. Monomials with gaps have zeros where they like, so the error of the best one
need not alternate. What holds is duality. Take as many points t_k as there are c_j, and one more, signs s_k, a level
lam, and multipliers y_k >= 0, not all 0, with

    sum_k y_k (s_k w_k (f q_j - p_j) - lam q_j)(t_k) = 0  for all j.

Then sum_k y_k (s_k w_k (f q - p) - lam q)(t_k) is the same number C for all p/q of the family. If C >= 0, no p/q has
all its errors at the t_k below lam: a lower bound. Without fixed coefficients it is de la Vallee-Poussin's.

On such a reference the levelled p/q, s_k w_k (f - p/q)(t_k) = lam, follows by Newton's method, whose matrix also gives
the multipliers. A point with a larger error enters, and the one leaves that keeps the multipliers positive, as in the
dual simplex method (Stiefel 1960; Cheney and Loeb 1962 for the rational case). lam rises until no error is larger.

For polynomials any points do as a start, with the right signs. For rationals the denominator in the level is first held
at the last one (Loeb), which makes a linear problem of it; where that is of no use, differential correction finds a
start, with linear programs in arbitrary precision.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from flint import arb, arb_mat, arb_poly, ctx, fmpq_poly

from approx.dyadic import precision
from approx.family import Family
from approx.fit.correction import places
from approx.fit.exchange import Failure, Frame, Level, Outcome, Problem

_MAX_BITS = 512  # beyond which an error that is nothing but rounding counts as 0
_POINTS = 20  # of the grid for a start, for each free coefficient
_LOOKS = 60  # times the peaks of the error are searched at most
_PIVOTS = 400  # exchanges of one point between two of these at most


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
    family: Family
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
        k = _leaving(state.y, z)
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
        """By differential correction: min lam over |w (f q - p)| - D q <= lam q_last, from any q > 0 of error D.

        The scale is free, and |c_j| <= M_j. Each program is solved by the dual simplex method from these bounds, in
        arbitrary precision: errors can be closer together than float64 tells.
        """
        size = self.count
        c, lam = [arb(1), *[arb(0)] * (size - 1)], arb(-1)
        if not all(node.below[0] > 0 for node in pool):
            nothing = [replace(node, above=[arb(0)] * size) for node in pool]
            c, lam, _ = self.program(nothing, arb(1), [arb(1)] * len(pool), (0, 1))
        best, top, basis = c, arb("inf"), []
        above, below = (arb_mat([getattr(node, part) for node in pool]) for part in ("above", "below"))
        for _ in range(60):
            errors, q = (_mids(part * arb_mat(size, 1, c)) for part in (above, below))
            if not (lam < 0 and all(v > 0 for v in q)):
                break
            sizes = [abs(e) / v for e, v in zip(errors, q, strict=True)]
            k = int(np.argmax([float(e) for e in sizes]))
            if not sizes[k] < top * (1 - arb(1e-14)):
                break
            best, top = c, sizes[k].mid()
            c, lam, basis = self.program(pool, top, q, (k, 1 if errors[k] > 0 else -1))
        nodes = [pool[k] if s > 0 else pool[k].flipped() for k, s in basis if k >= 0]
        if len(nodes) != size or not best[0] > 0:
            raise Failure("differential correction found no level")
        state = self.solved(nodes, [(v / best[0]).mid() for v in best[1:]], top)
        if any(v < 0 for v in state.y) or not state.lam > 0:
            raise Failure("the multipliers of differential correction are not positive")
        return state

    def program(
        self, pool: list[_Node], top: arb, last: list[arb], first: tuple[int, int]
    ) -> tuple[list[arb], arb, list[tuple[int, int]]]:
        """The c, c_0 >= 0 before the base, with the least lam; and what holds it: (k, s) is the error with sign s at a
        node, (-1 - j, s) the bound of s c_j.
        """
        size = self.count
        # q within 1, p as large as it likes
        walls = [arb(1) if q else arb(2) ** (ctx.prec // 4) for _, q in (self.family.base, *self.family.free)]
        above, below = (arb_mat([getattr(node, part) for node in pool]) for part in ("above", "below"))

        def row(item: tuple[int, int]) -> list[arb]:
            k, s = item
            if k < 0:
                return [*(arb(s * (j == -1 - k)) for j in range(size)), arb(0)]
            pair = zip(pool[k].above, pool[k].below, strict=True)
            return [*((s * a - top * b).mid() for a, b in pair), -last[k]]

        def bound(item: tuple[int, int]) -> arb:
            return arb(0) if item[0] >= 0 or item == (-1, -1) else walls[-1 - item[0]]

        basis = [first]
        basis += [(-1 - j, -1 if v > 0 else 1) for j, v in enumerate(row(basis[0])[:-1])]
        for _ in range(_PIVOTS):
            matrix = arb_mat([row(item) for item in basis])
            *c, lam = _solved(matrix, arb_mat(size + 1, 1, [bound(item) for item in basis]))
            y = _solved(matrix.transpose(), arb_mat(size + 1, 1, [0] * size + [-1]))
            errors, q = (_mids(part * arb_mat(size, 1, c)) for part in (above, below))
            excess = [float((abs(e) - top * v) / w - lam) for e, v, w in zip(errors, q, last, strict=True)]
            beyond = [float(abs(v) / wall) for v, wall in zip(c, walls, strict=True)]
            k, j = int(np.argmax(excess)), int(np.argmax(beyond))
            if c[0] < -walls[0] * arb(1e-12):
                item = (-1, -1)
            elif beyond[j] > 1 + 1e-12:
                item = (-1 - j, 1 if c[j] > 0 else -1)
            elif excess[k] > 1e-13 * float(abs(lam)):
                item = (k, 1 if errors[k] > 0 else -1)
            else:
                return c, lam, basis
            basis[_leaving(y, _solved(matrix.transpose(), arb_mat(size + 1, 1, row(item))))] = item
        raise Failure("a program of differential correction goes on and on")

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
            level = self.level(state)
            try:
                peaks = self.problem.peaks(level, min(1e-3 * self.tolerance, 1e-10))
            except Failure:  # q changes its sign between the points
                top, pool = arb("inf"), self.nodes(self.problem.points(level))
                state, _ = self.settled(state, [node for node in pool if not node.values(state.c)[1] > 0])
                continue
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


def _mids(column: arb_mat) -> list[arb]:
    return [v.mid() for v in column.entries()]


def _leaving(y: list[arb], z: list[arb]) -> int:
    """Which one leaves a reference with multipliers y, where the new point is the sum of the z_k-fold ones."""
    least = max((abs(v) for v in z), key=float) * arb(1e-12)
    ratios = [max(float(a / b), 0.0) if b > least else np.inf for a, b in zip(y, z, strict=True)]
    if not np.isfinite(min(ratios)):
        raise Failure("no point can leave the reference")
    # of those that are level, as points without a part are, the one that leaves the best equations
    level = [k for k, ratio in enumerate(ratios) if ratio <= min(ratios) * (1 + 1e-9) + 1e-30]
    return max(level, key=lambda k: float(z[k]))


def _solved(matrix: arb_mat, right: arb_mat) -> list[arb]:
    try:
        found = [x.mid() for x in matrix.solve(right, algorithm="approx").entries()]
    except ZeroDivisionError:
        raise Failure("the equations of the reference are singular") from None
    if not all(x.is_finite() for x in found):
        raise Failure("the equations of the reference are singular")
    return found


@dataclass(frozen=True)
class Found:
    """The best of a family, before its coefficients are rounded."""

    p: fmpq_poly
    """Numerator."""
    q: fmpq_poly
    """Denominator."""
    lam: arb
    """The level."""
    top: arb
    """The largest error."""
    floor: float
    """A lower bound on the error of every function of the family; 0 for none."""
    arrived: bool
    """Whether no error is above the level, up to the tolerance."""
    exact: bool
    """Whether the error is nothing but rounding."""
    points: list[arb]
    """The reference, ascending."""
    bits: int
    """The working precision."""

    @property
    def reference(self) -> np.ndarray:
        """The reference as floats."""
        return np.array([float(t) for t in self.points])

    def outcome(self) -> Outcome:
        """The same as the outcome of an exchange of all points."""
        with precision(self.bits):
            p, q = (arb_poly([arb(c).mid() for c in poly.coeffs()]) for poly in (self.p, self.q))
            level = Level(p, q, self.lam, self.points, Frame(arb(0), arb(1)), self.bits, self.bits)
            return Outcome(level, self.top, self.points, self.arrived, [float(self.lam)])


def found(problem: Problem, family: Family, tolerance: float, both: bool) -> Found:
    """The best of a family, at the precision that it takes.

    Args:
        problem: what is to be solved, without changes of sign of q.
        family: the p/q.
        tolerance: relative excess of the largest error over the level at which it stops.
        both: whether `floor` is to hold for the family with the other sign of its fixed coefficients too.

    Raises:
        Failure: where no levelled function was found.
    """
    a, b = problem.intervals[0][0], problem.intervals[-1][1]
    reach = float(2 * max(abs(a), abs(b), key=float) / (b - a))
    bits = 128 + int(4 * (len(family.free) + 1) * max(np.log2(reach), 0.5))
    bits += max(0, int(-3 * np.log2(tolerance)) - 110)
    failures = 0
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
                failures += 1
                if failures == 2:
                    raise
            else:
                exact = bool(top <= rounding)
                if not exact or problem.resolution or bits > _MAX_BITS:
                    points = [t for _, t in sorted((float(node.t), node.t) for node in state.nodes)]
                    p, q = family.pair(state.c)
                    floor = exchange.bound(state, both)
                    return Found(p, q, state.lam, top, floor, arrived, exact, points, bits)
        bits *= 2
