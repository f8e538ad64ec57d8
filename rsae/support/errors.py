"""Errors that are the user's to mend. The command lines print them as one line and exit with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar, cast

T = TypeVar("T")

#: Options in a message; a run may have hundreds of cells
_SHOWN = 25


class InputError(ValueError):
    """Something that was given is wrong: a name, a file, a field, a directory that cannot be written.

    The message is one line that names the thing, what is wrong with it, and the remedy.
    """


class SettingError(InputError):
    """A field of a config is wrong.

    Args:
        config: The config's class.
        field: The field.
        value: What was given.
        reason: What is wrong with it.
    """

    def __init__(self, config: str, field: str, value: Any, reason: str):
        super().__init__(config, field, value, reason)
        self.field, self.value, self.reason = field, value, reason

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.field} = {self.value!r}: {self.reason}"


def checked(cls: type[T]) -> type[T]:
    """A pydantic dataclass whose refusals are `SettingError`s of one line."""
    from pydantic import ValidationError

    make = cls.__init__

    @wraps(make)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            make(self, *args, **kwargs)
        except ValidationError as error:
            first = error.errors()[0]
            field, reason = ".".join(map(str, first["loc"])), first["msg"].lower()
            if first["type"] == "unexpected_keyword_argument":
                reason = "is no field" + did_you_mean(field, [f.name for f in fields(cast(Any, cls))])
            raise SettingError(cls.__name__, field, first["input"], reason) from None

    cls.__init__ = init
    return cls


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`"; did you mean 'seed'?"`, or (the first of) the options where none is near."""
    options = sorted(options)
    folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    shown, more = options[:_SHOWN], len(options) - _SHOWN
    return f"; choose from {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")
