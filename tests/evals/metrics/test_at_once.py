"""Several SAEs in one host at once, against whole forward passes with hooks of our own."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import evals
import rsae
from rsae import InputError, Provenance, Store
from rsae.activations.hooks import HookPoint, activations_at, pad
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals as command
from tests.evals.helpers import HOOK, exact_sae

TOKENS = [[1, 5, 9, 30, 2, 7], [4, 4, 8, 60, 3], [9, 2, 2, 5, 17, 80, 4, 6]]


@pytest.fixture(scope="module")
def transcoders(host):
    """Of the MLPs of all three blocks."""
    made = []
    for layer in range(3):
        x = torch.randn(300, host.d_model, generator=torch.Generator().manual_seed(layer))
        y = x.roll(1, 1) * x
        sae = rsae.new("top_k", Store.of(x, target=y), layer, skip=layer == 1, d_sae=48, k=6)
        hooks = (f"blocks.{layer}.hook_mlp_in", f"blocks.{layer}.hook_mlp_out")
        sae.provenance = Provenance(model=host.name, hook=hooks[0], target=hooks[1])
        made.append(sae)
    return made


def by_hand(host, edits, ids):
    """log p of a sequence's predictions from position 1 on, with MLPs edited: layer to (input, output) -> output."""
    handles = []
    for layer, edit in edits.items():

        def hook(_module, args, output, edit=edit):
            return torch.cat([output[:, :1], edit(args[0], output)[:, 1:]], 1)

        handles.append(host.blocks[layer].mlp.register_forward_hook(hook))
    try:
        with torch.no_grad():
            return host.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)[1:-1]
    finally:
        for handle in handles:
            handle.remove()


def test_each_reads_what_the_host_computes_with_those_before_in_place(host, transcoders):
    got = evals.downstream(transcoders, host, TOKENS, batch=2)
    spliced = {layer: lambda x, y, t=t: t(x) for layer, t in enumerate(transcoders)}
    zeroed = {layer: lambda x, y: torch.zeros_like(y) for layer in range(3)}
    kl, ce, ce_zero = [], [], []
    for ids in TOKENS:
        clean, now, zero = (by_hand(host, edits, ids) for edits in ({}, spliced, zeroed))
        following = torch.tensor(ids[2:])[:, None]
        kl += (clean.exp() * (clean - now)).sum(-1).tolist()
        ce += (-now.gather(1, following)).flatten().tolist()
        ce_zero += (-zero.gather(1, following)).flatten().tolist()
    assert got.kl == pytest.approx(np.mean(kl), rel=1e-3, abs=1e-6)
    assert got.ce == pytest.approx(np.mean(ce), rel=1e-5)
    assert got.ce_zero == pytest.approx(np.mean(ce_zero), rel=1e-5)
    assert got.predictions == len(kl)
    # not the sum of each by itself, nor what the clean activations would give
    alone = [evals.downstream(one, host, TOKENS).kl for one in transcoders]
    assert got.kl != pytest.approx(max(alone), rel=1e-3)


def test_means_are_in_all_places_at_once(host, transcoders):
    got = evals.downstream(transcoders, host, TOKENS)
    kept = {layer: [] for layer in range(3)}

    def keep(layer):
        def see(_x, y):
            kept[layer].append(y[0, 1:])
            return y

        return see

    for ids in TOKENS:
        by_hand(host, {layer: keep(layer) for layer in range(3)}, ids)
    means = {layer: torch.cat(rows).mean(0) for layer, rows in kept.items()}
    edits = {layer: lambda x, y, m=mean: m.expand_as(y) for layer, mean in means.items()}
    ce = [
        -value
        for ids in TOKENS
        for value in by_hand(host, edits, ids).gather(1, torch.tensor(ids[2:])[:, None]).flatten().tolist()
    ]
    assert got.ce_mean == pytest.approx(np.mean(ce), rel=1e-5)


def same(together, alone):
    for name in ("kl", "ce", "ce_zero", "ce_mean", "top1", "predictions"):
        assert together[name] == pytest.approx(alone[name], rel=1e-4), name
    assert together.positions == alone.positions


def test_a_list_of_one_is_that_one(host, transcoders):
    same(evals.downstream([transcoders[2]], host, TOKENS), evals.downstream(transcoders[2], host, TOKENS))


