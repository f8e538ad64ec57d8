"""A gate's fits: by three fitters, the minimax one proven. `soft` starts from that; the report shows them all.

RUN/gates/FAMILY-M-N.json              the fits as curves
RUN/gates/FAMILY-M-N.rational.json     the minimax fit, loadable with `approx.load`
RUN/gates/FAMILY-M-N.certificate.json  its proof, replayed by `approx verify`
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import approx
from approx.fit.grid import sample
from evals.results import dump, parse
from rsae.sae import family as family_named
from rsae.support.cache import Cache
from rsae.support.files import read_json

FITTERS: dict[str, Callable[..., approx.Fit]] = {
    "remez": approx.remez,
    "least_squares": approx.least_squares,
    "minimax": approx.minimax,
}


@dataclass(frozen=True)
class FittedCurve:
    """One fitter's rational."""

    error: float
    """Largest error."""
    converged: bool
    """Whether the fitter says that it converged."""
    r: tuple[float, ...]
    """Values at `Gate.t`."""


@dataclass(frozen=True)
class Bounds:
    """What the certificate of the minimax fit proves."""

    lower: float
    """The largest error is at least this."""
    upper: float
    """The largest error is at most this."""
    best_lower: float
    """No rational of the type has a smaller error than this."""
    pole_free: bool
    """Whether there is no pole on the interval."""


@dataclass(frozen=True)
class Gate:
    """A family's gate on [-1, 1] and its fits of one type."""

    family: str
    """The family whose gate it is."""
    type: tuple[int, int]
    """Degrees of numerator and denominator."""
    domain: tuple[tuple[float, float], ...]
    """The intervals that are fitted; gaps lie between them."""
    t: tuple[float, ...]
    """Arguments."""
    f: tuple[float, ...]
    """The gate at `t`."""
    fits: dict[str, FittedCurve]
    """By fitter."""
    bounds: Bounds
    """Proven for the minimax fit."""


def fit_gate(run: str | os.PathLike, family: str, type_: tuple[int, int]) -> approx.Rational:
    """The minimax fit of a family's gate, which `soft` starts from; fitted and proven once a run.

    Args:
        run: The run's directory.
        family: The teachers' family.
        type_: Degrees of numerator and denominator.

    Returns:
        The rational.
    """
    name = _name(family, type_)
    directory = Path(run) / "gates"

    def make() -> Any:
        target = family_named(family).gate_target()
        assert target is not None  # `soft` has been refused for such a family
        fits = {method: fitter(target, type_) for method, fitter in FITTERS.items()}
        used = fits["minimax"]
        directory.mkdir(parents=True, exist_ok=True)
        used.rational.save(directory / f"{name}.rational.json")
        certificate = approx.certify(used)
        assert isinstance(certificate, approx.Certificate)  # built-in targets are proven, not estimated
        certificate.save(directory / f"{name}.certificate.json")
        t = sample(target, 1500, used.reference)
        curves = {
            method: FittedCurve(fit.error, fit.converged, tuple(fit.rational(t).tolist()))
            for method, fit in fits.items()
        }
        bounds = Bounds(
            float(certificate.lower),
            float(certificate.upper),
            float(certificate.best_lower),
            certificate.pole_free,
        )
        domain = tuple((float(low), float(high)) for low, high in target.domain)
        return dump(Gate(family, type_, domain, tuple(t.tolist()), tuple(target(t).tolist()), curves, bounds))

    Cache(directory).run(name, [family, list(type_)], make)
    return approx.load(directory / f"{name}.rational.json")


def read_gate(run: str | os.PathLike, family: str, type_: tuple[int, int]) -> Gate | None:
    """The fits that a run has made of a gate.

    Args:
        run: The run's directory.
        family: The teachers' family.
        type_: Degrees of numerator and denominator.

    Returns:
        The fits; None where the run has none.
    """
    file = Path(run) / "gates" / f"{_name(family, type_)}.json"
    return parse(Gate, read_json(file)["result"]) if file.exists() else None


def _name(family: str, type_: tuple[int, int]) -> str:
    return f"{family}-{type_[0]}-{type_[1]}"
