"""Periodic rational functions: an even function of period T is one of c = cos(2 pi x/T), and its best R(c) is best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flint import acb, arb

from approx.dyadic import precision
from approx.fit.complex_minimax import ComplexBounds, supremum
from approx.fit.error import float_above
from approx.fit.minimax import minimax
from approx.fit.result import Fit, Substituted, Verdict, refuse_weight
from approx.forms import EXACT
from approx.formulas import expression, formula
from approx.region import Part
from approx.target import Target, check_kind

_EVEN = 1e-9  # how far, relatively to its size, f may be from an even and periodic function
_LOOKS = 65  # angles at which the error is looked at, beside those of the reference
_SAME = 1e-6  # relatively, how much larger the error may be than that of R, which is the best
_LEAST = 1e-300  # errors are not told from 0 below
_MET = 1e-30  # what is proven of an f that is met exactly


@dataclass(frozen=True, eq=False)
class PeriodicFit(Substituted):
    """The best r(x) = R(cos(2 pi (x - centre)/period)) for an even periodic function."""

    inner: Fit
    """The fit of R, a function of c on [-1, 1]."""
    period: float | str
    """The period, as it was given."""
    centre: float | str
    """The point about which f is even, as it was given."""
    f: Target
    """The function of x."""

    @property
    def error(self) -> float:
        """The largest |f(x) - r(x)| that is seen on either side of the centre, within half a period.

        A float64 centre or period is not quite f's own: then f is even but for rounding, and no R(cos) is nearer.
        """
        c = np.r_[self.inner.reference, np.cos(np.linspace(0, np.pi, _LOOKS))]
        if self.f.enclosed:
            with precision(self._bits):
                angles = [arb(float(v)).acos() for v in c]
                seen = max(float_above(abs(self._off(side * a))) for a in angles for side in (1, -1))
        else:
            x = float(_ball(self.centre)) + np.r_[np.arccos(c), -np.arccos(c)] * float(_ball(self.period)) / (
                2 * np.pi
            )
            f = np.asarray(self.f(x))
            seen = float(np.max(np.abs(f - self(x)))) - 4 * np.finfo(float).eps * float(np.max(np.abs(f)))
        return max(self.inner.error, seen)

    @property
    def converged(self) -> bool:
        """Whether this is the best approximation of its type, on both sides of the centre."""
        return self.inner.converged and self.error <= self.inner.error * (1 + _SAME)

    @property
    def _bits(self) -> int:
        return 160 + self.inner.rational.bits + int(max(0.0, -np.log2(max(self.inner.error, _LEAST))))

    def _off(self, angle: Any) -> Any:
        """f - r at an angle from the centre, of a period of 2 pi."""
        kind = arb if isinstance(angle, arb) else acb
        x = kind(_ball(self.centre)) + angle * kind(_ball(self.period) / (2 * arb.pi()))
        return self.f(x) - self.inner.rational.run(angle.cos(), EXACT)

    def __call__(self, x: Any) -> Any:
        """r at x.

        Args:
            x: floats of any shape.

        Returns:
            float64 of the same shape.
        """
        turns = (np.asarray(x, dtype=float) - float(_ball(self.centre))) / float(_ball(self.period))
        return self.inner.rational(np.cos(2 * np.pi * turns))

    def certify(self) -> ComplexBounds:
        """Proven bounds of |f(x) - r(x)| within half a period of the centre, by Taylor series with enclosed remainders.

        That f has the period is taken on trust (it is looked at).

        Returns:
            The bounds; `pole_free` says whether r has no real pole.

        Raises:
            ValueError: for a callable without an enclosure.
            ArithmeticError: where f has a kink: it is not analytic there.
        """
        if not self.f.enclosed:
            raise ValueError(f"target {self.f.name!r} has no enclosure: give a formula, or enclose=")
        end = float(np.nextafter(np.pi, 4))
        with precision(self._bits):
            angles = [arb(float(c)).acos() for c in self.inner.reference]
            met = self.inner.verdict is Verdict.EXACT
            known, order = max(self.error, _MET if met else _LEAST), sum(self.inner.type) + 24
            try:
                lower = max((abs(self._off(a)).lower() for a in angles), default=arb(0))
                upper = supremum(self._off, Part(0, 0.0, complex(-end), complex(2 * end)), known, order)
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
    centre: float | str = 0.0,
) -> PeriodicFit:
    """The best approximation of an even periodic function by R(cos(2 pi (x - centre)/period)), R of type (m, n).

    These are the even trigonometric rational functions of degrees m and n. c = cos(...) turns the problem into one on
    [-1, 1], which `minimax` solves.

    Args:
        f: a formula in x, or a target; its domain does not matter.
        type: (m, n), the degrees in the cosine.
        period: a number, or a formula such as "2*pi", which is exact.
        centre: a point about which f is even, f(centre + x) = f(centre - x): a number, or a formula such as "pi/2",
            which is exact. Where a number is not quite the point, r errs by as much.

    Returns:
        The fit.

    Raises:
        ValueError: for a function that is not even about the centre, or has another period: it is no function of the
            cosine. `approx.aaa(np.exp(2j*np.pi*x/period), y)` fits samples of any periodic function.
    """
    length, middle = float(_ball(period)), float(_ball(centre))
    if not (np.isfinite(length) and length > 0 and np.isfinite(middle)):
        raise ValueError(
            f"period={period!r}, centre={centre!r}: expected a positive number, and a finite one"
        )
    span = (middle, middle + length / 2)
    if not isinstance(f, str):
        check_kind(f)
    target = formula(f, span) if isinstance(f, str) else f.with_domain(span)
    refuse_weight(target, "periodic")
    _check(target, length, middle)

    kinks = [float(np.cos(2 * np.pi * (x - middle) / length)) for x in target.kinks if span[0] < x < span[1]]
    turned = _Turned(target, period, centre)
    moved = Target(
        turned, (-1, 1), kinks=kinks, name=target.name, enclose=turned.enclose if target.enclosed else None
    )
    return PeriodicFit(
        minimax(moved, type), period, centre if isinstance(centre, str) else float(centre), target
    )


@dataclass(frozen=True)
class _Turned:
    """f in c = cos(2 pi (x - centre)/period)."""

    target: Target
    period: float | str
    centre: float | str

    @cached_property
    def _floats(self) -> tuple[float, float]:
        return float(_ball(self.period)), float(_ball(self.centre))

    def __call__(self, c: Any) -> np.ndarray:
        length, middle = self._floats
        return np.asarray(self.target(middle + length / (2 * np.pi) * np.arccos(np.asarray(c, dtype=float))))

    def enclose(self, c: Any) -> Any:
        if not isinstance(c, arb):
            raise TypeError("a periodic fit is certified in x: use its own certify()")
        return self.target(_ball(self.centre) + _ball(self.period) / (2 * arb.pi()) * c.acos())


def _ball(value: float | str) -> arb:
    """A number, or the value of a formula."""
    if isinstance(value, str):
        return acb(expression(value)(acb(0))).real
    return arb(float(value))


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
