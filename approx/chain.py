"""What certified chains of maps share: the proven error, and the record that proves itself when it is read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

from approx.dyadic import dyadic
from approx.files import write_json
from approx.proofs.decimals import float_below
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
    def verify(self) -> None:
        """Prove the images anew from the exact coefficients.

        Raises:
            ValueError: if an image is larger than what is claimed.
        """

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
                raise ValueError(f"not a {name} of version 1")
            fields = {
                "steps": tuple(map(Rational.from_json, data["steps"])),
                "dtype": data["dtype"],
                "safety": float.fromhex(data["safety"]),
                "images": tuple((float.fromhex(a), float.fromhex(b)) for a, b in data["images"]),
            }
            made = cls(**fields, **own(data))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed record of a {name}: {type(error).__name__}: {error}") from None
        made.verify()
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
