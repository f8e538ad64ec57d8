import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from scipy.optimize import linprog

from approx.fit.interior import ChebyshevGrid, Listed, best_on_grid, level_proven


@pytest.mark.parametrize("degree", [3, 12])
@pytest.mark.parametrize("listed", [False, True])
def test_the_best_on_a_grid_is_that_of_a_linear_program(degree, listed):
    t = -np.cos(np.linspace(0, np.pi, 120))
    f, w = np.abs(t - 0.2) + np.sin(30 * t), 1 + t**2
    basis = chebyshev.chebvander(t, degree)
    c = best_on_grid(Listed(basis, w) if listed else ChebyshevGrid((t, 0 * t), w, degree), f).c
    columns = basis * w[:, None]
    ones = np.ones((len(t), 1))
    rows = np.vstack([np.hstack([columns, -ones]), np.hstack([-columns, -ones])])
    cost = np.r_[np.zeros(degree + 1), 1.0]
    program = linprog(cost, rows, np.r_[w * f, -w * f], bounds=[(None, None)] * (degree + 2), method="highs")
    assert np.max(w * np.abs(f - chebyshev.chebval(t, c))) == pytest.approx(program.fun, rel=1e-9)


def test_a_function_that_is_met_leaves_nothing():
    t = np.linspace(-1, 1, 40)
    c = best_on_grid(ChebyshevGrid((t, 0 * t), np.ones(40), 4), 3 * t**2 - t).c
    assert np.max(np.abs(3 * t**2 - t - chebyshev.chebval(t, c))) < 1e-13


@given(st.integers(2, 14), st.floats(3, 40), st.floats(0, 3), st.floats(0, 1e-3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_multipliers_prove_no_more_than_the_least_error(degree, turn, bend, off, seed):
    t = -np.cos(np.linspace(0, np.pi, 200))
    f, w = np.abs(t - 0.2) + np.sin(turn * t), 1 + bend * t**2
    grid = ChebyshevGrid((t, 0 * t), w, degree)
    solved = best_on_grid(grid, f)
    least = float(np.max(w * np.abs(f - chebyshev.chebval(t, solved.c))))
    level = level_proven(solved.y, grid, f, solved.c, least)
    assert least * (1 - 1e-9 - 2 * solved.gap) < level <= least * (1 + 1e-12)
    assert solved.gap < 1e-5
    # by other multipliers, and beside another polynomial, it is a bound all the same
    chance = np.random.default_rng(seed)
    y = solved.y * (1 + off * chance.uniform(-1, 1, solved.y.shape))
    c = solved.c + off * chance.normal(size=degree + 1)
    top = float(np.max(w * np.abs(f - chebyshev.chebval(t, c))))
    assert level_proven(y, grid, f, c, top) <= least * (1 + 1e-12)
