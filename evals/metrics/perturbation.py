"""Whether a concept can be taken out by ablating a few latents, and nothing else: SAEBench's TPP and SCR.

Both ablate the latents that speak most for a linear probe, and look at probes on the rest: x minus what the ablated
latents add, the SAE's error left in. The mean of that over a text's tokens is linear in the mean code, so that texts
are encoded once. What differs from SAEBench: probes are L2 logistic regressions (its own are trained by Adam for 20
epochs), accuracies are balanced over classes (there as many negatives are drawn), and a signed latent counts with its
sign where SAEBench drops the negative part.

Source: Karvonen et al. 2025 (SAEBench), arXiv 2503.09532, which has SCR from Marks et al. 2024 (SHIFT).

Shapes: N tokens, D dimensions, F latents, T texts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from evals.labelled import Labelled
from evals.metrics.codes import check_writes_back, host_code, place_of
from evals.metrics.probing import ProbeData, labelled_data
from evals.results import Figures
from rsae import SAE, Host
from rsae.support.errors import InputError

#: Numbers of ablated latents
NUMBERS = (2, 5, 10, 20, 50, 100, 500)
#: Below this gap between the clean and the biased probe there is nothing to recover
_GAP = 0.001


@dataclass(frozen=True)
class Pooled:
    """Means over texts' tokens."""

    x_TD: np.ndarray
    """Activations."""
    z_TF: np.ndarray
    """Codes, in units of the decoder rows as the host sees them."""
    W_FD: np.ndarray
    """Decoder rows."""
    label_TC: np.ndarray
    """True where a text belongs to a class."""
    is_train_T: np.ndarray
    """True for a training text."""
    signed: bool
    """Whether codes have both signs."""

    def ablated(self, latents: np.ndarray) -> np.ndarray:
        """The mean activations without what some latents add, [T, D].

        Args:
            latents: Their numbers.
        """
        return self.x_TD - self.z_TF[:, latents] @ self.W_FD[latents]


@dataclass(frozen=True)
class Targeted(Figures):
    """Targeted probe perturbation with some number of ablated latents: means over classes."""

    latents: int
    """How many latents are ablated for each class."""
    score: float
    """`intended` minus `unintended`: SAEBench's TPP."""
    intended: float
    """How much the accuracy of the probe falls whose latents are ablated."""
    unintended: float
    """How much those of the others fall."""


@dataclass(frozen=True)
class Perturbation:
    """The figures of `evals.targeted_perturbation`."""

    classes: tuple[str, ...]
    """Their names."""
    clean: tuple[float, ...]
    """Balanced accuracy of each class's probe on the host's own activation."""
    by_number: tuple[Targeted, ...]
    """With growing numbers of ablated latents."""


@dataclass(frozen=True)
class Removed(Figures):
    """Spurious correlation removal with some number of ablated latents."""

    latents: int
    """How many latents are ablated."""
    score: float
    """Share of the accuracy recovered that the bias costs, for the concept that the biased probe tells worse."""
    first: float
    """The same for the first concept, with latents of the second ablated; 0 where the bias costs less than 0.001."""
    second: float
    """The same for the second concept, with latents of the first ablated."""


@dataclass(frozen=True)
class Removal:
    """The figures of `evals.spurious_removal`."""

    concepts: tuple[str, str]
    """The two concepts."""
    clean: tuple[float, float]
    """Balanced accuracy of a probe that was trained for each concept without the bias."""
    biased: tuple[float, float]
    """Of the probe that was trained where both concepts go together, for each concept."""
    by_number: tuple[Removed, ...]
    """With growing numbers of ablated latents."""


@torch.no_grad()
def pool(sae: SAE, data: ProbeData, rows: int = 4096) -> Pooled:
    """Encode labelled texts.

    Args:
        sae: The SAE.
        data: The texts' activations.
        rows: Tokens at a time.
    """
    texts = len(data.label_T)
    x_TD = torch.zeros(texts, sae.d_in, dtype=torch.float64)
    z_TF = torch.zeros(texts, sae.d_sae, dtype=torch.float64)
    for x_BD, text_B in data.blocks(rows):
        z_BF = host_code(sae, x_BD.to(sae.W_enc.device)).double().cpu()
        z_TF.index_add_(0, text_B, z_BF)
        x_TD.index_add_(0, text_B, x_BD.double())
    count_T1 = torch.bincount(data.text_N.long(), minlength=texts)[:, None]
    return Pooled(
        (x_TD / count_T1).numpy(),
        (z_TF / count_T1).numpy(),
        sae.W_dec.double().cpu().numpy(),
        data.label_T,
        data.is_train_T,
        sae.signed,
    )


