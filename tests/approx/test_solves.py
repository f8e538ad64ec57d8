import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp

import approx

intervals = st.tuples(st.floats(1e-6, 1e3), st.floats(1, 1e8)).map(lambda v: (v[0], v[0] * v[1]))


@given(intervals, st.integers(0, 400))
def test_the_bound_is_one_over_chebyshevs_polynomial_rounded_up(interval, steps):
    a, b = interval
    bound = approx.chebyshev_bound(a, b, steps)
    if a == b:
        assert bound == (0.0 if steps else 1.0)
        return
    with mp.workdps(60):
        truth = 1 / mp.cosh(steps * mp.acosh((mp.mpf(b) + a) / (mp.mpf(b) - a)))
        assert truth <= bound <= truth * (1 + mp.mpf(2) ** -50) + mp.mpf(5) ** -300


@given(intervals, st.floats(1e-12, 0.99))
def test_the_steps_are_the_fewest_that_the_bound_holds_for(interval, error):
    a, b = interval
    steps = approx.chebyshev_steps(a, b, error)
    assert approx.chebyshev_bound(a, b, steps) <= error
    assert steps == 1 or approx.chebyshev_bound(a, b, steps - 1) > error


@pytest.mark.parametrize("seed", range(3))
def test_both_iterations_keep_the_promise(seed):
    rng = np.random.default_rng(seed)
    a, b, size, wanted = 0.03, 2.0, 60, 1e-5
    spectrum = np.r_[a, b, rng.uniform(a, b, size - 2)]
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    A = q * spectrum @ q.T
    truth = rng.normal(size=size)
    y = A @ truth
    steps = approx.chebyshev_steps(a, b, wanted)
    # conjugate gradients
    x, r = np.zeros(size), y.copy()
    d = r.copy()
    for _ in range(steps):
        alpha = r @ r / (d @ A @ d)
        x, new = x + alpha * d, r - alpha * (A @ d)
        d, r = new + new @ new / (r @ r) * d, new
    e = x - truth
    assert math.sqrt(e @ A @ e) <= wanted * math.sqrt(truth @ A @ truth)
    # the Chebyshev iteration (Saad, Iterative Methods, algorithm 12.1)
    centre, half = (a + b) / 2, (b - a) / 2
    rho = half / centre
    x, r = np.zeros(size), y.copy()
    d = r / centre
    for _ in range(steps):
        x, r = x + d, r - A @ d
        new = 1 / (2 * centre / half - rho)
        d, rho = new * rho * d + 2 * new / half * r, new
    assert np.linalg.norm(x - truth) <= wanted * np.linalg.norm(truth)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (-1, 1), (2, 1), (1, math.inf), (math.nan, 1)])
def test_a_spectrum_that_is_not_positive_is_refused(a, b):
    with pytest.raises(ValueError, match="0 < a <= b"):
        approx.chebyshev_bound(a, b, 3)
    with pytest.raises(ValueError, match="0 < a <= b"):
        approx.chebyshev_steps(a, b, 0.1)


def test_other_wrong_arguments():
    for error in (0, 1, -1, math.nan):
        with pytest.raises(ValueError, match="error"):
            approx.chebyshev_steps(1, 2, error)
    with pytest.raises(ValueError, match="steps"):
        approx.chebyshev_bound(1, 2, -1)
    assert approx.chebyshev_steps(2, 2, 1e-9) == 1
