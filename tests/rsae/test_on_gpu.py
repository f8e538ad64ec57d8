"""What a GPU gives is what a CPU gives, within rounding. Without a GPU most of these tests are left out."""

from contextlib import contextmanager
from typing import Literal

import pytest
import torch

import evals
import rsae
from rsae.rational.kernels import cuda
from rsae.rational.kernels.reference import Shape
from rsae.sae import FAMILIES, pursuit_cuda, sparse_cuda
from rsae.sae.sparse import Pattern
from rsae.support import distributed
from rsae.support.devices import check_device
from tests.rsae.helpers import random_sae

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("device", ["cdua", "cuda:99", "xpu:7"])
def test_a_device_that_is_not_there_is_one_clear_line(device):
    with pytest.raises(rsae.InputError, match=rf"device '{device}' cannot be used \(.*\); here are: cpu"):
        check_device(device)


def test_several_processes_take_a_card_each(monkeypatch):
    """Of its own number: a card that is named would be all of theirs."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(rsae.InputError, match="device 'cuda:1': .* takes a card of its own; write cuda"):
        distributed.join(device="cuda:1")


def test_kernels_are_launched_on_the_card_of_their_tensors(monkeypatch):
    """Triton itself takes the current card, which is another one where a second is named."""
    pytest.importorskip("triton")
    from rsae.sae import sparse_triton

    within, launched = [], []

    @contextmanager
    def device_of(x):
        within.append(x.device)
        yield
        within.pop()

    kernels = type(sparse_triton.bag)
    launch = kernels.__getitem__

    def noted(kernel, grid):
        def run(*args, **kwargs):
            assert within[-1:] == [x_BD.device]
            launched.append(kernel.__name__)
            return launch(kernel, grid)(*args, **kwargs)

        return run

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x_BD = torch.randn(4, 12, device=device)
    sae = rsae.pursuit(random_sae("top_k")).to(device)
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(kernels, "__getitem__", noted)
    pattern = Pattern.of_columns(torch.tensor([[0, 3], [1, 2], [4, 5], [0, 1]], device=device), sae.d_sae)
    c_N = torch.ones(8, device=device)
    sparse_cuda.bag(pattern.latent_N, sae.W_dec, pattern.start_B1, c_N)
    sparse_cuda.products(x_BD, sae.W_dec, pattern.row_N, pattern.latent_N)
    sparse_cuda.largest(x_BD, sae.W_dec, sae.b_enc, 2)
    pursuit_cuda.pursue(x_BD, sae.W_dec, pattern, c_N, pattern, 2, 1, 2, 0.5, False)
    parameters_PF = torch.ones(8, 12, device=device, requires_grad=True)
    cuda.evaluate(x_BD, parameters_PF, Shape(p=3, q=2)).sum().backward()
    assert launched == ["bag", "products", "largest", "pursue", "forward", "backward"]
    assert not within


@gpu
@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_step_of_every_family(name):
    sae = random_sae(name).train()
    x_BD = torch.randn(64, 12)
    losses, gradients = [], []
    for device in ("cpu", "cuda"):
        moved = sae.to(device)
        moved.zero_grad()
        loss = moved.loss(x_BD.to(device), 0.1, moved.penalties[0])
        loss.total.backward()
        losses.append(loss.total.item())
        gradients.append({n: p.grad.cpu().clone() for n, p in moved.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


@gpu
@pytest.mark.parametrize("name", list(FAMILIES))
def test_codes_and_pursuits_of_every_family(name):
    sae = random_sae(name)
    x_BD = torch.randn(200, 12)
    with torch.no_grad():
        for one in (sae, rsae.pursuit(sae)):
            want_BF = one.cpu().encode(x_BD)
            got_BF = one.cuda().encode(x_BD.cuda()).cpu()
            same = ((got_BF != 0) == (want_BF != 0)).all(1)  # a level decision may fall either way
            assert same.float().mean() > 0.95
            torch.testing.assert_close(got_BF[same], want_BF[same], rtol=1e-3, atol=1e-3)


@gpu
@pytest.mark.parametrize("name", [*FAMILIES, "pursuit_top_k", "pursuit_jump_relu"])
def test_training_in_bfloat16(name, store):
    """Its products are rounded on a GPU as on a CPU; the ends differ from float32's by as little."""
    ends = {}
    runs: list[tuple[str, Literal["bfloat16", "float32"]]]
    runs = [("cpu", "bfloat16"), ("cuda", "bfloat16"), ("cuda", "float32")]
    for device, precision in runs:
        sae = random_sae(name.removeprefix("pursuit_"), store)
        sae = (rsae.pursuit(sae) if "pursuit" in name else sae).to(device)
        config = rsae.TrainConfig(steps=100, batch=128, lr=1e-3, precision=precision)
        ends[device, precision] = rsae.train(sae, store, config)[-1]["sse"]
        assert {p.dtype for p in sae.parameters()} == {torch.float32}
    assert ends["cuda", "bfloat16"] != ends["cuda", "float32"]
    assert ends["cuda", "bfloat16"] == pytest.approx(ends["cuda", "float32"], rel=0.05)
    assert ends["cuda", "bfloat16"] == pytest.approx(ends["cpu", "bfloat16"], rel=0.05)


@gpu
def test_training_upgrading_and_measuring(store, host):
    saes = [rsae.new("top_k", store, d_sae=64, k=5).to(device) for device in ("cpu", "cuda")]
    config = rsae.TrainConfig(steps=30, batch=64)
    ends = [rsae.train(sae, store, config)[-1]["sse"] for sae in saes]
    assert ends[1] == pytest.approx(ends[0], rel=1e-2)
    upgrade = rsae.UpgradeConfig(type=(3, 2), tune=rsae.TrainConfig(steps=10, batch=64))
    made = rsae.upgrade(saes[1], store, config=upgrade)
    assert made.tuned is not None
    assert made.tuned.W_enc.is_cuda
    on_cpu, on_gpu = (evals.reconstruction(made.tuned.to(device), store).fvu for device in ("cpu", "cuda"))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-4)
