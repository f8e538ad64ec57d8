"""What it costs to evaluate a form in a given floating-point format.

The form is run operation by operation in the format itself, with parameters rounded to it, on inputs that
the format can represent; the truth at the same inputs comes from ball arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb
from numpy.polynomial.polynomial import polyval

from approx.domain import Domain
from approx.dyadic import precision, to_float
from approx.fitted import Fitted, opened
from approx.forms import Number, SafePade, SafePadeB
from approx.operands import BFloat16, round_bfloat16
from approx.rational import Rational
from approx.target import Target
from approx.zeros import Zero, parted, series_at, zeros_of

_MOST_BITS, _TERMS = 1 << 12, 13  # of a ball; of a series beside a zero
#: Significant bits of each format
BITS = {"float64": 53, "float32": 24, "bfloat16": 8, "float16": 11}
_NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}
DTYPES = tuple(BITS)
WRITABLE = ("monomial", "chebyshev", "factored", "partial_fractions")
CONVERTIBLE = (*WRITABLE, "barycentric")


def known_dtype(dtype: Any, option: str = "dtype") -> str:
    """The name of a supported format; accepts names, numpy and torch dtypes.

    Args:
        dtype: "float64", "float32", "bfloat16" or "float16", or the numpy or torch dtype.
        option: what it was given as, for the message.

    Raises:
        ValueError: for others.
    """
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else np.dtype(dtype).name
    if name not in DTYPES:
        raise ValueError(f"{option}={dtype!r}: expected one of {', '.join(DTYPES)}")
    return name


def inputs(rational: Rational, domain: Domain, dtype: str, count: int = 1001) -> np.ndarray:
    """Points of the domain that a format represents exactly: evenly spaced ones, some of each binade, and more near its
    ends and the centre.

    Args:
        rational: the rational function.
        domain: the intervals to take points of.
        dtype: the name of the format.
        count: evenly spaced points an interval.

    Returns:
        The points, float64, ascending.
    """
    points: list[np.ndarray] = []
    for a, b in domain:
        close = np.geomspace(1e-8, 1, 40) * (b - a)
        points += [np.linspace(a, b, count), a + close, b - close]
        points += [float(to_float(rational.centre)) + s * close for s in (-1, 1)]
    points += [_of_order(_spread(first, last, count), dtype) for first, last in _ranges(domain, dtype)]
    x = np.concatenate(points)
    with np.errstate(over="ignore"):
        x = (
            round_bfloat16(x.astype(np.float32)).astype(float)
            if dtype == "bfloat16"
            else x.astype(dtype).astype(float)
        )
    x = np.unique(x[domain.contains(x)])
    if not len(x):
        raise ValueError(f"dtype={dtype!r}: no number of it lies in {list(domain)}: use a finer dtype")
    return x


def _spread(first: int, last: int, count: int) -> np.ndarray:
    """Places from `first` to `last`, evenly spaced."""
    return np.unique(np.linspace(first, last, count).astype(np.int64).clip(first, last))


def runs(rational: Rational, domain: Domain, dtype: str, count: int) -> np.ndarray:
    """Runs of neighbouring numbers of a format: evenly spaced by value and by binade, and at the ends of all binades.

    Rounding differs from a number to the next, and its largest error is met in few: single points seldom see it.

    Args:
        rational: the rational function.
        domain: the intervals to take numbers of.
        dtype: "float64" or "float32".
        count: runs of either kind an interval.

    Returns:
        The numbers, float64, ascending.
    """
    beside, found = np.arange(-_RUN // 2, _RUN // 2), [inputs(rational, domain, dtype, count)]
    for first, last in _ranges(domain, dtype):
        binade = 1 << (BITS[dtype] - 1)
        ends = np.arange(-(-first // binade), last // binade + 1) * binade
        low, high = _of_order(np.array([first, last]), dtype).tolist()
        even = np.linspace(low, high, count)
        starts = np.r_[_spread(first, last, count), _orders(even, dtype), ends]
        found.append(_of_order(np.unique((starts[:, None] + beside).clip(first, last)), dtype))
    return np.unique(np.concatenate(found))


def count_inputs(domain: Domain, dtype: str) -> int:
    """How many numbers of a format lie in a domain.

    Args:
        domain: the intervals.
        dtype: "float32", "float16" or "bfloat16".

    Returns:
        The number of numbers, 0 counted once.
    """
    return sum(last - first + 1 for first, last in _ranges(domain, dtype))


def every_input(domain: Domain, dtype: str, block: int = 1 << 20) -> Iterator[np.ndarray]:
    """All numbers of a format in a domain, in blocks.

    Args:
        domain: the intervals.
        dtype: "float32", "float16" or "bfloat16".
        block: numbers a block, at most.

    Yields:
        float64 arrays, ascending.
    """
    for first, last in _ranges(domain, dtype):
        for start in range(first, last + 1, block):
            yield _of_order(np.arange(start, min(start + block, last + 1)), dtype)


def _ranges(domain: Domain, dtype: str) -> list[tuple[int, int]]:
    """For each interval the places of its first and last number in the order of the format."""
    found: list[tuple[int, int]] = []
    for a, b in domain:
        first, last = _order(a, dtype), _order(b, dtype)
        first += float(_of_order(np.array([first]), dtype)[0]) < a
        last -= float(_of_order(np.array([last]), dtype)[0]) > b
        if first <= last:
            found.append((first, last))
    return found


def _order(x: float, dtype: str) -> int:
    """The place of the number nearest to x: 0 for 0, 1 for the smallest positive one, and so on."""
    if dtype == "bfloat16":
        place = int(np.array([abs(rounded(x, dtype))], np.float32).view(np.uint32)[0]) >> 16
    else:
        place = int(np.array([abs(rounded(x, dtype))], dtype).view(f"u{np.dtype(dtype).itemsize}")[0])
    return place if x >= 0 else -place


def _orders(x: np.ndarray, dtype: str) -> np.ndarray:
    """`_order` of many numbers."""
    kind = np.dtype(dtype)
    return np.where(x >= 0, 1, -1) * np.abs(x.astype(kind)).view(f"i{kind.itemsize}").astype(np.int64)


def _of_order(places: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers at these places, float64."""
    if dtype == "bfloat16":
        size = (np.abs(places).astype(np.uint32) << 16).view(np.float32)
    else:
        kind = np.dtype(dtype)
        size = np.abs(places).astype(f"u{kind.itemsize}").view(kind)
    return np.sign(places) * size.astype(float)


