"""Best approximation with pinned values: r = s + z R, s the polynomial through the pins, R best for (f - s)/z.

p - s q = z p_1 needs deg s + n <= m. Then r runs through all functions of the type with these values, as R runs through
those of type (m - k, n), k the number of conditions; the weight of R's problem is |z| w.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_poly

from approx.domain import Domain
from approx.dyadic import dyadic, precision
from approx.fit.error import honest_error, measured_error
from approx.fit.result import Fit, Verdict
from approx.forms import horner
from approx.rational import Rational
from approx.target import Target

Solve = Callable[[Target, tuple[int, int]], Fit]

_NEAR = 1e-6  # |z| around a pin, in units of the domain's length: there the error stays far below the largest
_MISMATCH = 1e-9  # how far a pinned value may be from the target's, relatively: a rounded value


def through_pins(
    target: Target,
    type: tuple[int, int],
    pinned: Mapping[float, Any],
    solve: Solve,
    bits: int,
    tolerance: float,
) -> Fit:
    """The best approximation among those with given values.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        pinned: {x: y}, or {x: (y, y', y''/2, ...)}: Taylor coefficients there.
        solve: the fitter of R.
        bits: to how many bits the coefficients of s are rounded.
        tolerance: relative excess of the error over the bound at which it counts as best.

    Returns:
        The fit; r passes through the pins exactly, up to the rounding of s.

    Raises:
        ValueError: for malformed pins, too many of them for the type, or a pin in the domain that is not a value of
            the target.
    """
    m, n = type
    pins = {float(x): [dyadic(v) for v in np.atleast_1d(y).tolist()] for x, y in pinned.items()}
    if not pins or not all(pins.values()):
        raise ValueError("pinned= is empty: expected {x: y}, or {x: (y, y', y''/2, ...)}")
    s, z = _interpolated(pins)
    count = z.degree()
    if count > m or max(s.degree(), 0) + (n if s else 0) > m:
        needed = max(count, s.degree() + n if s else 0)
        raise ValueError(
            f"pinned=: {count} conditions need a numerator of degree {needed} or more for n = {n}"
        )
    held_s = Rational.from_monomial([dyadic(c, 2 * bits) for c in s.coeffs()] or [0], [1], target.domain)
    s = held_s.form.exact()[0]
    # as factors, so that z is 0 at the pins in every arithmetic
    roots = [x for x, values in pins.items() for _ in values]
    held_z = Rational.from_factored(1, roots, [], target.domain)
    _check(target, pins)
    inner = solve(_quotient(target, s, z, held_z, pins), (m - count, n))
    # r = s + z R, evaluated so: exact at the pins
    rational = (held_s + held_z * inner.rational).with_domain(target.domain)
    error = honest_error(rational, target, measured_error(rational, target, inner.reference), inner.reference)
    verdict = inner.verdict
    if (
        verdict.converged
        and verdict is not Verdict.EXACT
        and error > inner.levelled * (1 + max(1e-8, tolerance))
    ):
        verdict = Verdict.LOST if target.enclosed else Verdict.ROUNDING
    where = ", ".join(f"{x:g}" for x in pins)
    detail = "; ".join(part for part in (f"pinned at {where}", inner.detail) if part)
    return replace(
        inner,
        rational=rational,
        error=max(error, inner.levelled),
        target=target,
        type=type,
        verdict=verdict,
        detail=detail,
    )


def _interpolated(pins: dict[float, list[fmpq]]) -> tuple[fmpq_poly, fmpq_poly]:
    """Hermite's polynomial through the pins, and the monic polynomial that vanishes there."""
    s, z = fmpq_poly(), fmpq_poly([1])
    for x, values in pins.items():
        at, power = fmpq_poly([dyadic(x), 1]), fmpq_poly([-dyadic(x), 1])
        for k, value in enumerate(values):
            # what is missing in the k-th Taylor coefficient, in units of that of z
            missing = (value - s(at)[k]) / z(at)[k]
            s, z = s + missing * z, z * power
    return s, z


def _check(target: Target, pins: dict[float, list[fmpq]]) -> None:
    inside = [x for x in pins if bool(target.domain.contains(x))]
    x = np.concatenate([np.linspace(a, b, 101) for a, b in target.domain])
    size = float(np.max(np.abs(target(x))))
    for place in inside:
        own, given = float(np.asarray(target(np.array([place])))[0]), float(arb(pins[place][0]))
        if not abs(own - given) <= _MISMATCH * max(size, abs(given)):
            raise ValueError(
                f"pinned=: the value {given!r} at x = {place!r} is not the target's, {own!r}; inside the domain a pin "
                "has to be a value of the target"
            )


def _quotient(
    target: Target, s: fmpq_poly, z: fmpq_poly, held_z: Rational, pins: dict[float, list[fmpq]]
) -> Target:
    """(f - s)/z with the weight |z| w, on the domain without the closest neighbourhood of the pins in it."""
    domain = target.domain
    for x, values in pins.items():
        near = _NEAR ** (1 / len(values)) * target.domain.length
        if any(a - near < x < b + near for a, b in domain):
            domain = domain.without(x - near, x + near)
    plain = target.with_weight(None)
    s_coefficients = [float(arb(c)) for c in s.coeffs()] or [0.0]

    def enclose(x: Any) -> Any:
        return (plain(x) - horner(s.coeffs() or [fmpq(0)], x)) / horner(z.coeffs(), x)

    def floats(x: Any) -> Any:
        x = np.asarray(x, dtype=float)
        value = (np.asarray(plain(x)) - np.polynomial.polynomial.polyval(x, s_coefficients)) / held_z(x)
        near = np.logical_or.reduce([np.abs(x - pin) < 0.05 * target.domain.length for pin in pins])
        if plain.enclosed and np.any(near):  # float64 sees its own cancellation there
            with precision(256):
                value[near] = [float(enclose(arb(float(v)))) for v in x[near]]
        return value

    def weight(x: Any) -> Any:
        return np.abs(held_z(x)) * np.asarray(target.weight_at(x))

    breaks = [x for x in target.breaks if any(a < x < b for a, b in domain)]
    return Target(
        floats,
        Domain(domain),
        weight,
        kinks=[x for x in target.kinks if x in breaks],
        jumps=[x for x in target.jumps if x in breaks],
        name=target.name,
        enclose=enclose if target.enclosed else None,
    )
