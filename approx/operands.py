"""Numbers that a form can run on besides floats and balls: duals (derivatives) and an emulated bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


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
