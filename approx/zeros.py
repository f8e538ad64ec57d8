"""Relative errors through zeros: f = z g with z a polynomial and g without a zero, so that r = z R with R near g.

r must vanish exactly where f does. A zero that is no float64 is not met by any float64: the gap between its two
neighbours is cut out of the domain, and r vanishes in it, far closer to the zero than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flint import arb, arb_series, ctx, fmpq, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.forms import Factored
from approx.rational import Rational
from approx.target import Target

_MOST = 6  # the largest multiplicity
_FEWEST = 8  # bits of a format


@dataclass(frozen=True)
class Zero:
    """A zero of a target."""

    place: float
    """Where: the zero itself, or the float64 nearest to it."""
    multiplicity: int
    """How often."""
    beside: fmpq = field(default_factory=lambda: fmpq(0))
    """How far r's zero is from there; 0 where f is 0 at a float64."""

    @property
    def exact(self) -> fmpq:
        """Where r vanishes."""
        return dyadic(self.place) + self.beside


def zeros_of(target: Target) -> tuple[Zero, ...]:
    """The zeros of an enclosed target without jumps in its domain, or between two neighbouring floats at its edges.

    Args:
        target: the target.

    Returns:
        Its zeros, ascending; none for a callable without an enclosure, one with jumps, or one with a zero at a kink.

    Raises:
        ValueError: for a zero in the domain that is no float64 (see `parted`), or of too high a multiplicity.
    """
    if not _searchable(target):
        return ()
    found: list[Zero] = []
    for place in _places(target):
        with precision(256):
            if target(arb(place)).contains(0):
                found.append(Zero(place, multiplicity(target, place)))
            elif (around := _neighbours(target, place)) is not None and not _in_gap(target, *around):
                if not all(target.domain.contains(around)):  # just beyond an end of the domain
                    found.append(_between(target, *around))
                    continue
                raise ValueError(
                    f"target {target.name!r} has a zero near x = {place!r} that is no float64: leave the gap between "
                    "its neighbours out of domain=, as the target of a fit does (fit.target)"
                )
    for low, high in target.domain.gaps:
        if high == np.nextafter(low, high) and _neighbours(target, low) == (low, high):
            found.append(_between(target, low, high))
    return tuple(sorted(found, key=lambda zero: zero.exact))


def parted(target: Target) -> Target:
    """The target without the gaps between two neighbouring floats that a zero lies in.

    Args:
        target: any target.

    Returns:
        The same function on all float64 numbers of its domain; itself where every zero is a float64.
    """
    if not _searchable(target):
        return target
    while True:  # each part of the domain is looked at as closely as the whole: more zeros may be seen
        domain = target.domain
        for place in _places(target):
            with precision(256):
                around = None if target(arb(place)).contains(0) else _neighbours(target, place)
            if around is not None and not _in_gap(target, *around) and all(domain.contains(around)):
                domain = domain.without(*around)
        if domain == target.domain:
            return target
        target = target.with_domain(domain)


def _searchable(target: Target) -> bool:
    if not target.enclosed or any(a < x < b for x in target.jumps for a, b in target.domain):
        return False
    inner = [x for x in target.kinks if any(a < x < b for a, b in target.domain)]
    if inner:  # a zero at a kink is none of a polynomial
        with precision(256):
            beside = [y for x in inner for y in (x, np.nextafter(x, -np.inf), np.nextafter(x, np.inf))]
            if any(target(arb(float(y))).contains(0) for y in beside):
                return False
    return all(piece.polynomial is None for piece in target.pieces())


def _in_gap(target: Target, low: float, high: float) -> bool:
    return any(b <= low and high <= c for b, c in target.domain.gaps)


