"""Where the units of a suite run: in processes of this machine, or on a cluster by joblib's own backends."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import process_executor
from tqdm import tqdm

from rsae import InputError
from rsae.support import progress
from rsae.support.errors import did_you_mean

#: The package that each backend needs
PACKAGES = {"loky": "joblib", "dask": "distributed", "ray": "ray"}
#: How long a scheduler may take to answer, and its first worker to come (from a queue, it may be), in seconds
ANSWER, ARRIVAL = 30.0, 1800.0


@dataclass(frozen=True)
class Workers:
    """Who runs units."""

    jobs: int = 1
    """Number of processes of this machine."""
    backend: str = "loky"
    """`loky` for processes of this machine; `dask` or `ray` for a cluster's workers."""
    address: str | None = None
    """The cluster's; None for the one that DASK_SCHEDULER_ADDRESS or RAY_ADDRESS names."""

    def check(self) -> None:
        """Raise `InputError` for settings that contradict each other, a package or an address that is missing."""
        if self.backend not in PACKAGES:
            raise InputError(f"backend {self.backend!r} is unknown{did_you_mean(self.backend, PACKAGES)}")
        if not self.remote and self.address is not None:
            raise InputError(
                f"address {self.address}: only a cluster has one; give --backend dask or ray, too"
            )
        if self.remote and self.jobs != 1:
            raise InputError(
                f"jobs {self.jobs}: a cluster runs as many units as it has threads; leave --jobs out"
            )
        if importlib.util.find_spec(PACKAGES[self.backend]) is None:
            raise InputError(
                f"backend {self.backend!r} needs the package {PACKAGES[self.backend]}: pip install "
                f"'rsae[{self.backend}]', here and where the workers run"
            )
        if self.backend == "dask":
            _scheduler(self.address)

    @property
    def remote(self) -> bool:
        """Whether they may run on other machines."""
        return self.backend != "loky"

    def run(self, function: Callable[..., Any], items: Sequence[tuple], description: str) -> list[Any]:
        """Call a function with each item's arguments.

        Args:
            function: Of a module, since it is found by its name where it runs.
            items: The arguments.
            description: The progress bar's text; for a cluster, whose own output is elsewhere.

        Returns:
            What the calls returned, in the items' order.

        Raises:
            InputError: There is no cluster, no worker came, or the cluster gave up; a process was killed.
        """
        if not items:
            return []
        calls = [delayed(_alone)(function, item, self.jobs > 1) for item in items]
        if not self.remote:
            try:
                return Parallel(n_jobs=self.jobs)(calls)  # type: ignore[return-value]
            except process_executor.TerminatedWorkerError as error:
                raise InputError(
                    f"{description}: one of {self.jobs} processes was killed, as happens where memory is short. "
                    "What is finished is kept: run the command again, with fewer --jobs where it happens again"
                ) from error
        with (
            _CLUSTERS[self.backend](self.address) as options,
            parallel_config(**options, n_jobs=-1),
            progress.progress(len(items), description, "unit") as bar,
        ):
            return _told(bar)(batch_size=1, pre_dispatch="all")(calls)  # type: ignore[arg-type]


def _told(bar: tqdm) -> type[Parallel]:
    """joblib's loop, which moves a bar; Ray's backend gives its results at the end only."""

    class Told(Parallel):
        def print_progress(self) -> None:
            bar.update(self.n_completed_tasks - bar.n)

    return Told


def check_shared(file: Path) -> None:
    """Raise `InputError` where a worker does not see a file of the run.

    Args:
        file: One that is there before any worker begins.
    """
    if not file.exists():
        raise InputError(
            f"{socket.gethostname()} does not see {file}: the directory of a run must be common to all workers"
        )


def _alone(function: Callable[..., Any], arguments: tuple, crowded: bool) -> Any:
    """The call, with joblib's loops within it (scikit-learn's) where it runs: they are no units of the cluster."""
    progress.crowded = crowded
    process_executor._MAX_MEMORY_LEAK_SIZE = (
        sys.maxsize
    )  # it would end a process that keeps a host for its next unit
    with parallel_config("sequential"):
        return function(*arguments)


def _scheduler(address: str | None) -> str:
    """Where dask's scheduler is."""
    import dask.config

    address = address or dask.config.get("scheduler-address", None)
    if address is None:
        raise InputError(
            "backend 'dask': name the scheduler, as --address tcp://HOST:8786 or in DASK_SCHEDULER_ADDRESS; "
            "`dask scheduler` starts one"
        )
    return address


@contextmanager
def _dask(address: str | None) -> Iterator[dict[str, Any]]:
    """How joblib uses a running dask cluster."""
    from distributed import Client, KilledWorker
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))  # for one, joblib would run everything here

    address = _scheduler(address)
    try:
        client = Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no dask scheduler answers at {address} ({error})") from error
    with client:
        if not client.ncores():
            progress.say(f"{address}: waiting for the first worker")
        try:
            client.submit(socket.gethostname, pure=False).result(timeout=ARRIVAL)
        except TimeoutError as error:
            raise InputError(
                f"{address}: no worker came in {ARRIVAL:g} s; `dask worker {address}` starts one"
            ) from error
        try:
            yield {"backend": Backend(client=client)}
        except KilledWorker as error:
            raise InputError(
                f"the worker of a unit ended each time that it was tried (at last {error.last_worker.address}); look "
                "for its memory limit (dask worker --memory-limit). What is finished is kept: run the command again"
            ) from error


@contextmanager
def _ray(address: str | None) -> Iterator[dict[str, Any]]:
    """How joblib uses a running Ray cluster."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]

    try:
        ray.init(
            address=address or "auto", log_to_driver=False
        )  # "auto" is RAY_ADDRESS, or this machine's own
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address or 'this machine, and RAY_ADDRESS names none'} ({error}); "
            "`ray start --head` starts one"
        ) from error
    try:
        register_ray()
        yield {"backend": "ray"}
    finally:
        ray.shutdown()


_CLUSTERS = {"dask": _dask, "ray": _ray}
