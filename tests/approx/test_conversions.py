import numpy as np
import pytest
from flint import arb, fmpq, fmpq_poly
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Rational
from approx.dyadic import precision
from approx.floating_point import CONVERTIBLE

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
