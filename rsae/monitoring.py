"""What a training says while it runs, for whoever listens: nobody by default.

A `Monitor` is anything with the three methods below. TensorBoard and Weights & Biases are two (`pip install
'rsae[monitor]'`).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from rsae.support.errors import InputError, did_you_mean

Mode = Literal["offline", "online", "disabled"]


class Monitor(Protocol):
    """Listens to a training, in its first process."""

    def begin(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Before the first step.

        Args:
            runs: Of each SAE: `family`, its settings, and `training`, the fields of its TrainConfig.
        """
        ...

    def log(self, step: int, figures: Sequence[Mapping[str, float]]) -> None:
        """Every `rsae.training.LOG_EVERY` steps.

        Args:
            step: Steps that are done.
            figures: Of each SAE: the newest line of its history, and `waiting`, the share of the time since the last
                call in which training waited for activations.
        """
        ...

    def end(self) -> None:
        """After the last step, and after an exception."""
        ...


class TensorBoard:
    """Writes event files for TensorBoard, a run for each SAE.

    Args:
        directory: Where to.

    Raises:
        InputError: `tensorboard` is not installed.
    """

    def __init__(self, directory: str | os.PathLike):
        _needed("tensorboard")
        self.directory = Path(directory)

    def begin(self, runs: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writers = [SummaryWriter(str(self.directory / _name(n, run))) for n, run in enumerate(runs)]
        for writer, run in zip(self.writers, runs, strict=True):
            writer.add_text("settings", f"`{dict(run)}`")

    def log(self, step: int, figures: Sequence[Mapping[str, float]]) -> None:
        for writer, line in zip(self.writers, figures, strict=True):
            for name, value in line.items():
                writer.add_scalar(f"train/{name}", value, step)

    def end(self) -> None:
        for writer in self.writers:
            writer.close()


class WandB:
    """Logs to Weights & Biases, a run for each SAE: by default offline, into files that `wandb sync` sends.

    Args:
        directory: Where its files lie.
        project: Its name there.
        mode: `offline`, `online` or `disabled`.

    Raises:
        InputError: `wandb` is not installed.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        project: str = "rsae",
        mode: Mode = "offline",
    ):
        _needed("wandb")
        self.directory, self.project = Path(directory), project
        self.mode: Mode = mode

    def begin(self, runs: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        self.directory.mkdir(parents=True, exist_ok=True)
        self.runs = [
            wandb.init(
                project=self.project,
                name=_name(n, run),
                config=dict(run),
                dir=str(self.directory),
                mode=self.mode,
                reinit="create_new",
            )
            for n, run in enumerate(runs)
        ]

    def log(self, step: int, figures: Sequence[Mapping[str, float]]) -> None:
        for run, line in zip(self.runs, figures, strict=True):
            run.log(dict(line), step=step)

    def end(self) -> None:
        for run in self.runs:
            run.finish()


#: Monitors by the name that the command line has for them
MONITORS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}


def monitor_named(name: str, directory: Path) -> Monitor:
    """A monitor by its name.

    Args:
        name: `tensorboard` or `wandb`.
        directory: Where it writes.

    Raises:
        InputError: The name is unknown, or its package is not installed.
    """
    if name not in MONITORS:
        raise InputError(f"monitor {name!r} is unknown{did_you_mean(name, MONITORS)}")
    return MONITORS[name](directory)


def _name(number: int, run: Mapping[str, Any]) -> str:
    return f"{number}-{run['family']}"


def _needed(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError:
        raise InputError(f"{package} is not installed; pip install 'rsae[monitor]'") from None
