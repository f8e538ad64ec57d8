"""What an SAE finds of a world whose features are known.

Two matches of latents with features, both one to one (Hungarian): by |cosine| of decoder rows and directions, for MCC;
and by cosine of *half-latents* that fire, for how well features are detected. A half-latent is a latent; a signed
latent is two, one for each sign of its code, with the decoder row and the reversed row as directions. So one signed
latent can detect both poles of a signed pair. Shapes: B samples, D dimensions, F latents, H half-latents, G features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from evals.results import Figures
from evals.world import World
from rsae import SAE, InputError
from rsae.activations.protocol import check_width

#: Lower edges of the frequency bands
BANDS = (0.1, 0.03, 0.01, 0.0)
#: A half-latent is about a feature where its cosine and its precision reach this
ABOUT = 0.5
#: ... it covers part of the feature where its recall reaches this, and all of it where its recall reaches that
PART, WHOLE = 0.1, 0.9
#: A child's latent carries its parent where its row's cosine with the parent's direction reaches this
CARRIES = 0.2
#: A parent is absorbed where its latent is silent on this share of a child's samples, and the child's carries it
ABSORBED = 0.5


@dataclass(frozen=True)
class Band(Figures):
    """Means over the features of a band of frequencies."""

    above: float
    """Lower edge of the frequencies."""
    features: int
    """How many features lie in it."""
    mcc: float
    """Mean |cosine| with the matched latent, 0 for a feature without one."""
    precision: float
    """Mean share of the detector's firings on which the feature is active."""
    recall: float
    """Mean share of the feature's samples on which the detector fires."""
    f1: float
    """Mean harmonic mean of precision and recall."""


@dataclass(frozen=True)
class GroundTruth(Figures):
    """What an SAE finds of a world."""

    mcc: float
    """Mean |cosine| of the matched decoder rows and directions, over the min(F, G) pairs of the best match."""
    precision: float
    """Mean over features of their detector's precision, 0 for a feature without a detector."""
    recall: float
    """Mean over features of their detector's recall."""
    f1: float
    """Mean over features of the harmonic mean of precision and recall."""
    uniqueness: float
    """Different features that are nearest to some latent that fires, as a share of min(F, G)."""
    split: float
    """Share of features that two half-latents or more are about, each in part, and none as a whole."""
    absorbed: float
    """Share of parents whose latent is silent where a child's latent stands in for it."""
    absorption: float
    """Mean over parents and children of the share of the child's samples on which that happens."""
    explained_variance: float
    """1 - FVU on the samples."""
    l0: float
    """Mean number of non-zero entries of the code."""
    true_l0: float
    """Mean number of active features."""
    alive: float
    """Share of latents that fire."""
    samples: int
    """How many samples the figures are of."""
    bands: tuple[Band, ...]
    """By frequency, the most frequent first; bands without a feature are not there."""
    frequency_G: tuple[float, ...]
    """Of each feature, on the samples."""
    cosine_G: tuple[float, ...]
    """Of each feature: |cosine| with its matched latent."""
    precision_G: tuple[float, ...]
    """Of each feature."""
    recall_G: tuple[float, ...]
    """Of each feature."""
    f1_G: tuple[float, ...]
    """Of each feature."""


@torch.no_grad()
def ground_truth(sae: SAE, world: World, samples: int = 20_000, seed: int = 1) -> GroundTruth:
    """Score an SAE against the world that it was trained on.

    Args:
        sae: The SAE; it takes activations as the world gives them.
        world: The world.
        samples: How many samples to measure on, 2 at least.
        seed: Of the samples.

    Returns:
        The scores.

    Raises:
        InputError: where the SAE takes activations of another width, or one sample has no variance.
    """
    check_width(sae, world.d_in, "the world")
    if samples < 2:
        raise InputError(f"samples={samples}: 2 at least have a variance")
    unit_FD = torch.nn.functional.normalize(sae.W_dec.float().cpu(), dim=1)
    cosine_FG = unit_FD @ world.W_GD.T
    cosine_HG = torch.cat([cosine_FG, -cosine_FG]) if sae.signed else cosine_FG
    fired_H = torch.zeros(len(cosine_HG), dtype=torch.bool)
    for x_BD, _ in _blocks(world, samples, seed):
        fired_H |= _on(sae.encode(x_BD.to(sae.W_enc)).cpu(), sae.signed).any(0)
    # what never fires detects nothing, and would stand in the way of what does
    living_H = fired_H.nonzero().squeeze(1)
    row_G = match(cosine_HG[living_H])
    detector_G = torch.where(row_G < 0, -1, living_H[row_G.clamp_min(0)]) if len(living_H) else row_G
    counts = _Counts(world, detector_G, cosine_HG)
    for x_BD, active_BG in _blocks(world, samples, seed):
        z_BF = sae.encode(x_BD.to(sae.W_enc))
        counts.add(x_BD, active_BG, z_BF.cpu(), sae.decode(z_BF, x_BD.to(z_BF)).cpu(), sae.signed)
    return counts.scores(cosine_FG)


def match(score_FG: torch.Tensor) -> torch.Tensor:
    """The one-to-one match of rows and columns with the largest sum.

    Args:
        score_FG: Scores of latents (or half-latents) with features.

    Returns:
        The row of each column, [G]; -1 for a column without one.
    """
    row, column = linear_sum_assignment(score_FG.numpy(), maximize=True)
    row_G = torch.full((score_FG.shape[1],), -1)
    row_G[torch.as_tensor(column)] = torch.as_tensor(row)
    return row_G


def _on(z_BF: torch.Tensor, signed: bool) -> torch.Tensor:
    """Where each half-latent fires, [B, H]."""
    return torch.cat([z_BF > 0, z_BF < 0], dim=1) if signed else z_BF != 0


