"""Polynomial models of smooth functions with a proven remainder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb, arb_series, ctx, fmpq, fmpq_poly

from approx.dyadic import precision
from approx.proofs.real_roots import MAX_BITS

Series = Callable[[Any], Any]  # on arb, and on arb_series, which it maps to arb_series or a constant

_MAX_BOXES = 5000
#: Share of the tolerance below which a coefficient is none
_LEAST = arb(2) ** -40


@dataclass(frozen=True)
class Model:
    """|f(x) - poly(x)| <= radius for all x of an interval; `poly` is exact."""

    poly: fmpq_poly
    """The polynomial, exactly."""
    radius: fmpq
    """How far f may be from it."""


Box = tuple[fmpq, fmpq, list[Model]]


def models(
    functions: Sequence[Series], a: fmpq, b: fmpq, tolerances: Sequence[fmpq], bits: int
) -> Iterator[Box]:
    """Boxes (lo, hi, a model of each function) that cover [a, b] in order; radii are at most `tolerances`.

    A function maps a power series with ball coefficients to an enclosure of its Taylor coefficients. On a box
    c +- h the polynomial holds the first K Taylor coefficients at c, and the Lagrange remainder is at most
    the K-th coefficient over the whole box times h^K. A box whose bound is too large is halved. Next to a
    singular derivative (sqrt at 0) halving never suffices; a box on which f hardly changes is modelled by a
    constant.

    Args:
        functions: what to model, on arb and arb_series.
        a: left end.
        b: right end.
        tolerances: the largest radius of each.
        bits: bits to begin with.

    Raises:
        ArithmeticError: if a function cannot be enclosed to its tolerance.
    """
    order = 12 + bits // 6
    todo = [(a, b, 0)]
    for _ in range(_MAX_BOXES):
        if not todo:
            return
        lo, hi, depth = todo.pop()
        work = bits + 2 * depth  # a function cancels next to its zeros and singularities
        for kind in (_taylor, _constant):
            found = [kind(f, lo, hi, tol, work, order) for f, tol in zip(functions, tolerances, strict=True)]
            if None not in found:
                yield lo, hi, [m for m in found if m is not None]
                break
        else:
            if min(tolerances) == 0:
                raise ArithmeticError(
                    "the error seems to be 0, which the enclosure of this target cannot prove"
                )
            mid = (lo + hi) / 2
            todo += [(mid, hi, depth + 1), (lo, mid, depth + 1)]
    if todo:
        near, within = float(arb(todo[-1][0])), min(float(arb(t)) for t in tolerances)
        raise ArithmeticError(f"the target cannot be enclosed to {within:.1e} near x = {near}")


def expand(f: Series, x: arb, order: int, bits: int) -> list[arb]:
    """Enclosures of the Taylor coefficients 0 .. order of f, valid at every point of the ball `x`.

    Args:
        f: the function, on arb_series.
        x: a ball.
        order: the last coefficient.
        bits: bits of precision.
    """
    cap = ctx.cap
    ctx.cap = order + 1
    try:
        with precision(bits):
            try:
                series = f(arb_series([x, 1][: order + 1], order + 1))
            except (ValueError, ZeroDivisionError):  # what flint raises for a quotient by 0
                return [arb.nan()] * (order + 1)
            except (AttributeError, TypeError) as error:
                raise ValueError(
                    f"the target's enclosure (or weight) must run on flint.arb_series: {error}"
                ) from None
            if not isinstance(series, arb_series):  # a constant
                return [arb(series)] + [arb(0)] * order
            if not series[0].is_finite():  # nowhere near an expansion, whatever the other terms are
                return [arb.nan()] * (order + 1)
            if series.prec <= order:
                raise ValueError("the target's enclosure lost terms of the power series that it was given")
            return [series[k] for k in range(order + 1)]
    finally:
        ctx.cap = cap


def ball(lo: fmpq, hi: fmpq, bits: int) -> arb:
    """A small ball around [lo, hi].

    Args:
        lo: left end.
        hi: right end.
        bits: bits of precision.
    """
    with precision(bits):
        return arb(lo) if lo == hi else arb(lo).union(arb(hi))


def _taylor(f: Series, lo: fmpq, hi: fmpq, tolerance: fmpq, bits: int, order: int) -> Model | None:
    mid, half = (lo + hi) / 2, (hi - lo) / 2
    with precision(bits):
        rest = abs(expand(f, ball(lo, hi, bits), order, bits)[order]) * arb(half) ** order
        if not 2 * rest <= arb(tolerance):  # nor if it is nan
            return None
    while bits <= MAX_BITS:
        with precision(bits):
            coefficients = expand(f, arb(mid), order - 1, bits)
            least = arb(tolerance) * _LEAST
            parts = [_part(c, arb(half) ** k, least) for k, c in enumerate(coefficients)]
            radius = sum((far for _, far in parts), rest + least)
            if radius <= arb(tolerance):
                poly = fmpq_poly([c.fmpq() for c, _ in parts])
                return Model(poly(fmpq_poly([-mid, 1])), radius.upper().fmpq())
        bits *= 2
    return None


def _constant(f: Series, lo: fmpq, hi: fmpq, tolerance: fmpq, bits: int, order: int) -> Model | None:
    """A polynomial of degree 0, whatever the order."""
    with precision(bits):
        try:
            value = arb(f(ball(lo, hi, bits)))
        except (ValueError, ZeroDivisionError):  # what flint raises for a quotient by 0
            return None
        least = arb(tolerance) * _LEAST
        value, far = _part(value, arb(1), least)
        radius = far + least
        return Model(fmpq_poly([value.fmpq()]), radius.upper().fmpq()) if radius <= arb(tolerance) else None


def _part(c: arb, scale: arb, least: arb) -> tuple[arb, arb]:
    """A coefficient without its radius, and what that leaves out. Of a least one all is left out: exp(-2^60) is no
    rational that a machine could hold."""
    if abs(c) * scale <= least:
        return arb(0), abs(c) * scale
    return c.mid(), c.rad() * scale
