"""The rational Remez exchange in arbitrary precision: the engine behind `minimax`.

`pencil.py` finds the levelled function on a reference, here its p and q are expanded and the reference moves to the
highest peaks of the error. Monomials make that ill-conditioned, and bits are cheap: the working precision grows until
the levelled equations hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

import numpy as np
from flint import arb, arb_poly, ctx

from approx.dyadic import precision
from approx.fit.error import peak
from approx.fit.pencil import Levelled, NoLevel, Reference, alternating, levelled, spread

Values = Callable[[list[arb]], list[arb]]

# fractions of the way between two neighbouring reference points at which the error is sampled
_FRACTIONS = np.array([1e-3, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
_NARROW = 1e-3  # of an interval, between two turns of the target
_MAX_BITS = 1 << 13
_ENOUGH = 200  # bits between a level and the rounding; fewer at low precision, which is half above it


class Failure(ArithmeticError):
    """The exchange cannot go on from here: no pole-free levelled function, or too few alternations."""


@dataclass(frozen=True)
class Frame:
    """The variable t = (s - centre)/half in which p and q are expanded."""

    centre: arb
    """Where t is 0."""
    half: arb
    """The length that becomes 1."""

    def t(self, s: arb) -> arb:
        """The point s in the new variable.

        Args:
            s: a point.
        """
        return mid((s - self.centre) / self.half)


@dataclass(frozen=True)
class Level:
    """A levelled rational function p(t)/q(t) on a reference."""

    p: arb_poly
    """Numerator in the variable of `frame`."""
    q: arb_poly
    """Denominator in the same variable."""
    value: arb
    """lam, the common value of s_k W e_k."""
    reference: list[arb]
    """The points s_k, ascending."""
    frame: Frame
    """The variable of p and q."""
    bits: int = 0
    """The precision at which the eigenvalue problem was solved."""
    expand: int = 0
    """The precision at which p and q are good."""
    negligible: bool = False
    """Whether the value is rounding even at the highest precision."""
    sharp: float = 1.0
    """The share of the value to which the iteration for it had to go."""
    small: bool = False
    """Whether the function, weighted, is nothing beside the value on all of the reference."""

    @property
    def vanishes(self) -> bool:
        """Whether the function is 0 beside its error."""
        return self.small or not any(c != 0 for c in self.p.coeffs())

    def zero(self) -> Level:
        """The zero function in its place."""
        return replace(self, p=arb_poly(), q=arb_poly([1]), small=True)


@dataclass(frozen=True)
class Start:
    """Where an exchange starts."""

    reference: list[arb]
    """m + n + 2 points, ascending."""
    frame: Frame
    """The variable for p and q."""
    bits: int
    """The precision to begin with."""
    q: arb_poly | None = None
    """A denominator in the same variable that is near the right one, if one is known."""
    expand: int = 0
    """The precision that p and q had on a reference near this one."""
    sharp: float = 1.0
    """The share of the level to which the iteration had to go there."""

    def moved(self, level: Level, reference: list[arb]) -> Start:
        """The start of the next step, from the level of this one.

        Args:
            level: the levelled function here.
            reference: the next points.
        """
        return Start(reference, self.frame, level.bits, level.q, level.expand, level.sharp)


@dataclass(frozen=True)
class Outcome:
    """Where an exchange ended."""

    level: Level
    """The best levelled function that it met."""
    top: arb
    """The largest weighted error of that function that was found."""
    extrema: list[arb]
    """The points of that error: the reference of the next step."""
    converged: bool
    """Whether `top` exceeds the level by the tolerance at most."""
    history: list[float] = field(default_factory=lambda: [])
    """The level after each step."""

    def bound(self, problem: Problem, own: tuple[int, int], asked: tuple[int, int]) -> arb:
        """A lower bound on the best error of a type, by de la Vallee-Poussin; 0 for none.

        Args:
            problem: what was solved.
            own: the type of the function here.
            asked: the type that the bound is about.
        """
        (m, n), (mu, nu) = asked, own
        if own == asked:
            return abs(self.level.value)
        with precision(max(self.level.expand, 64)):
            vanishes = self.level.vanishes
            needed = (m if vanishes else max(mu + n, m + nu)) + 2
            peaks = thinned(problem.runs(self.level.zero() if vanishes else self.level)[0], needed)
            return min(abs(e).lower() for _, e in peaks) if peaks else arb(0)

    @property
    def exact(self) -> bool:
        """Whether f is itself a rational function of this type, as far as its precision can tell."""
        return self.level.negligible and self.top == 0

    @property
    def gap(self) -> float:
        """(top - |lam|)/top: how far the best error may still be, relatively."""
        with precision(max(self.level.expand, 64)):
            return float((self.top - abs(self.level.value)) / self.top) if self.top > 0 else 0.0


def room(bits: int) -> int:
    """The precision at which a level that is `bits` bits below the function stands clear of the rounding.

    Args:
        bits: how far it is below.
    """
    return min(2 * bits, bits + _ENOUGH)


def mid(x: arb) -> arb:
    """The midpoint of a ball, exactly.

    Args:
        x: a ball.
    """
    return x.mid()


@dataclass(frozen=True)
class Problem:
    """min over p/q of max W |f - p/q| over a union of intervals."""

    f: Values
    """The target: takes and gives lists of exact arbs."""
    weight: Values | None
    """W in the same way; None for 1."""
    intervals: list[tuple[arb, arb]]
    """The domain, ascending."""
    resolution: float = 0.0
    """Relative rounding of f, where f is not known to every precision."""
    corners: tuple[arb, ...] = ()
    """Where f has a kink: the error can peak there, and no parabola would find it."""
    landmarks: tuple[arb, ...] = ()
    """Where f turns or bends: a target that oscillates faster than p/q can hide peaks from a coarse look."""
    sides: tuple[int, ...] = ()
    """The sign of q on each interval; () for 1 everywhere: no pole on the hull."""
    least: float = 0.0
    """A lower bound on the error of every p/q that has no pole: f may jump."""
    accuracy: float = 1e-13
    """The share of the level to which the levelled equations hold."""

    def frame(self, reference: list[arb] | None = None) -> Frame:
        """A variable for p and q: about the middle of the hull, or about the place where a reference
        clusters, since monomials lose no digits there.

        Args:
            reference: the points whose cluster decides.
        """
        a, b = self.intervals[0][0], self.intervals[-1][1]
        gaps = [float(y - x) for x, y in pairwise(reference or [])]
        if reference and gaps and min(gaps) < 1e-2 * float(b - a):
            centre = reference[int(np.argmin(gaps))]
            return Frame(centre, mid(max(b - centre, centre - a, key=float)))
        return Frame(mid((a + b) / 2), mid((b - a) / 2))

    def side(self, s: arb) -> int:
        """The sign that q has to have at s.

        Args:
            s: a point of the domain.
        """
        if not self.sides:
            return 1
        return next(side for side, (_, b) in zip(self.sides, self.intervals, strict=True) if s <= b)

    def weights(self, points: list[arb]) -> list[arb]:
        """W at the points, 1 where there is no weight.

        Args:
            points: points of the domain.
        """
        return self.weight(points) if self.weight else [arb(1)] * len(points)

    def error(self, level: Level, points: list[arb]) -> list[arb]:
        """W (f - p/q); raises Failure where q has not got the sign it should have.

        Args:
            level: the function p/q.
            points: points of the domain, ascending.
        """
        values, side = [], 0
        for s, f, w in zip(points, self.f(points), self.weights(points), strict=True):
            t = level.frame.t(s)
            den = level.q(t)
            sign = (1 if den > 0 else -1) * self.side(s)
            if not (den > 0 or den < 0) or sign * side < 0:
                raise Failure("the levelled function has a pole between the points of the reference")
            side = sign
            values.append(mid(w * (f - level.p(t) / den)))
        return values

    # -- the levelled function on a reference

    def solve(self, start: Start, m: int, n: int, accuracy: float | None = None) -> Level:
        """The pole-free levelled function. Precision grows until the equations hold to 1e-13 of the level.

        Args:
            start: reference, frame and precision.
            m: degree of the numerator.
            n: degree of the denominator.
            accuracy: another share of the level than `self.accuracy`.
        """
        accuracy = accuracy or self.accuracy
        reference, bits = start.reference, max(start.bits, 96 + n)
        limit, sharp = min(_MAX_BITS, 8 * bits), min(accuracy, start.sharp)
        while bits <= limit:
            with precision(bits):
                found = self._levelled(start, n, sharp)
                negligible = bool(found and abs(found.value) <= self._negligible(reference))
            # a peak is found to half of the digits that its height has
            digits = int(-2 * np.log2(self.accuracy))
            expand = max(3 * bits // 2 + 2 * (m + n), digits)
            if found is not None and bits > 192 and found.value != 0:
                with precision(64):
                    ratio = self._size(reference) / abs(found.value)
                    depth = float(ratio.log()) / np.log(2) if ratio > 1 else 0.0
                expand = min(expand, int(depth) + digits + (m + n) // 2 + 32)
            last = expand + 8 * bits + 64 * (m + n)
            expand = max(expand, start.expand)
            while found is not None and expand <= last:
                with precision(expand):
                    level = self._expanded(start, m, found, bits if negligible else _MAX_BITS, accuracy)
                if level is not None:
                    return replace(level, bits=bits, expand=expand, negligible=negligible, sharp=sharp)
                expand = 3 * expand // 2
            # the equations may enlarge what is left of the iteration's error: first a sharper one, then more bits
            sharper = min(accuracy, 2.0 ** -min(bits // 2, 1000))
            if sharp > sharper and found is not None:
                sharp = sharper
            else:
                bits = int(1.6 * bits)
        raise Failure(f"the levelled equations are singular at {limit} bits")

    def _size(self, points: list[arb]) -> arb:
        """The largest weighted |f| on the points."""
        return max((abs(f * w) for f, w in zip(self.f(points), self.weights(points), strict=True)), key=float)

    def _negligible(self, points: list[arb], bits: int | None = None) -> arb:
        """What counts as rounding at `bits`, by default the working precision."""
        bits = bits or ctx.prec
        return self._size(points) * (arb(2) ** -max(bits // 2, bits - _ENOUGH) + 4 * self.resolution)

    def _levelled(self, start: Start, n: int, accuracy: float) -> Levelled | None:
        """The level and q on the support, or None where the precision does not do."""
        points = start.reference
        ts = [start.frame.t(s) for s in points]
        f, w = self.f(points), self.weights(points)
        if not all(x.is_finite() and v.is_finite() and v > 0 for x, v in zip(f, w, strict=True)):
            raise Failure("the target is not finite or its weight not positive on the reference")
        if not all(x < y for x, y in pairwise(ts)):
            raise Failure("two points of the reference coincide")
        sides = [self.side(x) for x in points]
        reference = Reference(ts, f, w, sides, self._negligible(points), accuracy)
        guess = None if start.q is None else [mid(start.q(ts[k])) for k in reference.support(n)]
        try:
            return levelled(reference, n, guess)
        except NoLevel as failure:
            raise Failure(str(failure)) from None

    def _expanded(self, start: Start, m: int, found: Levelled, bits: int, accuracy: float) -> Level | None:
        """p and q as polynomials in t, or None where the levelled equations do not hold at this precision."""
        reference, lam = start.reference, found.value
        ts = [start.frame.t(s) for s in reference]
        f, w = self.f(reference), self.weights(reference)
        q = _polynomial(found.support, found.q)
        target = [fk - s * lam / wk for fk, s, wk in zip(f, alternating(len(ts)), w, strict=True)]
        chosen = spread(m + 1, len(ts))
        p = _polynomial([ts[i] for i in chosen], [mid(target[i] * q(ts[i])) for i in chosen])
        limit = max(abs(lam) * arb(accuracy), self._negligible(reference, bits))
        small = bool(lam != 0)
        for t, y, wk in zip(ts, target, w, strict=True):
            value = p(t) / q(t)
            if not abs(wk * (value - y)) <= limit:
                return None
            small = small and bool(abs(wk * value) <= abs(lam) * arb(1e-10))
        return Level(p, q, lam, reference, start.frame, small=small)

    # -- the exchange

    def exchange(
        self, start: Start, type: tuple[int, int], tolerance: float, max_iterations: int = 40
    ) -> Outcome:
        """Iterate from m + n + 2 points until max W|e| exceeds |lam| by at most `tolerance` of it.

        Raises Failure when it cannot go on; returns an unconverged Outcome after `max_iterations`.

        Args:
            start: the first reference, with its frame.
            type: (m, n), the degrees of numerator and denominator.
            tolerance: relative excess of the largest error over the level at which it stops.
            max_iterations: the largest number of steps.
        """
        m, n = type
        history: list[float] = []
        best: Outcome | None = None
        previous: list[arb] | None = None
        deep, retries, fine, accuracy = False, 0, 1e-3, max(self.accuracy, min(1e-6, 1e-3 * tolerance**0.5))
        for _ in range(max_iterations):
            try:
                level = self.solve(start, m, n, accuracy)
                with precision(level.expand):
                    if level.negligible and self._exact(level):
                        if not self.resolution and level.bits < _MAX_BITS:
                            start = replace(start, bits=2 * level.bits, q=None)
                            continue
                        return Outcome(level, arb(0), start.reference, not self.resolution, [*history, 0.0])
                    extrema, top = self.extrema(level, fine, deep)
            except Failure:
                # the step was too long: go half of the way back to the last reference that worked
                if previous is None or retries == 6:
                    raise
                retries += 1
                halves = [mid((x + y) / 2) for x, y in zip(previous, start.reference, strict=True)]
                start = replace(start, reference=halves)
                continue
            history.append(abs(float(level.value)))
            outcome = Outcome(level, top, extrema, False, history)
            if best is None or outcome.gap < best.gap:
                best = outcome
            # a level is as sharp as the next gap needs it
            sharp, accuracy = accuracy, max(self.accuracy, min(accuracy, 1e-2 * outcome.gap**2))
            # an extremum misplaced by d raises the next gap by d^2: no need to be finer than the exchange is
            used, fine = fine, min(fine, max(self.accuracy, 1e-2 * outcome.gap**2))
            # a coarse look may take the points themselves for the peaks: then a finer one has to confirm it
            looked = used <= (max(tolerance, 1e-10) if tolerance > 1e-15 else tolerance)
            if outcome.gap <= tolerance and looked and sharp <= max(self.accuracy, 1e-2 * tolerance):
                if deep or tolerance > 1e-2 or not self._hidden(outcome):
                    return replace(outcome, converged=True)
                deep, best = True, replace(outcome, top=2 * outcome.top)  # it is not as good as it looked
            still = len(history) > 3 and history[-1] == history[-2] == history[-3] > 0
            if previous is not None and still and tolerance > 1e-15:
                break
            previous = start.reference
            start = start.moved(level, extrema)
        assert best is not None
        return best

    def _hidden(self, outcome: Outcome) -> bool:
        """Whether the error is larger beside a singularity, closer to it than the reference goes."""
        level = outcome.level
        with precision(level.expand):
            try:
                errors = self.error(level, sorted(self._beside(level), key=float))
            except Failure:
                return True
            return any(abs(e) > outcome.top * arb(1 + 1e-9) for e in errors)

    def _beside(self, level: Level) -> list[arb]:
        """Points by ratio towards ends and corners, from their neighbours in the reference."""
        found: list[arb] = []
        for a, b in self.intervals:
            for c in (a, b, *(c for c in self.corners if a < c and c < b)):
                gaps = [s - c for s in level.reference if a <= s and s <= b and s != c]
                for side in (1, -1):
                    near = min((abs(g) for g in gaps if g * side > 0), default=None)
                    if near is not None:
                        found += [mid(c + side * near * arb(10) ** -k) for k in range(2, 15)]
        return found

    def points(self, level: Level, deep: bool = False) -> list[arb]:
        """Samples of the domain between the points of the reference, ascending, ends included.

        Args:
            level: any p/q with its reference.
            deep: also beside singularities, by ratio.
        """
        points: list[arb] = []
        beside = self._beside(level) if deep else []
        for a, b in self.intervals:
            known = {float(s) for s in level.reference}
            # a reference that is much finer than the target's turns sees them anyway
            few = 2 * len(self.landmarks) <= len(level.reference)
            turns = () if few and not self._narrow(b - a) else self.landmarks
            more = [c for c in (*self.corners, *turns, *beside) if float(c) not in known]
            inside = [s for s in (*level.reference, *more) if a < s and s < b]
            if more:
                inside.sort(
                    key=cmp_to_key(lambda x, y: 1 if x > y else -1)
                )  # floats could not tell neighbours apart
            for x, y in zip([a, *inside], [*inside, b], strict=True):
                points += [x, *_between(x, y)]
            points.append(b)
        return points

    def _narrow(self, length: arb) -> bool:
        """Whether the target turns twice within a small part of an interval."""
        return any(y - x < length * arb(_NARROW) for x, y in pairwise(self.landmarks))

    def _exact(self, level: Level) -> bool:
        """Whether p/q is f everywhere, as far as the working precision tells, and not on the reference
        alone.
        """
        points = self.points(level)
        top = max(abs(e) for e in self.error(level, points))
        return bool(top <= 2**10 * self._negligible(points, level.bits))

    def extrema(self, level: Level, fine: float = 1e-13, deep: bool = False) -> tuple[list[arb], arb]:
        """The new reference (alternating local extrema, the highest among them) and the largest error.

        Args:
            level: the levelled function.
            fine: how finely, relatively, each peak is climbed.
            deep: look beside singularities too, by ratio.
        """
        runs, top = self.runs(level, fine, deep)
        thin = thinned(runs, len(level.reference))
        if thin is None:
            raise Failure(f"the error alternates {len(runs)} times where {len(level.reference)} are needed")
        return [s for s, _ in thin], top

    def runs(
        self, level: Level, fine: float = 1e-13, deep: bool = False
    ) -> tuple[list[tuple[arb, arb]], arb]:
        """The highest peak (point, error) of each run of one sign, and the largest error.

        Args:
            level: any p/q.
            fine: how finely, relatively, each peak is climbed.
            deep: look beside singularities too, by ratio.
        """
        peaks = self.peaks(level, fine, deep)
        return _runs(peaks), max((abs(e) for _, e in peaks), default=arb(0), key=lambda e: e)

    def peaks(self, level: Level, fine: float = 1e-13, deep: bool = False) -> list[tuple[arb, arb]]:
        """The local extrema (point, error) of the error's size, ascending.

        Args:
            level: any p/q.
            fine: how finely, relatively, each is climbed.
            deep: look beside singularities too, by ratio.
        """
        points = self.points(level, deep)
        errors = self.error(level, points)
        starts = {id(a) for a, _ in self.intervals}
        ends = {id(b) for _, b in self.intervals}
        peaks: list[tuple[arb, arb]] = []
        for i, (s, e) in enumerate(zip(points, errors, strict=True)):
            left = None if id(s) in starts else errors[i - 1]
            right = None if id(s) in ends else errors[i + 1]
            sign = 1 if e >= 0 else -1
            if (left is None or left * sign <= e * sign) and (right is None or right * sign <= e * sign):
                if left is not None and right is not None:
                    s, e = self._climb(level, sign, points[i - 1 : i + 2], errors[i - 1 : i + 2], fine)
                peaks.append((s, e))
        return peaks

    def _climb(self, level: Level, sign: int, x: list[arb], e: list[arb], fine: float) -> tuple[arb, arb]:
        def height(s: arb) -> arb:
            return sign * self.error(level, [s])[0]

        s, value = peak(height, x, [sign * v for v in e], fine)
        return s, sign * value


def _between(x: arb, y: arb) -> list[arb]:
    """Points between two neighbours, ascending; by ratio too where they are many orders of magnitude apart."""
    near, far = (x, y) if abs(x) < abs(y) else (y, x)
    even = [mid(x + (y - x) * arb(float(u))) for u in _FRACTIONS]
    if not x * y > 0 or abs(far) < abs(near) * 10**6:
        return even
    step = (far / near).log() / (2 * len(_FRACTIONS))
    points = [mid(near * (k * step).exp()) for k in range(1, 2 * len(_FRACTIONS))]
    return sorted({float(p): p for p in (*points, *even)}.values(), key=float)


def _polynomial(points: list[arb], values: list[arb]) -> arb_poly:
    return arb_poly([mid(c) for c in arb_poly.interpolate(points, values, "newton").coeffs()])


def _runs(peaks: Sequence[tuple[arb, arb]]) -> list[tuple[arb, arb]]:
    """The highest peak of each run of one sign."""
    runs: list[tuple[arb, arb]] = []
    for s, e in peaks:
        if e == 0:
            continue
        if runs and (runs[-1][1] > 0) == (e > 0):
            if abs(e) > abs(runs[-1][1]):
                runs[-1] = (s, e)
        else:
            runs.append((s, e))
    return runs


def thinned(runs: Sequence[tuple[Any, Any]], count: int) -> list[tuple[Any, Any]] | None:
    """`count` alternating peaks out of the runs, the highest kept.

    Args:
        runs: peaks (point, error) whose signs alternate, ascending.
        count: how many are wanted.

    Returns:
        The peaks, or None if there are fewer.
    """
    size = len(runs)
    if size < count:
        return None
    heights = [abs(error) for _, error in runs]
    before, after = list(range(-1, size - 1)), list(range(1, size + 1))
    alive, ends = [True] * size, [0, size - 1]

    def drop(i: int) -> None:
        alive[i] = False
        if i == ends[0]:
            ends[0] = after[i]
        else:
            after[before[i]] = after[i]
        if i == ends[1]:
            ends[1] = before[i]
        else:
            before[after[i]] = before[i]

    left = size
    for low in sorted(range(size), key=lambda i: heights[i]):
        if left <= count + 1:
            break
        if alive[low]:
            inner = low not in ends
            if inner:  # a neighbour goes too, so that the signs still alternate
                drop(min(before[low], after[low], key=lambda i: (heights[i], -i)))
            drop(low)
            left -= 2 if inner else 1
    if left == count + 1:
        drop(ends[0] if heights[ends[0]] < heights[ends[1]] else ends[1])
    return [run for run, kept in zip(runs, alive, strict=True) if kept]
