import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Target


def test_relu_is_half_of_sqrt():
    relu, root = approx.minimax(approx.relu(), (9, 8)), approx.minimax(approx.sqrt(), (4, 4))
    assert relu.error == pytest.approx(root.error / 2, rel=1e-9)


@given(st.floats(0.02, 0.5), st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_gate_is_half_a_sign(delta, n):
    sign, gate = (
        approx.minimax(approx.sign(delta), (2 * n + 1, 2 * n)),
        approx.minimax(approx.gate(0.0, delta), (2 * n + 1, 2 * n)),
    )
    assert gate.error == pytest.approx(sign.error / 2, rel=1e-8)
    assert sign.error == pytest.approx(approx.zolotarev_error(n, delta), rel=1e-8)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 2))
@settings(max_examples=8, deadline=None)
def test_adding_a_line_changes_nothing_but_the_fit(a, b, c):
    plain = approx.minimax(Target(lambda x: np.abs(x) ** 1.5, kinks=[0]), (5, 4))
    moved = approx.minimax(Target(lambda x: c * np.abs(x) ** 1.5 + a * x + b, kinks=[0]), (5, 4))
    assert moved.error == pytest.approx(c * plain.error, rel=1e-6)


def test_symmetry_of_the_result():
    x = np.linspace(0, 1, 50)
    even, odd = (
        approx.minimax(approx.absolute(), (8, 8)).rational,
        approx.minimax(approx.sign(0.1), (9, 8)).rational,
    )
    relu = approx.minimax(approx.relu(), (9, 8)).rational
    assert np.array_equal(even(x), even(-x))
    assert np.array_equal(odd(x), -odd(-x))
    assert np.allclose(relu(x) - relu(-x), x, rtol=0, atol=1e-15)


@pytest.mark.parametrize("text", ["(1+x)/(2+x)", "x", "3*x+2", "exp(x)", "sin(x)+x"])
@pytest.mark.parametrize("power", [-900, -300, -101, 101, 130, 300, 900])
def test_an_unsymmetric_function_is_one_in_any_unit(text, power):
    """What is symmetric is decided by values, not by slopes, whose unit is another."""
    unit, scaled = 2.0**power, re.sub(r"\bx\b", f"(x*2**({-power}))", text)
    plain = approx.minimax(approx.formula(text, (0, 1)), (2, 2))
    fit = approx.minimax(approx.formula(scaled, (0, unit)), (2, 2))
    assert fit.verdict is plain.verdict
    assert fit.rational.type == plain.rational.type
    assert fit.error == pytest.approx(plain.error, rel=1e-9, abs=1e-15)


@given(
    st.floats(0.9, 0.9999),
    st.sampled_from(["abs(x)", "relu(x)", "tanh(3*x)", "exp(-x**2)"]),
    st.sampled_from(["1+max(0,({x}-{c})/(1-{c}))", "1+exp(-(({x}-{c})/(1-{c}))**2)"]),
)
@settings(max_examples=8, deadline=None)
def test_a_weight_that_is_symmetric_but_near_an_end(c, text, weight):
    """Its fold shows nothing of what begins behind it."""
    f = approx.formula(text, (-1, 1))

    def weighted(c, x="x"):
        return f.with_weight(approx.formula(weight.format(c=c, x=x), (-1, 1)))

    fit, other = approx.minimax(weighted(c), (4, 4)), approx.minimax(weighted(0.5), (4, 4))
    assert fit.converged
    if text != "relu(x)":  # the mirrored problem of a symmetric function is the same one
        assert approx.minimax(weighted(c, "(-x)"), (4, 4)).error == pytest.approx(fit.error, rel=1e-6)
    # what is best for one weight is a candidate for every other
    x = np.r_[np.linspace(-1, 1, 4001), np.linspace(c, 1, 1001)]
    assert fit.levelled <= np.max(weighted(c).weight_at(x) * np.abs(f(x) - other.rational(x))) * (1 + 1e-3)
