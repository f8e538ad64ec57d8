"""The host's loss against whole forward passes, one sequence at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import evals
import rsae
from evals.metrics.downstream import Reconstruct, bounds_of, downstream, splice
from evals.metrics.losses import Bounds
from evals.results import dump, parse
from evals.tasks import Task
from rsae import InputError, SoftRational
from rsae.activations import splicing
from rsae.activations.hooks import HookPoint, activations_at, pad
from tests.evals.helpers import HOOK, exact_sae
from tests.rsae.helpers import random_sae


def test_exact_sae_costs_nothing(host, sequences):
    got = evals.downstream(exact_sae(host.d_model), host, sequences, HOOK)
    assert got.dce == pytest.approx(0, abs=1e-6)
    assert got.kl == pytest.approx(0, abs=1e-6)
    assert got.loss_recovered == pytest.approx(1, abs=1e-3)
    assert got.predictions == sum(len(s) - 2 for s in sequences)


def test_zero_sae_is_the_zero_ablation(host, sequences):
    got = evals.downstream(exact_sae(host.d_model, error=1.0), host, sequences, HOOK)
    assert got.ce == pytest.approx(got.ce_zero, rel=1e-9)
    assert got.loss_recovered == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("hook", "module"),
    [(HOOK, ""), ("blocks.1.hook_mlp_out", "mlp"), ("blocks.1.hook_attn_out", "self_attn")],
)
def test_downstream_is_its_definition(host, sequences, hook, module):
    """Against whole forward passes of the host, one sequence at a time, with a hook of our own."""
    sae = exact_sae(host.d_model, error=0.3)
    clean_ce, ce, kl, agree = [], [], [], []
    for ids in sequences:
        tokens = torch.tensor([ids])

        def edit(_module, _args, output):
            first = output[0] if isinstance(output, tuple) else output
            out = first.clone()
            out[:, 1:] = sae(first[:, 1:])
            return (out, *output[1:]) if isinstance(output, tuple) else out

        with torch.no_grad():
            clean = host.model(input_ids=tokens).logits[0].double().log_softmax(-1)
            handle = host.blocks[1].get_submodule(module).register_forward_hook(edit)
            spliced = host.model(input_ids=tokens).logits[0].double().log_softmax(-1)
            handle.remove()
        for p in range(1, len(ids) - 1):
            clean_ce.append(-clean[p, ids[p + 1]].item())
            ce.append(-spliced[p, ids[p + 1]].item())
            agree.append(clean[p].argmax() == spliced[p].argmax())
            kl.append((clean[p].exp() * (clean[p] - spliced[p])).sum().item())
    got = downstream(sae, host, sequences, hook)
    assert got.ce_clean == pytest.approx(np.mean(clean_ce), rel=1e-5)
    assert got.ce == pytest.approx(np.mean(ce), rel=1e-5)
    assert got.kl == pytest.approx(np.mean(kl), rel=1e-3, abs=1e-7)
    assert got.top1 == pytest.approx(np.mean(agree))


def test_excluded_tokens_are_masked_from_every_figure(host, store, sequences):
    """Against whole forward passes: they keep their activation, and predictions made at them do not count."""
    sae = exact_sae(host.d_model, error=0.3)
    excluded = {ids[3] for ids in sequences} | {ids[-2] for ids in sequences}
    clean_ce, ce, zero_ce, kl = [], [], [], []
    for ids in sequences:
        tokens = torch.tensor([ids])
        kept = [p for p in range(1, len(ids)) if ids[p] not in excluded]

        def edit(_module, _args, output, change: Reconstruct, kept=kept):
            first = output[0] if isinstance(output, tuple) else output
            out = first.clone()
            out[:, kept] = change(first[:, kept])
            return (out, *output[1:]) if isinstance(output, tuple) else out

        with torch.no_grad():
            clean = host.model(input_ids=tokens).logits[0].double().log_softmax(-1)
            found = []
            for change in (sae, torch.zeros_like):
                handle = host.blocks[1].register_forward_hook(partial(edit, change=change))
                found.append(host.model(input_ids=tokens).logits[0].double().log_softmax(-1))
                handle.remove()
        for p in (p for p in kept if p < len(ids) - 1):
            clean_ce.append(-clean[p, ids[p + 1]].item())
            ce.append(-found[0][p, ids[p + 1]].item())
            zero_ce.append(-found[1][p, ids[p + 1]].item())
            kl.append((clean[p].exp() * (clean[p] - found[0][p])).sum().item())
    got = downstream(sae, host, sequences, HOOK, exclude_tokens=sorted(excluded))
    assert got.predictions == len(ce) < sum(len(s) - 2 for s in sequences)
    for name, values in (("ce_clean", clean_ce), ("ce", ce), ("ce_zero", zero_ce)):
        assert got[name] == pytest.approx(np.mean(values), rel=1e-5), name
    assert got.kl == pytest.approx(np.mean(kl), rel=1e-3)
    assert all(str(token) in got.positions for token in excluded)
    # by default those that the SAE was trained without
    sae.provenance = replace(store.provenance, exclude_tokens=tuple(sorted(excluded)), norm_limit=None)
    assert downstream(sae, host, sequences) == got
    assert downstream(sae, host, sequences, exclude_tokens=()).predictions > got.predictions


def whole_passes(host, sequences, change):
    """log p of whole forward passes with block 1's output changed but at position 0, by sequence."""
    found = []
    for ids in sequences:

        def edit(_module, _args, output):
            first = output[0] if isinstance(output, tuple) else output
            out = first.clone()
            out[:, 1:] = change(first[:, 1:])
            return (out, *output[1:]) if isinstance(output, tuple) else out

        handle = host.blocks[1].register_forward_hook(edit)
        with torch.no_grad():
            found.append(host.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1))
        handle.remove()
    return found


