"""Best approximation with pinned values: r = s + z R, s the polynomial through the pins, R best for (f - s)/z.

p - s q = z p_1 needs deg s + n <= m. Then r runs through all functions of the type with these values, as R runs through
those of type (m - k, n), k the number of conditions; the weight of R's problem is |z| w. A relative error is finite
where r vanishes with the target: r/Z, with Z the polynomial of the target's zeros, is pinned in place of r.
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
from approx.fit.result import Fit, Verdict, check_target
from approx.forms import horner
from approx.rational import Rational
from approx.target import Target
from approx.zeros import Zero, divided, factor, parted, zeros_of

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
    pins = _read(pinned)
    where = ", ".join(f"{x:g}" for x in pins)
    relative = target.weight == "relative"
    whole = parted(target) if relative else target
    zeros = zeros_of(whole) if relative else ()
    total = sum(zero.multiplicity for zero in zeros)
    left = _without(pins, zeros)
    m, n = type
    s, z = _interpolated(left)
    needed = max(z.degree(), s.degree() + n if s else 0) + total
    if needed > m:
        count = z.degree() + total
        beside = ", with those of the target's zeros," if zeros else ""
        raise ValueError(
            f"pinned=: {count} conditions{beside} need a numerator of degree {needed} or more for n = {n}"
        )
    _check(target, pins)
    plain = divided(whole, zeros) if zeros else whole
    if relative:
        check_target(plain)
    kind = (m - total, n)
    fit = _through(plain, kind, left, s, z, solve, bits, tolerance) if left else solve(plain, kind)
    rational = fit.rational
    if zeros:
        # the roots of Z as factors: r vanishes there in every arithmetic
        roots = [zero.exact for zero in zeros for _ in range(zero.multiplicity)]
        rational = Rational.from_factored(1, roots, [], whole.domain) * rational
    detail = "; ".join(part for part in (f"pinned at {where}", fit.detail) if part)
    return replace(fit, rational=rational, target=whole, type=type, detail=detail)


def _read(pinned: Any) -> dict[float, list[fmpq]]:
    expected = "expected {x: y}, or {x: (y, y', y''/2, ...)}"
    if not isinstance(pinned, Mapping):
        raise ValueError(f"pinned={pinned!r}: {expected}")
    pins = {float(x): [dyadic(v) for v in np.atleast_1d(y).tolist()] for x, y in pinned.items()}
    if not pins or not all(pins.values()):
        raise ValueError(f"pinned= is empty: {expected}")
    return pins


def _without(pins: dict[float, list[fmpq]], zeros: tuple[Zero, ...]) -> dict[float, list[fmpq]]:
    """The pins of r/Z, Z the polynomial of the zeros: none at a zero where those of r say no more than that."""
    found: dict[float, list[fmpq]] = {}
    for x, values in pins.items():
        around = factor(zeros)(fmpq_poly([dyadic(x), 1]))
        count = next(k for k, c in enumerate(around.coeffs()) if c != 0)
        if any(values[:count]):
            raise ValueError(
                f"pinned=: the target vanishes at x = {x!r}, and so must r, or its relative error is not finite"
            )
        series: list[fmpq] = []
        for k, value in enumerate(values[count:]):
            known = sum((c * around[count + k - j] for j, c in enumerate(series)), fmpq())
            series.append((value - known) / around[count])
        if series:
            found[x] = series
    return found


def _through(
    target: Target,
    type: tuple[int, int],
    pins: dict[float, list[fmpq]],
    s: fmpq_poly,
    z: fmpq_poly,
    solve: Solve,
    bits: int,
    tolerance: float,
) -> Fit:
    """The best s + z R, for a weight that is finite off the pins."""
    held_s = Rational.from_monomial([dyadic(c, 2 * bits) for c in s.coeffs()] or [0], [1], target.domain)
    s = held_s.form.exact()[0]
    # as factors, so that z is 0 at the pins in every arithmetic
    roots = [x for x, values in pins.items() for _ in values]
    held_z = Rational.from_factored(1, roots, [], target.domain)
    inner = solve(_quotient(target, s, z, held_z, pins), (type[0] - z.degree(), type[1]))
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
    return replace(inner, rational=rational, error=max(error, inner.levelled), verdict=verdict)


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
