"""One's own activations: tensors, arrays and files, of anything."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import evals
import rsae
from evals.cli import main as evals_main
from rsae import InputError, Store, TrainConfig
from rsae.activations.open import open_activations
from rsae.cli import main
from tests.command import assert_one_clear_line, run_command


def rows(n=400, d=9, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.mark.parametrize(
    "given", ["tensor", "array", "npy", "pt", "safetensors", "list", "directory", "float64"]
)
def test_all_forms_are_the_same_rows(given, tmp_path):
    x = rows()
    np.save(tmp_path / "a.npy", x[:150].numpy())
    np.save(tmp_path / "b.npy", x[150:].numpy())
    source = {
        "tensor": lambda: x,
        "array": lambda: x.numpy(),
        "float64": lambda: x.double(),
        "list": lambda: [tmp_path / "a.npy", x[150:]],
        "directory": lambda: tmp_path,
        "npy": lambda: (
            np.save(tmp_path / "c" if (tmp_path / "c").mkdir() else tmp_path / "c" / "x.npy", x)
            or tmp_path / "c" / "x.npy"
        ),
        "pt": lambda: torch.save(x, tmp_path / "x.pt") or tmp_path / "x.pt",
        "safetensors": lambda: save_file({"x": x}, tmp_path / "x.safetensors") or tmp_path / "x.safetensors",
    }[given]()
    own = Store.of(source, heldout=0.25)
    assert own.tokens() == 300
    assert own.tokens("heldout") == 100
    assert own.d_in == 9
    torch.testing.assert_close(torch.cat([*own.blocks("train"), *own.blocks("heldout")]), x)
    assert x[:300].norm(dim=1).mean().item() * own.scale == pytest.approx(3.0)


@given(
    n=st.integers(8, 300),
    share=st.sampled_from([0.0, 0.2, 7, 1]),
    window=st.sampled_from([0, 40]),
    cut=st.integers(1, 7),
)
@settings(max_examples=30, deadline=None)
def test_an_epoch_gives_every_training_row_once(n, share, window, cut):
    x = torch.arange(n, dtype=torch.float32)[:, None].repeat(1, 2) + 1
    own = Store.of([x[:cut], x[cut:]], heldout=share, window=window)
    total = own.tokens()
    seen = torch.cat([own.batch(i, 1, seed=3) for i in range(total)])[:, 0]
    assert torch.equal(seen.sort().values, x[:total, 0])
    assert torch.equal(own.batch(total, 1, seed=3), own.batch(total, 1, seed=3))


def test_an_sae_of_vectors_that_no_language_model_gave(tmp_path):
    """Train, upgrade, evaluate, save: no host anywhere."""
    own = Store.of(rows(2000, 16), heldout=200)
    sae = rsae.new("top_k", own, d_sae=40, k=5)
    rsae.train(sae, own, TrainConfig(steps=60, batch=64, lr=3e-3))
    assert sae.provenance == rsae.Provenance(rows=2000, heldout_rows=200)
    new = rsae.upgrade(sae, own, type=(3, 2), config=rsae.UpgradeConfig(tune=TrainConfig(steps=10, batch=64)))
    rsae.save(new.tuned, tmp_path / "sae")
    x = own.sample(100, split="heldout")
    assert torch.equal(rsae.load(tmp_path / "sae")(x), new.tuned(x))
    with pytest.raises(InputError, match="needs a text"):
        own.provenance.known("text", "held-out text")


def test_a_killed_training_resumes(tmp_path, monkeypatch):
    own = Store.of(rows(2000, 16))
    config = TrainConfig(steps=150, batch=64, lr=3e-3)
    whole, torn = (rsae.new("relu", own, d_sae=40) for _ in range(2))
    rsae.train(whole, own, config)
    real = type(own).batch

    def dying(self, step, size, seed):
        if step == 120:
            raise KeyboardInterrupt
        return real(self, step, size, seed)

    with monkeypatch.context() as patch:
        patch.setattr(type(own), "batch", dying)
        with pytest.raises(KeyboardInterrupt):
            rsae.train(torn, own, config, tmp_path / "c")
    rsae.train(torn, Store.of(rows(2000, 16)), config, tmp_path / "c")
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in torn.state_dict().items())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda p: torch.randn(5), "activations are rows"),
        (lambda p: torch.zeros(50, 3), "all zero"),
        (lambda p: torch.full((50, 3), float("nan")), "row 0 holds NaN"),
        (lambda p: [torch.randn(5, 3), torch.randn(5, 4)], "differ in width"),
        (lambda p: [], "the list or directory is empty"),
        (lambda p: p / "none.npy", "no such file"),
        (lambda p: p, "no activations in it"),
        (lambda p: (p / "x.csv").write_text("1,2") and p / "x.csv", "not from this kind of file"),
        (lambda p: (p / "x.npy").write_bytes(b"half") and p / "x.npy", "x.npy: not a whole"),
        (lambda p: torch.save({"a": [1]}, p / "x.pt") or p / "x.pt", "'a' is no tensor"),
        (lambda p: torch.randn(5, 3, dtype=torch.complex64), "real numbers"),
        (lambda p: torch.eye(3).to_sparse(), "to_dense"),
        (lambda p: np.ones((5, 3), dtype=object), "the given array: holds object"),
        (lambda p: [[1.0, 2.0], [3.0, 4.0]], "a float is no activations"),
        (lambda p: {"x": torch.eye(3)}, "a dict is no activations"),
        (lambda p: None, "a NoneType is no activations"),
        (lambda p: save_file({"x": rows(), "y": rows()}, p / "x.safetensors") or p, r"2 tensors \(x, y\)"),
        (lambda p: torch.save({"x": rows(), "y": rows()}, p / "x.pt") or p, r"2 tensors \(x, y\)"),
        (lambda p: torch.save({}, p / "x.pt") or p, "holds 0 tensors"),
    ],
)
def test_what_is_no_activations_is_one_clear_line(source, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Store.of(source(tmp_path))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-1],
        lambda x: x[:, ::-2],
        lambda x: x.astype(">f4"),
        lambda x: x.astype(">f8"),
        lambda x: (10 * x).astype("u2"),
        lambda x: x > 0,
        lambda x: (
            np.rec.fromarrays([x[:, 0], x.astype("f8")[:, 0]]).view(np.ndarray)["f0"][:, None] * [[1.0, 2.0]]
        ),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: np.frombuffer(b"b" + x.tobytes(), dtype="f4", offset=1).reshape(x.shape),
    ],
)
def test_any_view_of_an_array_is_its_rows(view, tmp_path):
    array = view(rows().numpy())
    np.save(tmp_path / "x.npy", array)
    for source in (array, tmp_path / "x.npy"):
        own = Store.of(source, heldout=9)
        both = torch.cat([*own.blocks("train"), *own.blocks("heldout")])
        np.testing.assert_array_equal(both.numpy(), array.astype("f4"))


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=12, unique=True),
    st.sampled_from(["{}", "x-{}", "{}-of-9"]),
)
@settings(max_examples=25, deadline=None)
def test_the_rows_held_out_are_those_of_the_last_files(numbers, name):
    with tempfile.TemporaryDirectory() as directory:
        for number in numbers:
            np.save(Path(directory, name.format(number) + ".npy"), np.full((4, 2), number + 1.0))
        own = Store.of(directory, heldout=4)
        assert own.sample(4, split="heldout")[:, 0].tolist() == [max(numbers) + 1.0] * 4


@pytest.mark.parametrize("heldout", [-1, 100, 1000, 2.5, -0.1])
def test_a_heldout_part_that_cannot_be(heldout):
    with pytest.raises(InputError, match="heldout"):
        Store.of(rows(100), heldout=heldout)


@given(st.permutations(range(8)), st.booleans())
@settings(max_examples=30, deadline=None)
def test_rows_in_another_order_are_other_activations(order, turned):
    """Sums over all rows are the same, or stay the same for activations around zero."""
    x = torch.tensor([[1.0, -1.0], [2.0, -2.0]] * 4)
    other = x[list(order)] * (-1 if turned else 1)
    own, others = (Store.of(y, heldout=2).identity for y in (x, other))
    assert (own == others) == torch.equal(x, other)


def test_nothing_is_unpickled(tmp_path):
    import pickle

    (tmp_path / "x.pt").write_bytes(pickle.dumps(print))
    np.save(tmp_path / "y.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("x.pt", "y.npy"):
        with pytest.raises(InputError, match=name):
            Store.of(tmp_path / name)


def test_what_an_sae_was_trained_on_is_not_taken_for_held_out(tmp_path):
    x = rows(600, 16)
    path, most = tmp_path / "own.npy", Store.of(x, heldout=6)
    np.save(path, x.numpy())
    sae = rsae.new("top_k", most, d_sae=40, k=5)
    rsae.save(sae, tmp_path / "sae")
    saved = rsae.load(tmp_path / "sae")
    assert (saved.provenance.rows, saved.provenance.heldout_rows) == (600, 6)
    for use in (evals.reconstruction, lambda s, a: rsae.train(s, a, TrainConfig(steps=1, batch=8))):
        with pytest.raises(InputError, match=r"with 6 of 600 rows held out.*heldout=6 \(--heldout\)"):
            use(saved, Store.of(x))
    assert evals.reconstruction(saved, Store.of(x, heldout=6)).tokens == 6
    assert evals.reconstruction(saved, Store.of(x), allow_mismatch=True).tokens == 60
    assert evals.reconstruction(saved, Store.of(x[:500])).tokens == 50  # other rows
    assert evals.reconstruction(saved, x[:300]).tokens == 300  # all of what is given
    # the commands hold out what was held out
    assert open_activations(path, like=saved.provenance).tokens("heldout") == 6
    assert open_activations(path).tokens("heldout") == 60
    rsae.save(sae, tmp_path / "other")
    done = run_command(evals_main, "compare", tmp_path / "sae", tmp_path / "other", "--activations", path)
    assert done.returncode == 0, done.stderr
    assert "on 6 held-out" in done.stdout
    wrong = run_command(main, "upgrade", tmp_path / "sae", "--activations", path, "--out", tmp_path / "up")
    assert_one_clear_line(wrong, "--heldout")
