"""Progress bars: rate and time left, on a terminal and, more slowly, in a log."""

from __future__ import annotations

import sys

from tqdm import tqdm

from rsae.support import distributed

#: Whether other processes of the same work write to the same terminal: bars are drawn seldom, and `Cache` says nothing
crowded = False


def progress(total: int, description: str, unit: str, initial: int = 0) -> tqdm:
    """A bar on stderr; in a log (no terminal) it prints a line every 20 seconds at the most.

    Args:
        total: What it counts to.
        description: What is done.
        unit: What is counted.
        initial: What is done already.
    """
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=f" {unit}",
        unit_scale=total >= 10_000,
        dynamic_ncols=True,
        disable=not distributed.is_first(),
        mininterval=(5.0 if crowded else 0.2) if sys.stderr.isatty() else 20.0,
        smoothing=0.1,
    )


def say(text: str) -> None:
    """A line on stderr, where the progress bars are; of the first process alone.

    Args:
        text: The line.
    """
    if distributed.is_first():
        print(text, file=sys.stderr, flush=True)
