"""sae-probes: 113 binary sets by its own protocol (last token, L1 regression), beside the same without leakage.

    theirs   its split (a random half of each class) as it stands
    clean    a text that occurs twice is kept once, and goes to train or test by a hash

Source: Kantamneni et al. 2025, arXiv 2502.16681; the package sae-probes 0.4.2, whose rules for sizes, ranking, the
choice of C on the last training texts and scores are followed.

Shapes: T texts, D dimensions, F latents.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import zstandard
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from evals.metrics.codes import host_code, place_of, row_norms
from evals.results import Figures
from evals.stats import Interval
from evals.tasks import split_of
from rsae import SAE, Host
from rsae.activations.hooks import activations_at, pad
from rsae.activations.text import package_directory
from rsae.support.errors import InputError, did_you_mean
from rsae.support.progress import progress

#: Numbers of latents, as the package's summary has them, and one
NUMBERS = (1, 16, 128)
#: Texts of a set at most, training texts at most, test texts at least
MOST, TRAIN, TEST = 5000, 1024, 100
#: Candidates for the strength of the penalty
STRENGTHS = np.logspace(5, -5, 10)
_BATCH, _RESAMPLES = 16, 500


@dataclass(frozen=True)
class ProbeScores(Figures):
    """A probe's scores on the test texts."""

    auc: float
    """Area under the ROC curve."""
    auc_interval: Interval
    """95 %, by resampling test texts."""
    accuracy: float
    """Share that is told right."""
    f1: float
    """F1, weighted over both classes."""


@dataclass(frozen=True)
class SplitScores:
    """Scores under one split of a set."""

    train: int
    """Training texts."""
    test: int
    """Test texts."""
    leaked: float
    """Share of the test texts that occur among the training texts, but for case and white space."""
    by_number: dict[int, ProbeScores]
    """By number of latents."""
    dense: ProbeScores
    """Of a probe on the whole activation."""


@dataclass(frozen=True)
class SetScores:
    """One of the sets."""

    name: str
    """Its name."""
    theirs: SplitScores
    """By the package's split."""
    clean: SplitScores
    """Without leakage."""


def sae_probe_sets() -> list[str]:
    """The names of the binary sets that the package installs."""
    table = _csv("probing_datasets_MASTER")
    files = table["Dataset save name"][table["Data type"] == "Binary Classification"]
    return [str(name).split("/")[-1].removesuffix(".csv") for name in files]


def sae_probes(
    sae: SAE,
    host: Host,
    names: Sequence[str] = (),
    numbers: Sequence[int] = NUMBERS,
    context: int = 1024,
    seed: int = 42,
    hook: str | None = None,
    allow_mismatch: bool = False,
) -> list[SetScores]:
    """Probe an SAE on the sets of sae-probes.

    Args:
        sae: The SAE.
        host: The model.
        names: Which sets; all by default, which takes hours on a CPU.
        numbers: Numbers of latents.
        context: Tokens a text, truncated on the left; at most the host's positions.
        seed: Of splits and fits.
        hook: Hook point; by default the one that the SAE was trained at.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        The scores, a set each.

    Raises:
        InputError: for an unknown set, or more latents than there are.
    """
    known = sae_probe_sets()
    for name in names:
        if name not in known:
            raise InputError(f"set {name!r} is none of sae-probes{did_you_mean(name, known)}")
    if not any(k <= sae.d_sae for k in numbers):
        raise InputError(f"numbers of latents, {', '.join(map(str, numbers))}: the SAE has {sae.d_sae}")
    place = place_of(sae, host, hook, None, allow_mismatch)
    positions = getattr(host.model.config.get_text_config(), "max_position_embeddings", context)
    found = []
    with progress(len(names or known), "sae-probes", "set") as bar:
        for name in names or known:
            table = _csv(f"cleaned_data/{name}")[:MOST]
            texts = [str(text) for text in table["prompt"]]
            y_T = _labels(table["target"].tolist())
            x_TD = _last_tokens(host, place.point, texts, min(context, positions))
            with torch.no_grad():
                z_TF = torch.cat(
                    [host_code(sae, x.to(sae.W_enc.device)).float().cpu() for x in x_TD.split(1024)]
                )
            found.append(scores(name, texts, y_T, x_TD.numpy(), z_TF.numpy() * row_norms(sae), numbers, seed))
            bar.update()
    return found


