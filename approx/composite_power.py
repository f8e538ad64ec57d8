"""Chains of polynomial steps for 1/x and 1/sqrt(x): Newton and Schulz with the best coefficients, certified.

A step multiplies y by a polynomial g. With u = x y for 1/x, and u = sqrt(x) y for 1/sqrt(x), it maps u to u g(u), or to
u g(u^2), and u is to come to 1. Each step is the one of least max |1 - u'| on the image of the last: Chebyshev's
polynomial for 1/x; the odd polynomial of `composite_sign` for 1/sqrt(x). The plain Newton-Schulz step is the one for an
image that is already at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, pi
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_poly, fmpz_poly

from approx.chain import Chain, check_safety
from approx.composite import best_odd, plain_odd
from approx.domain import Domain
from approx.dyadic import dyadic, power_of_two_above, precision, to_float
from approx.floating_point import known_dtype
from approx.forms import Monomial
from approx.proofs.decimals import float_below
from approx.rational import Rational
from approx.steps import Coefficients, Maps, best_chain, best_step, check_degrees

_MOST = 200  # steps that a wanted error may take


@dataclass(frozen=True)
class CompositePower(Chain):
    """A chain y <- y g(x y) for 1/x, or y <- y g(x y^2) for 1/sqrt(x), and what is proven about it."""

    kind = "composite_power"
    steps: tuple[Rational, ...]
    """The polynomials g, first step first; each has exact dyadic coefficients."""
    interval: tuple[float, float]
    """The interval [a, b] of x that the promise is about."""
    power: float
    """-1 or -0.5."""
    start: float
    """The first y, a power of two."""
    dtype: str
    """The format that the coefficients are rounded to."""
    safety: float
    """Relative rounding error that the arithmetic of each step may have; the promise includes it."""
    images: tuple[tuple[float, float], ...]
    """Enclosures of x^-power y after each step, rounded outwards."""

    @property
    def error(self) -> float:
        """Proven: |1 - x y| <= error, or |1 - sqrt(x) y| <= error: the largest relative error on [a, b]."""
        return super().error

    def __call__(self, x: Any) -> Any:
        """The chain at x: floats, float arrays, or balls."""
        y = self.start + 0 * x
        for g in self.steps:
            y = y * g(x * y if self.power == -1 else x * y * y)
        return y

    def coefficients(self) -> list[list[float]]:
        """The table: for each step the coefficients of g, ascending. They are numbers of `dtype`, exactly."""
        return [[to_float(c) for c in g.form.num] for g in self.steps if isinstance(g.form, Monomial)]

    def _first(self) -> tuple[fmpq, fmpq]:
        a, b = self.interval
        if not 0 < a < b or not self.start > 0:
            raise ValueError(
                f"interval={self.interval!r}, start={self.start!r}: expected 0 < a < b and 0 < start"
            )
        return _first(self.interval, self.power, self.start)

    def _map(self, step: Rational) -> Rational:
        if step.form.exact()[1].coeffs() != [1]:
            raise ValueError("a step has a denominator")
        return _map(step, self.power)

    def to_json(self) -> dict[str, Any]:
        """A self-contained record: the steps exactly, and the table of coefficients."""
        own = {
            "interval": [end.hex() for end in self.interval],
            "power": self.power,
            "start": self.start.hex(),
        }
        return self._record(own)

    @classmethod
    def from_json(cls, data: Any) -> CompositePower:
        """The inverse of `to_json`; the images are proven anew.

        Args:
            data: the record, as `json` reads it.

        Raises:
            ValueError: for a malformed record, images that do not hold, or an error or a table of coefficients that
                are not those of the steps.
        """

        def own(data: Any) -> dict[str, Any]:
            a, b = map(float.fromhex, data["interval"])
            power = {-1: -1.0, -0.5: -0.5}[data["power"]]
            return {"interval": (a, b), "power": power, "start": float.fromhex(data["start"])}

        return cls._read(data, own)


def composite_inverse(
    interval: tuple[float, float],
    degrees: int | tuple[int, ...] = 2,
    *,
    error: float | None = None,
    dtype: Any = "float64",
    safety: float = 0.0,
) -> CompositePower:
    """The best chain of steps y <- y g(x y) for 1/x on [a, b], certified as a whole.

    A step of degree d costs d products and multiplies the degree of the polynomial for 1 - x y by d. Degree 2 is
    Newton and Schulz's step with the best coefficients. The plain one, g = 2 - z, needs about log2(b/a) more of them.

    Args:
        interval: (a, b) with 0 < a < b.
        degrees: the degree of each step in u = x y, 2 or more; or one degree, beside `error`.
        error: the wanted relative error; as many steps of one degree are taken as it needs.
        dtype: the format that the coefficients are numbers of: "float64", "float32", "bfloat16", "float16". The error
            is that of exact arithmetic with them, but for `safety`.
        safety: relative rounding error that the arithmetic of each step may have; the promise includes it.

    Returns:
        The chain, with its table of coefficients and its proven error.

    Raises:
        ValueError: for an interval that reaches 0, other degrees or dtypes, or an error that the format cannot reach.
    """
    return _chain(interval, degrees, -1.0, error, dtype, safety)


def composite_inverse_sqrt(
    interval: tuple[float, float],
    degrees: int | tuple[int, ...] = 3,
    *,
    error: float | None = None,
    dtype: Any = "float64",
    safety: float = 0.0,
) -> CompositePower:
    """The best chain of steps y <- y g(x y^2) for 1/sqrt(x) on [a, b], certified as a whole.

    Args:
        interval: (a, b) with 0 < a < b.
        degrees: the odd degree of each step in u = sqrt(x) y, 3 or more; or one degree, beside `error`. 3 is Newton
            and Schulz's.
        error: the wanted relative error; as many steps of one degree are taken as it needs.
        dtype: the format that the coefficients are numbers of: "float64", "float32", "bfloat16", "float16". The error
            is that of exact arithmetic with them, but for `safety`.
        safety: relative rounding error that the arithmetic of each step may have; the promise includes it.

    Returns:
        The chain, with its table of coefficients and its proven error.

    Raises:
        ValueError: for an interval that reaches 0, other degrees or dtypes, or an error that the format cannot reach.
    """
    return _chain(interval, degrees, -0.5, error, dtype, safety)


def _chain(
    interval: Any,
    degrees: int | tuple[int, ...],
    power: float,
    error: float | None,
    dtype: Any,
    safety: float,
) -> CompositePower:
    (a, b), kind = Domain(interval).hull, known_dtype(dtype)
    if not a > 0:
        raise ValueError(f"interval={interval!r} must lie above 0: the function has a pole there")
    check_safety(safety)
    number = isinstance(error, int | float | np.number)
    if error is not None and not (number and 0 < error < 1 and np.ndim(degrees) == 0):
        raise ValueError(
            f"error={error!r}, degrees={degrees!r}: expected an error in (0, 1) beside one degree"
        )
    wanted = check_degrees(degrees, 2 if power == -1 else 3, odd=power != -1)
    if error is not None:
        # a polynomial of degree d that is 1 at 0, or odd, comes no closer to 1 than this on so wide an interval
        needed = (log(b) - log(a)) / 2 + log(2 / pi * (1 - error) / (1 + error))
        if (least := ceil(needed / log(wanted[0]))) > _MOST:
            raise ValueError(
                f"error={error}: on {interval!r} it takes {least} steps of degree {wanted[0]} at least, more than "
                f"{_MOST}; use a higher degree"
            )
        wanted *= _MOST
    start = to_float(1 / power_of_two_above(b)) if power == -1 else _root_start(b)
    maps = _Factors(power)

    def made(rounded_to: str, lower_too: bool) -> tuple[CompositePower, bool]:
        low, high = _first((a, b), power, start)
        steps: list[Rational] = []
        images: list[tuple[float, float]] = []
        close, reached, ratio = True, float("inf"), fmpq(0)

        def so_far() -> CompositePower:
            return CompositePower(tuple(steps), (a, b), power, start, kind, float(safety), tuple(images))

        for k, degree in enumerate(wanted, start=1):
            enough = error if error is not None else float("inf") if k == len(wanted) else 0.0
            step, low, high, kept = best_step(maps, low, high, degree, rounded_to, safety, enough, lower_too)
            steps.append(step)
            if low <= 0:
                raise ValueError(
                    f"step {k} maps a part of the interval to 0 or below in {kind}: use a smaller interval, a "
                    "smaller safety, or a finer dtype"
                )
            images.append((float_below(low), -float_below(-high)))
            low, high = dyadic(images[-1][0]), dyadic(images[-1][1])
            close = close and kept
            if error is not None:
                before, reached = reached, so_far().error
                if reached <= error:
                    break
                if k > 2 and reached >= before and low / high <= ratio:
                    raise ValueError(
                        f"error={error}: rounding ends at {reached:.3g}; use a finer dtype or a smaller safety"
                    )
            ratio = low / high
        if error is not None and reached > error:
            raise ValueError(f"error={error} is not reached in {_MOST} steps: {reached:.3g}")
        return so_far(), close

    return best_chain(made, kind)


def _root_start(b: float) -> float:
    """A power of two near 1/sqrt(b), not above it."""
    top = power_of_two_above(b)
    y = fmpq(1)
    while y * y * top > 1:
        y /= 2
    while 4 * y * y * top <= 1:
        y *= 2
    return to_float(y)


def _first(interval: tuple[float, float], power: float, start: float) -> tuple[fmpq, fmpq]:
    """The interval of u at the start, rounded outwards."""
    a, b = map(dyadic, interval)
    if power == -1:
        return a * dyadic(start), b * dyadic(start)
    with precision(128):
        return (
            dyadic(float_below((arb(a).sqrt() * start).lower().fmpq())),
            dyadic(-float_below(-(arb(b).sqrt() * start).upper().fmpq())),
        )


def _map(g: Rational, power: float) -> Rational:
    """u -> u g(u), or u g(u^2), as a polynomial in u."""
    inner = g.form.exact()[0]
    u = fmpq_poly([0, 1])
    whole = u * (inner if power == -1 else inner(u * u))
    return Rational.from_monomial(whole.coeffs())


@dataclass(frozen=True)
class _Factors(Maps):
    """The polynomials g, of one degree less than u g(u) or u g(u^2) has."""

    power: float

    @property
    def odd(self) -> bool:
        return self.power != -1

    def best(self, low: fmpq, high: fmpq, degree: int) -> Coefficients:
        if self.power == -0.5:
            return best_odd(low, high, degree), [fmpq(1)]
        # 1 - u' = T_d((high + low - 2 u)/(high - low)) in units of its value at u = 0
        chebyshev = fmpq_poly(fmpz_poly.chebyshev_t(degree))
        span = high - low if high > low else high
        whole = chebyshev(fmpq_poly([(high + low) / span, -2 / span]))
        whole = 1 - whole / whole(fmpq(0))
        return whole.coeffs()[1:], [fmpq(1)]

    def plain(self, degree: int) -> Coefficients:
        if self.power == -0.5:
            return plain_odd(degree), [fmpq(1)]
        return (1 - fmpq_poly([1, -1]) ** degree).coeffs()[1:], [fmpq(1)]

    def step(self, num: list[fmpq], den: list[fmpq]) -> Rational:
        return Rational.from_monomial(num, den)

    def mapped(self, step: Rational) -> Rational:
        return _map(step, self.power)
