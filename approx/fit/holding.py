"""The form in which a fit is held: the one whose rounding leaves the error as it is, with the fewest bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from flint import arb, fmpq, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.fit.error import measured
from approx.forms import Chebyshev
from approx.rational import Rational
from approx.target import Target

_MAX_BITS = 1 << 11  # of a parameter


_LARGE = 60  # degree
_Choice = tuple[str, fmpq, fmpq | None]  # form, centre, scale


def poles_inside(rational: Rational) -> bool:
    """Whether a function has a real pole in the convex hull of its domain.

    Args:
        rational: the function.
    """
    low, high = rational.hull
    form = rational.form
    if isinstance(form, Chebyshev):
        whole = (
            rational.centre - rational.scale <= dyadic(low),
            dyadic(high) <= rational.centre + rational.scale,
        )
        # |T_k| <= 1 there: the constant term outweighs the others
        if all(whole) and abs(form.den[0]) > sum(map(abs, form.den[1:]), fmpq(0)):
            return False
    return any(p.imag == 0 and low <= p.real <= high for p in rational.poles())


def held(
    num: fmpq_poly,
    den: fmpq_poly,
    target: Target,
    reference: np.ndarray,
    limit: arb,
    least: arb,
    bits: int = 53,
) -> tuple[Rational, arb]:
    """num/den in the form, and with the fewest bits, that keep the error below a limit.

    Args:
        num: numerator.
        den: denominator.
        target: the function to approximate.
        reference: points where its error peaks.
        limit: the error that is allowed.
        least: that of num/den.
        bits: the fewest bits of a parameter.

    Returns:
        The function, and its error.
    """
    x = np.concatenate([np.linspace(a, b, 101) for a, b in target.domain])
    weight = np.broadcast_to(np.asarray(target.weight_at(x), dtype=float), x.shape)
    size = arb(float(np.max(np.abs(weight * target(x)))))
    rounding = 4 * np.finfo(float).eps * float(size)
    # so few bits round the function by more than the limit
    spread = arb(max(num.degree(), den.degree(), 2)) / 128
    while bits < _MAX_BITS and least > 0 and limit - least < spread * size * arb(2) ** -bits:
        bits *= 2
    low, high = map(dyadic, target.hull)
    middle, half = (low + high) / 2, (high - low) / 2
    large = max(num.degree(), den.degree()) > _LARGE
    clustered = _cluster(reference, target) if large else None
    centre = (
        centred(den, target) if not large else dyadic(_middle(target) if clustered is None else clustered)
    )
    last, near = arb("inf"), reference[:: max(1, len(reference) // 150)]

    def forms_by_cost() -> Iterator[list[_Choice]]:
        series: list[_Choice] = [("chebyshev", middle, half)]
        factors: list[_Choice] = [("factored", centre, None)]
        if large and clustered is None:
            yield series
        if den.degree() > 0:
            # rounded partial fractions have a numerator of degree n - 1 at least
            simple = num.degree() >= den.degree() - 1 and den.gcd(den.derivative()).degree() == 0
            parts: list[_Choice] = [("partial_fractions", centre, None)] if simple else []
            yield from ([factors, parts] if large else [parts, factors])
        if not (large and clustered is None):
            yield series
        # about 0 x has the digits that its distance from the middle has lost
        yield [("monomial", fmpq(0), None)]

    while True:
        candidates: list[tuple[float, Rational]] = []
        # at high degrees roots take longest, and the rounding of so many terms adds up
        for k, forms in enumerate(forms_by_cost()):
            for form, at, scale in forms:
                r = Rational.from_exact(num, den, target.domain, form, bits, centre=at, scale=scale)
                step = 1 if len(r.form.parameters()) < 100 else 8
                candidates.append((_float64_noise(r, x[::step], weight[::step]), r))
            # the last two take long at high degrees: only where the first two are useless
            if candidates and min(c[0] for c in candidates) <= rounding * (100 if large or k else 2):
                break
        found: list[tuple[arb, Rational]] = []
        quiet = min(noise for noise, _ in candidates)
        for noise, r in sorted(candidates, key=lambda c: c[0]):
            found.append((measured(r, target, near, count=64, most=40), r))
            # what float64 spoils is taken where no form with more bits is better
            spoilt = bits <= 53 and noise > max(100 * quiet, float(limit))
            if found[-1][0] <= limit and not spoilt:
                return r, found[-1][0]
        # where the target is rational itself, its own coefficients need not be dyadic: float64 is close
        # enough
        lowest = min(error for error, _ in found)
        if bits > _MAX_BITS or limit == 0 or lowest > last * arb(1 - 1e-12):
            return found[0][1], found[0][0]
        bits, last = 2 * bits, lowest


def notes_on_bits(rational: Rational, target: Target, x: np.ndarray, error: float, bits: int) -> list[str]:
    """What is to be said of a function that float64 does not hold, or does not evaluate.

    Args:
        rational: the function.
        target: the function to approximate.
        x: points where its error peaks.
        error: its error.
        bits: how many a parameter was to have.
    """
    notes = []
    if rational.bits > bits:
        notes.append(f"float64 parameters would raise the error: held with {rational.bits} bits")
    with np.errstate(all="ignore"):
        weight, values = target.weight_at(x), target(x)
        off = float(np.max(np.abs(weight * (values - rational(x))), initial=0.0))
        size = float(np.max(np.abs(weight * values), initial=0.0))
    if not off <= 2 * error + 1e-14 * size:
        notes.append(f"evaluated on float64 arrays its error is {off:.1e}: take flint.arb and more bits")
    return notes


def _middle(target: Target) -> float:
    low, high = target.hull
    return 0.0 if low <= 0 <= high else (low + high) / 2


def _cluster(reference: np.ndarray, target: Target) -> float | None:
    """The special point nearest to where a reference clusters, as the poles do; None if it does not."""
    low, high = target.hull
    gaps = np.diff(reference)
    # Chebyshev points are that close at the ends
    if not len(gaps) or gaps.min() > 0.1 * (high - low) / len(gaps) ** 2:
        return None
    return min(_special(target), key=lambda place: abs(place - reference[int(np.argmin(gaps))]))


def _special(target: Target) -> list[float]:
    low, high = target.hull
    return [0.0, low, high, (low + high) / 2, *target.breaks, *((b + c) / 2 for b, c in target.domain.gaps)]


def _float64_noise(r: Rational, x: np.ndarray, weight: np.ndarray) -> float:
    """How far evaluation in float64 is from the truth, weighted: what decides between two forms."""
    with precision(128 + r.bits):
        truth = np.array([float(r(arb(float(s)))) for s in x])
    return float(np.max(weight * np.abs(r(x) - truth)))


def centred(den: fmpq_poly, target: Target) -> fmpq:
    """The origin that keeps digits where they are needed: the special point nearest to the closest pole.

    Args:
        den: denominator.
        target: the function to approximate.
    """
    low, high = target.hull
    poles = (
        Rational.from_exact(den * 0 + 1, den, target.domain, "monomial", 53).poles()
        if den.degree() > 0
        else []
    )
    distance = [abs(p - np.clip(p.real, low, high)) for p in poles]
    if not distance or min(distance) > 0.05 * (high - low):
        return dyadic(_middle(target))
    nearest = poles[int(np.argmin(distance))]
    return dyadic(min(_special(target), key=lambda place: abs(place - nearest)))
