"""The SAEs that are compared, and their training: all of one point see the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from approx.plot import BLUE, GREEN, GREY, ORANGE, PURPLE
from evals.config import takes_k
from rsae import SAE, Activations, RationalActivation, TrainConfig, train
from rsae.sae import family

#: Training, but for its steps and the penalty
BATCH, LR, DEAD_AFTER = 256, 3e-3, 100
#: Where the search for the weight that gives a wanted l0 begins
FIRST_WEIGHT = 1.0


@dataclass(frozen=True)
class Contender:
    """A family with its settings and how it is drawn."""

    label: str
    """For the figure."""
    family: str
    """Its family."""
    width: int = 1
    """Number of latents, as a multiple of H."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the family."""
    color: str = GREY
    """Of its line."""
    marker: str = "o"
    """In matplotlib."""

    @property
    def top_k(self) -> bool:
        """Whether l0 is a setting of the family (k), not what a penalty leads to."""
        return takes_k(self.family)

    def make(self, samples: Activations, H: int, seed: int, k: int | None = None) -> SAE:
        """An untrained SAE for the samples as they come."""
        settings = dict(self.settings)
        if self.top_k:
            settings["k"] = k
        if family(self.family).rational:
            settings["activation"] = RationalActivation.identity(2, samples.d_in**0.5)
        sae = family(self.family)(samples.d_in, self.width * H, **settings)
        sae.rescale_(1 / samples.scale)  # settings are in units of mean norm sqrt(D)
        sae.initialise(samples.sample(2000), seed)
        return sae


CONTENDERS = {
    "gated_2h": Contender("Gated at 2H", "gated", 2, color=ORANGE, marker="s"),
    "gated_h": Contender("Gated at H", "gated", color=ORANGE, marker="v"),
    "top_k_2h": Contender("TopK at 2H", "top_k", 2, color=GREY, marker="s"),
    "top_k_h": Contender("TopK at H", "top_k", color=GREY, marker="v"),
    "abs_top_k": Contender("AbsTopK at H", "abs_top_k", color=GREEN, marker="^"),
    "sign_aware": Contender("SA-GSAE at H", "sign_aware_gated", color=BLUE, marker="o"),
    "untied": Contender(
        "SA-GSAE at H, untied",
        "sign_aware_gated",
        settings={"tie_r": False, "tie_threshold": False},
        color=BLUE,
        marker="x",
    ),
    "rational": Contender("rational SA-GSAE at H", "rational_sign_aware_gated", color=PURPLE, marker="D"),
    "no_auxiliary": Contender(
        "SA-GSAE, no auxiliary loss",
        "sign_aware_gated",
        settings={"auxiliary": False},
        color="black",
        marker="x",
    ),
    "one_sided": Contender(
        "SA-GSAE, one-sided gate",
        "sign_aware_gated",
        settings={"two_sided": False},
        color="black",
        marker="v",
    ),
    "no_reset": Contender(
        "SA-GSAE, no resets", "sign_aware_gated", settings={"reset": False}, color="black", marker="+"
    ),
}


def fit(
    jobs: Sequence[tuple[Contender, int, TrainConfig]], samples: Activations, seed: int, description: str
) -> list[SAE]:
    """Train contenders side by side.

    Args:
        jobs: (contender, H, training); for a family with a k, the training's `l0` is k (at least 1).
        samples: The data.
        seed: Of the start.
        description: For the progress bar.

    Returns:
        The SAEs, in the order of the jobs.
    """
    saes, configs = [], []
    for contender, H, config in jobs:
        k = None
        if contender.top_k:
            assert config.l0 is not None
            k, config = max(1, round(config.l0)), config_of(config.steps, seed)
        saes.append(contender.make(samples, H, seed, k))
        configs.append(config)
    train(saes, samples, configs, description=description)
    return saes


def config_of(steps: int, seed: int, sparsity: float = 0.0, l0: float | None = None) -> TrainConfig:
    """The protocols' training, at a weight of the penalty or steered to an l0.

    Args:
        steps: Of training.
        seed: Of the order of the data.
        sparsity: Weight of the penalty.
        l0: The l0 to steer to, in the place of `sparsity`.
    """
    return TrainConfig(
        steps=steps,
        batch=BATCH,
        lr=LR,
        bias_lr=1.0,
        beta2=0.999,
        dead_after=DEAD_AFTER,
        seed=seed,
        sparsity=FIRST_WEIGHT if l0 else sparsity,
        l0=l0,
    )
