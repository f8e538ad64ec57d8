"""What there is to see of a latent: where it fires, how often and how much, and which tokens it speaks for.

All comes from stored activations and, where the host can be had, from its tokenizer and its unembedding; no forward
pass is made. A logit effect is a latent's decoder row times the unembedding: the layers between and the final norm are
left out. Signed codes have both polarities of a latent: its largest positive values and what its row promotes, its
largest negative ones and what the reversed row promotes.

Shapes: N entries, D dimensions, F latents, S chosen latents, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from evals.firings import GAP, Best, Entries, Texts, at_random, entries, values_at
from rsae import SAE, Activations, Host, InputError, Provenance, Store
from rsae.activations.hooks import SITES, HookPoint

#: Decoder rows that meet the unembedding together
_ROWS = 64
#: Bars of a histogram, as in SAEDashboard
BARS = 50


@dataclass(frozen=True)
class Context:
    """A place where a latent fires."""

    value: float
    """Its code there."""
    tokens: tuple[str, ...]
    """The text around."""
    at: int
    """Which of the tokens it is."""
    values: tuple[float, ...] = ()
    """The code at each of the tokens."""


@dataclass(frozen=True)
class Effect:
    """A token whose logit a decoder row changes."""

    token: str
    """As text."""
    logit: float
    """The row times the token's unembedding."""


@dataclass(frozen=True)
class Histogram:
    """How many values lie where."""

    low: float = 0.0
    """Lower end of the first bar."""
    high: float = 0.0
    """Upper end of the last bar; all bars have one width."""
    counts: tuple[int, ...] = ()
    """Values in each bar; none where there is no value."""

    @property
    def centres(self) -> list[float]:
        """The middle of each bar."""
        width = (self.high - self.low) / max(1, len(self.counts))
        return [self.low + width * (i + 0.5) for i in range(len(self.counts))]


@dataclass(frozen=True)
class Interval:
    """An interval of a polarity's values."""

    low: float
    """Lower end of the magnitudes."""
    high: float
    """Upper end of the magnitudes."""
    share: float
    """Share of all tokens whose value lies in it; in the first interval those without the latent, too."""
    contexts: tuple[Context, ...]
    """Some of the places, at random, where the latent fires so much."""


@dataclass(frozen=True)
class Side:
    """One polarity of a latent."""

    sign: int
    """1 or -1."""
    density: float
    """Share of the tokens on which it is on."""
    max: float
    """Its largest value, with its sign."""
    contexts: tuple[Context, ...]
    """Where it fires most, one a sequence."""
    promotes: tuple[Effect, ...]
    """The logits it raises most."""
    suppresses: tuple[Effect, ...]
    """The logits it lowers most."""
    intervals: tuple[Interval, ...] = ()
    """Its magnitudes from 0 to the largest in parts of one width, the largest first."""
    values: Histogram = field(default_factory=Histogram)
    """Its magnitudes where it is on."""
    logits: Histogram = field(default_factory=Histogram)
    """Its effects on all logits."""


@dataclass(frozen=True)
class Card:
    """What there is to see of a latent."""

    latent: int
    """Its number."""
    density: float
    """Share of the tokens on which it fires."""
    tokens: int
    """How many tokens that is a share of."""
    sides: tuple[Side, ...]
    """One polarity, or two of a signed code."""


@dataclass(frozen=True)
class Extent:
    """How much a card shows."""

    contexts: int = 6
    """Contexts of the largest values, for each polarity."""
    intervals: int = 0
    """Into how many intervals the magnitudes are parted; 0 for none."""
    each: int = 3
    """Contexts of an interval."""
    around: int = 12
    """Tokens on either side of the peak."""
    logits: int = 8
    """Tokens in a list of logits."""


@dataclass(frozen=True)
class Counts:
    """How often latents fire."""

    tokens: int
    """On how many tokens that was counted."""
    count_2F: np.ndarray
    """Tokens with a positive and with a negative value of each latent, [2, F]."""
    largest_2F: np.ndarray
    """The largest magnitude of each polarity, [2, F]."""

    @property
    def fired_F(self) -> torch.Tensor:
        """Tokens on which each latent fires."""
        return torch.as_tensor(self.count_2F.sum(0))


def count(sae: SAE, activations: Activations, split: str = "heldout") -> Counts:
    """Count how often each latent fires.

    Args:
        sae: The SAE.
        activations: The activations.
        split: `heldout` or `train`.
    """
    count_2F, largest_2F = np.zeros((2, sae.d_sae), dtype=np.int64), np.zeros((2, sae.d_sae))
    for found in entries(sae, activations, split, None, "count firings"):
        at = (found.value_N < 0).astype(np.int64), found.latent_N
        np.add.at(count_2F, at, 1)
        np.maximum.at(largest_2F, at, np.abs(found.value_N))
    return Counts(activations.tokens(split), count_2F, largest_2F)


