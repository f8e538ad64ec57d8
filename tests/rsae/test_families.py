import pytest
import torch

from rsae import InputError, JumpReLU, ReLU, TopK
from rsae.sae import FAMILIES, family
from tests.rsae.helpers import K, random_sae

D, F = 12, 40


@pytest.fixture(params=sorted(FAMILIES))
def sae(request):
    return random_sae(request.param)


def test_code_is_sparse_and_is_what_is_decoded(sae):
    x = torch.randn(50, D)
    z = sae.encode(x)
    assert z.shape == (50, F)
    assert 0 < (z == 0).float().mean() < 1
    torch.testing.assert_close(sae(x), z @ sae.W_dec + sae.b_dec)


def test_leading_dimensions_do_not_matter(sae):
    x = torch.randn(3, 4, D)
    torch.testing.assert_close(sae(x), sae(x.flatten(0, 1)).reshape(x.shape))
    assert sae.encode(x).shape == (3, 4, F)


@pytest.mark.parametrize("factor", [0.125, 3.7])
def test_change_of_units(sae, factor):
    """f_new(c x) = c f_old(x), and the code scales with it."""
    x = torch.randn(50, D)
    before, code = sae(x), sae.encode(x)
    sae.rescale_(factor)
    torch.testing.assert_close(sae(factor * x), factor * before, rtol=2e-4, atol=2e-4)
    assert torch.equal(sae.encode(factor * x) != 0, code != 0)


def test_loss_is_error_plus_weighted_penalty(sae):
    x = torch.randn(50, D)
    z = sae.encode(x)
    sse = (sae(x) - x).square().sum(1).mean()
    penalty = {
        "l1": (z.abs() @ sae.W_dec.norm(dim=1)).mean(),
        "l0": (z != 0).sum(1).float().mean(),
        None: 0.0,
    }
    loss = sae.loss(x, 0.7)
    torch.testing.assert_close(loss.total, sse + 0.7 * penalty[sae.penalty])
    torch.testing.assert_close(loss.sse, sse)
    assert loss.l0.item() == pytest.approx((z != 0).sum(1).float().mean().item())


def test_every_parameter_learns(sae):
    for penalty in sae.penalties:
        sae.set_penalty(penalty)
        sae.zero_grad()
        sae.loss(torch.randn(200, D), 0.1).total.backward()
        for name, p in sae.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name


def test_decoder_rows_keep_unit_norm(sae):
    sae.W_dec.data.mul_(3)
    sae.constrain_()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(F))


def test_top_k_keeps_k_of_the_largest():
    sae = random_sae("top_k")
    h = torch.randn(30, F) + 2  # enough positive entries
    z = sae.activate(h)
    assert ((z != 0).sum(1) == K).all()
    assert torch.equal(z.amax(1), h.amax(1))
    assert (z[z != 0].min() >= 0).item()
    assert (sae.activate(-h.abs()) == 0).all()


def test_relu_and_jump_relu_are_their_formulas():
    h = torch.randn(30, F)
    assert torch.equal(ReLU(D, F).activate(h), h.clamp_min(0))
    jump = JumpReLU(D, F, threshold=0.3)
    assert torch.equal(jump.activate(h), h * (h > 0.3))


def test_jump_relu_gradients_are_the_papers():
    """d z / d theta = -(theta / eps) K and dH / d theta = -(1 / eps) K (Rajamanoharan et al. 2024)."""
    sae = JumpReLU(1, 1, threshold=0.5, bandwidth=0.2)
    h = torch.tensor([[0.39], [0.41], [0.59], [0.61]])
    sae.activate(h).sum().backward()
    assert sae.threshold.grad is not None
    assert sae.threshold.grad.item() == pytest.approx(2 * -0.5 / 0.2)
    sae.threshold.grad = None
    sae.open_gates(h).sum().backward()
    assert sae.threshold.grad is not None
    assert sae.threshold.grad.item() == pytest.approx(2 * -1 / 0.2)


def test_penalty_that_does_not_fit():
    with pytest.raises(InputError, match="penalty 'l1' does not fit family 'top_k'"):
        TopK(D, F, K).set_penalty("l1")


def test_unknown_family_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'jump_relu'"):
        family("jumprelu")


@pytest.mark.parametrize("k", [0, F + 1])
def test_k_out_of_range(k):
    with pytest.raises(InputError, match="k="):
        TopK(D, F, k)
