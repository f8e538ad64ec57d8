"""Pade approximants of a power series: the rational function whose own series agrees longest."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from flint import arb, fmpq, fmpq_mat, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.proofs.taylor import expand
from approx.rational import Rational
from approx.target import Target

_MOST = 400  # degrees; above, exact numbers take minutes
_BESIDE = 2.0**-300  # how far from the centre a fold is one at the centre


def pade(
    series: Iterable[Any] | Target,
    type: tuple[int, int],
    centre: float = 0.0,
    domain: Any = (-1, 1),
    bits: int = 53,
) -> Rational:
    """The Pade approximant p/q of a series: f q - p begins with the power m + n + 1 of (x - centre), or a later one.

    Computed exactly: from the equations of the denominator, and where these do not determine it (in a block of the
    table: coefficients that vanish, a rational function) by the extended algorithm of Euclid on t^(m+n+1) and the
    series. The approximant comes back reduced.

    Args:
        series: the coefficients of (x - centre)^k, k = 0, 1, ..., m + n at least (int, float, Fraction or fmpq, all
            taken as exact), or an enclosed target, which is expanded at `centre`.
        type: (m, n), the degrees of numerator and denominator.
        centre: the point of expansion.
        domain: where the function is to be used: (a, b), or [(a, b), (c, d), ...].
        bits: to how many bits each coefficient is rounded; exact ones that are no dyadic numbers are too.

    Returns:
        The approximant, in monomials of t = x - centre.

    Raises:
        ValueError: for too few coefficients, a malformed type, a target that has no series there, or a series
            whose table has no approximant in this place.

    Source:
        G. A. Baker, P. Graves-Morris, Pade Approximants, 1996, section 2.4.
    """
    m, n = (int(k) for k in type)
    if min(m, n) < 0 or m + n > _MOST:
        raise ValueError(f"type={type!r}: expected degrees of 0 or more, {_MOST} together at most")
    count = m + n + 1
    if isinstance(series, str):
        raise ValueError(f"series={series!r}: for a formula give approx.formula({series!r}, domain)")
    if isinstance(series, Target):
        coefficients = _of_target(series, centre, count, bits)
    else:
        coefficients = [_exact(c) for c in series][:count]
    if len(coefficients) < count:
        raise ValueError(f"series: {len(coefficients)} coefficients, and type ({m}, {n}) needs {count}")
    num, den = _by_solving(coefficients, m, n) or _by_euclid(coefficients, m)
    agreement = den * fmpq_poly(coefficients) - num
    if den[0] == 0 or any(agreement[k] != 0 for k in range(count)):
        raise ValueError(
            f"type={type!r}: the approximant of this series does not exist; try a neighbouring type"
        )
    # den(0) = 1, so that every other coefficient is rounded and this one is not
    num, den = num / den[0], den / den[0]
    return Rational.from_monomial(
        [dyadic(c, bits) for c in num.coeffs()] or [0],
        [dyadic(c, bits) for c in den.coeffs()],
        domain,
        centre,
    )


def _by_solving(c: list[fmpq], m: int, n: int) -> tuple[fmpq_poly, fmpq_poly] | None:
    """The approximant from the equations of the denominator, den(0) = 1; None where these do not determine it.

    Exact numbers grow less than in Euclid's algorithm.
    """
    if n == 0:
        return fmpq_poly(c[: m + 1]), fmpq_poly([1])
    before = [fmpq(0)] * n + c  # c_k at n + k
    rows = [[before[n + m + i - j] for j in range(1, n + 1)] for i in range(1, n + 1)]
    try:
        solved = fmpq_mat(n, n, [x for row in rows for x in row]).solve(
            fmpq_mat(n, 1, [-x for x in c[m + 1 :]])
        )
    except ZeroDivisionError:
        return None
    den = fmpq_poly([fmpq(1), *(solved[i, 0] for i in range(n))])
    return fmpq_poly((den * fmpq_poly(c)).coeffs()[: m + 1]), den


def _by_euclid(c: list[fmpq], m: int) -> tuple[fmpq_poly, fmpq_poly]:
    """The approximant by the extended algorithm of Euclid, reduced."""
    before, now = fmpq_poly([0] * len(c) + [1]), fmpq_poly(c)
    factor_before, factor = fmpq_poly(), fmpq_poly([1])
    while now.degree() > m:
        quotient, rest = divmod(before, now)
        before, now = now, rest
        factor_before, factor = factor, factor_before - quotient * factor
    common = now.gcd(factor)
    return now // common, factor // common


def _exact(value: Any) -> fmpq:
    if isinstance(value, Fraction):
        return fmpq(value.numerator, value.denominator)
    return value if isinstance(value, fmpq) else dyadic(value)


def _of_target(target: Target, centre: float, count: int, bits: int) -> list[fmpq]:
    """The Taylor coefficients, to far more bits than are kept."""
    if not target.enclosed:
        raise ValueError(
            f"target {target.name!r} has no enclosure to expand: give enclose=, or the coefficients"
        )
    with precision(1 << 10):  # a fold has one-sided series: beside it there is none
        beside = expand(target, arb(dyadic(centre)) + arb(0, _BESIDE), count - 1, 1 << 10)
    if centre in target.breaks or any(c.is_nan() for c in beside):
        raise ValueError(f"target {target.name!r} has no power series at x = {centre!r}: change centre=")
    wanted = bits + 64 + 8 * count
    work = 2 * wanted
    while work <= 1 << 15:
        with precision(work):
            found = expand(target, arb(dyadic(centre)), count - 1, work)
        if not all(c.is_finite() for c in found):
            break
        if all(c.rad() <= arb(2) ** -wanted for c in found):
            # what cannot be told from 0 is 0: an odd function's even coefficients
            return [fmpq(0) if c.contains(0) else c.mid().fmpq() for c in found]
        work *= 2
    raise ValueError(f"target {target.name!r} has no power series at x = {centre!r}: change centre=")
