import math

import numpy as np
import pytest
from flint import arb
from hypothesis import given
from hypothesis import strategies as st

import approx
from approx import Verdict
from approx.dyadic import precision
from approx.fit.remainder import _cosines, _transform, after_series


def test_what_is_beyond_a_series_is_f_minus_its_beginning():
    target = approx.formula("exp(x)", (-0.5, 1.5))
    rest = after_series(target, 70)
    assert rest is not None
    x = np.linspace(-0.5, 1.5, 11)
    with precision(800):
        for point, value in zip(x.tolist(), rest.values(x).tolist(), strict=True):
            t = arb(point) - arb(0.5)
            p = sum((arb(c) * t.chebyshev_t(k) for k, c in enumerate(rest.coefficients)), arb(0))
            assert float((arb(point).exp() - p) / arb(2) ** rest.exponent) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("text", ["abs(x)", "sqrt(1+x)"])
def test_what_is_not_analytic_has_no_series_to_speak_of(text):
    assert after_series(approx.formula(text), 70) is None


@pytest.mark.parametrize("degree", [100, 500])
def test_polynomials_far_beyond_float64(degree):
    # 1/(a - x): Chebyshev's own closed form
    fit = approx.minimax(approx.formula("1/(1.25-x)"), (degree, 0))
    assert fit.verdict is Verdict.BEST
    with precision(256):
        a = arb(1.25)
        best = (a - (a * a - 1).sqrt()) ** degree / (a * a - 1)
    assert fit.error == pytest.approx(float(best), rel=1e-9)
    assert fit.levelled <= float(best) * (1 + 1e-15)
    with precision(1200):
        for x in (-1.0, 0.3, 1.0):
            assert abs(float(1 / (a - arb(x)) - fit.rational(arb(x)))) <= fit.error * (1 + 1e-9)


def test_errors_below_all_floats_are_not_zero():
    fit = approx.minimax(approx.formula("exp(x)"), (300, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.error == math.ulp(0.0)
    assert fit.levelled == 0


@given(st.integers(1, 48), st.integers(0, 2**32 - 1))
def test_cosine_sums_by_halves_are_the_sums(n, seed):
    v = np.random.default_rng(seed).normal(size=n + 1)
    halved = np.r_[v[0] / 2, v[1:-1], v[-1] / 2]
    sums = np.cos(np.pi * np.outer(np.arange(n + 1), np.arange(n + 1)) / n) @ halved
    with precision(128):
        found = _transform([arb(float(x)) for x in v], _cosines(n))
    assert [float(x) for x in found] == pytest.approx(sums, abs=1e-11)


def test_a_series_with_gaps_is_not_taken_for_one_that_has_ended():
    """1/(5 - T_66) = (1 + 2 sum r^k T_66k)/sqrt(24): all coefficients between 396 and 462 are 0."""
    target = approx.Target(
        lambda x: 1 / (5 - np.cos(66 * np.arccos(x))), enclose=lambda x: 1 / (5 - x.chebyshev_t(66))
    )
    rest = after_series(target, 400)
    assert rest is not None
    angle, k = np.linspace(0, 3, 50), np.arange(7, 30)
    beyond = 2 / 24**0.5 * np.cos(66 * np.outer(angle, k)) @ (5 - 24**0.5) ** k
    assert rest.values(np.cos(angle)) * 2.0**rest.exponent == pytest.approx(beyond, abs=1e-11 * beyond.max())


def test_exp_in_degree_1000_has_the_error_of_its_series():
    fit = approx.minimax(approx.formula("exp(x)"), (1000, 0))
    assert fit.verdict is Verdict.BEST
    with precision(12000):
        first = 2 * arb(1).bessel_i(1001)  # what the next term of the Chebyshev series weighs
        for x in (-1.0, 1.0):
            assert float(abs(arb(x).exp() - fit.rational(arb(x))) / first) == pytest.approx(1, abs=1e-3)
