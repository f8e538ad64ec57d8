"""Latents in the file forms of SAEDashboard and Neuronpedia, for their viewers and importers.

    saedashboard   OUT/batch-0.json, ... as its NeuronpediaRunner writes them; OUT/skipped_indexes.json
    neuronpedia    OUT/MODEL/LAYER-SET/ with release, model, sourceset and source (.jsonl), and features and
                   activations (batch-0.jsonl.gz, ...): the form of its bulk import

Both are of SAEDashboard's sources (sae_dashboard/neuronpedia/neuronpedia_dashboard.py, neuronpedia_export.py; commit
db4839a). Their values are not negative: the negative side of a signed code is a set of its own, `SET-negative`, with
magnitudes and reversed rows. The tables of correlated neurons and latents stay empty, which both allow.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from evals.latents import Card, Context, Extent, Side
from evals.results import slug
from rsae import SAE, InputError, Provenance
from rsae.support.errors import did_you_mean
from rsae.support.files import digest, write_json, write_text, writing

#: What a card holds for an export: SAEDashboard's own numbers of sequences, intervals and logits
EXPORTED = Extent(contexts=20, intervals=10, each=5, around=24, logits=10)
#: Latents of a file, and how many are looked at together
_BATCH, _TOGETHER = 128, 512
#: Rows of the table of aligned neurons
_ALIGNED = 3
#: Neuronpedia's own for an importer without an account
_CREATOR = "clkht01d40000jv08hvalcvly"


@dataclass(frozen=True)
class Source:
    """What the files say that latents are of."""

    model: str
    """The host."""
    layer: int
    """Its block."""
    hook: str
    """The hook point within the block, such as `hook_resid_pre`."""
    set: str
    """Name of the set of latents."""
    prompts: int
    """Sequences that were looked at."""
    context: int
    """Tokens a sequence."""
    dataset: str
    """The text."""
    d_sae: int
    """Number of latents."""

    @classmethod
    def of(cls, sae: SAE, known: Provenance, name: str, sequences: int) -> Source:
        """The source of an SAE's latents.

        Args:
            sae: The SAE.
            known: Where its activations come from.
            name: Name of the set; empty for family and width.
            sequences: Sequences that were looked at.

        Raises:
            InputError: where host, context or block are not known.
        """
        model, hook = known.known("model", "an export"), known.known("hook", "an export")
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
        if found is None:
            raise InputError(f"hook point {hook!r} is in no numbered block, which both forms ask for")
        context = known.known("context", "an export")
        return cls(
            model=slug(Path(model).name),
            layer=int(found[1]),
            hook=found[2],
            set=slug(name or f"{sae.family}-{sae.d_sae}"),
            prompts=sequences,
            context=context,
            dataset=known.text or "",
            d_sae=sae.d_sae,
        )


def export(
    form: str,
    out: str | os.PathLike,
    sae: SAE,
    latents: Sequence[int],
    cards: Callable[[Sequence[int]], Sequence[Card]],
    source: Source,
) -> list[Path]:
    """Write latents in a foreign form.

    Args:
        form: `saedashboard` or `neuronpedia`.
        out: Directory.
        sae: The SAE.
        latents: Which latents.
        cards: Makes cards of some of them, with the extent `EXPORTED`.
        source: What they are of.

    Returns:
        The files.

    Raises:
        InputError: for an unknown form, or a directory that holds another export already.
    """
    check_export(form, out)
    out = Path(out)
    signs = (1, -1) if sae.signed else (1,)
    writers = {sign: FORMS[form](_place(form, out, sign), _of_sign(source, sign)) for sign in signs}
    done = {sign: list[int]() for sign in signs}
    for start in range(0, len(latents), _TOGETHER):
        made = cards(latents[start : start + _TOGETHER])
        for sign, writer in writers.items():
            pairs = [
                (card, side) for card in made for side in card.sides if side.sign == sign and side.density
            ]
            done[sign] += [card.latent for card, _ in pairs]
            for first in range(0, len(pairs), _BATCH):
                batch = pairs[first : first + _BATCH]
                writer.add([feature(c.latent, s, sae.W_dec[c.latent], writer.source) for c, s in batch])
    return [file for sign, writer in writers.items() for file in writer.finish(done[sign])]


def check_export(form: str, out: str | os.PathLike) -> None:
    """Raise `InputError` where an export cannot be written.

    Args:
        form: `saedashboard` or `neuronpedia`.
        out: Directory; it must be empty, or not there yet.
    """
    known = (*FORMS, "delphi")
    if form not in known:
        raise InputError(f"--export {form!r} is no form{did_you_mean(form, known)}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; choose another directory for the export")


def _place(form: str, out: Path, sign: int) -> Path:
    return out / "negative" if sign < 0 and form == "saedashboard" else out


def _of_sign(source: Source, sign: int) -> Source:
    return source if sign > 0 else replace(source, set=f"{source.set}-negative")


@torch.no_grad()
def feature(latent: int, side: Side, row_D: torch.Tensor, source: Source) -> dict[str, Any]:
    """One polarity of a latent as SAEDashboard's `NeuronpediaDashboardFeature`.

    Args:
        latent: Its number.
        side: The polarity.
        row_D: The latent's decoder row.
        source: What it is of.
    """
    row_D = side.sign * row_D.float().cpu()
    top = row_D.topk(min(_ALIGNED, len(row_D)))
    share_K = top.values.abs() / row_D.abs().sum().clamp_min(1e-12)
    largest = abs(side.max)
    groups = [(-1.0, largest, -1.0, side.contexts)]
    groups += [(part.low, part.high, part.share, part.contexts) for part in side.intervals]
    return {
        "feature_index": latent,
        "neuron_alignment_indices": top.indices.tolist(),
        "neuron_alignment_values": _rounded(top.values.tolist()),
        "neuron_alignment_l1": _rounded(share_K.tolist()),
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "correlated_features_indices": [],
        "correlated_features_l1": [],
        "correlated_features_pearson": [],
        "neg_str": [effect.token for effect in side.suppresses],
        "neg_values": _rounded([effect.logit for effect in side.suppresses]),
        "pos_str": [effect.token for effect in side.promotes],
        "pos_values": _rounded([effect.logit for effect in side.promotes]),
        "frac_nonzero": side.density,
        "freq_hist_data_bar_values": _rounded(side.values.centres),
        "freq_hist_data_bar_heights": list(side.values.counts),
        "logits_hist_data_bar_heights": list(side.logits.counts),
        "logits_hist_data_bar_values": _rounded(side.logits.centres),
        "n_prompts_total": source.prompts,
        "n_tokens_in_prompt": source.context,
        "dataset": source.dataset,
        "decoder_weights_dist": [],
        "activations": [
            _activation(context, low, high, share)
            for low, high, share, contexts in groups
            for context in contexts
        ],
        "vector": row_D.tolist(),
    }


def _activation(context: Context, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": round(low, 5),
        "bin_max": round(high, 5),
        "bin_contains": share,
        "tokens": list(context.tokens),
        "values": _rounded([abs(value) for value in context.values]),
        "qualifying_token_index": context.at,
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]


class _Dashboards:
    """SAEDashboard's batches."""

    def __init__(self, out: Path, source: Source):
        self.out, self.source, self.files = out, source, list[Path]()

    def add(self, features: list[dict[str, Any]]) -> None:
        file = self.out / f"batch-{len(self.files)}.json"
        batch = {
            "model_id": self.source.model,
            "layer": self.source.layer,
            "sae_set": self.source.set,
            "sae_id_suffix": None,
            "features": features,
        }
        write_text(file, json.dumps(batch, allow_nan=False))
        self.files.append(file)

    def finish(self, done: list[int]) -> list[Path]:
        """Which latents are not there: dead ones, and those that were not asked for."""
        skipped = self.out / "skipped_indexes.json"
        write_json(
            skipped,
            {
                "model_id": self.source.model,
                "layer": str(self.source.layer),
                "sae_set": self.source.set,
                "log_sparsity": None,  # the threshold of those left out: here it is firing at all
                "skipped_indexes": sorted(set(range(self.source.d_sae)) - set(done)),
            },
        )
        return [*self.files, skipped]


