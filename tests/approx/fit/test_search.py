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
    jump = approx.Target(lambda x: (x > 0) * 1.0, (-1, 1), jumps=[0])
    with pytest.raises(RuntimeError, match="no piece"):
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
