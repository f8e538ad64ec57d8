"""Feature absorption on first letters: a letter's latents are silent where another latent has taken their part over.

The host reads words of one token behind a few spelling examples. A linear probe tells the first letter from the
activation at the word; the letter's own latents are found by sparse probing. Where the probe is right, it is looked at
which latents carry the probe's direction: the letter's own, or others. What differs from SAEBench: the examples are the
same before all words; probes are L2 logistic regressions, balanced; latents are ranked by the gap of their means; a
negative code counts as a positive one of the reversed row, so that the sign of a signed latent tells nothing.

Source: Chanin et al. 2024, arXiv 2409.14507; the two measures as SAEBench 0.6 defines them
(sae_bench/evals/absorption/feature_absorption_calculator.py).

Shapes: W words, D dimensions, F latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from evals.metrics.codes import check_writes_back, host_code, place_of
from evals.results import Figures
from rsae import SAE, Host
from rsae.activations.hooks import HookPoint, activations_at, pad
from rsae.support.errors import InputError
from rsae.support.progress import progress

#: Spelling examples before each word
EXAMPLES = 4
#: A letter takes one more latent where its F1 rises by at least this, up to this many
JUMP, MOST = 0.03, 10
#: Latents that absorb carry at least this share of the probe's projection
CARRIED = 0.4
#: ... they are at most this many, and each has at least this cosine with the probe
ABSORBERS, ALIGNED = 3, 0.1
#: Full absorption: the one latent with the largest projection has at least this cosine
FULLY_ALIGNED = 0.025
#: A code of a smaller size counts as silent
_SILENT = 1e-8
#: The fewest words of a letter in a split
_LEAST = 10
_BATCH = 64
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Letter:
    """Absorption of one letter."""

    letter: str
    """The letter."""
    latents: tuple[int, ...]
    """The letter's own latents."""
    f1: float
    """Of a probe on these, on the test words."""
    probe_f1: float
    """Of the probe on the activation, on the test words."""
    words: int
    """Test words of the letter that the probe tells."""
    fraction: float
    """Mean over these words of the share that other latents have taken over."""
    full: float
    """Share of these words on which the own latents are silent and one other stands in for them."""


@dataclass(frozen=True)
class Absorption(Figures):
    """The figures of `evals.absorption`: means over letters."""

    fraction: float
    """Share of the letter's part that other latents have taken over (SAEBench's mean absorption fraction)."""
    full: float
    """Share of words with full absorption (SAEBench's mean full absorption)."""
    split: float
    """Mean number of own latents of a letter."""
    letters: tuple[Letter, ...]
    """Letters with enough words."""
    words: int
    """Words that the host has read."""


@torch.no_grad()
def absorption(
    sae: SAE,
    host: Host,
    words: int = 4000,
    hook: str | None = None,
    seed: int = 0,
    allow_mismatch: bool = False,
) -> Absorption:
    """How far other latents have taken over what a first letter's own latents should tell.

    Args:
        sae: The SAE.
        host: The model.
        words: How many words of its vocabulary to read at most.
        hook: Hook point; by default the one that the SAE was trained at.
        seed: Of the choice of words and examples.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        Means over letters; less is better.

    Raises:
        InputError: where the vocabulary has too few words of one token.
    """
    check_writes_back(sae, "absorption compares rows")
    place = place_of(sae, host, hook, None, allow_mismatch)
    return absorption_of(sae, *read_words(host, str(place.point), words, seed))