def _blocks(world: World, samples: int, seed: int):
    for a_BG, x_BD in world._chunks(samples, seed):
        yield x_BD, a_BG > 0


class _Counts:
    """What is counted over samples."""

    def __init__(self, world: World, detector_G: torch.Tensor, cosine_HG: torch.Tensor):
        self.world, self.detector_G, self.cosine_HG = world, detector_G, cosine_HG
        half, features = cosine_HG.shape
        self.both_HG = torch.zeros(half, features, dtype=torch.float64)
        self.fired_H = torch.zeros(half, dtype=torch.float64)
        self.active_G, self.absorbed_G = torch.zeros(2, features, dtype=torch.float64)
        self.samples, self.entries, self.error, self.square = 0, 0, 0.0, 0.0
        self.total_D = torch.zeros(world.d_in, dtype=torch.float64)
        self.children = (world.parent_G >= 0).nonzero().squeeze(1)
        self.parents = world.parent_G[self.children]
        carries = cosine_HG[detector_G[self.children].clamp_min(0), self.parents] >= CARRIES
        known = (detector_G[self.children] >= 0) & (detector_G[self.parents] >= 0)
        self.carries = carries & known

    def add(
        self,
        x_BD: torch.Tensor,
        active_BG: torch.Tensor,
        z_BF: torch.Tensor,
        x_hat_BD: torch.Tensor,
        signed: bool,
    ) -> None:
        on_BH = _on(z_BF, signed)
        self.both_HG += (on_BH.float().T @ active_BG.float()).double()
        self.fired_H += on_BH.sum(0)
        self.active_G += active_BG.sum(0)
        self.samples += len(x_BD)
        self.entries += int((z_BF != 0).sum())
        self.error += (x_hat_BD.double() - x_BD.double()).square().sum().item()
        self.square += x_BD.double().square().sum().item()
        self.total_D += x_BD.double().sum(0)
        child_BC = active_BG[:, self.children] & on_BH[:, self.detector_G[self.children].clamp_min(0)]
        silent_BC = ~on_BH[:, self.detector_G[self.parents].clamp_min(0)]
        self.absorbed_G[self.children] += (child_BC & silent_BC & self.carries).sum(0)

    def scores(self, cosine_FG: torch.Tensor) -> GroundTruth:
        """The scores of all that was counted."""
        detected_G = self.detector_G >= 0
        both_G = self.both_HG[self.detector_G.clamp_min(0), torch.arange(len(detected_G))] * detected_G
        fired_G = self.fired_H[self.detector_G.clamp_min(0)]
        precision_G = both_G / fired_G.clamp_min(1)
        recall_G = both_G / self.active_G.clamp_min(1)
        f1_G = 2 * both_G / (fired_G * detected_G + self.active_G).clamp_min(1)
        matched_G = match(cosine_FG.abs())
        nearest_G = cosine_FG.abs()[matched_G.clamp_min(0), torch.arange(len(matched_G))] * (matched_G >= 0)
        fired_F = self.fired_H.reshape(-1, len(cosine_FG)).sum(0)
        pairs = min(cosine_FG.shape)
        variance = self.square - self.total_D.square().sum().item() / self.samples
        rate_C = self.absorbed_G[self.children] / self.active_G[self.children].clamp_min(1)
        frequency_G = self.active_G / self.samples
        figures = (nearest_G.double(), precision_G, recall_G, f1_G)
        nearest_F = cosine_FG.abs().argmax(1)[fired_F > 0]
        return GroundTruth(
            mcc=nearest_G.double().sum().item() / pairs,
            precision=precision_G.mean().item(),
            recall=recall_G.mean().item(),
            f1=f1_G.mean().item(),
            uniqueness=len(nearest_F.unique()) / pairs,
            split=self._split(),
            absorbed=len(self.parents[rate_C >= ABSORBED].unique()) / max(1, len(self.parents.unique())),
            absorption=rate_C.mean().item() if len(rate_C) else 0.0,
            explained_variance=1 - self.error / variance,
            l0=self.entries / self.samples,
            true_l0=self.active_G.sum().item() / self.samples,
            alive=(fired_F > 0).double().mean().item(),
            samples=self.samples,
            bands=_bands(self.world.frequency_G, figures),
            frequency_G=tuple(frequency_G.tolist()),
            cosine_G=tuple(nearest_G.tolist()),
            precision_G=tuple(precision_G.tolist()),
            recall_G=tuple(recall_G.tolist()),
            f1_G=tuple(f1_G.tolist()),
        )

    def _split(self) -> float:
        """Share of features that several half-latents cover in part, and none as a whole."""
        precision_HG = self.both_HG / self.fired_H.clamp_min(1)[:, None]
        recall_HG = self.both_HG / self.active_G.clamp_min(1)
        about_HG = (self.cosine_HG >= ABOUT) & (precision_HG >= ABOUT)
        parts_G = (about_HG & (recall_HG >= PART)).sum(0)
        whole_G = (about_HG & (recall_HG >= WHOLE)).any(0)
        return ((parts_G >= 2) & ~whole_G).double().mean().item()


def _bands(frequency_G: torch.Tensor, figures: tuple[torch.Tensor, ...]) -> tuple[Band, ...]:
    """Means of figures over the features of each band."""
    found = []
    for low, high in zip(BANDS, (np.inf, *BANDS[:-1]), strict=True):
        inside_G = (frequency_G >= low) & (frequency_G < high)
        if count := int(inside_G.sum()):
            found.append(Band(low, count, *(values_G[inside_G].mean().item() for values_G in figures)))
    return tuple(found)
