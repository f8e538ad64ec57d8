"""Settings as text: numbers in names that tell them apart, and NAME=VALUE as a user writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rsae.support.errors import InputError

_WORDS = {"True": True, "False": False, "None": None}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|.', re.DOTALL)  # a string as JSON writes it, or a character


def numeral(value: int | float) -> str:
    """A number as text: in six digits where these are all of it, else in all digits, so that no two are alike.

    Args:
        value: The number.
    """
    if isinstance(value, int) and abs(value) > 2**53:  # beyond what a float tells apart
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else f"{value!r}"


def parse_value(text: str) -> Any:
    """What a value stands for: JSON, True, False or None as Python writes them, another number such as .5, or a word;
    and a list of such in brackets.

    Args:
        text: The value.
    """
    try:
        return _value(text.strip())
    except RecursionError:
        return text


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    with suppress(ValueError):
        return json.loads(text)
    with suppress(ValueError):
        return float(text)
    if text.startswith("[") and text.endswith("]"):
        parts = _split(text[1:-1])
        if parts and "" not in parts:
            return [_value(part) for part in parts]
    return text


def parse_values(flag: str, texts: Sequence[str]) -> dict[str, list[Any]]:
    """Options and their values, of NAME=VALUE,VALUE,...

    Args:
        flag: What they were given by, for messages.
        texts: As a user writes them.

    Returns:
        Values by option.

    Raises:
        InputError: for any other text.
    """
    once = "give each option once, and each of its values"
    read = _named(flag, texts, f"write NAME=VALUE,VALUE, such as lr=1e-3,3e-3, and close brackets; {once}")
    for name, (text, parts) in read.items():
        if any(value in parts[:i] for i, value in enumerate(parts)):
            raise InputError(f"{flag} {name}={text}: {once}")
    return {name: parts for name, (_, parts) in read.items()}


def parse_settings(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """Settings of one value each, of NAME=VALUE.

    Args:
        flag: What they were given by, for messages.
        texts: As a user writes them.

    Returns:
        Value by name.

    Raises:
        InputError: for any other text.
    """
    read = _named(flag, texts, "write NAME=VALUE once, such as bandwidth=0.5, and close brackets")
    for name, (text, parts) in read.items():
        if len(parts) > 1:
            raise InputError(f"{flag} {name}={text}: give one value; a list as {name}=[{text}]")
    return {name: parts[0] for name, (_, parts) in read.items()}


def _named(flag: str, texts: Sequence[str], remedy: str) -> dict[str, tuple[str, list[Any]]]:
    """By name, once each, what stands behind NAME=, as text and as values."""
    found: dict[str, tuple[str, list[Any]]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        parts = _parts(value)
        if not (name and equals) or "" in parts or name in found:
            raise InputError(f"{flag} {text!r}: {remedy}")
        found[name] = value, parts
    return found


def _parts(text: str) -> list[Any]:
    """The values between commas that stand in no brackets; "" in place of one that is missing or not closed."""
    try:
        if found := json.loads(f"[{text}]"):
            return found
        return [""]
    except (ValueError, RecursionError):
        return [parse_value(part) for part in _split(text) or [""]]


def _split(text: str) -> list[str]:
    """The text between commas that stand in no brackets and in no string; nothing where brackets do not match."""
    parts, part, opened = [], [], []
    for token in _TOKEN.findall(text):
        if token == "," and not opened:
            parts.append("".join(part).strip())
            part = []
            continue
        part.append(token)
        if token in ("[", "{"):
            opened.append("]" if token == "[" else "}")
        elif token in ("]", "}") and (not opened or opened.pop() != token):
            return []
    return [] if opened else [*parts, "".join(part).strip()]
