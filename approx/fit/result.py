"""`Fit`: what every fitter returns, and `Verdict`: how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from flint import arb

from approx.rational import Rational
from approx.target import Target, check_kind


class Verdict(Enum):
    """How a fit ended, with the sentence that says so."""

    BEST = "the error alternates often enough: this is the best approximation of its type"
    DEGENERATE = "the best approximation is degenerate: a function of a smaller type is best in this one too"
    EXACT = "the target is itself a rational function of this type"
    ROUNDING = "the target is known to its rounding only: give enclose= to go on"
    SMALLER = "stopped at a smaller type, whose best approximation this is"
    UNLEVELLED = "the exchange stopped before the error was levelled"
    LOST = "held in a form whose error is above the one that the exchange reached"
    POLE = "the levelled function has a pole in a gap of the domain: it is not pole-free on the convex hull"
    STATIONARY = "no small change of the parameters makes it better"
    UNSETTLED = "the gradient has not vanished: a better fit may be near"
    START = "no better than the minimax fit that it started from, which is returned: its real poles have no parameters"
    FALLING = "the largest error was still falling when the p-norm reached its last power"
    GRID_LEVELLED = "the error is levelled on the grid"
    GRID_UNLEVELLED = "the error on the grid is above the levelled error"
    IN_FORMAT = "in coefficients of a format: the best that were found, and the bound is that of real ones"
    KEPT = "already of this form: the same function, exactly"

    @property
    def converged(self) -> bool:
        """Whether the fitter reached its own goal."""
        return self in _REACHED


_REACHED = {
    Verdict.BEST,
    Verdict.DEGENERATE,
    Verdict.EXACT,
    Verdict.STATIONARY,
    Verdict.GRID_LEVELLED,
    Verdict.IN_FORMAT,
    Verdict.KEPT,
}


@dataclass(frozen=True, eq=False)
class Fit:
    """The result of a fit."""

    rational: Rational
    """The fitted function, in a form that is accurate in float64."""
    error: float
    """max |w (f - r)| over the domain for that very function, measured on a fine grid with refinement."""
    reference: np.ndarray
    """Points of the domain where the error equi-oscillates, ascending; empty for fitters that level none."""
    verdict: Verdict
    """How the fit ended."""
    history: list[float]
    """One number an iteration: the levelled error, or the objective."""
    method: str
    """The fitter, with its denominator where it has a choice."""
    target: Target
    """What was approximated."""
    type: tuple[int, int]
    """The (m, n) that the fitter was given."""
    levelled: float = 0.0
    """A lower bound on the best error of that type by de la Vallee-Poussin, up to rounding; 0 for none."""
    detail: str = ""
    """What else happened: a reduction, a number of bits, the type that it stopped at."""
    fixed: Mapping[str, Any] | None = None
    """The coefficients that were held, by name; `levelled` is about functions with these."""

    @property
    def converged(self) -> bool:
        """Whether the fitter reached its own goal (for `minimax`: the best approximation)."""
        return self.verdict.converged

    @property
    def message(self) -> str:
        """What happened, in words: the details, and the verdict where it is not the usual one."""
        usual = self.verdict in (Verdict.BEST, Verdict.STATIONARY, Verdict.GRID_LEVELLED)
        return "; ".join(part for part in (self.detail, "" if usual else self.verdict.value) if part)


_TINY = 1e-290
_HUGE = 1e300  # of x
_FAR = 1 << 38  # an exponent of values
_BESIDE = 16  # neighbours of a step that are looked at


def check_type(type: tuple[int, int]) -> tuple[int, int]:
    """(m, n) as two ints.

    Args:
        type: the argument that a user gave.

    Returns:
        The degrees of numerator and denominator.

    Raises:
        ValueError: unless both are non-negative integers, and at most 1000 (2500 for a polynomial).
    """
    try:
        m, n = type
        if m != int(m) or n != int(n) or m < 0 or n < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"type={type!r}: expected two non-negative integers (m, n), the degrees of r = p/q"
        ) from None
    if max(m, n) > (1000 if n else 2500):
        raise ValueError(
            f"type={type!r}: degrees above 1000, or 2500 of a polynomial, are out of reach of these dense methods"
        )
    return int(m), int(n)


def check_target(target: Target) -> None:
    """Refuse what cannot be fitted.

    Args:
        target: the argument that a user gave.

    Raises:
        ValueError: unless it is a Target whose values and weight are real and finite, each of its own point alone, and
            the weight positive, on a sample of the domain.
    """
    check_kind(target)
    if max(map(abs, target.hull)) > _HUGE:
        raise ValueError(
            f"domain={list(target.domain)} reaches beyond {_HUGE:g}, where float64 overflows in a fit: divide x by a "
            "power of two"
        )
    x = np.concatenate([np.linspace(a, b, 101) for a, b in target.domain.split(target.breaks)])
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
    _check_pointwise(f"f of target {target.name!r}", target, x, values)
    if (
        target.enclosed
        and np.max(np.abs(values)) < _TINY
        and any(target(arb(float(v))) != 0 for v in x[::25])
    ):
        raise ValueError(
            f"target {target.name!r} is below {_TINY:g} on all of its domain, where float64 loses digits: multiply it "
            "by a power of two"
        )
    if target.enclosed and any(
        0 < abs(target(arb(end))) < arb(2) ** -_FAR
        for end in target.domain.edges
        if target(arb(end)).is_finite()
    ):
        raise ValueError(
            f"target {target.name!r} falls below 2^-{_FAR} at an end of its domain, and its digits take as many bits: "
            "let domain= end before"
        )
    typical = float(np.quantile(np.abs(values), 0.9))
    for a, b in target.domain.split(target.breaks):
        name = f"target {target.name!r}"
        _check_continuous(target, name, np.nextafter(a, b), np.nextafter(b, a), typical)
    crosses = target.weight == "relative" and any(
        values[inside].min() < 0 < values[inside].max()
        for inside in ((x >= a) & (x <= b) for a, b in target.domain)
    )
    if crosses or not np.all(np.isfinite(weights) & (weights > 0)):
        raise ValueError(
            "weight must be finite and positive on the domain (a relative error is not, where the target "
            "is 0): change weight= or domain="
        )
    if callable(target.weight):
        name = f"weight= of target {target.name!r}"
        _check_pointwise(name, target.weight_at, x, weights)
        for a, b in target.domain.split(target.breaks):
            inner = np.nextafter(a, b), np.nextafter(b, a)
            _check_continuous(target.weight_at, name, *inner, float(np.quantile(weights, 0.9)))
            _check_positive(target.weight_at, name, a, b)


def refuse_weight(target: Target, fitter: str) -> None:
    """Refuse a weight, where an error without it would be taken for the weighted one.

    Args:
        target: what is to be fitted.
        fitter: who takes none.

    Raises:
        ValueError: where the target has a weight.
    """
    if target.weight is not None:
        raise ValueError(
            f"target {target.name!r} has a weight, and {fitter} takes none: leave it out (with_weight(None)), or "
            "give minimax the function in the other variable"
        )


def _check_pointwise(name: str, f: Callable[[Any], Any], x: np.ndarray, values: np.ndarray) -> None:
    """Refuse a sum, a mean, a cumulative sum: what is another number for a point alone than among others."""
    together = np.broadcast_to(values, x.shape)
    chosen = np.linspace(0, len(x) - 1, 5).astype(int)
    with np.errstate(all="ignore"):
        alone = np.array([np.asarray(f(x[k : k + 1]), dtype=float).ravel()[0] for k in chosen])
        apart = np.nan_to_num(np.abs(alone - together[chosen]), nan=np.inf)
        if np.max(apart) <= 1e-6 * np.max(np.abs(together)):
            return
        noise = np.abs(np.asarray(f(x), dtype=float) - together)  # a measurement gives another each time
    if np.max(apart) > 10 * np.max(noise):
        k = int(np.argmax(apart))
        raise ValueError(
            f"{name} mixes its points: at x = {x[chosen[k]]:.6g} it is {alone[k]:.6g} alone, and "
            f"{together[chosen[k]]:.6g} in an array; make it elementwise, or wrap it in np.vectorize"
        )


def _check_positive(weight: Callable[[Any], Any], name: str, a: float, b: float) -> None:
    """Follow the smallest value of a weight to where floats end: refuse a zero, and what is below it.

    A zero falls on by ratio wherever it is looked at; a small positive minimum is level.
    """
    left, right = a, b
    while True:
        x = np.linspace(left, right, 129)
        with np.errstate(all="ignore"):
            values = np.broadcast_to(np.asarray(weight(x), dtype=float), x.shape)
        j = int(np.argmin(values))
        least, end = float(values[j]), right - left < 64 * np.spacing(max(abs(left), abs(right)))
        if not least > 0 or (end and least < 0.9 * min(values[0], values[-1])):
            raise ValueError(
                f"{name} must be finite and positive on the domain: near x = {x[j]:.6g} it is 0 or less"
            )
        if end or least >= 0.9 * min(values[0], values[-1]):
            return
        left, right = float(x[max(j - 1, 0)]), float(x[min(j + 1, 128)])


def _check_continuous(target: Callable[[Any], Any], name: str, a: float, b: float, size: float) -> None:
    """Zoom in on the largest step and the largest value of f on [a, b]: refuse a pole, and an undeclared jump."""

    def f(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(target(x), dtype=float), x.shape)

    first, last = _place(a), _place(b)
    if last - first < 4 * _BESIDE:  # float64 does not tell a jump from a slope there
        return
    with np.errstate(all="ignore"):
        x = np.linspace(a, b, 130)
        values = f(x)
        steps, large = np.abs(np.diff(values)), float(np.max(np.abs(values)))
        k, top = int(np.argmax(steps)), int(np.argmax(np.abs(values)))
        # a constant's steps are rounding, and say nothing
        if not steps[k] > max(0.1 * float(np.ptp(values)), 1e-10 * large, 1e-13 * size):
            return
        largest, low, high = float(steps[k]), float(x[k]), float(x[k + 1])
        for left, right in ((low, high), (float(x[max(top - 1, 0)]), float(x[min(top + 1, 129)]))):
            place = _pole(f, left, right, 1e6 * size)
            if place is not None:
                raise ValueError(
                    f"{name} is not bounded near x = {place:.6g}: a pole inside the domain; "
                    "leave a gap around it in domain="
                )
        # halved by how many floats there are: 64 times end at neighbours, over any range
        left, right = _place(low), _place(high)
        while right - left > 1:
            between = (left + right) // 2
            low, middle, high = _at(np.array([left, between, right])).tolist()
            fl, fm, fh = f(np.array([low, middle, high])).tolist()
            largest = max(largest, abs(fm - fl), abs(fh - fm))
            left, right = (left, between) if abs(fm - fl) >= abs(fh - fm) else (between, right)
        # a jump stands alone: on a slope the steps beside it are as large
        around = np.clip(np.arange(left - _BESIDE, right + _BESIDE + 1), first, last)
        low = float(_at(around)[_BESIDE])
        near = f(_at(around))
        if not np.all(np.isfinite(near)):  # at one float, perhaps, between the two sides of a jump
            raise ValueError(f"{name} is not finite near x = {low:.6g}: change domain=, or leave a gap in it")
        steps = np.abs(np.diff(near))
        beside = np.r_[steps[: _BESIDE - 1], steps[_BESIDE + 2 :]]  # but for its neighbours: sign(0) is 0
        if steps[_BESIDE] > max(0.3 * largest, float(np.sum(beside))):
            raise ValueError(
                f"{name} jumps near x = {low:.6g}: name the place in jumps=, or leave a gap in domain="
            )


def _place(x: float) -> int:
    """The number of floats from 0 to x, negative below 0."""
    place = int(np.array([abs(x)]).view(np.int64)[0])
    return place if x >= 0 else -place


def _at(places: np.ndarray) -> np.ndarray:
    """The floats at these places."""
    return np.copysign(np.abs(places).view(float), places)


def _pole(f: Callable[[np.ndarray], np.ndarray], left: float, right: float, large: float) -> float | None:
    """Where abs(f) passes a size and grows for as long as floats tell places apart; a narrow peak has a top."""
    edges: list[float] = []
    while True:
        x = np.linspace(left, right, 9)
        values = np.abs(f(x))
        values = np.where(np.isfinite(values), values, np.inf)
        edges.append(float(max(values[0], values[-1])))
        j = int(np.argmax(values))
        top = float(values[j])
        if np.isinf(top) or right - left < 32 * np.spacing(max(abs(left), abs(right))):
            break
        left, right = float(x[max(j - 1, 0)]), float(x[min(j + 1, 8)])
    grows = np.isinf(top) or top > 4 * edges[max(len(edges) - 6, 0)]  # from 1000 times as far
    return float(x[j]) if top > large and grows else None


class Substituted:
    """A fit that was made in another variable: the same function, with the same errors."""

    inner: Fit

    @property
    def error(self) -> float:
        """The largest error, as `Fit.error`."""
        return self.inner.error

    @property
    def levelled(self) -> float:
        """A lower bound on the best error, as `Fit.levelled`."""
        return self.inner.levelled

    @property
    def converged(self) -> bool:
        """Whether this is the best approximation of its type."""
        return self.inner.converged

    @property
    def verdict(self) -> Verdict:
        """How the fit in that variable ended, as `Fit.verdict`."""
        return self.inner.verdict

    @property
    def message(self) -> str:
        """What happened, in words, as `Fit.message`."""
        return self.inner.message
