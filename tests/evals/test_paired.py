"""SAEs side by side against the measures of each, and intervals against resampling documents one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import evals as library
import rsae
from evals.firings import Texts
from evals.metrics.downstream import downstream
from evals.metrics.reconstruction import reconstruction
from evals.paired import compare_saes, shared_host
from evals.stats import Interval
from rsae import InputError
from rsae.activations.harvest import sequences_like
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.rsae.helpers import random_sae


@pytest.fixture(scope="module")
def saes(store):
    made = {str(seed): random_sae("top_k", store, seed=seed) for seed in (0, 1)}
    made["gated"] = random_sae("gated", store)
    for sae in made.values():
        sae.provenance = store.provenance
    return made


@pytest.fixture(scope="module")
def found(saes, store, host):
    return library.compare_saes(saes, store, host, tokens=150)


def test_each_has_its_own_figures(saes, store, host, found):
    sequences = sequences_like(store.provenance, host, "heldout", 150)
    for one in found.saes:
        own = reconstruction(saes[one.name], store)
        assert one.fvu == pytest.approx(own.fvu, rel=1e-6)
        assert (one.l0, one.alive) == pytest.approx((own.l0, own.alive))
        assert one.fvu_interval is not None
        assert one.fvu_interval.low < one.fvu < one.fvu_interval.high
        assert one.host is not None
        assert one.host.kl == pytest.approx(downstream(saes[one.name], host, sequences).kl, rel=1e-5)


def test_differences_are_paired(saes, store, found):
    """Against numpy, token by token, with documents drawn one by one."""
    x = torch.cat(list(store.blocks("heldout"))).double()
    document = Texts(store, "heldout").document_N
    variance = (x - x.mean(0)).square().sum(1).numpy()
    with torch.no_grad():
        error = {name: (sae(x.float()).double() - x).square().sum(1).numpy() for name, sae in saes.items()}
    rng = np.random.default_rng(0)
    names = np.unique(document)
    for change in found.changes:
        gap = error[change.name] - error["0"]
        assert change.fvu.mean == pytest.approx(gap.sum() / variance.sum(), rel=1e-4)
        rows = {d: np.flatnonzero(document == d) for d in names}
        means = []
        for _ in range(1500):
            drawn = np.concatenate([rows[d] for d in rng.choice(names, len(names))])
            means.append(gap[drawn].sum() / variance[drawn].sum())
        low, high = np.quantile(means, (0.025, 0.975))
        spread = high - low
        assert change.fvu.interval is not None
        assert abs(change.fvu.interval.low - low) < 0.15 * spread
        assert abs(change.fvu.interval.high - high) < 0.15 * spread
        one, first = (next(s for s in found.saes if s.name == n) for n in (change.name, "0"))
        assert change.l0.mean == pytest.approx(one.l0 - first.l0, abs=1e-6)
        assert one.host is not None
        assert first.host is not None
        assert change.kl is not None
        assert change.kl.mean == pytest.approx(one.host.kl - first.host.kl, abs=1e-6)


def test_an_sae_is_as_good_as_itself(saes, store):
    found = compare_saes({"a": saes["0"], "b": saes["0"]}, store)
    (change,) = found.changes
    assert (change.fvu.mean, change.fvu.interval) == (0, Interval(0, 0))
    assert change.kl is None


def test_activations_without_text(saes, store):
    rows = rsae.Store.of(torch.cat(list(store.blocks("heldout"))), heldout=150)
    found = compare_saes(saes, rows)
    assert found.groups == "30 blocks of 5 rows"
    assert found.tokens == 150
    assert compare_saes(saes, rows, rows_together=7).groups == "22 blocks of 7 rows"
    with pytest.raises(InputError, match="at least 1"):
        compare_saes(saes, rows, rows_together=0)
    with pytest.raises(InputError, match="documents are"):
        compare_saes(saes, store, rows_together=7)


def test_intervals_cover_the_truth_where_neighbours_depend_on_each_other():
    """Rows of one sample share its mean and its size; of 95 % intervals far fewer held with a group for each row."""
    d, run = 8, 25

    def rows(seed, samples):
        g = torch.Generator().manual_seed(seed)
        size = torch.exp(0.7 * torch.randn(samples, 1, generator=g)).repeat_interleave(run, 0)
        mean = torch.randn(samples, d, generator=g).repeat_interleave(run, 0)
        return (mean + 0.5 * torch.randn(samples * run, d, generator=g)) * size

    many = rows(0, 4000)
    sae = rsae.new("top_k", rsae.Store.of(many[:2000]), d_sae=16, k=4)
    truth = reconstruction(sae, many).fvu

    def covers(seed, **rest):
        held = rows(seed, 120)
        found = compare_saes(
            {"a": sae, "b": sae}, rsae.Store.of([many[:50], held], heldout=len(held)), **rest
        )
        interval = found.saes[0].fvu_interval
        assert interval is not None
        return interval.low <= truth <= interval.high

    assert np.mean([covers(seed) for seed in range(1, 41)]) > 0.8
    assert np.mean([covers(seed, rows_together=run) for seed in range(1, 41)]) > 0.8
    assert np.mean([covers(seed, rows_together=1) for seed in range(1, 41)]) < 0.6


def test_the_command(saes, store, tmp_path):
    for name in ("0", "gated"):
        rsae.save(saes[name], tmp_path / name)
    names = (tmp_path / "0", tmp_path / "gated")
    done = evals("compare", *names, "--activations", store.path, "--tokens", "100", "--markdown")
    assert done.returncode == 0, done.stderr
    assert f"{reconstruction(saes['gated'], store).fvu:.4f} [" in done.stdout
    assert f"{names[1]} - {names[0]}" in done.stdout
    assert "| KL |" in done.stdout
    done = evals("compare", *names, "--activations", store.path, "--host", "none", "--json", tmp_path / "j")
    assert done.returncode == 0, done.stderr
    assert "KL" not in done.stdout
    assert (tmp_path / "j").exists()
    assert_one_clear_line(evals("compare", names[0], "--activations", store.path), "two SAEs at least")
    assert_one_clear_line(evals("compare", names[0], names[0], "--activations", store.path), "named twice")


def test_an_sae_of_another_width_is_refused(saes, store):
    with pytest.raises(InputError, match="dimensions"):
        compare_saes({"a": saes["0"], "b": random_sae("top_k")}, store)


def test_a_text_with_fewer_tokens_is_taken_whole(saes, store, host, capsys):
    """But for training, whose tokens have to be those of the activations."""
    found = library.compare_saes(saes, store, host, tokens=10**6)
    whole = sequences_like(store.provenance, host, "heldout", 10**6)
    told = capsys.readouterr().err
    assert (
        f"holds {sum(len(ids) - 1 for ids in whole)} tokens for this split, not 1000000: all are taken"
        in told
    )
    with pytest.raises(InputError, match="1000000 are asked for"):
        sequences_like(store.provenance, host, "train", 10**6)
    assert all(one.host is not None for one in found.saes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_host_is_the_one_that_made_the_activations(harvest_config, tmp_path, dtype):
    store = rsae.harvest(replace(harvest_config, host_dtype=dtype, tokens=500), tmp_path / "store")
    host = shared_host(None, store)
    assert host is not None
    assert host.model.dtype == getattr(torch, dtype)
