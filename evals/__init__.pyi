__version__: str

from .baselines import baselines as baselines
from .comparison import compare as compare
from .interpretation import interpret as interpret
from .labelled import load_classes as load_classes
from .labelled import load_crossed as load_crossed
from .metrics.absorption import absorption as absorption
from .metrics.downstream import downstream as downstream
from .metrics.ground_truth import ground_truth as ground_truth
from .metrics.intervention import intervention as intervention
from .metrics.jacobians import jacobians as jacobians
from .metrics.perturbation import spurious_removal as spurious_removal
from .metrics.perturbation import targeted_perturbation as targeted_perturbation
from .metrics.points import by_point as by_point
from .metrics.points import downstream_by_point as downstream_by_point
from .metrics.probing import sparse_probing as sparse_probing
from .metrics.reconstruction import reconstruction as reconstruction
from .metrics.sae_probes import sae_probes as sae_probes
from .metrics.stability import stability as stability
from .paired import compare_saes as compare_saes
from .results import read_results as read_results
from .site import load_sae as load_sae
from .site import open_store as open_store
from .suite import run as run
from .tasks import load_task as load_task
from .tuning import tune as tune
from .world import World as World
