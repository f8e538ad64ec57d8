"""Seeds: any number up to a bound that leaves room for those that are made of one, such as an epoch's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rsae.support.errors import InputError

LARGEST = 2**40
Seed = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]


def check_seed(seed: int) -> None:
    """Refuse a seed of which torch could not make others.

    Args:
        seed: The seed.

    Raises:
        InputError: It is too large.
    """
    if abs(seed) > LARGEST:
        raise InputError(f"seed {seed}: give a number of at most {LARGEST} (2^40)")


def folded(seed: int) -> int:
    """A seed that was made of others, as one that torch takes; those that it takes stay as they are.

    Args:
        seed: Any number.
    """
    return (seed + 2**63) % 2**64 - 2**63
