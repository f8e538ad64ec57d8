"""Labelled sets for sparse probing: balanced, without duplicates, train and test parted by source.

A task is an embedded one, or a file of the user's: FILE or FILE#CLASS, FILE a `.csv` or `.jsonl` with `text` and
`label` (and `source`, where texts of one source belong together). With two labels the second in order is the
positive class; with more, CLASS against the rest.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import zstandard

from rsae.activations.text import Document, json_lines, package_directory, split_documents, wikipedia
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import contents

_TRAIN_SHARE = 0.75
#: Texts of a class in a split, at least
_LEAST = 10
#: A file of a data set on the hub
_HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+):(.+)")


@dataclass(frozen=True)
class Example:
    """A labelled text."""

    text: str
    """The text."""
    label: int
    """0 or 1."""
    source: str
    """Where it is from: examples of one source are all in train or all in test."""


@dataclass(frozen=True)
class Task:
    """A binary task in two splits."""

    name: str
    """As `load_task` takes it."""
    train: tuple[list[str], np.ndarray]
    """Training texts and their labels, 0 or 1."""
    test: tuple[list[str], np.ndarray]
    """Test texts and their labels."""


def load_task(name: str, train: int = 4000, test: int = 1000, seed: int = 42) -> Task:
    """Load a task, half of each split of each class.

    A source goes to train or test by a hash of (seed, source), so that no text, and no article in two languages, is on
    both sides. Where a set is too small for `train` or `test`, both shrink in proportion.

    Args:
        name: An embedded task, or a file (see the module).
        train: Training texts.
        test: Test texts.
        seed: Of the split and the choice of texts.

    Returns:
        The task.

    Raises:
        InputError: for an unknown name, a missing package, a file without the two fields.
    """
    check_task(name)
    examples = TASKS[name]() if name in TASKS else from_file(name)
    return split_task(name, examples, train, test, seed)


def check_task(name: str) -> None:
    """Raise `InputError` where `name` is neither an embedded task nor a file; one of the hub is not fetched yet."""
    path = _file_and_class(name)[0]
    known = path.suffix in (".csv", ".jsonl") and (path.is_file() or _HUB_FILE.fullmatch(str(path)))
    if name not in TASKS and not known:
        raise InputError(
            f"task {name!r} is neither embedded nor a .csv or .jsonl file, here or (OWNER/NAME:FILE) on the hub"
            f"{did_you_mean(name, TASKS)}"
        )


def from_file(name: str) -> list[Example]:
    """The examples of FILE, OWNER/NAME:FILE (a data set's on the hub), or one of them with #CLASS."""
    path, positive = _file_and_class(name)
    if not path.is_file() and (found := _HUB_FILE.fullmatch(str(path))):
        path = _from_hub(*found.groups())
    found = _rows(path, ("text", "label"))
    labels = sorted({row["label"] for row in found})
    if positive is None and len(labels) == 2:
        positive = labels[1]
    if positive not in labels or len(labels) < 2:
        raise InputError(
            f"{path} has the labels {', '.join(labels[:20])}: name one of two or more as {path}#LABEL"
        )
    return [Example(row["text"], int(row["label"] == positive), row["source"]) for row in found]


def read_rows(name: str, known: Iterable[str], *more: str) -> list[dict[str, str]]:
    """The rows of a user's file of labelled texts: `text`, `label`, `source` and what else is asked for, as texts.

    Args:
        name: The file, or OWNER/NAME:FILE on the hub.
        known: Embedded names, for the message.
        more: Further fields.

    Raises:
        InputError: where there is no such file, or a field is missing.
    """
    path = Path(name)
    if path.suffix not in (".csv", ".jsonl") or not (path.is_file() or _HUB_FILE.fullmatch(name)):
        raise InputError(
            f"labelled texts {name!r}: neither embedded nor a .csv or .jsonl file{did_you_mean(name, known)}"
        )
    if not path.is_file() and (found := _HUB_FILE.fullmatch(name)):
        path = _from_hub(*found.groups())
    return _rows(path, ("text", "label", *more))


def _rows(path: Path, fields: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        if path.suffix == ".csv":
            rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        else:
            rows = [row for _, row in json_lines(path)]
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as {path.suffix} ({error})") from None
    for number, row in enumerate(rows, 1):
        given = row if isinstance(row, dict) else {}
        # an empty text is passed over later, an empty label is none
        if wrong := [n for n in fields if given.get(n) is None or (n != "text" and given[n] == "")]:
            lacks = " and no ".join(f"`{name}`" for name in wrong)
            raise InputError(f"{path}: row {number} has no {lacks}; leave such rows out, or fill them")
        if not isinstance(row["text"], str):
            raise InputError(f"{path}: row {number}: `text` is {row['text']!r}, not a text")
    return [
        {name: str(r[name]) for name in fields} | {"source": str(r.get("source") or r["text"])} for r in rows
    ]


def _file_and_class(name: str) -> tuple[Path, str | None]:
    file, _, positive = name.rpartition("#")
    if not file or Path(name).is_file():
        return Path(name), None
    return Path(file), positive or None


def _from_hub(repository: str, file: str) -> Path:
    """A data set's file, in the hub's cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset"))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"task {repository}:{file}: the hub does not give it ({reason}); look at the data set's name, the file's "
            "name in it, your network and, for a private one, your login"
        ) from error


def of_files(names: Iterable[str]) -> list[str]:
    """What tells the local files among sets from those of the same name, such as before an edit.

    Args:
        names: Tasks, or sets of labelled texts.
    """
    files = [_file_and_class(name)[0] for name in names]
    return [contents(file) for file in files if file.is_file()]


def split_task(name: str, examples: Iterable[Example], train: int, test: int, seed: int) -> Task:
    """Part examples into a balanced task; a text that occurs twice is kept once.

    Args:
        name: The task's name.
        examples: Labelled texts.
        train: Training texts.
        test: Test texts.
        seed: Of the split and the choice of texts.

    Returns:
        The task.

    Raises:
        InputError: where a class has fewer than 10 examples in a split, or fewer are asked for.
    """
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
        pools[split_of(example.source, seed), example.label].append(example.text)
    halves = {"train": train // 2, "test": test // 2}
    if min(halves.values()) < _LEAST:
        raise InputError(
            f"task {name!r}: {train} training and {test} test texts; ask for {2 * _LEAST} of each at least"
        )
    share = min(1.0, *(len(pools[s, y]) / halves[s] for s, y in pools))
    splits = {}
    for split, half in halves.items():
        count = int(half * share)
        if count < _LEAST:
            raise InputError(
                f"task {name!r}: fewer than {_LEAST} examples a class in {split}; give more data"
            )
        texts = pools[split, 0][:count] + pools[split, 1][:count]
        splits[split] = (texts, np.repeat([0, 1], count))
    return Task(name, splits["train"], splits["test"])


def split_of(source: str, seed: int) -> str:
    """`train` or `test`, by a hash.

    Args:
        source: Texts of one source are in one split.
        seed: Of the split.
    """
    return "train" if _uniform(f"{seed}/{source}") < _TRAIN_SHARE else "test"


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
    rest = [t for table in negative for t in positives(table)]
    wanted = positives(positive)
    return [Example(t, 1, t) for t in wanted] + [Example(t, 0, t) for t in rest]


def positives(table: str) -> list[str]:
    """The positives of a set of sae-probes.

    Args:
        table: Its name.
    """
    frame = _table(table)
    return [str(t) for t in frame["prompt"][frame["target"] == 1]]


def _wiki_topic(topic: str) -> list[Example]:
    """Articles that no SAE of the same split by article was trained on."""
    documents = split_documents(wikipedia())["probing"]
    return [Example(d.text, int(d.topic == topic), d.title) for d in documents]


def _language(negative: str, positive: str) -> Callable[[], list[Example]]:
    """Articles in one language against articles in another; English ones that no SAE was trained on."""

    def articles(language: str) -> list[Document]:
        found = wikipedia(language)
        return split_documents(found)["probing"] if language == "en-us" else found

    def examples() -> list[Example]:
        pair = ((0, negative), (1, positive))
        return [Example(d.text, label, d.title) for label, language in pair for d in articles(language)]

    return examples


TOPICS = {
    "people": "People",
    "physical": "Physical sciences",
    "biology": "Biology and health sciences",
    "geography": "Geography",
    "society": "Society and social sciences",
    "arts": "Arts",
    "technology": "Technology",
    "history": "History",
    "everyday": "Everyday life",
    "philosophy": "Philosophy and religion",
    "mathematics": "Mathematics",
}
AGNEWS = {"world": "161_agnews_0", "sports": "162_agnews_1", "business": "163_agnews_2"}
CODE = {"c": "158_code_C", "python": "159_code_Python", "html": "160_code_HTML"}


def _rebuilt(tables: dict[str, str], name: str) -> Callable[[], list[Example]]:
    return lambda: _one_class_against(tables[name], *(t for n, t in tables.items() if n != name))


TASKS: dict[str, Callable[[], list[Example]]] = {
    "spam": lambda: _binary("96_spam_is"),
    "sst2": lambda: _binary("92_glue_sst2"),
    "amazon_5star": lambda: _binary("157_amazon_5star"),
    **{f"wiki_{name}": partial(_wiki_topic, topic) for name, topic in TOPICS.items()},
    "french": _language("en-us", "fr-fr"),
    "spanish": _language("en-us", "es-es"),
    "spanish_not_french": _language("fr-fr", "es-es"),
    **{f"agnews_{name}": _rebuilt(AGNEWS, name) for name in AGNEWS},
    **{f"code_{name}": _rebuilt(CODE, name) for name in CODE},
}
