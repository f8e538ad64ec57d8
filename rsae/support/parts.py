"""Work that several processes part among them: process i of n."""

from __future__ import annotations

from rsae.support.errors import InputError


def parse_part(text: str, option: str) -> tuple[int, int]:
    """A part as it is written.

    Args:
        text: i/n, such as 0/8.
        option: Where it was given.

    Returns:
        (i, n).

    Raises:
        InputError: for any other text.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit()):
        raise InputError(f"{option} {text!r}: write i/n, such as 0/8")
    return check_part((int(index), int(count)), option)


def check_part(part: tuple[int, int], name: str) -> tuple[int, int]:
    """The part, where it is one; else `InputError`.

    Args:
        part: (i, n).
        name: What it is called in the message.
    """
    index, count = part
    if not 0 <= index < count:
        raise InputError(f"{name} {index}/{count}: write i/n with i from 0 to n - 1")
    return part


def shares(sizes: list[int], count: int) -> list[list[int]]:
    """Pieces of work parted evenly: the largest first, each to the process that has least.

    Args:
        sizes: Of the pieces.
        count: Number of processes.

    Returns:
        The pieces of each process by number, ascending; the first piece is the first process's.
    """
    found: list[list[int]] = [[] for _ in range(count)]
    for piece in sorted(range(len(sizes)), key=lambda i: (i > 0, -sizes[i])):
        min(found, key=lambda share: sum(sizes[i] for i in share)).append(piece)
    return [sorted(share) for share in found]
