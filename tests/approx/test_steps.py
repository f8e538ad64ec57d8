"""Rounding the steps of chains: which format's numbers are worse than another's."""

import itertools

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from approx import composite_inverse, composite_inverse_sqrt, composite_sign
from approx.composite import best_odd
from approx.dyadic import dyadic, precision
from approx.steps import _ends

FINER = [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64")]
lowers = st.floats(-8, -0.3).map(lambda e: 10.0**e)
odd = st.lists(st.sampled_from([1, 3, 5, 7]), min_size=1, max_size=5).map(tuple)


def no_worse(make, coarse, fine, wanted=0.0):
    """The finer format has a chain where the coarser one has, with no more steps and no larger error than is wanted."""
    try:
        other = make(coarse)
    except ValueError:
        return
    chain = make(fine)
    assert chain.dtype == fine
    assert len(chain.steps) <= len(other.steps)
    # what rounding hardly moves is not compared; 1e-15: the ends are outwards in float64
    assert len(chain.steps) < len(other.steps) or chain.error <= max(wanted, other.error * (1 + 1e-4) + 1e-15)
    chain.verify()


@given(
    lowers,
    odd,
    st.sampled_from(["polynomial", "rational"]),
    st.sampled_from([0.0, 0.01]),
    st.sampled_from(FINER),
)
@settings(max_examples=15, deadline=None)
def test_a_finer_format_is_no_worse(lower, degrees, form, safety, formats):
    no_worse(lambda dtype: composite_sign(lower, degrees, form, dtype=dtype, safety=safety), *formats)


@given(
    lowers,
    st.sampled_from([(composite_inverse, 2), (composite_inverse_sqrt, 3), (composite_inverse, 4)]),
    st.floats(-14, -1).map(lambda e: 10.0**e),
    st.sampled_from(FINER),
)
@settings(max_examples=15, deadline=None)
def test_a_finer_format_reaches_an_error_in_no_more_steps(lower, maker, error, formats):
    make, degree = maker
    no_worse(lambda dtype: make((lower, 1), degree, error=error, dtype=dtype), *formats, wanted=error)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_every_format_converges_in_exact_arithmetic(dtype):
    """The plain steps' coefficients are few bits long, and map 1 to 1: rounding is no end."""
    assert composite_sign(1e-3, (5,) * 9, dtype=dtype).error < 1e-15
    assert composite_inverse_sqrt((0.01, 1), 3, error=1e-15, dtype=dtype).error <= 1e-15
    assert composite_inverse((0.01, 1), 2, error=1e-15, dtype=dtype).error <= 1e-15
    assert composite_sign(1e-8, (5,) * 12, dtype=dtype).error < 0.6


@pytest.mark.parametrize("degree", [1, 3, 5])
def test_the_last_step_is_centred_where_the_arithmetic_rounds(degree):
    """Its image, widened by the rounding, is as far below 1 as above."""
    chain = composite_sign(0.3, (degree,), safety=0.05)
    low, high = chain.images[-1]
    assert 1 - low == pytest.approx(high - 1, rel=1e-9)
    exact = composite_sign(0.3, (degree,)).error
    with precision(100):
        assert chain.error == pytest.approx(float((arb(exact) + 0.05) / (1 + 0.05 * arb(exact))), rel=1e-9)


def test_degrees_may_be_a_number_or_an_array():
    assert composite_sign(0.1, 5) == composite_sign(0.1, (5,)) == composite_sign(0.1, np.array([5]))  # type: ignore[arg-type]
    assert composite_inverse((1, 2), np.array([2, 3])) == composite_inverse((1, 2), (2, 3))  # type: ignore[arg-type]
    for wrong in ("5", None, (2.5,), [], (4,)):
        with pytest.raises(ValueError, match="degrees="):
            composite_sign(0.1, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="error="):
        composite_inverse((1, 2), 2, error="1e-3")  # type: ignore[arg-type]


@given(lowers, st.integers(1, 9), st.sampled_from(["float64", "float32", "bfloat16", "float16"]))
@settings(max_examples=15, deadline=None)
def test_no_degree_is_worse_than_a_smaller_one(lower, half, dtype):
    """Large coefficients cost digits: then a step of a lower degree is taken, its table filled with zeros."""
    small, large = (composite_sign(lower, (d,), dtype=dtype) for d in (2 * half - 1, 2 * half + 1))
    assert large.error <= small.error * (1 + 1e-4)
    assert len(large.coefficients()[0]["num"]) == half + 1
    large.verify()
    assert type(large).from_json(large.to_json()).error == large.error


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_degree_far_beyond_the_digits_of_a_format(dtype):
    """The best step of degree 41 alone, rounded, leaves an error above 1e3 in these formats."""
    high, low = (composite_sign(0.01, (d,), dtype=dtype).error for d in (41, 15))
    assert high <= low < 0.9
    assert composite_inverse((0.01, 1), (30,), dtype=dtype).error <= 0.9


@given(st.floats(-600, 0), st.floats(-40, 0))
@settings(max_examples=50, deadline=None)
def test_a_wide_interval_has_no_more_candidates(low, least):
    low, high = fmpq(10) ** round(low), fmpq(2)
    ends = list(_ends(low, high, high / 2 ** round(-least)))
    assert ends[0] == low
    assert len(ends) <= 102
    assert all(a < b for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("lower", [1e-60, 1e-200])
def test_the_best_polynomial_of_a_tiny_interval_has_its_limit(lower):
    near, limit = best_odd(dyadic(lower), fmpq(1), 7), best_odd(dyadic(1e-40), fmpq(1), 7)
    assert [float(arb(c)) for c in near] == pytest.approx([float(arb(c)) for c in limit], rel=1e-15)
