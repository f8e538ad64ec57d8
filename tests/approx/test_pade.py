from fractions import Fraction
from math import factorial

import numpy as np
import pytest
from flint import fmpq, fmpq_poly
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import pade
from approx.pade import _by_euclid

small = st.integers(-9, 9)


@given(
    st.lists(small, min_size=1, max_size=9),
    st.integers(0, 4),
    st.integers(0, 4),
)
@settings(max_examples=200, deadline=None)
def test_the_series_agree(series, m, n):
    count = m + n + 1
    series = (series + [0] * count)[:count]
    try:
        # bits beyond need: small fractions are no dyadic numbers
        r = pade(series, (m, n), bits=2000)
    except ValueError:
        assert n > 0  # a pole at the centre: polynomials have none
        return
    mu, nu = r.type
    assert mu <= m
    assert nu <= n
    num, den = r.exact()
    left = den * fmpq_poly(series) - num
    assert all(abs(left[k]) < fmpq(1, 1 << 900) for k in range(count))


def test_exp_has_its_classical_approximants():
    series = [Fraction(1, factorial(k)) for k in range(10)]
    r = pade(series, (3, 2))
    x = np.linspace(-0.5, 0.5, 11)
    classical = (1 + 3 * x / 5 + 3 * x**2 / 20 + x**3 / 60) / (1 - 2 * x / 5 + x**2 / 20)
    assert r(x) == pytest.approx(classical, rel=1e-14)
    assert pade(approx.exp(), (3, 2))(x) == pytest.approx(classical, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "type", "exact"),
    [("tan(x)", (5, 4), lambda x: np.tan(x)), ("log1p(x)", (4, 4), lambda x: np.log1p(x))],
)
def test_targets_are_expanded(text, type, exact):
    target = approx.formula(text, (-0.25, 0.25))
    r = pade(target, type)
    x = np.linspace(-0.25, 0.25, 21)
    assert r(x) == pytest.approx(exact(x), abs=1e-8)
    shifted = pade(target, type, centre=0.125)
    assert shifted(0.125) == pytest.approx(exact(0.125), rel=1e-15)
    assert shifted(x) == pytest.approx(exact(x), abs=1e-6)


def test_odd_functions_keep_their_zeros():
    assert pade(approx.formula("tan(x)", (-1, 1)), (3, 2)).type == (3, 2)
    assert not any(pade(approx.formula("tan(x)", (-1, 1)), (3, 2)).numerator[::2])


def test_a_rational_function_is_its_own_approximant():
    series = [Fraction(1, 2) ** k for k in range(9)]  # 1/(1 - x/2)
    r = pade(series, (4, 4))
    assert r.type == (0, 1)
    assert list(r.denominator) == [1, -0.5]


@pytest.mark.parametrize(
    ("series", "type", "says"),
    [
        ([1, 2], (2, 2), "needs 5"),
        ([1, 1], (-1, 1), "type"),
        ([0, 1, 0, 0, 0], (0, 1), "does not exist"),
        (approx.Target(np.exp), (1, 1), "enclosure"),
        (approx.formula("sqrt(x)", (0, 1)), (1, 1), "no power series"),
    ],
)
def test_what_has_no_approximant_is_refused(series, type, says):
    with pytest.raises(ValueError, match=says):
        pade(series, type)


@pytest.mark.parametrize(
    ("target", "centre"),
    [
        (approx.absolute(), 0.0),
        (approx.relu(), 0.0),
        (approx.jump_relu(0.1), 0.1),
        (approx.formula("abs(x-0.3)", (-1, 1)), 0.3),
        (approx.formula("max(x,0)", (1, 2)), 0.0),
        (approx.formula("sqrt(x)", (0, 1)), 0.0),
        (approx.formula("x*abs(x)", (-1, 1)), 0.0),
    ],
    ids=lambda value: "",
)
def test_a_kink_has_no_series(target, centre):
    with pytest.raises(ValueError, match="has no power series at x = "):
        pade(target, (2, 2), centre=centre)


def test_a_kink_elsewhere_is_none_here():
    assert pade(approx.relu(), (2, 2), centre=0.5).exact()[0] == fmpq_poly([0, 1])


def test_solving_and_euclid_agree():
    """On a rational function's own table, whose blocks the equations do not determine, and on a normal one."""
    for series in ([fmpq(1, factorial(k)) for k in range(12)], [fmpq(1, 3**k) for k in range(12)]):
        for m, n in ((0, 0), (3, 0), (0, 4), (4, 3), (5, 6)):
            found = pade(series[: m + n + 1], (m, n), bits=400)
            num, den = _by_euclid(series[: m + n + 1], m)
            x = fmpq(1, 7)
            want = num(x) / den(x)
            assert abs(found(x) - want) < fmpq(1, 10**100)
