"""What is summed over blocks of the vocabulary, against whole matrices in float64."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.metrics import losses_cpu
from evals.metrics.losses import Clean, against
from rsae.activations import splicing
from rsae.activations.splicing import Logits

V, D = 53, 8


class Batch(NamedTuple):
    tokens_BP: torch.Tensor
    counted_BP: torch.Tensor


def batch(generator: torch.Generator) -> Batch:
    tokens_BP = torch.randint(V, (3, 7), generator=generator)
    return Batch(tokens_BP, torch.rand(3, 6, generator=generator) < 0.7)


@pytest.fixture(params=["compiled", "by torch"], autouse=True)
def way(request, monkeypatch):
    """Both ways of summing up."""
    if request.param == "by torch":
        monkeypatch.setattr(losses_cpu, "available", lambda _: False)
    return request.param


@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([0.01, 1.0, 30.0]),
    apart=st.sampled_from([1e-3, 1.0]),
    block=st.sampled_from([200, 10**6]),
    bias=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_give_what_whole_matrices_give(seed, size, apart, block, bias):
    generator = torch.Generator().manual_seed(seed)
    run = batch(generator)
    head = torch.nn.Linear(D, V, bias=bias)
    read_ND = size * torch.randn(int(run.counted_BP.sum()), D, generator=generator)
    other_ND = read_ND + apart * torch.randn(read_ND.shape, generator=generator)
    whole = [torch.nn.functional.linear(x, head.weight, head.bias).detach() for x in (read_ND, other_ND)]
    log_clean, log_now = (x.double().log_softmax(-1) for x in whole)
    aim = run.tokens_BP[:, 1:][run.counted_BP][:, None]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(splicing, "_BLOCK", block)
        for clean, now in (
            (Logits(read_ND, head, False), Logits(other_ND, head, False)),
            (Logits(whole[0], None, False), Logits(whole[1], None, False)),
        ):
            reference = Clean.of(clean)
            got, itself = against(run, reference, now), against(run, reference, clean)
            near = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-6 * max(1.0, size))
            near(got.ce_N, -log_now.gather(1, aim)[:, 0])
            kl_N = (log_clean.exp() * (log_clean - log_now)).sum(1)
            near(got.kl_N, kl_N)
            assert got.agreed == int((log_clean.argmax(1) == log_now.argmax(1)).sum())
            assert torch.equal(itself.kl_N, torch.zeros_like(kl_N))
            assert torch.equal(itself.ce_N, reference.measured(run).ce_N)
            assert itself.agreed == reference.measured(run).agreed == len(kl_N)


def test_of_equally_likely_tokens_the_first_counts():
    run = batch(torch.Generator().manual_seed(0))
    N = int(run.counted_BP.sum())
    clean, now = torch.zeros(N, V), torch.zeros(N, V)
    clean[:, 5] = now[:, 5] = now[:, 30] = 1.0
    now[0, 4] = 1.0  # before the clean host's
    got = against(run, Clean.of(Logits(clean, None, False)), Logits(now, None, False))
    assert got.agreed == N - 1


@pytest.mark.parametrize("block", [20, 10**6])  # three predictions: a block may hold only ruled-out tokens
def test_tokens_that_a_host_rules_out_weigh_nothing(block, monkeypatch):
    """Logits of -infinity, such as those of padding in the vocabulary."""
    monkeypatch.setattr(splicing, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    run = batch(generator)
    run = Batch(run.tokens_BP % 20, run.counted_BP)
    N = int(run.counted_BP.sum())
    clean_NV, now_NV = torch.randn(2, N, V, generator=generator)
    kept = against(run, Clean.of(Logits(clean_NV[:, :20], None, False)), Logits(now_NV[:, :20], None, False))
    clean_NV[:, 20:] = now_NV[:, 20:] = -torch.inf
    got = against(run, Clean.of(Logits(clean_NV, None, False)), Logits(now_NV, None, False))
    torch.testing.assert_close(got.ce_N, kept.ce_N, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.kl_N, kept.kl_N, rtol=1e-6, atol=1e-6)
    assert got.agreed == kept.agreed
    now_NV[0, int(clean_NV[0].argmax())] = -torch.inf  # likely for the clean host alone
    got = against(run, Clean.of(Logits(clean_NV, None, False)), Logits(now_NV, None, False))
    assert got.kl_N[0] == torch.inf
    assert got.kl_N[1:].isfinite().all()


@pytest.mark.parametrize("offset", [-200.0, 0.0, 50.0])
def test_logits_in_bfloat16_are_summed_as_they_are(offset):
    """Rounded logits are exact numbers: their sums are those of whole matrices in float64; far ones count nothing."""
    generator = torch.Generator().manual_seed(1)
    run, head = batch(generator), torch.nn.Linear(D, V)
    head.weight.data *= 100
    head.bias.data += offset
    read_ND = torch.randn(int(run.counted_BP.sum()), D, generator=generator)
    with torch.no_grad():
        clean, now = Logits(read_ND, head, True), Logits(read_ND * 1.5, head, True)
        whole_NV = torch.cat([block for _, block in now.blocks()], 1)
        assert torch.equal(whole_NV.bfloat16().float(), whole_NV)
        assert {block.dtype for _, block in now.blocks(widened=False)} == {torch.bfloat16}
        reference, got = Clean.of(clean), against(run, Clean.of(clean), now)
    aim = run.tokens_BP[:, 1:][run.counted_BP][:, None]
    near = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-4)
    near(got.ce_N, -whole_NV.double().log_softmax(-1).gather(1, aim)[:, 0])
    clean_NV = reference.logits_NV.double().log_softmax(-1)
    near(got.kl_N, (clean_NV.exp() * (clean_NV - whole_NV.double().log_softmax(-1))).sum(1))


def test_it_is_the_compiled_way_where_there_is_a_compiler(way):
    assert losses_cpu.available(Logits(torch.zeros(1, V), None, False)) == (way == "compiled")
