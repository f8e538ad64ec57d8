"""A world of known features: what an SAE should find is known, so that what it finds can be scored.

In the manner of SynthSAEBench, with constants of our own. An activation is

    x = sum_g a_g W_g + noise,    a_g = 0, or a magnitude around 1 where feature g is active.

- *Superposition*: more features than dimensions, unit directions W_G drawn at random.
- *Zipf*: feature of rank r is active with probability FREQUENCY r^-EXPONENT.
- *Hierarchy*: a share of the features are children. A child is active only where its parent is, which is more frequent.
- *Anticorrelation*: a share of the features come in signed pairs, two poles of one direction that are never active
  together.
- *Correlation*: all others share hidden factors with loadings of either sign (a Gaussian copula). Each feature's own
  frequency stays exactly what Zipf says.

Nothing is stored: samples are a pure function of the world's seed and their own. Shapes: B samples, D dimensions, G
features, R factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

from rsae import InputError, Provenance
from rsae.support.seeds import check_seed, folded

#: Frequency of the most frequent feature, and the exponent of Zipf's law
FREQUENCY, EXPONENT = 0.25, 0.5
#: Shares of the features that are children, and that come in signed pairs
CHILDREN, PAIRED = 0.25, 0.125
#: Hidden factors, and the share of a feature's Gaussian variance that they make up
FACTORS, SHARED = 8, 0.5
#: Standard deviation of a magnitude around 1, and the smallest magnitude
SPREAD, SMALLEST = 0.25, 0.1
#: Standard deviation of the noise in each dimension
NOISE = 0.02
#: Samples that are drawn together; a constant, since the random numbers' order depends on it
_CHUNK = 1024


class World:
    """A world of known features.

    Args:
        features: Number of features, G; at least 16.
        d_in: Dimensions of an activation, D.
        seed: Of directions, hierarchy and correlations.
        noise: Standard deviation of the noise in each dimension.

    Raises:
        InputError: for fewer than 16 features, fewer than 2 dimensions, or too large a seed.
    """

    def __init__(self, features: int = 1024, d_in: int = 128, seed: int = 0, noise: float = NOISE):
        if features < 16 or d_in < 2:
            raise InputError(f"a world of {features} features in {d_in} dimensions: give 16 and 2 at least")
        check_seed(seed)
        self.features, self.d_in, self.seed, self.noise = features, d_in, seed, noise
        generator = torch.Generator().manual_seed(5_000_011 + seed)
        direction_GD = torch.randn(features, d_in, generator=generator)
        #: how often each feature is active, by rank
        self.frequency_G = FREQUENCY * torch.arange(1, features + 1).double() ** -EXPONENT
        # roles at random among all but the most frequent features, which are the first parents
        order = 4 + torch.randperm(features - 4, generator=generator)
        children = order[: int(CHILDREN * features)].sort().values
        paired = order[len(children) : len(children) + 2 * int(PAIRED * features / 2)].reshape(-1, 2)
        #: the parent of each feature, -1 for none; it is more frequent, and no child itself
        self.parent_G = torch.full((features,), -1)
        roots = torch.ones(features, dtype=torch.bool)
        roots[children] = False
        for child in children.tolist():
            above = roots[:child].nonzero().squeeze(1)
            pick = int(torch.randint(len(above), (1,), generator=generator))
            self.parent_G[child] = above[pick]
        #: the opposite pole of each feature, -1 for none
        self.opposite_G = torch.full((features,), -1)
        self.opposite_G[paired[:, 0]], self.opposite_G[paired[:, 1]] = paired[:, 1], paired[:, 0]
        direction_GD[paired[:, 1]] = -direction_GD[paired[:, 0]]
        #: unit directions of the features
        self.W_GD = direction_GD / direction_GD.norm(dim=1, keepdim=True)
        loading_GR = torch.randn(features, FACTORS, generator=generator)
        self._loading_GR = SHARED**0.5 * loading_GR / loading_GR.norm(dim=1, keepdim=True)
        self._second = paired[:, 1]  # poles that take the other end of their partner's Gaussian
        # the conditional probability of a child, given that its parent is active
        given_G = self.frequency_G.clone()
        given_G[children] /= self.frequency_G[self.parent_G[children]]
        self._threshold_G = torch.special.ndtri(given_G).float()

    def coefficients(self, n: int, seed: int = 0) -> torch.Tensor:
        """The features' magnitudes a_BG, 0 where a feature is not active.

        Args:
            n: Number of samples, B.
            seed: Of the samples.
        """
        return torch.cat([a_BG for a_BG, _ in self._chunks(n, seed)])

    def sample(self, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples, and which features are active in them.

        Args:
            n: Number of samples, B.
            seed: Of the samples.

        Returns:
            x_BD and active_BG (True or False).
        """
        parts = [(x_BD, a_BG > 0) for a_BG, x_BD in self._chunks(n, seed)]
        x_BD, active_BG = (torch.cat(part) for part in zip(*parts, strict=True))
        return x_BD, active_BG

    def _chunks(self, n: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """a_BG and x_BD, some samples at a time."""
        generator = torch.Generator().manual_seed(folded(1_000_003 * (seed + 1) + self.seed))
        child_G = self.parent_G >= 0
        for start in range(0, n, _CHUNK):
            own_BG = torch.randn(_CHUNK, self.features, generator=generator)
            factor_BR = torch.randn(_CHUNK, FACTORS, generator=generator)
            shared_BG = factor_BR @ self._loading_GR.T + (1 - SHARED) ** 0.5 * own_BG
            u_BG = torch.where(child_G, own_BG, shared_BG)  # children: by chance alone, given the parent
            u_BG[:, self._second] = -u_BG[:, self.opposite_G[self._second]]
            active_BG = u_BG < self._threshold_G
            active_BG &= ~child_G | active_BG[:, self.parent_G]
            size_BG = (1 + SPREAD * torch.randn(_CHUNK, self.features, generator=generator)).clamp_min(
                SMALLEST
            )
            a_BG = size_BG * active_BG
            noise_BD = self.noise * torch.randn(_CHUNK, self.d_in, generator=generator)
            rows = min(_CHUNK, n - start)
            yield a_BG[:rows], (a_BG @ self.W_GD + noise_BD)[:rows]

    def activations(self, tokens: int = 1_000_000, heldout: int = 20_000) -> WorldActivations:
        """The world as activations to train on; nothing is stored.

        Args:
            tokens: Samples of an epoch.
            heldout: Held-out samples.
        """
        return WorldActivations(self, tokens, heldout)


class WorldActivations:
    """A world's samples as activations (`rsae.Activations`): each batch is drawn anew.

    Args:
        world: The world.
        tokens: Samples of an epoch.
        heldout: Held-out samples.
    """

    name = "the world"
    target = None  # a world's samples are all there is

    def __init__(self, world: World, tokens: int, heldout: int):
        self.world, self._tokens = world, {"train": tokens, "heldout": heldout}
        self.provenance = Provenance()
        self.identity: Any = ["world", world.features, world.d_in, world.seed, world.noise, self._tokens]

    @property
    def d_in(self) -> int:
        """Width of an activation."""
        return self.world.d_in

    @property
    def scale(self) -> float:
        """Factor that brings the mean norm to sqrt(D)."""
        return self._scale

    @cached_property
    def _scale(self) -> float:
        return self.d_in**0.5 / self.sample(8192).norm(dim=1).mean().item()

    def tokens(self, split: str = "train") -> int:
        """How many samples a split holds.

        Args:
            split: `train` or `heldout`.
        """
        return self._tokens[split]

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch x_BD: a pure function of its arguments.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Of the order.
        """
        return self.world.sample(size, 1_000_000 * (seed + 1) + step)[0]

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Random activations x_BD.

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        return self.world.sample(min(rows, self.tokens(split)), -2 - seed - (split == "heldout") * 500_000)[0]

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """All activations x_BD of a split in order.

        Args:
            split: `train` or `heldout`.
            rows: Largest number at a time.
        """
        seed = -1_000_000 if split == "heldout" else -2_000_000
        for _, x_BD in self.world._chunks(self.tokens(split), seed):
            yield from x_BD.split(rows)
