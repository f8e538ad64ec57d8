import numpy as np
import pytest

import approx
from approx import Rational
from approx.fit.distill import is_safe
from approx.fit.grid import grid_mse


@pytest.mark.parametrize(
    "target",
    [approx.relu(), approx.sign(0.1), approx.tanh(), approx.sigmoid(), approx.silu()],
    ids=lambda t: t.name,
)
@pytest.mark.parametrize("type", [(3, 2), (5, 4), (9, 8)], ids=str)
def test_even_optima_are_safe_already(target, type):
    best = approx.minimax(target, type)
    fit = approx.distill(best.rational, target)
    assert fit.rational is best.rational
    assert "already" in fit.message
    assert fit.error == pytest.approx(best.error, rel=1e-9)


def test_shifted_gates_are_not():
    best = approx.minimax(approx.jump_relu(), (3, 2))
    assert not is_safe(best.rational)
    for denominator in ("safe", "safe-b"):
        fit = approx.distill(best.rational, best.target, denominator)
        x = np.linspace(-1, 1, 501)
        assert fit.error >= best.levelled * (1 - 1e-9)
        assert np.all(np.isfinite(fit.rational(x)))
        assert grid_mse(fit.rational, best.target) < 2 * grid_mse(best.rational, best.target)


def test_what_is_safe():
    assert is_safe(Rational.from_monomial([1, 2], [1, 0, 3]))
    assert is_safe(Rational.from_monomial([1, 2], [1, -2, 1.5], domain=(0, 2)) * 1.0) is False
    assert is_safe(Rational.from_monomial([0, 1], [2, -2, 1], domain=(0, 2)))  # 1 + (x - 1)^2
    assert not is_safe(Rational.from_monomial([1], [1, 1]))
    assert not is_safe(Rational.from_monomial([1], [1, 0, -0.5]))
    assert not is_safe(Rational.from_monomial([1], [0, 0, 1]))


def test_wrong_arguments_are_named():
    r = Rational.from_monomial([1], [-0.25, 0, 1])
    with pytest.raises(ValueError, match="denominator"):
        approx.distill(r, approx.relu(), "no")
    with pytest.raises(ValueError, match="pole"):
        approx.distill(Rational.from_monomial([1], [-0.25, 0, 1]), approx.relu(), grid=4001)
