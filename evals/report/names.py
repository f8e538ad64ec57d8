"""How cells and groups are called in tables and plots: as short as tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from evals.results import Result, Site


def hook_in_short(site: Site) -> str:
    """A hook point without what all have in common."""
    return site.hooks.replace("blocks.", "").replace("hook_", "")


def place(site: Site, family: str, d_sae: int) -> str:
    """A group in short: the hook point of `site`, `family` and width `d_sae`."""
    return f"{hook_in_short(site)} {family} {d_sae}"


class Names:
    """Names of cells that leave out what all cells have in common.

    Args:
        results: The cells that are to be told apart.
    """

    def __init__(self, results: Sequence[Result]):
        self.hosts = len({r.site.host for r in results}) > 1
        self.sites = len({r.site for r in results}) > 1
        self.widths = len({r.d_sae for r in results}) > 1
        self.levels = any(len({r.level for r in members}) > 1 for members in _by_family(results))
        self.seeds = len({r.seed for r in results}) > 1

    def group(self, result: Result) -> str:
        """The cell's group."""
        host = result.site.host if self.hosts else ""
        hook = hook_in_short(result.site) if self.sites else ""
        return " ".join(filter(None, [host, hook, result.family, str(result.d_sae) if self.widths else ""]))

    def within(self, result: Result) -> str:
        """The cell within its group."""
        level = str(result.level) if self.levels else ""
        return " ".join(filter(None, [result.variant, level, f"s{result.seed}" if self.seeds else ""]))

    def cell(self, result: Result) -> str:
        """The cell."""
        level = str(result.level) if self.levels else ""
        seed = f"s{result.seed}" if self.seeds else ""
        return " ".join(filter(None, [self.group(result), level, seed, result.variant]))


def _by_family(results: Sequence[Result]) -> list[list[Result]]:
    key = lambda r: (str(r.site), r.family)  # noqa: E731
    return [list(members) for _, members in groupby(sorted(results, key=key), key=key)]