def scores(
    name: str,
    texts: Sequence[str],
    y_T: np.ndarray,
    x_TD: np.ndarray,
    z_TF: np.ndarray,
    numbers: Sequence[int] = NUMBERS,
    seed: int = 42,
) -> SetScores:
    """Both splits of one set.

    Args:
        name: The set's name.
        texts: Its texts.
        y_T: Their labels, True or False.
        x_TD: The host's activation at the last token of each.
        z_TF: Its code.
        numbers: Numbers of latents.
        seed: Of splits and fits.
    """
    keys = [" ".join(text.casefold().split()) for text in texts]
    splits = {"theirs": their_split(y_T, seed), "clean": clean_split(keys, y_T, seed)}
    made = {}
    for split, (train, test) in splits.items():
        seen = {keys[i] for i in train}
        order = ranking(z_TF[train], y_T[train])
        made[split] = SplitScores(
            train=len(train),
            test=len(test),
            leaked=float(np.mean([keys[i] in seen for i in test])),
            by_number={
                k: probe_scores(z_TF[:, order[:k]], y_T, train, test, True, seed)
                for k in numbers
                if k <= z_TF.shape[1]
            },
            dense=probe_scores(x_TD, y_T, train, test, False, seed),
        )
    return SetScores(name, made["theirs"], made["clean"])


