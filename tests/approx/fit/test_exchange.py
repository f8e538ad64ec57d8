import pytest

import approx
from tests.approx.helpers import alternates, meinardus


def test_levels_a_hundred_decades_down():
    # the eigenvalues of the levelled equations span as many, and their iteration starts at the wrong end
    fit = approx.minimax(approx.exp(), (26, 26))
    assert fit.converged
    assert fit.error == pytest.approx(meinardus(26), rel=0.05)


def test_type_80_80():
    fit = approx.minimax(approx.absolute(), (80, 80))
    assert fit.converged
    assert fit.error <= fit.levelled * (1 + 1e-6)
    assert alternates(fit)
    assert len(fit.reference) >= 162