def _places(target: Target) -> list[float]:
    """Where float64 suggests a zero, ascending."""
    places: set[float] = set()
    for a, b in target.domain:
        x = np.unique(np.r_[np.linspace(a, b, 1025), 0.0 if a <= 0 <= b else a])
        with np.errstate(all="ignore"):
            f = np.broadcast_to(np.asarray(target(x), dtype=float), x.shape)
        small = np.abs(f) < 1e-9 * np.nanmax(np.abs(f))
        places |= {float(v) for v in x[small]}
        crossings = (
            bisected(target, float(x[k]), float(x[k + 1]))
            for k in np.flatnonzero(np.sign(f[1:]) * np.sign(f[:-1]) < 0)
        )
        places |= {_sharpened(target, place, a, b) for place in crossings}
    return sorted(places)


def _sharpened(target: Target, place: float, a: float, b: float) -> float:
    """The float64 beside which f changes its sign in balls, or at which it is 0: its rounding in float64 may be off."""

    def sign(x: float) -> int:
        value = target(arb(x))
        return 1 if value > 0 else -1 if value < 0 else 0

    with precision(256):
        for k in range(30):
            reach = 2.0**k * float(np.spacing(abs(place)))
            low, high = max(place - reach, a), min(place + reach, b)
            below, above = sign(low), sign(high)
            if below * above > 0:
                continue
            while below and above and np.nextafter(low, high) < high:
                middle = low + (high - low) / 2
                side = sign(middle)
                low, below, high, above = (
                    (middle, side, high, above) if side in (below, 0) else (low, below, middle, side)
                )
            return low if below == 0 or above else high
    return place


def _neighbours(target: Target, place: float) -> tuple[float, float] | None:
    """The two neighbouring floats at or beside a place between which f changes its sign, if there are such."""
    with precision(256):
        for low, high in (
            (place, float(np.nextafter(place, np.inf))),
            (float(np.nextafter(place, -np.inf)), place),
        ):
            below, above = target(arb(low)), target(arb(high))
            if (below < 0 and above > 0) or (below > 0 and above < 0):
                return low, high
    return None


_PLACES = 256  # bits behind the float64 that a zero is found to
_MOST_PLACES = 1 << 13


def _between(target: Target, low: float, high: float) -> Zero:
    """The zero between two neighbouring floats, by bisection in balls; the same at each call."""
    places = _PLACES
    while True:
        a, b = dyadic(low), dyadic(high)
        with precision(places + 128):
            slope = series_at(target, arb(a).union(arb(b)), 2, places + 128)[1]
            if slope.contains(0):
                raise ValueError(
                    f"target {target.name!r}: its zero near x = {low!r} is not simple, and is no float64"
                )
            rising = slope > 0
            for _ in range(places):
                middle = (a + b) / 2
                value = target(arb(middle))
                if value.contains(0):
                    break
                a, b = (a, middle) if bool(value > 0) == bool(rising) else (middle, b)
        zero = (a + b) / 2
        place = low if 2 * (zero - dyadic(low)) <= dyadic(high) - dyadic(low) else high
        # so close to a float64 that its distance, and so the relative error there, is not known: more bits
        if (dyadic(low) < a and b < dyadic(high)) or places >= _MOST_PLACES:
            return Zero(place, 1, zero - dyadic(place))
        places *= 2


def known_to(zeros: Iterable[Zero]) -> float:
    """How large a relative error may be at floats because the places of zeros between them have so many digits.

    Args:
        zeros: the zeros.
    """
    # a place is found to 2^-256 of the gap between two floats, and errs the more the nearer it is to one of them
    gaps = [
        float(np.spacing(abs(zero.place))) / abs(float(zero.beside)) for zero in zeros if zero.beside != 0
    ]
    return min(max(gaps, default=0.0) * 2.0**-_PLACES, 1e-60)  # very near to one, to more digits


def bisected(function: Callable[[np.ndarray], Any], low: float, high: float) -> float:
    """The float64 number at which a function between two signs is nearest to 0.

    Args:
        function: of arrays.
        low: where it has one sign.
        high: where it has the other.
    """
    sign = float(function(np.array([low]))[0]) > 0
    for _ in range(200):
        middle = low + (high - low) / 2
        if not low < middle < high:
            break
        value = float(np.asarray(function(np.array([middle])))[0])
        if value == 0:
            return middle
        low, high = (middle, high) if (value > 0) == sign else (low, middle)
    values = np.abs(np.asarray(function(np.array([low, high]))))
    return low if values[0] <= values[1] else high


