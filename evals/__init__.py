"""An evaluation of sparse autoencoders that is honest about sparsity and always shows the control.

>>> evals.reconstruction(sae, store).fvu
>>> evals.downstream({"mine": mine, "control": control}, host, sequences)["mine"].kl
>>> evals.sparse_probing(sae, host, evals.load_task("spam"), k=(1, 2, 5)).accuracy[1]
>>> evals.compare(["runs/demo"])
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

# The public names stand in __init__.pyi and are looked up at first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

try:
    __version__ = version("rsae")
except PackageNotFoundError:  # the source alone, not installed
    __version__ = "0"
