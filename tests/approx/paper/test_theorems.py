"""The paper's lemma and theorems: the stated bound against the certified truth."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import approx as target
from approx.paper import theorems as c
from approx.proofs import Certificate, certify
from approx.rational import Rational
from approx.target import Target
from approx.zolotarev import zolotarev_error


def proven(rational: Rational, t: Target) -> Certificate:
    certificate = certify(rational, t)
    assert isinstance(certificate, Certificate)
    assert certificate.pole_free
    return certificate


@pytest.mark.parametrize("delta", [0.5, 0.1, 1e-3, 1e-8])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_lemma_1(n: int, delta: float):
    s = c.sign(n, delta)
    assert s.type == (2 * n + 1, 2 * n)
    assert proven(s, target.sign(delta)).upper <= c.sign_bound(n, delta)


@pytest.mark.parametrize("delta", [0.2, 1e-6])
@pytest.mark.parametrize("eps", [1e-1, 1e-4, 1e-7])
def test_lemma_1_size(eps: float, delta: float):
    n = c.sign_size(eps, delta)
    assert proven(c.sign(n, delta), target.sign(delta)).upper <= eps
    assert c.sign_bound(n - 1, delta) > eps


@pytest.mark.parametrize(("depth", "delta"), [(1, 0.3), (2, 0.3), (2, 1e-5), (3, 0.01), (3, 1e-6)])
def test_maps_of_type_3_2_compose_to_the_best_approximation(depth: int, delta: float):
    s = c.composite_sign(depth, delta)
    whole = s.rational()
    assert whole.type == (3**depth, 3**depth - 1)
    best = zolotarev_error((3**depth - 1) // 2, delta)
    assert s.error == pytest.approx(best, rel=1e-13)
    # each layer is rounded to float64 or better
    assert proven(whole, target.sign(delta)).upper == pytest.approx(best, rel=1e-6)
    x = np.geomspace(delta, 1, 2001)
    assert np.max(np.abs(s(x) - 1)) <= best * (1 + 1e-6) + 1e-14
    assert np.array_equal(s(-x), -s(x))


def test_the_layers_may_have_any_degree():
    s = c.composite_sign(2, 1e-3, n=3)
    assert proven(s.rational(), target.sign(1e-3)).upper == pytest.approx(zolotarev_error(24, 1e-3), rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 4, 9, 16])
def test_theorem_2(n: int):
    certificate = proven(c.relu(n), target.relu())
    assert certificate.type == (2 * n + 2, 2 * n)
    assert certificate.upper <= c.relu_bound(n)
    # root-exponential, as it must be: log(1/error)^2 grows like n
    assert 3 * math.sqrt(n) < math.log(2 / certificate.lower) < 5 * math.sqrt(n) + 2


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_theorem_2_as_a_deep_network(depth: int):
    network = c.composite_relu(depth)
    x = np.concatenate([np.linspace(-1, 1, 4001), np.geomspace(1e-12, 1, 1001)])
    error = np.max(np.abs(network(x) - np.maximum(x, 0)))
    bound = c.relu_bound((3**depth - 1) // 2)
    assert bound / 20 < error <= bound


@pytest.mark.parametrize("margin", [0.1, 0.01, 1e-6])
@pytest.mark.parametrize("theta", [0.0, 0.1, -0.5, 0.7])
@pytest.mark.parametrize("n", [2, 6])
def test_theorem_3(n: int, theta: float, margin: float):
    certificate = proven(c.jump_relu(n, theta, margin), target.jump_relu(theta, margin))
    assert certificate.type == (2 * n + 2, 2 * n)
    assert certificate.upper <= c.jump_relu_bound(n, theta, margin)


@pytest.mark.parametrize("margin", [0.1, 0.002])
@pytest.mark.parametrize("n", [3, 8])
def test_theorem_4(n: int, margin: float):
    rng = np.random.default_rng(n)
    gate = c.top_k_gate(n, margin)
    h = rng.uniform(-1, 1, (200, 64))
    tau = rng.uniform(-1, 1, (200, 1))
    truth = np.where(h > tau, h, 0.0)
    apart = np.abs(h - tau) >= margin
    assert np.max(np.abs(gate(h, tau) - truth)[apart]) <= c.top_k_bound(n, margin)
    # and for one threshold, proven
    s, at = gate.sign, 0.25
    shifted = Rational(s.form, s.domain, at, 2)  # type: ignore[arg-type]
    x = Rational.from_monomial([0, 1])
    one = proven(x * (1 + shifted) / 2, target.jump_relu(at, margin * (1 + 1e-12)))
    assert one.upper <= c.top_k_bound(n, margin)
    values = np.linspace(-1, 1, 101)
    assert np.allclose(gate(values, at), (x * (1 + shifted) / 2)(values), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("eta", [1.0, 0.3, 0.05])
def test_theorem_5(eta: float):
    bump = c.bump(eta)
    assert bump.type == (0, 2)
    x = np.linspace(-1, 1, 801)
    assert np.allclose(bump(x), eta**2 / (x**2 + eta**2), rtol=1e-14)
    # the best fit on a grid is at most the best fit on the interval, so this is the stronger statement
    errors = [c.piecewise_linear_error(x, bump(x), k) for k in (1, 2, 3, 6, 12)]
    for k, error in zip((1, 2, 3, 6, 12), errors, strict=True):
        assert error >= c.bump_bound(k)
    assert all(a > b for a, b in pairwise(errors))
    # k pieces of equal length reach max |f''| (2/k)^2 / 16, and |f''| <= 2 / eta^2: the rate is right
    assert errors[-1] <= 2 / eta**2 * (2 / 12) ** 2 / 16


def test_best_pieces_in_closed_form():
    x = np.linspace(0, 1, 1025)
    for k in (1, 2, 4, 8):  # x^2 on a piece of length h is h^2/8 from its best line
        assert c.piecewise_linear_error(x, x**2, k) == pytest.approx(1 / (8 * k * k), rel=5e-3)
    steps = np.floor(4 * x[:-1])
    assert c.piecewise_linear_error(x[:-1], steps, 4) < 1e-6
    assert c.piecewise_linear_error(x[:-1], steps, 3) > 0.2
    assert c.line_error(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: c.sign(-1, 0.1), "n must"),
        (lambda: c.sign_size(0, 0.1), "eps=0"),
        (lambda: c.composite_sign(0, 0.1), "depth=0"),
        (lambda: c.composite_sign(9, 0.5), "depth=9.*fewer"),
        (lambda: c.relu(0), "n must"),
        (lambda: c.jump_relu(2, 0.99, 0.05), "theta=0.99"),
        (lambda: c.jump_relu(2, 0.5, 1e-20), "margin=1e-20"),
        (lambda: c.top_k_gate(2, 2.0), "margin=2"),
        (lambda: c.bump(0.0), "eta=0"),
        (lambda: c.bump_bound(0), "k=0"),
        (lambda: c.piecewise_linear_error(np.array([1.0, 0.0]), np.zeros(2), 1), "x must increase"),
    ],
)
def test_wrong_input_is_named(call, name: str):
    with pytest.raises(ValueError, match=name):
        call()