def test_mean_ablation_and_positions_are_their_definitions(host, sequences):
    sae = exact_sae(host.d_model, error=0.3)
    x = [activations_at(host, HookPoint.parse(HOOK, host), *pad([ids]))[0, 1:] for ids in sequences]
    mean = torch.cat(x).mean(0)
    runs = {
        name: whole_passes(host, sequences, change)
        for name, change in (("clean", lambda y: y), ("mean", lambda y: mean.expand_as(y)), ("sae", sae))
    }
    ce = {
        name: np.mean(
            [
                -log_p[p, ids[p + 1]]
                for ids, log_p in zip(sequences, found, strict=True)
                for p in range(1, len(ids) - 1)
            ]
        )
        for name, found in runs.items()
    }
    got = downstream(sae, host, sequences, HOOK)
    assert got.ce_mean == pytest.approx(ce["mean"], rel=1e-5)
    assert got.loss_recovered_mean == pytest.approx(
        (ce["mean"] - ce["sae"]) / (ce["mean"] - ce["clean"]), rel=1e-2
    )
    kl = {}
    for clean, now in zip(runs["clean"], runs["sae"], strict=True):
        for p in range(1, len(clean) - 1):
            kl.setdefault(p, []).append((clean[p].exp() * (clean[p] - now[p])).sum().item())
    assert [(at.first, at.last) for at in got.by_position] == [(1, 1), (2, 3), (4, 7), (8, 15), (16, 31)]
    for at in got.by_position:
        values = [v for p in range(at.first, at.last + 1) for v in kl.get(p, [])]
        assert at.predictions == len(values)
        assert at.kl == pytest.approx(np.mean(values), rel=1e-3)
        if (within := at.kl_interval) is not None:
            assert within.low <= at.kl <= within.high
    # a single sequence is so long: no spread is known
    assert [at.kl_interval is None for at in got.by_position] == [False, False, False, False, True]
    total = sum(at.kl * at.predictions for at in got.by_position) / got.predictions
    assert total == pytest.approx(got.kl, rel=1e-9)


def test_an_sae_that_gives_the_mean_recovers_nothing_of_mean_ablation(host, sequences):
    x = [activations_at(host, HookPoint.parse(HOOK, host), *pad([ids]))[0, 1:] for ids in sequences]
    sae = exact_sae(host.d_model, error=1.0)
    sae.b_dec.data = torch.cat(x).mean(0)
    sae.subtract_b_dec = False
    got = downstream(sae, host, sequences, HOOK)
    assert got.loss_recovered_mean == pytest.approx(0, abs=1e-4)
    assert got.kl == pytest.approx(got.kl_mean, rel=1e-4)


