"""`Region`: where a complex function is approximated, given by the arcs and line segments that bound it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flint import acb, arb


@dataclass(frozen=True)
class Part:
    """z(u), 0 <= u <= 1: centre + radius exp(i(start + u turn)), or, with radius 0, start + u turn."""

    centre: complex
    """Centre of the circle; 0 of a line."""
    radius: float
    """Its radius; 0 for a line."""
    start: complex
    """The first angle in radians, or the first point of a line."""
    turn: complex
    """The angle, or the vector, from there to the end."""

    def at(self, u: np.ndarray) -> np.ndarray:
        """z(u), complex128 of the same shape.

        Args:
            u: numbers in [0, 1].
        """
        way = self.start + u * self.turn
        return self.centre + self.radius * np.exp(1j * way) if self.radius else np.asarray(way, dtype=complex)

    def ball(self, low: float, high: float) -> acb:
        """A ball that holds z(u) for low <= u <= high.

        Args:
            low: the smallest u.
            high: the largest u.
        """
        u = arb(low).union(arb(high))
        way = acb(self.start) + u * acb(self.turn)
        if not self.radius:
            return way
        return acb(self.centre) + self.radius * acb(way.real.cos(), way.real.sin())

    @property
    def speed(self) -> float:
        """|z'(u)|, which is constant."""
        return abs(self.turn) * (self.radius or 1.0) * (1 + 1e-14)

    @property
    def bend(self) -> float:
        """|z''(u)|, which is constant."""
        return self.radius * abs(self.turn) ** 2 * (1 + 1e-14)

    @property
    def closed(self) -> bool:
        """Whether it is a whole circle."""
        return self.radius > 0 and abs(self.turn) >= 2 * math.pi * (1 - 1e-12)


@dataclass(frozen=True)
class Region:
    """A curve in the complex plane, or all that it encloses.

    Make one by `disc`, `circle`, `rectangle`, `segment` or `arc`.
    """

    name: str
    """What messages call it."""
    parts: tuple[Part, ...]
    """Its boundary, or the curve itself."""
    filled: bool
    """Whether the inside belongs to it: then no pole may lie there."""

    @classmethod
    def disc(cls, centre: complex = 0, radius: float = 1) -> Region:
        """All z with |z - centre| <= radius.

        Args:
            centre: the centre.
            radius: the radius, positive.
        """
        return cls("disc", (_circle(centre, radius),), True)

    @classmethod
    def circle(cls, centre: complex = 0, radius: float = 1) -> Region:
        """All z with |z - centre| = radius; poles may lie inside.

        Args:
            centre: the centre.
            radius: the radius, positive.
        """
        return cls("circle", (_circle(centre, radius),), False)

    @classmethod
    def arc(cls, start: float, stop: float, centre: complex = 0, radius: float = 1) -> Region:
        """The arc of a circle from one angle to another.

        Args:
            start: the first angle in radians.
            stop: the last one, less than a turn from it.
            centre: the centre of the circle.
            radius: its radius.
        """
        if not 0 < abs(stop - start) < 2 * math.pi:
            raise ValueError(f"start={start}, stop={stop}: expected angles less than a whole turn apart")
        return cls("arc", (_circle(centre, radius, start, stop - start),), False)

    @classmethod
    def segment(cls, a: complex, b: complex) -> Region:
        """The straight line from a to b.

        Args:
            a: one end.
            b: the other.
        """
        a, b = _number(a, "a"), _number(b, "b")
        if a == b:
            raise ValueError(f"a={a}, b={b}: expected two different points")
        return cls("segment", (Part(0, 0.0, a, b - a),), False)

    @classmethod
    def rectangle(cls, low: complex, high: complex) -> Region:
        """All z between two opposite corners.

        Args:
            low: the lower left corner.
            high: the upper right one.
        """
        low, high = _number(low, "low"), _number(high, "high")
        if not (low.real < high.real and low.imag < high.imag):
            raise ValueError(f"low={low}, high={high}: expected the lower left and the upper right corner")
        corners = [low, complex(high.real, low.imag), high, complex(low.real, high.imag)]
        lines = [Part(0, 0.0, a, b - a) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
        return cls("rectangle", tuple(lines), True)

    def sample(self, count: int) -> np.ndarray:
        """About `count` points along the curve, denser towards the ends of its parts, complex128.

        Args:
            count: how many.
        """
        size = max(8, count // len(self.parts))
        even = np.arange(size) / size
        shares = (1 - np.cos(np.pi * np.arange(size + 1) / size)) / 2
        return np.concatenate([part.at(even if part.closed else shares) for part in self.parts])

    def surely_outside(self, z: acb) -> bool:
        """Whether a ball is proven to lie outside a filled region.

        Args:
            z: a ball.
        """
        if len(self.parts) == 1:
            return bool(abs(z - acb(self.parts[0].centre)) > self.parts[0].radius)
        corners = [complex(part.start) for part in self.parts]
        low, high = min(corners, key=lambda c: c.real + c.imag), max(corners, key=lambda c: c.real + c.imag)
        return bool(z.real < low.real or z.real > high.real or z.imag < low.imag or z.imag > high.imag)


def _circle(centre: complex, radius: float, start: float = 0.0, turn: float = 2 * math.pi) -> Part:
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"radius={radius!r}: expected a positive number")
    return Part(_number(centre, "centre"), float(radius), complex(start), complex(turn))


def _number(value: complex, name: str) -> complex:
    value = complex(value)
    if not np.isfinite(value):
        raise ValueError(f"{name}={value}: expected a finite number")
    return value
