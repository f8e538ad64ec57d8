"""Best approximation with fixed coefficients: the family that they leave, and the form in which the result is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flint import arb, fmpq, fmpq_poly

from approx.dyadic import dyadic
from approx.family import Family, fixed_coefficients, sides_of, without_factor
from approx.fit.error import float_above, honest_error, measured
from approx.fit.exchange import Failure
from approx.fit.holding import poles_inside
from approx.fit.multipliers import Found, found
from approx.fit.result import Fit, Verdict, check_target
from approx.fit.symmetry import plain
from approx.rational import Rational
from approx.target import Target
from approx.zeros import divided, zeros_of

_MAX_BITS = 1 << 11


def with_fixed(
    target: Target, type: tuple[int, int], fixed: Mapping[str, Any], bits: int, tolerance: float
) -> Fit:
    """The best approximation among those p/q with given coefficients of x^i.

    Args:
        target: the function to approximate.
        type: (m, n), the degrees of numerator and denominator.
        fixed: {"p1": 1, "q0": 1}: coefficients of the numerator and the denominator, held exactly.
        bits: the fewest bits of the others.
        tolerance: relative excess of the error over the bound at which it counts as best.

    Returns:
        The fit, in powers of x.

    Raises:
        ValueError: for malformed coefficients, or a relative error that is not finite with them.
        RuntimeError: where no function was found.
    """
    given = fixed_coefficients(fixed, type)
    low, high = target.hull
    if given.get(("q", 0)) == 0 and low <= 0 <= high:
        raise ValueError(
            "fixed=: with q0 = 0 the denominator is 0 at x = 0, which is no pole outside the domain"
        )
    shift = _zeros_at_0(target, given, type[0])
    inner = divided(target, zeros_of(target)) if shift else target
    check_target(inner)
    kind = (type[0] - shift, type[1])
    moved = without_factor(given, shift)
    middle = (dyadic(low) + dyadic(high)) / 2
    sides = sides_of(moved, low, high)
    problem = plain(inner, kind).problem
    fits: list[tuple[Found, int]] = []
    reasons: list[str] = []
    for side in sides:
        try:
            one = found(problem, Family.of(moved, kind, side, middle), tolerance, len(sides) > 1)
        except Failure as failure:
            reasons.append(str(failure))
            continue
        fits.append((one, side))
        if one.floor > 0 or one.exact:
            break
    if not fits:
        raise RuntimeError(f"minimax({target}, {type}, fixed={dict(fixed)!r}): {reasons[0]}")
    best, side = min(fits, key=lambda item: float(item[0].top))
    floor = best.floor
    scale = fmpq(side) if any(moved.values()) or best.q[0] == 0 else 1 / best.q[0]
    limit = best.top * arb(1 + max(1e-9, tolerance))

    def held(name: str, poly: fmpq_poly, degree: int, bits: int) -> list[fmpq]:
        return [moved.get((name, i), dyadic(scale * poly[i], bits)) for i in range(degree + 1)]

    while True:
        num, den = held("p", best.p, kind[0], bits), held("q", best.q, kind[1], bits)
        part = Rational.from_monomial(num, den, target.domain)
        error = measured(part, inner, best.reference, count=64)
        if error <= limit or bits > _MAX_BITS:
            break
        bits *= 2
    size = honest_error(part, inner, float_above(error), best.reference)
    verdict = Verdict.UNLEVELLED
    if best.exact:
        verdict = Verdict.EXACT if target.enclosed else Verdict.ROUNDING
    elif best.arrived and floor > 0:
        lost = Verdict.LOST if target.enclosed else Verdict.ROUNDING
        verdict = Verdict.BEST if size <= floor * (1 + max(1e-8, 10 * tolerance)) else lost
    if kind[1] > 0 and poles_inside(part):
        verdict = Verdict.POLE
    notes = ["fixed: " + ", ".join(f"{name}{i} = {float(arb(v)):g}" for (name, i), v in given.items())]
    if part.bits > 53:
        notes.append(f"float64 parameters would raise the error: held with {part.bits} bits")
    rational = Rational.from_monomial([fmpq(0)] * shift + num, den, target.domain)
    floor = 0.0 if best.exact else floor
    return Fit(
        rational,
        max(size, floor),
        best.reference,
        verdict,
        [size],
        "minimax",
        target,
        type,
        floor,
        "; ".join(notes),
        fixed,
    )


def _zeros_at_0(target: Target, given: Mapping[tuple[str, int], fmpq], m: int) -> int:
    """How many factors x the relative error takes out of target and numerator."""
    zeros = zeros_of(target) if target.weight == "relative" else ()
    if not zeros:
        return 0
    first, *others = zeros
    count = first.multiplicity
    if others or first.exact != 0:
        where = ", ".join(f"{zero.place:g}" for zero in zeros)
        raise ValueError(
            f"fixed=: the relative error needs zeros at {where}, which rounded coefficients do not hold; only one "
            "at 0 can be had"
        )
    if m < count or any(name == "p" and i < count and v != 0 for (name, i), v in given.items()):
        needed = " = ".join(f"p{i}" for i in range(count))
        raise ValueError(
            f"fixed=: the relative error is finite only with {needed} = 0 and a numerator of degree {count} or more"
        )
    return count
