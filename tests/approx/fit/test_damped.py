import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approx.fit.damped import minimised


class Rosenbrock:
    """(1 - x)^2 + 100 (y - x^2)^2, the classic valley."""

    def value(self, x):
        return float((1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2)

    def step(self, x):
        J = np.array([[1.0, 0.0], [-20 * x[0], 10.0]])
        return J, np.array([1 - x[0], -10 * (x[1] - x[0] ** 2)])


@given(st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_the_valley_is_walked_to_its_end(x, y):
    start = np.array([x, y])
    found = minimised(Rosenbrock(), start, iterations=500, gain=1e-14, floor=1e-24)
    assert found == pytest.approx([1, 1], abs=1e-6)


def test_a_step_that_does_not_help_is_not_taken():
    class Wrong(Rosenbrock):
        def step(self, x):
            J, y = super().step(x)
            return J, -y

    start = np.array([0.0, 0.0])
    assert np.array_equal(minimised(Wrong(), start, iterations=5, gain=1e-9), start)
