"""What a form or a formula runs on besides floats and balls: duals (derivatives), an emulated bfloat16, and quotients
of polynomials.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flint import fmpq, fmpq_poly

from approx.dyadic import dyadic


@dataclass(frozen=True)
class Dual:
    """A value with its derivative: enough arithmetic to differentiate a form by running it."""

    value: Any
    """The value."""
    slope: Any
    """Its derivative."""

    def __add__(self, o: Any) -> Dual:
        return (
            Dual(self.value + o.value, self.slope + o.slope)
            if isinstance(o, Dual)
            else Dual(self.value + o, self.slope)
        )

    def __mul__(self, o: Any) -> Dual:
        if isinstance(o, Dual):
            return Dual(self.value * o.value, self.slope * o.value + self.value * o.slope)
        return Dual(self.value * o, self.slope * o)

    def __truediv__(self, o: Any) -> Dual:
        if not isinstance(o, Dual):
            return Dual(self.value / o, self.slope / o)
        value = self.value / o.value
        return Dual(value, (self.slope - value * o.slope) / o.value)

    def __rtruediv__(self, o: Any) -> Dual:
        value = o / self.value
        return Dual(value, -(value * self.slope) / self.value)

    def __neg__(self) -> Dual:
        return self * -1

    def __sub__(self, o: Any) -> Dual:
        return self + (-o)

    def __rsub__(self, o: Any) -> Dual:
        return -self + o

    def __abs__(self) -> Dual:
        # only ever used away from the kink, or where the slope there does not matter
        return Dual(abs(self.value), self.slope * np.sign(self.value))

    __radd__ = __add__
    __rmul__ = __mul__


def round_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 values rounded to the nearest bfloat16, ties to even, as float32.

    Args:
        x: float32 values, any shape.
    """
    bits = np.asarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), rounded, np.asarray(x, dtype=np.float32))


@dataclass(frozen=True)
class BFloat16:
    """An array in bfloat16: float32 rounded after every operation, which is what hardware without fused
    steps does.
    """

    value: np.ndarray
    """float32 numbers that bfloat16 holds."""

    def _apply(self, function: Any, *operands: Any) -> BFloat16:
        raw = [o.value if isinstance(o, BFloat16) else np.float32(o) for o in operands]
        return BFloat16(round_bfloat16(function(*raw)))

    def __add__(self, o: Any) -> BFloat16:
        return self._apply(np.add, self, o)

    def __sub__(self, o: Any) -> BFloat16:
        return self._apply(np.subtract, self, o)

    def __rsub__(self, o: Any) -> BFloat16:
        return self._apply(np.subtract, o, self)

    def __mul__(self, o: Any) -> BFloat16:
        return self._apply(np.multiply, self, o)

    def __truediv__(self, o: Any) -> BFloat16:
        return self._apply(np.divide, self, o)

    def __rtruediv__(self, o: Any) -> BFloat16:
        return self._apply(np.divide, o, self)

    def __abs__(self) -> BFloat16:
        return BFloat16(np.abs(self.value))

    __radd__ = __add__
    __rmul__ = __mul__


_MOST_DEGREES = 2000  # of a power: beyond them exact coefficients take longer than they tell


@dataclass(frozen=True)
class Quotient:
    """num/den, exactly: a formula of + - * /, abs and whole powers run on x tells which rational function it is.

    abs is decided by the sign in the middle of a piece; `signs` collects what must not change its sign there.
    """

    num: fmpq_poly
    """Numerator."""
    den: fmpq_poly
    """Denominator."""
    middle: fmpq
    """A point of the piece."""
    signs: list[fmpq_poly]
    """Polynomials whose signs were taken, of all quotients of a run."""

    @classmethod
    def of(cls, function: Callable[[Any], Any], middle: fmpq) -> Quotient | None:
        """The rational function that an expression is; None where it shows none.

        Args:
            function: the expression, on numbers of any kind.
            middle: a point of the piece that it is asked about.
        """
        x = cls(fmpq_poly([0, 1]), fmpq_poly([1]), middle, [])
        with suppress(TypeError, AttributeError, ValueError, ArithmeticError, NotImplementedError):
            value = x._from(function(x))
            return value if isinstance(value, Quotient) else None
        return None

    def _from(self, o: Any) -> Any:
        if isinstance(o, int | float | fmpq):
            number = o if isinstance(o, fmpq) else dyadic(o)
            return replace(self, num=fmpq_poly([number]), den=fmpq_poly([1]))
        return o if isinstance(o, Quotient) else NotImplemented

    def __add__(self, o: Any) -> Quotient:
        o = self._from(o)
        if o is NotImplemented:
            return o
        return replace(self, num=self.num * o.den + o.num * self.den, den=self.den * o.den)

    def __mul__(self, o: Any) -> Quotient:
        o = self._from(o)
        return o if o is NotImplemented else replace(self, num=self.num * o.num, den=self.den * o.den)

    def __rtruediv__(self, o: Any) -> Quotient:
        if not self.num:
            raise ZeroDivisionError("a quotient by 0")
        return replace(self, num=self.den, den=self.num) * o

    def __truediv__(self, o: Any) -> Quotient:
        o = self._from(o)
        return o if o is NotImplemented else self * (1 / o)

    def __neg__(self) -> Quotient:
        return self * -1

    def __sub__(self, o: Any) -> Quotient:
        return self + -o

    def __rsub__(self, o: Any) -> Quotient:
        return -self + o

    def __pow__(self, power: int) -> Quotient:
        if max(self.num.degree(), self.den.degree()) * power > _MOST_DEGREES:
            raise NotImplementedError("a power of too many degrees")
        return replace(self, num=self.num**power, den=self.den**power)

    def __abs__(self) -> Quotient:
        return self if self.positive() else -self

    def positive(self) -> bool:
        """Whether it is positive on the piece, if its sign is one there."""
        self.signs.extend((self.num, self.den))
        return self.num(self.middle) * self.den(self.middle) > 0

    __radd__ = __add__
    __rmul__ = __mul__
