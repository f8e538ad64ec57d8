from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rsae import (
    BatchTopK,
    Gated,
    InputError,
    JumpReLU,
    MatryoshkaBatchTopK,
    RationalActivation,
    ReLU,
    SoftRational,
    Store,
    TopK,
    new,
    pursuit,
)
from rsae.sae import FAMILIES, family, sparse
from rsae.sae.revival import revival_loss
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
    if isinstance(sae, Gated | MatryoshkaBatchTopK):
        pytest.skip("has a loss of its own, below")
    if isinstance(sae, SoftRational):
        sae.tau.zero_()  # training sees the code without its dead zone
    x = torch.randn(50, D)
    z = sae.encode(x)
    sse = (sae(x) - x).square().sum(1).mean()
    penalty = {
        "l1": (z.abs() @ sae.W_dec.norm(dim=1)).mean(),
        "l0": (z != 0).sum(1).float().mean(),
        "tanh": None,
        None: 0.0,
    }
    loss = sae.loss(x, 0.7)
    torch.testing.assert_close(loss.total, sse + 0.7 * penalty[sae.penalties[0]])
    torch.testing.assert_close(loss.sse, sse)
    assert loss.l0.item() == pytest.approx((z != 0).sum(1).float().mean().item())


@pytest.mark.parametrize("name", ["gated", "rational_gated"])
def test_gated_loss_is_the_papers(name):
    """||x - x_hat||^2 + lambda sum relu(pi) ||d|| + ||x - decode(relu(pi))||^2, the last through a frozen decoder."""
    sae = random_sae(name)
    assert isinstance(sae, Gated)
    x = torch.randn(50, D)
    pi = sae.pre_activations(x).relu()
    sse = (sae(x) - x).square().sum(1).mean()
    auxiliary = (pi @ sae.W_dec.detach() + sae.b_dec.detach() - x).square().sum(1).mean()
    want = sse + 0.7 * (pi @ sae.W_dec.norm(dim=1)).mean() + auxiliary
    got = sae.loss(x, 0.7).total
    torch.testing.assert_close(got, want)
    parameters = [p for p in sae.parameters() if p is not sae.b_dec]
    for a, b in zip(torch.autograd.grad(got, parameters), torch.autograd.grad(want, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gated_magnitude_is_the_papers():
    """1[pi > 0] relu(exp(r_mag) W (x - b_dec) + b_mag)."""
    sae = random_sae("gated")
    assert isinstance(sae, Gated)
    x = torch.randn(50, D)
    linear = (x - sae.b_dec) @ sae.W_enc
    want = ((linear + sae.b_gate) > 0) * (sae.r_mag.exp() * linear + sae.b_mag).relu()
    torch.testing.assert_close(sae.encode(x), want)


@pytest.mark.parametrize("name", ["matryoshka_batch_top_k", "rational_matryoshka_batch_top_k"])
def test_matryoshka_loss_is_the_mean_over_nested_dictionaries(name):
    sae = random_sae(name)
    assert isinstance(sae, MatryoshkaBatchTopK)
    x = torch.randn(50, D)
    z = sae.encode(x)
    ends = torch.tensor(sae.group_sizes).cumsum(0).tolist()
    errors = [(z[:, :e] @ sae.W_dec[:e] + sae.b_dec - x).square().sum(1).mean() for e in ends]
    assert ends[-1] == F
    loss = sae.loss(x, 0.0)
    torch.testing.assert_close(loss.total, torch.stack(errors).mean())
    torch.testing.assert_close(loss.sse, errors[-1])


@pytest.mark.parametrize("rows", [50, 5])
@pytest.mark.parametrize("dense", [True, False])
def test_sparse_products_are_the_dense_ones(sae, rows, dense, monkeypatch):
    """The gradients of the loss by non-zeros, against autograd through the dense code."""
    if isinstance(sae, SoftRational | Gated | MatryoshkaBatchTopK):
        pytest.skip("dense, or a loss of its own")
    monkeypatch.setattr("rsae.sae.sparse._DENSE", 0.0 if dense else 1.0)
    x = torch.randn(rows, D)
    z = sae.encode(x)
    want = (sae.decode(z) - x).square().sum(1).mean()
    parameters = list(sae.parameters())
    dense_gradients = torch.autograd.grad(want, parameters, allow_unused=True)
    loss = sae.loss(x, 0.0, sae.penalties[-1])
    sparse_gradients = torch.autograd.grad(loss.total, parameters, allow_unused=True)
    for a, b in zip(sparse_gradients, dense_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "jump_relu", "top_k", "gated", "batch_top_k"])
def test_rational_at_the_identity_is_the_family(name):
    """The same weights and the same gate: only the magnitude differs, and it starts as h."""
    plain = random_sae(name).eval()
    act = RationalActivation.identity(2, torch.rand(F) + 0.5)
    settings: dict[str, Any] = plain.settings() | {"activation": act.settings()}
    rational = family(f"rational_{name}").from_settings(settings).eval()
    rational.load_state_dict({f"activation.{k}": v for k, v in act.state_dict().items()}, strict=False)
    rational.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(50, D)
    assert torch.equal(rational.encode(x) != 0, plain.encode(x) != 0)
    torch.testing.assert_close(rational.encode(x), plain.encode(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rational.loss(x, 0.3).total, plain.loss(x, 0.3).total)


def test_batch_top_k_shares_the_budget_and_learns_its_threshold():
    sae = random_sae("batch_top_k")
    assert isinstance(sae, BatchTopK)
    sae.threshold.zero_()
    x = torch.randn(30, D)
    h = sae.pre_activations(x).detach()
    z = sae.activate(h)
    assert (z != 0).sum() == 30 * K
    assert torch.equal(z != 0, h >= z[z != 0].min())
    assert sae.threshold == 0  # to ask changes nothing

    def observe(x):
        entries = sae.loss(x).entries
        assert entries is not None
        sae.observe_(entries)

    observe(x)
    first = z[z != 0].min().item()
    assert sae.threshold.item() == pytest.approx(first)  # the first batch sets it
    sae.rescale_(2.0)
    observe(2 * x)
    assert sae.threshold.item() == pytest.approx(2 * first, rel=1e-5)
    sae.eval()
    assert torch.equal(sae.activate(h), h * (h > sae.threshold))
    few = torch.where(torch.arange(F) < 2, h.abs(), -1.0)
    assert torch.equal(sae.train().activate(few), few.relu())


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_question_changes_nothing(name):
    """Codes, losses and revivals in training mode leave every number of the SAE as it was."""
    sae = random_sae(name).train()
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    x, dead = torch.randn(50, D), torch.arange(F) < 5
    for penalty in sae.penalties:
        sae.loss(x, 0.1, penalty)
    sae.encode(x)
    revival_loss(sae, x, dead)
    assert all(torch.equal(v, before[k]) for k, v in sae.state_dict().items())


def test_revival_reaches_dead_latents_only():
    sae = random_sae("top_k")
    dead = torch.zeros(F, dtype=torch.bool)
    dead[[3, 7]] = True
    revival_loss(sae, torch.randn(50, D), dead).backward()
    assert sae.W_enc.grad is not None
    assert torch.equal(sae.W_enc.grad.abs().sum(0) > 0, dead)
    assert sae.W_dec.grad is not None
    assert torch.equal(sae.W_dec.grad.abs().sum(1) > 0, dead)


@pytest.mark.parametrize("name", [*sorted(FAMILIES), "pursuit_top_k", "pursuit_jump_relu"])
def test_a_revival_from_what_the_loss_has_encoded(name):
    """The same as from the batch alone: value and gradients, in training, for codes of every kind."""
    sae = random_sae(name.removeprefix("pursuit_"))
    sae = (pursuit(sae) if name.startswith("pursuit_") else sae).train()
    x, dead = torch.randn(50, D), torch.arange(F) % 3 == 0
    entries = sae.loss(x).entries
    assert (entries is None) == (name == "soft_rational")
    found = []
    for given in (entries, None):
        sae.zero_grad()
        loss = revival_loss(sae, x, dead, None, given)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in sae.parameters() if p.grad is not None)])
    assert found[0][0] > 0
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("sizes", [[10, 10], [40, 0], [-1, 41]])
def test_matryoshka_groups_must_part_the_latents(sizes):
    with pytest.raises(InputError, match="group_sizes"):
        MatryoshkaBatchTopK(D, F, K, sizes)


