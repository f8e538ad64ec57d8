"""What all three command lines have."""

from __future__ import annotations

from importlib import import_module
from runpy import run_module

import pytest

import approx
from tests.command import run_command


@pytest.mark.parametrize("package", ["approx", "rsae", "evals"])
def test_the_version(package):
    done = run_command(import_module(f"{package}.cli").main, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"{package} {approx.__version__}")


@pytest.mark.parametrize("package", ["approx", "rsae", "evals"])
def test_each_is_a_module_too(package, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [package, "--version"])
    with pytest.raises(SystemExit, match="0"):
        run_module(package, run_name="__main__")
    assert capsys.readouterr().out.strip() == f"{package} {approx.__version__}"
