"""Rational approximation with proven error bounds.

>>> import approx
>>> fit = approx.minimax(approx.relu(), (9, 8))
>>> fit.error, fit.rational.poles()
>>> approx.certify(fit.rational, approx.relu()).upper
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from approx.fit.distill import distill as distill
    from approx.fit.least_squares import least_squares as least_squares
    from approx.fit.minimax import minimax as minimax
    from approx.fit.record import Fit as Fit
    from approx.fit.remez import remez as remez
    from approx.fit.smoothed_linf import smoothed_linf as smoothed_linf
    from approx.proofs import Certificate as Certificate
    from approx.proofs import CertificateError as CertificateError
    from approx.proofs import Estimate as Estimate
    from approx.proofs import certify as certify
    from approx.proofs import verify as verify
    from approx.rational import Rational as Rational
    from approx.rational import load as load
    from approx.tables import table as table
    from approx.target import Target as Target
    from approx.target import absolute as absolute
    from approx.target import exp as exp
    from approx.target import formula as formula
    from approx.target import gate as gate
    from approx.target import gelu as gelu
    from approx.target import jump_relu as jump_relu
    from approx.target import relu as relu
    from approx.target import sigmoid as sigmoid
    from approx.target import sign as sign
    from approx.target import silu as silu
    from approx.target import sqrt as sqrt
    from approx.target import tanh as tanh
    from approx.zolotarev import zolotarev_error as zolotarev_error
    from approx.zolotarev import zolotarev_log_error as zolotarev_log_error
    from approx.zolotarev import zolotarev_sign as zolotarev_sign

# module -> the public names in it, looked up at first use: `import approx` stays cheap
_MODULES = {
    "rational": "Rational load",
    "target": "Target absolute exp formula gate gelu jump_relu relu sigmoid sign silu sqrt tanh",
    "fit.record": "Fit",
    "fit.minimax": "minimax",
    "fit.remez": "remez",
    "fit.least_squares": "least_squares",
    "fit.smoothed_linf": "smoothed_linf",
    "fit.distill": "distill",
    "tables": "table",
    "proofs": "Certificate CertificateError Estimate certify verify",
    "zolotarev": "zolotarev_error zolotarev_log_error zolotarev_sign",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'approx' has no attribute {name!r}")
    value = getattr(import_module(f"approx.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
