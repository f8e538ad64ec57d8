"""One's own activations, from memory or from files: of a vision model, of cells, of a robot, or cached ones.

They need no host. What needs one (the host's loss, probing) says so. Shapes: N rows, D d_in, B batch.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsae.activations.protocol import epoch_of
from rsae.activations.rows import Rows
from rsae.provenance import Provenance
from rsae.sae.layout import Point
from rsae.support.errors import InputError
from rsae.support.files import bytes_of, read_tensors, read_torch

Source = torch.Tensor | np.ndarray | str | os.PathLike | Sequence[Any]
SUFFIXES = (".npy", ".pt", ".safetensors")
_ROWS = 65_536  # looked at together


class InMemory:
    """Tensors as activations, in a training and a held-out split.

    Args:
        parts: Tensors [N, D] of the splits `train` and `heldout`.
        provenance: Where they come from.
        window: Rows to shuffle at a time; 0 shuffles all.
        target: What a transcoder is to predict of them.
    """

    name = "the given activations"
    #: a batch may be made in another thread, while a step runs
    reads_ahead = True

    def __init__(
        self,
        parts: dict[str, list[torch.Tensor]],
        provenance: Provenance,
        window: int = 0,
        target: InMemory | None = None,
    ):
        self.provenance, self.target = provenance, target
        #: the hook points that stand side by side (`rsae.join`); None for one
        self.points: tuple[Point, ...] | None = None
        self._rows = Rows(parts, self.name, window)
        norm = sum(x.double().norm(dim=1).sum().item() for x in self.blocks("train", _ROWS)) / self.tokens()
        if norm == 0:
            raise InputError(f"{self.name} are all zero")
        #: factor that brings the training rows' mean norm to sqrt(D)
        self.scale: float = math.sqrt(self.d_in) / norm

    @classmethod
    def of(
        cls,
        x: Source,
        heldout: int | float = 0.1,
        provenance: Provenance | None = None,
        window: int = 0,
        target: Source | None = None,
    ) -> InMemory:
        """See `rsae.Store.of`.

        Args:
            x: Tensors, arrays or files.
            heldout: Rows to hold out, or a share of them below 1.
            provenance: Where they come from.
            window: Rows to shuffle at a time; 0 shuffles all.
            target: What a transcoder is to predict, row by row.
        """
        tensors = list(_tensors(x))
        if not tensors:
            raise InputError("no activations: the list or directory is empty")
        widths = {t.shape[1] for _, t in tensors}
        if len(widths) > 1:
            told = ", ".join(f"{name}: {t.shape[1]}" for name, t in tensors[:5])
            raise InputError(f"the activations differ in width ({told}); give files of one width")
        for name, t in tensors:
            _check_finite(t, name)
        total = sum(len(t) for _, t in tensors)
        held = _heldout_rows(heldout, total)
        predicted = None if target is None else cls.of(target, held, provenance, window)
        if predicted is not None and (rows := predicted.tokens() + predicted.tokens("heldout")) != total:
            raise InputError(f"the target has {rows} rows, the activations have {total}; give a row for each")
        parts = _parted([t for _, t in tensors], total - held)
        own = (provenance or Provenance()).filled(Provenance(rows=total, heldout_rows=held))
        return cls(parts, own, window, predicted)

    @property
    def d_in(self) -> int:
        """Width of an activation."""
        return self._rows.split("train")[0].shape[1]

    @cached_property
    def identity(self) -> Any:
        """What tells them from other activations: shapes, and the bytes of all rows."""
        parts = {split: parts for split, parts in self._rows.parts.items() if parts}
        held = {split: bytes_of(self.blocks(split, _ROWS)) for split in parts}
        made = {split: [list(t.shape) for t in some] for split, some in parts.items()}
        known = replace(self.provenance, rows=None, heldout_rows=None)  # which the shapes say
        made_of = {"rows": made, "bytes": held, "provenance": known.metadata()}
        if self.target is not None:
            made_of["target"] = self.target.identity
        if self.points is not None:
            made_of["points"] = [asdict(point) for point in self.points]
        return made_of | ({"window": self._rows.window} if self._rows.window else {})

    def tokens(self, split: str = "train") -> int:
        """How many rows the split holds.

        Args:
            split: `train` or `heldout`.
        """
        return sum(map(len, self._rows.parts.get(split, ())))

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """The split's rows x_BD in order, as float32.

        Args:
            split: `train` or `heldout`.
            rows: Largest number at a time.
        """
        return self._rows.blocks(split, rows)

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Random rows x_BD of the split (all of them where it holds fewer).

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        return self._rows.sample(self.tokens(split), rows, seed, split)

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch x_BD: a pure function of its arguments.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Each epoch is a fresh shuffle by (seed, epoch).
        """
        start, order = epoch_of(step, size, self.tokens(), seed, self.name)
        return self._rows.ordered(start, size, order)


