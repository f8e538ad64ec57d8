"""Rational approximation with proven error bounds.

>>> import approx
>>> fit = approx.minimax(approx.relu(), (9, 8))
>>> fit.error, fit.rational.poles()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from approx.fit.record import Fit as Fit
    from approx.proofs import Certificate as Certificate
    from approx.proofs import CertificateError as CertificateError
    from approx.proofs import Estimate as Estimate
    from approx.rational import Rational as Rational
    from approx.rational import load as load
    from approx.target import Target as Target

# name -> module; looked up at first use, so that `import approx` stays cheap
_HOME = {
    "Rational": "rational",
    "load": "rational",
    "Fit": "fit.record",
    "minimax": "fit.minimax",
    **dict.fromkeys(["certify", "verify", "Certificate", "CertificateError", "Estimate"], "proofs"),
    **dict.fromkeys(["zolotarev_error", "zolotarev_log_error", "zolotarev_sign"], "zolotarev"),
    **dict.fromkeys(
        [
            "Target",
            "absolute",
            "exp",
            "formula",
            "gate",
            "gelu",
            "jump_relu",
            "relu",
            "sigmoid",
            "sign",
            "silu",
            "sqrt",
            "tanh",
        ],
        "target",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'approx' has no attribute {name!r}")
    value = getattr(import_module(f"approx.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
