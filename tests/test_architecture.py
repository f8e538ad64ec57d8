"""The shape of the project: arrows one way, and approx of use alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_openmps_threads_sleep_while_they_wait():
    """`rsae` says so before torch is loaded, which is when it is read; who has said otherwise is heard."""
    code = "import os, sys, rsae; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for said, wanted in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        given = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | said
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=given, capture_output=True, text=True
        )
        assert done.stdout.split() == [wanted, "False"]
