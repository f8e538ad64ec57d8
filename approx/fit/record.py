"""`Fit`: what every fitter returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from approx.rational import Rational
from approx.target import Target, check_kind


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    rational: the fitted function, in a form that is accurate in float64.
    error: max |w (f - r)| over the domain for that very function, measured on a fine grid with local
    refinement.
    reference: points of the domain where the error equi-oscillates, ascending, shape (k,); empty for fitters
        that do not level an error.
    converged: whether the fitter reached its own goal (for `minimax`: the best approximation).
    history: one number an iteration: the levelled error, or the objective.
    method, target, type: what was asked for; `type` is the (m, n) that the fitter was given.
    levelled: a lower bound on the best error, min |w (f - r)| over `reference` by de la Vallee-Poussin; 0 if
    none.
    message: what happened, in words: escalation, reductions, why it did not converge.
    """

    rational: Rational
    error: float
    reference: np.ndarray
    converged: bool
    history: list[float]
    method: str
    target: Target
    type: tuple[int, int]
    levelled: float = 0.0
    message: str = field(default="")


def check_type(type: tuple[int, int]) -> tuple[int, int]:
    """(m, n) as two ints; raises ValueError unless both are non-negative integers, and at most 1000."""
    try:
        m, n = type
        if m != int(m) or n != int(n) or m < 0 or n < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"type={type!r}: expected two non-negative integers (m, n), the degrees of r = p/q"
        ) from None
    if max(m, n) > 1000:
        raise ValueError(f"type={type!r}: degrees above 1000 are out of reach of these dense methods")
    return int(m), int(n)


def check_target(target: Target) -> None:
    """Raise ValueError unless target is a Target whose values and weight are real and finite, and the weight
    positive, on a sample of the domain.
    """
    check_kind(target)
    x = np.concatenate(
        [np.r_[np.linspace(a, b, 101), [x for x in target.breaks if a < x < b]] for a, b in target.domain]
    )
    with np.errstate(all="ignore"):
        raw, weights = np.asarray(target(x)), np.asarray(target.weight_at(x), dtype=float)
    if raw.shape not in ((), x.shape) or raw.dtype.kind not in "fiub":
        raise ValueError(
            f"f of target {target.name!r} must map float64 arrays to real arrays of the same shape: an array "
            f"of shape {x.shape} gave {raw.dtype} of shape {raw.shape}"
        )
    values = np.broadcast_to(raw.astype(float), x.shape)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"target {target.name!r} is not finite on all of its domain: change domain=")
    crosses = target.weight == "relative" and any(
        values[inside].min() < 0 < values[inside].max()
        for inside in ((x >= a) & (x <= b) for a, b in target.domain)
    )
    if crosses or not np.all(np.isfinite(weights) & (weights > 0)):
        raise ValueError(
            "weight must be finite and positive on the domain (a relative error is not, where the target "
            "is 0): change weight= or domain="
        )
