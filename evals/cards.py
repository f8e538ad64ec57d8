"""Feature cards of a run: made once, kept in the run.

    RUN/cards/CELL.json   the cards of a cell; a report shows all that are there

What a card shows is in `evals.latents`. The activations are the site's own held-out ones.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from evals.comparison import controls_of
from evals.latents import Card, Extent, Vocabulary, by_density, cards, check_latents, count
from evals.metrics.stability import stability
from evals.results import Result, Role, dump, parse, read_results
from evals.site import SiteRun, fingerprint, load_sae, open_store
from rsae import SAE, InputError
from rsae.support.cache import Cache
from rsae.support.errors import did_you_mean
from rsae.support.files import digest, read_json


@dataclass(frozen=True)
class Cards:
    """The cards of a cell."""

    of: str
    """Digest of the figures that the cell had then."""
    cards: tuple[Card, ...]
    """One a latent."""


def make_cards(
    run: str | os.PathLike,
    features: int = 3,
    names: Sequence[str] = (),
    latents: Sequence[int] = (),
    changed: bool = False,
) -> None:
    """Make the cards of cells and keep them in the run; what is there already is not made again.

    Args:
        run: The run's directory.
        features: How many latents a cell, at evenly spaced quantiles of density among those that fire.
        names: Cells, as result files without `.json`; by default, for each group, a `gated` cell of the middle level
            and the first seed (or the first other upgrade) and its control, with the same latents.
        latents: Which latents, in the place of `features`.
        changed: Show the latents whose firing an upgrade changed most (of those that fire at all), `features` of them,
            beside the teacher's, in the place of evenly spaced ones beside the control's.

    Raises:
        InputError: for unknown cells or latents.
    """
    run = Path(run)
    results = {result.cell: result for result in read_results(run)}
    for name in names:
        if name not in results:
            raise InputError(f"--cell {name!r} has no result file{did_you_mean(name, results)}")
    cache, place = Cache(run / "cards"), None
    chosen = [(name,) for name in names] or default_cells(list(results.values()), changed)
    for cells in chosen:
        wanted = list(latents)
        if changed and len(cells) == 2:
            wanted = wanted or _changed(run, results[cells[0]], results[cells[1]], features)
        for result in (results[cell] for cell in cells):
            if place is None or place.site != result.site:
                place = SiteRun(result.site, result.how.harvest, run)
            made = _of_cell(cache, place, result, load_sae(run, result), wanted, features)
            # the control, which started from the same teacher, shows the same latents
            wanted = [card.latent for card in made.cards]


def _of_cell(
    cache: Cache, place: SiteRun, result: Result, sae: SAE, latents: list[int], features: int
) -> Cards:
    """A cell's cards, made or reused."""
    of, extent = _digest(result), Extent()
    check_latents(latents, sae.d_sae, result.cell)

    def make() -> Cards:
        counts = count(sae, place.store)
        chosen = latents or by_density(counts.fired_F, features)
        words = Vocabulary(place.host, place.store.provenance)
        made = cards(sae, place.store, chosen, counts, words, extent, what=f"cards of {result.cell}")
        return Cards(of, made)

    settings = [fingerprint(sae), of, latents or features, asdict(extent), dump(result.how.harvest)]
    return parse(Cards, cache.run(result.cell, settings, lambda: dump(make())))


def _changed(run: Path, upgrade: Result, teacher: Result, features: int) -> list[int]:
    """The upgrade's latents whose firing overlaps least with that of their match in the teacher."""
    found = stability(load_sae(run, upgrade), load_sae(run, teacher), open_store(run, upgrade))
    known = {latent: overlap for latent, overlap in enumerate(found.overlap_F) if overlap is not None}
    return sorted(known, key=lambda latent: known[latent])[:features]


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


def default_cells(results: Sequence[Result], with_teacher: bool = False) -> list[tuple[str, ...]]:
    """For each group: a fine-tuned upgrade and its control, or its teacher.

    Args:
        results: The cells of a run.
        with_teacher: The teacher in the place of the control.
    """
    controls = controls_of(results)
    teachers = {(r.group, r.level, r.seed): r for r in results if r.role is Role.TEACHER}
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
        beside = teachers[middle.group, middle.level, middle.seed] if with_teacher else controls[middle.cell]
        found.append((middle.cell, beside.cell))
    return found
