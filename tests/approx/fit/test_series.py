import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from approx.dyadic import dyadic, precision
from approx.fit.double_double import in_unit
from approx.fit.series import Nodes, Series
from approx.forms import EXACT, Chebyshev, Number


def exact(c: np.ndarray, t: np.ndarray, below: np.ndarray | float = 0.0) -> np.ndarray:
    series = Chebyshev(tuple(dyadic(float(v)) for v in c), (fmpq(1),))
    with precision(160):
        pairs = zip(t.tolist(), np.broadcast_to(below, t.shape).tolist(), strict=True)
        return np.array([float(series.evaluate(arb(a) + arb(b), EXACT)) for a, b in pairs])


@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_series_is_summed_to_float64(degree, seed):
    rng = np.random.default_rng(seed)
    c = rng.normal(size=degree + 1)
    t = np.r_[-1.0, 1.0, 0.0, np.nextafter(1, 0), 1e-300, np.cos(rng.uniform(0, np.pi, 15))]
    off = np.abs(Series(c)(t) - exact(c, t))
    # from 64 degrees on no worse for more of them; below by Clenshaw's recurrence
    assert np.max(off) <= 4e-15 * np.sum(np.abs(c)) * (1 if degree >= 64 else degree + 1)


@pytest.mark.parametrize("degree", [70, 2000])
def test_the_highest_polynomial_is_exact_beside_the_ends(degree):
    """cos(m arccos t) moves by m^2 times what t is off by: 4e-10 of it in degree 2000, where t is rounded."""
    x = np.geomspace(1e-20, 1e-3, 200)
    t = in_unit(x, (0.0, 1.0))
    c = np.zeros(degree + 1)
    c[-1] = 1.0
    assert Series(c)(*t) == pytest.approx(exact(c, *t), abs=2e-15)
    assert (1 + t[0]) / 2 + t[1] / 2 == pytest.approx(x, rel=1e-15)


@given(st.integers(0, 120), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_sums_over_points_are_the_transpose_of_sums_of_polynomials(degree, seed):
    rng = np.random.default_rng(seed)
    t = np.r_[-1.0, 1.0, np.sort(rng.uniform(-1, 1, 40))]
    c, d = rng.normal(size=degree + 1), rng.normal(size=len(t))
    nodes = Nodes(t, 0.0, 2 * degree)
    assert nodes.values(c) == pytest.approx(exact(c, t), abs=2e-14 * np.sum(np.abs(c)))
    columns = np.array([exact(row, t) for row in np.eye(2 * degree + 1)[:: max(1, degree // 2)]])
    assert nodes.sums(d, 2 * degree + 1)[:: max(1, degree // 2)] == pytest.approx(columns @ d, abs=1e-12)


def test_a_long_series_in_balls_refuses_coefficients_that_are_not_dyadic():
    series = Chebyshev((fmpq(1, 3),) * 50, (fmpq(1),))
    with pytest.raises(ValueError, match="dyadic"):
        series.evaluate(arb(0.3), Number(arb))
