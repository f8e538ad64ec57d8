"""C++ sources that are compiled at their first use and kept in the cache directory.

They need a C++ compiler (g++ or clang++, or what $CXX names). Where there is none, callers have a slower way.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import torch

from rsae.support.errors import InputError
from rsae.support.files import cache_directory, digest, writing

_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fopenmp",
    "-shared",
    "-fPIC",
)


def compiled(source: Path, macros: dict[str, int], what: str) -> ctypes.CDLL | None:
    """The compiled library, or None (with a warning) where it cannot be compiled.

    Args:
        source: The C++ file; it may include headers that lie beside it.
        macros: Preprocessor macros.
        what: What runs unfused without it, for the warning.
    """
    compiler = shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        warnings.warn(f"no C++ compiler (g++) is installed: {what} run unfused", stacklevel=5)
        return None
    machine = subprocess.run(
        [compiler, "-march=native", "-E", "-dM", "-x", "c++", os.devnull], capture_output=True
    )
    command = [compiler, *_FLAGS, *(f"-D{name}={value}" for name, value in macros.items())]
    headers = [file.read_text() for file in sorted(source.parent.glob("*.h"))]
    key = digest([source.read_text(), headers, command, machine.stdout.decode()])
    file = cache_directory() / "kernels" / f"{source.stem}-{key}.so"
    if not file.exists():
        try:
            with writing(file) as temporary:
                subprocess.run(
                    [*command, source, "-o", temporary], capture_output=True, text=True, check=True
                )
        except (subprocess.CalledProcessError, InputError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            warnings.warn(
                f"{source.name} cannot be compiled, so {what} run unfused: {reason.strip()}", stacklevel=5
            )
            return None
    return ctypes.CDLL(str(file))


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    """A contiguous tensor as an argument.

    Args:
        tensor: It must outlive the call.
    """
    return ctypes.c_void_p(tensor.data_ptr())