def test_bfloat16_says_what_it_costs(host, sequences):
    """Clean and spliced run alike: an exact SAE costs nothing, and the rounding stands beside it."""
    rough = downstream(exact_sae(host.d_model), host, sequences, HOOK, precision="bfloat16")
    assert rough.kl == pytest.approx(0, abs=1e-6)
    assert rough.precision_kl is not None
    assert 0 < rough.precision_kl < 1e-2
    exact = downstream(exact_sae(host.d_model, 0.3), host, sequences, HOOK)
    near = downstream(exact_sae(host.d_model, 0.3), host, sequences, HOOK, precision="bfloat16")
    assert (exact.precision, exact.precision_kl) == ("float32", None)
    assert abs(near.kl - exact.kl) < max(10 * rough.precision_kl, 0.05 * exact.kl)


def test_sequences_add_up_and_can_be_paired(host, sequences):
    found = downstream(
        {"a": exact_sae(host.d_model, 0.3), "b": exact_sae(host.d_model, 0.2)}, host, sequences, HOOK
    )
    for name, error in (("a", 0.3), ("b", 0.2)):
        one = found[name]
        assert one.sequences.predictions == (3, 7, 12, 15, 18)  # of the sequences by length
        assert sum(one.sequences.kl) / one.predictions == pytest.approx(one.kl)
        assert sum(one.sequences.dce) / one.predictions == pytest.approx(one.dce)
        assert one.kl_interval is not None
        assert one.kl_interval.low <= one.kl <= one.kl_interval.high
        alone = [
            downstream(exact_sae(host.d_model, error), host, [ids], HOOK)
            for ids in sorted(sequences, key=len)
        ]
        assert one.sequences.kl == pytest.approx([o.kl * o.predictions for o in alone], rel=1e-2, abs=1e-6)


def test_an_sae_of_another_place_is_refused(host, store, sequences):
    sae = random_sae("top_k", store)
    rsae.train(sae, store, rsae.TrainConfig(steps=1, batch=64))
    other = "blocks.2.hook_resid_post"
    with pytest.raises(InputError, match="hook point.*allow_mismatch"):
        downstream(sae, host, sequences, other)
    assert downstream(sae, host, sequences, other, allow_mismatch=True).predictions > 0


def test_the_dense_code_of_soft_is_spliced_in_beside_the_honest_one(host, store, sequences):
    sae = random_sae("soft_rational", store)
    got = downstream(sae, host, sequences, HOOK)
    assert isinstance(sae, SoftRational)
    soft = got.others["soft"]
    sae.tau.zero_()  # now the honest code is the dense one
    dense = downstream(sae, host, sequences, HOOK)
    for key in ("ce", "kl", "top1", "loss_recovered", "dce"):
        assert soft[key] == pytest.approx(dense[key], rel=1e-6), key
    assert soft.ce != got.ce


def test_downstream_does_not_depend_on_the_batch(host, sequences):
    sae = exact_sae(host.d_model, error=0.3)
    one, other = (downstream({"a": sae}, host, sequences, HOOK, batch=b)["a"] for b in (1, 5))
    for key in ("ce", "kl", "ce_zero"):
        assert one[key] == pytest.approx(other[key], rel=1e-5, abs=1e-7)


def test_the_prefix_runs_once_however_many_saes(host, sequences):
    runs = {"prefix": 0, "suffix": 0}
    handles = [
        host.blocks[0].self_attn.register_forward_hook(
            lambda *_: runs.__setitem__("prefix", runs["prefix"] + 1)
        ),
        host.blocks[2].self_attn.register_forward_hook(
            lambda *_: runs.__setitem__("suffix", runs["suffix"] + 1)
        ),
    ]
    saes = {str(error): exact_sae(host.d_model, error) for error in (0.0, 0.1, 0.2, 0.3)}
    found = downstream(saes | {"again": exact_sae(host.d_model, 0.2)}, host, sequences, HOOK, batch=5)
    for handle in handles:
        handle.remove()
    assert runs == {"prefix": 2, "suffix": 7}  # clean, zero, mean and four SAEs; the fifth is one of them
    assert found["again"] == found["0.2"]
    assert len({one.kl for one in found.values()}) == 4


