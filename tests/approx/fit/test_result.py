import numpy as np
import pytest

import approx
from approx import Target


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (np.exp, "approx.Target"),
        ("exp", "approx.formula"),
        (Target(lambda x: [1.0, 2.0]), "same shape"),
        (Target(lambda x: np.sqrt(x + 0j)), "real"),
    ],
)
def test_what_is_no_target_is_refused(target, says):
    for fitter in (approx.minimax, approx.remez, approx.least_squares, approx.smoothed_linf):
        with pytest.raises(ValueError, match=says):
            fitter(target, (3, 2))


def test_unbounded_relative_errors_are_refused():
    with pytest.raises(ValueError, match="weight"):
        approx.minimax(approx.relu().with_weight("relative"), (3, 2))
    with pytest.raises(ValueError, match="weight"):
        approx.minimax(approx.absolute((-0.9415, 2.525)).with_weight("relative"), (3, 2))
    with pytest.raises(ValueError, match="domain"):
        approx.minimax(Target(np.log), (3, 2))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"type": (-1, 2)}, "type"),
        ({"type": (1.5, 2)}, "type"),
        ({"type": 3}, "type"),
        ({"type": (3, 10**6)}, "type"),
        ({"type": (3, 2), "poles": "yes"}, "poles"),
        ({"type": (3, 2), "tolerance": 0}, "tolerance"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        approx.minimax(approx.relu(), **arguments)
