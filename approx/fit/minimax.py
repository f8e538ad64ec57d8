"""`minimax`: the best rational approximation of a given type, by the exchange in arbitrary precision.

What is added to the exchange (`exchange.py`): reduction by symmetry (`symmetry.py`), the climb in degree that
finds a start (`climb.py`), and here the choice of a form whose rounding leaves the error as it is, and the
verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from flint import arb, arb_poly, fmpq, fmpq_poly

from approx.dyadic import dyadic, power_of_two_above, precision
from approx.family import fixed_coefficients
from approx.fit.bounded import bounded
from approx.fit.climb import climbed, zero_alternates
from approx.fit.error import (
    beside_poles,
    float_above,
    honest_error,
    measured,
    measured_error,
)
from approx.fit.exchange import Failure
from approx.fit.fixed import with_fixed
from approx.fit.formats import check_format, in_format
from approx.fit.holding import centred, held, notes_on_bits, poles_inside
from approx.fit.pinned import through_pins
from approx.fit.polynomial import LARGEST, polynomial
from approx.fit.remainder import after_float64, after_series, smooth
from approx.fit.result import Fit, Verdict, check_target, check_type
from approx.fit.samples import best_of_samples, of_rough
from approx.fit.symmetry import Reduced, Symmetry, by_symmetry, mirrored, plain
from approx.forms import Chebyshev
from approx.granularity import grain, last_place
from approx.rational import Rational
from approx.samples import Samples, opened_target
from approx.target import Target, check_kind
from approx.zeros import Zero, divided, divided_rational, known_to, multiplied, parted, zeros_of

_SMALL = 60  # degree; below, the exchange in arbitrary precision is as fast as float64's in two steps
_LARGEST_EXCHANGE = 200  # degree; above, an exchange in arbitrary precision from far away does
_ZEROS = 1e-60  # of a relative error, what rounding adds to a function that is the target
_NEAR = 1e-3  # of the error, what a smaller type could gain at most where a large one is not left for it
_QUICK = 16  # degrees in all; up to there smaller types are looked at whatever they could gain
_LARGE = 100  # degrees; above, smaller types are no way out of one that does not arrive
_EXACT = 1e-14  # of the function, the error of one that is met


@dataclass(frozen=True)
class _Goal:
    """How well a fit is to be done."""

    tolerance: float
    progress: bool
    bits: int

    @property
    def slack(self) -> float:
        """By how much, relatively, an error may exceed the bound and still count as best."""
        return max(1e-9, self.tolerance)


@precision(53)
def minimax(
    target: Target | Sequence[Any],
    type: tuple[int, int],
    *,
    tolerance: float = 1e-11,
    poles: str = "free",
    coefficients: str | int | None = None,
    pinned: Mapping[float, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    digits: int | None = None,
    progress: bool = False,
) -> Fit:
    """The best approximation r = p/q of `target` with deg p <= m and deg q <= n in the weighted maximum norm.

    Works in arbitrary precision throughout; the result is held in float64 wherever that leaves the error as
    it is, and with more bits where it does not (`fit.message` says so). A callable without `enclose=` limits
    the fit to what float64 can resolve. `fit.converged` is True only for a best approximation: enough
    alternations, levelled to `tolerance`, and no pole where none is allowed.

    Args:
        target: the function to approximate; or samples: `approx.Samples`, (x, y) or (x, y, error bars).
        type: (m, n), the degrees of numerator and denominator.
        tolerance: the exchange stops when the largest error exceeds the levelled error by this share of it.
        poles: "free" admits no real pole in the convex hull of the domain. "allow_in_gaps" also tries every
            way in which the denominator can change sign across the gaps of the domain, and returns the
            smallest error: `fit.converged` then says that it is best for its pattern of signs, `fit.levelled`
            bounds the errors of all patterns, or is 0.
        coefficients: a format, "float32", "bfloat16", "float16" or a number of bits: the result has monomial
            coefficients of that format, the best that are found, and never worse than the rounded ones.
            `fit.levelled` stays a bound for all real coefficients.
        pinned: {x: y} makes r(x) = y; {x: (y, y', y''/2, ...)} also the next Taylor coefficients there, which
            at x = 0 fixes the first coefficients of a polynomial. The error is the least among such r. With k
            conditions in all, k - 1 + n <= m is needed. `fit.levelled` bounds the errors of such r.
        fixed: {"p1": 1, "q0": 1} holds these coefficients of x^i, of the numerator p and the denominator q, exactly.
            The result is in powers of x. `fit.levelled` bounds the errors of all such p/q. (A denominator of degree
            0 is 1.)
        digits: number of right digits of the parameters, 150 at most; float64 has some 16.
        progress: show a progress bar.

    Raises:
        ValueError: for a malformed type, policy or tolerance.
        RuntimeError: when no levelled function was found.

    Source:
        The exchange of Remez (1934) for rationals (Werner 1962), in the form of Filip, Nakatsukasa, Trefethen
        and Beckermann (2018).
    """
    m, n = check_type(type)
    problem: Target = opened_target(target)
    if poles not in ("free", "allow_in_gaps"):
        raise ValueError(f"poles={poles!r}: expected 'free' or 'allow_in_gaps'")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must lie in (0, 1)")
    check_kind(problem)
    if isinstance(problem, Samples):
        if poles != "free" or any(o is not None for o in (pinned, fixed, digits, coefficients)):
            raise ValueError(
                "poles=, pinned=, fixed=, digits= and coefficients= belong to functions: a target is samples here"
            )
        return best_of_samples(problem, (m, n), tolerance)
    goal = _Goal(tolerance, progress, 53)
    if coefficients is not None:
        check_format(coefficients)
    if digits is not None:
        if not (isinstance(digits, int) and 1 <= digits <= 150 and problem.enclosed):
            raise ValueError(
                f"digits={digits!r}: expected 1 to 150, for a built-in, a formula or a target with enclose="
            )
        if coefficients is not None:
            raise ValueError(
                "digits= and coefficients= exclude each other: both say how the parameters are rounded"
            )
        goal = _Goal(min(tolerance, 10.0 ** -(digits + 8)), progress, max(53, int(3.33 * digits) + 40))
    if fixed is not None:
        if pinned is not None or poles != "free":
            raise ValueError(
                "fixed= excludes pinned= and poles=: give values as coefficients, or coefficients as values"
            )
        fit = with_fixed(problem, (m, n), fixed, goal.bits, goal.tolerance)
        return (
            fit if coefficients is None else in_format(fit, coefficients, fixed_coefficients(fixed, (m, n)))
        )
    if pinned is not None:
        fit = through_pins(
            problem, (m, n), pinned, lambda g, type: _minimax(g, type, goal, poles), goal.bits, tolerance
        )
    else:
        fit = _minimax(problem, (m, n), goal, poles)
    if coefficients is None:
        return fit
    if pinned is not None:
        raise ValueError("coefficients= and pinned= exclude each other")
    best = in_format(fit, coefficients)
    for k in range(1, max(m, n) + 1):
        # many coefficients can be harder to round than few; a smaller type may have none in the format
        with suppress(RuntimeError, ValueError):
            smaller = _minimax(problem, (max(m - k, 0), max(n - k, 0)), goal, poles)
            if smaller.error >= best.error:
                break
            other = in_format(smaller, coefficients)
            if other.error < best.error:
                detail = f"it has type {other.type}; {other.detail}"
                best = replace(other, type=(m, n), levelled=min(fit.levelled, other.error), detail=detail)
    return best


def _minimax(target: Target, type: tuple[int, int], goal: _Goal, poles: str) -> Fit:
    zeros: tuple[Zero, ...] = ()
    if target.weight == "relative":
        target = parted(target)
        zeros = zeros_of(target)
    if zeros:
        return _through_zeros(target, type, zeros, goal, poles)
    check_target(target)
    # a large type that does not arrive takes half a minute, and so does each smaller one
    patience = _QUICK if sum(type) <= _QUICK else int(sum(type) <= _LARGE)
    turns = target.weight == "relative" and len(target.domain) == 1 and target.enclosed
    early = _reciprocal(target, type, goal, patience) if turns and type[0] == 0 < type[1] else None
    if early is not None:
        return early
    fit = of_rough(target, type, goal.tolerance) or _descended(target, type, goal, {}, patience)
    if turns and not fit.converged and type[0] > 0:
        other = _reciprocal(target, type, goal, patience)
        fit = fit if other is None or other.error > fit.error * (1 + goal.slack) else other
    if poles == "allow_in_gaps":
        # a pole is no fault here: its pattern of signs is fitted, too
        bound, polar = fit.levelled, fit.verdict is Verdict.POLE
        for sides in product((1, -1), repeat=len(target.domain) - 1):
            if (polar or -1 in sides) and sum(a != b for a, b in pairwise((1, *sides))) <= type[1]:
                other = None
                with suppress(RuntimeError):
                    other = _across(target, type, (1, *sides), goal)
                # a bound belongs to one pattern of signs; without that of each there is none for all
                bound = min(bound, 0.0 if other is None else other.levelled)
                if other is not None and (
                    other.error < fit.error
                    or (
                        fit.verdict is Verdict.POLE
                        and (other.verdict is Verdict.EXACT or other.error == fit.error)
                    )
                ):
                    fit = other
        fit = replace(fit, levelled=min(bound, fit.levelled))
    return fit


def _across(target: Target, type: tuple[int, int], sides: tuple[int, ...], goal: _Goal) -> Fit:
    """The best fit whose denominator has given signs on the intervals.

    Where nothing but rounding is left, a smaller type may be the target itself: its function has degrees to spare in
    this one, and no exchange goes on from there.
    """
    fit = _fit(target, type, by_symmetry(target, type, sides), goal)
    x = np.array([v for a, b in target.domain for v in (a, (a + b) / 2, b)])
    if fit.converged or fit.error > 1e-12 * float(np.max(np.abs(target.weight_at(x) * target(x)))):
        return fit
    m, n = type
    for smaller in ((m - 1, n - 1), (m - 1, n), (m, n - 1)):
        if min(smaller) >= 0:
            with suppress(RuntimeError):
                other = _across(target, smaller, sides, goal)
                if other.verdict is Verdict.EXACT:
                    return replace(other, type=type, detail=f"it has type {other.rational.type}")
    return fit


def _reciprocal(target: Target, type: tuple[int, int], goal: _Goal, patience: int) -> Fit | None:
    """The best fit from the best R of type (n, m) for 1/f, whose relative error is the same; None without one.

    |f R - 1| <= E makes |c/(f R) - 1| <= E with c = 1 - E^2, and the other way round: errors below 1 leave R no zero.
    c = 2/(1/a + 1/b), where f R reaches from a > 0 to b, is the same, and right if E is off by much of 1 - E.
    For (0, n) the other problem is one of polynomials.
    """
    m, n = type

    def over(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return 1 / np.asarray(target(x))

    turned = Target(
        over,
        target.domain,
        "relative",
        kinks=target.kinks,
        jumps=target.jumps,
        name=f"1/{target.name}",
        enclose=lambda x: 1 / target(x),
    )
    try:
        check_target(turned)
        other = _descended(turned, (n, m), goal, {}, patience)
    except (RuntimeError, ValueError):
        return None
    if other.levelled >= 1 - goal.slack:
        zero = Rational.from_monomial([0], [1], target.domain)
        detail = "no function of the type has an error that is clearly below 1, that of the zero function"
        degenerate = Verdict.DEGENERATE
        return Fit(zero, 1.0, np.zeros(0), degenerate, [1.0], "minimax", target, type, other.levelled, detail)
    if not other.converged or other.error >= 1:
        return None
    num, den = other.rational.exact()
    # with the double of the c of a first guess a alone decides about the error
    rough = 2 * (1 - dyadic(other.error))
    whole = Rational.from_exact(rough * den, num, target.domain, "monomial", 256)
    least = rough / (1 + dyadic(measured(whole, target, other.reference, count=64)))
    scale = dyadic(2 / (1 / least + 1 / (1 + dyadic(other.error))), 128)
    rational, top = held(
        scale * den,
        num,
        target,
        other.reference,
        arb(other.error) * arb(1 + goal.slack),
        arb(other.error),
        goal.bits,
    )
    error = honest_error(rational, target, float_above(top), other.reference)
    if not error <= other.levelled * (1 + max(10 * goal.slack, 1e-8)) or poles_inside(rational):
        return None
    error = max(error, other.levelled)
    spoiled = notes_on_bits(rational, target, other.reference, error, goal.bits)
    detail = "; ".join([f"through the reciprocal, in type {(n, m)}", *spoiled])
    return replace(other, rational=rational, error=error, target=target, type=type, detail=detail)


def _through_zeros(
    target: Target,
    type: tuple[int, int],
    zeros: tuple[Zero, ...],
    goal: _Goal,
    poles: str,
) -> Fit:
    """r = z R, R the best relative approximation of g = f/z: the best r that vanishes where f does."""
    m, n = type
    total = sum(zero.multiplicity for zero in zeros)
    where = ", ".join(f"{zero.place:g}" for zero in zeros)
    if m < total:
        zero = Rational.from_monomial([0], [1], target.domain)
        detail = (
            f"the zeros of the target ({where}) need a numerator of degree {total}: it is the zero function"
        )
        return Fit(zero, 1.0, np.zeros(0), Verdict.DEGENERATE, [1.0], "minimax", target, type, 1.0, detail)
    g = divided(target, zeros)
    fit = _minimax(g, (m - total, n), goal, poles)
    limit = fit.error * (1 + goal.slack)
    bits = max(goal.bits, fit.rational.bits if fit.rational.bits > 64 else 53)
    while True:
        whole = multiplied(fit.rational, zeros, bits)
        quotient = divided_rational(whole, zeros)
        error = np.inf if quotient is None else measured_error(quotient, g, fit.reference, count=64)
        if error <= limit or bits > 1 << 10:
            break
        bits *= 2
    verdict = fit.verdict if error <= limit * (1 + 1e-8) else Verdict.LOST
    if error < (_ZEROS if fit.verdict is Verdict.EXACT else max(1e-300, 64 * known_to(zeros))):
        # a rational f, whose zeros are known to so many digits: f/z is nearly one
        verdict, fit = Verdict.EXACT, replace(fit, levelled=0.0)
    notes = [f"it vanishes with the target at {where}"]
    if any(zero.beside != 0 for zero in zeros):
        notes.append(
            "a zero that is no float64 lies between two of them; all float64 numbers of the domain are in it"
        )
    detail = "; ".join(part for part in (*notes, fit.detail) if part)
    return replace(
        fit,
        rational=whole,
        error=max(error, fit.levelled),
        target=target,
        type=type,
        verdict=verdict,
        detail=detail,
    )


def _descended(
    target: Target,
    type: tuple[int, int],
    goal: _Goal,
    known: dict[tuple[int, int], Fit | RuntimeError],
    patience: int,
) -> Fit:
    """The best approximation, or, where it is not reached, the best that was met in this or a smaller type."""
    if type in known:
        found = known[type]
        if isinstance(found, RuntimeError):
            raise found
        return found
    fit: Fit | None = None
    start: np.ndarray = np.zeros(0)
    reduced = by_symmetry(target, type)
    # one interval of half the degree, where a reference of both would have a point too few
    halved = len(target.domain) > 1 and reduced.symmetry is not Symmetry.NONE
    if type[1] == 0 and goal.bits == 53:
        fit, settled, start = _polynomials(target, type[0], goal)
        size = float(np.max(np.abs(target.weight_at(fit.reference) * target(fit.reference))))
        far = fit.error > max(1e-10 * size, fit.levelled * (1 + 1e-6)) and not (settled or halved)
        if fit.converged or type[0] > (_LARGEST_EXCHANGE if far else LARGEST):
            known[type] = fit
            return fit
    reduced = reduced if halved or not len(start) else plain(target, type)
    try:
        other = _fit(target, type, reduced, goal, start)
        fit = other if fit is None or other.converged or other.error < fit.error else fit
    except RuntimeError as failure:
        known[type] = failure
    if reduced.symmetry is not Symmetry.NONE and (
        fit is None or (not fit.converged and fit.error > fit.levelled * (1 + 1e-6))
    ):
        # the symmetry held to the digits that were looked at, and not beyond
        with suppress(RuntimeError):
            other = _fit(target, type, plain(target, type), goal)
            fit = other if fit is None or other.converged or other.error < fit.error else fit
    # a pole beside the domain that the error does not feel: a factor that a smaller type does without
    spare = fit is not None and fit.verdict is Verdict.POLE
    near = fit is not None and fit.error <= fit.levelled * (1 + _NEAR)
    further = 0 if near else max(patience - 1, 0)  # for those beside this type
    done = fit is not None and (
        fit.converged or patience == 0 or _rounded(fit) or (near and sum(type) > _QUICK)
    )
    if spare or not done:
        m, n = type
        for smaller in ((m, n - 1), (m - 1, n)):
            if min(smaller) >= 0:
                with suppress(RuntimeError):
                    other = _descended(target, smaller, goal, known, further)
                    if fit is None or other.error < fit.error * (1 + (goal.slack if spare else 0)):
                        detail = f"it has type {other.rational.type}"
                        floor = 0.0 if fit is None else min(fit.levelled, other.error)
                        best = other.error <= floor * (1 + goal.slack)
                        verdict = Verdict.DEGENERATE if best else Verdict.SMALLER
                        spare = False
                        if not best and floor > 0:
                            detail += f", and is within {other.error / floor - 1:.1e} (relative) of the best"
                        fit = replace(other, type=type, verdict=verdict, levelled=floor, detail=detail)
    if fit is None:
        failure = known[type]
        assert isinstance(failure, RuntimeError)
        raise failure
    known[type] = fit
    if fit.verdict is Verdict.ROUNDING and patience:
        fit = known[type] = _hit(fit, lambda smaller: _descended(target, smaller, goal, known, 0))
    return fit


def _rounded(fit: Fit) -> bool:
    """Whether the rounding of a callable is what the error is made of."""
    return fit.verdict is Verdict.ROUNDING and fit.error <= max(64 * last_place(fit.target), 2 * fit.levelled)


def _hit(fit: Fit, fitted: Callable[[tuple[int, int]], Fit]) -> Fit:
    """The fit of a callable that is itself rational: a type hits it to the rounding, and no smaller one is near."""
    rounding = 64 * last_place(fit.target)
    levels = [level for level in fit.history if level > 1e3 * rounding]
    if fit.error > rounding or (levels and levels[-1] < 1e6 * rounding):
        return fit
    found, moved = fit, True
    most = max(2 * fit.error, rounding / 16)  # no worse than the type itself: f may vary by few units in all
    while moved:
        (m, n), moved = found.type, False
        smaller = [(i, j) for i, j in ((m - 1, n - 1), (m - 1, n), (m, n - 1)) if min(i, j) >= 0]
        for type in smaller:
            with suppress(RuntimeError):
                other = fitted(type)
                if other.error <= most:
                    found, moved = other, True
                    break
                if other.error < 1e6 * rounding:
                    return fit  # the errors fall by and by: a smooth function, not a rational one
    if found.error > rounding / 16:
        return fit
    detail = f"it has type {found.type}"
    return replace(found, type=fit.type, verdict=Verdict.EXACT, levelled=0.0, detail=detail)


def _polynomials(target: Target, m: int, goal: _Goal) -> tuple[Fit, bool, np.ndarray]:
    """What the exchange in float64 reaches in a degree, whether it settled, and a reference to go on from, if any."""
    large = target.enclosed and m > _SMALL
    remainder = after_series(target, m) if large and smooth(target, m) else None
    if remainder is not None:
        fit = bounded(target, polynomial(target, m, remainder), goal.slack, remainder)
        if fit.converged:
            return fit, False, np.zeros(0)
    direct = polynomial(target, m)
    limited = direct.rest < 1e-10 * float(np.max(np.abs(direct.coefficients)))  # by the digits of float64
    fits: list[Fit] = []
    if large and direct.rest > goal.slack * direct.top and limited and not (direct.settled or direct.exact):
        remainder = after_float64(target, direct.coefficients, direct.top)
        fits.append(
            bounded(target, polynomial(target, m, remainder, direct.reference), goal.slack, remainder)
        )
    if not fits or not (fits[0].converged or fits[0].error < direct.top):
        fits.append(bounded(target, direct, goal.slack))
    fit = min(fits, key=lambda one: one.error)
    near = direct.settled or len(target.domain) > 1 or direct.top - direct.level < 0.5 * direct.top
    return fit, direct.settled, direct.reference if near else np.zeros(0)


def _fit(
    target: Target,
    type: tuple[int, int],
    reduced: Reduced,
    goal: _Goal,
    known: Sequence[float] | np.ndarray = (),
) -> Fit:
    if goal.tolerance < reduced.problem.accuracy:
        reduced = replace(reduced, problem=replace(reduced.problem, accuracy=1e-3 * goal.tolerance))
    notes = (
        []
        if reduced.symmetry is Symmetry.NONE
        else [f"reduced by {reduced.symmetry.value} symmetry to type {reduced.type}"]
    )
    try:
        climb = climbed(reduced, goal.tolerance, goal.progress, known)
    except Failure as failure:
        raise RuntimeError(f"minimax({target}, {type}): {failure}") from None
    outcome = climb.outcome
    assert outcome is not None
    while outcome.exact and outcome.converged and min(climb.type) > 0:
        # a rational target: with degrees to spare p and q share factors, up to rounding
        try:
            smaller = climbed(
                replace(reduced, type=(climb.type[0] - 1, climb.type[1] - 1)), goal.tolerance, goal.progress
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
        reference = np.array([float(x) for x in mirrored(reduced, outcome.extrema)])
    if level.vanishes:
        num, den = reduced.line, fmpq_poly([1])  # and not its rounding
    top = float_above(outcome.top)
    slack, lost, size = goal.slack, False, 0.0
    if outcome.exact:
        # its roots may be multiple but for rounding, and those of more than 53 bits take for ever to part
        size, bits = float(np.max(np.abs(target(reference)), initial=0.0)), goal.bits
        while True:
            rational = Rational.from_exact(
                num, den, target.domain, "chebyshev", bits, centre=centred(den, target)
            )
            near = np.r_[reference, beside_poles(rational)]
            error = measured_error(rational, target, near, count=64)
            plain = _cleared(rational, level.bits)
            plain_error = measured_error(plain, target, near, count=64)
            # 1e-30: both are measured to some 128 bits
            if plain_error <= max(2 * error, 1e-30 * size):
                rational, error = plain, plain_error
            # beside a pole, coefficients of float64 are not exact to float64
            if error <= _EXACT * size or 4 * bits > level.bits:
                break
            bits *= 2
    else:
        limit = outcome.top * arb(1 + slack)
        rational, least = held(num, den, target, reference, limit, outcome.top, goal.bits)
        lost = bool(least > outcome.top * arb(1 + 10 * slack))
        error = float_above(least)
    error = honest_error(rational, target, error, reference)
    floor = 0.0
    if not outcome.exact and climb.problem is reduced.problem:
        bound = outcome.bound(climb.problem, climb.type, reduced.type)
        if not outcome.converged or climb.type != reduced.type:
            zero = zero_alternates(reduced.problem, reduced.type[0])
            bound = max([bound, climb.bound, *([] if zero is None else [zero.level.value])], key=float)
        floor = float(bound) * (1 - 1e-14)
    floor = max(floor, reduced.problem.least)
    # a callable is evaluated at the float64 beside a point: what it does between two of them is not known
    beside = grain(target) * float(np.max(target.weight_at(reference), initial=0.0))
    floor = max(floor - 2 * beside, 0.0)
    floor = 0.0 if floor > error * (1 + 1e-6) else floor  # what a function contradicts is no bound
    verdict = Verdict.BEST
    if outcome.exact and error > 1e-6 * size:
        verdict = Verdict.UNLEVELLED
        notes.append("the target leaves the rational function that it is at most points")
    elif outcome.exact:
        verdict = Verdict.EXACT if outcome.converged else Verdict.ROUNDING
    elif (lost or error > top * (1 + 10 * slack)) and not error <= floor * (1 + slack):
        verdict = Verdict.LOST if target.enclosed else Verdict.ROUNDING
        notes.append(f"the result's error is {error:.9e}, above the {top:.9e} that the exchange reached")
    elif climb.type != reduced.type:
        proven = outcome.converged and floor >= max(top, error) * (1 - slack)
        verdict = Verdict.DEGENERATE if proven else Verdict.SMALLER
        notes.append(f"it has type {climb.type}" + ("" if proven else f", since {climb.reason}"))
        if not proven and floor > 0:
            notes.append(f"its error is within {error / floor - 1:.1e} (relative) of the best")
    elif not outcome.converged and (goal.bits > 53 or error > floor * (1 + slack)):
        verdict = Verdict.UNLEVELLED
        above = error / floor - 1 if floor > 0 else outcome.gap
        notes.append(f"the error is {above:.1e} (relative) above the levelled error")
    if beside > 1e-2 * error and verdict in (Verdict.BEST, Verdict.DEGENERATE):
        verdict = Verdict.ROUNDING
        notes.append(f"the target is known to {beside:.1e} (weighted)")
    if not reduced.problem.sides and poles_inside(rational):
        verdict = Verdict.POLE
    notes += notes_on_bits(rational, target, reference, error, goal.bits)
    return Fit(
        rational,
        max(error, floor),
        reference,
        verdict,
        climb.history,
        "minimax",
        target,
        type,
        floor,
        "; ".join(notes),
    )


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
    num, den = clear(rational.form.num), clear(rational.form.den)
    unit = power_of_two_above(max(map(abs, den)))  # which may have been in units of what is cleared now
    return replace(rational, form=Chebyshev(tuple(c / unit for c in num), tuple(c / unit for c in den)))
