"""`import approx` is light, and works without what only pictures and the command line need."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import approx

HIDE = "import sys; sys.modules |= dict.fromkeys(('matplotlib', 'matplotlib.figure', 'typer', 'torch'));"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_it_fits_and_certifies_without_matplotlib_and_typer():
    done = run(HIDE + "import approx; print(approx.certify(approx.minimax(approx.relu(), (3, 2))).upper)")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(2.184450634603818e-2)


def test_a_picture_without_matplotlib_says_what_to_install():
    code = "import approx; from approx.plot import plot_error; t = approx.relu()"
    done = run(f"{HIDE}{code}; plot_error(approx.minimax(t, (1, 0)).rational, t, 'x.png')")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith('pip install "rsae[plot]"')


def test_the_command_line_without_typer_is_one_line():
    done = run(f"{HIDE}import approx.cli")
    assert done.returncode == 1
    assert done.stderr.strip() == 'error: the command line needs typer: pip install "rsae[cli]"'


def test_import_loads_nothing_heavy():
    code = "import approx, sys; approx.relu(); print(*({'torch', 'matplotlib', 'sympy'} & set(sys.modules)))"
    assert run(code).stdout.strip() == ""


def test_the_version_is_that_of_the_distribution():
    assert approx.__version__ == version("rsae")


def test_all_public_names_exist():
    for name in dir(approx):
        assert getattr(approx, name) is not None
