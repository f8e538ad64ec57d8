"""`minimax`: the best rational approximation of a given type, by the exchange in arbitrary precision.

What is added to the exchange (`exchange.py`): reduction by symmetry, the climb in degree that finds a start,
the choice of a form whose rounding leaves the error as it is, and an honest verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import numpy as np
from flint import arb, arb_poly, fmpq, fmpq_poly
from tqdm import tqdm

from approx.dyadic import dyadic, precision
from approx.fit.exchange import Failure, Level, Outcome, Problem, Values
from approx.fit.measure import measured_error, target_values, weight_values
from approx.fit.record import Fit, check_target, check_type
from approx.forms import Chebyshev
from approx.rational import Rational
from approx.target import Target

_START_BITS = 128


@dataclass
class Reduced:
    """The problem in s: r(x) = line(x) + u^odd R(u^2), u = x - centre, s = u^2; or r = R, s = x without
    symmetry.
    """

    problem: Problem
    type: tuple[int, int]
    symmetry: str
    centre: fmpq
    line: fmpq_poly
    odd: int

    def x(self, s: arb) -> list[arb]:
        """The points of the original variable that s stands for, ascending."""
        if not self.symmetry:
            return [s]
        u = s.sqrt().mid()
        return [self.centre - u, self.centre + u] if u > 0 else [arb(self.centre)]

    def assemble(self, level: Level, p: arb_poly, q: arb_poly) -> tuple[fmpq_poly, fmpq_poly]:
        """num and den of r in x, exactly, from p and q in the variable of `level`."""
        c, h = level.centre.fmpq(), level.half.fmpq()
        inner = fmpq_poly([-c / h, 1 / h])
        u = fmpq_poly([-self.centre, 1])
        if self.symmetry:
            inner = inner(u * u)
        num, den = (fmpq_poly([k.fmpq() for k in poly.coeffs()])(inner) for poly in (p, q))
        return num * u**self.odd + self.line * den, den


def _resolution(target: Target) -> float:
    return 0.0 if target.enclosed else float(np.finfo(float).eps)


def _plain(target: Target, type: tuple[int, int], sides: tuple[int, ...] = ()) -> Reduced:
    intervals = [(arb(a), arb(b)) for a, b in target.domain]
    problem = Problem(
        target_values(target),
        weight_values(target),
        intervals,
        _resolution(target),
        tuple(arb(x) for x in target.breaks),
        sides,
    )
    return Reduced(problem, type, "", fmpq(0), fmpq_poly(), 0)


def _reduce(target: Target, type: tuple[int, int]) -> Reduced:
    """Use that f is a line plus an even function, or a constant plus an odd one, about the centre of its
    domain.

    By uniqueness the best r has the same symmetry when subtracting the line leaves the class of type (m, n)
    as it is: degree(line) + n <= m. Then r is a function of u^2 of half the degrees, on half the domain.
    """
    plain = _plain(target, type)
    m, n = type
    low, high = target.hull
    centre = (dyadic(low) + dyadic(high)) / 2
    mirrored = [(2 * centre - dyadic(b), 2 * centre - dyadic(a)) for a, b in reversed(target.domain)]
    if mirrored != [(dyadic(a), dyadic(b)) for a, b in target.domain]:
        return plain
    f, w = plain.problem.f, plain.problem.weight

    right = [(max(dyadic(a), centre), dyadic(b)) for a, b in target.domain if dyadic(b) > centre]
    with precision(_START_BITS):
        close = arb(2) ** (-100 if target.enclosed else -50)
        us = [
            arb(a + (b - a) * fmpq(k, 97) - centre).mid()
            for a, b in right
            for k in (3, 17, 29, 44, 61, 83, 96)
        ]
        plus, minus = f([centre + u for u in us]), f([centre - u for u in us])
        size = max((abs(v) for v in (*plus, *minus)), key=float)
        if not size.is_finite():
            raise ValueError(f"target {target.name!r} is not finite on its domain: change domain=")
        if w and any(
            abs(a - b) > close * abs(a)
            for a, b in zip(w([centre + u for u in us]), w([centre - u for u in us]), strict=True)
        ):
            return plain

        def constant(values: list[arb]) -> fmpq | None:
            spread = max((abs(v - values[0]) for v in values), key=float)
            if spread > close * size:
                return None
            return (
                fmpq(0)
                if abs(values[0]) <= close * size
                else dyadic(values[0], 100 if target.enclosed else 50)
            )

        slope = constant([(a - b) / (2 * u) for a, b, u in zip(plus, minus, us, strict=True)])
        level = constant([(a + b) / 2 for a, b in zip(plus, minus, strict=True)])
    u = fmpq_poly([-centre, 1])
    if slope is not None and (slope == 0 or n + 1 <= m):
        odd, line, type = 0, slope * u, (m // 2, n // 2)
    elif level is not None and m >= 1 and (level == 0 or n <= m):
        odd, line, type = 1, fmpq_poly([level]), ((m - 1) // 2, n // 2)
    else:
        return plain

    def values(points: list[arb]) -> list[arb]:
        u = [s.sqrt().mid() for s in points]
        if odd:  # the part that a line adds to f cancels
            return [(v / x).mid() for v, x in zip(_part(f, centre, u, -1), u, strict=True)]
        return _part(f, centre, u, 1)

    def weights(points: list[arb]) -> list[arb]:
        u = [s.sqrt().mid() for s in points]
        outer = w([(centre + x).mid() for x in u]) if w else [arb(1)] * len(u)
        return [(x * k).mid() if odd else k for x, k in zip(u, outer, strict=True)]

    with precision(2 * _START_BITS):
        intervals = [(arb((a - centre) ** 2), arb((b - centre) ** 2)) for a, b in right]
        corners = tuple(arb((dyadic(x) - centre) ** 2) for x in target.breaks)
        if odd and intervals[0][0] == 0:
            # an odd error vanishes at the centre: leave out a neighbourhood where it cannot be the largest
            intervals[0] = (intervals[-1][1] * arb(2) ** (-80 if target.enclosed else -30), intervals[0][1])
    problem = Problem(values, weights if (odd or w) else None, intervals, _resolution(target), corners)
    return Reduced(problem, type, "odd" if odd else "even", centre, line, odd)


def _part(f: Values, centre: fmpq, u: list[arb], sign: int) -> list[arb]:
    """(f(centre + u) + sign f(centre - u))/2."""
    plus, minus = f([(centre + x).mid() for x in u]), f([(centre - x).mid() for x in u])
    return [((a + sign * b) / 2).mid() for a, b in zip(plus, minus, strict=True)]


# -- a start


def _first_reference(problem: Problem, count: int) -> list[arb]:
    """Chebyshev points on the union, gaps left out."""
    lengths = [float((b - a) / problem.half) for a, b in problem.intervals]
    places = (1 - np.cos(np.linspace(0, np.pi, count))) / 2 * sum(lengths) if count > 1 else np.array([0.0])
    points = []
    for place in places:
        for (a, b), length in zip(problem.intervals, lengths, strict=True):
            if place <= length or b is problem.intervals[-1][1]:
                points.append(b if place >= length else (a + (b - a) * arb(place / length)).mid())
                break
            place -= length
    return _separated(points, problem)


def _resized(problem: Problem, old: list[arb], count: int) -> Iterator[list[arb]]:
    """The old reference stretched to `count` points, interval by interval and linear in the index.

    How the points split between the intervals decides about success next to a gap, so neighbouring splits
    follow.
    """
    parts = [[x for x in old if a <= x and x <= b] for a, b in problem.intervals]
    shares = np.cumsum([len(part) for part in parts]) * count / len(old)
    sizes = np.diff(np.r_[0, np.round(shares).astype(int)])
    shifts = [np.zeros(len(parts), dtype=int)]
    for i in range(len(parts) - 1):
        for k in (1, -1, 2, -2):
            shift = np.zeros(len(parts), dtype=int)
            shift[i], shift[i + 1] = k, -k
            shifts.append(shift)
    for shift in shifts:
        if min(sizes + shift) >= 0:
            points = []
            for part, size, interval in zip(parts, sizes + shift, problem.intervals, strict=True):
                points += _stretched(part if len(part) > 1 else list(interval), int(size))
            yield _separated(points, problem)


def _extrapolated(problem: Problem, older: list[arb], old: list[arb], count: int) -> Iterator[list[arb]]:
    """A reference of `count` points guessed from the last two.

    In g = log((x - a)/(b - x)) on each interval [a, b], points at a fixed share of the way through the
    reference move about linearly in the square root of their number: so they do where they cluster at a
    singularity (Stahl), and where they do not they stand still.
    """
    shares = np.cumsum([sum(bool(a <= x) and bool(x <= b) for x in old) for a, b in problem.intervals])
    sizes = np.diff(np.r_[0, np.round(shares * count / len(old)).astype(int)])
    reach = (np.sqrt(count) - np.sqrt(len(old))) / (np.sqrt(len(old)) - np.sqrt(len(older)))
    guesses = []
    for before, now, size in zip(_places(problem, older), _places(problem, old), sizes, strict=True):
        ends = now[np.isinf(now)]
        before, now = before[np.isfinite(before)], now[np.isfinite(now)]
        inner = int(size) - len(ends)
        if min(len(before), len(now)) < 2 or inner < 1:
            return
        share = (np.arange(inner) + 0.5) / inner
        at = [np.interp(share, (np.arange(len(g)) + 0.5) / len(g), g) for g in (before, now)]
        guesses.append(np.sort(np.r_[at[1] + reach * (at[1] - at[0]), ends]))
    yield _separated(_placed(problem, guesses), problem)


def _stretched(part: list[arb], size: int) -> list[arb]:
    points = []
    for place in np.linspace(0, len(part) - 1, size) if size > 1 else [(len(part) - 1) / 2] * size:
        i = min(int(place), len(part) - 2)
        points.append((part[i] + (part[i + 1] - part[i]) * arb(float(place - i))).mid())
    return points


def _separated(points: list[arb], problem: Problem) -> list[arb]:
    """Move a point that coincides with its left neighbour towards the right one."""
    for k in range(1, len(points)):
        if not points[k - 1] < points[k]:
            following = points[k + 1] if k + 1 < len(points) else problem.intervals[-1][1]
            points[k] = (points[k - 1] + (following - points[k - 1]) / 2).mid()
    return points


@dataclass
class _Climb:
    """How far a walk through the types came: the last outcome, the type it belongs to, and what stopped
    it.
    """

    problem: Problem
    outcome: Outcome | None = None
    type: tuple[int, int] = (-1, -1)
    reason: str = ""
    history: list[float] = field(default_factory=list)


def _climbed(reduced: Reduced, tolerance: float, progress: bool) -> _Climb:
    """The best approximation, reached through smaller types.

    First along (m-n, 0), (m-n+1, 1), ... (or (0, n-m), ...), then along (m, 0), (m, 1), ..., then with wider
    gaps; if none arrives, the lowest that was reached, levelled to the tolerance.
    """
    m, n = reduced.type
    diagonal = [(m - k, n - k) for k in range(min(m, n), -1, -1)]
    numerator_first = [(m, k) for k in range(n + 1)]
    climbs = []
    for path in (diagonal, numerator_first):
        climbs.append(_walk(reduced.problem, path, tolerance, progress))
        if climbs[-1].type == (m, n) or (climbs[-1].outcome and climbs[-1].outcome.exact):
            return climbs[-1]
    if len(reduced.problem.intervals) > 1:
        climbs.append(_narrowed(reduced, tolerance, progress))
        if climbs[-1].type == (m, n):
            return climbs[-1]
    stuck = [c for c in climbs if c.outcome and c.problem is reduced.problem]
    if not stuck:
        raise Failure(climbs[0].reason)
    best = min(stuck, key=lambda c: float(c.outcome.top))
    try:
        level, (mk, nk) = best.outcome.level, best.type
        best.outcome = reduced.problem.exchange(best.outcome.extrema, mk, nk, tolerance, level.bits)
    except Failure:
        pass
    return best


def _narrowed(reduced: Reduced, tolerance: float, progress: bool) -> _Climb:
    """Solve with the gaps widened, where a start is easily found, then narrow them by factors of 3 at
    most.
    """
    problem, (m, n) = reduced.problem, reduced.type
    edges = [e for interval in problem.intervals for e in interval]
    gaps = list(zip(edges[1:-1:2], edges[2:-1:2], strict=True))
    # a gap may take a fifth of either neighbour
    room = [min((b - a) / 5, (d - c) / 5, key=float) for (a, b), (c, d) in pairwise(problem.intervals)]
    widest = max(float(r / (c - b)) for r, (b, c) in zip(room, gaps, strict=True))
    steps = max(1, int(np.ceil(np.log(max(widest, 1.0)) / np.log(3.0))))

    def widened(share: float) -> Problem:
        inner = []
        for (b, c), r in zip(gaps, room, strict=True):
            more = (r * arb(float(r / (c - b))) ** (share - 1)).mid() if share > 0 and r > c - b else arb(0)
            inner += [(b - more).mid(), (c + more).mid()]
        ends = [edges[0], *inner, edges[-1]]
        intervals = list(zip(ends[::2], ends[1::2], strict=True))
        return Problem(
            problem.f, problem.weight, intervals, problem.resolution, problem.corners, problem.sides
        )

    stage = widened(1.0)
    for path in ([(m - k, n - k) for k in range(min(m, n), -1, -1)], [(m, k) for k in range(n + 1)]):
        climb = _walk(stage, path, 0.05, progress)
        if climb.type == (m, n):
            break
    else:
        return climb
    assert climb.outcome is not None
    places = [_places(stage, climb.outcome.extrema)]
    for k in range(steps - 1, -1, -1):
        stage = problem if k == 0 else widened(k / steps)
        guesses = [places[-1]]
        if len(places) > 1 and [len(g) for g in places[-1]] == [len(g) for g in places[-2]]:
            with np.errstate(invalid="ignore"):  # points at the ends, at infinity here, stay
                moved = [2 * new - old for old, new in zip(places[-2], places[-1], strict=True)]
            guesses.insert(
                0, [np.where(np.isfinite(g), g, now) for g, now in zip(moved, places[-1], strict=True)]
            )
        found = None
        for guess in guesses:
            with suppress(Failure), precision(_START_BITS):
                start = _separated(_placed(stage, guess), stage)
                stage.recentre(start)
                found = stage.exchange(start, m, n, tolerance if k == 0 else 0.05, _START_BITS)
                break
        if found is None:
            climb.reason = "narrowing the gaps of the domain lost the alternation"
            climb.type = (-1, -1)
            return climb
        climb.outcome, climb.problem = found, stage
        climb.history += found.history
        places.append(_places(stage, found.extrema))
    return climb


def _places(problem: Problem, reference: list[arb]) -> list[np.ndarray]:
    """log((x - a)/(b - x)) of the points in each interval [a, b], +-inf at its ends."""
    found = []
    for a, b in problem.intervals:
        inside = [x for x in reference if a <= x and x <= b]
        found.append(
            np.array(
                [
                    -np.inf if x == a else np.inf if x == b else float(((x - a) / (b - x)).log())
                    for x in inside
                ]
            )
        )
    return found


def _placed(problem: Problem, places: list[np.ndarray]) -> list[arb]:
    """The inverse of `_places`."""
    points = []
    for (a, b), values in zip(problem.intervals, places, strict=True):
        for g in map(float, values):
            if np.isinf(g):
                points.append(a if g < 0 else b)
            elif g < 0:
                points.append((a + (b - a) / (1 + arb(-g).exp())).mid())
            else:
                points.append((b - (b - a) / (1 + arb(g).exp())).mid())
    return points


def _starts(problem: Problem, references: list[list[arb]], count: int) -> Iterator[list[arb]]:
    """Guesses for a reference of `count` points from those of smaller types, the most hopeful first."""
    if len(references) > 1:
        yield from _extrapolated(problem, references[-2], references[-1], count)
    if references:
        yield from _resized(problem, references[-1], count)
    yield _first_reference(problem, count)


def _walk(problem: Problem, path: list[tuple[int, int]], tolerance: float, progress: bool) -> _Climb:
    """Climb along a path of types, each reference stretched to be a start for the next.

    Steps grow while they succeed; after a failure the next smaller or the next larger type is tried, because
    single types can be out of reach (a pole in a gap, a degenerate best approximation).
    """
    climb, at, step, bits, last = _Climb(problem), -1, 1, _START_BITS, len(path) - 1
    references: list[list[arb]] = []
    with (
        precision(bits),
        tqdm(total=last + 1, desc="minimax", disable=not progress, leave=False, delay=2) as bar,
    ):
        while at < last:
            found = None
            for k in dict.fromkeys([min(at + step, last), *range(at + 1, min(at + 4, last) + 1)]):
                count = sum(path[k]) + 2
                for start in _starts(problem, references, count):
                    try:
                        found = problem.exchange(start, *path[k], tolerance if k == last else 0.05, bits)
                        break
                    except Failure as failure:
                        climb.reason = f"type {path[k]}: {failure}"
                if found:
                    break
            if not found:
                return climb
            climb.history += found.history
            step = k + 1 if k == at + step else 1
            bar.update(k - at)
            climb.outcome, climb.type, at, bits = found, path[k], k, found.level.bits
            references.append(found.extrema)
            problem.recentre(found.extrema)
            if found.exact:
                break
    return climb


# -- the public function


def minimax(
    target: Target,
    type: tuple[int, int],
    *,
    tolerance: float = 1e-11,
    poles: str = "free",
    progress: bool = False,
) -> Fit:
    """The best approximation r = p/q of `target` with deg p <= m and deg q <= n in the weighted maximum norm.

    tolerance: the exchange stops when the largest error exceeds the levelled error by this share of it.
    poles: "free" admits no real pole in the convex hull of the domain. "allow_in_gaps" also tries every way
        in which the denominator can change sign across the gaps of the domain, and returns the smallest
        error.

    Works in arbitrary precision throughout; the result is held in float64 wherever that leaves the error as
    it is, and with more bits where it does not (`fit.message` says so). A callable without `enclose=` limits
    the fit to what float64 can resolve. `fit.converged` is True only for a best approximation: enough
    alternations, levelled to `tolerance`, and no pole where none is allowed.

    Raises ValueError for a malformed type, policy or tolerance, and RuntimeError when no levelled function
    was found.

    Source: the exchange of Remez (1934) for rationals (Werner 1962), in the form of Filip, Nakatsukasa,
    Trefethen and Beckermann (2018).
    """
    m, n = check_type(type)
    if poles not in ("free", "allow_in_gaps"):
        raise ValueError(f"poles={poles!r}: expected 'free' or 'allow_in_gaps'")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must lie in (0, 1)")
    check_target(target)
    fit = _fit(target, (m, n), _reduce(target, (m, n)), tolerance, progress)
    if not fit.converged and fit.error > fit.levelled * (1 + 1e-6) and "symmetry" in fit.message:
        # the symmetry held to the digits that were looked at, and not beyond
        fit = _fit(target, (m, n), _plain(target, (m, n)), tolerance, progress)
    if poles == "allow_in_gaps":
        for sides in product((1, -1), repeat=len(target.domain) - 1):
            if -1 in sides and sum(a != b for a, b in pairwise((1, *sides))) <= n:
                with suppress(RuntimeError):
                    other = _fit(target, (m, n), _plain(target, (m, n), (1, *sides)), tolerance, progress)
                    if other.converged and (other.error < fit.error or not fit.converged):
                        fit = other
    return fit


def _fit(target: Target, type: tuple[int, int], reduced: Reduced, tolerance: float, progress: bool) -> Fit:
    notes = [f"reduced by {reduced.symmetry} symmetry to type {reduced.type}"] if reduced.symmetry else []
    try:
        climb = _climbed(reduced, tolerance, progress)
    except Failure as failure:
        raise RuntimeError(f"minimax({target!r}, {type}): {failure}") from None
    outcome = climb.outcome
    assert outcome is not None
    while outcome.exact and outcome.converged and min(climb.type) > 0:
        # a rational target: with degrees to spare p and q share factors, up to rounding
        try:
            smaller = _climbed(
                replace(reduced, type=(climb.type[0] - 1, climb.type[1] - 1)), tolerance, progress
            )
        except Failure:
            break
        if smaller.outcome is None or not smaller.outcome.exact:
            break
        climb, outcome = smaller, smaller.outcome
    level = outcome.level
    with precision(level.expand):
        num, den = reduced.assemble(
            level, *(_chopped(p, level.bits) if outcome.exact else p for p in (level.p, level.q))
        )
        reference = np.array([float(x) for x in _reference(reduced, outcome)])
    if _vanishes(level):
        num, den = reduced.line, fmpq_poly([1])  # and not its rounding
    top = float(outcome.top)
    slack = max(1e-9, tolerance)
    if outcome.exact:
        # its roots may be multiple but for rounding, and those of more than 53 bits take for ever to part
        rational = Rational.from_exact(num, den, target.domain, "chebyshev", centre=_centre(den, target))
        error = measured_error(rational, target, reference, count=64)
        plain = _cleared(rational, level.bits)
        plain_error = measured_error(plain, target, reference, count=64)
        # 1e-30: both are measured to some 128 bits
        if plain_error <= max(2 * error, 1e-30 * float(np.max(np.abs(target(reference)), initial=0.0))):
            rational, error = plain, plain_error
    else:
        rational, error = _held(num, den, target, reference, top * (1 + slack))
    floor = 0.0 if outcome.exact else abs(float(level.value))
    converged = outcome.converged
    if outcome.exact and converged:
        notes.append("the target is itself a rational function of this type")
    elif outcome.exact:
        notes.append("the error has fallen to the rounding of the target in float64: give enclose= to go on")
    elif error > top * (1 + 10 * slack):
        converged = False
        notes.append(f"the result's error is {error:.9e}, above the {top:.9e} that the exchange reached")
        if not target.enclosed:
            notes.append("the target is known to the rounding of float64 only: give enclose= to go on")
    elif climb.type != reduced.type:
        # fewer degrees do as well when the error alternates often enough (Achieser: m + n + 2 - defect)
        (m, n), (mu, nu) = reduced.type, climb.type
        needed = m + n + 2 - (n if _vanishes(level) else min(m - mu, n - nu))
        converged = converged and outcome.alternations >= needed
        notes.append(
            f"the best approximation is degenerate: it has type {climb.type}"
            if converged
            else f"stopped at type {climb.type}, whose best approximation this is: {climb.reason}"
        )
    elif not outcome.converged:
        notes.append(
            f"the exchange stopped with the error {outcome.gap:.1e} (relative) above the levelled error"
        )
    if not reduced.problem.sides and _poles_inside(rational):
        converged = False
        notes.append(
            "the levelled function has a pole in a gap of the domain: it is not pole-free on the convex hull"
        )
    if rational.bits > 53:
        notes.append(f"float64 parameters would raise the error: held with {rational.bits} bits")
    message = "; ".join(notes)
    return Fit(
        rational,
        max(error, floor),
        reference,
        converged,
        climb.history,
        "minimax",
        target,
        type,
        floor,
        message,
    )


def _reference(reduced: Reduced, outcome: Outcome) -> list[arb]:
    """The alternation points in x, ascending. Mirroring an even error joins two points of one sign: one is
    left out.
    """
    points = [reduced.x(s) for s in outcome.extrema]
    right = [p[-1] for p in points]
    left = [p[0] for p in reversed(points) if len(p) == 2]
    if reduced.symmetry == "even" and len(left) == len(right):
        left = left[:-1]
    return [*left, *right] if reduced.symmetry else right


def _vanishes(level: Level) -> bool:
    """Whether the levelled function is 0 to the working precision: its defect is n then."""
    p, q = (max((abs(c) for c in poly.coeffs()), key=float, default=arb(0)) for poly in (level.p, level.q))
    return bool(p <= q * abs(level.value) * arb(2) ** -60)


def _chopped(poly: arb_poly, bits: int) -> arb_poly:
    """Coefficients that are rounding set to zero: they would be roots at infinity."""
    top = max((abs(c) for c in poly.coeffs()), key=float, default=arb(0))
    return arb_poly([c if abs(c) > top * arb(2) ** (-bits // 4) else 0 for c in poly.coeffs()])


def _cleared(rational: Rational, bits: int) -> Rational:
    """A Chebyshev form without the coefficients that are the rounding of `bits` bits: powers that cancelled."""

    def clear(series: tuple[fmpq, ...]) -> tuple[fmpq, ...]:
        least = max(map(abs, series)) / (1 << bits // 4)
        return tuple(c if abs(c) > least else fmpq(0) for c in series)

    assert isinstance(rational.form, Chebyshev)
    return replace(rational, form=Chebyshev(clear(rational.form.num), clear(rational.form.den)))


def _poles_inside(rational: Rational) -> bool:
    low, high = rational.hull
    return any(p.imag == 0 and low <= p.real <= high for p in rational.poles())


def _held(
    num: fmpq_poly, den: fmpq_poly, target: Target, reference: np.ndarray, limit: float
) -> tuple[Rational, float]:
    """num/den in the form, and with the fewest bits, that keep the error within 1e-9 of `top`; and that
    error.
    """
    x = np.concatenate([np.linspace(a, b, 201) for a, b in target.domain])
    rounding = 4 * np.finfo(float).eps * float(np.max(np.abs(target(x))))
    # rounded partial fractions have a numerator of degree n - 1 at least
    forms = ("partial_fractions", "factored") if num.degree() >= den.degree() - 1 else ("factored",)
    centre = _centre(den, target)
    bits, last = 53, np.inf
    while True:
        candidates, found = [], []
        for form in forms:
            r = Rational.from_exact(num, den, target.domain, form, bits, centre=centre)
            candidates.append((_float64_noise(r, x), r))
            if candidates[-1][0] <= rounding:
                break
        for _, r in sorted(candidates, key=lambda c: c[0]):
            found.append((measured_error(r, target, reference, count=64), r))
            if found[-1][0] <= limit:
                return r, found[-1][0]
        # where the target is rational itself, its own coefficients need not be dyadic: float64 is close
        # enough
        least = min(error for error, _ in found)
        if bits > 1 << 11 or limit == 0 or least > last * (1 - 1e-12):
            return found[0][1], found[0][0]
        bits, last = 2 * bits, least


def _float64_noise(r: Rational, x: np.ndarray) -> float:
    """How far evaluation in float64 is from the truth: what decides between two forms."""
    with precision(128 + r.bits):
        truth = np.array([float(r(arb(float(s)))) for s in x])
    return float(np.max(np.abs(r(x) - truth)))


def _centre(den: fmpq_poly, target: Target) -> fmpq:
    """The origin that keeps digits where they are needed: the special point nearest to the closest pole."""
    low, high = target.hull
    places = [0.0, low, high, (low + high) / 2, *target.breaks]
    places += [(b + c) / 2 for (_, b), (c, _) in pairwise(target.domain)]
    poles = (
        Rational.from_exact(den * 0 + 1, den, target.domain, "monomial", 53).poles()
        if den.degree() > 0
        else []
    )
    distance = [abs(p - np.clip(p.real, low, high)) for p in poles]
    if not distance or min(distance) > 0.05 * (high - low):
        return dyadic(0.0 if low <= 0 <= high else (low + high) / 2)
    nearest = poles[int(np.argmin(distance))]
    return dyadic(min(places, key=lambda place: abs(place - nearest)))
