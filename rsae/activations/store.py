"""The on-disk store of activations: safetensors shards and a manifest that says what they are.

    store/manifest.json            host, hook point, normalisation, excluded positions, a line a shard
    store/train-00000.safetensors  x_ND (activations), token_N, position_N, document_N
    store/heldout-00000.safetensors

Training and held-out tokens come from different articles. Shards hold activations as the host gives them; the
manifest's `scale` brings their mean norm to sqrt(D), and training multiplies by it. They are memory-mapped: a store
may be larger than the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rsae.activations.windows import Windows
from rsae.support.errors import InputError
from rsae.support.files import read_json, read_tensors, sha256

VERSION = 1
RUN = 256  # neighbouring rows that a window takes together


class Store:
    """A finished store, opened for reading; the shards are memory-mapped.

    window: 0 shuffles all training tokens among each other; each batch then reads rows from everywhere, which is
    right as long as the store fits into the page cache. Larger than that, give so many rows to shuffle at a time:
    an epoch then reads runs of 256 neighbouring rows in a random order, and shuffles within windows of that size.
    """

    def __init__(self, path: str | os.PathLike, manifest: dict[str, Any], window: int = 0):
        self.path, self.window = Path(path), window
        # with the window, a checkpoint made in another order is not taken over
        self.manifest: dict[str, Any] = manifest | ({"window": window} if window else {})

    @classmethod
    def open(cls, path: str | os.PathLike, verify: bool = True, window: int = 0) -> Store:
        """Open a store; with `verify` every shard's checksum is compared.

        Raises `InputError` for a missing, unfinished or corrupt store, naming the file and the remedy.
        """
        path = Path(path)
        if not (path / "manifest.json").exists():
            raise InputError(
                f"{path}: no manifest.json, so no finished activation store; make one with `rsae harvest`"
            )
        manifest = read_json(path / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
            raise InputError(f"{path}/manifest.json: version is not {VERSION}; harvest the store anew")
        for shard in manifest["shards"] if verify else []:
            file = path / shard["file"]
            if not file.exists():
                raise InputError(
                    f"{file}: the shard is missing; run the same `rsae harvest` again, it makes only this one"
                )
            if sha256(file) != shard["sha256"]:
                raise InputError(
                    f"{file}: the shard is corrupt (its checksum is not the manifest's); delete it and run the same "
                    "`rsae harvest` again, it makes only this one"
                )
        return Store(path, manifest, window)

    @property
    def d_in(self) -> int:
        return self.manifest["d_in"]

    @property
    def scale(self) -> float:
        """Factor that brings the training activations' mean norm to sqrt(D)."""
        return self.manifest["scale"]

    def tokens(self, split: str = "train") -> int:
        """How many tokens the split holds."""
        return sum(s["tokens"] for s in self.manifest["shards"] if s["split"] == split)

    @cached_property
    def _shards(self) -> dict[str, list[torch.Tensor]]:
        shards: dict[str, list[torch.Tensor]] = {}
        for shard in self.manifest["shards"]:
            shards.setdefault(shard["split"], []).append(read_tensors(self.path / shard["file"])["x_ND"])
        return shards

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """The split's activations x_BD in order, as float32, `rows` at a time at the most."""
        for x_ND in self._split(split):
            for x_BD in x_ND.split(rows):
                yield x_BD.float()

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """`rows` random activations x_BD of the split (all of them where it holds fewer)."""
        generator = torch.Generator().manual_seed(seed)
        index = torch.randperm(self.tokens(split), generator=generator)[:rows]
        return self._gather(split, index.sort().values)

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch number `step`, x_BD: a pure function of its arguments, so that a run can resume.

        Each epoch is a fresh shuffle of all training tokens by (seed, epoch); what is left of an epoch after its
        last whole batch is not used.
        """
        total = self.tokens()
        if size > total:
            raise InputError(
                f"batch {size} is larger than the {total} training tokens of {self.path}; lower `batch`"
            )
        epoch, index = divmod(step, total // size)
        return self._rows(index * size, size, seed * 1_000_003 + epoch)

    def _rows(self, start: int, count: int, seed: int) -> torch.Tensor:
        """`count` rows from `start` on, in the epoch's order."""
        if self.window:
            return self._windows.rows(start, count, seed)
        return self._gather("train", self._order(seed)[start : start + count])

    def _order(self, seed: int) -> torch.Tensor:
        cached = self.__dict__.get("_epoch")
        if cached is None or cached[0] != seed:
            generator = torch.Generator().manual_seed(seed)
            cached = (seed, torch.randperm(self.tokens(), generator=generator))
            self.__dict__["_epoch"] = cached  # one epoch's permutation is kept, not recomputed a batch
        return cached[1]

    @cached_property
    def _windows(self) -> Windows:
        shards = self._split("train")
        runs = [(n, i, min(RUN, len(x) - i)) for n, x in enumerate(shards) for i in range(0, len(x), RUN)]

        def load(chosen: list[int]) -> torch.Tensor:
            return torch.cat([shards[n][i : i + rows].float() for n, i, rows in (runs[u] for u in chosen)])

        return Windows([rows for _, _, rows in runs], self.window, load)

    def _split(self, split: str) -> list[torch.Tensor]:
        if split not in self._shards:
            raise InputError(f"{self.path} has no split {split!r}; it has {', '.join(self._shards)}")
        return self._shards[split]

    def _gather(self, split: str, index_N: torch.Tensor) -> torch.Tensor:
        shards = self._split(split)
        bounds = torch.tensor([0] + [len(s) for s in shards]).cumsum(0)
        which = torch.bucketize(index_N, bounds[1:], right=True)
        x_BD = torch.empty(len(index_N), self.d_in)
        for number in which.unique().tolist():
            rows = which == number
            x_BD[rows] = shards[number][index_N[rows] - bounds[number]].float()
        return x_BD