def pooled_texts(
    sae: SAE,
    host: Host,
    texts: Labelled,
    hook: str | None = None,
    context: int = 128,
    allow_mismatch: bool = False,
) -> Pooled:
    """Have the host read labelled texts, and encode them.

    Args:
        sae: The SAE.
        host: The model.
        texts: The texts.
        hook: Hook point; by default the one that the SAE was trained at.
        context: Tokens a text, truncated on the right.
        allow_mismatch: Accept an SAE of another model or hook point.
    """
    check_writes_back(sae, "TPP, SCR and interchange move latents")
    place = place_of(sae, host, hook, None, allow_mismatch)
    left_out = (place.norm_limit, place.exclude_tokens)
    return pool(sae, labelled_data(host, str(place.point), texts, context, *left_out))


@dataclass(frozen=True)
class Probe:
    """A linear probe."""

    weight_D: np.ndarray
    """Its direction."""
    bias: float
    """What is added."""

    @classmethod
    def fit(cls, x_TD: np.ndarray, y_T: np.ndarray) -> Probe:
        """On activations in units of their mean norm, so that the penalty means the same in all hosts.

        Args:
            x_TD: Mean activations.
            y_T: Labels.
        """
        unit = np.linalg.norm(x_TD, axis=1).mean() / np.sqrt(x_TD.shape[1])
        model = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced").fit(x_TD / unit, y_T)
        return cls(model.coef_[0] / unit, float(model.intercept_[0]))

    def says(self, x_TD: np.ndarray) -> np.ndarray:
        """What it takes each text for, [T].

        Args:
            x_TD: Mean activations.
        """
        return x_TD @ self.weight_D + self.bias > 0

    def accuracy(self, x_TD: np.ndarray, y_T: np.ndarray) -> float:
        """Balanced over both classes.

        Args:
            x_TD: Mean activations.
            y_T: Labels.
        """
        right_T = self.says(x_TD) == y_T
        return float((right_T[y_T].mean() + right_T[~y_T].mean()) / 2)


def effects(data: Pooled, weight_D: np.ndarray, y_T: np.ndarray, chosen_T: np.ndarray) -> np.ndarray:
    """How much each latent speaks for a probe on the training texts, [F]: SAEBench's linear attribution.

    Args:
        data: The texts.
        weight_D: The probe's direction.
        y_T: The probe's labels.
        chosen_T: Which texts count.
    """
    gap_F = data.z_TF[chosen_T & y_T].mean(0) - data.z_TF[chosen_T & ~y_T].mean(0)
    return gap_F * (data.W_FD @ weight_D)


def largest(effect_F: np.ndarray, number: int) -> np.ndarray:
    """The latents with the largest effects, of those that have any.

    Args:
        effect_F: The effects.
        number: How many latents.
    """
    order = np.argsort(-effect_F, kind="stable")[:number]
    return order[effect_F[order] != 0]


def perturb(data: Pooled, classes: Sequence[str], numbers: Sequence[int] = NUMBERS) -> Perturbation:
    """Targeted probe perturbation on pooled texts.

    Args:
        data: Texts of several classes.
        classes: The classes' names.
        numbers: Numbers of ablated latents.

    Returns:
        Means over classes.
    """
    train_T, test_T = data.is_train_T, ~data.is_train_T
    label_TC = data.label_TC.astype(bool)
    probes = [Probe.fit(data.x_TD[train_T], y_T[train_T]) for y_T in label_TC.T]

    def accuracies(x_TD: np.ndarray) -> np.ndarray:
        pairs = zip(probes, label_TC.T, strict=True)
        return np.array([probe.accuracy(x_TD[test_T], y_T[test_T]) for probe, y_T in pairs])

    clean_C = accuracies(data.x_TD)
    effect_CF = []
    for probe, y_T in zip(probes, label_TC.T, strict=True):
        effect_F = effects(data, probe.weight_D, y_T, train_T)
        if not data.signed:  # what is on more for the class, not what is on less
            gap_F = data.z_TF[train_T & y_T].mean(0) - data.z_TF[train_T & ~y_T].mean(0)
            effect_F = np.where(gap_F > 0, effect_F, 0.0)
        effect_CF.append(effect_F)
    found = []
    for number in (n for n in numbers if n <= len(data.W_FD)):
        fall_CC = np.array([clean_C - accuracies(data.ablated(largest(e_F, number))) for e_F in effect_CF])
        own = np.eye(len(classes), dtype=bool)
        intended, unintended = float(fall_CC[own].mean()), float(fall_CC[~own].mean())
        found.append(Targeted(number, intended - unintended, intended, unintended))
    return Perturbation(tuple(classes), tuple(clean_C.tolist()), tuple(found))


