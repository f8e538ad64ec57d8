"""The steps of a chain in the numbers of a format: which of several roundings is taken, and from which format.

Rounding moves the small minima of a step, even below 0, and the place that a narrow image lies around. Then the step
for a shorter interval can have the better image of the whole one, or the plain step of Newton and Schulz: its
coefficients are few bits long, and it maps 1 to 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, TypeVar

import numpy as np
from flint import fmpq

from approx.chain import Chain, image
from approx.dyadic import dyadic, to_float
from approx.floating_point import BITS, rounded
from approx.rational import Rational

_BITS = 256
_CLOSE = fmpq(1, 10**5)  # relative: by how much rounding may move an image before other steps are tried
_LOST = 4  # an image so large is one of rounding alone
_WORSE = 4  # degrees in a row that are no better than lower ones
_TRIES = 100  # shorter intervals whose steps are tried
_ENDS = 2.0**-52  # an error that rounds the chain's ends, and nothing else
#: formats whose numbers are all numbers of another one
_WITHIN = {
    "float64": ("float32", "bfloat16", "float16"),
    "float32": ("bfloat16", "float16"),
    "bfloat16": (),
    "float16": (),
}

Coefficients = tuple[list[fmpq], list[fmpq]]
C = TypeVar("C", bound=Chain)


class Maps(ABC):
    """The maps that the steps of a chain are taken from."""

    @property
    @abstractmethod
    def odd(self) -> bool:
        """Whether each degree is odd."""

    @abstractmethod
    def best(self, low: fmpq, high: fmpq, degree: int) -> Coefficients:
        """Numerator and denominator of the step of least max |1 - u| on [low, high].

        Args:
            low: left end.
            high: right end.
            degree: of the step.
        """

    def same_below(self, high: fmpq, degree: int, bits: int) -> fmpq:
        """A left end below which the coefficients of `best`, rounded, hardly depend on it: 0 for none.

        Args:
            high: right end.
            degree: of the step.
            bits: of the format.
        """
        return high / (degree**2 << bits)

    @abstractmethod
    def plain(self, degree: int) -> Coefficients:
        """Those of the step that is best at 1: of Newton, Schulz, Halley.

        Args:
            degree: of the step.
        """

    def scaled(self, coefficients: Coefficients, factor: fmpq) -> Coefficients:
        """Those of the step times a factor.

        Args:
            coefficients: of the step.
            factor: the factor.
        """
        num, den = coefficients
        return [c * factor for c in num], den

    @abstractmethod
    def step(self, num: list[fmpq], den: list[fmpq]) -> Rational:
        """What the chain holds of them.

        Args:
            num: coefficients of the numerator.
            den: coefficients of the denominator.
        """

    def mapped(self, step: Rational) -> Rational:
        """What a step does to the intervals.

        Args:
            step: the step.
        """
        return step


def best_step(
    maps: Maps, low: fmpq, high: fmpq, degree: int, kind: str, safety: float, enough: float, lower: bool
) -> tuple[Rational, fmpq, fmpq, bool]:
    """The step of a format with the best image of [low, high].

    Ends that are close by ratio are what the next step needs; but for an image so narrow that no step in the format
    can shift it, and one that is good enough: there the largest distance from 1 counts.

    Args:
        maps: where steps are taken from.
        low: left end.
        high: right end.
        degree: the degree of the step, or the largest one.
        kind: the format of the coefficients.
        safety: relative rounding error of the arithmetic.
        enough: an error at which the chain may end; inf for its last step.
        lower: whether steps of lower degrees are tried too.

    Returns:
        The step, the two ends of its image, and whether rounding hardly moves these.

    Raises:
        ValueError: where every step overflows, or has a pole.
    """
    last, refused = enough == float("inf"), list[ValueError]()
    width = [len(part) for part in maps.plain(degree)]

    def merit(ends: tuple[fmpq, fmpq]) -> tuple[bool, bool, fmpq]:
        low, high = ends
        off = max(1 - low, high - 1)
        good, narrow = to_float(off) <= enough, (high - low) * 2 ** BITS[kind] <= high + low
        return good, narrow, -off if good or narrow else low if low <= 0 else low / high

    def tried(degree: int) -> Iterator[tuple[Rational, tuple[fmpq, fmpq], bool]]:
        for coefficients, ideal in _candidates(maps, low, high, degree, kind, safety, last):
            try:
                num, den = (
                    in_format(c, kind) + [fmpq(0)] * (size - len(c))
                    for c, size in zip(coefficients, width, strict=True)
                )
                step = maps.step(num, den)
                ends = image(maps.mapped(step), low, high, safety)
            except ValueError as error:
                refused.append(error)
                continue
            yield step, ends, ideal is not None and _close(ends, ideal, last)

    first = next(tried(degree), None)
    if first is not None and first[2]:
        return (first[0], *first[1], True)
    degrees = range(1, degree + 1, 2 if maps.odd else 1) if lower else [degree]
    if not lower and first is not None and max(map(abs, first[1])) > _LOST:
        degrees = []
    # the digits that a high degree costs may be worth more than the degree
    best, since = None, 0
    for d in degrees:
        since += 1
        for one in tried(d):
            if best is None or merit(one[1]) > merit(best[1]) or (d == degree and one[1] == best[1]):
                best, since = one, 0
            if one[2]:
                break
        if since == _WORSE:
            break
    found = [one for one in (best, first) if one is not None]
    if not found:
        raise refused[0]
    step, ends, _ = max(found, key=lambda one: merit(one[1]))
    return (step, *ends, False)


def _candidates(
    maps: Maps, low: fmpq, high: fmpq, degree: int, kind: str, safety: float, last: bool
) -> Iterator[tuple[Coefficients, tuple[fmpq, fmpq] | None]]:
    """Coefficients to be rounded; beside the best ones, which come first, the ends of their image."""
    for inner in _ends(low, high, maps.same_below(high, degree, BITS[kind] + 2)):
        num, den = ([dyadic(c, _BITS) for c in part] for part in maps.best(inner, high, degree))
        ends = image(maps.mapped(maps.step(num, den)), low, high, safety)
        ideal = ends if inner == low else None
        if last:
            # a wider interval, or what the arithmetic adds, has moved the middle of the image off 1
            middle = sum(ends, fmpq()) / 2
            ideal = ideal and (ends[0] / middle, ends[1] / middle)
            yield maps.scaled((num, den), 1 / middle), ideal
            ideal = None
        yield (num, den), ideal
        if inner == low:
            yield maps.plain(degree), None


def _ends(low: fmpq, high: fmpq, least: fmpq) -> Iterator[fmpq]:
    """Left ends of intervals: `low`, and then some hundred at most in a geometric row, none below `least`."""
    yield low
    inner = ratio = fmpq(3, 2)
    inner *= low
    while inner < least:
        inner *= ratio
    while inner * ratio**_TRIES < high:
        ratio *= ratio
    while 2 * inner < high:
        yield inner
        inner *= ratio


def _close(ends: tuple[fmpq, fmpq], ideal: tuple[fmpq, fmpq], last: bool) -> bool:
    """Whether the ends are those of an ideal image but for rounding; of the last one, the distance from 1 counts."""
    (low, high), (below, above) = ends, ideal
    off, least = max(1 - low, high - 1), max(1 - below, above - 1)
    if last and 1 - off < (1 - least) * (1 - _CLOSE):
        return False
    return low >= below * (1 - _CLOSE) and high <= above * (1 + _CLOSE) and off <= least * (1 + _CLOSE)


def best_chain(made: Callable[[str, bool], tuple[C, bool]], kind: str) -> C:
    """The best chain of a format's numbers: where rounding decides, coarser formats and lower degrees are tried too.

    So no format gives a worse chain than one whose numbers it holds.

    Args:
        made: the chain with coefficients in a format, of these degrees or of lower ones too, and whether rounding
            hardly moves any of its images.
        kind: the format.

    Returns:
        The chain with the fewest steps, and of these the one of the least error.

    Raises:
        ValueError: what the format itself raises, where none has a chain.
    """
    found: list[C] = []
    refused: ValueError | None = None
    for one, lower in product((kind, *_WITHIN[kind]), (False, True)):
        try:
            chain, close = made(one, lower)
        except ValueError as error:
            refused = refused or error
            continue
        found.append(chain)
        if close or chain.error <= _ENDS:
            break
    if not found:
        assert refused is not None
        raise refused
    return min(found, key=lambda chain: (len(chain.steps), chain.error))


def check_degrees(degrees: Any, least: int, odd: bool) -> tuple[int, ...]:
    """The degree of each step.

    Args:
        degrees: what a user gave; a number alone is one step's.
        least: the least degree.
        odd: whether each is odd.

    Raises:
        ValueError: for anything else.
    """
    try:
        found = np.atleast_1d(degrees).tolist()
        if found and all(d == int(d) and d >= least and (d % 2 or not odd) for d in found):
            return tuple(map(int, found))
    except (TypeError, ValueError):
        pass
    kind = "odd degrees" if odd else "degrees"
    raise ValueError(f"degrees={degrees!r}: expected {kind} of {least} or more, one a step")


def in_format(coefficients: list[fmpq], kind: str) -> list[fmpq]:
    """Coefficients rounded to a format.

    Args:
        coefficients: exact numbers.
        kind: the name of the format.

    Returns:
        The nearest numbers of the format.

    Raises:
        ValueError: if one overflows.
    """
    found = [rounded(to_float(c), kind) for c in coefficients]
    if not np.all(np.isfinite(found)):
        raise ValueError(f"a coefficient overflows in {kind}: use a smaller interval or another dtype")
    return [dyadic(c) for c in found]