def their_split(y_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The package's training and test texts: half of each class, at random.

    Args:
        y_T: The labels.
        seed: Of the choice.
    """
    if len(y_T) < TEST + 10:
        raise InputError(
            f"sae-probes: {len(y_T)} texts are too few; {TEST} are for testing, 10 at least for training"
        )
    rng = np.random.RandomState(seed)
    train = min(len(y_T) - TEST, TRAIN)
    test = len(y_T) - train - 1
    pools = [np.where(y_T)[0], np.where(~y_T)[0]]
    of_train = (-(-train // 2), train - (-(-train // 2)))
    of_test = (-(-test // 2), test - (-(-test // 2)))
    chosen = [rng.choice(p, size=min(n, len(p)), replace=False) for p, n in zip(pools, of_train, strict=True)]
    rest = [np.setdiff1d(pool, part) for pool, part in zip(pools, chosen, strict=True)]
    tested = [rng.choice(p, size=min(n, len(p)), replace=False) for p, n in zip(rest, of_test, strict=True)]
    return rng.permutation(np.concatenate(chosen)), rng.permutation(np.concatenate(tested))


def clean_split(keys: Sequence[str], y_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test texts of which none occurs twice; both splits hold as many of each class.

    Args:
        keys: What tells the texts apart.
        y_T: The labels.
        seed: Of the split and the order.
    """
    keys = list(keys)
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    order = np.random.default_rng(seed).permutation(sorted(first.values()))
    pools: dict[tuple[str, bool], list[int]] = {}
    for i in order:
        pools.setdefault((split_of(keys[i], seed), bool(y_T[i])), []).append(int(i))
    parts = []
    for split, most in (("train", TRAIN // 2), ("test", MOST)):
        count = min(most, len(pools.get((split, True), [])), len(pools.get((split, False), [])))
        both = [pools[split, label][i] for i in range(count) for label in (True, False)]
        parts.append(np.array(both, dtype=np.int64))
    return parts[0], parts[1]


def ranking(z_TF: np.ndarray, y_T: np.ndarray) -> np.ndarray:
    """Latents by the gap of their means over the classes, in units of their mean where they fire.

    Args:
        z_TF: Codes of the training texts.
        y_T: Their labels.
    """
    mean_F = np.abs(z_TF).sum(0) / ((z_TF != 0).sum(0) + 1e-6)
    scaled_TF = z_TF / (mean_F + 1e-6)
    return np.argsort(-np.abs(scaled_TF[y_T].mean(0) - scaled_TF[~y_T].mean(0)), kind="stable")


def probe_scores(
    z_TK: np.ndarray, y_T: np.ndarray, train: np.ndarray, test: np.ndarray, l1: bool, seed: int
) -> ProbeScores:
    """A logistic regression whose penalty is chosen on the last fifth of the training texts, at most 100.

    Args:
        z_TK: The columns to probe.
        y_T: The labels.
        train: Training texts.
        test: Test texts.
        l1: An L1 penalty; else L2.
        seed: Of fits and resamples.
    """
    if min(len(np.unique(y_T[part])) for part in (train, test)) < 2:
        raise InputError("sae-probes: a split has texts of one class only; the set is too small")
    size = len(train) - min(int(0.2 * len(train)), 100)
    fit, look = train[:size], train[size:]

    def made(strength: float, rows: np.ndarray) -> LogisticRegression:
        kind = {"l1_ratio": 1.0, "solver": "saga"} if l1 else {}
        return LogisticRegression(C=strength, random_state=seed, max_iter=1000, **kind).fit(
            z_TK[rows], y_T[rows]
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seen = [
            roc_auc_score(y_T[look], made(strength, fit).predict_proba(z_TK[look])[:, 1])
            for strength in STRENGTHS
        ]
        model = made(float(STRENGTHS[int(np.argmax(seen))]), train)
    says_T = model.predict_proba(z_TK[test])[:, 1]
    right = y_T[test]
    return ProbeScores(
        auc=float(roc_auc_score(right, says_T)),
        auc_interval=auc_interval(right, says_T, seed),
        accuracy=float(accuracy_score(right, model.predict(z_TK[test]))),
        f1=float(f1_score(right, model.predict(z_TK[test]), average="weighted")),
    )


def auc_interval(y_T: np.ndarray, says_T: np.ndarray, seed: int = 0) -> Interval:
    """The 95 % bootstrap interval of an AUC over test texts; each class keeps its size.

    Args:
        y_T: The labels.
        says_T: What the probe says.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    wins_PN = (says_T[y_T][:, None] > says_T[~y_T]) + 0.5 * (says_T[y_T][:, None] == says_T[~y_T])
    p, n = wins_PN.shape
    of_positives = rng.multinomial(p, np.full(p, 1 / p), _RESAMPLES)
    of_negatives = rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES)
    aucs = ((of_positives @ wins_PN) * of_negatives).sum(1) / (p * n)
    low, high = np.quantile(aucs, (0.025, 0.975))
    return Interval(float(low), float(high))


def _last_tokens(host: Host, point, texts: Sequence[str], context: int) -> torch.Tensor:
    """The activation at each text's last token; longer texts lose their beginning."""
    first = host.bos()
    ids = [
        row[-(context - len(first)) :]
        for row in host.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ]
    sequences = [first + (row or host.tokenizer(" ", add_special_tokens=False)["input_ids"]) for row in ids]
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    found: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        tokens_BP, mask_BP = pad([sequences[i] for i in chosen], host.device)
        x_BPD = activations_at(host, point, tokens_BP, mask_BP)
        for row, i in enumerate(chosen):
            found[i] = x_BPD[row, len(sequences[i]) - 1].cpu()
    return torch.stack([found[i] for i in range(len(sequences))])


def _labels(target: list) -> np.ndarray:
    """The second of the two values in order is the positive class."""
    positive = sorted(set(target))[1]
    return np.array([value == positive for value in target])


def _csv(name: str) -> pd.DataFrame:
    path = package_directory("sae_probes") / "data" / f"{name}.csv.zst"
    with open(path, "rb") as file:
        return pd.read_csv(io.BytesIO(zstandard.ZstdDecompressor().stream_reader(file).read()))
