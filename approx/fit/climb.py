"""The climb in degree: a start for the exchange from the references of smaller types, or of easier problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from flint import arb, arb_poly
from tqdm import tqdm

from approx.dyadic import precision
from approx.family import Family
from approx.fit.correction import Corrected, corrected, weighted
from approx.fit.exchange import Failure, Level, Outcome, Problem, Start, room, thinned
from approx.fit.multipliers import found
from approx.fit.references import guesses, placed, places_of, separated, starts
from approx.fit.symmetry import START_BITS, Reduced


@dataclass
class Climb:
    """How far a walk through the types came."""

    problem: Problem
    """What was solved: the problem itself, or one with wider gaps."""
    outcome: Outcome | None = None
    """The last outcome; None if no type was reached."""
    type: tuple[int, int] = (-1, -1)
    """The type that the outcome belongs to."""
    reason: str = ""
    """What stopped the walk."""
    history: list[float] = field(default_factory=lambda: [])
    """The level after each step of each exchange."""
    met: list[tuple[tuple[int, int], Outcome]] = field(default_factory=lambda: [])
    """The types on the way, with their outcomes."""
    bound: arb = field(default_factory=lambda: arb(0))
    """Of what got stuck, what the alternation of functions on the way proves for the type that was wanted."""

    @property
    def arrived(self) -> bool:
        """Whether the last outcome is levelled."""
        return self.outcome is not None and self.outcome.converged

    def degenerate(self, m: int, n: int) -> bool:
        """Whether the last outcome is proven best in the type (m, n) as well.

        Args:
            m: degree of the numerator.
            n: degree of the denominator.
        """
        if self.outcome is None:
            return False
        bound = max(self.outcome.bound(self.problem, self.type, (m, n)), arb(self.problem.least), key=float)
        return bool(bound >= self.outcome.top * arb(1 - 1e-9))


def climbed(
    reduced: Reduced, tolerance: float, progress: bool, known: Sequence[float] | np.ndarray = ()
) -> Climb:
    """The best approximation, reached through smaller types, or from the best one on a grid.

    First along (m-n, 0), (m-n+1, 1), ... (or (0, n-m), ...), then along (m, 0), (m, 1), ..., then by differential
    correction, then by continuation: from wider gaps, a shorter interval, or a weaker weight; at last by exchanging
    single points. If none arrives, the lowest that was reached.

    Args:
        reduced: the problem.
        tolerance: relative excess of the largest error over the level at which an exchange stops.
        progress: show a progress bar.
        known: a reference to begin with.
    """
    m, n = reduced.type
    problem = reduced.problem
    if n < (changes := sum(a != b for a, b in pairwise(problem.sides))):
        raise Failure(f"a denominator of degree {n} cannot change its sign {changes} times")
    diagonal = [(m - k, n - k) for k in range(min(m, n), -1, -1)]
    numerator_first = [(m, k) for k in range(n + 1)]
    if len(problem.landmarks) > m:  # f turns too often for a numerator of that degree to follow, perhaps
        zero = zero_alternates(problem, m)
        if zero is not None and zero.top > 0 and zero.level.value >= zero.top * arb(1 - 1e-9):
            return Climb(problem, zero, (0, 0), "", zero.history)
    tries: list[Callable[[], Climb]] = [
        lambda: _walk(problem, diagonal, tolerance, progress),
        lambda: _walk(problem, numerator_first, tolerance, progress),
        lambda: _from_grid(problem, (m, n), tolerance),
        lambda: _from_grid(problem, (m, n), tolerance, weighted),
        lambda: _layered(problem, (m, n), tolerance, progress),
    ]
    if (close := _chebyshev_start(problem, (m, n))) is not None:
        tries.insert(0, lambda: _begun(problem, (m, n), close, tolerance))
    if len(known) == m + n + 2:
        tries.insert(0, lambda: _from_reference(problem, (m, n), known, tolerance))
    staged: list[tuple[Callable[[float], Problem], float]] = []
    if m + n <= _LARGEST_PROGRAM and (zoomed := _widened(problem)) is not None:
        tries.insert(2, lambda: _followed(problem, (m, n), *zoomed, tolerance, progress))
    if len(problem.intervals) > 1:
        staged.append(_narrowed(problem))
    elif m + n <= _LARGEST_PROGRAM:
        staged += [(_lengthened(problem, side), 0.25) for side in (True, False)]
    if problem.weight is not None:
        staged.append((_weighted(problem), 0.25))
    tries += [
        lambda stage=stage, step=step: _followed(problem, (m, n), stage, step, tolerance, progress)
        for stage, step in staged
    ]
    tries.append(lambda: _by_multipliers(problem, (m, n), tolerance))
    climbs: list[Climb] = []
    for attempt in tries:
        climb = attempt()
        climbs.append(climb)
        if climb.problem is not problem:
            continue
        if climb.outcome and climb.type != (m, n):
            _levelled_out(climb, tolerance)
        if climb.outcome and (
            climb.outcome.exact or (climb.outcome.gap <= max(1e-6, tolerance) and climb.type == (m, n))
        ):
            return climb
        if climb.arrived and climb.outcome and climb.degenerate(m, n):
            return climb
    stuck = [c for c in climbs if c.outcome and c.problem is problem]
    if not stuck:
        raise Failure(climbs[0].reason)
    best = min(stuck, key=lambda c: float(c.outcome.top) if c.outcome else np.inf)
    outcome = best.outcome
    assert outcome is not None
    if not outcome.converged and outcome.level.value != 0:
        with suppress(Failure):
            level = outcome.level
            again = problem.exchange(
                Start(outcome.extrema, level.frame, level.bits, level.q), best.type, tolerance
            )
            best.outcome = again if again.top <= outcome.top else outcome
    best.reason = best.reason or climbs[0].reason
    best.bound = max((climb.bound for climb in climbs), key=float)
    for own, one in (pair for climb in stuck for pair in climb.met if not pair[1].exact):
        with suppress(Failure):
            best.bound = max(best.bound, one.bound(problem, own, (m, n)), key=float)
    return best


def _levelled_out(climb: Climb, tolerance: float) -> None:
    """Bring the outcome of a smaller type, a step on the way, to the tolerance: it may be best in this one."""
    outcome = climb.outcome
    assert outcome is not None
    if not outcome.exact and outcome.gap > tolerance:
        level = outcome.level
        start = Start(outcome.extrema, level.frame, level.bits, level.q)
        with suppress(Failure), precision(level.bits):
            again = climb.problem.exchange(start, climb.type, tolerance)
            if again.top <= outcome.top:
                climb.outcome = again
                climb.history += again.history


def _from_reference(
    problem: Problem, type: tuple[int, int], known: Sequence[float] | np.ndarray, tolerance: float
) -> Climb:
    """The exchange from points that are known to be near."""
    with precision(START_BITS):
        points = [arb(float(x)) for x in known]
        return _begun(problem, type, Start(points, problem.frame(points), START_BITS), tolerance)


def _begun(problem: Problem, type: tuple[int, int], start: Start, tolerance: float) -> Climb:
    """The exchange from a reference of the type itself."""
    climb = Climb(problem)
    with precision(start.bits):
        try:
            climb.outcome = problem.exchange(start, type, tolerance)
            climb.type, climb.history = type, climb.outcome.history
        except Failure as failure:
            climb.reason = str(failure)
    return climb


_FEW = 8  # points; with fewer the climb is as short


def _chebyshev_start(problem: Problem, type: tuple[int, int]) -> Start | None:
    """Chebyshev points of one interval, where f is so smooth that the best error peaks near them.

    So it is if the best polynomial gains more than a bit with each degree: f is analytic in an ellipse whose half-axes
    have a sum of 2 half-lengths. The level of the polynomial of degree m + n on these points tells, which is a sum.
    """
    m, n = type
    count = m + n + 2
    if len(problem.intervals) > 1 or problem.corners or problem.sides or count < _FEW or n == 0:
        return None
    ((a, b),) = problem.intervals
    bits = 64 + 8 * count
    while bits <= 1 << 14:
        with precision(bits):
            middle, half = (a + b) / 2, (b - a) / 2
            points = [(middle - half * (arb(k) / (count - 1)).cos_pi()).mid() for k in range(count)]
            points[0], points[-1] = a, b
            f, w = problem.f(points), problem.weights(points)
            if not all(x.is_finite() and v.is_finite() and v > 0 for x, v in zip(f, w, strict=True)):
                return None
            ends = [1 if 0 < k < count - 1 else arb(0.5) for k in range(count)]
            level = sum((e * x * (-1) ** k for k, (e, x) in enumerate(zip(ends, f, strict=True))), arb(0))
            level = abs(level / sum((e / v for e, v in zip(ends, w, strict=True)), arb(0))).mid()
            size = max(abs(x * v).mid() for x, v in zip(f, w, strict=True))
            noise = size * max(arb(2) ** (32 - bits), arb(16 * problem.resolution))
            if not level <= size * arb(2) ** -count or (level <= noise and problem.resolution):
                return None
            if level > noise:
                digits = -float((level / size).log()) / np.log(2) + 1.2 * count
                points = _bent(problem, type, points) if min(type) >= _WORTHWHILE else points
                return Start(points, problem.frame(), max(START_BITS, room(int(digits)) + 32))
        bits *= 2
    return None


_WORTHWHILE = 40  # degree; below, a step of the exchange costs no more than the smaller type


def _bent(problem: Problem, type: tuple[int, int], points: list[arb]) -> list[arb]:
    """Chebyshev points moved as those of a quarter of the degrees are: by smooth shares of their distances."""
    small = (type[0] // 4, type[1] // 4)
    start = _chebyshev_start(problem, small)
    found = None if start is None else _begun(problem, small, start, 1e-2)
    if found is None or not (found.arrived and found.outcome):
        return points
    ((a, b),) = problem.intervals
    middle, half = (a + b) / 2, (b - a) / 2
    known = np.array([float((x - middle) / half) for x in found.outcome.extrema])
    even = np.linspace(0, np.pi, len(known))
    moved = (np.arccos(np.clip(-known, -1, 1)) - even) * (len(known) - 1)
    places = np.linspace(0, np.pi, len(points))
    places += np.interp(places, even, moved) / (len(points) - 1)
    inner = [(middle - half * arb(float(np.cos(place)))).mid() for place in places[1:-1]]
    return [a, *inner, b] if np.all(np.diff(places) > 0) else points


_LARGEST_PROGRAM = 60  # degrees; linear programs and continuations of larger types take minutes
_LARGEST_FAMILY = 20  # and the exchange of single points, of which many are needed


def zero_alternates(problem: Problem, m: int) -> Outcome | None:
    """The zero function, the least of m + 2 alternating peaks of w f its level: a bound for all p/q, deg p <= m.

    Args:
        problem: what is solved, without changes of sign of q.
        m: degree of the numerator.
    """
    if problem.sides:
        return None
    with precision(START_BITS):
        ends = [e for interval in problem.intervals for e in interval]
        level = Level(arb_poly(), arb_poly([1]), arb(0), ends, problem.frame(), START_BITS, 2 * START_BITS)
        try:
            runs, top = problem.runs(level)
        except Failure:
            return None
        peaks = thinned(runs, m + 2)
        if not peaks:
            return None
        level = replace(level, value=min((abs(e) for _, e in peaks), key=float).mid())
        return Outcome(level, top, [s for s, _ in peaks], True, [float(top)])


def _from_grid(
    problem: Problem,
    type: tuple[int, int],
    tolerance: float,
    near: Callable[[Problem, tuple[int, int]], Corrected | None] = corrected,
) -> Climb:
    """The exchange from the best function on a grid, of the type or of the smaller one that is best in it."""
    climb = Climb(problem)
    zero = zero_alternates(problem, type[0])
    if zero is not None and zero.top > 0 and zero.level.value >= zero.top * arb(1 - 1e-9):
        return Climb(problem, zero, (0, 0), "", zero.history)
    grid = near(problem, type) if sum(type) <= _LARGEST_PROGRAM else None
    if grid is None:
        climb.reason = "nothing was found on a grid"
        return climb
    m, n = type
    with precision(START_BITS):
        for k in range(min(m, n) + 1):
            points = grid.alternating(m + n + 2 - 2 * k)
            if points is None:
                continue
            try:
                start = Start(points, problem.frame(points), START_BITS)
                found = problem.exchange(start, (m - k, n - k), tolerance)
            except Failure as failure:
                climb.reason = f"type {(m - k, n - k)} from the best on a grid: {failure}"
                continue
            if k and not found.top <= arb(grid.top) * arb(1 + 1e-2):
                continue
            climb.outcome, climb.type, climb.history = found, (m - k, n - k), found.history
            if found.converged:
                return climb
        if climb.outcome is None or climb.outcome.top > arb(grid.top):
            level = grid.level(problem)
            try:
                runs, top = problem.runs(level)
            except Failure as failure:
                climb.reason = str(failure)
                return climb
            heights = thinned(runs, m + n + 2)
            value = min((abs(e) for _, e in heights), key=float) if heights else arb(0)
            level = replace(level, value=value.mid())
            climb.outcome = Outcome(level, top, [s for s, _ in heights or runs], False, [float(top)])
            climb.type = type
    return climb


def _by_multipliers(problem: Problem, type: tuple[int, int], tolerance: float) -> Climb:
    """The exchange of single points, which keeps the multipliers of a reference positive."""
    climb = Climb(problem)
    if len(problem.intervals) > 1 or problem.sides or sum(type) > _LARGEST_FAMILY:
        return climb
    ((a, b),) = problem.intervals
    middle = ((a + b) / 2).mid().fmpq()
    try:
        one = found(problem, Family.of({}, type, 1, middle), tolerance, False)
    except Failure as failure:
        climb.reason = str(failure)
        return climb
    if one.floor > 0 and not one.exact:
        climb.outcome, climb.type, climb.history = one.outcome(), type, [float(one.lam)]
    return climb


def _layered(problem: Problem, type: tuple[int, int], tolerance: float, progress: bool) -> Climb:
    """The exchange from the reference of a type with a degree less, and one more point close to an end of an interval.

    There a zero and a pole just beyond the end make the error turn within a layer that is too thin to be met otherwise.
    """
    m, n = type
    climb = Climb(problem)
    if sum(problem.side(e) < 0 for interval in problem.intervals for e in interval):
        return climb
    for mu, nu in ((m, n - 1), (m - 1, n)):
        if min(mu, nu) < 0:
            continue
        below = _walk(problem, [(mu - k, nu - k) for k in range(min(mu, nu), -1, -1)], tolerance, progress)
        if below.outcome is None or below.type != (mu, nu) or below.outcome.exact:
            continue
        for a, b in problem.intervals:
            for share in _LAYERS:
                for place in (a + (b - a) * arb(share), b - (b - a) * arb(share)):
                    points = _ordered([*below.outcome.extrema, place.mid()])
                    if len(points) == m + n + 2:
                        with precision(START_BITS):
                            start = Start(points, problem.frame(points), START_BITS)
                        found = _begun(problem, type, start, tolerance)
                        if found.arrived:
                            return found
    return climb


def _ordered(points: list[arb]) -> list[arb]:
    return [x for _, x in sorted({float(x): x for x in points}.items())]


def _narrowed(problem: Problem) -> tuple[Callable[[float], Problem], float]:
    """Stages in which the gaps narrow from a fifth of their neighbours, by factors of 3 a step at most."""
    edges = [e for interval in problem.intervals for e in interval]
    gaps = list(zip(edges[1:-1:2], edges[2:-1:2], strict=True))
    # a gap may take a fifth of either neighbour
    room = [min((b - a) / 5, (d - c) / 5, key=float) for (a, b), (c, d) in pairwise(problem.intervals)]
    widest = max(float(r / (c - b)) for r, (b, c) in zip(room, gaps, strict=True))
    steps = max(1, int(np.ceil(np.log(max(widest, 1.0)) / np.log(3.0))))

    def stage(place: float) -> Problem:
        inner = []
        for (b, c), r in zip(gaps, room, strict=True):
            more = (r * arb(float(r / (c - b))) ** -place).mid() if place < 1 and r > c - b else arb(0)
            inner += [(b - more).mid(), (c + more).mid()]
        ends = [edges[0], *inner, edges[-1]]
        return replace(problem, intervals=list(zip(ends[::2], ends[1::2], strict=True)))

    return stage, 1 / steps


_FEATURE, _NARROW = 3, 0.02  # turns and bends that make a feature; of the interval, its width that is narrow
_LAYERS = (1e-3, 1e-6)  # of an interval, the widths of layers that are tried
_SHORTEST = 1 / 32  # of the interval, where a continuation in the domain begins


def _lengthened(problem: Problem, at_right: bool) -> Callable[[float], Problem]:
    """Stages in which one interval grows from one of its ends."""
    ((a, b),) = problem.intervals

    def stage(place: float) -> Problem:
        length = (b - a) * arb(_SHORTEST) ** arb(1 - place)
        ends = ((b - length).mid(), b) if at_right else (a, (a + length).mid())
        return replace(problem, intervals=[ends])

    return stage


def _widened(problem: Problem) -> tuple[Callable[[float], Problem], float] | None:
    """Stages in which one interval grows from about a narrow feature, to twice its size a step; None without one."""
    marks = problem.landmarks
    if len(problem.intervals) > 1 or len(marks) < _FEATURE:
        return None
    ((a, b),) = problem.intervals
    bends = zip(marks, marks[_FEATURE - 1 :], strict=False)
    low, high = min(bends, key=lambda pair: float(pair[1] - pair[0]))
    if not high - low < (b - a) * arb(_NARROW):
        return None
    centre, reach = ((low + high) / 2).mid(), ((high - low) * 4).mid()
    steps = int(np.ceil(np.log2(float((b - a) / reach))))

    def stage(place: float) -> Problem:
        def end(far: arb) -> arb:
            off = abs(far - centre)
            near = (off * (reach / off) ** arb(1 - place)).mid() if off > reach else off
            return (centre - near if far < centre else centre + near).mid()

        return replace(problem, intervals=[(end(a), end(b))])

    return stage, 1 / steps


def _weighted(problem: Problem) -> Callable[[float], Problem]:
    """Stages in which the weight grows from 1, by powers of it."""
    weight = problem.weight

    def stage(place: float) -> Problem:
        def power(points: list[arb]) -> list[arb]:
            return [(w ** arb(place)).mid() for w in weight(points)] if weight else []

        return replace(problem, weight=power if place > 0 else None)

    return stage


def _followed(
    problem: Problem,
    type: tuple[int, int],
    stage: Callable[[float], Problem],
    step: float,
    tolerance: float,
    progress: bool,
) -> Climb:
    """Continuation: solve an easy problem, stage(0), then harder ones up to the problem itself, stage(1).

    Each reference is extrapolated from the last two. The steps shrink where they fail.
    """
    m, n = type
    with precision(START_BITS):
        easy = stage(0.0)
        for path in ([(m - k, n - k) for k in range(min(m, n), -1, -1)], [(m, k) for k in range(n + 1)]):
            climb = _walk(easy, path, 0.05, progress)
            if climb.type == (m, n):
                break
        else:
            return replace(climb, problem=easy)
        climb.problem, climb.met = easy, []  # what the walk met says nothing about the problem itself
        known: list[tuple[float, list[np.ndarray]]] = []
        place, tries = 0.0, 0
        while place < 1:
            assert climb.outcome is not None
            if not known or known[-1][0] < place:
                known.append((place, places_of(climb.problem, climb.outcome.extrema)))
            new = 1.0 if place + step > 1 - 1e-9 else place + step
            current = problem if new == 1 else stage(new)
            found = None
            for guess in guesses(known, new):
                with suppress(Failure):
                    points = separated(placed(current, guess), current)
                    start = Start(points, current.frame(points), START_BITS)
                    found = current.exchange(start, type, tolerance if new == 1 else 0.05)
                    break
            tries += 1
            if found is None:
                step /= 2
                if step < 1 / 64 or tries > 60:
                    climb.reason = f"continuation lost the alternation at {place:.2f} of the way"
                    climb.type = (-1, -1)
                    if climb.problem.weight is problem.weight:
                        # a part of the domain, whose best error is no larger; known to 1e-6 of it on the way
                        climb.bound = abs(climb.outcome.level.value) * arb(1 - 1e-5)
                    return climb
                continue
            place, step = new, 1.5 * step
            climb.outcome, climb.problem = found, current
            climb.history += found.history
    return climb


_NEAR = 0.1  # of what no function is below, where a walk need not go on


def _walk(problem: Problem, path: list[tuple[int, int]], tolerance: float, progress: bool) -> Climb:
    """Climb along a path of types, each reference stretched to be a start for the next.

    Steps grow while they succeed; after a failure the next smaller or the next larger type is tried, because
    single types can be out of reach (a pole in a gap, a degenerate best approximation).
    """
    climb, at, step, bits, last = Climb(problem), -1, 1, START_BITS, len(path) - 1
    references: list[list[arb]] = []
    frame = problem.frame()
    with (
        precision(bits),
        tqdm(total=last + 1, desc="minimax", disable=not progress, leave=False, delay=2) as bar,
    ):
        while at < last:
            found, k = None, at
            far = min(at + step, last)
            if far < last < at + 2 * step:  # two steps to go: equally long ones by ratio
                far = int((at * last) ** 0.5)
            for k in dict.fromkeys([far, *range(at + 1, min(at + 4, last) + 1)]):
                count = sum(path[k]) + 2
                for points in starts(problem, references, count):
                    try:
                        start = Start(points, frame, bits)
                        found = problem.exchange(start, path[k], tolerance if k == last else 0.05)
                        break
                    except Failure as failure:
                        climb.reason = f"type {path[k]}: {failure}"
                if found:
                    break
            if not found:
                return climb
            climb.history += found.history
            step = k + 1 if k == far else 1
            bar.update(k - at)
            climb.outcome, climb.type, at, bits = found, path[k], k, found.level.bits
            climb.met.append((path[k], found))
            references.append(found.extrema)
            frame = problem.frame(found.extrema)
            if found.exact or found.top <= arb(problem.least) * arb(1 + _NEAR):
                break
    return climb
