"""Feature cards: where chosen latents fire most, how often, which tokens they speak for. Made once, kept in the run.

    RUN/cards/CELL.json   the cards of a cell; a report shows all that are there

The host runs over the hook point's held-out articles. A logit effect is a latent's decoder row times the unembedding:
the layers between and the final norm are passed over. Signed codes have both polarities of a latent: its largest
positive values and what its row promotes, its largest negative ones and what the reversed row promotes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

import rsae
from evals.config import Evaluate
from evals.report.table import controls_of, read_results, row
from evals.site import Bench, fingerprint, slug
from rsae import SAE, HarvestConfig, InputError
from rsae.activations.harvest import run_sequences
from rsae.activations.hooks import HookPoint
from rsae.support.cache import Cache
from rsae.support.errors import did_you_mean
from rsae.support.files import digest, read_json
from rsae.support.progress import progress

#: Contexts a polarity, tokens on either side of the peak, tokens in a list of logits
CONTEXTS, AROUND, LOGITS = 6, 12, 8


def make_cards(
    run: str | os.PathLike, features: int = 3, names: Sequence[str] = (), latents: Sequence[int] = ()
) -> None:
    """Make the cards of cells and keep them in the run; what is there already is not made again.

    names: of cells (result files without `.json`); by default, for each family at each hook point, the first upgrade of
    the middle level and the first seed, and its control, with the same latents. latents: which; by default `features`,
    at evenly spaced quantiles of density among those that fire. Raises `InputError` for unknown cells or latents.
    """
    run = Path(run)
    results = {result["cell"]: result for result in read_results(run)}
    for name in names:
        if name not in results:
            raise InputError(f"--cell {name!r} has no result file{did_you_mean(name, results)}")
    steps, places = Cache(run / "cards"), dict[Path, Place]()
    for cells in [(name,) for name in names] or default_cells(list(results.values())):
        wanted = list(latents)
        for cell in cells:
            directory = site(run, results[cell])
            if directory not in places:
                places = {directory: Place(run, results[cell])}  # one hook point's activations at a time
            made = _of_cell(
                steps, places[directory], results[cell], load_sae(run, results[cell]), wanted, features
            )
            # the control, which started from the same teacher, shows the same latents
            wanted = [card["latent"] for card in made["cards"]]


def _of_cell(
    steps: Cache, place: Place, result: dict[str, Any], sae: SAE, latents: list[int], features: int
) -> dict[str, Any]:
    """A cell's `cards`, made or taken over, and the figures that they are `of`: those of its result file, then."""
    cell, of = result["cell"], digest(result["metrics"])
    if latents and not 0 <= min(latents) <= max(latents) < sae.d_sae:
        raise InputError(f"--latents {max(latents)}: {cell} has the latents 0 to {sae.d_sae - 1}")
    settings = [fingerprint(sae), of, latents or features, CONTEXTS, AROUND, LOGITS, place.settings]
    return steps.run(cell, settings, lambda: {"of": of, "cards": place.cards(sae, latents, features, cell)})


