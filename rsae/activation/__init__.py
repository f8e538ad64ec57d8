"""The trainable rational activation: parametrisations and the evaluation behind them."""

from rsae.activation.rational import RationalActivation

__all__ = ["RationalActivation"]