def run(rational: Rational, x: np.ndarray, dtype: str) -> np.ndarray:
    """r(x) computed in `dtype` throughout, returned as float64.

    Args:
        rational: the rational function.
        x: float64 points that the format holds.
        dtype: the name of the format.
    """
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":
            number = Number(lambda c: _bfloat16(to_float(c)), BITS[dtype])
            value: Any = rational.run(BFloat16(round_bfloat16(x.astype(np.float32))), number)
            return value.value.astype(float)
        kind = np.dtype(dtype).type
        number = Number(lambda c: kind(to_float(c)), BITS[dtype])
        return np.asarray(rational.run(x.astype(kind), number)).astype(float)


def rounded(value: float, dtype: str) -> float:
    """A number rounded to a format.

    Args:
        value: the number.
        dtype: the name of the format.

    Returns:
        The nearest number of the format; infinite where it overflows.
    """
    if dtype == "float64":
        return value
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            return float(round_bfloat16(np.array([value], dtype=np.float32))[0])
        return float(np.dtype(dtype).type(value))


def _bfloat16(value: float) -> np.float32:
    return np.float32(round_bfloat16(np.array([value], dtype=np.float32))[0])


def evaluation_error(
    rational: Rational | Fitted,
    dtype: Any = "float32",
    form: str | None = None,
    domain: Any = None,
    target: Target | None = None,
) -> float:
    """max w |computed - exact| when a form is evaluated in a format throughout.

    Parameters are rounded to the format; inputs are about 1000 numbers of it in the domain.

    Args:
        rational: the function, or a fit, which brings its target.
        dtype: "float64", "float32", "bfloat16" or "float16" (or the numpy or torch dtype).
        form: the form to evaluate; by default the held one.
        domain: where; by default the domain of `rational`.
        target: its weight is w; 1 without a target.

    Returns:
        The largest error seen; infinite where the evaluation overflows.

    Raises:
        ValueError: for an unknown dtype or form, or partial fractions of a function with multiple poles.
    """
    name = known_dtype(dtype)
    rational, target = opened(rational, target)
    held = rational if form is None else in_form(rational, form)
    x = inputs(held, rational.domain if domain is None else Domain(domain), name)
    with precision(128 + rational.bits):
        truth = np.array([float(rational(arb(float(v)))) for v in x])
    f = None if target is None or target.weight != "relative" else _in_balls(target, x)[1]
    error = _weighted(np.abs(run(held, x, name) - truth), target, x, f, name)
    return float(np.max(np.where(np.isfinite(error), error, np.inf)))


