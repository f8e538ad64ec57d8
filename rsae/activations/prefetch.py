"""Batches that are made while the step before them runs, so that training does not wait for the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")


def prefetched(make: Callable[[int], Batch], steps: range, ahead: bool) -> Iterator[tuple[int, Batch, float]]:
    """Each step with its batch, and the seconds that were waited for it.

    Args:
        make: Gives the batch of a step; a pure function of it.
        steps: The steps.
        ahead: Make the next batch in another thread; else each is made when it is wanted.
    """
    if not ahead:
        for step in steps:
            start = time.perf_counter()
            batch = make(step)
            yield step, batch, time.perf_counter() - start
        return
    with ThreadPoolExecutor(1, "rsae-batch") as thread:
        following = thread.submit(make, steps.start) if steps else None
        for step in steps:
            assert following is not None
            start = time.perf_counter()
            batch = following.result()
            waited = time.perf_counter() - start
            following = thread.submit(make, step + 1) if step + 1 in steps else None
            yield step, batch, waited
