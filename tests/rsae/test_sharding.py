"""A dictionary in parts: four processes hold the same, train the same and save the same as one."""

import importlib
import json
import multiprocessing
import socket

import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from rsae import load
from rsae.sae.fingerprint import _bytes
from rsae.sae.shard import Shard, latent_dimension
from tests.rsae import sharded_worker as worker

# Python 3.12 warns of what can go wrong where a thread holds a lock: none does here
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


#: A process that has used a GPU cannot be forked
CONTEXT = (
    multiprocessing.get_context("spawn") if torch.cuda.is_available() else multiprocessing.get_context("fork")
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def made(alone, tmp_path_factory):
    """What four processes made. Forked, after `alone` has imported all, they save the time for that."""
    importlib.import_module("torch.distributed.tensor")
    importlib.import_module("torch.distributed.checkpoint.hf_storage")
    out = tmp_path_factory.mktemp("sharded")
    start_processes(
        worker.main, (out, free_port()), worker.PROCESSES, start_method=CONTEXT.get_start_method()
    )
    return out


@pytest.fixture(scope="module")
def alone():
    """What one process makes of the same."""
    return {name: worker.trained(name, False) for name in worker.CASES}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(
            found[key], value, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize(
    ("name", "parts"), [(name, 4) for name in worker.CASES] + [(name, 2) for name in worker.TWO]
)
def test_weights_and_history_are_those_of_one_process(made, alone, name, parts):
    sae, history = alone[name]
    assert max(line["dead"] for line in history) > 0  # the loss that revives has been at work
    same(load(made / f"{name}-{parts}").state_dict(), sae.state_dict())
    found = json.loads((made / f"{name}-{parts}.json").read_text())
    for line, wanted in zip(found, history, strict=True):
        assert line == pytest.approx(wanted, rel=1e-3)


def test_a_stopped_run_goes_on_in_another_number_of_parts(made, alone):
    same(load(made / "resumed").state_dict(), alone["batch_top_k"][0].state_dict())
    assert not list(made.glob("checkpoint*"))  # finished
    assert not list(made.glob("**/.*.tmp"))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("matryoshka", "'matryoshka_batch_top_k' cannot be sharded"),
        ("transcoder", "a transcoder cannot be sharded"),
        ("few", "d_sae 5 is too small for 4 shards"),
        ("k", "k=9 is more than the 7 latents of the smallest of 4 shards"),
        ("processes", "3 shards do not fit 4 processes"),
        ("whole", "give them the parts"),
        ("objective", "leave --shard out"),
    ],
)
def test_what_cannot_be_sharded_is_refused(made, case, words):
    assert words in json.loads((made / "told.json").read_text())[case]


@pytest.mark.parametrize("end", ["killed", "hangs"])
def test_a_process_that_is_lost_ends_the_run_and_the_same_call_continues(alone, end, tmp_path, monkeypatch):
    """It is lost in its 13th step; the other one ends by itself, with a line that says what to do."""
    monkeypatch.setenv("RSAE_TIMEOUT", "60" if end == "killed" else "2")
    port = free_port()
    two = [CONTEXT.Process(target=worker.lost, args=(rank, tmp_path, port, end)) for rank in range(2)]
    for process in two:
        process.start()
    two[0].join(60)
    assert two[0].exitcode == 0
    two[1].kill()
    two[1].join()
    told = (tmp_path / "told").read_text()
    assert "another process of this run ended, or did not answer" in told
    assert ".cc:" not in told
    assert "continues from the last checkpoint" in told
    again = CONTEXT.Process(target=worker.continued, args=(tmp_path,))
    again.start()
    again.join(60)
    assert json.loads((tmp_path / "steps").read_text()) == list(range(10, worker.CONFIG.steps))
    same(load(tmp_path / "sae").state_dict(), alone["top_k"][0].state_dict())


def test_a_process_that_hangs_is_noticed_along_every_dimension(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RSAE_TIMEOUT", "2")
    port = free_port()
    four = [CONTEXT.Process(target=worker.waiting, args=(rank, tmp_path, port)) for rank in range(4)]
    for process in four:
        process.start()
    for process in four[:3]:
        process.join(50)
        assert process.exitcode == 0
    four[3].kill()
    assert len(list(tmp_path.glob("told-*"))) == 3


@pytest.mark.parametrize("shape", [(37,), (1, 37), (2, 37), (16, 37), (37, 16), (37, 1)])
def test_the_fingerprint_of_parts_is_that_of_the_whole(shape):
    """Whatever the strides of a tensor are: of a dimension of size 1 they may be anything."""
    name = "W_enc" if shape[0] == 16 else "W_dec" if shape[-1] in (16, 1) and len(shape) == 2 else "threshold"
    value = torch.randn(shape)
    dim = latent_dimension(name, value)
    assert dim is not None

    def of(part: torch.Tensor, first: int) -> list[int]:
        shard = object.__new__(Shard)
        object.__setattr__(shard, "first", first)
        return _bytes(name, part, shard)

    whole = of(value, 0)
    left, right = value.narrow(dim, 0, 20), value.narrow(dim, 20, value.shape[dim] - 20)
    assert [a + b for a, b in zip(of(left, 0), of(right, 20), strict=True)] == whole
    assert of(value.flip(dim), 0) != whole
