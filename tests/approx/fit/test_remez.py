import numpy as np
import pytest

import approx
from approx.fit.grid import grid_mse
from approx.fit.remez import grid_of


@pytest.mark.parametrize("type", [(3, 2), (5, 4)])
@pytest.mark.parametrize("target", [approx.relu(), approx.exp()], ids=lambda t: t.name)
def test_small_types_agree_with_minimax(target, type):
    fit, best = approx.remez(target, type, tolerance=1e-3), approx.minimax(target, type)
    assert fit.error >= best.levelled * (1 - 1e-9)
    assert fit.error == pytest.approx(best.error, rel=2e-2)
    assert len(fit.reference) == sum(type) + 2


def test_the_published_plateau_is_there_and_is_admitted():
    plateau = approx.remez(approx.relu(), (19, 18))
    assert not plateau.converged
    assert "levelled" in plateau.message
    assert grid_mse(plateau.rational, plateau.target) > 100 * grid_mse(
        approx.minimax(approx.relu(), (19, 18)).rational, plateau.target
    )


def test_it_is_never_better_than_the_best():
    for k in (2, 6, 8):
        target = approx.jump_relu()
        assert approx.remez(target, (k + 1, k)).error >= approx.minimax(target, (k + 1, k)).levelled * (
            1 - 1e-9
        )


def test_grid_shares_out_a_union():
    x = grid_of(approx.sign(0.2), 101)
    assert len(x) == 101
    assert {-1.0, -0.2, 0.2, 1.0} <= set(x)
    assert np.all(np.abs(x) >= 0.2)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="grid"):
        approx.remez(approx.relu(), (9, 8), grid=10)
    with pytest.raises(ValueError, match="type"):
        approx.remez(approx.relu(), (9, -8))
