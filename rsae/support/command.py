"""How the command lines end: 0, or 2 with one clear line for what the user can mend, or 130 for Ctrl-C."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import typer

from rsae.support.errors import InputError


class _Interrupted(BaseException):
    """Ctrl-C; not a KeyboardInterrupt, which typer would end with a message of its own."""


def run(app: typer.Typer) -> None:
    """Run a typer app and exit; `InputError` and failed writes become one line on stderr and status 2."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except _Interrupted:
        _stop("interrupted; run the same command again: it continues where it stopped", 130)
    except InputError as error:
        _stop(f"error: {error}", 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"error: {where}{error.strerror or error}; what is finished is kept", 2)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise _Interrupted


def _stop(message: str, status: int) -> NoReturn:
    print("\n" + message.replace("\n", " "), file=sys.stderr)
    sys.exit(status)
