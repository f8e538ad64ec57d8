"""Errors that are the user's to mend. The command lines print them as one line and exit with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Options in a message; a run may have hundreds of cells
_SHOWN = 25


class InputError(ValueError):
    """Something that was given is wrong: a name, a file, a field, a directory that cannot be written.

    The message is one line that names the thing, what is wrong with it, and the remedy.
    """


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`"; did you mean 'seed'?"`, or (the first of) the options where none is near."""
    options = sorted(options)
    folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    shown, more = options[:_SHOWN], len(options) - _SHOWN
    return f"; choose from {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")
