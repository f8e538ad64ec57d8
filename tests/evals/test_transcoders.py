"""Transcoders in evals: their target is what is measured, spliced and compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import evals
import rsae
from evals.config import SuiteConfig
from evals.suite import run
from rsae import InputError, TrainConfig

IN, OUT = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def pairs(harvest_config, host, tmp_path_factory):
    config = replace(harvest_config, hook=IN, target=OUT)
    return rsae.harvest(config, tmp_path_factory.mktemp("pairs"), host)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "skip"])
def transcoder(request, pairs):
    sae = rsae.new("top_k", pairs, d_sae=48, k=4, skip=request.param)
    rsae.train(sae, pairs, TrainConfig(steps=20, batch=64))
    return sae


@torch.no_grad()
def test_reconstruction_is_of_the_target(transcoder, pairs):
    x = torch.cat([*pairs.blocks("heldout")])
    y = torch.cat([*pairs.target.blocks("heldout")])
    got = evals.reconstruction(transcoder, pairs, rows=50)
    want = (transcoder(x) - y).double().square().sum() / (y - y.mean(0)).double().square().sum()
    assert got.fvu == pytest.approx(want.item(), rel=1e-4)
    assert got.l0 == 4


def test_the_prediction_takes_the_place_of_the_target(transcoder, host):
    """Against the host's own forward pass with the MLP's output replaced by hand."""
    tokens = [[1, 5, 9, 30, 2, 7], [4, 4, 8, 60, 3, 11]]
    got = evals.downstream(transcoder, host, tokens, norm_limit=float("inf"))
    ids = torch.tensor(tokens)

    def by_hand(module, args, output):
        return torch.cat([output[:, :1], transcoder(args[0])[:, 1:]], 1)

    with torch.no_grad():
        clean = host.model(input_ids=ids).logits.log_softmax(-1)[:, 1:-1]
        handle = host.blocks[1].mlp.register_forward_hook(by_hand)
        try:
            now = host.model(input_ids=ids).logits.log_softmax(-1)[:, 1:-1]
        finally:
            handle.remove()
    kl = (clean.exp() * (clean - now)).sum(-1).mean().item()
    assert got.kl == pytest.approx(kl, rel=1e-3, abs=1e-6)
    assert got.predictions == 8


@pytest.mark.parametrize(
    "hook", ["blocks.1.attn.hook_z[1]", "blocks.0.attn.hook_q[0]", "blocks.1.hook_resid_mid"]
)
def test_an_sae_of_any_point_is_measured_where_it_was_trained(hook, harvest_config, host, tmp_path):
    """A single head has a name of its own; a wrong head is told."""
    store = rsae.harvest(replace(harvest_config, hook=hook), tmp_path, host)
    sae = rsae.new("top_k", store, d_sae=24, k=3)
    tokens = [[1, 5, 9, 30, 2, 7], [4, 4, 8, 60, 3, 11]]
    got = evals.downstream(sae, host, tokens)
    assert got.kl > 0
    assert evals.downstream(sae, host, tokens, hook=hook).kl == got.kl
    if "[" in hook:
        other = hook.replace("[1]", "[2]").replace("[0]", "[1]")
        with pytest.raises(InputError, match="belongs to head"):
            evals.downstream(sae, host, tokens, hook=other)


def test_tokens_whose_target_was_left_out_keep_theirs(harvest_config, host, tmp_path):
    """In the host's loss, as an objective, and attached: as in the harvest."""
    config = replace(harvest_config, hook=IN, target=OUT, norm_limit=1.2)
    store = rsae.harvest(config, tmp_path, host)
    sae = rsae.new("top_k", store, d_sae=24, k=3)
    limit, target_limit = store.provenance.norm_limit, store.provenance.target_norm_limit
    assert limit is not None
    assert target_limit is not None
    assert rsae.Stream(config, host, window=300).provenance.target_norm_limit == pytest.approx(target_limit)
    ids = torch.arange(1, 25)[None]
    kept = []
    with torch.no_grad(), rsae.attached(host, sae, error=False) as inside:
        handle = host.blocks[1].mlp.register_forward_hook(lambda *args: kept.append(args[-1]))
        host.model(input_ids=ids)
        handle.remove()
    x, y = inside.input, host.blocks[1].mlp(inside.input)
    assert x is not None
    out = (x.norm(dim=-1) > limit) | (y.norm(dim=-1) > target_limit)
    assert ((y.norm(dim=-1) > target_limit) & (x.norm(dim=-1) <= limit)).any()
    out[:, 0] = True
    assert torch.equal((kept[0] == y).all(-1), out)
    got = evals.downstream(sae, host, ids.tolist())

    def by_hand(module, args, output):
        return torch.where(out[..., None], output, sae(args[0]))

    with torch.no_grad():
        clean = host.model(input_ids=ids).logits.log_softmax(-1)[:, 1:-1]
        handle = host.blocks[1].mlp.register_forward_hook(by_hand)
        now = host.model(input_ids=ids).logits.log_softmax(-1)[:, 1:-1]
        handle.remove()
    assert got.kl == pytest.approx((clean.exp() * (clean - now)).sum(-1).mean().item(), rel=1e-3, abs=1e-7)