def _heldout_rows(heldout: int | float, total: int) -> int:
    share = isinstance(heldout, float) and heldout < 1
    rows = round(heldout * total) if share else int(heldout) if math.isfinite(heldout) else -1
    whole = isinstance(heldout, float) and heldout == 1  # all of it, or one row: nobody can say
    if whole or heldout < 0 or rows != (rows if share else heldout) or not 0 <= rows < total:
        raise InputError(
            f"heldout={heldout!r} of {total} rows: give a whole number of rows that leaves some for training, or a "
            "share from 0 to below 1"
        )
    return rows


def _parted(tensors: list[torch.Tensor], train: int) -> dict[str, list[torch.Tensor]]:
    parts: dict[str, list[torch.Tensor]] = {"train": [], "heldout": []}
    for t in tensors:
        here = min(len(t), train)
        train -= here
        for split, rows in (("train", t[:here]), ("heldout", t[here:])):
            if len(rows):
                parts[split].append(rows)
    return parts


def _check_finite(x_ND: torch.Tensor, name: str) -> None:
    for start in range(0, len(x_ND), _ROWS):
        # norms and errors are sums of squares
        bad = ~torch.isfinite(x_ND[start : start + _ROWS].float().square().sum(1))
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise InputError(
                f"{name}: row {row} holds NaN or infinity, or numbers whose squares float32 does not hold; "
                "leave it out, or take another unit"
            )


def _tensors(x: Source) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and rows of each tensor that is meant."""
    if isinstance(x, torch.Tensor | np.ndarray):
        given = x if isinstance(x, torch.Tensor) else _of_array(x, "the given array")
        yield "the given array", _as_rows(given, "the given array")
    elif isinstance(x, str | os.PathLike):
        yield from _from_path(Path(x))
    elif isinstance(x, Iterable) and not isinstance(x, Mapping):
        for one in x:
            yield from _tensors(one)
    else:
        raise InputError(
            f"a {type(x).__name__} is no activations; give a tensor, an array (np.asarray), a file, or a list of these"
        )


def _from_path(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix in SUFFIXES), key=_place)
        if not files:
            raise InputError(f"{path}: no activations in it; it may hold files in {', '.join(SUFFIXES)}")
        for file in files:
            yield from _from_path(file)
        return
    if not path.exists():
        raise InputError(f"{path}: no such file or directory of activations")
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path}: not a whole .npy file of numbers ({error}); write it anew") from None
        yield str(path), _as_rows(_of_array(array, str(path)), str(path))
    elif path.suffix == ".safetensors":
        yield str(path), _as_rows(_alone(read_tensors(path), path), str(path))
    elif path.suffix in (".pt", ".pth"):
        value = read_torch(path)
        yield str(path), _as_rows(_alone(value if isinstance(value, dict) else {"": value}, path), str(path))
    else:
        raise InputError(
            f"{path}: activations are read from {', '.join(SUFFIXES)}, not from this kind of file"
        )


def _place(file: Path) -> tuple[list[Any], str]:
    """Where a file stands among others: by name, its numbers as numbers."""
    parts = re.split(r"(\d+)", file.name)  # text and digits in turn
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], file.name


def _alone(tensors: dict[Any, Any], path: Path) -> torch.Tensor:
    """The one tensor of a file. Of several, one may be the target of the other, or its copy from another layer."""
    if len(tensors) != 1:
        names = ", ".join(map(str, [*tensors][:8])) + (", ..." if len(tensors) > 8 else "")
        raise InputError(
            f"{path}: holds {len(tensors)} tensors ({names}), and rows are read from a file of one; write each into a "
            "file of its own, or load them and give rsae.Store.of those that you mean"
        )
    ((key, tensor),) = tensors.items()
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{path}: {key!r} is no tensor; save the activations alone")
    return tensor


def _of_array(array: np.ndarray, name: str) -> torch.Tensor:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise InputError(f"{name}: holds {array.dtype}, no numbers that activations are made of")
    if not array.dtype.isnative or array.dtype.kind in "ub":
        array = array.astype(np.float32)
    if any(step < 0 or step % array.itemsize for step in array.strides):  # torch cannot walk backwards
        array = array.copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to it
        return torch.from_numpy(array)


def _as_rows(x: torch.Tensor, name: str) -> torch.Tensor:
    if x.layout is not torch.strided:
        raise InputError(f"{name}: is sparse; give it dense (x.to_dense())")
    if x.ndim < 2 or x.is_complex() or not x.numel():
        raise InputError(
            f"{name}: has shape {list(x.shape)} and dtype {x.dtype}; activations are rows of real numbers, [N, D]"
        )
    x_ND = x.detach().reshape(-1, x.shape[-1])
    return x_ND if x_ND.is_floating_point() else x_ND.float()
