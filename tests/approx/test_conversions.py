import math

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_poly
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Rational
from approx.conversions import _real_roots, roots
from approx.dyadic import dyadic, precision
from approx.floating_point import CONVERTIBLE
from approx.forms import Chebyshev

X = np.linspace(-1, 1, 41)


small = st.floats(-3, 3, allow_nan=False).map(lambda v: round(v, 6))


heights = st.floats(0.05, 3).map(lambda v: round(v, 6))


pairs = st.lists(st.tuples(small, small, small, heights), min_size=1, max_size=4, unique_by=lambda p: p[2:])


rationals = st.builds(Rational.from_partial_fractions, st.lists(small, max_size=2), pairs)


@given(rationals, st.sampled_from(CONVERTIBLE))
@settings(max_examples=60, deadline=None)
def test_conversions_agree_to_the_bits_asked_for(r, form):
    with precision(600):
        there = r.to(form, bits=400)
        for x in (-0.7, 0.1, 1.0):
            assert abs(there(arb(x)) - r(arb(x))) < arb(2) ** -300


@pytest.mark.parametrize(
    ("target", "type"),
    [
        (approx.relu(), (9, 8)),
        (approx.sqrt(), (10, 10)),  # its poles are real, next to the domain
        (approx.jump_relu(), (15, 14)),
        (approx.absolute(), (40, 40)),
        (approx.exp(), (2, 5)),
    ],
    ids=str,
)
def test_barycentric_nodes_crowd_where_the_poles_do(target, type):
    fit = approx.minimax(target, type)
    held = fit.rational.to("barycentric")
    assert len(held.form.parameters()) == 3 * (max(type) + 1)
    assert approx.evaluation_error(held, "float64") < 1e-13
    x = np.concatenate(
        [np.r_[np.linspace(a, b, 999), a + np.geomspace(1e-15, 1, 99)] for a, b in target.domain]
    )
    x = x[np.logical_or.reduce([(x >= a) & (x <= b) for a, b in target.domain])]
    assert np.max(np.abs(held(x) - fit.rational(x))) < 1e-12


def test_from_exact_accepts_any_polynomials():
    r = Rational.from_exact(fmpq_poly([fmpq(1, 3), 1]), fmpq_poly([3, 0, 1]), domain=(-2, 5), centre=1)
    assert r(X) == pytest.approx((X + 1 / 3) / (X**2 + 3), rel=1e-14)


@given(
    st.lists(st.floats(0.15, 0.7), min_size=16, max_size=30),
    st.sampled_from([1, -1]),
    st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_roots_of_one_sign_are_found_one_by_one(gaps, side, pair):
    """By proven changes of sign where all roots are real; with a complex pair among them as any others."""
    exact = [side * dyadic(10.0**v) for v in np.cumsum(gaps) - 6]
    poly = math.prod((fmpq_poly([-x, 1]) for x in exact), start=fmpq_poly([1]))
    if pair:
        poly *= fmpq_poly([1, -side, 1])  # its real part is of the same sign
    assert (_real_roots(poly, 80) is None) == pair
    found = [float(r[0]) for r in roots(poly, 80) if len(r) == 1]
    assert found == pytest.approx(sorted(float(x.p) / float(x.q) for x in exact), rel=1e-15)


@given(st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=40))
def test_powers_are_chebyshev_series(c):
    series = Rational.from_exact(fmpq_poly(c), fmpq_poly([1]), (-1, 1), "chebyshev", 400).form
    assert isinstance(series, Chebyshev)
    with precision(400):
        x = arb(2).sqrt() / 3
        summed = sum((arb(a) * x.chebyshev_t(k) for k, a in enumerate(series.num)), arb(0))
        assert abs(summed - sum((arb(a) * x**k for k, a in enumerate(c)), arb(0))) < arb(2) ** -200