@torch.no_grad()
def read_words(host: Host, hook: str, words: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Have the host read words of one token behind spelling examples.

    Args:
        host: The model.
        hook: Hook point.
        words: How many words of its vocabulary to read at most.
        seed: Of the choice of words and examples.

    Returns:
        x_WD, the activations at the words, and the first letter of each.

    Raises:
        InputError: where the vocabulary has too few words of one token.
    """
    point = HookPoint.parse(hook, host)
    known = vocabulary(host)
    order = np.random.default_rng(seed).permutation(len(known))
    chosen = [known[i] for i in order]
    if len(chosen) < EXAMPLES + 2 * _LEAST:
        raise InputError(
            f"absorption: host {host.name!r} has {len(chosen)} words of one token, which is too few"
        )
    examples, read = chosen[:EXAMPLES], chosen[EXAMPLES : EXAMPLES + words]
    told = "".join(f"{text.strip()}: {text.strip()[0].upper()}\n" for _, text in examples)
    prefix = host.bos() + host.tokenizer(told, add_special_tokens=False)["input_ids"]
    host.check_context(len(prefix) + 1)
    parts = []
    with progress(len(read), "words", "word") as bar:
        for start in range(0, len(read), _BATCH):
            some = read[start : start + _BATCH]
            tokens_BP, mask_BP = pad([[*prefix, token] for token, _ in some], host.device)
            parts.append(activations_at(host, point, tokens_BP, mask_BP)[:, -1].cpu())
            bar.update(len(some))
    return torch.cat(parts), np.array([text.strip()[0].lower() for _, text in read])


@torch.no_grad()
def absorption_of(sae: SAE, x_WD: torch.Tensor, letter_W: np.ndarray) -> Absorption:
    """Absorption in one SAE, of what `read_words` gave.

    Args:
        sae: The SAE.
        x_WD: Activations at the words.
        letter_W: First letter of each word.
    """
    codes = [host_code(sae, x_BD.to(sae.W_enc.device)) for x_BD in x_WD.split(1024)]
    z_WF = torch.cat(codes).double().cpu().numpy()
    return absorbed(x_WD.double().numpy(), z_WF, sae.W_dec.double().cpu().numpy(), letter_W)


def vocabulary(host: Host) -> list[tuple[int, str]]:
    """The tokens that are words of English letters behind a space: id and text.

    Args:
        host: The model.
    """
    size = min(host.model.config.get_text_config().vocab_size, len(host.tokenizer))
    texts = host.tokenizer.batch_decode([[token] for token in range(size)])
    return [
        (token, text)
        for token, text in enumerate(texts)
        if text[:1] == " " and len(text) > 2 and text[1:].isascii() and text[1:].isalpha()
    ]


def absorbed(x_WD: np.ndarray, z_WF: np.ndarray, W_FD: np.ndarray, letter_W: np.ndarray) -> Absorption:
    """Absorption of given words: of five words one is for testing, and one to choose how many latents a letter has.

    Args:
        x_WD: Activations at the words.
        z_WF: Their codes.
        W_FD: Decoder rows.
        letter_W: First letter of each word.

    Returns:
        Means over the letters that have ten words in each split.

    Raises:
        InputError: where no letter has.
    """
    part_W = np.arange(len(letter_W)) % 5
    test_W = part_W == 0
    # in units of unit rows: a letter's own latents are chosen by the size of codes
    norm_F = np.maximum(np.linalg.norm(W_FD, axis=1), 1e-12)
    z_WF, W_FD = z_WF * norm_F, W_FD / norm_F[:, None]
    found = []
    for letter in _LETTERS:
        y_W = letter_W == letter
        if min(int(y_W[test_W].sum()), int(y_W[~test_W].sum())) >= _LEAST:
            found.append(_letter(letter, x_WD, z_WF, W_FD, y_W, part_W))
    if not found:
        raise InputError(f"absorption: no first letter has {_LEAST} words in each split; read more words")
    return Absorption(
        fraction=float(np.mean([one.fraction for one in found])),
        full=float(np.mean([one.full for one in found])),
        split=float(np.mean([len(one.latents) for one in found])),
        letters=tuple(found),
        words=len(letter_W),
    )


def _letter(
    letter: str,
    x_WD: np.ndarray,
    z_WF: np.ndarray,
    W_FD: np.ndarray,
    y_W: np.ndarray,
    part_W: np.ndarray,
) -> Letter:
    test_W = part_W == 0
    unit = np.linalg.norm(x_WD, axis=1).mean() / np.sqrt(x_WD.shape[1])
    model = LogisticRegression(max_iter=1000, class_weight="balanced").fit(x_WD[~test_W] / unit, y_W[~test_W])
    says_W = model.predict(x_WD / unit).astype(bool)
    gap_F = z_WF[y_W & ~test_W].mean(0) - z_WF[~y_W & ~test_W].mean(0)
    order = np.argsort(-np.abs(gap_F), kind="stable")[:MOST]
    own = own_latents(z_WF, order, y_W, part_W > 1, part_W == 1)
    probe_D = model.coef_[0] / np.linalg.norm(model.coef_[0])
    told = [int(w) for w in np.flatnonzero(test_W & y_W & says_W)]
    of_words = [of_word(x_WD[w], z_WF[w], W_FD, probe_D, own) for w in told]
    return Letter(
        letter=letter,
        latents=tuple(own),
        f1=_f1(z_WF[:, own], y_W, ~test_W, test_W),
        probe_f1=float(f1_score(y_W[test_W], says_W[test_W])),
        words=len(told),
        fraction=float(np.mean([one[0] for one in of_words])) if told else 0.0,
        full=float(np.mean([one[1] for one in of_words])) if told else 0.0,
    )


def own_latents(
    z_WF: np.ndarray,
    order: Sequence[int] | np.ndarray,
    y_W: np.ndarray,
    fit_W: np.ndarray,
    look_W: np.ndarray,
) -> list[int]:
    """A letter's own latents: the first of `order`, and each further one that raises a probe's F1 by `JUMP`.

    Args:
        z_WF: Codes.
        order: Latents, the likeliest first.
        y_W: True for the letter's words.
        fit_W: True for the words that probes are fitted to.
        look_W: True for the words that F1 is taken on.
    """
    best, count = -1.0, 0
    for k in range(1, len(order) + 1):
        score = _f1(z_WF[:, order[:k]], y_W, fit_W, look_W)
        if k > 1 and score - best < JUMP:
            break
        best, count = score, k
    return [int(latent) for latent in order[:count]]


def _f1(z_WK: np.ndarray, y_W: np.ndarray, fit_W: np.ndarray, look_W: np.ndarray) -> float:
    """Of a probe on some latents."""
    scale_K = z_WK[fit_W].std(0)
    z_WK = z_WK / np.where(scale_K > 0, scale_K, 1.0)
    model = LogisticRegression(max_iter=1000, class_weight="balanced").fit(z_WK[fit_W], y_W[fit_W])
    return float(f1_score(y_W[look_W], model.predict(z_WK[look_W])))


def of_word(
    x_D: np.ndarray, z_F: np.ndarray, W_FD: np.ndarray, probe_D: np.ndarray, own: Sequence[int]
) -> tuple[float, bool]:
    """SAEBench's two measures for one word: the absorption fraction, and whether it is full absorption.

    Args:
        x_D: The activation.
        z_F: Its code.
        W_FD: Decoder rows.
        probe_D: The probe's unit direction.
        own: The letter's own latents.
    """
    norm_F = np.maximum(np.linalg.norm(W_FD, axis=1), 1e-12)
    # a negative code is its size times the reversed row
    cosine_F = np.where(z_F < 0, -1, 1) * (W_FD @ probe_D) / norm_F
    # in units of unit rows, so that the function's scaling of latents does not matter
    part_F = np.abs(z_F) * norm_F * cosine_F
    total, own_part = float(x_D @ probe_D), float(part_F[list(own)].sum())
    others_F = np.ones(len(z_F), dtype=bool)
    others_F[list(own)] = False
    candidates_F = others_F & (cosine_F >= ALIGNED) & (part_F > 0)
    taken = float(np.sort(part_F[candidates_F])[::-1][:ABSORBERS].sum())
    if own_part >= total or taken / total < CARRIED:
        fraction = 0.0
    elif own_part <= 0:
        fraction = 1.0
    else:
        share = min(taken, total - own_part)
        fraction = min(1.0, max(0.0, share / (share + own_part)))
    top = int(part_F.argmax())
    silent = all(abs(z_F[latent]) < _SILENT for latent in own)
    full = silent and cosine_F[top] >= FULLY_ALIGNED and total >= 0 and part_F[top] / total >= CARRIED
    return fraction, bool(full)
