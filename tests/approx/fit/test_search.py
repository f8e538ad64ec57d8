from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import approx


@given(st.sampled_from(["exp(x)", "tanh(3*x)", "sqrt(x+1.01)"]), st.floats(2, 9))
@settings(max_examples=10, deadline=None)
def test_the_type_is_the_least_of_its_row(text, digits):
    target, error = approx.formula(text, (-1, 1)), 10**-digits
    fit = approx.fit(target, error)
    m, n = fit.type
    assert m - n in (0, 1)
    assert fit.error <= error
    below = (m - 1, n) if m > n else (m, n - 1)
    assert approx.minimax(target, below).levelled > error
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper <= error * (1 + 1e-8)


def test_polynomials_and_trivial_ones():
    fit = approx.fit(approx.exp(), 1e-6, shape="polynomial")
    assert fit.type[1] == 0
    assert approx.minimax(approx.exp(), (fit.type[0] - 1, 0)).levelled > 1e-6
    assert approx.fit(approx.exp(), 10.0).type == (0, 0)
    with pytest.raises(ValueError, match="error"):
        approx.fit(approx.exp(), 0)
    with pytest.raises(ValueError, match="error"):
        approx.fit(approx.exp(), "1e-3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        approx.fit(approx.exp(), 1e-3, shape="spline")


def test_the_fewest_pieces():
    target = approx.formula("exp(x)", (0, 2.5))
    table = approx.fit(target, 1e-3, (2, 0))
    assert table.error <= 1e-3
    assert table.fewest
    assert list(table.breaks[[0, -1]]) == [0, 2.5]
    x = np.linspace(0, 2.5, 20001)
    assert np.max(np.abs(table(x) - np.exp(x))) <= table.error * (1 + 1e-9)
    proofs = table.certify()
    assert all(p.upper <= 1e-3 * (1 + 1e-8) for p in proofs)
    # an even table with one piece fewer is worse
    ends = np.linspace(0, 2.5, len(table.pieces))
    assert max(approx.minimax(target.with_domain((a, b)), (2, 0)).error for a, b in pairwise(ends)) > 1e-3


def test_pieces_stop_at_what_no_piece_can_reach():
    jump = approx.Target(np.sign, (-1, 1), jumps=[0])  # 0 at 0, which neither side comes near
    with pytest.raises(RuntimeError, match="no piece .* begins at 0.0 "):
        approx.fit(jump, 0.1, (1, 0))
    with pytest.raises(ValueError, match="^samples: a table of pieces"):
        approx.fit((np.linspace(0, 1, 9), np.arange(9.0)), 0.1, (1, 0))
    with pytest.raises(ValueError, match="one interval"):
        approx.fit(approx.sign(), 0.1, (1, 0))


@pytest.mark.parametrize(("count", "says"), [(200, "noise"), (12, "m \\+ n = 10")])
def test_the_search_ends_where_samples_leave_nothing_but_noise_or_no_freedom(count, says):
    rng = np.random.default_rng(0)
    x = np.linspace(0, 10, count)
    samples = approx.Samples(x, np.sin(x) + 0.01 * rng.normal(size=count))
    with pytest.raises(RuntimeError, match=says):
        approx.fit(samples, 1e-9)
    assert approx.fit(approx.Samples(x, np.exp(-x)), 1e-3).error <= 1e-3


def test_a_table_that_is_not_of_the_fewest_pieces_does_not_say_so():
    table = approx.fit(approx.formula("x", (0, 1)), 0.01, (0, 0))
    assert len(table.pieces) == 50 or not table.fewest


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=5, unique=True),
    st.booleans(),
    st.sampled_from([(1, 0), (2, 0), (1, 1)]),
)
@settings(deadline=None, max_examples=15)
def test_pieces_end_at_jumps_on_the_side_where_their_value_is(places, left, type):
    """A staircase has as many constant pieces as it has steps, whatever it is at the steps."""
    jumps = sorted(k / 10 for k in places)
    target = approx.Target(
        lambda x: np.searchsorted(jumps, x, side="left" if left else "right").astype(float),
        (-1, 1),
        jumps=jumps,
    )
    table = approx.fit(target, 0.1, type)
    x = np.r_[np.linspace(-1, 1, 1001), jumps, np.nextafter(jumps, -2), np.nextafter(jumps, 2)]
    assert len(table.pieces) == len(jumps) + 1
    assert table.fewest
    assert np.max(np.abs(table(x) - target(x))) <= 1e-9


@given(st.floats(-0.9, 0.9), st.sampled_from([(1, 0), (3, 0), (1, 1)]))
@settings(deadline=None, max_examples=10)
def test_a_larger_type_has_no_more_pieces_at_a_kink(place, type):
    table = approx.fit(approx.formula(f"abs(x-{place!r})", (-1, 1)), 1e-6, type)
    assert len(table.pieces) <= 2
    assert table.fewest


def test_a_first_piece_may_be_as_short_as_floats_are():
    """The root's error falls with the root of the length: the first piece has 1e-13 of the interval."""
    table = approx.fit(approx.sqrt((0, 1e-6)), 1e-8, (2, 0))
    assert table.error <= 1e-8
    assert 0 < table.breaks[1] < 1e-12