def multiplicity(target: Callable[[Any], Any], place: float) -> int:
    """How often a function vanishes at a float64.

    Args:
        target: the function, on arb_series.
        place: its zero.

    Raises:
        ValueError: for more than 6 times, and for a zero that is not multiple, such as that of x log(x).
    """
    try:
        series = series_at(target, arb(place), _MOST + 1, 256)
    except (ValueError, ZeroDivisionError):  # what flint raises for a quotient by 0
        series = []
    for k, c in enumerate(series):
        if not c.contains(0):
            return k
    name = target.name if isinstance(target, Target) else "of the formula"
    raise ValueError(
        f"target {name!r} has a zero at x = {place!r} that is no polynomial's of degree {_MOST} or less: leave it "
        "out of domain="
    )


def vanishes(function: Callable[[Any], Any], zero: Zero) -> bool:
    """Whether a function vanishes at a zero as often as that says, as far as 256 bits tell.

    Args:
        function: of arb_series.
        zero: the zero, a float64.
    """
    return all(c.contains(0) for c in series_at(function, arb(zero.place), zero.multiplicity, 256))


def series_at(target: Callable[[Any], Any], x: arb, count: int, bits: int) -> list[arb]:
    """Enclosures of the first Taylor coefficients at every point of a ball."""
    with precision(bits):
        cap, ctx.cap = ctx.cap, count
        try:
            series = target(arb_series([x, 1][:count], count))
            return [
                series[k] if isinstance(series, arb_series) else arb(series if k == 0 else 0)
                for k in range(count)
            ]
        except (
            ValueError,
            ZeroDivisionError,
        ):  # a ball so wide that a series is divided by one that may vanish
            return [arb("nan")] * count
        finally:
            ctx.cap = cap


def factor(zeros: tuple[Zero, ...]) -> fmpq_poly:
    """The monic polynomial with these zeros.

    Args:
        zeros: the zeros.

    Returns:
        prod (x - place)^multiplicity.
    """
    product = fmpq_poly([1])
    for zero in zeros:
        product *= fmpq_poly([-zero.exact, 1]) ** zero.multiplicity
    return product


def divided(target: Target, zeros: tuple[Zero, ...]) -> Target:
    """g = f/z on the same domain, with the relative error for its weight.

    Args:
        target: f, enclosed.
        zeros: its zeros.

    Returns:
        The target g, which is enclosed too: at a zero by the mean value theorem.
    """
    balls = target.with_weight(None)
    # a zero may be so close to a float64 that their distance takes more digits than the work has
    closest = min((abs(zero.beside) for zero in zeros if zero.beside != 0), default=fmpq(1))
    digits = int(closest.q).bit_length() - int(closest.p).bit_length()
    more = digits if digits > _PLACES // 2 else 0

    def enclose(x: Any) -> Any:
        with precision(ctx.prec + more):
            return sharp(x)

    def sharp(x: Any) -> Any:
        for k, zero in enumerate(zeros):
            near = x[0] if isinstance(x, arb_series) else x
            if isinstance(x, arb | arb_series) and _close(near, zero):
                value = quotient(balls, x, zero)
                if zero.beside != 0:  # f is not quite 0 there
                    value = value + balls(arb(zero.exact)) / (x - arb(zero.exact))
                return _over(value, x, zeros[:k] + zeros[k + 1 :])
        return _over(balls(x), x, zeros)

    width = min([b - a for a, b in target.domain])

    def floats(x: Any) -> Any:
        x = np.asarray(x, dtype=float)
        with np.errstate(all="ignore"):
            z = np.prod(
                [(x - zero.place - float(zero.beside)) ** zero.multiplicity for zero in zeros], axis=0
            )
            value = np.asarray(balls(x) / z, dtype=float)
        # next to a zero float64 sees its own cancellation
        near = np.logical_or.reduce([np.abs(x - zero.place) < 1e-2 * width for zero in zeros])
        if np.any(near):
            with precision(256):
                exact = [float(enclose(arb(float(v)))) for v in np.atleast_1d(x)[np.atleast_1d(near)]]
            value = np.array(value, ndmin=1)
            value[np.atleast_1d(near)] = exact
            value = value.reshape(x.shape)
        return value

    return Target(
        floats,
        target.domain,
        "relative",
        kinks=target.kinks,
        jumps=target.jumps,
        name=target.name,
        enclose=enclose,
    )


