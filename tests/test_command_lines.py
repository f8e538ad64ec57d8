"""What all three command lines have."""

from __future__ import annotations

from importlib import import_module

import pytest

import approx
from tests.command import run_command


@pytest.mark.parametrize("package", ["approx", "rsae", "evals"])
def test_the_version(package):
    done = run_command(import_module(f"{package}.cli").main, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"{package} {approx.__version__}")
