"""What an SAE has to beat, and what it could reach: the same figures at the same l0 (see `evals.stand_ins`); and

untrained   a TopK SAE on the activations of the host's untrained twin: the same architecture and text, random weights
control     the SAE itself, fine-tuned for as many steps
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import torch

import rsae
from evals.metrics.reconstruction import reconstruction
from evals.results import Reconstruction
from evals.stand_ins import SHUFFLED_ROWS, stand_in
from rsae import (
    SAE,
    Activations,
    HarvestConfig,
    Host,
    InputError,
    JumpReLU,
    Store,
    TrainConfig,
    UpgradeConfig,
)
from rsae.support.errors import did_you_mean
from rsae.training import History
from rsae.upgrading.decide import bandwidth, decide
from rsae.upgrading.start import control_start

#: Measured where nothing else is asked for: they need no host and no long training
USUAL = ("random_decoder", "random_encoder", "shuffled", "pca", "neurons")
#: All of them, in the order of tables; the last two are no baselines
NAMES = (*USUAL, "untrained", "control", "omp")
#: Those that an SAE has to beat
BASELINES = (*USUAL, "untrained")


def baselines(
    sae: SAE,
    activations: Activations,
    names: Sequence[str] = (),
    steps: int = 500,
    seed: int = 0,
    allow_mismatch: bool = False,
) -> dict[str, Reconstruction]:
    """Measure baselines beside an SAE: what `evals.reconstruction` says of each, at the SAE's l0.

    Args:
        sae: An SAE of any family and format.
        activations: Where it is measured, on held-out activations; the baselines learn from the training ones.
        names: Which; by default the five that need no host and little training.
        steps: Training steps of the random ones, of `untrained` and of `control`, of 1024 tokens.
        seed: Of random weights, shuffles and the training's order.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        By name. `untrained` is measured on its own host's activations.

    Raises:
        InputError: for an unknown name, an SAE that does not fit the activations, or `untrained` without a store.
    """
    if sae.transcodes:
        raise InputError("baselines stand beside SAEs; for a transcoder there are none")
    for name in names:
        if name not in NAMES:
            raise InputError(f"baseline {name!r} is unknown{did_you_mean(name, NAMES)}")
    l0 = reconstruction(sae, activations, allow_mismatch=allow_mismatch).l0
    found = {}
    for name in (name for name in NAMES if name in (names or USUAL)):
        if name == "untrained":
            found[name] = _untrained(sae, activations, l0, steps, seed)
        elif name == "control":
            tuned, _ = fine_tuned(sae, activations, steps, seed)
            found[name] = reconstruction(tuned, activations, allow_mismatch=True)
        else:
            made = stand_in(name, sae, activations, l0, steps, seed)
            found[name] = reconstruction(made, activations, rows=SHUFFLED_ROWS, allow_mismatch=True)
    return found


def fine_tuned(
    sae: SAE, activations: Activations, steps: int, seed: int = 0, tune: TrainConfig | None = None
) -> tuple[SAE, History]:
    """The control: the SAE with its own activation, trained on under the budget that an upgrade would have.

    Args:
        sae: The SAE; it is left as it is.
        activations: What it is trained on.
        steps: Training steps.
        seed: Of the data's order.
        tune: The rest of the budget; by default that of an upgrade.

    Returns:
        The fine-tuned SAE, and the training's record.
    """
    tune = tune or UpgradeConfig().tune
    batch = min(tune.batch, activations.tokens())
    # a pursuit leaves loss and activation alone: what is decided for it is the plain SAE's own
    config = UpgradeConfig("pursuit", tune=replace(tune, steps=steps, seed=seed, batch=batch))
    tuned = copy.deepcopy(control_start(sae, activations, config))
    if isinstance(tuned, JumpReLU) and tuned.trained is None:
        tuned.bandwidth = bandwidth(tuned, activations)  # trained elsewhere: no file says it
    decided = decide(tuned, activations, config)
    what = f"fine-tune {sae.family}"
    return tuned, rsae.train(tuned, activations, decided.tune, None, what, allow_mismatch=True)


def _untrained(sae: SAE, activations: Activations, l0: float, steps: int, seed: int) -> Reconstruction:
    if not isinstance(activations, Store) or not activations.provenance.model:
        raise InputError(
            "the untrained twin needs a store that was harvested from a host; leave `untrained` out"
        )
    host = untrained_twin(rsae.load_host(activations.provenance.model), seed)
    with tempfile.TemporaryDirectory() as directory:
        config = HarvestConfig(**activations.manifest.settings)
        there = rsae.harvest(replace(config, host=host.name), directory, host)
        k = min(max(1, round(l0)), sae.d_sae - 1)
        made = rsae.new("top_k", there, seed, d_sae=sae.d_sae, k=k)
        batch = min(1024, there.tokens())
        rsae.train(made, there, TrainConfig(steps=steps, batch=batch, seed=seed))
        return reconstruction(made, there)


def untrained_twin(host: Host, seed: int = 0) -> Host:
    """A host of the same architecture, tokenizer and precision with random weights.

    Args:
        host: The host.
        seed: Of the weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = type(host.model)(copy.deepcopy(host.model.config))
    model = model.to(device=host.device, dtype=host.model.dtype).requires_grad_(False).eval()  # type: ignore
    return Host(
        f"{host.name} untrained s{seed}",
        model,
        host.tokenizer,
        f"random weights; {host.note}" if host.note else "random weights",
        host.mixed,
    )
