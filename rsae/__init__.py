"""Sparse autoencoders with trainable rational activations.

>>> teacher = rsae.load("sae-directory")
>>> store = rsae.harvest(rsae.HarvestConfig(tokens=100_000), "store")
>>> new = rsae.upgrade(teacher, store)
>>> rsae.save(new.tuned, "rational-sae")
"""

import os
from importlib.metadata import PackageNotFoundError, version

import lazy_loader

# Threads of OpenMP that wait for work are to sleep. By default they spin for milliseconds: on a machine with other busy
# processes they take the time of those that they wait for. It is read when torch is loaded, which comes later.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The public names stand in __init__.pyi and are looked up at first use: `rsae --help` does not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("rsae")
except PackageNotFoundError:  # the source alone, not installed
    __version__ = "0"
