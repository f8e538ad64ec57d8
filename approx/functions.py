"""Elementary functions that run on numpy arrays and on flint's balls and power series alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flint import acb, acb_series, arb, arb_series
from scipy import special

from approx.operands import Quotient

BALLS = (arb, acb, arb_series, acb_series)
EXACT = (*BALLS, Quotient)


def _principal(x: Any, cut: Any = None) -> Any:
    """x, or a complex series that knows nothing where its first term, or that of `cut`, may lie on (-inf, 0].

    flint goes on with one branch of a logarithm or root beyond its cut, where the function is another.
    """
    if not isinstance(x, acb_series):
        return x
    first = (x if cut is None else cut)[0]
    known = first.real > 0 or first.imag > 0 or first.imag < 0
    return x if known else acb_series([acb(arb.nan())] * x.prec, x.prec)


class Functions:
    """Elementary functions on numpy arrays and on flint's balls and series (arb, acb, arb_series)."""

    @staticmethod
    def _through(name: str, on_arrays: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            return getattr(x, name)() if isinstance(x, BALLS) else on_arrays(x)

        return call

    exp = _through("exp", np.exp)
    sin = _through("sin", np.sin)
    cos = _through("cos", np.cos)
    erf = _through("erf", special.erf)

    erfc = _through("erfc", special.erfc)
    gamma = _through("gamma", special.gamma)

    @staticmethod
    def log(x: Any) -> Any:
        """The natural logarithm."""
        return _principal(x).log() if isinstance(x, BALLS) else np.log(x)

    @staticmethod
    def atan(x: Any) -> Any:
        """The inverse tangent."""
        # cut from i and -i on outwards
        return _principal(x, 1 + x * x).atan() if isinstance(x, BALLS) else np.arctan(x)

    @staticmethod
    def lgamma(x: Any) -> Any:
        """The logarithm of the gamma function."""
        return _principal(x).lgamma() if isinstance(x, BALLS) else special.gammaln(x)

    @staticmethod
    def asin(x: Any) -> Any:
        """The inverse sine, -1 <= x <= 1."""
        if isinstance(x, arb) and not (x > -1 and x < 1):
            # where the target is defined x is within 1, a ball around it may reach beyond
            low, high = max(x.lower(), arb(-1)), min(x.upper(), arb(1))
            return low.asin().union(high.asin()) if low <= high else arb.nan()
        if isinstance(x, arb | acb | arb_series):
            return x.asin()
        # complex series have none of their own
        return Functions.atan(x / Functions.sqrt(1 - x * x)) if isinstance(x, acb_series) else np.arcsin(x)

    @staticmethod
    def acos(x: Any) -> Any:
        """The inverse cosine, -1 <= x <= 1."""
        return arb.pi() / 2 - Functions.asin(x) if isinstance(x, BALLS) else np.arccos(x)

    @staticmethod
    def asinh(x: Any) -> Any:
        """The inverse hyperbolic sine."""
        if isinstance(x, arb | acb):
            return x.asinh()
        if isinstance(x, arb_series | acb_series):
            turned = x[0].real < 0  # where the sum would cancel
            x = -x if turned else x
            value = Functions.log(x + Functions.sqrt(x * x + 1))
            return -value if turned else value
        return np.arcsinh(x)

    @staticmethod
    def acosh(x: Any) -> Any:
        """The inverse hyperbolic cosine, x >= 1."""
        if isinstance(x, arb):
            return arb(0).union(x.upper().acosh()) if x.contains(1) else x.acosh()
        return Functions.log(x + Functions.sqrt(x * x - 1)) if isinstance(x, BALLS) else np.arccosh(x)

    @staticmethod
    def atanh(x: Any) -> Any:
        """The inverse hyperbolic tangent, -1 < x < 1."""
        if isinstance(x, arb):
            return x.atanh()
        return Functions.log((1 + x) / (1 - x)) / 2 if isinstance(x, BALLS) else np.arctanh(x)

    @staticmethod
    def log10(x: Any) -> Any:
        """The logarithm of x to base 10."""
        return Functions.log(x) / arb(10).log() if isinstance(x, BALLS) else np.log10(x)

    @staticmethod
    def expm1(x: Any) -> Any:
        """exp(x) - 1."""
        if isinstance(x, arb):
            return x.expm1()
        return x.exp() - 1 if isinstance(x, BALLS) else np.expm1(x)

    @staticmethod
    def log1p(x: Any) -> Any:
        """log(1 + x)."""
        if isinstance(x, arb):
            return x.log1p()
        return Functions.log(1 + x) if isinstance(x, BALLS) else np.log1p(x)

    @staticmethod
    def log2(x: Any) -> Any:
        """The logarithm of x to base 2."""
        return Functions.log(x) / arb(2).log() if isinstance(x, BALLS) else np.log2(x)

    @staticmethod
    def power(x: Any, exponent: float) -> Any:
        """x to a real exponent, x >= 0.

        Args:
            x: floats or balls.
            exponent: the exponent, a float64.
        """
        if not isinstance(x, BALLS):
            return np.power(x, exponent)
        if isinstance(x, arb) and exponent > 0 and x.contains(0):
            # where the target is defined x is not negative, a ball around it may reach below 0
            top = x.nonnegative_part().upper()
            return arb(0) if top == 0 else arb(0).union((top.log() * arb(exponent)).exp())
        return (Functions.log(x) * arb(exponent)).exp()

    @staticmethod
    def sqrt(x: Any) -> Any:
        """The square root.

        Args:
            x: the points.
        """
        if isinstance(x, arb) and x.contains(0):
            # where the target is defined the argument is not negative, a ball around it may reach below 0
            x = x.nonnegative_part()
        return _principal(x).sqrt() if isinstance(x, BALLS) else np.sqrt(x)

    @staticmethod
    def tan(x: Any) -> Any:
        """The tangent.

        Args:
            x: the points.
        """
        return x.tan() if isinstance(x, BALLS) else np.tan(x)

    @staticmethod
    def sigmoid(x: Any) -> Any:
        """1/(1 + exp(-x)).

        Args:
            x: the points.
        """
        return 1 / (1 + (-x).exp()) if isinstance(x, BALLS) else special.expit(x)

    @staticmethod
    def tanh(x: Any) -> Any:
        """The hyperbolic tangent.

        Args:
            x: the points.
        """
        if isinstance(x, arb_series | acb_series):  # these have no tanh of their own
            return 1 - 2 / ((2 * x).exp() + 1)
        if isinstance(x, arb | acb):
            return x.tanh()
        return np.tanh(x)

    @staticmethod
    def sinh(x: Any) -> Any:
        """The hyperbolic sine.

        Args:
            x: the points.
        """
        return (x.exp() - (-x).exp()) / 2 if isinstance(x, BALLS) else np.sinh(x)

    @staticmethod
    def cosh(x: Any) -> Any:
        """The hyperbolic cosine.

        Args:
            x: the points.
        """
        return (x.exp() + (-x).exp()) / 2 if isinstance(x, BALLS) else np.cosh(x)

    @staticmethod
    def normal_cdf(x: Any) -> Any:
        """The standard normal distribution function.

        Args:
            x: the points.
        """
        return (-x / arb(2).sqrt()).erfc() / 2 if isinstance(x, BALLS) else special.ndtr(x)
