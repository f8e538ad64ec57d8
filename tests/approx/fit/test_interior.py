import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.optimize import linprog

from approx.fit.interior import best_on_grid


@pytest.mark.parametrize("degree", [3, 12])
def test_the_best_on_a_grid_is_that_of_a_linear_program(degree):
    t = -np.cos(np.linspace(0, np.pi, 120))
    f, w = np.abs(t - 0.2) + np.sin(30 * t), 1 + t**2
    c, _ = best_on_grid((t, 0 * t), f, w, degree)
    columns = chebyshev.chebvander(t, degree) * w[:, None]
    ones = np.ones((len(t), 1))
    rows = np.vstack([np.hstack([columns, -ones]), np.hstack([-columns, -ones])])
    cost = np.r_[np.zeros(degree + 1), 1.0]
    program = linprog(cost, rows, np.r_[w * f, -w * f], bounds=[(None, None)] * (degree + 2), method="highs")
    assert np.max(w * np.abs(f - chebyshev.chebval(t, c))) == pytest.approx(program.fun, rel=1e-9)


def test_a_function_that_is_met_leaves_nothing():
    t = np.linspace(-1, 1, 40)
    c, _ = best_on_grid((t, 0 * t), 3 * t**2 - t, np.ones(40), 4)
    assert np.max(np.abs(3 * t**2 - t - chebyshev.chebval(t, c))) < 1e-13
