"""What certified chains of maps share: the proof of the images, and the record that proves itself when it is read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, Self

from flint import arb, fmpq

from approx.dyadic import dyadic, to_float
from approx.files import write_json
from approx.floating_point import DTYPES, known_dtype, rounded
from approx.forms import Monomial
from approx.proofs.bounds import least, most
from approx.proofs.decimals import float_below
from approx.proofs.real_roots import extrema, isolate
from approx.rational import Rational


class Chain(ABC):
    """A chain whose last image is to be 1; the dataclasses that derive from it say what it maps."""

    #: its name in records
    kind: ClassVar[str]
    steps: tuple[Rational, ...]
    dtype: str
    safety: float
    images: tuple[tuple[float, float], ...]

    @property
    def error(self) -> float:
        """Proven: how far the last image reaches from 1."""
        low, high = self.images[-1]
        return max(-float_below(dyadic(low) - 1), -float_below(1 - dyadic(high)))

    @abstractmethod
    def coefficients(self) -> list[Any]:
        """The table of the steps' coefficients."""

    @abstractmethod
    def _first(self) -> tuple[fmpq, fmpq]:
        """The interval that the first step maps.

        Raises:
            ValueError: if the chain's own fields are outside their range.
        """

    @abstractmethod
    def _map(self, step: Rational) -> Rational:
        """What a step does to the intervals.

        Raises:
            ValueError: for a step of another shape than the table of coefficients has.
        """

    def _numbers(self, step: Rational) -> list[fmpq]:
        """The numbers that the table holds of a step, exactly."""
        return list(step.form.parameters())

    def verify(self) -> None:
        """Prove the images anew from the exact coefficients.

        Raises:
            ValueError: if an image is larger than what is claimed, or a field is not what the proof is about.
        """
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: expected one of {', '.join(DTYPES)}")
        check_safety(self.safety)
        if not 0 < len(self.steps) == len(self.images):
            raise ValueError(f"{len(self.steps)} steps, {len(self.images)} images: expected an image a step")
        low, high = self._first()
        for step, (a, b) in zip(self.steps, self.images, strict=True):
            # the table of coefficients is in the variable itself: the proof is about nothing else
            if not isinstance(step.form, Monomial) or step.centre != 0 or step.scale != 1:
                raise ValueError("a step is not held as powers of the variable itself")
            for c in self._numbers(step):
                if rounded(to_float(c), self.dtype) != to_float(c) or dyadic(to_float(c)) != c:
                    raise ValueError(f"a coefficient, {to_float(c)!r}, is not a number of {self.dtype}")
            low, high = image(self._map(step), low, high, self.safety)
            if low < dyadic(a) or high > dyadic(b):
                raise ValueError(f"the image [{a}, {b}] that the chain claims is too small")
            low, high = dyadic(a), dyadic(b)

    def _record(self, own: dict[str, Any]) -> dict[str, Any]:
        """The record: `own` fields beside those of all chains; the steps exactly."""
        return {
            "kind": self.kind,
            "version": 1,
            **own,
            "dtype": self.dtype,
            "safety": self.safety.hex(),
            "error": self.error,
            "images": [[a.hex(), b.hex()] for a, b in self.images],
            "coefficients": self.coefficients(),
            "steps": [step.to_json() for step in self.steps],
        }

    @classmethod
    def _read(cls, data: Any, own: Callable[[Any], dict[str, Any]]) -> Self:
        """The chain of a record; `own` reads the fields that are its own."""
        name = cls.kind.replace("_", " ")
        try:
            if data["kind"] != cls.kind or data["version"] != 1:
                raise ValueError(f"expected kind {cls.kind!r} and version 1")
            fields = {
                "steps": tuple(map(Rational.from_json, data["steps"])),
                "dtype": known_dtype(data["dtype"]),
                "safety": float.fromhex(data["safety"]),
                "images": tuple((float.fromhex(a), float.fromhex(b)) for a, b in data["images"]),
            }
            made = cls(**fields, **own(data))
            made.verify()
            # what a reader without this package goes by
            for field, value in (("error", made.error), ("coefficients", made.coefficients())):
                if data[field] != value:
                    raise ValueError(f"its {field!r} are not those of its steps and images")
        except ValueError as error:
            raise ValueError(f"not a {name}: {error}") from None
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"malformed record of a {name}: {type(error).__name__}: {error}") from None
        return made

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A self-contained record: the steps exactly, and the table of coefficients."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON, whole or not at all.

        Args:
            path: the file.
        """
        write_json(path, self.to_json())


def check_safety(safety: float) -> None:
    """Refuse what is no relative rounding error.

    Args:
        safety: the relative rounding error of the arithmetic of a step.

    Raises:
        ValueError: outside [0, 0.5).
    """
    if not (isinstance(safety, Real) and 0 <= safety < 0.5):
        raise ValueError(f"safety={safety!r} must be a number in [0, 0.5): it is a relative rounding error")


def image(step: Rational, low: fmpq, high: fmpq, safety: float) -> tuple[fmpq, fmpq]:
    """An enclosure of the image of [low, high], widened by the rounding that is allowed for.

    Args:
        step: a rational function, as its form holds it.
        low: left end.
        high: right end.
        safety: the relative rounding.

    Raises:
        ValueError: if the step has a pole there.
    """
    num, den = step.form.exact()
    if isolate(den, low, high):
        raise ValueError("a step has a pole in the interval")
    values = [ball for _, ball in extrema(num, den, low, high, bits=100)]
    below, above = min(_below(v) for v in values), max(-_below(-v) for v in values)
    slack = dyadic(safety)
    return below - slack * abs(below), above + slack * abs(above)


def _below(ball: arb) -> fmpq:
    return least(ball) if ball > 0 else -most(ball)
