"""Whether an attribute can be put into a text by moving a few latents, and nothing else: RAVEL's interchange.

A base text gets the values that the latents of one attribute have in a source text, which differs in both attributes.
The attribute should become the source's (`cause`), the other one should stay the base's (`isolation`). RAVEL asks the
host's own answers about entities; here linear probes on the mean activation of a text answer, so that any set with two
labels will do. As for TPP and SCR that mean is linear in the mean code, and texts are encoded once.

Source: Huang, Wu, Potts, Geva and Geiger 2024 (RAVEL), arXiv 2402.17700, section 3.

Shapes: D dimensions, F latents, T texts, P pairs of a base and a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evals.labelled import Labelled
from evals.metrics.perturbation import NUMBERS, Pooled, Probe, check_crossed, effects, largest, pooled_texts
from evals.results import Figures
from rsae import SAE, Host

#: Sources of each base
_SOURCES = 4


@dataclass(frozen=True)
class Interchanged(Figures):
    """Interchange with some number of latents: means over both attributes, on pairs whose four answers are right."""

    latents: int
    """How many latents of an attribute are moved."""
    score: float
    """Mean of `cause` and `isolation`: RAVEL's disentanglement score."""
    cause: float
    """Share of pairs whose moved attribute becomes the source's."""
    isolation: float
    """Share of pairs whose other attribute stays the base's."""


@dataclass(frozen=True)
class Interchange:
    """The figures of `evals.interchange`."""

    concepts: tuple[str, str]
    """The two attributes."""
    pairs: int
    """Pairs that count."""
    by_number: tuple[Interchanged, ...]
    """With growing numbers of latents; none where no pair counts. Moving nothing scores 0.5: all is isolated."""


def interchanged(data: Pooled, concepts: Sequence[str], numbers: Sequence[int] = NUMBERS) -> Interchange:
    """Interchange on pooled texts.

    Args:
        data: Texts with two labels.
        concepts: The labels' names.
        numbers: Numbers of moved latents.

    Returns:
        The shares.
    """
    label_TC, train_T = data.label_TC.astype(bool), data.is_train_T
    probes = [Probe.fit(data.x_TD[train_T], y_T[train_T]) for y_T in label_TC.T]
    effect_CF = [
        np.abs(effects(data, p.weight_D, y_T, train_T)) for p, y_T in zip(probes, label_TC.T, strict=True)
    ]
    right_T = np.all([p.says(data.x_TD) == y_T for p, y_T in zip(probes, label_TC.T, strict=True)], axis=0)
    base_P, source_P = _pairs(label_TC, ~train_T & right_T)
    found = []
    for number in (n for n in numbers if n <= len(data.W_FD) and len(base_P)):
        cause, isolation = [], []
        for attribute in (0, 1):
            moved = largest(effect_CF[attribute], number)
            change_PF = data.z_TF[source_P][:, moved] - data.z_TF[base_P][:, moved]
            x_PD = data.x_TD[base_P] + change_PF @ data.W_FD[moved]
            other = 1 - attribute
            cause.append(probes[attribute].says(x_PD) == label_TC[source_P, attribute])
            isolation.append(probes[other].says(x_PD) == label_TC[base_P, other])
        shares = [float(np.mean(each)) for each in (cause, isolation)]
        found.append(Interchanged(number, sum(shares) / 2, *shares))
    return Interchange((concepts[0], concepts[1]), len(base_P), tuple(found))


def _pairs(label_TC: np.ndarray, chosen_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bases and their sources, which differ in both labels."""
    rng = np.random.default_rng(0)
    bases, sources = [], []
    for labels in ((False, False), (False, True), (True, False), (True, True)):
        base_P = np.flatnonzero(chosen_T & (label_TC == labels).all(1))
        others = np.flatnonzero(chosen_T & (label_TC != labels).all(1))
        if len(others):
            bases.append(np.repeat(base_P, _SOURCES))
            sources.append(rng.choice(others, _SOURCES * len(base_P)))
    nothing = np.zeros(0, dtype=int)
    return np.concatenate([nothing, *bases]), np.concatenate([nothing, *sources])


def interchange(
    sae: SAE,
    host: Host,
    texts: Labelled,
    numbers: Sequence[int] = NUMBERS,
    hook: str | None = None,
    context: int = 128,
    allow_mismatch: bool = False,
) -> Interchange:
    """Interchange of latents (as RAVEL): do they carry one attribute of a text to another, and no other attribute?

    Args:
        sae: The SAE.
        host: The model.
        texts: Texts with two labels (`evals.load_crossed`).
        numbers: Numbers of moved latents.
        hook: Hook point; by default the one that the SAE was trained at.
        context: Tokens a text, truncated on the right.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        The figures; a larger score is better, 0.5 is that of moving nothing.

    Raises:
        InputError: where the texts have other than two labels.
    """
    check_crossed(texts, "interchange")
    return interchanged(pooled_texts(sae, host, texts, hook, context, allow_mismatch), texts.classes, numbers)
