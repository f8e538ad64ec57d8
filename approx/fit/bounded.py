"""A polynomial that float64 found as a fit: its error as measured, and the bound that its reference proves."""

from __future__ import annotations

import numpy as np
from flint import arb

from approx.dyadic import dyadic
from approx.fit.double_double import in_unit
from approx.fit.error import errors, float_above, honest_error, level_in_balls, measured_error
from approx.fit.holding import notes_on_bits
from approx.fit.polynomial import Polynomial, level_below
from approx.fit.remainder import Remainder
from approx.fit.result import Fit, Verdict
from approx.fit.series import Series
from approx.rational import Rational
from approx.target import Target


def bounded(target: Target, found: Polynomial, slack: float, remainder: Remainder | None = None) -> Fit:
    """The polynomial of the float64 exchange, added to what was taken off before, as a fit with a bound.

    Args:
        target: the function to approximate.
        found: the polynomial, for what remains where something was taken off.
        slack: how far from its bound a best error may be, relatively.
        remainder: what was taken off, and what remained.
    """
    low, high = map(dyadic, target.hull)
    coefficients = found.coefficients.copy()
    zero = (
        remainder is None
        and found.exact is None
        and float(np.max(np.abs(coefficients))) <= 1e-9 * found.level
    )
    for parity in (0, 1) if found.exact is None else ():  # an even or an odd function, but for rounding
        if np.all(np.abs(coefficients[parity::2]) <= 4e-16 * np.max(np.abs(coefficients))):
            coefficients[parity::2] = 0.0
    whole = found.exact or [dyadic(c) for c in ([0.0] if zero else coefficients)]
    whole = whole if remainder is None else remainder.added(coefficients)
    rational = Rational.from_chebyshev(whole, [1], target.domain, (low + high) / 2, (high - low) / 2)
    x = found.reference
    weights = np.broadcast_to(np.asarray(target.weight_at(x), dtype=float), x.shape)
    if remainder is None:
        top = measured_error(rational, target, x, count=64)
        signed, values, lost, unit = errors(rational, target, x), target(x), 0.0, arb(1)
    else:
        values, unit = remainder.values(x), arb(2) ** remainder.exponent
        signed = weights * (values - Series(coefficients)(*in_unit(x, target.hull)))
        lost = remainder.lost * float(np.max(weights))
        # 1e-11: rounded coefficients; every peak was seen by the exchange
        top = max(found.top, float(np.max(np.abs(signed)))) * (1 + 1e-11) + lost
    error = honest_error(rational, target, float_above(unit * top), x)
    alternates = bool(np.all(np.sign(signed[1:]) * np.sign(signed[:-1]) < 0))
    least = float(np.min(np.abs(signed))) * (1 - 1e-14) if alternates else 0.0
    least = (
        max(least, level_below(x, np.broadcast_to(np.asarray(values, dtype=float), x.shape), weights)) - lost
    )
    least = max(least, found.proven - lost)
    if remainder is None and target.enclosed and slack * top < top - least < 1e-6 * top:
        least = max(least, level_in_balls(target, x))  # float64's rounding may be all that is missing
    floor = float(unit * max(least, 0.0))  # 0 below all floats
    levelled = top <= least * (1 + slack) and error <= float_above(unit * least * (1 + slack))
    verdict = Verdict.BEST if levelled else Verdict.UNLEVELLED if target.enclosed else Verdict.ROUNDING
    details = ["it is the zero function"] if zero else []
    details += notes_on_bits(rational, target, x, error, 53)
    return Fit(
        rational,
        max(error, floor),
        x,
        verdict,
        [float(unit * level) for level in found.history],
        "minimax",
        target,
        (len(found.coefficients) - 1, 0),
        floor,
        "; ".join(details),
    )
