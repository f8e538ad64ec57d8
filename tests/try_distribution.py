"""Use the built wheel and sdist as a stranger does: in an empty environment, far from the checkout.

    python tests/try_distribution.py dist

The heavy dependencies are taken from the environment that built them; the packages themselves only from the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

CODE = """
import approx, rsae, evals, pathlib
for package in (approx, rsae, evals):
    assert "site-packages" in package.__file__, package.__file__
    assert (pathlib.Path(package.__file__).parent / "py.typed").exists()
fit = approx.minimax(approx.relu(), (3, 2))
assert abs(fit.error - 2.184450634603818e-2) < 1e-10
assert approx.table is not None
from rsae.rational.kernels.cpu import _SOURCE
assert _SOURCE.exists(), "the C++ source"
from evals.config import PRESETS, SuiteConfig, preset
for name in PRESETS:
    SuiteConfig.read(preset(name))
import evals.report.html
templates = list((pathlib.Path(evals.__file__).parent / "report" / "templates").iterdir())
assert any(t.suffix == ".j2" for t in templates)
print("used", rsae.__version__)
"""
#: What has to be in the source distribution
SOURCES = ("README.md", "LICENSE", "pyproject.toml", "docs/architecture.md", "tests/test_architecture.py")


def main(directory: Path) -> None:
    """Try the one wheel and the one sdist of a directory.

    Args:
        directory: Where they lie.
    """
    (wheel,) = directory.glob("*.whl")
    (sdist,) = directory.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "rsae/rational/kernels/cpu.cpp",
        "rsae/sae/choice.h",
        "evals/configs/demo.toml",
        "approx/py.typed",
    ):
        assert needed in names, f"{wheel.name} lacks {needed}"
    with tarfile.open(sdist) as archive:
        held = archive.getnames()
    for needed in SOURCES:
        assert any(name.split("/", 1)[-1] == needed for name in held), f"{sdist.name} lacks {needed}"
    here = Path(__file__).parents[1]
    libraries = next((here / ".venv" / "lib").glob("python3*/site-packages"))
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(Path(scratch) / "env", with_pip=True)
        python = Path(scratch) / "env" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel.resolve()], check=True)
        site = next((Path(scratch) / "env" / "lib").glob("python3*/site-packages"))
        # behind the wheel's own packages; .pth files there, an editable checkout's too, are not read
        (site / "borrowed.pth").write_text(f"{libraries}\n")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([python, "-c", CODE], cwd=scratch, env=environment, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
