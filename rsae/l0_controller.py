"""A wanted l0 instead of a weight of the penalty: the weight is found during training."""

from __future__ import annotations

import math

import torch

from rsae.support.errors import InputError
from rsae.sae.base import SAE

#: Share of the steps in which l0 is led from where it starts to where it is wanted
PATH = 0.6
#: Gates that are shut come back slowly: with l0 below the path, the weight falls so many times faster than it rises
_REOPENING = 3.0
#: A step: weight of the newest l0 in the running mean; answer to a deviation, on the path and after it; to its change
_NEWEST, _GAIN, _SETTLING_GAIN, _DAMPING = 0.2, 0.02, 0.07, 2.0


class L0Controller:
    """A proportional-integral controller of the penalty's weight, in logarithms of weight and l0.

    l0 answers slowly and far from linearly: from a dense start it stays high for a while, and then falls past the goal,
    from where a gate that is shut comes back slowly or not at all. So l0 is not compared with the goal but with a path,
    log goal + (log start - log goal) (1 - t)^2, which arrives flat.
    """

    def __init__(self, sae: SAE, steps: int, l0: float, sparsity: float):
        if sae.penalty is None:
            raise InputError(f"family {sae.family!r} has no penalty to steer: its l0 is set by `k`")
        if l0 >= sae.d_sae:
            raise InputError(f"l0 {l0:g} is not below the {sae.d_sae} latents")
        self.goal, self.steps = math.log(l0), PATH * steps
        # of mean norm sqrt(D), a typical sparse SAE's weights lie above these; from too high a one much dies
        start = sparsity or (sae.d_in / 3000 if sae.penalty == "l0" else math.sqrt(sae.d_in) / 60)
        # better, once known: a quarter of the error (of all there is, at most) for each open gate
        self.guessed, self.power = not sparsity and sae.penalty == "l0", sae.d_in
        #: log weight; log l0 at the start, its running mean, and that mean's last deviation from the path
        self.state = torch.tensor([math.log(start), math.nan, 0.0, 0.0], dtype=torch.float64)

    @property
    def weight(self) -> float:
        """The penalty's weight for the coming step."""
        return math.exp(self.state[0].item())

    def update(self, step: int, l0: float, sse: float) -> None:
        """Take notice of the l0 and ||x - x_hat||^2 of step number `step`."""
        weight, start, mean, last = self.state.tolist()
        now = math.log(max(l0, 0.05))
        first = math.isnan(start)
        if first:
            start = mean = now
            if self.guessed:
                weight = math.log(max(min(sse, self.power), 1e-6) / (4 * max(l0, 1.0)))
        mean += _NEWEST * (now - mean)
        left = max(0.0, 1 - (step + 1) / self.steps)
        deviation = mean - (self.goal + (start - self.goal) * left**2)
        change = 0.0 if first else deviation - last
        gain = _GAIN if left else _SETTLING_GAIN
        if deviation < 0:
            gain *= _REOPENING
        weight += gain * max(-1.0, min(1.0, deviation)) + _DAMPING * change
        self.state = torch.tensor([weight, start, mean, deviation], dtype=torch.float64)
