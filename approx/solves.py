"""How many steps a linear solve takes: proven bounds for the Chebyshev iteration and for conjugate gradients.

After m steps the error is p(A) e_0, p a polynomial of degree m with p(0) = 1. The least max |p| over a spectrum in
[a, b] is 1/T_m((b + a)/(b - a)), T_m Chebyshev's polynomial. The Chebyshev iteration has that very p. Conjugate
gradients have the best p for the energy norm |e|_A = sqrt(e' A e), so their error there is no larger.
"""

from __future__ import annotations

import math

from flint import arb

from approx.dyadic import dyadic, precision
from approx.proofs.decimals import float_below

_BITS = 128


def chebyshev_bound(a: float, b: float, steps: int) -> float:
    """1/T_m((b + a)/(b - a)), rounded up: what m steps leave of the error of a symmetric positive definite solve.

    It bounds |e_m|/|e_0| of the Chebyshev iteration in the Euclidean norm, in the energy norm, and for the residual;
    of conjugate gradients in the energy norm. It is also the least max |1 - x p(x)| over polynomials p of degree
    m - 1 on [a, b]: the relative error of the best fixed polynomial for 1/x. Exact arithmetic is assumed.

    Args:
        a: a lower bound of the spectrum, above 0.
        b: an upper bound of the spectrum.
        steps: the number m of steps, 0 or more.

    Returns:
        The bound, at most 1; 0 for a = b after a step.

    Raises:
        ValueError: unless 0 < a <= b and the number of steps is a whole number.

    Source:
        A. Greenbaum, Iterative Methods for Solving Linear Systems, 1997, theorem 3.1.1.
    """
    _check(a, b)
    if steps != int(steps) or steps < 0:
        raise ValueError(f"steps={steps!r}: expected a whole number, 0 or more")
    if steps == 0:
        return 1.0
    if a == b:
        return 0.0
    with precision(_BITS):
        low, high = arb(dyadic(a)), arb(dyadic(b))
        # T_m(cosh s) = cosh(m s), with cosh s = 1 + 2 sinh(s/2)^2 and no cancellation
        half = (low / (high - low)).sqrt().asinh()
        largest = (1 / (2 * int(steps) * half).cosh()).upper()
        return -float_below(-largest.fmpq())


def chebyshev_steps(a: float, b: float, error: float) -> int:
    """The fewest steps of the Chebyshev iteration, or of conjugate gradients, that a proven bound holds for.

    Args:
        a: a lower bound of the spectrum, above 0.
        b: an upper bound of the spectrum.
        error: the wanted |e_m|/|e_0|, as in `chebyshev_bound`; inside (0, 1).

    Returns:
        The least m with `chebyshev_bound(a, b, m) <= error`.

    Raises:
        ValueError: unless 0 < a <= b and 0 < error < 1.
    """
    _check(a, b)
    if not 0 < error < 1:
        raise ValueError(f"error={error!r} must lie in (0, 1): it is relative to the error of the start")
    if a == b:
        return 1
    steps = max(1, math.ceil(math.acosh(1 / error) / (2 * math.asinh(math.sqrt(a / (b - a))))))
    while chebyshev_bound(a, b, steps) > error:
        steps += 1
    while steps > 1 and chebyshev_bound(a, b, steps - 1) <= error:
        steps -= 1
    return steps


def _check(a: float, b: float) -> None:
    if not (0 < a <= b and math.isfinite(b)):
        raise ValueError(
            f"a={a!r}, b={b!r}: expected 0 < a <= b, bounds of the spectrum of a positive definite matrix"
        )