@pytest.mark.parametrize("d_sae", range(1, 40))
def test_matryoshka_has_groups_by_default_however_few_its_latents_are(d_sae):
    sizes = MatryoshkaBatchTopK(D, d_sae, 1).group_sizes
    assert sum(sizes) == d_sae
    assert min(sizes) > 0


def test_every_parameter_learns(sae):
    for penalty in sae.penalties:
        sae.zero_grad()
        sae.loss(torch.randn(200, D), 0.1, penalty).total.backward()
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
    sae.open_gates(h[:, 0], torch.zeros(4, dtype=torch.long)).sum().backward()
    assert sae.threshold.grad is not None
    assert sae.threshold.grad.item() == pytest.approx(2 * -1 / 0.2)


def test_penalty_that_does_not_fit():
    with pytest.raises(InputError, match="penalty 'l1' does not fit family 'top_k'"):
        TopK(D, F, K).loss(torch.randn(3, D), 1.0, "l1")


def test_unknown_family_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'jump_relu'"):
        family("jumprelu")


@pytest.mark.parametrize("k", [0, F + 1])
def test_k_out_of_range(k):
    with pytest.raises(InputError, match="k="):
        TopK(D, F, k)


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("top_k", {"d_sae": 40, "k": 4.5}, "k = 4.5: .*fractional"),
        ("top_k", {"d_sae": 40, "k": "many"}, "k = 'many'"),
        ("top_k", {"d_sae": -1, "k": 1}, "d_sae=-1 must be 1 at least"),
        ("top_k", {"d_sae": 40, "k": 3, "subtract_b_dec": "perhaps"}, "valid boolean"),
        ("jump_relu", {"d_sae": 40, "bandwidth": "x"}, "bandwidth = 'x'"),
        ("matryoshka_batch_top_k", {"d_sae": 40, "k": 3, "group_sizes": "x"}, "group_sizes = 'x'"),
        ("jump_relu", {"d_sae": 40, "threshold": -1.0}, "threshold -1.0 must be 0 at least"),
        ("jump_relu", {"d_sae": 40, "bandwidth": 0.0}, "bandwidth 0.0 more than 0"),
        ("sign_aware_gated", {"d_sae": 40, "threshold": float("nan")}, "threshold = nan.*finite"),
        ("jump_relu", {"d_sae": 40, "threshold": float("inf")}, "threshold = inf.*finite"),
    ],
)
def test_a_setting_of_another_kind_is_named(family, settings, words):
    with pytest.raises(InputError, match=words):
        new(family, Store.of(torch.randn(50, 12)), **settings)


