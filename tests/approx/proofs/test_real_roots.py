from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from flint import fmpq, fmpq_poly
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from approx.proofs.real_roots import extrema, isolate, separated
from tests.approx.helpers import sturm


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.fractions(-2, 0), st.fractions(0, 2))
def test_isolation_counts_as_sturm_does(coefficients: list[int], low: Any, high: Any):
    p = fmpq_poly(coefficients)
    a, b = (fmpq(x.numerator, x.denominator) for x in (low, high))
    assume(p.degree() > 0 and a < b)
    assert len(isolate(p, a, b)) == sturm(p, a, b)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.fractions(-2, 2, max_denominator=50), min_size=1, max_size=8),
    st.integers(1, 3),
    st.booleans(),
)
def test_isolation_finds_every_root_once(roots: list, power: int, complex_pair: bool):
    p = fmpq_poly([fmpq(1, 10**30), 0, 1]) if complex_pair else fmpq_poly([-1])
    for root in roots:
        p *= fmpq_poly([-fmpq(root.numerator, root.denominator), 1]) ** power
    inside = sorted({fmpq(r.numerator, r.denominator) for r in roots if -1 <= r <= 1})
    found = isolate(p, fmpq(-1), fmpq(1))
    assert len(found) == len(inside)
    for root, x in zip(found, inside, strict=True):
        tight = root.refine(fmpq(1, 1 << 100))
        assert root.lo <= tight.lo <= x <= tight.hi <= root.hi
        assert tight.hi - tight.lo <= fmpq(1, 1 << 100)
    assert all(left.hi <= right.lo for left, right in pairwise(found))


def test_isolation_at_the_ends_and_of_nothing():
    p = fmpq_poly([0, -1, 0, 1])  # x^3 - x
    found = separated(isolate(p, fmpq(-1), fmpq(1)), fmpq(1, 100))
    assert [round(float(r.lo), 1) for r in found] == [-1, 0, 1]
    assert found[0].hi == -1
    assert found[2].lo == 1
    assert [r.lo for r in isolate(p, fmpq(1), fmpq(1))] == [1]
    assert isolate(fmpq_poly([5]), fmpq(-1), fmpq(1)) == []
    with pytest.raises(ValueError, match="zero polynomial"):
        isolate(fmpq_poly([]), fmpq(-1), fmpq(1))


def test_extrema_of_a_quotient():
    # x/(1 + x^2) has its extrema +-1/2 at +-1
    found = extrema(fmpq_poly([0, 1]), fmpq_poly([1, 0, 1]), fmpq(-3), fmpq(2))
    assert [round(float(x), 12) for x, _ in found] == [-3, -1, 1, 2]
    for (_, ball), value in zip(found, (-0.3, -0.5, 0.5, 0.4), strict=True):
        assert ball.rad() < 1e-17
        assert abs(float(ball.mid()) - value) < 1e-15
