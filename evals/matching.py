"""A run's SAEs matched with each other: the same variant of another seed, and upgrades and controls with their teacher.

RUN/stability/CELL.json   a cell against another
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from evals.metrics.stability import Stability, stability
from evals.results import Result, Role, dump, parse, read_results, slug
from evals.site import fingerprint, load_sae, open_store
from rsae.support.cache import Cache
from rsae.support.files import read_json

#: Roles whose latents are looked for in another seed, or in the teacher
_OF_SEEDS = (Role.TEACHER, Role.TUNED, Role.CONTROL)


@dataclass(frozen=True)
class StableCell:
    """Two cells of a run, matched."""

    cell: str
    """The one."""
    other: str
    """The other: of the first seed, or the teacher."""
    kind: str
    """`seeds` or `teacher`."""
    result: Stability
    """How far their latents are the same."""


def pairs(results: Sequence[Result]) -> list[tuple[str, Result, Result]]:
    """The pairs of cells that are matched: the kind, the cell, the other one.

    Args:
        results: The cells of a run.
    """
    found = []
    key = lambda r: (str(r.site), r.family, r.d_sae, str(r.level), r.variant)  # noqa: E731
    wanted = [r for r in results if r.role in _OF_SEEDS]
    for _, members in groupby(sorted(wanted, key=lambda r: (*key(r), r.seed)), key=key):
        first, *others = members
        found += [("seeds", other, first) for other in others]
    teachers = {(r.group, r.level, r.seed): r for r in results if r.role is Role.TEACHER}
    for r in wanted:
        teacher = teachers.get((r.group, r.level, r.seed))
        if r.role is not Role.TEACHER and teacher is not None:
            found.append(("teacher", r, teacher))
    return found


def run_stability(run: str | os.PathLike, device: str = "cpu") -> None:
    """Match a run's SAEs; what is there already is kept.

    Args:
        run: The run's directory.
        device: Where the SAEs are.
    """
    cache = Cache(Path(run) / "stability")
    for kind, one, other in pairs(read_results(run)):
        first, second = (load_sae(run, r).to(device) for r in (other, one))

        def make(first=first, second=second, one=one, other=other, kind=kind):
            found = stability(first, second, open_store(run, one), allow_mismatch=True)
            return dump(StableCell(one.cell, other.cell, kind, found))

        if first.signed == second.signed:
            cache.run(slug(f"{one.cell}-{kind}"), [fingerprint(first), fingerprint(second)], make)


def read_stability(run: str | os.PathLike, results: Sequence[Result]) -> list[StableCell]:
    """The matches that a run has, of cells that are still there.

    Args:
        run: The run's directory.
        results: Its cells.
    """
    names = {r.cell for r in results}
    files = sorted((Path(run) / "stability").glob("*.json"))
    found = [parse(StableCell, read_json(file)["result"]) for file in files]
    return [one for one in found if {one.cell, one.other} <= names]
