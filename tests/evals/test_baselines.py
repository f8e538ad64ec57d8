"""Baselines against plain renderings of them, and in the order that they must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import evals as library
import rsae
from evals.baselines import baselines, fine_tuned, untrained_twin
from evals.metrics.reconstruction import reconstruction
from evals.stand_ins import wrap
from rsae import InputError
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.rsae.helpers import random_sae


@pytest.fixture(scope="module")
def sae(store):
    sae = random_sae("jump_relu", store)
    rsae.train(sae, store, rsae.TrainConfig(steps=150, batch=256, lr=3e-3, l0=6.0))
    return sae


@pytest.fixture(scope="module")
def found(sae, store):
    return library.baselines(sae, store, steps=60)


def test_all_are_at_the_same_l0(sae, store, found):
    assert list(found) == ["random_decoder", "random_encoder", "shuffled", "pca", "neurons"]
    own = reconstruction(sae, store)
    assert found["shuffled"].l0 == pytest.approx(own.l0, rel=1e-9)
    for name in ("random_decoder", "random_encoder", "pca", "neurons"):
        assert found[name].l0 == pytest.approx(round(own.l0), abs=0.6), name


def test_the_shuffled_code_has_the_same_densities_and_no_meaning(sae, store, found):
    own = reconstruction(sae, store)
    assert found["shuffled"].density == own.density
    assert found["shuffled"].decoder_redundancy == own.decoder_redundancy
    assert found["shuffled"].fvu > 1 > own.fvu
    shuffled = wrap("shuffled", sae)
    assert shuffled is not None
    first = reconstruction(shuffled, store)
    assert reconstruction(shuffled, store) == first  # whatever was measured before


@pytest.mark.parametrize("name", ["pca", "neurons"])
def test_orthonormal_bases_are_their_definitions(store, found, sae, name):
    """Token by token, in numpy."""
    k = round(reconstruction(sae, store).l0)
    train = torch.cat(list(store.blocks("train"))).double().numpy()
    x = torch.cat(list(store.blocks("heldout"))).double().numpy()
    basis = (
        np.linalg.svd(train - train.mean(0), full_matrices=False)[2] if name == "pca" else np.eye(x.shape[1])
    )
    error = 0.0
    for row in x - train.mean(0):
        coordinates = basis @ row
        kept = np.argsort(-np.abs(coordinates))[:k]
        error += ((row - basis[kept].T @ coordinates[kept]) ** 2).sum()
    assert found[name].fvu == pytest.approx(error / ((x - x.mean(0)) ** 2).sum(), rel=1e-3)


@pytest.mark.parametrize(("name", "frozen"), [("random_decoder", "W_dec"), ("random_encoder", "W_enc")])
def test_what_is_random_stays_and_the_rest_is_trained(store, sae, name, frozen, monkeypatch):
    trained = []
    real = rsae.train

    def train(made, *rest):
        before = {key: value.clone() for key, value in made.state_dict().items()}
        real(made, *rest)
        trained.append((before, made.state_dict()))

    monkeypatch.setattr(rsae, "train", train)
    few, many = (baselines(sae, store, [name], steps=steps)[name] for steps in (1, 80))
    assert many.fvu < few.fvu
    before, after = trained[-1]
    other = {"W_dec": "W_enc", "W_enc": "W_dec"}[frozen]
    torch.testing.assert_close(after[frozen], before[frozen], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(after[other], before[other], rtol=1e-2)


def test_a_trained_sae_beats_them(store, sae, found):
    own = reconstruction(sae, store).fvu
    assert own < found["random_encoder"].fvu
    assert own < found["shuffled"].fvu


def test_the_control_is_that_of_an_upgrade(sae, store):
    """What `rsae.upgrade` fine-tunes beside a pursuit, weight for weight."""
    config = rsae.UpgradeConfig(
        "pursuit", tune=rsae.TrainConfig(steps=20, batch=64, lr=3e-4, sparsity_warmup=0.0, seed=2)
    )
    theirs = rsae.upgrade(sae, store, config=config).control
    assert theirs is not None
    tuned, history = fine_tuned(sae, store, 20, 2, config.tune)
    torch.testing.assert_close(tuned.W_dec, theirs.W_dec)
    torch.testing.assert_close(tuned.encoder_bias, theirs.encoder_bias)
    assert history
    found = baselines(sae, store, ["control", "omp"], steps=60)
    assert list(found) == ["control", "omp"]
    assert found["omp"].fvu < reconstruction(sae, store).fvu


def test_the_untrained_twin(sae, store, host):
    twin, again = untrained_twin(host, 1), untrained_twin(host, 1)
    for one, other, trained in zip(
        twin.model.parameters(), again.model.parameters(), host.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)
        assert one.shape == trained.shape
        assert one.ndim == 1 or not torch.equal(one, trained)
    ids = torch.tensor([[1, 2, 3]])
    assert not torch.allclose(twin.model(input_ids=ids).logits, host.model(input_ids=ids).logits)
    found = baselines(sae, store, ["untrained"], steps=10)["untrained"]
    assert found.tokens > 100
    assert found.l0 == pytest.approx(round(reconstruction(sae, store).l0), abs=0.6)
    with pytest.raises(InputError, match="harvested from a host"):
        baselines(sae, rsae.Store.of(store.sample(500)), ["untrained"])


def test_the_command(sae, store, tmp_path):
    rsae.save(sae, tmp_path / "sae")
    done = evals(
        "baselines", tmp_path / "sae", "--activations", store.path, "--only", "pca", "--only", "shuffled"
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "│" in line]
    assert [row[1] for row in rows] == ["sae", "shuffled", "pca"]
    assert f"{reconstruction(sae, store).fvu:.4f}" in rows[0]
    wrong = evals("baselines", tmp_path / "sae", "--activations", store.path, "--only", "pac")
    assert_one_clear_line(wrong, "'pac'", "did you mean 'pca'")
    with pytest.raises(InputError, match="choose from"):
        baselines(sae, store, ["xxxxx"])