def test_outlying_norms_and_excluded_tokens_keep_their_activation(host):
    """As with one SAE, which has tests of its own: the clean host's norms decide in both."""
    sae = exact_sae(host.d_model, error=0.3)
    x = torch.cat([activations_at(host, HookPoint.parse(HOOK, host), *pad([ids]))[0, 1:] for ids in TOKENS])
    limit = x.norm(dim=-1).median().item()
    sae.provenance = Provenance(model=host.name, hook=HOOK, norm_limit=limit, exclude_tokens=(2, 80))
    same(evals.downstream([sae], host, TOKENS), evals.downstream(sae, host, TOKENS))
    everything = replace(sae.provenance, norm_limit=None, exclude_tokens=None)
    assert (
        evals.downstream([sae], host, TOKENS).kl < evals.downstream([with_(sae, everything)], host, TOKENS).kl
    )


def with_(sae, provenance):
    sae = copy.deepcopy(sae)
    sae.provenance = provenance
    return sae


def test_exact_saes_cost_nothing(host):
    saes = []
    for hook in ("blocks.0.hook_resid_post", "blocks.1.hook_attn_out", "blocks.2.hook_resid_pre"):
        sae = exact_sae(host.d_model)
        sae.provenance = Provenance(model=host.name, hook=hook)
        saes.append(sae)
    got = evals.downstream(saes, host, TOKENS)
    assert got.kl == pytest.approx(0, abs=1e-6)
    assert got.loss_recovered == pytest.approx(1, abs=1e-3)


def test_in_bfloat16_the_rounding_is_told(host, transcoders):
    got = evals.downstream(transcoders, host, TOKENS, precision="bfloat16")
    exact = evals.downstream(transcoders, host, TOKENS)
    assert got.precision_kl is not None
    assert 0 < got.precision_kl < 0.01
    assert got.kl == pytest.approx(exact.kl, rel=0.2)


def test_in_bfloat16_it_is_the_host_that_is_rounded(host):
    """An SAE is measured as it is: an exact one changes nothing."""
    saes = []
    for hook in ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post"):
        sae = exact_sae(host.d_model)
        sae.provenance = Provenance(model=host.name, hook=hook)
        saes.append(sae)
    got = evals.downstream(saes, host, TOKENS, precision="bfloat16")
    assert got.precision_kl is not None
    assert abs(got.kl) < got.precision_kl / 100


def test_what_does_not_go_together_is_told(host, transcoders):
    with pytest.raises(InputError, match=r"two of the SAEs take the place of blocks\.0\.hook_mlp_out"):
        evals.downstream([transcoders[0], transcoders[0]], host, TOKENS)
    with pytest.raises(InputError, match="leave `hook` out"):
        evals.downstream(transcoders, host, TOKENS, hook="blocks.0.hook_mlp_in")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="give an SAE"):
        evals.downstream([], host, TOKENS)
    back = rsae.new("top_k", Store.of(torch.randn(300, 32), target=torch.randn(300, 32)), d_sae=48, k=6)
    back.provenance = replace(transcoders[0].provenance, hook="blocks.1.hook_mlp_in")
    with pytest.raises(InputError, match="computes blocks.0.hook_mlp_out before blocks.1.hook_mlp_in"):
        evals.downstream([back], host, TOKENS)


def test_the_command(host, harvest_config, tmp_path):
    for layer in (0, 1):
        hooks = {"hook": f"blocks.{layer}.hook_mlp_in", "target": f"blocks.{layer}.hook_mlp_out"}
        store = rsae.harvest(replace(harvest_config, **hooks), tmp_path / f"store-{layer}", host)
        rsae.save(rsae.new("top_k", store, d_sae=48, k=6), tmp_path / f"layer-{layer}")
    paths = [tmp_path / f"layer-{layer}" for layer in (0, 1)]
    done = command("splice", *paths, "--tokens", 200, "--each", "--json", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    assert "2 at once" in done.stdout
    assert (tmp_path / "all.json").exists()
    done = command("jacobians", paths[0], "--activations", tmp_path / "store-0", "--tokens", 20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cosine ")
    assert_one_clear_line(command("splice", paths[0], paths[0].with_name("nothing")), "nothing")
    wrong = command("jacobians", paths[1], "--activations", tmp_path / "store-0")
    assert_one_clear_line(wrong, "blocks.1.hook_mlp_in")
