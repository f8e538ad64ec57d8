"""What training, upgrades and measures need of activations, wherever these lie; and whether an SAE fits them.

`Store` (files), `Stream` (a host that runs) and `InMemory` (tensors) offer it. Shapes: B batch, D d_in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch

from rsae.provenance import Provenance, check_match
from rsae.support.errors import InputError
from rsae.support.seeds import folded

if TYPE_CHECKING:
    from rsae.sae.base import SAE
    from rsae.sae.layout import Point

_SAME_SCALE = 1e-6  # the scales of joined activations are one


class Activations(Protocol):
    """Activations in splits, `train` and `heldout`, in the units that they come in."""

    @property
    def d_in(self) -> int:
        """Width of an activation."""
        ...

    @property
    def target(self) -> Activations | None:
        """What a transcoder is to predict of them, row by row in the same order; None where they are all there is."""
        ...

    @property
    def scale(self) -> float:
        """Factor that brings the training activations' mean norm to sqrt(D)."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Where they come from."""
        ...

    @property
    def identity(self) -> Any:
        """What tells them from other activations: a JSON-able key for what is made of them."""
        ...

    @property
    def name(self) -> str:
        """What to call them in messages."""
        ...

    def tokens(self, split: str = "train") -> int:
        """How many activations a split holds.

        Args:
            split: `train` or `heldout`.
        """
        ...

    def batch(self, step: int, size: int, seed: int) -> torch.Tensor:
        """Training batch x_BD: a pure function of its arguments, so that a run can resume.

        Args:
            step: Number of the batch.
            size: Rows of a batch.
            seed: Of the order.
        """
        ...

    def sample(self, rows: int, seed: int = 0, split: str = "train") -> torch.Tensor:
        """Random activations x_BD (all of them where there are fewer).

        Args:
            rows: How many.
            seed: Of the choice.
            split: `train` or `heldout`.
        """
        ...

    def blocks(self, split: str, rows: int = 4096) -> Iterator[torch.Tensor]:
        """All activations x_BD of a split in order, as float32.

        Args:
            split: `train` or `heldout`.
            rows: Largest number at a time.
        """
        ...


def check_fits(sae: SAE, activations: Activations, allow_mismatch: bool = False) -> None:
    """Compare an SAE with activations that it is to meet.

    Args:
        sae: The SAE.
        activations: The activations.
        allow_mismatch: Accept another model or hook point; never another width.

    Raises:
        InputError: The widths differ, host or hook point are known and differ, a transcoder finds no target, or a
            crosscoder activations that are not joined as its own were.
    """
    check_activations(activations)
    check_width(sae, activations.d_in, activations.name)
    target = activations.target
    if sae.transcodes and target is None:
        raise InputError(
            f"the SAE is a transcoder, and {activations.name} holds no target; harvest one with --target, or give "
            "Store.of(x, target=y)"
        )
    if sae.transcodes and target is not None and sae.d_out != target.d_in:
        raise InputError(
            f"the transcoder predicts {sae.d_out} dimensions, {target.name} has {target.d_in}; "
            "is it one of another hook point?"
        )
    check_match(sae.provenance, activations.provenance, "the SAE", activations.name, allow_mismatch)
    if not allow_mismatch:
        layout, write = sae.layout, activations if target is None else target
        _check_points(None if layout is None else layout.reads, activations)
        _check_points(None if layout is None else layout.writes, write)


def _check_points(told: tuple[Point, ...] | None, activations: Activations) -> None:
    """Raise `InputError` where joined activations are not of an SAE's points, each at its scale."""
    found: tuple[Point, ...] | None = getattr(activations, "points", None)
    if told is None and found is None:
        return
    if told is None or found is None:
        one, several = ("the SAE", activations.name) if told is None else (activations.name, "the SAE")
        raise InputError(
            f"{several} is of joined hook points, each times a scale, and {one} is of one as it is; give activations "
            "and SAE of the same kind (rsae.join(..., layout=sae.layout))"
        )
    if [(p.name, p.width) for p in told] != [(p.name, p.width) for p in found]:
        names = [" + ".join(point.name for point in points) for points in (told, found)]
        raise InputError(f"the SAE is of the hook points {names[0]}, {activations.name} of {names[1]}")
    if any(abs(p.scale - q.scale) > _SAME_SCALE * q.scale for p, q in zip(told, found, strict=True)):
        raise InputError(
            f"{activations.name} is joined at other scales than the SAE was trained on; "
            "give them: rsae.join(..., layout=sae.layout)"
        )


def check_activations(given: Any) -> None:
    """Raise `InputError` for what are no activations, such as an array or a path.

    Args:
        given: What stands for activations.
    """
    if not hasattr(given, "blocks"):
        raise InputError(
            f"a {type(given).__name__} is no activations: give rsae.Store.of(x), rsae.Store.open(path) or a stream"
        )


def check_one_point(sae: SAE) -> None:
    """Raise `InputError` for an SAE of joined hook points, which has no place of its own in the host.

    Args:
        sae: The SAE.
    """
    if sae.layout is not None:
        raise InputError(
            "the SAE belongs to several hook points, or to one at a scale: evals.by_point and "
            "evals.downstream_by_point measure it there"
        )


def check_width(sae: SAE, width: int, name: str) -> None:
    """Raise `InputError` where the SAE takes activations of another width, or its weights are not numbers.

    Args:
        sae: The SAE.
        width: Width of what it meets.
        name: What that is called in the message.
    """
    if not hasattr(sae, "W_enc"):
        raise InputError(f"a {type(sae).__name__} is no SAE: give a loaded one, rsae.load(path)")
    if sae.d_in != width:
        raise InputError(
            f"the SAE takes {sae.d_in} dimensions, {name} has {width}; is it an SAE of another host or hook point?"
        )
    check_finite(sae)


def check_finite(sae: SAE) -> None:
    """Raise `InputError` where a weight is not a number: every figure of such an SAE would be none.

    Args:
        sae: The SAE.
    """
    for key, tensor in sae.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"the SAE's {key} holds NaN or infinity; load it anew, or train it with a lower lr"
            )


def epoch_of(step: int, size: int, total: int, seed: int, name: str) -> tuple[int, int]:
    """Where a batch begins in its epoch's order, and the seed of that order.

    What is left of an epoch after its last whole batch is not used.

    Args:
        step: Number of the batch.
        size: Rows of a batch.
        total: Rows of an epoch.
        seed: Of all orders.
        name: What the activations are called in messages.

    Raises:
        InputError: A batch is larger than an epoch.
    """
    if size > total:
        raise InputError(f"batch {size} is larger than the {total} training tokens of {name}; lower `batch`")
    epoch, index = divmod(step, total // size)
    return index * size, folded(seed * 1_000_003 + epoch)
