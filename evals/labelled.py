"""Texts with one of several classes, or with two labels each: for measures that ablate latents of one concept.

    classes   wiki_topics, languages, agnews, code; or a .csv or .jsonl file with `text` and `label`
    crossed   people_french, people_spanish, history_french: topic and language of Wikipedia articles; or a file with
              `text`, `label` and `label2`, each of two values

A source (an article, else the text itself) goes to train or test by a hash, as in `evals.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evals.tasks import AGNEWS, CODE, TOPICS, positives, read_rows, split_of
from rsae.activations.text import split_documents, wikipedia
from rsae.support.errors import InputError, did_you_mean

#: The fewest texts of a class in a split
_LEAST = 10


@dataclass(frozen=True)
class Labelled:
    """Texts with labels, in two splits."""

    name: str
    """The set's name."""
    texts: tuple[str, ...]
    """All texts."""
    label_TC: np.ndarray
    """True where a text belongs to a class, [T, C]; of crossed labels, where each label is the second of its values."""
    is_train_T: np.ndarray
    """True for a training text."""
    classes: tuple[str, ...]
    """Names of the columns."""


_Row = tuple[str, tuple[bool, ...], str]


def load_classes(name: str, train: int = 400, test: int = 200, seed: int = 42) -> Labelled:
    """Texts of several classes, as many of each.

    Args:
        name: An embedded set, or a file.
        train: Training texts of each class at most.
        test: Test texts of each class at most.
        seed: Of the split and the choice of texts.

    Returns:
        The texts.

    Raises:
        InputError: for an unknown name, or fewer than two classes or ten texts of a class in a split.
    """
    pools = CLASSES[name]() if name in CLASSES else _classes_of_file(name)
    classes = tuple(sorted(pools))
    if len(classes) < 2:
        raise InputError(f"{name}: has one class; give two at least")
    rows = [
        (text, tuple(one == label for one in classes), source)
        for label in classes
        for text, source in pools[label]
    ]
    return _split(name, rows, classes, train, test, seed)


def load_crossed(name: str, train: int = 200, test: int = 100, seed: int = 42) -> Labelled:
    """Texts with two labels of two values each, as many of each of the four combinations.

    Args:
        name: An embedded set, or a file.
        train: Training texts of each combination at most.
        test: Test texts of each combination at most.
        seed: Of the split and the choice of texts.

    Returns:
        The texts; the two columns are the labels.

    Raises:
        InputError: for an unknown name, labels with other than two values, or fewer than ten texts of a combination in
            a split.
    """
    rows, classes = CROSSED[name]() if name in CROSSED else _crossed_of_file(name)
    return _split(name, rows, classes, train, test, seed)


def check_sets(classes: Sequence[str], crossed: Sequence[str]) -> None:
    """Raise `InputError` where a set is neither embedded nor a file.

    Args:
        classes: Sets for `load_classes`.
        crossed: Sets for `load_crossed`.
    """
    for names, known in ((classes, CLASSES), (crossed, CROSSED)):
        for name in names:
            if name not in known and not (Path(name).suffix in (".csv", ".jsonl") and Path(name).is_file()):
                raise InputError(
                    f"set {name!r} is neither embedded nor a .csv or .jsonl file{did_you_mean(name, known)}"
                )


def _split(
    name: str, rows: list[_Row], classes: tuple[str, ...], train: int, test: int, seed: int
) -> Labelled:
    """Balanced over the combinations of labels; a text that occurs twice is kept once."""
    order = np.random.default_rng(seed).permutation(len(rows))
    pools: dict[tuple[tuple[bool, ...], str], list[str]] = {}
    seen: set[str] = set()
    for i in order:
        text, labels, source = rows[i]
        key = " ".join(text.casefold().split())
        if key and key not in seen:
            seen.add(key)
            pools.setdefault((labels, split_of(source, seed)), []).append(text)
    kinds = sorted({labels for _, labels, _ in rows})
    texts: list[str] = []
    label: list[tuple[bool, ...]] = []
    is_train: list[bool] = []
    for split, wanted in (("train", train), ("test", test)):
        count = min(wanted, *(len(pools.get((kind, split), [])) for kind in kinds))
        if count < _LEAST:
            raise InputError(f"{name}: fewer than {_LEAST} texts of a class in {split}; give more data")
        for kind in kinds:
            texts += pools[kind, split][:count]
            label += [kind] * count
            is_train += [split == "train"] * count
    return Labelled(name, tuple(texts), np.array(label), np.array(is_train), classes)


