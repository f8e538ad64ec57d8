"""Finished steps are reused: a step's result lies in one file, under the settings that it was made with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rsae.support import progress
from rsae.support.files import digest, read_json, write_json


class Cache:
    """Runs named steps; with a directory, the result of an earlier run with the same settings is reused."""

    def __init__(self, directory: Path | None):
        self.directory = directory
        self.seconds: dict[str, float] = {}  # how long each step took when it ran

    def run(self, name: str, settings: Any, make: Callable[[], Any], made: Path | None = None) -> Any:
        """`make()`'s JSON-able result, from file where a step of that name and settings has finished.

        `made` is what the step makes beside its result: where that is gone, the step has not finished.
        """
        return self.run_all({name: settings}, lambda _: {name: make()}, {name: made} if made else {})[name]

    def run_all(
        self,
        settings: dict[str, Any],
        make: Callable[[list[str]], dict[str, Any]],
        made: Mapping[str, Path] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Results of several steps, whose settings are given by name, and so is what they make beside them.

        `make` gets the names of those that have no result yet, and makes them together.
        """
        results: dict[str, Any] = {}
        for name, given in settings.items():
            file = self._file(name)
            if file is None or not file.exists() or not made.get(name, file).exists():
                continue
            if (done := read_json(file)).get("key") == digest(given):
                if not progress.crowded:
                    progress.say(f"{name}: reused from {self.directory}")
                self.seconds[name], results[name] = done["seconds"], done["result"]
        missing = [name for name in settings if name not in results]
        if missing:
            start = time.perf_counter()
            results |= make(missing)
            seconds = round((time.perf_counter() - start) / len(missing), 2)
            for name in missing:
                self.seconds[name] = seconds
                if (file := self._file(name)) is not None:
                    write_json(
                        file, {"key": digest(settings[name]), "seconds": seconds, "result": results[name]}
                    )
        return results

    def _file(self, name: str) -> Path | None:
        return None if self.directory is None else self.directory / f"{name}.json"

    def others(self, settings: dict[str, Any]) -> list[str]:
        """Steps that have a result of other settings than these, which are given by name."""
        files = {name: file for name in settings if (file := self._file(name)) is not None and file.exists()}
        return [name for name, file in files.items() if read_json(file).get("key") != digest(settings[name])]

    def forget(self, name: str) -> None:
        """Lose a step's result."""
        if (file := self._file(name)) is not None:
            file.unlink(missing_ok=True)
