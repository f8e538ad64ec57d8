import numpy as np
import pytest

import approx
from approx.fit.error import honest_error, measured_error


def test_the_error_is_that_of_the_rational_returned():
    for target in (approx.relu(), approx.jump_relu(), approx.tanh()):
        fit = approx.minimax(target, (5, 4))
        x = np.concatenate([np.linspace(a, b, 20001) for a, b in target.domain])
        assert np.max(np.abs(target(x) - fit.rational(x))) <= fit.error * (1 + 1e-9) + 1e-15
        assert measured_error(fit.rational, target) == pytest.approx(fit.error, rel=1e-9)


@pytest.mark.parametrize("turn", [0.3, 0.7, 1.1, 1.7, 2.3])
def test_a_peak_between_the_points_of_a_high_degree_is_found(turn):
    """A Fejer kernel of degree 1499 is 1 at one place, and below 0.05 a hundredth of a radian from it."""
    n = 1500
    c = (1 - np.arange(n) / n) * np.cos(turn * np.arange(n))
    c[0] /= 2
    rational = approx.Rational.from_chebyshev((c / (n / 4)).tolist())
    reference = np.cos(np.linspace(0, np.pi, n + 2))[::-1]
    x = np.cos(turn + np.linspace(-0.01, 0.01, 4001))
    top = float(np.abs(rational(x)).max())
    assert top == pytest.approx(1, abs=0.01)
    found = honest_error(rational, approx.formula("0*x"), 0.94 * top, reference)
    assert found == pytest.approx(top, rel=1e-3)
