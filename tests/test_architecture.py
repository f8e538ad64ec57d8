"""The shape of the project: arrows one way, and approx of use alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_imports_run_one_way():
    done = run(
        sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    )
    assert done.returncode == 0, done.stdout
    assert ", 0 broken" in done.stdout


def test_approx_works_without_torch():
    code = """
import sys
for name in ("torch", "transformers", "safetensors", "pydantic"):
    sys.modules[name] = None  # importing it raises ImportError
import approx
fit = approx.minimax(approx.relu(), (3, 2))
assert abs(fit.error - 2.184450634603818e-2) < 1e-10
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_import_approx_loads_nothing_heavy():
    code = "import sys, approx; print([m for m in ('torch', 'matplotlib', 'sympy') if m in sys.modules])"
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, ["passive", "1000", "1"]),
        ({"OMP_WAIT_POLICY": "active", "THP_MEM_ALLOC_ENABLE": "0"}, ["active", "None", "0"]),
        ({"GOMP_SPINCOUNT": "7"}, ["passive", "7", "1"]),
    ],
    ids=["nothing", "policies", "spins"],
)
def test_how_torch_waits_and_allocates_is_said_before_it_is_loaded(said, wanted):
    """Who has said otherwise is heard."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")
    code = f"import os, sys, rsae; print(*map(os.environ.get, {names}), 'torch' in sys.modules)"
    given = {k: v for k, v in os.environ.items() if k not in names} | said
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=given, capture_output=True, text=True)
    *found, loaded = done.stdout.split()
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        wanted = [*wanted[:2], said.get("THP_MEM_ALLOC_ENABLE", "None")]
    assert (found, loaded) == (wanted, "False")