def by_density(count_F: torch.Tensor, features: int) -> list[int]:
    """Latents at evenly spaced quantiles of how often they fire, the rarest first, of those that do fire.

    Args:
        count_F: How often each latent fires.
        features: How many latents.

    Returns:
        Their numbers.
    """
    alive = count_F.nonzero().squeeze(1)
    if not len(alive):
        return []
    order = alive[count_F[alive].argsort(stable=True)].tolist()
    features = min(features, len(order))
    return [order[int((i + 0.5) * len(order) / features)] for i in range(features)]


def parse_latents(text: str) -> list[int]:
    """Numbers of latents from `3,17,40`, each once; `InputError` for any other text."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--latents {text!r}: write numbers with commas, such as 3,17,40")
    return list(dict.fromkeys(map(int, parts)))


def check_latents(latents: Sequence[int], d_sae: int, name: str) -> None:
    """Raise `InputError` where an SAE has no such latents.

    Args:
        latents: Their numbers.
        d_sae: Number of latents of the SAE.
        name: What the SAE is called in the message.
    """
    if latents and not 0 <= min(latents) <= max(latents) < d_sae:
        raise InputError(f"--latents {max(latents)}: {name} has the latents 0 to {d_sae - 1}")


class Vocabulary:
    """A host's tokens as text, and its unembedding.

    Args:
        host: The host.
        provenance: Where the activations come from: only what is added to the residual stream has logits.
    """

    def __init__(self, host: Host, provenance: Provenance):
        self.tokenizer = host.tokenizer
        self._texts: dict[int, str] = {}  # a tokenizer is slow, and an export asks millions of times
        head = host.model.get_output_embeddings()
        written = provenance.target or provenance.known("hook", "a card")
        point = HookPoint.parse(written, host, None if provenance.target else provenance.head)
        speaks = head is not None and point.site in (*SITES, "resid_mid")
        #: the unembedding [V, D]; None where a decoder row does not write to the residual stream
        self.unembedding_VD = head.weight.detach().float().cpu() if speaks and head is not None else None

    def text(self, token: int) -> str:
        """A token as text.

        Args:
            token: Its id.
        """
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode([token])
        return self._texts[token]

    def effects(self, row_SD: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each row's effect on each logit, [V]; nothing where there is no unembedding.

        Args:
            row_SD: Decoder rows.
        """
        if self.unembedding_VD is not None:
            for part_SD in row_SD.detach().float().cpu().split(_ROWS):
                yield from part_SD @ self.unembedding_VD.T


def cards(
    sae: SAE,
    activations: Activations,
    latents: Sequence[int],
    counts: Counts,
    vocabulary: Vocabulary | None,
    extent: Extent,
    split: str = "heldout",
    what: str = "cards",
) -> tuple[Card, ...]:
    """Cards of chosen latents, in two passes over the activations.

    Args:
        sae: The SAE.
        activations: A store; of activations that have no text the cards show numbers alone.
        latents: Which latents.
        counts: What `count` gave of the same split.
        vocabulary: Of the host; None for cards without text and logits.
        extent: How much they show.
        split: `heldout` or `train`.
        what: What the progress bar says.

    Returns:
        The cards, in the latents' order.
    """
    latents = list(latents)
    texts = Texts(activations, split) if isinstance(activations, Store) and vocabulary is not None else None
    kept = _Kept(counts.largest_2F[:, latents], texts, extent)
    for found in entries(sae, activations, split, latents, what):
        kept.add(found)
    shown = _shown(kept, sae, activations, latents, vocabulary, split) if texts and vocabulary else {}
    effects = vocabulary.effects(sae.W_dec[latents]) if vocabulary else iter(())
    return tuple(
        _card(sae, latent, number, counts, kept, shown, vocabulary, next(effects, None))
        for number, latent in enumerate(latents)
    )


