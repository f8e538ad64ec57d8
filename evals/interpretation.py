"""Automatic interpretation without a service: contexts by quantile, hard negatives, detection and fuzzing scores.

A latent is explained from some contexts, by a function or by hand, and a *judge* is asked about others:

    detection   does this text hold what the explanation says? Texts where the latent fires, and texts where it does not
    fuzzing     are the marked tokens those that the explanation says? Texts where it fires, its tokens marked or others

A judge is a function of (kind, explanation, text) to a probability. Texts where the latent does not fire are drawn at
random and, as hard negatives, where the latents with the most similar decoder rows fire. All comes from a store's
activations in two passes, for all latents together; no host runs, but for a judge that is one.

Source: Paulo et al. 2024, arXiv 2410.13928 (detection, fuzzing; delphi). Shapes: N entries, S chosen latents.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from evals.firings import Best, Texts, at_random, entries, values_at
from evals.latents import Vocabulary
from evals.results import Figures
from rsae import SAE, Host, InputError, Store
from rsae.support.progress import progress

Kind = Literal["detection", "fuzzing"]
Judge = Callable[[Kind, str, str], float]

#: Marks around tokens, as in delphi
OPEN, CLOSE = "<<", ">>"
#: A token is marked where its value reaches this share of the context's largest
_MARKED = 0.3
#: Firings that are kept of each latent to draw from
_SAMPLE = 200
#: Places at random that are looked at for each silent context that is wanted: some of them fire
_DRAWN = 40


@dataclass(frozen=True)
class Example:
    """A text of some tokens."""

    tokens: tuple[str, ...]
    """The tokens."""
    values: tuple[float, ...]
    """The latent's magnitude at each."""
    quantile: int | None
    """Of the latent's firings, 0 for the smallest; None where it does not fire."""
    hard: bool = False
    """Whether a similar latent fires here."""

    @property
    def text(self) -> str:
        """The text without marks."""
        return "".join(self.tokens)

    def marked(self, marks: Sequence[bool]) -> str:
        """The text with marks around tokens.

        Args:
            marks: Which tokens.
        """
        parts, inside = [], False
        for token, mark in zip(self.tokens, marks, strict=True):
            parts.append((OPEN if mark and not inside else CLOSE if inside and not mark else "") + token)
            inside = mark
        return "".join(parts) + (CLOSE if inside else "")

    @property
    def on(self) -> tuple[bool, ...]:
        """Which tokens the latent marks."""
        most = max(self.values)
        return tuple(most > 0 and value >= _MARKED * most for value in self.values)


@dataclass(frozen=True)
class Material:
    """What there is to explain a latent with, and to judge the explanation by."""

    latent: int
    """Its number."""
    shown: tuple[Example, ...]
    """To explain it: contexts of every quantile, the largest first."""
    firing: tuple[Example, ...]
    """To judge: other contexts of every quantile."""
    silent: tuple[Example, ...]
    """To judge: contexts in which it does not fire, half of them hard."""

    @property
    def tells(self) -> bool:
        """Whether there are contexts to judge by, with and without the latent, and tokens that it leaves silent."""
        return bool(self.silent) and not all(all(e.on) for e in self.firing)


@dataclass(frozen=True)
class Score(Figures):
    """How well a judge tells texts by an explanation."""

    accuracy: float
    """Share of right answers, balanced over both kinds of text."""
    auc: float
    """Area under the ROC curve of what the judge says."""
    by_quantile: tuple[float, ...]
    """Share of right answers on firing texts, by quantile of the value; the smallest first."""
    hard: float | None
    """Share of right answers on hard negatives, None where there is none; of fuzzing, on wrongly marked texts."""
    texts: int
    """How many texts were judged."""


@dataclass(frozen=True)
class Interpretation:
    """An explanation with its scores."""

    latent: int
    """The latent."""
    explanation: str
    """What it is said to be about."""
    detection: Score
    """Texts told apart by it."""
    fuzzing: Score
    """Marked tokens told apart by it."""


