"""The compiled choices beside torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsae.sae import sparse_cpu
from rsae.sae.sparse import Pattern


@given(st.integers(1, 9), st.integers(1, 200), st.data())
def test_the_largest_are_torchs(B, F, data):
    k = data.draw(st.integers(1, F))
    h_BF = torch.randn(B, F, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    if data.draw(st.booleans()):
        h_BF = h_BF.mul(2).round()  # with many that are equal
    latent_BK = sparse_cpu.largest(h_BF, k)
    assert latent_BK is not None
    assert all(len(set(row)) == k for row in latent_BK.tolist())
    assert torch.equal(h_BF.gather(1, latent_BK).sort(1).values, h_BF.topk(k).values.sort(1).values)


def test_what_is_no_number_gives_k_latents_all_the_same():
    h_BF = torch.full((3, 50), torch.nan)
    h_BF[1, 7] = 1.0
    latent_BK = sparse_cpu.largest(h_BF, 5)
    assert latent_BK is not None
    assert all(len(set(row)) == 5 and min(row) >= 0 and max(row) < 50 for row in latent_BK.tolist())


@given(st.integers(1, 9), st.integers(1, 200), st.floats(-3, 3))
def test_places_above_an_edge_are_torchs(B, F, edge):
    generator = torch.Generator().manual_seed(B * F)
    h_BF, edge_F = torch.randn(B, F, generator=generator), torch.randn(F, generator=generator) + edge
    found = sparse_cpu.above(h_BF, edge_F)
    assert found is not None
    start_B1, latent_N = found
    row_N, wanted_N = (h_BF > edge_F).nonzero(as_tuple=True)
    assert torch.equal(latent_N, wanted_N)
    assert torch.equal(start_B1, torch.searchsorted(row_N, torch.arange(B + 1)))
    pattern = Pattern.above(h_BF, edge_F)
    assert torch.equal(pattern.row_N, row_N)
    assert torch.equal(pattern.latent_N, wanted_N)


@given(st.lists(st.integers(0, 30), max_size=100))
def test_the_order_by_latent_is_a_stable_sort(latents):
    latent_N = torch.tensor(latents, dtype=torch.long)
    found = sparse_cpu.by_latent(latent_N, 31)
    assert found is not None
    order_N, start_F1 = found
    sorted_N, wanted_N = torch.sort(latent_N, stable=True)
    assert torch.equal(order_N, wanted_N)
    assert torch.equal(start_F1, torch.searchsorted(sorted_N, torch.arange(32)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_take_torchs_way(dtype):
    h_BF = torch.randn(4, 40).to(dtype)
    assert sparse_cpu.largest(h_BF, 3) is None
    assert sparse_cpu.above(h_BF, torch.zeros(40, dtype=dtype)) is None
    assert len(Pattern.of_largest(h_BF, 3).latent_N) == 12
