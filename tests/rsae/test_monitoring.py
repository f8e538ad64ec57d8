from contextlib import suppress
from dataclasses import replace

import pytest

from rsae import InputError, Store, TrainConfig, train
from rsae.monitoring import TensorBoard, WandB, monitor_named
from tests.rsae.helpers import random_sae

CONFIG = TrainConfig(steps=60, batch=64, lr=3e-3)


class Listener:
    def __init__(self):
        self.runs, self.lines, self.ended = [], [], 0

    def begin(self, runs):
        self.runs = list(runs)

    def log(self, step, figures):
        self.lines.append((step, figures))

    def end(self):
        self.ended += 1


def test_a_monitor_hears_the_history_of_each_sae(store):
    listener = Listener()
    saes = [random_sae("top_k", store), random_sae("relu", store)]
    histories = train(saes, store, [CONFIG, replace(CONFIG, sparsity=0.1)], monitors=[listener])
    assert [run["family"] for run in listener.runs] == ["top_k", "relu"]
    assert listener.runs[1]["training"]["sparsity"] == 0.1
    assert [step for step, _ in listener.lines] == [25, 50, 60]
    for number, history in enumerate(histories):
        heard = [dict(figures[number]) for _, figures in listener.lines]
        assert all(0 <= line.pop("waiting") < 1 for line in heard)
        assert heard == history
    assert listener.ended == 1


def test_it_is_told_the_end_after_an_exception_too(store, monkeypatch):
    def batch(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "batch", batch)
    listener = Listener()
    with suppress(KeyboardInterrupt):
        train(random_sae("top_k", store), store, CONFIG, monitors=[listener])
    assert listener.ended == 1


def test_tensorboard(store, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = train(random_sae("top_k", store), store, CONFIG, monitors=[TensorBoard(tmp_path)])
    events = accumulator.EventAccumulator(str(tmp_path / "0-top_k"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/sse")] == [25, 50, 60]
    assert [e.value for e in events.Scalars("train/sse")] == pytest.approx([h["sse"] for h in history])


def test_weights_and_biases_offline(store, tmp_path):
    pytest.importorskip("wandb")
    train(random_sae("top_k", store), store, CONFIG, monitors=[WandB(tmp_path)])
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 0


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        monitor_named("tensorbord", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb is not installed; pip install 'rsae\[monitor\]'"):
        monitor_named("wandb", tmp_path)
