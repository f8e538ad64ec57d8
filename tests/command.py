"""Run a command line in this process: what it prints and how it ends, without waiting for imports again."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run_command(main: Callable[[], None], *arguments: object) -> Done:
    """Call an entry point with `arguments` as its command line."""
    out, err = io.StringIO(), io.StringIO()
    argv, handler, status = sys.argv, signal.getsignal(signal.SIGINT), 0
    sys.argv = ["command", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGINT, handler)
    return Done(status, out.getvalue(), err.getvalue())


def assert_one_clear_line(done: Done, *words: str) -> None:
    """Exit status 2 and one line that starts with `error:` and names what it should."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]
