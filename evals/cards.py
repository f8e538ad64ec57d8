"""Feature cards: where chosen latents fire most, how often, which tokens they speak for. Made once, kept in the run.

    RUN/cards/CELL.json   the cards of a cell; a report shows all that are there

The host runs over the site's held-out articles. A logit effect is a latent's decoder row times the unembedding: the
layers between and the final norm are left out. Signed codes have both polarities of a latent: its largest positive
values and what its row promotes, its largest negative ones and what the reversed row promotes.

Shapes: N tokens, D dimensions, F latents, S chosen latents, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from evals.comparison import controls_of
from evals.results import Result, Site, dump, parse, read_results
from evals.site import SiteRun, fingerprint, load_sae
from rsae import SAE, HarvestConfig, InputError
from rsae.activations.harvest import run_sequences
from rsae.activations.hooks import HookPoint
from rsae.support.cache import Cache
from rsae.support.errors import did_you_mean
from rsae.support.files import digest, read_json
from rsae.support.progress import progress

#: Contexts a polarity, tokens on either side of the peak, tokens in a list of logits
CONTEXTS, AROUND, LOGITS = 6, 12, 8


@dataclass(frozen=True)
class Context:
    """A place where a latent fires."""

    value: float
    """Its code there."""
    tokens: tuple[str, ...]
    """The text around."""
    at: int
    """Which of the tokens it is."""


@dataclass(frozen=True)
class Effect:
    """A token whose logit a decoder row changes."""

    token: str
    """As text."""
    logit: float
    """The row times the token's unembedding."""


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
class Cards:
    """The cards of a cell."""

    of: str
    """Digest of the figures that the cell had then."""
    cards: tuple[Card, ...]
    """One a latent."""


def make_cards(
    run: str | os.PathLike, features: int = 3, names: Sequence[str] = (), latents: Sequence[int] = ()
) -> None:
    """Make the cards of cells and keep them in the run; what is there already is not made again.

    Args:
        run: The run's directory.
        features: How many latents a cell, at evenly spaced quantiles of density among those that fire.
        names: Cells, as result files without `.json`; by default, for each group, a `gated` cell of the middle level
            and the first seed (or the first other upgrade) and its control, with the same latents.
        latents: Which latents, in the place of `features`.

    Raises:
        InputError: for unknown cells or latents.
    """
    run = Path(run)
    results = {result.cell: result for result in read_results(run)}
    for name in names:
        if name not in results:
            raise InputError(f"--cell {name!r} has no result file{did_you_mean(name, results)}")
    cache, places = Cache(run / "cards"), dict[Site, HeldOut]()
    for cells in [(name,) for name in names] or default_cells(list(results.values())):
        wanted = list(latents)
        for result in (results[cell] for cell in cells):
            if result.site not in places:
                places = {result.site: HeldOut(result.site, result.how.harvest, run)}  # one site at a time
            made = _of_cell(cache, places[result.site], result, load_sae(run, result), wanted, features)
            # the control, which started from the same teacher, shows the same latents
            wanted = [card.latent for card in made.cards]


def parse_latents(text: str) -> list[int]:
    """Numbers of latents from `3,17,40`; `InputError` for any other text."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--latents {text!r}: write numbers with commas, such as 3,17,40")
    return [int(part) for part in parts]


def _of_cell(
    cache: Cache, place: HeldOut, result: Result, sae: SAE, latents: list[int], features: int
) -> Cards:
    """A cell's cards, made or reused."""
    of = _digest(result)
    if latents and not 0 <= min(latents) <= max(latents) < sae.d_sae:
        raise InputError(f"--latents {max(latents)}: {result.cell} has the latents 0 to {sae.d_sae - 1}")
    settings = [fingerprint(sae), of, latents or features, CONTEXTS, AROUND, LOGITS, dump(result.how.harvest)]
    made = cache.run(
        result.cell, settings, lambda: dump(Cards(of, place.cards(sae, latents, features, result.cell)))
    )
    return parse(Cards, made)


def _digest(result: Result) -> str:
    return digest(dump(result.metrics))


def read_cards(run: str | os.PathLike, results: Sequence[Result]) -> dict[str, tuple[Card, ...]]:
    """The cards in a run, but those of a cell that has been made anew since.

    Args:
        run: The run's directory.
        results: Its cells.

    Returns:
        The cards by cell.
    """
    found = {}
    for result in results:
        file = Path(run) / "cards" / f"{result.cell}.json"
        if file.exists() and (made := parse(Cards, read_json(file)["result"])).of == _digest(result):
            found[result.cell] = made.cards
    return found


