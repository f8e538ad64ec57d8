"""SAEs that are known again: checksums lie beside the files, in the form that `sha256sum -c` reads.

Steps that build on a saved SAE read it back later. One that was changed in between would stand beside figures of the
SAE that it was.
"""

from __future__ import annotations

from pathlib import Path

from rsae.formats import load, save
from rsae.sae import SAE
from rsae.support.errors import InputError
from rsae.support.files import sha256, write_text

SUMS = "SHA256SUMS"


def save_sealed(sae: SAE, folder: Path) -> None:
    """Save an SAE with its checksums.

    Args:
        sae: The SAE.
        folder: Its folder.
    """
    save(sae, folder)
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != SUMS and f.name[0] != ".")
    write_text(folder / SUMS, "".join(f"{sha256(file)}  {file.name}\n" for file in files))


def load_sealed(folder: Path) -> SAE:
    """Load what `save_sealed` saved; a folder without checksums, as earlier versions made, is taken as it is.

    Args:
        folder: Its folder.

    Raises:
        InputError: A file is not the one that was saved.
    """
    sums = folder / SUMS
    for line in sums.read_text(encoding="utf-8").splitlines() if sums.exists() else ():
        told, name = line.split("  ", 1)
        file = folder / name
        if not file.exists() or sha256(file) != told:
            raise InputError(
                f"{file}: not the file that was saved here, whose figures are kept; put it back, or delete the folder "
                f"{folder} and run the same command again, which makes it anew"
            )
    return load(folder)
