"""Elementary functions that run on numpy arrays and on flint's balls and power series alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flint import acb, acb_series, arb, arb_series
from scipy import special

BALLS = (arb, acb, arb_series, acb_series)


class Functions:
    """Elementary functions on numpy arrays and on flint's balls and series (arb, acb, arb_series)."""

    @staticmethod
    def _through(name: str, on_arrays: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            return getattr(x, name)() if isinstance(x, BALLS) else on_arrays(x)

        return call

    exp = _through("exp", np.exp)
    log = _through("log", np.log)
    sin = _through("sin", np.sin)
    cos = _through("cos", np.cos)
    atan = _through("atan", np.arctan)
    erf = _through("erf", special.erf)

    @staticmethod
    def sqrt(x: Any) -> Any:
        """The square root.

        Args:
            x: the points.
        """
        if isinstance(x, arb) and x.contains(0):
            # where the target is defined the argument is not negative, a ball around it may reach below 0
            x = x.nonnegative_part()
        return x.sqrt() if isinstance(x, BALLS) else np.sqrt(x)

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