def default_cells(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """For each group: a fine-tuned rational cell and its control."""
    controls = controls_of(results)
    tuned = [r for r in results if r.compared and r.cell in controls]
    found = []
    for _, members in groupby(tuned, key=lambda r: r.group):
        group = list(members)
        first = min(group, key=lambda r: (r.upgrade != "gated", r.upgrade, r.seed))
        same = sorted(
            (r for r in group if (r.upgrade, r.seed) == (first.upgrade, first.seed)),
            key=lambda r: r.level.number,
        )
        middle = same[len(same) // 2]
        found.append((middle.cell, controls[middle.cell].cell))
    return found


class HeldOut:
    """A site's held-out articles, and the activations there; the host runs when they are first asked for.

    Args:
        site: The site.
        harvest: What the run's activations were made with.
        run: The run's directory.
    """

    def __init__(self, site: Site, harvest: HarvestConfig, run: Path):
        self.place = SiteRun(site, harvest, run)

    @cached_property
    def sequences(self) -> list[list[int]]:
        """Token ids."""
        return self.place.heldout(self.place.harvest.heldout_tokens)

    @cached_property
    def activations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x_ND within the norm limit, and each row's sequence and position."""
        host, hook = self.place.host, self.place.site.hook
        with progress(
            sum(len(ids) - 1 for ids in self.sequences), f"held-out articles at {hook}", "tok"
        ) as bar:
            (rows,) = run_sequences(host, [HookPoint.parse(hook, host)], self.sequences, bar)
        sequence_N = torch.cat([torch.full((len(x),), i) for i, x in enumerate(rows)])
        position_N = torch.cat([torch.arange(1, len(x) + 1) for x in rows])
        x_ND = torch.cat(rows)
        kept_N = x_ND.norm(dim=1) <= self.place.norm_limit
        return x_ND[kept_N], sequence_N[kept_N], position_N[kept_N]

    @torch.no_grad()
    def cards(self, sae: SAE, latents: list[int], features: int, what: str) -> tuple[Card, ...]:
        """Cards of an SAE.

        Args:
            sae: The SAE.
            latents: Which latents; where it is empty, `features` latents by density.
            features: How many.
            what: Its name for the progress bar.

        Returns:
            The cards.
        """
        x_ND, _, _ = self.activations
        with progress(2 * len(x_ND), f"cards of {what}", "tok") as bar:
            count_F = torch.zeros(sae.d_sae, dtype=torch.int64)
            for x_BD in x_ND.split(2048):
                count_F += (sae.encode(x_BD) != 0).sum(0)
                bar.update(len(x_BD))
            chosen = latents or by_density(count_F, features)
            parts = []
            for x_BD in x_ND.split(2048):
                parts.append(sae.encode(x_BD)[:, chosen])
                bar.update(len(x_BD))
        z_NS = torch.cat(parts)
        found = []
        for z_N, latent in zip(z_NS.T, chosen, strict=True):
            signs = (1, -1) if sae.signed or bool((z_N < 0).any()) else (1,)
            sides = tuple(self._side(z_N, sign, sae.W_dec[latent]) for sign in signs)
            found.append(Card(latent, count_F[latent].item() / len(x_ND), len(x_ND), sides))
        return tuple(found)

    def _side(self, z_N: torch.Tensor, sign: int, row_D: torch.Tensor) -> Side:
        """A polarity: its share of the tokens, its largest value, its contexts, and the logits of its direction."""
        size_N = (sign * z_N).clamp_min(0)
        head = self.place.host.model.get_output_embeddings()
        assert head is not None  # a causal language model
        effect_V = head.weight.float() @ (sign * row_D)
        return Side(
            sign=sign,
            density=(size_N > 0).double().mean().item(),
            max=sign * size_N.max().item(),
            contexts=self._contexts(size_N, sign),
            promotes=self._effects(effect_V, 1),
            suppresses=self._effects(effect_V, -1),
        )

    def _effects(self, effect_V: torch.Tensor, sign: int) -> tuple[Effect, ...]:
        top = (sign * effect_V).topk(LOGITS)
        pairs: Any = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return tuple(Effect(self._text(token), sign * value) for token, value in pairs)

    def _contexts(self, size_N: torch.Tensor, sign: int) -> tuple[Context, ...]:
        """The largest values, one a sequence at most, with the tokens around."""
        _, sequence_N, position_N = self.activations
        found: dict[int, Context] = {}
        for n in size_N.argsort(descending=True, stable=True).tolist():
            number, at = int(sequence_N[n]), int(position_N[n])
            if size_N[n] <= 0 or len(found) == CONTEXTS:
                break
            if number in found:
                continue
            ids, low = self.sequences[number], max(0, at - AROUND)
            tokens = tuple(self._text(v) for v in ids[low : at + AROUND + 1])
            found[number] = Context(sign * size_N[n].item(), tokens, at - low)
        return tuple(found.values())

    def _text(self, token: int) -> str:
        return self.place.host.tokenizer.decode([token])


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
