import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from rsae import InputError, RationalActivation
from rsae.rational.parametrisation import PARAMETRISATIONS, Identity, Partial

T = torch.linspace(-1, 1, 501)


@pytest.fixture(scope="module")
def fits():
    return {
        "relu": approx.minimax(approx.relu(), (9, 8)),
        "jump_relu": approx.minimax(approx.jump_relu(0.1, margin=0.01), (9, 8)),
        "gate": approx.minimax(approx.gate(0.0, 0.05), (9, 8)),
    }


@pytest.mark.parametrize("gate", ["relu", "jump_relu", "gate"])
def test_partial_form_is_the_fit_in_float32(fits, gate):
    rational = fits[gate].rational
    act = RationalActivation.from_fit(fits[gate])
    with torch.no_grad():
        value = act(T[:, None])[:, 0].double().numpy()
    assert np.abs(value - rational(T.double().numpy())).max() < 5e-6


@pytest.mark.parametrize("form", ["standard", "safe", "safe-b", "partial"])
def test_every_form_holds_relus_optimum(fits, form):
    """ReLU's optimal denominator is even with non-negative coefficients, so it is safe-Padé of either kind."""
    form_ = PARAMETRISATIONS[form].from_rational(fits["relu"].rational).double()
    t = T.double()[:, None]
    value = form_.evaluate(t)[:, 0].detach().numpy()
    # coefficients are stored in float32: the monomial forms lose more than the partial fractions
    assert np.abs(value - fits["relu"].rational(t[:, 0].numpy())).max() < (
        1e-6 if form == "partial" else 1e-4
    )


def test_safe_form_refuses_what_it_cannot_hold(fits):
    with pytest.raises(InputError, match="safe"):
        RationalActivation.from_fit(fits["jump_relu"], form="safe")


def test_unknown_form_names_the_nearest(fits):
    with pytest.raises(InputError, match="did you mean 'partial'"):
        RationalActivation.from_fit(fits["relu"], form="partail")


def test_real_poles_are_refused():
    with pytest.raises(InputError, match="real pole"):
        RationalActivation.from_fit(approx.Rational.from_monomial([1.0], [-4.0, 0.0, 1.0]))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["safe", "safe-b", "partial", "identity"]))
@settings(max_examples=60, deadline=None)
def test_safe_forms_have_no_pole_whatever_the_coefficients(seed, form):
    generator = torch.Generator().manual_seed(seed)
    width = {"a": 4, "b": 3, "c": 2}
    cls = PARAMETRISATIONS[form]
    names = {"safe": "ab", "safe-b": "ab"}.get(form)
    shapes = (
        {n: [1, width[n]] for n in names}
        if names
        else ({"c": [1, 2]} if cls is Partial else {}) | {n: [1, 3] for n in ("alpha", "beta", "u", "log_v")}
    )
    module = cls.empty(shapes).double()
    for p in module.parameters():
        p.data.normal_(generator=generator)
    t = torch.linspace(-50, 50, 4001, dtype=torch.float64)[:, None]
    value = module.evaluate(t)
    assert torch.isfinite(value).all()
    c = {name: p.detach().abs() for name, p in module.named_parameters()}
    if names:  # Q >= 1
        bound = (c["a"] @ (50.0 ** torch.arange(4, dtype=torch.float64))).item()
    else:  # |alpha s + beta v| / (s^2 + v^2) <= |alpha| / (2 v) + |beta| / v
        v = module.get_parameter("log_v").detach().exp()
        bound = ((c["alpha"] / 2 + c["beta"]) / v).sum().item()
        bound += (
            50.0 if form == "identity" else (c["c"] @ torch.tensor([1.0, 50.0], dtype=torch.float64)).item()
        )
    assert value.abs().max().item() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("groups", [1, 6])
def test_identity_starts_as_exactly_the_identity(groups):
    act = RationalActivation.identity(4, torch.full((6,), 2.0), groups)
    h = 100 * torch.randn(32, 6)
    torch.testing.assert_close(act(h), h, rtol=2e-7, atol=0)


def test_identity_grows_like_the_identity_far_out():
    form = Identity.at_identity(2)
    for p in form.parameters():
        p.data.normal_()
    t = torch.tensor([[1e6]], dtype=torch.float64)
    assert form.double().evaluate(t).item() == pytest.approx(1e6, rel=1e-5)


@pytest.mark.parametrize("per_latent", [False, True])
def test_scales(fits, per_latent):
    """phi(h) = C_out r(h / C_in)."""
    c_in = torch.tensor([2.0, 0.5]) if per_latent else 2.0
    act = RationalActivation.from_fit(fits["relu"], c_in, 3.0)
    h = torch.tensor([[0.7, 0.3]])
    want = 3 * fits["relu"].rational((h / torch.as_tensor(c_in)).double().numpy())
    np.testing.assert_allclose(act(h).detach().numpy(), want, rtol=1e-5)


def test_gradients_reach_every_parameter(fits):
    act = RationalActivation.from_fit(fits["jump_relu"], torch.ones(3))
    act(torch.randn(16, 3)).square().sum().backward()
    for name, p in act.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_the_fits_error_travels_with_the_activation(fits):
    target = approx.relu()
    certificate = approx.certify(fits["relu"].rational, target)
    start = RationalActivation.from_fit(fits["relu"], certificate=certificate).start
    assert start["type"] == [9, 8]
    assert start["certified_lower"] <= start["error"] * (1 + 1e-9)
    assert start["error"] <= start["certified_upper"] * (1 + 1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_must_be_positive(fits, scale):
    with pytest.raises(InputError, match="positive"):
        RationalActivation.from_fit(fits["relu"], scale)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 6])
def test_a_polynomial_magnitude_starts_as_the_identity_and_is_what_it_says(degree, groups):
    act = RationalActivation.polynomial(degree, torch.full((6,), 2.0), groups)
    h = torch.randn(50, 6)
    torch.testing.assert_close(act(h), h)
    with torch.no_grad():
        a = dict(act.form.named_parameters())["a"].normal_()
    want = sum(2.0 * a[:, j] * (h / 2) ** j for j in range(degree + 1))
    torch.testing.assert_close(act(h), want)
    latent = torch.arange(6).expand(50, 6)
    torch.testing.assert_close(act.at(h.flatten(), latent.flatten()).reshape(h.shape), want)
    again = RationalActivation.from_settings(act.settings())
    again.load_state_dict(act.state_dict())
    assert torch.equal(again(h), act(h))
