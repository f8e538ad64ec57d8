"""`minimax`: the best rational approximation of a given type, by the exchange in arbitrary precision.

What is added to the exchange (`exchange.py`): reduction by symmetry (`symmetry.py`), the climb in degree that
finds a start (`climb.py`), and here the choice of a form whose rounding leaves the error as it is, and the
verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
from flint import arb, arb_poly, fmpq, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.fit.climb import climbed
from approx.fit.error import errors, honest_error, measured_error
from approx.fit.exchange import Failure
from approx.fit.polynomial import Polynomial, polynomial
from approx.fit.result import Fit, Verdict, check_target, check_type
from approx.fit.symmetry import Reduced, Symmetry, by_symmetry, mirrored, plain
from approx.forms import Chebyshev
from approx.rational import Rational
from approx.target import Target, check_kind
from approx.zeros import Zero, divided, divided_rational, multiplied, zeros_of

_LARGEST_EXPANSION = 700  # degree; above, the expansions of arbitrary precision take minutes


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

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        tolerance: the exchange stops when the largest error exceeds the levelled error by this share of it.
        poles: "free" admits no real pole in the convex hull of the domain. "allow_in_gaps" also tries every
            way in which the denominator can change sign across the gaps of the domain, and returns the
            smallest error.
        progress: show a progress bar.

    Raises:
        ValueError: for a malformed type, policy or tolerance, and RuntimeError when no levelled function was
            found. Source: the exchange of Remez (1934) for rationals (Werner 1962), in the form of Filip,
            Nakatsukasa, Trefethen and Beckermann (2018).
    """
    m, n = check_type(type)
    if poles not in ("free", "allow_in_gaps"):
        raise ValueError(f"poles={poles!r}: expected 'free' or 'allow_in_gaps'")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} must lie in (0, 1)")
    check_kind(target)
    zeros = zeros_of(target) if target.weight == "relative" else ()
    if zeros:
        return _through_zeros(target, (m, n), zeros, tolerance, poles, progress)
    check_target(target)
    patience = 16 if m + n <= 16 else 3
    fit = _descended(target, (m, n), tolerance, progress, {}, patience)
    if poles == "allow_in_gaps":
        for sides in product((1, -1), repeat=len(target.domain) - 1):
            if -1 in sides and sum(a != b for a, b in pairwise((1, *sides))) <= n:
                with suppress(RuntimeError):
                    other = _fit(
                        target, (m, n), by_symmetry(target, (m, n), (1, *sides)), tolerance, progress
                    )
                    if other.error < fit.error or (other.converged and not fit.converged):
                        fit = other
    return fit


