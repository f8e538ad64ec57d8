"""Finished steps are reused: a step's result lies in one file, under the settings that it was made with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsae.files import digest, read_json, write_json


class Steps:
    """Runs named steps; with a directory, the result of an earlier run with the same settings is reused."""

    def __init__(self, directory: Path | None):
        self.directory = directory
        self.seconds: dict[str, float] = {}  # how long each step took when it ran

    def run(self, name: str, settings: Any, make: Callable[[], Any]) -> Any:
        """`make()`'s JSON-able result, from file where a step of that name and settings has finished."""
        file, key = None, digest(settings)
        if self.directory is not None:
            file = self.directory / f"{name}.json"
            if file.exists() and (done := read_json(file)).get("key") == key:
                say(f"{name}: reused from {self.directory}")
                self.seconds[name] = done["seconds"]
                return done["result"]
        start = time.perf_counter()
        result = make()
        self.seconds[name] = round(time.perf_counter() - start, 2)
        if file is not None:
            write_json(file, {"key": key, "seconds": self.seconds[name], "result": result})
        return result


def say(text: str) -> None:
    """A line on stderr, where the progress bars are."""
    print(text, file=sys.stderr, flush=True)
