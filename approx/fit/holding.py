"""The form in which a fit is held: the one whose rounding leaves the error as it is, with the fewest bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from flint import arb, fmpq, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.fit.error import measured_error
from approx.rational import Rational
from approx.target import Target


def poles_inside(rational: Rational) -> bool:
    """Whether a function has a real pole in the convex hull of its domain.

    Args:
        rational: the function.
    """
    low, high = rational.hull
    return any(p.imag == 0 and low <= p.real <= high for p in rational.poles())


def held(
    num: fmpq_poly, den: fmpq_poly, target: Target, reference: np.ndarray, limit: float, bits: int = 53
) -> tuple[Rational, float]:
    """num/den in the form, and with the fewest bits, that keep the error below a limit.

    Args:
        num: numerator.
        den: denominator.
        target: the function to approximate.
        reference: points where its error peaks.
        limit: the error that is allowed.
        bits: the fewest bits of a parameter.

    Returns:
        The function, and its error.
    """
    x = np.concatenate([np.linspace(a, b, 201) for a, b in target.domain])
    rounding = 4 * np.finfo(float).eps * float(np.max(np.abs(target(x))))
    low, high = map(dyadic, target.hull)
    middle, half = (low + high) / 2, (high - low) / 2
    centre, last = centred(den, target), np.inf

    def forms_by_cost() -> Iterator[list[tuple[str, fmpq, fmpq | None]]]:
        if den.degree() > 0:
            # rounded partial fractions have a numerator of degree n - 1 at least
            simple = num.degree() >= den.degree() - 1 and den.gcd(den.derivative()).degree() == 0
            yield [("partial_fractions", centre, None)] if simple else []
            yield [("factored", centre, None)]
        yield [("chebyshev", middle, half)]
        yield [("barycentric", fmpq(0), None)] if den.degree() > 0 else []

    while True:
        candidates: list[tuple[float, Rational]] = []
        for order, forms in enumerate(forms_by_cost()):
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


def centred(den: fmpq_poly, target: Target) -> fmpq:
    """The origin that keeps digits where they are needed: the special point nearest to the closest pole.

    Args:
        den: denominator.
        target: the function to approximate.
    """
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
