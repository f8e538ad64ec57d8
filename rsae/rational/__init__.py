"""The trainable rational activation: parametrisations and the evaluation behind them."""

from rsae.rational.activation import RationalActivation

__all__ = ["RationalActivation"]
