"""exp(-x) on [0, inf): the constants of CRAM."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import approx

# Carpenter, Ruttan and Varga, Extended numerical computations on the "1/9" conjecture, 1984: the best errors
ERRORS = {1: 6.683104216e-2, 2: 7.358670169e-3, 3: 7.993806363e-4, 4: 8.652240695e-5, 5: 9.345713153e-6}


@pytest.mark.parametrize("n", ERRORS)
def test_the_errors_of_the_one_ninth_conjecture(n):
    fit = approx.half_line("exp(-x)", n)
    assert fit.converged
    assert fit.error == pytest.approx(ERRORS[n], rel=1e-9)
    proof = fit.certify()
    assert proof.upper == pytest.approx(fit.error, rel=1e-8)
    x = np.geomspace(1e-6, 1e6, 5001)
    assert np.max(np.abs(np.exp(-x) - fit.rational()(x))) <= fit.error * (1 + 1e-9)


def test_the_poles_of_cram_16():
    """Pusa, Nucl. Sci. Eng. 169, 2011, as burnup codes hold them, for exp(x) on the negative half-line."""
    fit = approx.half_line("exp(-x)", 16, scale=4)
    assert fit.converged
    assert fit.error == pytest.approx(2.124853710495224e-16, rel=1e-9)
    theta = [
        3.509103608414918 + 8.436198985884374j,
        5.948152268951177 + 3.587457362018322j,
        -5.264971343442647 + 16.22022147316793j,
        1.419375897185666 + 10.92536348449672j,
        6.416177699099435 + 1.194122393370139j,
        4.993174737717997 + 5.996881713603942j,
        -1.413928462488886 + 13.49772569889275j,
        -10.84391707869699 + 19.27744616718165j,
    ]
    poles = -fit.rational().poles()
    for place in theta:
        assert np.min(np.abs(poles - place)) < 1e-10


def test_other_functions_and_wrong_arguments():
    fit = approx.half_line("1/(1+x)**1.5", 4, scale=2)
    assert fit.converged
    x = np.geomspace(1e-6, 1e8, 5001)
    assert np.max(np.abs((1 + x) ** -1.5 - fit.rational()(x))) <= fit.error * (1 + 1e-9)
    fit = approx.half_line("x/sqrt(1+x*x)", 3, start=1.0, limit=1.0)
    x = 1 + x
    assert np.max(np.abs(x / np.sqrt(1 + x * x) - fit.rational()(x))) <= fit.error * (1 + 1e-9)
    with pytest.raises(ValueError, match="limit"):
        approx.half_line("x/(1+x)", 3)
    with pytest.raises(ValueError, match="enclosure"):
        approx.half_line(approx.Target(np.exp), 3)
    with pytest.raises(ValueError, match="scale"):
        approx.half_line("exp(-x)", 3, scale=0)


def test_a_degree_that_is_not_whole_is_refused():
    for n in (2.5, (3, 3), "3", -1):
        with pytest.raises(ValueError, match=r"expected one degree"):
            approx.half_line("exp(-x)", n)  # type: ignore[arg-type]


@given(st.integers(1, 5), st.floats(-5, 5), st.floats(-2, 3))
@settings(max_examples=12, deadline=None)
def test_a_fit_is_called_as_a_function(n, start, exponent):
    scale = 10.0**exponent
    f = approx.half_line(f"exp(-(x - {start!r})/{scale!r})", n, start, scale=scale)
    x = start + scale * np.r_[0, np.geomspace(1e-9, 1e9, 400).reshape(20, 20)[3]]
    value = f(x)
    assert value.shape == x.shape
    assert np.max(np.abs(np.exp(-(x - start) / scale) - value)) <= f.error * (1 + 1e-6) + 1e-12
    assert value == pytest.approx(f.rational()(x), abs=1e-12)
    assert f(np.inf) == pytest.approx(f.inner.rational(1.0))
    assert np.shape(f(start)) == ()


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("x**4*exp(-x)", 2),  # 0 at the start, as at infinity
        ("exp(-(x-20)**2)", 2),
        ("exp(-x)+0.1*exp(-((x-100)/10)**2)", 3),
        ("exp(-x)+0.1*exp(-((x-1e6)/1e3)**2)", 2),  # a bump that a fit of exp(-x) does not see
        ("exp(-100*(x-50)**2)", 3),
        ("exp(-100*(x-5)**2)", 3),
        ("tanh(x)-1", 4),  # cancels in float64
    ],
)
def test_bounds_hold_wherever_the_function_turns(text, n):
    """It is monotone from the last bump on; nearer it is enclosed, also by the replay."""
    fit = approx.half_line(text, n)
    proof = fit.certify()
    proof.verify()
    r, places = fit.rational(), [5, 20, 50, 100, 1e6]
    x = np.concatenate([np.geomspace(1e-6, 1e9, 100_001), *(p + np.linspace(-3, 3, 6001) for p in places)])
    seen = np.max(np.abs(approx.formula(text, (0, 1e9))(x) - r(x)))
    assert seen <= proof.upper * (1 + 1e-9)
    assert proof.lower <= seen * (1 + 1e-4)


def test_a_bump_beyond_what_the_fit_sees_is_in_the_bound():
    fit = approx.half_line("exp(-x)+1e-3*exp(-((x-1e7)/1e5)**2)", 4)
    assert 9e-4 < fit.certify().lower <= fit.certify().upper < 1.1e-3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda fit: pickle.loads(pickle.dumps(fit))])
def test_a_copy_is_the_same_and_can_be_certified(copied):
    for fit in (approx.half_line("exp(-x)", 2), approx.periodic("exp(cos(x))", (2, 2))):
        again = copied(fit)
        x = np.linspace(0, 9, 50)
        assert np.array_equal(again(x), fit(x))
        assert again.certify().upper == fit.certify().upper
