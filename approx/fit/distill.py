"""`distill`: Route A of the paper, from a standard-Pade function to one with a pole-free denominator."""

from __future__ import annotations

import numpy as np
from flint import fmpq, fmpq_poly

from approx.dyadic import dyadic
from approx.fit.denominators import DENOMINATORS
from approx.fit.error import measured_error
from approx.fit.grid import Grid
from approx.fit.least_squares import best_of, stationary
from approx.fit.result import Fit, Verdict, check_target
from approx.fitted import check_rational
from approx.rational import Rational
from approx.target import Target


def is_safe(rational: Rational) -> bool:
    """Whether the function already has a safe-Pade denominator: even, with no negative coefficient, in
    t = (x - middle of the convex hull). Then |t|^j is t^j, and both safe formulas hold for it as it stands.

    Args:
        rational: the rational function.
    """
    low, high = rational.hull
    centre = (dyadic(low) + dyadic(high)) / 2
    coefficients = rational.exact()[1](fmpq_poly([centre, 1])).coeffs()
    coefficients = [c / coefficients[0] for c in coefficients] if coefficients[0] != 0 else [fmpq(-1)]
    return all(c >= 0 for c in coefficients) and not any(coefficients[1::2])


def distill(
    rational: Rational, target: Target, denominator: str = "safe", *, grid: int = 4001, progress: bool = False
) -> Fit:
    """Fit a safe-Pade function of the same type to the values of `rational` on a grid, in the mean square
    (Route A).

    Where the denominator is even with non-negative coefficients (best approximations of ReLU, sign, tanh,
    sigmoid and SiLU at the paper's types are such) the function is safe-Pade already: it comes back as it
    is, exactly, and `message` says so. `error` is the error against `target`; `history` ends with the mean
    square distance from `rational`.

    Args:
        rational: the teacher.
        target: what the error is measured against.
        denominator: the denominator of the student: "safe", "safe-b" or "standard".
        grid: number of points.
        progress: show a progress bar.

    Raises:
        ValueError: for an unknown denominator, or a `rational` that is not finite on the target's domain.
    """
    check_rational(rational)
    check_target(target)
    if denominator not in DENOMINATORS:
        raise ValueError(f"denominator={denominator!r}: expected one of {', '.join(map(repr, DENOMINATORS))}")
    method, type = f"distill({denominator})", rational.type
    if denominator == "standard" or is_safe(rational):
        error = measured_error(rational, target)
        return Fit(rational, error, np.zeros(0), Verdict.KEPT, [0.0], method, target, type)
    teacher = Target(rational, target.domain, target.weight if callable(target.weight) else None)
    sampled = Grid.of(teacher, grid)
    if not np.all(np.isfinite(sampled.f)):
        raise ValueError("rational has a pole in the target's domain: distill from a pole-free fit")
    model, (theta, c, _), history = best_of(sampled, type, denominator, progress)
    student = model.rational(theta, c)
    verdict = Verdict.STATIONARY if stationary(model, theta, sampled.w) else Verdict.UNSETTLED
    error = measured_error(student, target)
    return Fit(student, error, np.zeros(0), verdict, history, method, target, type)
