"""Labelled sets for sparse probing: balanced, without duplicates, train and test parted by source."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import zstandard

from rsae.activations.text import package_directory, split_documents, wikipedia
from rsae.errors import InputError, did_you_mean

_TRAIN_SHARE = 0.75


@dataclass(frozen=True)
class Example:
    """A text, its label, and its source: examples of one source are all in train or all in test."""

    text: str
    label: int
    source: str


@dataclass(frozen=True)
class Task:
    """A binary task; texts and labels (0 or 1) of the two splits."""

    name: str
    train: tuple[list[str], np.ndarray]
    test: tuple[list[str], np.ndarray]


def load_task(name: str, train: int = 4000, test: int = 1000, seed: int = 42) -> Task:
    """Load an embedded task, half of each split of each class.

    A source goes to train or test by a hash of (seed, source), so that no text, and no article in two
    languages, is on both sides. Where a set is too small for `train` or `test`, both shrink in proportion.
    Raises `InputError` for an unknown name or a missing package.
    """
    if name not in TASKS:
        raise InputError(f"task {name!r} is unknown{did_you_mean(name, TASKS)}")
    return split_task(name, TASKS[name](), train, test, seed)


def split_task(name: str, examples: Iterable[Example], train: int, test: int, seed: int) -> Task:
    """Part examples into a balanced task; a text that occurs twice is kept once."""
    pools: dict[tuple[str, int], list[str]] = {(s, y): [] for s in ("train", "test") for y in (0, 1)}
    seen: set[str] = set()
    rng = np.random.default_rng(seed)
    examples = list(examples)
    for i in rng.permutation(len(examples)):
        example = examples[i]
        key = " ".join(example.text.casefold().split())
        if key in seen or not key:
            continue
        seen.add(key)
        split = "train" if _uniform(f"{seed}/{example.source}") < _TRAIN_SHARE else "test"
        pools[split, example.label].append(example.text)
    halves = {"train": train // 2, "test": test // 2}
    share = min(1.0, *(len(pools[s, y]) / halves[s] for s, y in pools))
    splits = {}
    for split, half in halves.items():
        count = int(half * share)
        if count < 10:
            raise InputError(f"task {name!r}: fewer than 10 examples a class in {split}; give more data")
        texts = pools[split, 0][:count] + pools[split, 1][:count]
        splits[split] = (texts, np.repeat([0, 1], count))
    return Task(name, splits["train"], splits["test"])


def _uniform(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


def _table(name: str) -> pd.DataFrame:
    path = package_directory("sae_probes") / "data" / "cleaned_data" / f"{name}.csv.zst"
    with open(path, "rb") as file:
        return pd.read_csv(io.BytesIO(zstandard.ZstdDecompressor().stream_reader(file).read()))


def _binary(table: str) -> list[Example]:
    frame = _table(table)
    return [Example(str(t), int(y), str(t)) for t, y in zip(frame["prompt"], frame["target"], strict=True)]


def _one_class_against(positive: str, *negative: str) -> list[Example]:
    """Positives of one set against positives of others: the sets' own negatives are of another kind altogether."""

    def positives(table: str) -> list[str]:
        frame = _table(table)
        return [str(t) for t in frame["prompt"][frame["target"] == 1]]

    rest = [t for table in negative for t in positives(table)]
    wanted = positives(positive)
    return [Example(t, 1, t) for t in wanted] + [Example(t, 0, t) for t in rest]


def _wiki_topic(topic: str) -> list[Example]:
    """Articles that no SAE of the same split by article was trained on."""
    documents = split_documents(wikipedia())["probing"]
    return [Example(d.text, int(d.topic == topic), d.title) for d in documents]


def _french() -> list[Example]:
    english = split_documents(wikipedia())["probing"]
    return [Example(d.text, 0, d.title) for d in english] + [
        Example(d.text, 1, d.title) for d in wikipedia("fr-fr")
    ]


_AGNEWS = {"world": "161_agnews_0", "sports": "162_agnews_1", "business": "163_agnews_2"}
_CODE = {"c": "158_code_C", "python": "159_code_Python", "html": "160_code_HTML"}


def _rebuilt(tables: dict[str, str], name: str) -> Callable[[], list[Example]]:
    return lambda: _one_class_against(tables[name], *(t for n, t in tables.items() if n != name))


TASKS: dict[str, Callable[[], list[Example]]] = {
    "spam": lambda: _binary("96_spam_is"),
    "sst2": lambda: _binary("92_glue_sst2"),
    "amazon_5star": lambda: _binary("157_amazon_5star"),
    "wiki_people": lambda: _wiki_topic("People"),
    "wiki_physical": lambda: _wiki_topic("Physical sciences"),
    "french": _french,
    **{f"agnews_{name}": _rebuilt(_AGNEWS, name) for name in _AGNEWS},
    **{f"code_{name}": _rebuilt(_CODE, name) for name in _CODE},
}
