"""Names that the functions of exported code can have."""

from __future__ import annotations

import builtins
import keyword
import math

_C = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "asm",
        "typeof",
        "alignas",
        "alignof",
        "bool",
        "constexpr",
        "false",
        "nullptr",
        "static_assert",
        "thread_local",
        "true",
        "typeof_unqual",
        "main",
        "fabs",
        "abs",
        "ceil",
        "floor",
        "round",
        "trunc",
        "rint",
        "fma",
        "fmin",
        "fmax",
        "fdim",
        "fmod",
        "remainder",
        "frexp",
        "ldexp",
        "modf",
        "scalbn",
        "logb",
        "ilogb",
        "nan",
        "nextafter",
        "copysign",
        "isnan",
        "isinf",
        "isfinite",
        "signbit",
        "j0",
        "j1",
        "jn",
        "y0",
        "y1",
        "yn",
    ]
)
# math.h declares them with the suffixes f and l too
_MATH = _C | set(dir(math))


def check_name(name: str, to: str) -> None:
    """Refuse a name that is none in a language, or that hides what the code itself uses.

    Args:
        name: what the function is to be called.
        to: "c", or a language that is Python's: "python", "numpy", "torch".

    Raises:
        ValueError: for no identifier, a keyword, or the name of something else.
    """
    if not name.isidentifier():
        raise ValueError(f"name={name!r} is not an identifier")
    if to == "c":
        taken = name in _C or name.removesuffix("f") in _MATH or name.removesuffix("l") in _MATH
        if taken or not name.isascii():
            raise ValueError(
                f"name={name!r} is not free in C: it is a keyword or a name of the language's library"
            )
    elif keyword.iskeyword(name) or name in ("np", "torch", "TABLE", *dir(builtins)):
        raise ValueError(
            f"name={name!r} is not free in Python: it is a keyword, a built-in or a name in the code"
        )