def remove(data: Pooled, concepts: Sequence[str], numbers: Sequence[int] = NUMBERS) -> Removal:
    """Spurious correlation removal on pooled texts.

    Args:
        data: Texts with two labels.
        concepts: The labels' names.
        numbers: Numbers of ablated latents.

    Returns:
        The share of the accuracy that is recovered.
    """
    label_TC, train_T, test_T = data.label_TC.astype(bool), data.is_train_T, ~data.is_train_T
    together_T = train_T & (label_TC[:, 0] == label_TC[:, 1])
    biased_probe = Probe.fit(data.x_TD[together_T], label_TC[together_T, 0])
    probes = [Probe.fit(data.x_TD[train_T], y_T[train_T]) for y_T in label_TC.T]
    clean = [p.accuracy(data.x_TD[test_T], y_T[test_T]) for p, y_T in zip(probes, label_TC.T, strict=True)]
    biased = [biased_probe.accuracy(data.x_TD[test_T], y_T[test_T]) for y_T in label_TC.T]
    # the latents of each concept, by its own probe, whichever way they speak
    effect_CF = [
        np.abs(effects(data, p.weight_D, y_T, train_T)) for p, y_T in zip(probes, label_TC.T, strict=True)
    ]

    def recovered(concept: int, number: int) -> float:
        if clean[concept] - biased[concept] < _GAP:
            return 0.0
        x_TD = data.ablated(largest(effect_CF[1 - concept], number))
        now = biased_probe.accuracy(x_TD[test_T], label_TC[test_T, concept])
        return (now - biased[concept]) / (clean[concept] - biased[concept])

    found = []
    for number in (n for n in numbers if n <= len(data.W_FD)):
        first, second = recovered(0, number), recovered(1, number)
        found.append(Removed(number, first if biased[0] < biased[1] else second, first, second))
    return Removal((concepts[0], concepts[1]), (clean[0], clean[1]), (biased[0], biased[1]), tuple(found))


def targeted_perturbation(
    sae: SAE,
    host: Host,
    texts: Labelled,
    numbers: Sequence[int] = NUMBERS,
    hook: str | None = None,
    context: int = 128,
    allow_mismatch: bool = False,
) -> Perturbation:
    """Targeted probe perturbation (TPP): does ablating the latents of one class hurt the probe of that class alone?

    Args:
        sae: The SAE.
        host: The model.
        texts: Texts of several classes (`evals.load_classes`).
        numbers: Numbers of ablated latents.
        hook: Hook point; by default the one that the SAE was trained at.
        context: Tokens a text, truncated on the right.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        The figures; a larger score is better.
    """
    data = pooled_texts(sae, host, texts, hook, context, allow_mismatch)
    return perturb(data, texts.classes, numbers)


def spurious_removal(
    sae: SAE,
    host: Host,
    texts: Labelled,
    numbers: Sequence[int] = NUMBERS,
    hook: str | None = None,
    context: int = 128,
    allow_mismatch: bool = False,
) -> Removal:
    """Spurious correlation removal (SCR): a probe learns two concepts that go together; can one be taken out of it?

    Args:
        sae: The SAE.
        host: The model.
        texts: Texts with two labels (`evals.load_crossed`).
        numbers: Numbers of ablated latents.
        hook: Hook point; by default the one that the SAE was trained at.
        context: Tokens a text, truncated on the right.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        The figures; a larger score is better, 1 recovers all.

    Raises:
        InputError: where the texts have other than two labels.
    """
    check_crossed(texts, "spurious removal")
    return remove(pooled_texts(sae, host, texts, hook, context, allow_mismatch), texts.classes, numbers)


def check_crossed(texts: Labelled, what: str) -> None:
    """Refuse texts with other than two labels.

    Args:
        texts: The texts.
        what: What needs them.

    Raises:
        InputError: for such.
    """
    if len(texts.classes) != 2 or texts.label_TC.sum(1).max() < 2:
        raise InputError(f"{texts.name}: {what} needs two labels a text (evals.load_crossed)")