def test_bounds_are_made_once_for_all_saes_of_a_place(host, sequences):
    saes = {str(error): exact_sae(host.d_model, error) for error in (0.1, 0.3)}
    for precision in ("float32", "bfloat16"):
        rest = {"hook": HOOK, "precision": precision, "norm_limit": 1e4}
        bounds = bounds_of(saes["0.1"], host, sequences, **rest)
        kept = parse(Bounds, json.loads(json.dumps(dump(bounds))))  # as a suite keeps them
        assert downstream(saes, host, sequences, **rest, bounds=kept) == downstream(
            saes, host, sequences, **rest
        )
        one = saes["0.1"]  # bounds that are given are used, of one SAE, too
        wrong = replace(kept, mean=kept.zero)
        assert downstream(one, host, sequences, **rest, bounds=wrong) != downstream(
            one, host, sequences, **rest
        )
        assert kept == bounds


def test_a_host_whose_head_is_not_known_gives_the_same(host, sequences, monkeypatch):
    saes = {"a": exact_sae(host.d_model, 0.3)}
    by_head = downstream(saes, host, sequences, HOOK)["a"]
    monkeypatch.setattr(splicing, "head_of", lambda _: None)
    by_logits = downstream(saes, host, sequences, HOOK)["a"]
    for key in ("ce", "kl", "top1", "ce_zero", "kl_mean"):
        assert by_head[key] == pytest.approx(by_logits[key], rel=1e-5, abs=1e-7), key


def test_tokens_above_the_norm_limit_are_left_alone(host, sequences):
    tokens, mask = pad(sequences)
    norm = activations_at(host, HookPoint(1, "resid_post"), tokens, mask).norm(dim=-1)
    limit = norm[:, 1:][mask[:, 1:].bool()].median().item()
    spliced = splice(
        None, torch.ones(1, 3, 2) * torch.tensor([1.0, 5.0, 2.0])[:, None], torch.ones(1, 3), 3.0
    )
    assert spliced[0, :, 0].tolist() == [1.0, 5.0, 0.0]  # the first position and the long one keep theirs
    sae = exact_sae(host.d_model, error=0.9)
    some = downstream(sae, host, sequences, HOOK, norm_limit=limit)
    every = downstream(sae, host, sequences, HOOK)
    assert abs(some.dce) < abs(every.dce)
    with pytest.raises(InputError, match="raise norm_limit"):
        downstream(sae, host, sequences, HOOK, norm_limit=0.0)


def test_the_hook_point_is_read_from_the_sae(host, store, sequences):
    sae = random_sae("top_k", store)
    with pytest.raises(InputError, match="which hook point"):
        downstream(sae, host, sequences)
    rsae.train(sae, store, rsae.TrainConfig(steps=2, batch=64))
    limit = store.provenance.norm_limit
    assert downstream(sae, host, sequences) == downstream(sae, host, sequences, HOOK, norm_limit=limit)
    task = Task(
        "t", (["one two", "a longer text"], np.array([0, 1])), (["three", "four five"], np.array([1, 0]))
    )
    assert evals.sparse_probing(sae, host, task, k=(1,)).accuracy.keys() == {1}


def test_sequences_too_short(host):
    with pytest.raises(InputError, match="three tokens"):
        downstream(exact_sae(host.d_model), host, [[1, 2]], HOOK)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_an_sae_in_another_precision_than_the_host(host, sequences, dtype):
    sae = exact_sae(host.d_model, 0.3)
    wanted = downstream(sae, host, sequences, HOOK).kl
    assert downstream(sae.to(dtype), host, sequences, HOOK).kl == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("token", [-1, 256])
def test_tokens_of_another_host_are_named(host, token):
    with pytest.raises(InputError, match="lie from 0 to 255"):
        downstream(exact_sae(host.d_model), host, [[1, 2, 3, token]], HOOK)


def test_weights_that_are_no_numbers_have_no_figures(host, sequences):
    sae = exact_sae(host.d_model)
    sae.b_dec.data[0] = float("nan")
    with pytest.raises(InputError, match="b_dec holds NaN"):
        downstream(sae, host, sequences, HOOK)
