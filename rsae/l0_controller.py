"""A wanted l0 instead of a weight of the penalty: the weight is found during training."""

from __future__ import annotations

import math

import torch

from rsae.sae.base import SAE
from rsae.support.errors import InputError

#: Share of the steps in which l0 is led from where it starts to where it is wanted
PATH = 0.6
#: Gates that are shut come back slowly: with l0 below the path, the weight falls this many times faster than it rises
_REOPENING = 3.0
#: A step: weight of the newest l0 in the running mean; answer to a deviation, on the path and after it; to its change
_NEWEST, _GAIN, _SETTLING_GAIN, _DAMPING = 0.2, 0.02, 0.07, 2.0
#: A weight this many times below where the search starts has no effect any more: it falls no further
_LOWEST = 1e-2


class L0Controller:
    """A proportional-integral controller of the penalty's weight, in logarithms of weight and l0.

    l0 answers slowly and far from linearly: from a dense start it stays high for a while, and then falls past the goal,
    from where a gate that is shut comes back slowly or not at all. So l0 is not compared with the goal but with a path,
    log goal + (log start - log goal) (1 - t)^2, which arrives flat. The weight stays between bounds beyond which it
    changes nothing, so that it cannot wind up while l0 is out of its reach.

    Args:
        sae: The SAE, in units of mean norm sqrt(D).
        penalty: The penalty whose weight is found.
        steps: Steps of the training.
        l0: The wanted l0.
        sparsity: Weight to start from; 0 for a start of its own.

    Raises:
        InputError: The family has no penalty, or the l0 is not below the number of latents.
    """

    def __init__(self, sae: SAE, penalty: str | None, steps: int, l0: float, sparsity: float):
        if penalty is None:
            raise InputError(f"family {sae.family!r} has no penalty to steer: its l0 is set by `k`")
        latents = sae.shard.latents(sae.d_sae)
        if l0 >= latents:
            raise InputError(f"l0 {l0:g} is not below the {latents} latents")
        self.wanted, self.goal, self.steps = l0, math.log(l0), PATH * steps
        start = sparsity or sae.first_sparsity(penalty)
        # for open gates a better start is known once training runs: a quarter of the error for each
        self.guessed, self.power = not sparsity and penalty == "l0", sae.d_in
        # above it a single gate costs more than all that there is to reconstruct
        self.highest = math.log(2.0 * (sae.d_in if penalty == "l0" else math.sqrt(sae.d_in)))
        #: log weight; log l0 at the start, its running mean, that mean's last deviation from the path; lowest log
        #: weight
        self.state = torch.tensor(
            [math.log(start), math.nan, 0.0, 0.0, math.log(start * _LOWEST)], dtype=torch.float64
        )

    @property
    def weight(self) -> float:
        """The penalty's weight for the coming step."""
        return math.exp(self.state[0].item())

    def update(self, step: int, l0: float, sse: float) -> None:
        """Take notice of a step.

        Args:
            step: Its number, from 0.
            l0: Mean number of open gates in it.
            sse: Mean ||x - x_hat||^2 in it.
        """
        weight, start, mean, last, lowest = self.state.tolist()
        now = math.log(max(l0, 0.05))
        first = math.isnan(start)
        if first:
            start = mean = now
            if self.guessed:
                weight = math.log(max(min(sse, self.power), 1e-6) / (4 * max(l0, 1.0)))
                lowest = weight + math.log(_LOWEST)
        mean += _NEWEST * (now - mean)
        left = max(0.0, 1 - (step + 1) / self.steps)
        deviation = mean - (self.goal + (start - self.goal) * left**2)
        change = 0.0 if first else deviation - last
        gain = _GAIN if left else _SETTLING_GAIN
        if deviation < 0:
            gain *= _REOPENING
        weight += gain * max(-1.0, min(1.0, deviation)) + _DAMPING * change
        weight = min(max(weight, lowest), max(self.highest, lowest))
        self.state = torch.tensor([weight, start, mean, deviation, lowest], dtype=torch.float64)
