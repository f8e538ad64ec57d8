from .compare import compare as compare
from .metrics.downstream import downstream as downstream
from .metrics.intervention import intervention as intervention
from .metrics.probing import sparse_probing as sparse_probing
from .metrics.reconstruction import reconstruction as reconstruction
from .suite import run as run
from .tasks import load_task as load_task