def _weighted(
    error: np.ndarray,
    target: Target | None,
    x: np.ndarray,
    f: np.ndarray | None,
    dtype: str,
) -> np.ndarray:
    """w error; no error at all stays 0 where a relative weight is infinite. `f` are the target's values at x.

    Values that are too small to be normal have few digits, in every form: no relative error counts there.
    """
    if target is None or target.weight is None:
        return error
    with np.errstate(all="ignore"):
        if f is not None and target.weight == "relative":
            size = np.abs(f)
            error = np.where(_subnormal(f, dtype), 0.0, error)
            weight = 1 / size
        else:
            weight = np.asarray(target.weight_at(x), dtype=float)
        return np.where(error == 0, 0.0, error * weight)


def _subnormal(f: np.ndarray, dtype: str) -> np.ndarray:
    return (f != 0) & (np.abs(f) < _NORMAL[dtype])


def _in_balls(
    target: Target, x: np.ndarray, computed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """|computed - f| and f, to all digits of float64 where the target is enclosed, however much f cancels."""
    if not target.enclosed:
        f = np.asarray(target(x), dtype=float)
        return np.abs(f if computed is None else computed - f), f
    errors, values = [], []
    for v, y in zip(x.tolist(), (x if computed is None else computed).tolist(), strict=True):
        bits = 160
        while True:
            with precision(bits):
                f = arb(target(arb(v)))
                if f.rel_accuracy_bits() >= 96 or bits > _MOST_BITS:
                    errors.append(float(abs(arb(y) - f)))
                    values.append(float(f.mid()))
                    break
            bits *= 4
    return np.array(errors), np.array(values)


class _Truth:
    """A target in float64, and by series beside its zeros, where formulas cancel: log(1 + x) is 0 for 1e-17."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._near: list[tuple[Zero, float, np.ndarray]] = []
        zeros: tuple[Zero, ...] = ()
        if target.enclosed and target.weight == "relative":
            with suppress(ValueError):  # zeros that are none of a polynomial's
                zeros = zeros_of(parted(target))
        for zero in zeros:
            c = np.array([float(c.mid()) for c in series_at(target, arb(zero.exact), _TERMS, 256)])
            c[: zero.multiplicity] = 0.0
            first, last = abs(c[zero.multiplicity]), float(np.max(np.abs(c[-2:])))
            reach = (2.0**-60 * first / last) ** (1 / (_TERMS - 2 - zero.multiplicity)) if last else np.inf
            folds = [abs(zero.place - x) for x in target.breaks]
            self._near.append((zero, min(reach, 2.0**-6 * target.domain.length, *folds), c))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """f at x."""
        values = np.array(np.broadcast_to(np.asarray(self.target(x), dtype=float), x.shape))
        for zero, reach, c in self._near:
            near = np.abs(x - zero.place) <= reach
            values[near] = polyval((x[near] - zero.place) - float(zero.beside), c)
        return values


@dataclass(frozen=True)
class Measured:
    """The largest error of a function in a format."""

    error: float
    """max w |computed - f| over the inputs, f being the target, or the exact function without one."""
    inputs: int
    """How many numbers of the format were looked at."""
    exhaustive: bool
    """Whether these are all numbers of the format in the domain."""
    subnormal: bool = False
    """Whether some were left out of a relative error, since f has no normal value of the format there."""


_FEASIBLE = 1 << 25
_RUN = 32  # neighbours
_RUNS, _SINGLE, _IN_BALLS = 1 << 12, 1 << 17, 6000
_WORST, _AROUND = 32, 2048  # places, and neighbours that are looked at about each


def measured(held: Rational, dtype: str, target: Target | None = None) -> Measured:
    """The largest error over all inputs of a format, where they can be counted through in seconds; else over runs of
    them, and over more beside the worst.

    The truth at an input is float64's, of the target or of the function itself. An error of float64 is measured in
    balls, where the target is enclosed, at the worst inputs of those that were looked at.

    Args:
        held: the function, in the form that is to be evaluated.
        dtype: the name of the format.
        target: what the error is measured against, with its weight.

    Returns:
        The error, and what it was measured on.
    """
    every = dtype != "float64" and count_inputs(held.domain, dtype) <= _FEASIBLE
    truth: Any = _Truth(target) if target is not None else held
    if target is None and not _piecewise(held):
        truth = held.to("factored", bits=max(53, held.bits))

    relative, subnormal = target is not None and target.weight == "relative", False

    def errors(x: np.ndarray) -> np.ndarray:
        nonlocal subnormal
        with np.errstate(all="ignore"):
            exact = np.asarray(truth(x), dtype=float)
            error = _weighted(np.abs(run(held, x, dtype) - exact), target, x, exact, dtype)
        subnormal |= relative and bool(np.any(_subnormal(exact, dtype)))
        return np.where(np.isnan(error), np.inf, error)

    if every:
        tops = [(float(np.max(errors(x), initial=0.0)), len(x)) for x in every_input(held.domain, dtype)]
        size = sum(size for _, size in tops)
        return Measured(max((top for top, _ in tops), default=0.0), size, True, subnormal)
    x = np.union1d(runs(held, held.domain, dtype, _RUNS), inputs(held, held.domain, dtype, _SINGLE))
    error = errors(x)
    places = _orders(x[np.argsort(-error)[:_WORST]], dtype)[:, None] + np.arange(-_AROUND, _AROUND)
    more = np.unique(
        np.concatenate([_of_order(np.clip(places, *ends), dtype) for ends in _ranges(held.domain, dtype)])
    )
    more = np.setdiff1d(more[held.domain.contains(more)], x)
    x, error = np.r_[x, more], np.r_[error, errors(more)]
    if dtype == "float64" and target is not None and target.enclosed:
        # float64 is no truth of itself: the worst by its lights, and as many that are spread evenly
        worst = np.unique(
            np.r_[np.argsort(-error)[:_IN_BALLS], np.arange(0, len(x), len(x) // _IN_BALLS + 1)]
        )
        with np.errstate(all="ignore"):
            off, f = _in_balls(target, x[worst], run(held, x[worst], dtype))
            error = _weighted(off, target, x[worst], f, dtype)
        x, error = x[worst], np.where(np.isnan(error), np.inf, error)
    return Measured(float(np.max(error)), len(x), False, subnormal)


def _piecewise(rational: Rational) -> bool:
    return isinstance(rational.form, SafePade | SafePadeB)


def best_form(
    rational: Rational | Fitted,
    dtype: Any = "float32",
    writable: bool = False,
    target: Target | None = None,
) -> str:
    """The form with the smallest `evaluation_error`, among the held one and all that it converts to.

    In a format of 16 bits, with a target, the one with the smallest error against the target on all its numbers.

    Args:
        rational: the function, or a fit, which brings its target.
        dtype: the format, as for `evaluation_error`.
        writable: choose only among forms that straight-line code can evaluate.
        target: its weight counts; 1 without a target.

    Returns:
        The name of the form.

    Raises:
        ValueError: for an unknown dtype.
    """
    rational, target = opened(rational, target)
    names = [rational.form.name] if rational.form.writable or not writable else []
    if not isinstance(rational.form, SafePade | SafePadeB):
        num, den = rational.exact()
        simple = den.gcd(den.derivative()).degree() == 0
        # rounded partial fractions have a numerator of degree n - 1 at least
        fits = simple and num.degree() >= den.degree() - 1
        names += [
            f
            for f in (WRITABLE if writable else CONVERTIBLE)
            if f not in names and (f != "partial_fractions" or fits)
        ]
    kind = known_dtype(dtype)
    if target is not None and BITS[kind] <= BITS["float16"]:
        return min(names, key=lambda f: measured(in_form(rational, f), kind, target).error)
    return min(names, key=lambda f: evaluation_error(rational, dtype, f, None, target))


def in_form(rational: Rational, form: str) -> Rational:
    """A function in a form, with parameters as fine as those that it has, and as float64's.

    Args:
        rational: the rational function.
        form: the name of the form.
    """
    return rational if form == rational.form.name else rational.to(form, bits=max(53, rational.bits))
