"""Sparse autoencoders with trainable rational activations.

>>> teacher = rsae.load("sae-directory")
>>> store = rsae.harvest(rsae.HarvestConfig(tokens=100_000), "store")
>>> new = rsae.upgrade(teacher, store)
>>> rsae.save(new.tuned, "rational-sae")
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

# The public names stand in __init__.pyi and are looked up at first use: `rsae --help` does not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("rsae")
except PackageNotFoundError:  # the source alone, not installed
    __version__ = "0"
