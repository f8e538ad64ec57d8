"""Periodic rational functions: an even function of period T is one of c = cos(2 pi x/T), and its best R(c) is best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import acb, arb

from approx.dyadic import precision
from approx.fit.complex_minimax import ComplexBounds, supremum
from approx.fit.minimax import minimax
from approx.fit.result import Fit, Substituted
from approx.forms import EXACT
from approx.formulas import expression, formula
from approx.region import Part
from approx.target import Target

_EVEN = 1e-9  # how far, relatively to its size, f may be from an even and periodic function


@dataclass(frozen=True)
class PeriodicFit(Substituted):
    """The best r(x) = R(cos(2 pi (x - centre)/period)) for an even periodic function."""

    inner: Fit
    """The fit of R, a function of c on [-1, 1]."""
    period: float | str
    """The period, as it was given."""
    centre: float
    """The point about which f is even."""
    f: Target
    """The function of x."""

    def __call__(self, x: Any) -> Any:
        """r at x.

        Args:
            x: floats of any shape.

        Returns:
            float64 of the same shape.
        """
        turns = (np.asarray(x, dtype=float) - self.centre) / float(_ball(self.period))
        return self.inner.rational(np.cos(2 * np.pi * turns))

    def certify(self) -> ComplexBounds:
        """Proven bounds of the largest |f(x) - r(x)|, by Taylor series in x with enclosed remainders.

        That f is even about the centre, and has the period, is taken on trust (it is looked at).

        Returns:
            The bounds; `pole_free` says whether r has no real pole.

        Raises:
            ValueError: for a callable without an enclosure.
            ArithmeticError: where f has a kink: it is not analytic there.
        """
        if not self.f.enclosed:
            raise ValueError(f"target {self.f.name!r} has no enclosure: give a formula, or enclose=")

        def error(angle: Any) -> Any:
            x = acb(self.centre) + angle * acb(_ball(self.period) / (2 * arb.pi()))
            return self.f(x) - self.inner.rational.run(angle.cos(), EXACT)

        bits = 160 + self.inner.rational.bits + int(max(0.0, -np.log2(max(self.error, 1e-300))))
        with precision(bits):
            angles = [acb(arb(float(c)).acos()) for c in self.inner.reference]
            lower = max((abs(error(a)).lower() for a in angles), default=arb(0))
            half_turn = Part(0, 0.0, 0, complex(np.nextafter(np.pi, 4)))
            try:
                upper = supremum(error, half_turn, self.error, sum(self.inner.type) + 24)
            except TypeError:  # |x| of a complex number
                raise ArithmeticError(
                    f"target {self.f.name!r} has a kink: it is not analytic there"
                ) from None
        # where `supremum` returns, r is analytic on the whole turn: it has no real pole
        return ComplexBounds(float(lower) * (1 - 1e-15), upper, True)


def periodic(
    f: str | Target,
    type: tuple[int, int],
    period: float | str = "2*pi",
    *,
    centre: float = 0.0,
) -> PeriodicFit:
    """The best approximation of an even periodic function by R(cos(2 pi (x - centre)/period)), R of type (m, n).

    These are the even trigonometric rational functions of degrees m and n. c = cos(...) turns the problem into one on
    [-1, 1], which `minimax` solves.

    Args:
        f: a formula in x, or a target; its domain does not matter.
        type: (m, n), the degrees in the cosine.
        period: a number, or a formula such as "2*pi", which is exact.
        centre: a point about which f is even: f(centre + x) = f(centre - x).

    Returns:
        The fit.

    Raises:
        ValueError: for a function that is not even about the centre, or has another period: it is no function of the
            cosine. `approx.aaa(np.exp(2j*np.pi*x/period), y)` fits samples of any periodic function.
    """
    length = float(_ball(period))
    if not (np.isfinite(length) and length > 0 and np.isfinite(centre)):
        raise ValueError(
            f"period={period!r}, centre={centre!r}: expected a positive number, and a finite one"
        )
    span = (centre, centre + length / 2)
    target = formula(f, span) if isinstance(f, str) else f.with_domain(span)
    _check(target, length, centre)

    def floats(c: Any) -> np.ndarray:
        return np.asarray(target(centre + length / (2 * np.pi) * np.arccos(np.asarray(c, dtype=float))))

    def enclose(c: Any) -> Any:
        if not isinstance(c, arb):
            raise TypeError("a periodic fit is certified in x: use its own certify()")
        return target(centre + _ball(period) / (2 * arb.pi()) * c.acos())

    kinks = [float(np.cos(2 * np.pi * (x - centre) / length)) for x in target.kinks if span[0] < x < span[1]]
    moved = Target(
        floats, (-1, 1), kinks=kinks, name=target.name, enclose=enclose if target.enclosed else None
    )
    return PeriodicFit(minimax(moved, type), period, float(centre), target)


def _ball(period: float | str) -> arb:
    if isinstance(period, str):
        return acb(expression(period)(acb(0))).real
    return arb(float(period))


def _check(target: Target, length: float, centre: float) -> None:
    u = length * np.r_[np.linspace(0.01, 0.49, 49), 0.123456]
    with np.errstate(all="ignore"):
        right, left, later = (
            np.asarray(target(x), dtype=float) for x in (centre + u, centre - u, centre + length - u)
        )
    size = _EVEN * float(np.max(np.abs(right)))
    for other, what in ((left, f"even about centre={centre:g}"), (later, f"of period {length:g}")):
        if not np.all(np.abs(right - other) <= size):
            k = int(np.argmax(np.abs(right - other)))
            raise ValueError(
                f"target {target.name!r} is not {what} (see x = {centre + u[k]:.4g}): it is no function of the cosine; "
                "approx.aaa(np.exp(2j*np.pi*x/period), y) fits samples of any periodic function"
            )
