"""A gate's fits, as the demo starts from them and the report shows them: by three fitters, the minimax one proven."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import approx
from approx.fit.grid import sample
from rsae.support.cache import Cache
from rsae.upgrading import target_for

FITTERS: dict[str, Callable[..., approx.Fit]] = {
    "remez": approx.remez,
    "least_squares": approx.least_squares,
    "minimax": approx.minimax,
}


def fit_gate(run: Path, family: str, type_: tuple[int, int]) -> tuple[approx.Rational, dict[str, Any]]:
    """The minimax fit of a family's gate, which `soft` starts from, and what a report shows of it; made once a run.

    It and its certificate go to RUN/fits/FAMILY-M-N.json and .certificate.json. Shown: `domain`, `t` and the
    gate `f` there, `fits` (`r` at t, largest `error`, whether it `converged`, by fitter), the `certificate`'s bounds.
    """
    file = run / "fits" / f"{family}-{type_[0]}-{type_[1]}"

    def make() -> dict[str, Any]:
        target = target_for(family)
        fits = {method: fitter(target, type_) for method, fitter in FITTERS.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        used = fits["minimax"]
        used.rational.save(file.with_suffix(".json"))
        certificate = approx.certify(used.rational, target)
        assert isinstance(certificate, approx.Certificate)  # built-in targets are proven, not estimated
        certificate.save(file.with_suffix(".certificate.json"))
        t = sample(target, 1500, used.reference)
        return {
            "type": list(type_),
            "target": target.name,
            "domain": [list(interval) for interval in target.domain],
            "t": t.tolist(),
            "f": target(t).tolist(),
            "fits": {
                method: {"error": fit.error, "converged": fit.converged, "r": fit.rational(t).tolist()}
                for method, fit in fits.items()
            },
            "certificate": {
                "of": "minimax",
                "lower": float(certificate.lower),
                "upper": float(certificate.upper),
                "best_lower": float(certificate.best_lower),
                "pole_free": certificate.pole_free,
            },
        }

    curves = Cache(run / "steps").run(f"{file.name}-fit", [family, list(type_)], make)
    return approx.load(file.with_suffix(".json")), curves
