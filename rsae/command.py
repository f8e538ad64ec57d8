"""How the command lines end: 0, or 2 with one clear line for what the user can mend, or 130 for Ctrl-C."""

from __future__ import annotations

import sys

import click
import typer

from rsae.errors import InputError


def run(app: typer.Typer) -> None:
    """Run a typer app and exit; `InputError` and failed writes become one line on stderr and status 2."""
    try:
        status = app(standalone_mode=False)
    except click.exceptions.Abort:
        _stop("interrupted; run the same command again, it goes on where it stopped", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except InputError as error:
        _stop(f"error: {error}", 2)
    except OSError as error:
        _stop(f"error: {error.filename or ''}: {error.strerror or error}; what is finished is kept", 2)
    sys.exit(status or 0)


def _stop(message: str, status: int) -> None:
    print(message.replace("\n", " "), file=sys.stderr)
    sys.exit(status)
