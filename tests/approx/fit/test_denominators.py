import numpy as np
import pytest

import approx
from approx.fit.denominators import model
from approx.fit.grid import Grid

DENOMINATORS = ["standard", "safe", "safe-b"]


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("type", [(3, 2), (4, 3), (2, 4)], ids=str)
def test_slopes_are_the_derivatives(denominator, type):
    rng = np.random.default_rng(3)
    the_model = model(Grid.of(approx.jump_relu(), 301), type, denominator)
    theta = the_model.start(approx.minimax(approx.jump_relu(), type).rational) + 0.1 * rng.normal(
        size=type[1]
    )
    c = rng.normal(size=the_model.basis(theta).shape[1])
    for k in range(len(theta)):
        h = np.zeros(len(theta))
        h[k] = 1e-6
        finite = (the_model.basis(theta + h) @ c - the_model.basis(theta - h) @ c) / 2e-6
        assert np.allclose(
            the_model.slopes(theta, c)[:, k], finite, rtol=1e-4, atol=1e-5 * np.abs(finite).max()
        )


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("type", [(3, 2), (4, 3), (1, 3), (2, 4), (3, 0)], ids=str)
def test_the_value_is_the_function_that_was_fitted(denominator, type):
    rng = np.random.default_rng(4)
    grid = Grid.of(approx.exp((1, 4)), 101)
    the_model = model(grid, type, denominator)
    theta = rng.normal(size=type[1])
    c = rng.normal(size=the_model.basis(theta).shape[1])
    assert the_model.rational(theta, c)(grid.x) == pytest.approx(
        the_model.basis(theta) @ c, rel=1e-8, abs=1e-8
    )
