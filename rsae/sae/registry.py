"""The families by their names in checkpoints and configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from rsae.support.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from rsae.sae.base import SAE

_FINITE = ConfigDict(allow_inf_nan=False)

FAMILIES: dict[str, type[SAE]] = {}
#: The rational form of a family: its gate, a rational magnitude
RATIONAL_FORMS: dict[type[SAE], type[SAE]] = {}

#: Forms that every family has: each gives the class of a name, or None for a name that is not one of its
DERIVED: list[Callable[[str], type[SAE] | None]] = []

Family = TypeVar("Family", bound="SAE")


def register(cls: type[Family]) -> type[Family]:
    """Class decorator: make a family known by its name, and a rational family as the form of its gate's.

    Args:
        cls: The family. A rational one derives from `RationalSAE` and the plain family.
    """
    FAMILIES[cls.family] = cls
    if cls.rational:
        for base in cls.__mro__[1:]:
            if FAMILIES.get(base.__dict__.get("family", "")) is base and not base.rational:
                RATIONAL_FORMS[base] = cls
                break
    return cls


def family(name: str) -> type[SAE]:
    """The class of a family.

    Args:
        name: Its name in checkpoints and configs.

    Raises:
        InputError: The name is unknown.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    for derive in DERIVED:
        if (cls := derive(name)) is not None:
            return cls
    raise InputError(f"family {name!r} is unknown{did_you_mean(name, FAMILIES)}")


def typed(cls: type[SAE], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a plain family as it takes them: 32.0, or a numpy integer, is the number 32.

    Args:
        cls: The family.
        given: Settings by name.

    Raises:
        InputError: One is of another kind.
    """
    hints, found = get_type_hints(cls.__init__), {}
    for name, value in given.items():
        try:
            found[name] = TypeAdapter(hints.get(name, Any), config=_FINITE).validate_python(value)
        except ValidationError as error:
            said = error.errors()[0]["msg"].lower()
            raise InputError(f"family {cls.family!r}: {name} = {value!r}: {said}") from None
    return found