def test_others_are_refused(transcoder, pairs, host):
    sae = rsae.new("top_k", rsae.Store.of(pairs.sample(500)), d_sae=48, k=4)
    sae.provenance = replace(transcoder.provenance, target=None)
    with pytest.raises(InputError, match="predict the same hook point"):
        evals.downstream({"a": transcoder, "b": sae}, host, [[1, 2, 3, 4]])


SUITE = """
[[sites]]
host = "{host}"
hooks = ["{IN}"]
targets = ["{OUT}"]

[[sites]]
host = "{host}"
hooks = ["{IN}"]
targets = ["{OUT}"]
skip = true

[harvest]
text = "{text}"
context = 24
tokens = {tokens}
heldout_tokens = {heldout}

[grid]
families = ["top_k"]
d_sae = [48]
l0 = [4]
seeds = [0]

[train]
steps = 12
batch = 32

[upgrades.rational]
type = [3, 2]

[upgrades.affine]
type = [1, 0]

[upgrades.quadratic]
type = [2, 0]

[tune]
steps = 6
batch = 32

[evaluate]
downstream_tokens = 60
tasks = []
"""


def test_a_suite_of_transcoders_with_and_without_a_skip_connection(tmp_path, host_directory, harvest_config):
    file = tmp_path / "suite.toml"
    file.write_text(
        SUITE.format(
            host=host_directory,
            text=harvest_config.text,
            tokens=harvest_config.tokens,
            heldout=harvest_config.heldout_tokens,
            IN=IN,
            OUT=OUT,
        )
    )
    run(SuiteConfig.read(file), tmp_path / "run")
    results = evals.read_results(tmp_path / "run")
    assert {(r.site.target, r.site.skip) for r in results} == {(OUT, False), (OUT, True)}
    # a teacher, its control, and start and end of three upgrades, at two sites
    assert len(results) == 2 * 8
    stores = sorted(
        p.parent.parent.name for p in (tmp_path / "run" / "sites").glob("*/activations/manifest.json")
    )
    assert len(stores) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('targets = ["blocks.1.hook_mlp_out", "blocks.2.hook_mlp_out"]', "2 targets for 1 hooks"),
        ("skip = true", "skip is for transcoders"),
        ('targets = ["blocks.1.hook_mlp_outs"]', "write blocks.L.POINT"),
    ],
)
def test_sites_that_do_not_fit(tmp_path, change, message):
    file = tmp_path / "suite.toml"
    file.write_text(f'[[sites]]\nhooks = ["blocks.1.hook_mlp_in"]\n{change}\n')
    with pytest.raises(InputError, match=message):
        SuiteConfig.read(file)