class _Kept:
    """What is kept of chosen latents' firings. A side is twice the latent's number among them, plus its polarity."""

    def __init__(self, largest_2S: np.ndarray, texts: Texts | None, extent: Extent):
        self.largest_side = largest_2S.T.reshape(-1)
        self.texts, self.extent = texts, extent
        self.top = Best(extent.contexts, once=True)
        self.some = Best(extent.each)
        sides = len(self.largest_side)
        self.counts = np.zeros((sides, BARS), dtype=np.int64)
        self.inside = np.zeros((sides, max(1, extent.intervals)), dtype=np.int64)

    def add(self, found: Entries) -> None:
        side_N, size_N = found.side_N, np.abs(found.value_N)
        share_N = size_N / self.largest_side[side_N]  # in (0, 1]
        np.add.at(self.counts, (side_N, _part(share_N, BARS)), 1)
        part_N = _part(share_N, max(1, self.extent.intervals))
        np.add.at(self.inside, (side_N, part_N), 1)
        if self.texts is None:
            return
        sequence_N = self.texts.sequence_N[found.row_N]
        self.top.add(side_N, size_N, found.row_N, found.value_N, sequence_N)
        if self.extent.intervals:
            key_N = at_random(found.row_N, side_N)
            self.some.add(self.group(side_N, part_N), key_N, found.row_N, found.value_N)

    def group(self, side, part):
        """The number of an interval among those of all sides."""
        return side * max(1, self.extent.intervals) + part

    def places(self, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows and values of the contexts of the largest values, then of each interval from 0 upwards."""
        of_intervals = [self.some.of(self.group(side, part)) for part in range(self.extent.intervals)]
        return [self.top.of(side), *of_intervals]


def _part(share_N: np.ndarray, parts: int) -> np.ndarray:
    """Which of `parts` intervals of one width, open below, holds a share in (0, 1]."""
    return np.clip(np.ceil(share_N * parts).astype(np.int64) - 1, 0, parts - 1)


#: By side: the contexts of the largest values, then those of each interval
_Shown = dict[int, list[tuple[Context, ...]]]


def _shown(
    kept: _Kept,
    sae: SAE,
    activations: Activations,
    latents: list[int],
    vocabulary: Vocabulary,
    split: str,
) -> _Shown:
    """The contexts of all sides, with the code at each token: one more pass."""
    texts, around = kept.texts, kept.extent.around
    assert texts is not None
    places = {side: kept.places(side) for side in range(len(kept.largest_side))}
    windows = {
        (side, row): texts.window(row, around)
        for side, groups in places.items()
        for rows, _ in groups
        for row in rows.tolist()
    }
    if not windows:
        return {}
    row_N = np.concatenate([np.arange(w.start, w.stop) for w in windows.values()])
    latent_N = np.concatenate([np.full(len(w), latents[side // 2]) for (side, _), w in windows.items()])
    value_N = values_at(sae, activations, split, row_N, latent_N, "values in contexts")
    ends = np.cumsum([len(w) for w in windows.values()])
    value_of = {key: value_N[end - len(w) : end] for (key, w), end in zip(windows.items(), ends, strict=True)}

    def context(side: int, row: int, value: float) -> Context:
        tokens: list[str] = []
        values: list[float] = []
        at, last, sign = 0, None, -1 if side % 2 else 1
        for n, here in zip(windows[side, row], value_of[side, row].tolist(), strict=True):
            if last is not None and texts.position_N[n] > last + 1:
                tokens.append(GAP)
                values.append(0.0)
            if n == row:
                at = len(tokens)
            tokens.append(vocabulary.text(int(texts.token_N[n])))
            values.append(here if sign * here > 0 else 0.0)
            last = int(texts.position_N[n])
        return Context(value, tuple(tokens), at, tuple(values))

    return {
        side: [
            tuple(context(side, row, value) for row, value in zip(rows.tolist(), found.tolist(), strict=True))
            for rows, found in groups
        ]
        for side, groups in places.items()
    }


def _card(
    sae: SAE,
    latent: int,
    number: int,
    counts: Counts,
    kept: _Kept,
    shown: _Shown,
    vocabulary: Vocabulary | None,
    effect_V: torch.Tensor | None,
) -> Card:
    negative = sae.signed or bool(counts.count_2F[1, latent])
    sides = []
    for polarity in (0, 1) if negative else (0,):
        side, sign = 2 * number + polarity, 1 - 2 * polarity
        top, *parts = shown.get(side) or [(), *([()] * kept.extent.intervals)]
        own_V = None if effect_V is None else sign * effect_V
        fired, largest = int(counts.count_2F[polarity, latent]), float(counts.largest_2F[polarity, latent])
        bars = tuple(kept.counts[side].tolist())
        sides.append(
            Side(
                sign=sign,
                density=fired / counts.tokens,
                max=sign * largest,
                contexts=top,
                promotes=_effects(own_V, vocabulary, kept.extent.logits, 1),
                suppresses=_effects(own_V, vocabulary, kept.extent.logits, -1),
                intervals=_intervals(kept.inside[side], largest, fired, counts.tokens, parts),
                values=Histogram(0.0, largest, bars) if fired else Histogram(),
                logits=_histogram(own_V),
            )
        )
    return Card(latent, int(counts.fired_F[latent]) / counts.tokens, counts.tokens, tuple(sides))


def _intervals(
    inside: np.ndarray, largest: float, fired: int, tokens: int, parts: Iterable[tuple[Context, ...]]
) -> tuple[Interval, ...]:
    """The intervals of a side, the largest values first."""
    parts = list(parts)
    width = largest / max(1, len(parts))
    found = [
        Interval(i * width, (i + 1) * width, (int(inside[i]) + (tokens - fired) * (i == 0)) / tokens, part)
        for i, part in enumerate(parts)
    ]
    return tuple(reversed(found)) if fired else ()


def _effects(
    effect_V: torch.Tensor | None, vocabulary: Vocabulary | None, most: int, sign: int
) -> tuple[Effect, ...]:
    if effect_V is None or vocabulary is None:
        return ()
    top = (sign * effect_V).topk(min(most, len(effect_V)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(Effect(vocabulary.text(token), sign * value) for token, value in pairs)


def _histogram(value_V: torch.Tensor | None) -> Histogram:
    if value_V is None:
        return Histogram()
    counts, edges = np.histogram(value_V.numpy(), BARS)
    return Histogram(float(edges[0]), float(edges[-1]), tuple(counts.tolist()))