class _Import:
    """Neuronpedia's bulk import."""

    def __init__(self, out: Path, source: Source):
        self.source, self.id = source, f"{source.layer}-{source.set}"
        self.out, self.files = out / source.model / self.id, list[Path]()
        self.now = datetime.now(UTC).isoformat()

    def add(self, features: list[dict[str, Any]]) -> None:
        number = len(self.files) // 2
        places = [
            (feature["feature_index"], i, found)
            for feature in features
            for i, found in enumerate(feature["activations"])
        ]
        self._lines(f"features/batch-{number}.jsonl.gz", (self._feature(one) for one in features))
        self._lines(f"activations/batch-{number}.jsonl.gz", (self._place(*place) for place in places))

    def finish(self, done: list[int]) -> list[Path]:
        s, common = self.source, {"creatorId": _CREATOR, "createdAt": self.now}
        model = {"id": s.model, "instruct": False, "displayNameShort": s.model, "displayName": s.model}
        told = f"{s.set}: latents of {s.model} at blocks.{s.layer}.{s.hook}"
        set_ = {"modelId": s.model, "name": s.set, "creatorName": "", "releaseName": s.set}
        release = {"name": s.set, "description": told, "descriptionShort": told, "urls": []}
        heads = {
            "release": release | {"creatorName": "", "creatorNameShort": ""},
            "model": model | {"updatedAt": self.now},
            "sourceset": set_ | {"description": told, "visibility": "PRIVATE"},
            "source": {
                "id": self.id,
                "modelId": s.model,
                "setName": s.set,
                "visibility": "PRIVATE",
                "dataset": s.dataset,
                "num_prompts": s.prompts,
                "num_tokens_in_prompt": s.context,
            },
        }
        for name, row in heads.items():
            self._lines(f"{name}.jsonl", [row | common])
        return self.files

    def _feature(self, feature: dict[str, Any]) -> dict[str, Any]:
        own = ("activations", "feature_index", "n_prompts_total", "n_tokens_in_prompt", "dataset")
        largest = max((max(a["values"]) for a in feature["activations"]), default=0.0)
        return {
            "modelId": self.source.model,
            "layer": self.id,
            "index": feature["feature_index"],
            "creatorId": _CREATOR,
            "createdAt": self.now,
            "maxActApprox": largest,
            "hasVector": True,
            "vectorLabel": None,
            "vectorDefaultSteerStrength": largest,
            "hookName": f"blocks.{self.source.layer}.{self.source.hook}",
            "topkCosSimIndices": [],
            "topkCosSimValues": [],
            **{key: value for key, value in feature.items() if key not in own},
        }

    def _place(self, latent: int, number: int, found: dict[str, Any]) -> dict[str, Any]:
        values = found["values"]
        return {
            "id": f"c{digest([self.id, latent, number, self.now])}{latent:08x}",
            "tokens": found["tokens"],
            "modelId": self.source.model,
            "layer": self.id,
            "index": latent,
            "maxValue": max(values),
            "maxValueTokenIndex": values.index(max(values)),
            "minValue": min(values),
            "values": values,
            "dfaValues": [],
            "dfaTargetIndex": None,
            "dfaMaxValue": None,
            "creatorId": _CREATOR,
            "createdAt": self.now,
            "lossValues": [],
            "logitContributions": None,
            "binMin": found["bin_min"],
            "binMax": found["bin_max"],
            "binContains": found["bin_contains"],
            "qualifyingTokenIndex": found["qualifying_token_index"],
            "dataIndex": None,
            "dataSource": None,
        }

    def _lines(self, name: str, rows: Sequence[dict[str, Any]] | Iterator[dict[str, Any]]) -> None:
        file = self.out / name
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
        with writing(file) as temporary:
            temporary.write_bytes(gzip.compress(text, 5) if file.suffix == ".gz" else text)
        self.files.append(file)


#: By name: what writes a form
FORMS: dict[str, type[_Dashboards] | type[_Import]] = {"saedashboard": _Dashboards, "neuronpedia": _Import}
