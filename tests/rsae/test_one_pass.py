"""Several hook points and several SAEs in one pass over the host."""

from dataclasses import replace

import pytest
import torch

import rsae
from rsae import InputError, Stream, TrainConfig, training
from rsae.activations import harvest

HOOKS = ["blocks.1.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.2.hook_resid_pre"]
CONFIG = TrainConfig(steps=30, batch=64)


@pytest.fixture
def passes(monkeypatch):
    """The number of runs of the host, counted in batches of sequences."""
    counted = []
    real = harvest.activations_at_all
    monkeypatch.setattr(harvest, "activations_at_all", lambda *a: counted.append(a[1]) or real(*a))
    return counted


def several(harvest_config, host) -> Stream:
    return Stream(harvest_config, host, window=800, also=HOOKS[1:])


def test_a_stream_of_several_hook_points_runs_the_host_once(harvest_config, host, passes):
    one = Stream(harvest_config, host, window=800)
    one.batch(0, 64, 0)
    alone = len(passes)
    passes.clear()
    streams = several(harvest_config, host)
    assert [*streams.at] == HOOKS
    for source in streams.at.values():
        source.batch(0, 64, 0)
    assert len(passes) == alone
    assert all(len(points) == 3 for points in passes)


def test_its_rows_are_those_of_each_hook_point_alone(harvest_config, host):
    streams = several(harvest_config, host)
    for hook, source in streams.at.items():
        alone = Stream(replace(harvest_config, hook=hook), host, window=800)
        assert (source.d_in, source.provenance) == (alone.d_in, alone.provenance)
        assert source.scale == pytest.approx(alone.scale, rel=1e-6)
        for step in range(5):
            torch.testing.assert_close(source.batch(step, 64, 0), alone.batch(step, 64, 0))
        torch.testing.assert_close(source.sample(40), alone.sample(40))
        for mine, other in zip(source.blocks("heldout"), alone.blocks("heldout"), strict=True):
            torch.testing.assert_close(mine, other)
    identities = [str(source.identity) for source in streams.at.values()]
    assert len(set(identities)) == 3


def test_a_token_above_the_limit_at_one_point_is_left_out_at_all(harvest_config, host, monkeypatch):
    real = harvest.activations_at_all

    def with_outlier(host, points, tokens, mask):
        first, *others = real(host, points, tokens, mask)
        return [first, *(x.index_put((torch.tensor(0), torch.tensor(2)), 1000 * x[0, 2]) for x in others)]

    monkeypatch.setattr(harvest, "activations_at_all", with_outlier)
    streams = several(harvest_config, host)
    for mine in streams.at.values():
        assert sum(map(len, mine.blocks("heldout"))) < mine.tokens("heldout")
    limits = dict(zip(HOOKS, streams.limits, strict=True))
    for hook, source in streams.at.items():
        assert max(x.norm(dim=1).max() for x in source.blocks("heldout")) <= limits[hook]


def test_several_saes_at_several_hook_points_are_trained_in_one_pass(harvest_config, host, passes, tmp_path):
    """Each ends as on its own part of the stream, bit for bit; the host runs once for all of them."""
    streams = several(harvest_config, host)
    sources = [streams.at[HOOKS[0]], *[streams.at[HOOKS[1]]] * 2]
    saes = [rsae.new("top_k", s, d_sae=48, k=k) for s, k in zip(sources, (4, 4, 8), strict=True)]
    passes.clear()
    histories = rsae.train(saes, sources, [CONFIG] * 3)
    together = len(passes)
    for number, (source, k) in enumerate(zip(sources, (4, 4, 8), strict=True)):
        fresh = several(harvest_config, host).at[HOOKS[min(number, 1)]]
        sae = rsae.new("top_k", fresh, d_sae=48, k=k)
        passes.clear()
        assert rsae.train(sae, fresh, CONFIG) == histories[number]
        assert len(passes) == together
        assert all(
            torch.equal(a, b) for a, b in zip(sae.parameters(), saes[number].parameters(), strict=True)
        )
        assert saes[number].provenance.hook == source.provenance.hook == HOOKS[min(number, 1)]


class Stop:
    """Ends a training after its first checkpoint."""

    def begin(self, runs): ...

    def end(self): ...

    def log(self, step, figures):
        if step == 50:
            raise KeyboardInterrupt


def test_a_pass_over_several_stores_resumes_with_the_same_ones_only(
    harvest_config, host, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 25)
    stores = [*rsae.harvest_all(harvest_config, {h: tmp_path / h for h in HOOKS[:2]}, host).values()]
    config, checkpoint = [TrainConfig(steps=60, batch=64)] * 3, tmp_path / "checkpoint"

    def trained(order, *arguments, **options):
        sources = [stores[i] for i in order]
        saes = [rsae.new("top_k", source, d_sae=48, k=4) for source in sources]
        rsae.train(saes, sources, config, *arguments, **options)
        return [torch.cat([p.flatten() for p in sae.parameters()]) for sae in saes]

    whole = trained([0, 0, 1])
    for order, resumes in (([0, 1, 1], False), ([0, 0, 1], True)):
        with pytest.raises(KeyboardInterrupt):
            trained([0, 0, 1], checkpoint, monitors=[Stop()])
        capsys.readouterr()
        found = trained(order, checkpoint)
        assert ("continues after step 25" in capsys.readouterr().err) is resumes
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


def test_activations_are_counted(store):
    saes = [rsae.new("top_k", store, d_sae=48, k=4) for _ in range(2)]
    with pytest.raises(InputError, match="2 SAEs and 3 activations: give one for all, or one for each"):
        rsae.train(saes, [store] * 3, [CONFIG] * 2)


def test_a_hook_point_is_named_once(harvest_config, host):
    with pytest.raises(InputError, match="name each once"):
        Stream(harvest_config, host, also=[harvest_config.hook])
