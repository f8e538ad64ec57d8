"""Sparse autoencoders with trainable rational activations.

>>> teacher = rsae.load("sae-directory")
>>> store = rsae.harvest(rsae.HarvestConfig(tokens=100_000), "store")
>>> new = rsae.upgrade(teacher, store)
>>> rsae.save(new.tuned, "rational-sae")
"""

import os
from importlib.metadata import PackageNotFoundError, version

import lazy_loader

# What torch reads when it is loaded, which comes later; where the user said nothing (docs/benchmarks.md).
# Threads of OpenMP that wait for work are to sleep after a short spin. By default they spin for milliseconds: on a
# machine with other busy processes they take the time of those that they wait for.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Large tensors on CPUs in pages of 2 MiB (Linux): each step makes new ones, and pages of 4 KiB cost more than what is
# written to them.
if os.path.exists("/sys/kernel/mm/transparent_hugepage"):
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# The public names stand in __init__.pyi and are looked up at first use: `rsae --help` does not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("rsae")
except PackageNotFoundError:  # the source alone, not installed
    __version__ = "0"
