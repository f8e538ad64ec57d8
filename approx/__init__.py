"""Rational approximation with proven error bounds.

>>> import approx
>>> fit = approx.minimax(approx.relu(), (9, 8))
>>> fit.error, fit.rational.poles()
>>> approx.certify(fit.rational, approx.relu()).upper
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

# The public names stand in __init__.pyi and are looked up at first use: `import approx` stays cheap.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("rsae")
except PackageNotFoundError:  # the source alone, not installed
    __version__ = "0"