def _close(x: arb, zero: Zero) -> bool:
    """Whether a ball is so near a zero that a quotient by x - place would be wide."""
    gap = x - arb(zero.exact)
    return bool(gap.contains(0)) or (zero.beside != 0 and bool(4 * gap.rad() > abs(gap).lower()))


def _over(value: Any, x: Any, zeros: tuple[Zero, ...]) -> Any:
    """value/z, factor by factor: the enclosure of their product could hold 0 where none of them does."""
    for zero in zeros:
        for _ in range(zero.multiplicity):
            value = value / (x - arb(zero.exact))
    return value


def quotient(target: Callable[[Any], Any], x: Any, zero: Zero) -> Any:
    """f/(x - place)^k where x may hold the zero.

    The Taylor coefficients j of the quotient at points of a ball lie in the coefficients j + k of f over its hull
    with the zero: the quotient is an average of derivatives of f between them.

    Args:
        target: f, on arb and arb_series.
        x: an arb or arb_series.
        zero: the zero.
    """
    k = zero.multiplicity
    point = x[0] if isinstance(x, arb_series) else x
    hull = point if point == arb(zero.exact) else point.union(arb(zero.exact))
    if not isinstance(x, arb_series):
        return series_at(target, hull, k + 1, ctx.prec)[k]
    count = ctx.cap
    coefficients = series_at(target, hull, count + k, ctx.prec)[k:]
    inner = x - point
    if inner.length() <= 2 and inner[1] == 1:
        return arb_series(coefficients, count)
    return arb_series(coefficients, count)(inner)


def multiplied(rational: Rational, zeros: tuple[Zero, ...], bits: int) -> Rational:
    """r = z R in factored form, so that it vanishes exactly, and keeps its relative digits.

    One zero is the centre. Several are subtracted from an x that no shift has rounded: it is about 0, or about a number
    near which every format subtracts exactly (P. H. Sterbenz, "Floating-Point Computation", 1974).

    Args:
        rational: R.
        zeros: the zeros of z.
        bits: to how many bits each parameter is rounded.

    Returns:
        r.
    """
    num, den = rational.exact()
    a, b = rational.domain.hull
    narrow = a * b > 0 and max(abs(a), abs(b)) < 1.9 * min(abs(a), abs(b))
    several = dyadic((a + b) / 2, _FEWEST) if narrow else 0
    centre = zeros[0].exact if len(zeros) == 1 else several
    return Rational.from_exact(factor(zeros) * num, den, rational.domain, "factored", bits, centre=centre)


def divided_rational(rational: Rational, zeros: tuple[Zero, ...]) -> Rational | None:
    """R = r/z, exactly.

    Args:
        rational: r.
        zeros: the zeros of z.

    Returns:
        R, or None where r does not vanish at the zeros.
    """
    num, den = rational.exact()
    z = factor(zeros)
    if num % z:
        return None
    form = rational.form
    if isinstance(form, Factored):
        left = list(form.zeros)
        for zero in zeros:
            root = ((zero.exact - rational.centre) / rational.scale,)
            for _ in range(zero.multiplicity):
                if root not in left:
                    break
                left.remove(root)
        total = sum(zero.multiplicity for zero in zeros)
        if len(left) == len(form.zeros) - total:
            gain = form.gain / rational.scale**total
            return replace(rational, form=Factored(dyadic(gain), tuple(left), form.poles))
    num = num // z
    # coefficients that are no dyadic numbers: in units that make integers of them
    unit = fmpq(int(num.denom()) * int(den.denom()))
    return Rational.from_monomial(
        [c * unit for c in num.coeffs()] or [0], [c * unit for c in den.coeffs()], rational.domain
    )
