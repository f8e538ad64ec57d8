import math

import numpy as np
import pytest
from flint import arb

import approx
from approx import Verdict
from approx.dyadic import precision
from approx.fit.remainder import after_series


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
