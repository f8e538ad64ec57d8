"""Several hook points in one dictionary: crosscoders, and cross-layer transcoders.

A crosscoder is an SAE of joined activations: those of its points side by side, each times a scale of its own, so that
each has mean norm sqrt of its width. Each latent has a decoder row for each point. The L1 penalty weighs a latent by
the sum of these rows' norms (Lindsey et al. 2024, "Sparse crosscoders"). A cross-layer transcoder reads the points of
some layers and writes those of the same layers: a latent reads one layer and writes that one and later ones (Ameisen
et al. 2025, "Circuit tracing"). Shapes: D d_in, O d_out, F d_sae, P points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rsae.support.errors import InputError


@dataclass(frozen=True)
class Point:
    """One hook point among joined ones."""

    name: str
    """Its name."""
    width: int
    """Its number of dimensions."""
    scale: float
    """Joined activations are the point's own times this."""
    norm_limit: float | None = None
    """Tokens of a larger norm there were left out of training; None where nobody says."""


@dataclass(frozen=True)
class Layout:
    """Of what points the activations are that an SAE reads and gives."""

    reads: tuple[Point, ...]
    """What it reads, side by side."""
    writes: tuple[Point, ...]
    """What it gives; of a crosscoder the same."""
    causal: bool = False
    """Whether latents are parted evenly among the points that are read: those of the p-th read it alone, and write the
    p-th and later ones."""

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Layout:
        """From JSON-able settings.

        Args:
            settings: As `dataclasses.asdict` gives them.
        """
        reads, writes = (tuple(Point(**point) for point in settings[part]) for part in ("reads", "writes"))
        return cls(reads, writes, settings["causal"])

    def read(self, activations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Join activations of the points that are read.

        Args:
            activations: By point, in the host's units.

        Raises:
            InputError: A point is missing.
        """
        missing = [point.name for point in self.reads if point.name not in activations]
        if missing:
            raise InputError(
                f"no activations of {', '.join(missing)}; given are {', '.join(activations) or 'none'}"
            )
        return torch.cat([activations[point.name] * point.scale for point in self.reads], -1)

    def written(self, y_BO: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is given, by point and in the host's units.

        Args:
            y_BO: What the SAE gives.
        """
        parts = y_BO.split([point.width for point in self.writes], -1)
        return {point.name: part / point.scale for point, part in zip(self.writes, parts, strict=True)}

    def norms(self, W_dec: torch.Tensor) -> torch.Tensor:
        """Norm of each latent's decoder row at each point, [F, P].

        Args:
            W_dec: The decoder, [F, O].
        """
        return torch.stack([part.norm(dim=1) for part in W_dec.split([p.width for p in self.writes], 1)], 1)

    @torch.no_grad()
    def mask_(self, W_enc: torch.Tensor, W_dec: torch.Tensor, W_skip: torch.Tensor | None) -> None:
        """Of a causal one: put what no latent may read or write to zero.

        Args:
            W_enc: [D, F].
            W_dec: [F, O].
            W_skip: [O, D]; None for none.
        """
        if not self.causal:
            return
        reads, writes = ([point.width for point in points] for points in (self.reads, self.writes))
        latents = [W_dec.shape[0] // len(reads)] * len(reads)
        for layer, of_layer in enumerate(W_dec.split(latents)):
            of_layer[:, : sum(writes[:layer])] = 0
        for layer, of_layer in enumerate(W_enc.split(latents, 1)):
            first = sum(reads[:layer])
            of_layer[:first] = 0
            of_layer[first + reads[layer] :] = 0
        for layer, of_layer in enumerate(W_skip.split(writes)) if W_skip is not None else ():
            of_layer[:, sum(reads[: layer + 1]) :] = 0