def test_whole_numbers_of_any_kind_are_taken():
    for k in (3, 3.0, np.int64(3)):
        assert new("top_k", Store.of(torch.randn(50, 12)), d_sae=40.0, k=k).settings()["k"] == 3


@pytest.mark.parametrize("penalty", ["l1", "tanh", "l0"])
@pytest.mark.parametrize("name", sorted(n for n, cls in FAMILIES.items() if random_sae(n).takes_all))
def test_a_dense_codes_loss_is_that_of_its_entries(name, penalty, monkeypatch):
    """Full matrices and listed entries give one loss and one gradient, at half of all places."""
    if penalty not in FAMILIES[name].penalties:
        pytest.skip("another penalty's")
    x_BD = torch.randn(50, 12)
    found = []
    for dense in (1 / 16, 2.0):
        monkeypatch.setattr(sparse, "_DENSE", dense)
        sae = random_sae(name).train()
        sae.encoder_bias.data += 0.5
        loss = sae.loss(x_BD, 0.3, penalty)
        assert loss.entries is not None
        assert (loss.entries.pattern.latent_N is None) == (dense < 1)
        loss.total.backward()
        gradients = [p.grad for p in sae.parameters() if p.grad is not None]
        found.append([loss.total.detach(), loss.sse, loss.l0, loss.fired_F, *gradients])
    for full, listed in zip(*found, strict=True):
        torch.testing.assert_close(full, listed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_products_in_bfloat16_give_the_same_step(name):
    """Loss and gradients of weights are float32's within the rounding of factors and pre-activations."""
    x_BD = torch.randn(60, 12)
    found = []
    for rounds in (False, True):
        sae = random_sae(name).train()
        sae.encoder_bias.data += 0.5
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            loss = sae.loss(x_BD, 0.3)
        loss.total.backward()
        gradients = {n: p.grad for n, p in sae.named_parameters() if p.grad is not None}
        assert {g.dtype for g in gradients.values()} == {torch.float32}
        found.append([loss.total.detach(), loss.sse, gradients["W_enc"], gradients["W_dec"]])
    for exact, rounded in zip(*found, strict=True):
        assert not torch.equal(exact, rounded)
        # an entry beside its gate's edge may open or shut
        assert (rounded - exact).norm() < 0.1 * exact.norm()


class Products(TorchDispatchMode):
    """Dtypes of the matrix products that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.dtypes.append(args[-1].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["relu", "jump_relu", "gated", "rational_relu", "soft_rational"])
def test_all_products_of_a_dense_code_are_in_bfloat16(name):
    """The backward pass is outside of the context in which the loss was made."""
    sae = random_sae(name).train()
    sae.encoder_bias.data += 0.5
    with Products() as made:
        with torch.autocast("cpu", torch.bfloat16):
            loss = sae.loss(torch.randn(60, 12), 0.3)
        loss.total.backward()
    assert made.dtypes == [torch.bfloat16] * (7 if name == "gated" else 5)


@pytest.mark.parametrize("name", ["relu", "gated", "jump_relu", "rational_relu"])
def test_revival_goes_on_with_what_a_loss_in_bfloat16_has_encoded(name):
    """A full matrix in bfloat16, which is decoded once more."""
    x_BD, dead_F, found = torch.randn(60, 12), torch.arange(F) < 10, []
    for rounds in (False, True):
        sae = random_sae(name).train()
        sae.encoder_bias.data += 0.5
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            revival = revival_loss(sae, x_BD, dead_F, None, sae.loss(x_BD, 0.3).entries)
        revival.backward()
        assert sae.W_enc.grad is not None
        found.append(sae.W_enc.grad)
        assert not found[-1][:, 10:].any()
    assert (found[1] - found[0]).norm() < 0.05 * found[0].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_l1_of_a_code_that_has_one_sign(dtype):
    h_BF, weight_F = torch.randn(50, 30).to(dtype), torch.rand(30)
    found = []
    for signed in (True, False):
        h, w = h_BF.clone().requires_grad_(), weight_F.clone().requires_grad_()
        size = sparse.l1_norm(h.relu(), w, signed)
        size.backward()
        found.append([size.detach(), h.grad, w.grad])
    assert found[0][0] == pytest.approx((h_BF.float().relu().sum(0) @ weight_F).item(), rel=0.01)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
