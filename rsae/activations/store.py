"""The on-disk store of activations: safetensors shards and a manifest that says what they are.

    store/manifest.json            host, hook point, normalisation, excluded positions, a line a shard
    store/train-00000.safetensors  x_ND (activations; in int8 with scale_N), token_N, position_N, document_N, sequence_N
    store/heldout-00000.safetensors
    store/target/                  what a transcoder predicts of the same tokens: a store, row by row in the same order

Training and held-out tokens come from different documents. Shards hold activations as the host gives them; the
manifest's `scale` brings their mean norm to sqrt(D), and training multiplies by it. They are memory-mapped: a store
may be larger than the memory. Shapes: B batch, D d_in, N rows of a shard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ConfigDict, PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rsae.activations import remote
from rsae.activations.protocol import epoch_of
from rsae.activations.rows import Rows, Scaled
from rsae.provenance import Provenance
from rsae.support.errors import InputError
from rsae.support.files import read_json, read_tensors, sha256, write_json

if TYPE_CHECKING:
    from rsae.activations.in_memory import InMemory, Source

VERSION = 2
MANIFEST = "manifest.json"
TARGET = "target"


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Shard:
    """One file of a store."""

    file: str
    """Its name in the store's directory."""
    split: Literal["train", "heldout"]
    """The split that it belongs to."""
    tokens: int
    """Activations in it."""
    sha256: str
    """Checksum of the file."""
    norm_limit: float | None = None
    """Activations of a larger norm were left out."""
    excluded_by_norm: int = 0
    """How many these were."""
    storage_error: float = 0.0
    """Share of the activations' variance that storing them in a short dtype costs."""


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Manifest:
    """What a store's `manifest.json` says."""

    version: int
    """Of the layout."""
    d_in: PositiveInt
    """Width of an activation."""
    scale: PositiveFloat
    """Factor that brings the training activations' mean norm to sqrt(d_in)."""
    shards: list[Shard]
    """The files."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the activations come from, as `Provenance.metadata` writes it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The harvest's settings."""
    excluded_positions: str = ""
    """Which positions were left out, in words."""
    normalisation: str = ""
    """What `scale` does, in words."""
    storage_error: float = 0.0
    """Share of the activations' variance that storing them in a short dtype costs: mean over the shards' tokens."""

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read a store's manifest.

        Args:
            directory: The store.

        Raises:
            InputError: There is none, or it is not whole, naming the field and the remedy.
        """
        file = directory / MANIFEST
        if not file.exists():
            raise InputError(
                f"{directory}: no {MANIFEST}, so no finished activation store; make one with `rsae harvest`"
            )
        made = read_json(file)
        if not isinstance(made, dict) or made.get("version") != VERSION:
            raise InputError(
                f"{file}: version is not {VERSION}: an earlier release made it; harvest the store anew"
            )
        try:
            return TypeAdapter(cls).validate_python(made)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{file}: {where}: {first['msg'].lower()}; harvest the store anew") from None

    def write(self, directory: Path) -> None:
        """Write it to a store's directory.

        Args:
            directory: The store.
        """
        write_json(directory / MANIFEST, asdict(self))


class Store:
    """A finished store, opened for reading; the shards are memory-mapped.

    Args:
        path: Its directory.
        manifest: What it holds.
        window: Rows to shuffle at a time; see `Rows`. 0 shuffles all.
        target: What a transcoder predicts of the same tokens.
    """

    #: a batch may be made in another thread, while a step runs
    reads_ahead = True

    def __init__(
        self, path: str | os.PathLike, manifest: Manifest, window: int = 0, target: Store | None = None
    ):
        self.path, self.manifest, self.window, self.target = Path(path), manifest, window, target
        self.provenance = Provenance.from_metadata(manifest.provenance)
        # with a window the order is another one
        self.identity: Any = asdict(manifest) | ({"window": window} if window else {})
        if target is not None:
            self.identity |= {"target": target.identity}

    @classmethod
    def open(cls, path: str | os.PathLike, verify: bool = True, window: int = 0) -> Store:
        """Open a store.

        Args:
            path: Its directory, or its URL in object storage (`s3://bucket/store`), which is copied to the cache first.
            verify: Compare every shard's checksum.
            window: Rows to shuffle at a time, for a store larger than the memory; 0 shuffles all.

        Raises:
            InputError: The store is missing, unfinished or corrupt; the message names the file and the remedy.
        """
        path = remote.fetched(path)
        manifest = Manifest.read(path)
        for shard in manifest.shards if verify else []:
            file = path / shard.file
            if not file.exists():
                raise InputError(
                    f"{file}: the shard is missing; run the same `rsae harvest` again, it makes only this one"
                )
            if sha256(file) != shard.sha256:
                raise InputError(
                    f"{file}: the shard is corrupt (its checksum is not the manifest's); delete it and run the same "
                    "`rsae harvest` again, it makes only this one"
                )
        target = None
        if manifest.settings.get("target") is not None:
            target = cls.open(path / TARGET, verify, window)
            rows = [[s.tokens for s in m.shards] for m in (manifest, target.manifest)]
            if rows[0] != rows[1]:
                raise InputError(f"{path / TARGET}: holds other tokens than {path}; harvest the store anew")
        return cls(path, manifest, window, target)

    @staticmethod
    def of(
        x: Source,
        heldout: int | float = 0.1,
        provenance: Provenance | None = None,
        window: int = 0,
        target: Source | None = None,
    ) -> InMemory:
        """One's own activations: nothing is written, nothing need come from a language model.

        Args:
            x: A tensor or array [N, D] (more leading dimensions are flattened); or a .npy, .pt or .safetensors file, a
                directory of such files, or a list of any of these. Files in .npy and .safetensors are memory-mapped.
            heldout: Rows to hold out of training: a number of rows, or a share of them below 1. The last rows are
                taken.
            provenance: Where they come from, if that is to be recorded and compared.
            window: Rows to shuffle at a time, for more than fits into memory; 0 shuffles all.
            target: What a transcoder is to predict, a row for each: in any of the forms of `x`.

        Raises:
            InputError: A file cannot be read, shapes differ, a value is not finite, or nothing is left to train on.
        """
        from rsae.activations.in_memory import InMemory

        return InMemory.of(x, heldout, provenance, window, target)

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"the store {self.path}"

    @property
    def d_in(self) -> int:
        """Width of an activation."""
        return self.manifest.d_in

    @property
    def scale(self) -> float:
        """Factor that brings the training activations' mean norm to sqrt(D)."""
        return self.manifest.scale

    def tokens(self, split: str = "train") -> int:
        """How many tokens the split holds.

        Args:
            split: `train` or `heldout`.
        """
        return sum(s.tokens for s in self.manifest.shards if s.split == split)

    @cached_property
    def _rows(self) -> Rows:
        parts: dict[str, list[torch.Tensor | Scaled]] = {}
        for shard in self.manifest.shards:
            made = read_tensors(self.path / shard.file)
            x_ND = Scaled(made["x_ND"], made["scale_N"]) if "scale_N" in made else made["x_ND"]
            parts.setdefault(shard.split, []).append(x_ND)
        return Rows(parts, self.name, self.window)

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """The split's activations x_BD in order, as float32.

        Args:
            split: `train` or `heldout`.
            rows: Largest number at a time.
        """
        return self._rows.blocks(split, rows)

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Random activations x_BD of the split (all of them where it holds fewer).

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        return self._rows.sample(self.tokens(split), rows, seed, split)

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch x_BD: a pure function of its arguments, so that a run can resume.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Each epoch is a fresh shuffle by (seed, epoch).
        """
        start, order = epoch_of(step, size, self.tokens(), seed, self.name)
        return self._rows.ordered(start, size, order)