def read_cards(run: Path, results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The cards in a run by cell, but those of a cell that has been made anew since."""
    found = {}
    for result in results:
        file = run / "cards" / f"{result['cell']}.json"
        if file.exists() and (made := read_json(file)["result"])["of"] == digest(result["metrics"]):
            found[result["cell"]] = made["cards"]
    return found


def default_cells(results: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """For each family and width at each hook point: a fine-tuned rational cell and its control."""
    rows = [row(result) for result in results]
    controls = controls_of(rows)
    tuned = [r for r in rows if r["cell"] in controls and not r["variant"].endswith("-init")]
    found = []
    for _, members in groupby(
        tuned, key=lambda r: [r.get(key) for key in ("host", "hook", "family", "d_sae")]
    ):
        group = list(members)
        first = min(group, key=lambda r: (r["variant"] != "gated", r["variant"], r.get("seed", 0)))
        same = [r for r in group if (r["variant"], r.get("seed")) == (first["variant"], first.get("seed"))]
        middle = same[len(same) // 2]
        found.append((middle["cell"], controls[middle["cell"]]["cell"]))
    return found


def site(run: Path, result: dict[str, Any]) -> Path:
    """The directory of a cell's hook point: of its activations and SAEs."""
    if "hook" not in result:
        return run
    return run / "sites" / f"{slug(Path(result['host']).name)}-{result['hook']}"


def load_sae(run: Path, result: dict[str, Any]) -> SAE:
    """A cell's SAE from the run's directory."""
    variant, place = result["variant"], site(run, result)
    name = (
        result["cell"].removesuffix(f"-{variant}").removeprefix(f"{place.name}-" if "hook" in result else "")
    )
    root = place / "saes" / name
    if variant == "teacher":
        if source := result["how"].get("source"):
            address, _, subfolder = source.partition(":")
            return rsae.load(address, subfolder=subfolder or None)
        directory = root / "teacher"
    elif variant.startswith("control"):  # trained once, with the first upgrade that it serves
        upgrades = [p.parent for p in sorted(root.glob("*/control"))]
        theirs = [u for u in upgrades if _control_of(run, result, u.name) == variant]
        directory = (theirs or [root])[0] / "control"
    elif variant.endswith("-init"):
        directory = root / variant.removesuffix("-init") / "initial"
    else:
        directory = root / variant / "tuned"
    if not directory.is_dir():
        raise InputError(
            f"{directory}: the SAE of {result['cell']} is missing; run the same command as for the run again"
        )
    return rsae.load(directory)


def _control_of(run: Path, control: dict[str, Any], upgrade: str) -> str | None:
    """The control's name in the result file of an upgrade of the same teacher."""
    stem = control["cell"].removesuffix(f"-{control['variant']}")
    file = run / "results" / f"{stem}-{upgrade}.json"
    return read_json(file)["control"] if file.exists() else None


class Place:
    """A hook point's held-out articles, and the activations there; the host runs when they are first asked for."""

    def __init__(self, run: Path, result: dict[str, Any]):
        config = result["config"]
        harvest = HarvestConfig(**config["harvest"])
        if "hook" in result:
            harvest = replace(harvest, host=result["host"], hook=result["hook"])
        else:
            harvest = replace(harvest, seed=config["seed"])
        self.bench = Bench(harvest, Evaluate.model_construct(**config["evaluate"]), site(run, result))
        self.settings = [
            harvest.host,
            harvest.hook,
            harvest.text,
            harvest.context,
            harvest.heldout_tokens,
            harvest.seed,
        ]

    @cached_property
    def sequences(self) -> list[list[int]]:
        return self.bench.heldout(self.bench.harvest.heldout_tokens)

    @cached_property
    def activations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x_ND within the norm limit, and each row's sequence and position."""
        host, count = self.bench.host, sum(len(ids) - 1 for ids in self.sequences)
        with progress(count, f"held-out articles at {self.bench.harvest.hook}", "tok") as bar:
            rows = run_sequences(host, HookPoint.parse(self.bench.harvest.hook, host), self.sequences, bar)
        sequence_N = torch.cat([torch.full((len(x),), i) for i, x in enumerate(rows)])
        position_N = torch.cat([torch.arange(1, len(x) + 1) for x in rows])
        x_ND = torch.cat(rows)
        kept_N = x_ND.norm(dim=1) <= self.bench.norm_limit
        return x_ND[kept_N], sequence_N[kept_N], position_N[kept_N]

    @torch.no_grad()
    def cards(self, sae: SAE, latents: list[int], features: int, what: str) -> list[dict[str, Any]]:
        """Cards of `latents`, or of `features` latents by density."""
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
        cards = []
        for column, latent in enumerate(chosen):
            z_N = z_NS[:, column]
            sides = (1, -1) if sae.signed or bool((z_N < 0).any()) else (1,)
            cards.append(
                {
                    "latent": latent,
                    "density": count_F[latent].item() / len(x_ND),
                    "tokens": len(x_ND),
                    "sides": [self._side(z_N, sign, sae.W_dec[latent]) for sign in sides],
                }
            )
        return cards

    def _side(self, z_N: torch.Tensor, sign: int, row_D: torch.Tensor) -> dict[str, Any]:
        """A polarity: its share of the tokens, its largest value, its contexts, and the logits of its direction."""
        size_N = (sign * z_N).clamp_min(0)
        head = self.bench.host.model.get_output_embeddings()
        assert head is not None  # a causal language model
        unembedding_VD = head.weight.float()
        effect_V = unembedding_VD @ (sign * row_D)
        up, down = effect_V.topk(LOGITS), (-effect_V).topk(LOGITS)
        return {
            "sign": sign,
            "density": (size_N > 0).double().mean().item(),
            "max": sign * size_N.max().item(),
            "contexts": self._contexts(size_N, sign),
            "promotes": [
                [self._text(v), e] for v, e in zip(up.indices.tolist(), up.values.tolist(), strict=True)
            ],
            "suppresses": [
                [self._text(v), -e] for v, e in zip(down.indices.tolist(), down.values.tolist(), strict=True)
            ],
        }

    def _contexts(self, size_N: torch.Tensor, sign: int) -> list[dict[str, Any]]:
        """The largest values, one a sequence at most, with the tokens around."""
        _, sequence_N, position_N = self.activations
        found: list[dict[str, Any]] = []
        seen: set[int] = set()
        for n in size_N.argsort(descending=True, stable=True).tolist():
            number, at = int(sequence_N[n]), int(position_N[n])
            if size_N[n] <= 0 or len(found) == CONTEXTS:
                break
            if number in seen:
                continue
            seen.add(number)
            ids, low = self.sequences[number], max(0, at - AROUND)
            tokens = [self._text(v) for v in ids[low : at + AROUND + 1]]
            found.append({"value": sign * size_N[n].item(), "tokens": tokens, "at": at - low})
        return found

    def _text(self, token: int) -> str:
        return self.bench.host.tokenizer.decode([token])


def by_density(count_F: torch.Tensor, features: int) -> list[int]:
    """Latents at evenly spaced quantiles of how often they fire, the rarest first; of those that do fire."""
    alive = count_F.nonzero().squeeze(1)
    if not len(alive):
        return []
    order = alive[count_F[alive].argsort(stable=True)].tolist()
    features = min(features, len(order))
    return [order[int((i + 0.5) * len(order) / features)] for i in range(features)]
