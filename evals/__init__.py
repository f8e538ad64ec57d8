"""An evaluation of sparse autoencoders that is honest about sparsity and always shows the control.

>>> evals.reconstruction(sae, store)
>>> evals.downstream({"mine": mine, "control": control}, host, sequences, hook="blocks.12.hook_resid_pre")
>>> evals.sparse_probing(sae, host, evals.load_task("spam"), hook="blocks.12.hook_resid_pre")
"""

from evals.metrics.downstream import downstream
from evals.metrics.probing import sparse_probing
from evals.metrics.reconstruction import reconstruction
from evals.tasks import load_task

__all__ = ["downstream", "load_task", "reconstruction", "sparse_probing"]