def _classes_of_file(name: str) -> dict[str, list[tuple[str, str]]]:
    rows = read_rows(name, CLASSES)
    pools: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        pools.setdefault(row["label"], []).append((row["text"], row["source"]))
    return pools


def _crossed_of_file(name: str) -> tuple[list[_Row], tuple[str, str]]:
    rows = read_rows(name, CROSSED, "label2")
    values = [sorted({row[key] for row in rows}) for key in ("label", "label2")]
    if any(len(one) != 2 for one in values):
        raise InputError(f"{name}: `label` and `label2` need two values each, not {values}")
    first, second = values[0][1], values[1][1]
    found = [(row["text"], (row["label"] == first, row["label2"] == second), row["source"]) for row in rows]
    return found, (first, second)


def _topics() -> dict[str, list[tuple[str, str]]]:
    documents = split_documents(wikipedia())["probing"]
    chosen = [TOPICS[key] for key in ("people", "biology", "geography", "physical", "arts")]
    return {topic: [(d.text, d.title) for d in documents if d.topic == topic] for topic in chosen}


def _languages() -> dict[str, list[tuple[str, str]]]:
    english = split_documents(wikipedia())["probing"]
    others = {"French": wikipedia("fr-fr"), "Spanish": wikipedia("es-es")}
    return {
        name: [(d.text, d.title) for d in documents]
        for name, documents in {"English": english, **others}.items()
    }


def _of_tables(tables: dict[str, str]) -> Callable[[], dict[str, list[tuple[str, str]]]]:
    return lambda: {name: [(text, text) for text in positives(table)] for name, table in tables.items()}


def _topic_and_language(
    topics: dict[str, tuple[str, str]], language: str, code: str
) -> Callable[[], tuple[list[_Row], tuple[str, str]]]:
    """Articles of two topics in English and in another language; `topics` are (English name, other name)."""
    second, first = topics

    def rows() -> tuple[list[_Row], tuple[str, str]]:
        found: list[_Row] = []
        pools = ((split_documents(wikipedia())["probing"], 0), (wikipedia(code), 1))
        for documents, other in pools:
            for topic, names in topics.items():
                found += [
                    (d.text, (topic == second, bool(other)), d.title)
                    for d in documents
                    if d.topic == names[other]
                ]
        return found, (f"{second}, not {first}", language)

    return rows


CLASSES: dict[str, Callable[[], dict[str, list[tuple[str, str]]]]] = {
    "wiki_topics": _topics,
    "languages": _languages,
    "agnews": _of_tables(AGNEWS),
    "code": _of_tables(CODE),
}
_FRENCH = {
    "people": ("People", "Personnalités"),
    "geography": ("Geography", "Géographie"),
    "history": ("History", "Histoire"),
}
_SPANISH = {"people": ("People", "Personas"), "geography": ("Geography", "Geografía")}
CROSSED: dict[str, Callable[[], tuple[list[_Row], tuple[str, str]]]] = {
    "people_french": _topic_and_language(
        {"people": _FRENCH["people"], "geography": _FRENCH["geography"]}, "French", "fr-fr"
    ),
    "people_spanish": _topic_and_language(_SPANISH, "Spanish", "es-es"),
    "history_french": _topic_and_language(
        {"history": _FRENCH["history"], "geography": _FRENCH["geography"]}, "French", "fr-fr"
    ),
}
