"""The largest weighted error of a given rational function: what every `Fit.error` is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from flint import arb, ctx

from approx.dyadic import precision
from approx.fit.grid import sample
from approx.landmarks import landmarks
from approx.rational import Rational
from approx.target import Target


def target_values(target: Target) -> Callable[[list[arb]], list[arb]]:
    """f on lists of exact arbs at the working precision, or at float64 for a callable without an
    enclosure.

    Args:
        target: the function to approximate.
    """
    if target.enclosed:
        return lambda points: [target(x).mid() for x in points]

    def through_floats(points: list[arb]) -> list[arb]:
        if not points:
            return []
        values = np.asarray(target(np.array([float(x) for x in points])), dtype=float)
        return [arb(float(v)) for v in np.broadcast_to(values, len(points))]

    return through_floats


def weight_values(target: Target) -> Callable[[list[arb]], list[arb]] | None:
    """The weight on lists of arbs, None for weight 1; a callable weight is evaluated in float64.

    Args:
        target: the function to approximate.
    """
    if target.weight is None:
        return None
    if not callable(target.weight):
        f = target_values(target)
        return lambda points: [(1 / abs(v)).mid() for v in f(points)]

    def through_floats(points: list[arb]) -> list[arb]:
        values = np.asarray(target.weight_at(np.array([float(x) for x in points])), dtype=float)
        return [arb(float(v)) for v in np.broadcast_to(values, len(points))]

    return through_floats


_WIDE = 16  # times the nearer end of a bracket, the farther one: there orders of magnitude lie between


def peak(
    f: Callable[[arb], arb], x: Sequence[arb], y: Sequence[arb], tolerance: float = 1e-13
) -> tuple[arb, arb]:
    """(argmax, max) of f, bracketed by x[0] < x[1] < x[2] with y[1] highest: parabolas, safeguarded by
    bisection; in the logarithm of x where the bracket spans orders of magnitude.

    Args:
        f: the function to climb, on arbs.
        x: three ascending points.
        y: f at these points.
        tolerance: stop when a step gains less than this share.
    """
    near, far = sorted((abs(x[0]), abs(x[2])), key=float)
    if x[0] * x[2] > 0 and far > _WIDE * near:
        sign = 1 if x[0] > 0 else -1

        def back(u: arb) -> arb:
            return (sign * (sign * u).exp()).mid()

        u, top = peak(lambda u: f(back(u)), [(sign * abs(v).log()).mid() for v in x], y, tolerance)
        return back(u), top
    x, y = list(x), list(y)
    for _ in range(16):
        left, right = x[0] - x[1], x[2] - x[1]
        rise, fall = (y[0] - y[1]) / left, (y[2] - y[1]) / right
        bend = (fall - rise) / (right - left)
        step = ((rise * right - fall * left) / (left - right) / (2 * bend)).mid() if bend != 0 else arb(0)
        if not (step.is_finite() and left < step and step < right) or step == 0:
            step = ((right if right > -left else left) / 2).mid()
        new = (x[1] + step).mid()
        value = f(new)
        gain, higher = abs(value - y[1]), value > y[1]
        side = 0 if (step > 0) == bool(higher) else 2
        if higher:
            x[side], y[side], x[1], y[1] = x[1], y[1], new, value
        else:
            x[side], y[side] = new, value
        if gain <= abs(y[1]) * arb(tolerance):
            break
    return _sharper(f, x, y) if tolerance < 1e-20 else (x[1], y[1])


def _sharper(f: Callable[[arb], arb], x: list[arb], y: list[arb]) -> tuple[arb, arb]:
    """Newton's method on the slope, by differences over a third of the working precision, from a peak in a bracket."""
    best, top = x[1], y[1]
    h = ((x[2] - x[0]) * arb(2) ** (-ctx.prec // 3)).mid()
    for _ in range(10):
        below, above = f((best - h).mid()), f((best + h).mid())
        bend = above - 2 * top + below
        if not bend < 0:
            break
        new = (best - h * (above - below) / (2 * bend)).mid()
        if not (x[0] < new and new < x[2]):
            break
        value = f(new)
        if not value > top:
            break
        best, top = new, value
    return best, top


def jump_bound(target: Target) -> float:
    """A lower bound on the error of every continuous function: it cannot follow a jump, and halves it at best.

    Args:
        target: the function; what it jumps by is seen at the floats beside the place.
    """
    f, w = target_values(target), weight_values(target)
    bound = 0.0
    for c in target.jumps:
        sides = [float(np.nextafter(c, to)) for to in (-np.inf, np.inf)]
        if np.all(target.domain.contains(np.array([*sides, c]))):
            with precision(64):
                low, high = f([arb(x) for x in sides])
                left, right = w([arb(x) for x in sides]) if w else (arb(1), arb(1))
                bound = max(bound, float((abs(high - low) / (1 / left + 1 / right)).abs_lower()))
    return bound * (1 - 1e-14) if math.isfinite(bound) else 0.0


def level_in_balls(target: Target, x: np.ndarray) -> float:
    """A lower bound on max w |f - p| over points for every p of degree len(x) - 2: `level_below`, with no rounding.

    Args:
        target: the function, enclosed.
        x: distinct points, ascending.
    """
    weight = weight_values(target)
    with precision(128):
        points = [arb(float(s)) for s in x]
        w = weight(points) if weight else [arb(1)] * len(points)
        total, size = arb(0), arb(0)
        for k, point in enumerate(points):
            others = arb(1)
            for i, other in enumerate(points):
                if i != k:
                    others *= point - other
            total += target(point) / others
            size += 1 / (abs(others) * w[k])
        level = float((abs(total) / size).abs_lower())
    return max(math.nextafter(level, 0.0), 0.0) if math.isfinite(level) else 0.0


def _in_balls(rational: Rational, target: Target) -> Callable[[list[arb]], list[arb]]:
    """w (f - r) on lists of arbs, at the working precision, or more where that shows nothing but rounding."""
    f, w = target_values(target), weight_values(target)

    def at(point: arb) -> arb:
        weight = w([point])[0] if w else arb(1)
        return weight * ((target(point) if target.enclosed else f([point])[0]) - rational(point))

    def error(points: list[arb]) -> list[arb]:
        found: list[arb] = []
        for point in points:
            value, bits = at(point), ctx.prec
            while target.enclosed and value.rel_accuracy_bits() < 16 and bits < 4096 and value.is_finite():
                bits *= 4
                with precision(bits):
                    value = at(point)
            found.append(value.mid())
        return found

    return error


def errors(rational: Rational, target: Target, x: np.ndarray) -> np.ndarray:
    """w (f - r) at x, float64; computed at high precision where float64 would see little but its own rounding.

    Args:
        rational: the rational function.
        target: the function to approximate.
        x: float64 points of the domain, any shape.
    """
    with np.errstate(all="ignore"):
        values = np.asarray(target(x))
        error = np.asarray(target.weight_at(x)) * (values - rational(x))
    unseen = rational.bits > 53 or not np.max(np.abs(error)) > 1e-10 * np.max(np.abs(values))
    if target.enclosed and unseen:
        with precision(128 + rational.bits):
            error = np.array([float(e) for e in _in_balls(rational, target)([arb(float(s)) for s in x])])
    return error


def measured_error(
    rational: Rational, target: Target, near: Sequence[float] | np.ndarray = (), count: int = 2000
) -> float:
    """`measured` as a float, which is not 0 where that is below all of them.

    Args:
        rational: the rational function.
        target: the function to approximate.
        near: points around which peaks are known to be.
        count: about how many points the dense sample has.
    """
    return float_above(measured(rational, target, near, count))


def _highest(error: np.ndarray, noise: float, most: int) -> np.ndarray:
    """Indices of the samples that may be the highest once they are refined, highest first."""
    is_peak = np.r_[True, error[1:] >= error[:-1]] & np.r_[error[:-1] >= error[1:], True]
    with np.errstate(invalid="ignore"):  # both may be infinite
        peaks = np.flatnonzero(is_peak & ~(error < 0.98 * error.max() - noise))
    return peaks[np.argsort(-error[peaks])][:most]


def float_above(error: arb) -> float:
    """The nearest float64; the smallest positive one where a positive error is below it.

    Args:
        error: an error, not negative.
    """
    return max(float(error), math.ulp(0.0)) if error > 0 else 0.0


def measured(
    rational: Rational,
    target: Target,
    near: Sequence[float] | np.ndarray = (),
    count: int = 2000,
    most: int = 200,
) -> arb:
    """max |w (f - r)| over the domain: a dense sample, then the highest peaks refined in high precision.

    The value belongs to the exact function that `rational` holds, not to its evaluation in float64. `near`
    are points (such as a reference) around which peaks are known to be. It is measured, not proven:
    `approx.certify` proves.

    Args:
        rational: the rational function.
        target: the function to approximate.
        near: points around which peaks are known to be.
        count: about how many points the dense sample has.
        most: how many peaks are refined at most.
    """
    signed = _in_balls(rational, target)

    def exact(points: list[arb]) -> list[arb]:
        return [abs(e) if e.is_finite() else arb("inf") for e in signed(points)]

    x = sample(target, count, near)
    with np.errstate(all="ignore"):
        values = target(x)
        error = np.abs(np.asarray(target.weight_at(x)) * (values - rational(x)))
    error = np.where(np.isfinite(error), error, np.inf)
    noise = 1e-14 * np.max(np.abs(values))
    bits = 128 + rational.bits
    with precision(bits):
        peaks = _highest(error, noise, most)
        there = exact([arb(s) for s in x[peaks]])
        best = max(there)
        off = max(
            abs(e - arb(float(seen))) if seen < np.inf and e.is_finite() else arb(0)
            for e, seen in zip(there, error[peaks], strict=True)
        )
        # where float64 sees its own rounding, which may hide the highest peak: sample in balls
        if target.enclosed and (
            error.max() < 1e4 * noise or best < error.max() / 2 or off > best * arb(1e-3)
        ):
            balls = exact([arb(s) for s in x])
            best = max(balls)
            # in units of the largest, which may be below all floats
            error = np.array([float(e / best) if best > 0 else 0.0 for e in balls])
            peaks = _highest(error, 0.0, most)
        corners = {*target.domain.edges, *target.breaks}
        for i in peaks:
            if x[i] not in corners and target.enclosed:
                bracket = [arb(s) for s in x[i - 1 : i + 2]]
                top = peak(lambda s: exact([s])[0], bracket, exact(bracket), 1e-12)[1]
                best = max(best, top)
    return best


#: Where the error of a function near a pole u + iv turns, at u + v t: what rounded coefficients cost does so some times
_BESIDE = np.r_[np.linspace(-2, 2, 17), -4, 4, -16, 16]


def beside_poles(rational: Rational) -> np.ndarray:
    """Points of the domain about the real parts of the poles, as dense as these are near it.

    Args:
        rational: the rational function.
    """
    poles = rational.poles()
    x = (np.real(poles)[:, None] + np.abs(np.imag(poles))[:, None] * _BESIDE).ravel()
    return x[rational.domain.contains(x)]


def honest_error(
    rational: Rational, target: Target, known: float, near: Sequence[float] | np.ndarray = ()
) -> float:
    """The error of a function whose peaks are known, after a dense look in float64 for others.

    Args:
        rational: the rational function.
        target: the function to approximate.
        known: the error at the peaks that are known.
        near: points around which more peaks may be.

    Returns:
        `known`, or the larger error that the look finds.
    """
    turns = landmarks(target)
    edges = np.unique(np.r_[turns, target.domain.edges, target.breaks])
    between = [edges[:-1] + (edges[1:] - edges[:-1]) * u for u in (0.1, 0.3, 0.5, 0.7, 0.9)]
    extra = np.concatenate([turns, *between])
    # an error of degree m + n turns about so often, wherever its peaks are; a callable may be a table with more kinks
    count = max(2000 if target.enclosed else 4000, 8 * len(near))
    x = sample(target, count, np.r_[np.asarray(near, dtype=float), extra[target.domain.contains(extra)]])
    with np.errstate(all="ignore"):
        f, r, w = target(x), rational(x), target.weight_at(x)
        error = np.abs(np.asarray(w * (f - r), dtype=float))
        noise = 64 * np.finfo(float).eps * np.asarray(np.abs(w) * (np.abs(f) + np.abs(r)), dtype=float)
    hidden = ~(error <= known * (1 + 1e-9) + noise)
    if not np.any(hidden):
        return known
    # float64 sees more than is known: its own rounding, or a peak
    if target.enclosed:
        with np.errstate(all="ignore"):  # 0/0 where the target is 0 and met
            share = np.where(hidden & np.isfinite(error), error / (known + noise), -1.0)
        lost = np.flatnonzero(~np.isfinite(error))  # to float64; some of them, evenly
        some = np.r_[np.argsort(-share)[:16], lost[:: max(1, len(lost) // 64)]]
        with precision(128 + rational.bits):
            worst = _in_balls(rational, target)([arb(s) for s in x[some].tolist()])
            if all(abs(e) <= arb(known) * arb(1 + 1e-9) for e in worst):
                return known
    return max(known, measured_error(rational, target, x[hidden][:: max(1, int(hidden.sum()) // 64)], 1000))
