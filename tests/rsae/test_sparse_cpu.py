"""The compiled choices and products beside torch's own."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rsae.sae import sparse_cpu
from rsae.sae.sparse import Pattern, decode_all, reconstruction_square
from tests.rsae.helpers import random_sae


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


def test_numbers_rounded_to_bfloat16_are_chosen_as_they_are():
    h_BF, edge_F = torch.randn(30, 200).bfloat16(), torch.randn(200)
    latent_BK = sparse_cpu.largest(h_BF, 5)
    assert latent_BK is not None
    assert torch.equal(h_BF.gather(1, latent_BK).sort(1).values, h_BF.topk(5).values.sort(1).values)
    found = sparse_cpu.above(h_BF, edge_F)
    assert found is not None
    assert torch.equal(torch.stack(found[1:]), torch.stack((h_BF > edge_F).nonzero(as_tuple=True)))


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
    start_B1, found_N, latent_N = found
    row_N, wanted_N = (h_BF > edge_F).nonzero(as_tuple=True)
    assert torch.equal(latent_N, wanted_N)
    assert torch.equal(found_N, row_N)
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


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99), st.sampled_from([0.0, 0.3, 1.0]))
def test_sums_by_latent_are_the_same_without_the_places_of_no_weight(B, F, seed, share):
    generator = torch.Generator().manual_seed(seed)
    h_BF, x_BD = torch.randn(B, F, generator=generator) - 1.7, torch.randn(B, 7, generator=generator)
    every, some = (Pattern.above(h_BF, torch.zeros(F), some_shut) for some_shut in (False, True))
    assume(not every.dense)
    weight_N = torch.randn(len(every.latent_N), generator=generator)
    weight_N[torch.rand(len(weight_N), generator=generator) >= share] = 0.0
    found = sparse_cpu.by_latent(every.latent_N, F, weight_N)
    assert found is not None
    assert torch.equal(found[0], every.by_latent[0][weight_N[every.by_latent[0]] != 0])
    assert torch.equal(some.sum_by_latent(weight_N, x_BD), every.sum_by_latent(weight_N, x_BD))


@given(st.integers(1, 9), st.integers(1, 60), st.integers(1, 80), st.integers(0, 99), st.integers(1, 3))
def test_products_at_places_are_those_of_the_full_matrix(B, F, D, seed, threads):
    """Rows without places, too; the same from any number of threads, and for each row alone."""
    generator = torch.Generator().manual_seed(seed)
    mask_BF = torch.rand(B, F, generator=generator) < torch.rand(B, 1, generator=generator).sub(0.3)
    row_N, latent_N = mask_BF.nonzero(as_tuple=True)
    pattern = Pattern.of_places(row_N, latent_N, mask_BF.shape)
    x_BD, W_FD = torch.randn(B, D, generator=generator), torch.randn(F, D, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = sparse_cpu.products(x_BD, W_FD, pattern.start_B1, latent_N)
    finally:
        torch.set_num_threads(before)
    assert found is not None
    torch.testing.assert_close(
        found.double(), pattern.gather(x_BD.double() @ W_FD.double().T), rtol=1e-5, atol=1e-5
    )
    own_N = row_N == B - 1
    alone = sparse_cpu.products(x_BD[-1:], W_FD, torch.tensor([0, int(own_N.sum())]), latent_N[own_N])
    assert alone is not None
    assert torch.equal(alone, found[own_N])


@given(st.integers(1, 9), st.integers(1, 60), st.integers(1, 200), st.integers(0, 99), st.integers(1, 3))
def test_the_square_that_a_code_leaves_over_and_its_gradients(B, F, D, seed, threads):
    """Beside float64 and autograd; tokens without a code, too; a token's own numbers from any number of threads."""
    generator = torch.Generator().manual_seed(seed)
    mask_BF = torch.rand(B, F, generator=generator) < torch.rand(B, 1, generator=generator).sub(0.3) / 5
    row_N, latent_N = mask_BF.nonzero(as_tuple=True)
    pattern = Pattern.of_places(row_N, latent_N, mask_BF.shape)
    pattern.dense = False
    given_ = [
        torch.randn(shape, generator=generator) for shape in ((len(pattern.latent_N),), (F, D), (D,), (B, D))
    ]
    found, wanted = (
        [t.detach().to(dtype).requires_grad_() for t in given_] for dtype in (torch.float32, torch.float64)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        square = reconstruction_square(found[0], found[1], found[2], found[3], pattern)
        (3 * square).backward()
    finally:
        torch.set_num_threads(before)
    z_N, W_FD, b_D, y_BD = wanted
    other = (pattern.scatter(z_N) @ W_FD + b_D - y_BD).square().sum(1).mean()
    (3 * other).backward()
    torch.testing.assert_close(square.double(), other, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)
    alone = [t.detach()[[-1]] if number == 3 else t.detach() for number, t in enumerate(found)]
    own_N = pattern.row_N == B - 1
    of_one, of_all = (
        sparse_cpu.residual(z, start, latent, alone[1], alone[2], y)
        for z, start, latent, y in (
            (alone[0][own_N], torch.tensor([0, int(own_N.sum())]), pattern.latent_N[own_N], alone[3]),
            (alone[0], pattern.start_B1, pattern.latent_N, found[3].detach()),
        )
    )
    assert of_one is not None
    assert of_all is not None
    assert torch.equal(of_one[0][0], of_all[0][-1])
    assert torch.equal(of_one[1], of_all[1][own_N])


@given(
    st.integers(1, 9),
    st.integers(1, 600),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_firings_are_counted(B, F, seed, dtype):
    z_BF = torch.randn(B, F, generator=torch.Generator().manual_seed(seed)).to(dtype)
    z_BF = torch.where(z_BF > 0.5, z_BF, -0.0 * z_BF.sign())  # zeros of both signs
    z_BF[z_BF > 1.5] *= -1e-40  # and what is hardly more than 0
    count_F = sparse_cpu.firings(z_BF)
    assert count_F is not None
    assert torch.equal(count_F, (z_BF != 0).sum(0).int())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_take_torchs_way(dtype):
    h_BF = torch.randn(4, 40).to(dtype)
    assert sparse_cpu.largest(h_BF, 3) is None
    assert sparse_cpu.above(h_BF, torch.zeros(40, dtype=dtype)) is None
    assert sparse_cpu.firings(h_BF) is None
    pattern = Pattern.of_largest(h_BF, 3)
    assert len(pattern.latent_N) == 12
    assert sparse_cpu.products(h_BF, h_BF, pattern.start_B1, pattern.latent_N % 4) is None


@given(
    st.sampled_from([(0,), (1,), (40,), (3, 7), (0, 5)]),
    st.sampled_from([0, 1, 30, 200, 1024]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(0, 99),
)
def test_a_code_is_decoded_by_its_entries_as_it_is_whole(rows, k, dtype, seed):
    """Codes of any density, a row's number of entries from 0 to k, also negative ones."""
    draw = torch.Generator().manual_seed(seed)
    z_BF = torch.randn(*rows, 1024, generator=draw)
    z_BF = z_BF.where(torch.rand(*rows, 1024, generator=draw) < k / 1024, 0.0).to(dtype)
    W_dec, b_dec = (
        torch.randn(1024, 150, generator=draw).to(dtype),
        torch.randn(150, generator=draw).to(dtype),
    )
    x_hat_BD = decode_all(z_BF, W_dec, b_dec)  # hypothesis runs with gradients
    with torch.no_grad():
        torch.testing.assert_close(decode_all(z_BF, W_dec, b_dec), x_hat_BD, rtol=1e-5, atol=1e-4)
    W_dec.requires_grad_()
    decode_all(z_BF, W_dec, b_dec).sum().backward()
    assert W_dec.grad is not None
    torch.testing.assert_close(W_dec.grad, z_BF.reshape(-1, 1024).sum(0)[:, None].expand_as(W_dec))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit.trace
@torch.no_grad()
def test_a_decoder_can_be_mapped_compiled_exported_and_traced():
    """By what holds for any code: the code that it is recorded with is empty."""
    sae = random_sae("relu", d_in=80, d_sae=2048)
    z_BF = torch.randn(6, 2048).where(torch.rand(6, 2048) < 0.01, 0.0)
    x_hat_BD, empty_BF = sae.decode(z_BF), torch.zeros_like(z_BF)
    module = Decoding(sae)
    made = [
        torch.vmap(module),
        torch.compile(module, backend="eager", fullgraph=True),
        torch.export.export(module, (empty_BF,)).module(),
        torch.jit.trace(module, empty_BF),
    ]
    for decode in made:
        torch.testing.assert_close(decode(z_BF), x_hat_BD, rtol=1e-5, atol=1e-4)


class Decoding(torch.nn.Module):
    def __init__(self, sae):
        super().__init__()
        self.sae = sae

    def forward(self, z_BF):
        return self.sae.decode(z_BF)
