import numpy as np
import pytest

import approx
from approx.fit.error import measured_error


def test_the_error_is_that_of_the_rational_returned():
    for target in (approx.relu(), approx.jump_relu(), approx.tanh()):
        fit = approx.minimax(target, (5, 4))
        x = np.concatenate([np.linspace(a, b, 20001) for a, b in target.domain])
        assert np.max(np.abs(target(x) - fit.rational(x))) <= fit.error * (1 + 1e-9) + 1e-15
        assert measured_error(fit.rational, target) == pytest.approx(fit.error, rel=1e-9)