def material(
    sae: SAE,
    activations: Store,
    vocabulary: Vocabulary,
    latents: Sequence[int],
    quantiles: int = 5,
    each: int = 4,
    around: int = 12,
    seed: int = 0,
    split: str = "heldout",
) -> list[Material]:
    """Contexts of latents, to explain them and to judge explanations.

    Args:
        sae: The SAE.
        activations: A store of its hook point.
        vocabulary: The host's words.
        latents: Which latents; of a signed SAE their positive side.
        quantiles: Into how many parts the firings are cut by their value.
        each: Contexts of a part to show, as many to judge by; as many silent ones are drawn as there are firing ones.
        around: Tokens on either side.
        seed: Of what is drawn.
        split: `heldout` or `train`.

    Returns:
        The material of those latents that fire in 2 * quantiles sequences or more.
    """
    latents, texts = list(latents), Texts(activations, split)
    near = neighbours(sae, latents)
    every = sorted({*latents, *near.flatten().tolist()})
    place = {latent: i for i, latent in enumerate(every)}
    kept = Best(_SAMPLE, once=True)  # one firing a sequence, the others are too alike
    for found in entries(sae, activations, split, every, "contexts"):
        up = found.value_N > 0
        group_N, row_N, value_N = found.latent_N[up], found.row_N[up], found.value_N[up]
        kept.add(group_N, at_random(row_N, group_N, seed), row_N, value_N, texts.sequence_N[row_N])
    rng = np.random.default_rng(seed)
    plans = []
    for latent, close in zip(latents, near, strict=True):
        rows, values = kept.of(place[latent])
        if len(rows) < 2 * quantiles:
            continue
        firing = _by_quantile(rows, values, quantiles, 2 * each, rng)
        others = np.concatenate([kept.of(place[int(n)])[0] for n in close])
        plans.append(
            (
                latent,
                firing,
                rng.permutation(others),
                rng.integers(0, len(texts.token_N), _DRAWN * each * quantiles),
            )
        )
    windows = [
        (latent, [texts.window(int(row), around) for row in (*(r for r, _ in firing), *hard, *easy)])
        for latent, firing, hard, easy in plans
    ]
    row_N = np.concatenate(
        [np.arange(w.start, w.stop) for _, ws in windows for w in ws] or [np.zeros(0, int)]
    )
    latent_N = np.concatenate(
        [np.full(len(w), latent) for latent, ws in windows for w in ws] or [np.zeros(0, int)]
    )
    value_N = np.maximum(values_at(sae, activations, split, row_N, latent_N, "values in contexts"), 0)
    found, at = [], 0
    for (latent, firing, hard, _), (_, ws) in zip(plans, windows, strict=True):
        examples = []
        for number, window in enumerate(ws):
            values = value_N[at : at + len(window)]
            at += len(window)
            part = firing[number][1] if number < len(firing) else None
            words = tuple(vocabulary.text(int(texts.token_N[n])) for n in window)
            is_hard = len(firing) <= number < len(firing) + len(hard)
            examples.append(Example(words, tuple(values.tolist()), part, is_hard))
        fire, rest = examples[: len(firing)], examples[len(firing) :]
        shown = fire[::2]
        known = {example.tokens for example in shown}  # a text that was shown is no question
        judged = [example for example in fire[1::2] if example.tokens not in known]
        silent = [e for e in rest if not any(e.values)]  # a hard one may fire itself: then it is none
        hard_ones = [e for e in silent if e.hard][: len(judged) // 2]
        easy_ones = [e for e in silent if not e.hard][: len(judged) - len(hard_ones)]
        shown = sorted(shown, key=lambda e: -max(e.values))
        found.append(Material(latent, tuple(shown), tuple(judged), (*hard_ones, *easy_ones)))
    return found


def neighbours(sae: SAE, latents: Sequence[int], most: int = 5) -> np.ndarray:
    """The latents with the most similar decoder rows, [S, most].

    Args:
        sae: The SAE.
        latents: Of which latents.
        most: How many.
    """
    unit_FD = torch.nn.functional.normalize(sae.W_dec.detach().float().cpu(), dim=1)
    cosine_SF = unit_FD[list(latents)] @ unit_FD.T
    cosine_SF[torch.arange(len(latents)), torch.tensor(list(latents), dtype=torch.long)] = -torch.inf
    return cosine_SF.topk(min(most, sae.d_sae - 1), dim=1).indices.numpy()


def _by_quantile(
    rows: np.ndarray, values: np.ndarray, quantiles: int, each: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Rows with their quantile, `each` of every quantile at most, the quantiles in turn."""
    order = np.argsort(values, kind="stable")
    parts = [rng.permutation(rows[part])[:each] for part in np.array_split(order, quantiles)]
    return [(int(part[i]), q) for q, part in enumerate(parts) for i in range(len(part))]


def interpret(
    found: Material, explanation: str | Callable[[Material], str], judge: Judge, seed: int = 0
) -> Interpretation:
    """Explain a latent, and score the explanation.

    Args:
        found: Its contexts.
        explanation: What it is about, or a function that says so.
        judge: The judge.
        seed: Of the order of questions and of wrong marks.

    Returns:
        The explanation with its scores.

    Raises:
        InputError: where there is no silent context or token, or the judge gives no probability.
    """
    if not found.tells:
        raise InputError(
            f"latent {found.latent} fires in every context that was drawn, or at each of their tokens: there is "
            "nothing to tell it from"
        )
    told = explanation if isinstance(explanation, str) else explanation(found)
    rng = np.random.default_rng(seed + found.latent)
    detected = [(e.text, e, True) for e in found.firing] + [(e.text, e, False) for e in found.silent]
    fuzzed = [(e.marked(e.on), e, True) for e in found.firing]
    fuzzed += [(e.marked(_wrong(e, rng)), e, False) for e in found.firing if not all(e.on)]
    return Interpretation(
        found.latent,
        told,
        _score("detection", told, detected, judge, rng),
        _score("fuzzing", told, fuzzed, judge, rng),
    )


def _wrong(example: Example, rng: np.random.Generator) -> list[bool]:
    """As many tokens marked, none of them the latent's."""
    off = [i for i, on in enumerate(example.on) if not on]
    chosen = set(rng.permutation(off)[: max(1, min(sum(example.on), len(off)))].tolist())
    return [i in chosen for i in range(len(example.tokens))]


def _score(
    kind: Kind, told: str, questions: list[tuple[str, Example, bool]], judge: Judge, rng: np.random.Generator
) -> Score:
    says = np.zeros(len(questions))
    for i in rng.permutation(len(questions)):  # a judge cannot tell by the order
        says[i] = judge(kind, told, questions[i][0])
        if not 0 <= says[i] <= 1:
            raise InputError(f"the judge says {says[i]}: it has to give a probability from 0 to 1")
    truth = np.array([true for _, _, true in questions])
    right = (says >= 0.5) == truth
    part = np.array([-1 if e.quantile is None else e.quantile for _, e, _ in questions])
    hard = np.array([e.hard or kind == "fuzzing" for _, e, _ in questions]) & ~truth
    return Score(
        accuracy=float((right[truth].mean() + right[~truth].mean()) / 2),
        auc=float(roc_auc_score(truth, says)),
        by_quantile=tuple(
            float(right[truth & (part == q)].mean()) for q in sorted(set(part[truth].tolist()))
        ),
        hard=float(right[hard].mean()) if hard.any() else None,
        texts=len(questions),
    )


# --- explainers and judges ---------------------------------------------------------------------------------------


def by_tokens(found: Material) -> str:
    """The plainest explanation: the tokens on which the latent is largest. A baseline for all others.

    Args:
        found: The latent's contexts.
    """
    peaks = [e.tokens[int(np.argmax(e.values))] for e in found.shown]
    return "the tokens " + ", ".join(json.dumps(token) for token in dict.fromkeys(peaks) if token.strip())


def token_judge(kind: Kind, explanation: str, text: str) -> float:
    """The judge for `by_tokens`: 1 where one of the tokens stands in the text, or in its marks.

    A token that begins a word has to be the whole word: " in" is none of " inside".

    Args:
        kind: `detection` or `fuzzing`.
        explanation: What `by_tokens` gave.
        text: The text.
    """
    tokens = json.loads(f"[{explanation.removeprefix('the tokens ')}]")
    if kind == "fuzzing":
        text = " ".join(part.split(CLOSE)[0] for part in text.split(OPEN)[1:])
    whole = [r"(?!\w)" if token[0].isspace() and token[-1].isalnum() else "" for token in tokens]
    return float(any(re.search(re.escape(t) + end, text) for t, end in zip(tokens, whole, strict=True)))


def host_judge(host: Host) -> Judge:
    """A local language model as judge: how likely it finds Yes beside No.

    Args:
        host: The model.
    """
    yes, no = (host.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" Yes", " No"))

    def judge(kind: Kind, explanation: str, text: str) -> float:
        asks = (
            "Does the text hold what the explanation says?"
            if kind == "detection"
            else f"Are the tokens between {OPEN} and {CLOSE} those that the explanation says?"
        )
        prompt = f"Explanation: {explanation}\nText: {text}\n{asks} Answer Yes or No.\nAnswer:"
        ids = host.bos() + host.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        host.check_context(len(ids))
        with torch.no_grad():
            logits_V = host.model(input_ids=torch.tensor([ids], device=host.device)).logits[0, -1].float()
        return float(torch.softmax(logits_V[[yes, no]], 0)[0])

    return judge


def endpoint_judge(url: str, model: str, key: str = "OPENAI_API_KEY", seconds: float = 60.0) -> Judge:
    """A judge behind an endpoint of the OpenAI form, which the user names.

    Args:
        url: Its address, such as http://localhost:8000/v1/chat/completions.
        model: Its name there.
        key: Name of the environment variable that holds the key, if it wants one.
        seconds: How long to wait for an answer.
    """

    def judge(kind: Kind, explanation: str, text: str) -> float:
        asks = "Does the text hold what the explanation says?"
        if kind == "fuzzing":
            asks = f"Are the tokens between {OPEN} and {CLOSE} those that the explanation says?"
        content = (
            f"Explanation: {explanation}\nText: {text}\n{asks} Answer with 1 for yes or 0 for no, no more."
        )
        body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get(key):
            headers["Authorization"] = f"Bearer {secret}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                said = json.load(reply)["choices"][0]["message"]["content"].strip()
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"judge {url}: no answer of the OpenAI form ({error})") from None
        if said[:1] not in ("0", "1"):
            raise InputError(f"judge {url}: says {said[:40]!r}, not 0 or 1; take another model")
        return float(said[0])

    return judge


def interpret_all(
    materials: Sequence[Material],
    explanations: Mapping[int, str] | Callable[[Material], str],
    judge: Judge,
    seed: int = 0,
) -> list[Interpretation]:
    """Explain and score many latents.

    Args:
        materials: Their contexts.
        explanations: What each is about, by latent, or a function that says so.
        judge: The judge.
        seed: Of the order of questions and of wrong marks.

    Returns:
        A score for each latent that has an explanation, and contexts to judge it by.
    """
    found = []
    with progress(len(materials), "judging explanations", "latent") as bar:
        for one in materials:
            told = explanations if callable(explanations) else explanations.get(one.latent)
            if told is not None and one.tells:
                found.append(interpret(one, told, judge, seed))
            bar.update()
    return found
