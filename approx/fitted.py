"""`Fitted`: what a fit is to those who use it: proofs, exports and measurements need no fitter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from approx.rational import Rational
from approx.samples import Samples
from approx.target import Target


@runtime_checkable
class Fitted(Protocol):
    """What a fitter returns, as far as others are concerned."""

    @property
    def rational(self) -> Rational:
        """The function."""
        ...

    @property
    def target(self) -> Target:
        """What it approximates."""
        ...

    @property
    def type(self) -> tuple[int, int]:
        """The (m, n) that was asked for."""
        ...

    @property
    def fixed(self) -> Mapping[str, Any] | None:
        """The coefficients that were held, by name."""
        ...


def opened(subject: Rational | Fitted, target: Target | None = None) -> tuple[Rational, Target | None]:
    """The function and its target.

    Args:
        subject: a function, or a fit, which brings its target.
        target: another target than the fit's, or the one of a function.

    Returns:
        (rational, target); None for a target that nobody named, and for samples, which say nothing between themselves.

    Raises:
        ValueError: if `subject` is neither.
    """
    if not isinstance(subject, Rational) and isinstance(subject, Fitted):
        own = None if isinstance(subject.target, Samples) else subject.target
        return subject.rational, own if target is None else target
    check_rational(subject)
    return subject, target


def check_rational(rational: Any) -> None:
    """Raise ValueError unless this is a Rational.

    Args:
        rational: the rational function.
    """
    if not isinstance(rational, Rational):
        raise ValueError(f"rational={rational!r:.80}: expected an approx.Rational; a fit's is `fit.rational`")
