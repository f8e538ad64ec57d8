"""Best approximation on a half-line [a, inf): s = (x - a)/(x - a + c) takes it to [0, 1], and type (n, n) to itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from flint import arb, arb_series, fmpq, fmpq_poly

from approx.dyadic import dyadic
from approx.fit.minimax import minimax
from approx.fit.result import Fit, Substituted, refuse_weight
from approx.formulas import formula
from approx.proofs import Certificate, certify
from approx.rational import Rational
from approx.target import Target, check_kind


@dataclass(frozen=True, eq=False)
class HalfLineFit(Substituted):
    """The best approximation of a function on [start, inf)."""

    inner: Fit
    """The fit on [0, 1] in s = (x - start)/(x - start + scale)."""
    start: float
    """Left end of the half-line."""
    scale: float
    """x - start where s is 1/2."""

    def __call__(self, x: Any) -> Any:
        """r at x.

        Args:
            x: floats of any shape, on the half-line; inf too.

        Returns:
            float64 of the same shape.
        """
        with np.errstate(divide="ignore"):
            s = 1 / (1 + self.scale / (np.asarray(x, dtype=float) - self.start))  # 0 at the start, 1 at inf
        return self.inner.rational(s)

    def certify(self) -> Certificate:
        """Proven bounds of the error on the half-line: those of the fit in s, which is the same function.

        They rest on one promise of the caller's: that f is monotone beyond start + 2^40 scale, with the limit that was
        given. Nearer it is enclosed.
        """
        proof = certify(self.inner)
        assert isinstance(proof, Certificate)
        return proof

    def rational(self, bits: int = 128, domain: Any = None) -> Rational:
        """The function of x, in factored form about the start.

        Args:
            bits: to how many bits each parameter is rounded.
            domain: the bounded domain that it notes; by default [start, start + scale].

        Returns:
            The function.
        """
        n, a, c = max(self.inner.rational.type), dyadic(self.start), dyadic(self.scale)
        num, den = self.inner.rational.exact()

        def back(poly: fmpq_poly) -> fmpq_poly:
            """(x - a + c)^n poly((x - a)/(x - a + c)), by powers of u = x - a."""
            found = [fmpq(0)] * (n + 1)
            for k, value in enumerate(poly.coeffs()):
                for j in range(n - k + 1):
                    found[k + j] += value * comb(n - k, j) * c ** (n - k - j)
            return fmpq_poly(found)(fmpq_poly([-a, 1]))

        where = (self.start, self.start + self.scale) if domain is None else domain
        return Rational.from_exact(back(num), back(den), where, "factored", bits, centre=self.start)


def half_line(
    f: str | Target,
    n: int,
    start: float = 0.0,
    *,
    limit: float = 0.0,
    scale: float = 1.0,
    digits: int | None = None,
) -> HalfLineFit:
    """The best approximation of type (n, n) on [start, inf) of a function that tends to a limit.

    Args:
        f: a formula in x, or an enclosed target; that it is monotone beyond start + 2^40 scale is taken on
            trust.
        n: the degree of numerator and denominator.
        start: left end of the half-line.
        limit: what f tends to.
        scale: x - start where s = 1/2: about where f changes most.
        digits: as for `minimax`.

    Returns:
        The fit.

    Raises:
        ValueError: for an n that is no degree, a target without an enclosure, or a limit that f does not tend to.

    Source:
        W. J. Cody, G. Meinardus, R. S. Varga, J. Approx. Theory 2, 1969 (exp(-x), n = 1, 2, ...: CRAM's functions).
    """
    if not (isinstance(n, int | np.integer) and n >= 0):
        raise ValueError(f"n={n!r}: expected one degree, a whole number of 0 or more; the type is (n, n)")
    if not (scale > 0 and np.isfinite(start) and np.isfinite(limit)):
        raise ValueError(
            f"start={start}, limit={limit}, scale={scale}: expected finite numbers, and scale above 0"
        )
    target = formula(f, (start, start + scale)) if isinstance(f, str) else f
    check_kind(target)
    refuse_weight(target, "half_line")
    if not target.enclosed:
        raise ValueError(f"target {target.name!r} has no enclosure: give enclose=, or a formula")
    far = [float(arb(target(arb(start) + arb(10.0) ** k * scale))) - limit for k in (2, 4, 8)]
    if not abs(far[2]) <= 1e-3 * (abs(float(arb(target(arb(start)))) - limit) + abs(far[0]) + 1e-300):
        raise ValueError(f"limit={limit}: the function is {far[2] + limit!r} at x = {start + 1e8 * scale:g}")

    moved = _Moved(target, float(start), float(scale), float(limit))
    on_unit = Target(moved, (0, 1), name=target.name, enclose=moved.enclose)
    return HalfLineFit(minimax(on_unit, (n, n), digits=digits), float(start), float(scale))


_FAR = 1 << 40  # of the scale; from there on f is monotone
_TINY = arb(2) ** -3000


@dataclass(frozen=True)
class _Moved:
    """f in s = (x - start)/(x - start + scale)."""

    target: Target
    start: float
    scale: float
    limit: float

    def enclose(self, s: Any) -> Any:
        target, a, c = self.target, dyadic(self.start), dyadic(self.scale)
        point = s[0] if isinstance(s, arb_series) else s
        if point < 1:
            return _softened(target(a + c * s / (1 - s)))
        if isinstance(s, arb_series):
            return arb_series([arb.nan()])
        low, edge = arb(point.lower()), arb(self.limit)
        if not low < 1:
            return edge
        near, far = a + c * low / (1 - low), a + c * _FAR
        # far away f lies between its value there and its limit, and nowhere else
        between = near if near >= far else near.union(far)
        return edge.union(_softened(target(between))).union(_softened(target(far if near < far else near)))

    def __call__(self, s: Any) -> np.ndarray:
        s = np.asarray(s, dtype=float)
        with np.errstate(all="ignore"):
            x = np.where(s < 1, self.start + self.scale * s / (1 - s), self.start)
            return np.where(s < 1, np.asarray(self.target(x), dtype=float), self.limit)


def _softened(value: Any) -> Any:
    """Numbers far below every error become balls around 0: exactly, exp(-10^9) would fill the memory."""
    if isinstance(value, arb_series):
        return arb_series([_softened(c) for c in value.coeffs()], value.prec)
    value = arb(value)
    return arb(0, _TINY) if abs(value) < _TINY else value