def _through_zeros(
    target: Target,
    type: tuple[int, int],
    zeros: tuple[Zero, ...],
    tolerance: float,
    poles: str,
    progress: bool,
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
    fit = minimax(g, (m - total, n), tolerance=tolerance, poles=poles, progress=progress)
    limit = max(fit.error * (1 + max(1e-9, tolerance)), 0.0)
    bits = max(53, fit.rational.bits if fit.rational.bits > 64 else 53)
    while True:
        whole = multiplied(fit.rational, zeros, bits)
        quotient = divided_rational(whole, zeros)
        error = np.inf if quotient is None else measured_error(quotient, g, fit.reference, count=64)
        if error <= limit or bits > 1 << 10:
            break
        bits *= 2
    verdict = fit.verdict if error <= limit * (1 + 1e-8) else Verdict.LOST
    detail = "; ".join(part for part in (f"it vanishes with the target at {where}", fit.detail) if part)
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
    tolerance: float,
    progress: bool,
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
    near: np.ndarray = np.zeros(0)
    if type[1] == 0:
        direct = polynomial(target, type[0])
        fit = _direct(target, type[0], direct, tolerance)
        if fit.converged or type[0] > _LARGEST_EXPANSION:
            known[type] = fit
            return fit
        near = direct.reference if direct.top - direct.level < 0.5 * direct.top else near
    reduced = by_symmetry(target, type) if not len(near) else plain(target, type)
    try:
        other = _fit(target, type, reduced, tolerance, progress, near)
        fit = other if fit is None or other.converged or other.error < fit.error else fit
    except RuntimeError as failure:
        known[type] = failure
    if reduced.symmetry is not Symmetry.NONE and (
        fit is None or (not fit.converged and fit.error > fit.levelled * (1 + 1e-6))
    ):
        # the symmetry held to the digits that were looked at, and not beyond
        with suppress(RuntimeError):
            other = _fit(target, type, plain(target, type), tolerance, progress)
            fit = other if fit is None or other.converged or other.error < fit.error else fit
    close = fit is not None and (fit.verdict is Verdict.ROUNDING or fit.error <= fit.levelled * (1 + 1e-6))
    if fit is None or not (fit.converged or close or patience == 0):
        m, n = type
        for smaller in ((m, n - 1), (m - 1, n)):
            if min(smaller) >= 0:
                with suppress(RuntimeError):
                    other = _descended(target, smaller, tolerance, progress, known, max(patience - 1, 0))
                    if fit is None or other.error < fit.error:
                        detail = f"it has type {other.rational.type}"
                        floor = 0.0 if fit is None else min(fit.levelled, other.error)
                        best = other.error <= floor * (1 + max(1e-9, tolerance))
                        verdict = Verdict.DEGENERATE if best else Verdict.SMALLER
                        fit = replace(other, type=type, verdict=verdict, levelled=floor, detail=detail)
    if fit is None:
        failure = known[type]
        assert isinstance(failure, RuntimeError)
        raise failure
    known[type] = fit
    if fit.verdict is Verdict.ROUNDING and patience:
        fit = known[type] = _hit(
            fit, lambda smaller: _descended(target, smaller, tolerance, progress, known, 0)
        )
    return fit


def _hit(fit: Fit, fitted: Callable[[tuple[int, int]], Fit]) -> Fit:
    """The fit of a callable that is itself rational: a type hits it to the rounding, and no smaller one is near."""
    x = np.concatenate([np.linspace(a, b, 201) for a, b in fit.target.domain])
    rounding = 64 * np.finfo(float).eps * float(np.max(np.abs(fit.target.weight_at(x) * fit.target(x))))
    levels = [level for level in fit.history if level > 1e3 * rounding]
    if fit.error > rounding or (levels and levels[-1] < 1e6 * rounding):
        return fit
    found, moved = fit, True
    while moved:
        (m, n), moved = found.type, False
        smaller = [(i, j) for i, j in ((m - 1, n - 1), (m - 1, n), (m, n - 1)) if min(i, j) >= 0]
        for type in smaller:
            with suppress(RuntimeError):
                other = fitted(type)
                if other.error <= rounding:
                    found, moved = other, True
                    break
                if other.error < 1e6 * rounding:
                    return fit  # the errors fall by and by: a smooth function, not a rational one
    return replace(found, type=fit.type, verdict=Verdict.EXACT, detail=f"it has type {found.type}")


def _direct(target: Target, m: int, found: Polynomial, tolerance: float) -> Fit:
    """The polynomial of the float64 exchange as a fit; its bound is what its own error proves."""
    low, high = map(dyadic, target.hull)
    coefficients = found.coefficients.copy()
    zero = float(np.max(np.abs(coefficients))) <= 1e-9 * found.level
    for parity in (0, 1):  # an even or an odd function, but for rounding
        if np.all(np.abs(coefficients[parity::2]) <= 4e-16 * np.max(np.abs(coefficients))):
            coefficients[parity::2] = 0.0
    rational = Rational.from_chebyshev(
        [0.0] if zero else coefficients, [1], target.domain, (low + high) / 2, (high - low) / 2
    )
    error = honest_error(rational, target, measured_error(rational, target, found.reference, count=64))
    signed = errors(rational, target, found.reference)
    alternates = bool(np.all(signed[1:] * signed[:-1] < 0))
    floor = float(np.min(np.abs(signed))) * (1 - 1e-14) if alternates else 0.0
    levelled = error <= floor * (1 + max(1e-9, tolerance))
    verdict = Verdict.BEST if levelled else Verdict.UNLEVELLED if target.enclosed else Verdict.ROUNDING
    detail = "it is the zero function" if zero else ""
    return Fit(
        rational,
        max(error, floor),
        found.reference,
        verdict,
        found.history,
        "minimax",
        target,
        (m, 0),
        floor,
        detail,
    )


def _fit(
    target: Target,
    type: tuple[int, int],
    reduced: Reduced,
    tolerance: float,
    progress: bool,
    known: Sequence[float] | np.ndarray = (),
) -> Fit:
    notes = (
        []
        if reduced.symmetry is Symmetry.NONE
        else [f"reduced by {reduced.symmetry.value} symmetry to type {reduced.type}"]
    )
    try:
        climb = climbed(reduced, tolerance, progress, known)
    except Failure as failure:
        raise RuntimeError(f"minimax({target!r}, {type}): {failure}") from None
    outcome = climb.outcome
    assert outcome is not None
    while outcome.exact and outcome.converged and min(climb.type) > 0:
        # a rational target: with degrees to spare p and q share factors, up to rounding
        try:
            smaller = climbed(
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
        reference = np.array([float(x) for x in mirrored(reduced, outcome.extrema)])
    if level.vanishes:
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
    error = honest_error(rational, target, error, reference)
    floor = 0.0
    if not outcome.exact and climb.problem is reduced.problem:
        floor = float(outcome.bound(climb.problem, climb.type, reduced.type)) * (1 - 1e-14)
    verdict = Verdict.BEST
    if outcome.exact:
        verdict = Verdict.EXACT if outcome.converged else Verdict.ROUNDING
    elif error > top * (1 + 10 * slack):
        verdict = Verdict.LOST if target.enclosed else Verdict.ROUNDING
        notes.append(f"the result's error is {error:.9e}, above the {top:.9e} that the exchange reached")
    elif climb.type != reduced.type:
        proven = outcome.converged and floor >= top * (1 - slack)
        verdict = Verdict.DEGENERATE if proven else Verdict.SMALLER
        notes.append(f"it has type {climb.type}" + ("" if proven else f", since {climb.reason}"))
    elif not outcome.converged:
        verdict = Verdict.UNLEVELLED
        notes.append(f"the error is {outcome.gap:.1e} (relative) above the levelled error")
    if not reduced.problem.sides and _poles_inside(rational):
        verdict = Verdict.POLE
    if rational.bits > 53:
        notes.append(f"float64 parameters would raise the error: held with {rational.bits} bits")
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
    low, high = map(dyadic, target.hull)
    middle, half = (low + high) / 2, (high - low) / 2
    centre = _centre(den, target)
    bits, last = 53, np.inf

    def held() -> Iterator[list[tuple[str, fmpq, fmpq | None]]]:
        if den.degree() > 0:
            # rounded partial fractions have a numerator of degree n - 1 at least
            simple = num.degree() >= den.degree() - 1 and den.gcd(den.derivative()).degree() == 0
            yield [("partial_fractions", centre, None)] if simple else []
            yield [("factored", centre, None)]
        yield [("chebyshev", middle, half)]
        yield [("barycentric", fmpq(0), None)] if den.degree() > 0 else []

    while True:
        candidates: list[tuple[float, Rational]] = []
        for order, forms in enumerate(held()):
            for form, at, scale in forms:
                r = Rational.from_exact(num, den, target.domain, form, bits, centre=at, scale=scale)
                candidates.append((_float64_noise(r, x), r))
            # the last two take long at high degrees: only where the first two are useless
            if candidates and min(c[0] for c in candidates) <= rounding * (1 if order == 0 else 100):
                break
        found: list[tuple[float, Rational]] = []
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
    places += [(b + c) / 2 for b, c in target.domain.gaps]
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
