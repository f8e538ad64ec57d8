import json

import numpy as np
import pytest

import approx
from approx.primitives import target_from_json

BUILT_IN = [
    approx.relu(),
    approx.absolute((-2, 1)),
    approx.sqrt(),
    approx.sign(0.1),
    approx.gate(0.1, 0.01),
    approx.jump_relu(0.1, margin=0.01),
    approx.bi_jump_relu(0.1, margin=0.01),
    approx.exp((-1, 2)),
    approx.tanh(),
    approx.gelu(),
    approx.silu(),
    approx.sigmoid(),
    approx.formula("exp(-x**2) + 1.5*abs(x - 0.5)/(2 + cos(pi*x))", kinks=[0.5]),
]


@pytest.mark.parametrize("target", BUILT_IN, ids=lambda t: t.name)
def test_json_round_trip(target):
    again = target_from_json(json.loads(json.dumps(target.to_json())))
    x = np.linspace(target.hull[0], target.hull[1], 57)
    assert again.to_json() == target.to_json()
    assert np.array_equal(again(x), target(x))
    assert [(p.a, p.b) for p in again.pieces()] == [(p.a, p.b) for p in target.pieces()]


def test_gaps_are_cut_out_of_any_domain():
    assert approx.jump_relu(0.5, margin=0.25, domain=(-2, 2)).domain == ((-2, 0.25), (0.75, 2))
    assert approx.bi_jump_relu(0.5, 0.25).domain == ((-1, -0.75), (-0.25, 0.25), (0.75, 1))
    assert approx.gate(3, 1, [(0, 1), (2.5, 3.5), (5, 6)]).domain == ((0, 1), (5, 6))
    assert approx.sign(0.25, (-2, 4)).domain == ((-2, -0.25), (0.25, 4))
    # what `with_domain` puts back stays, in a file too
    whole = approx.gate(0.2).with_domain((-1, 1))
    assert target_from_json(whole.to_json()).domain == whole.domain == ((-1, 1),)


def test_a_two_sided_gate_and_its_best_approximation_are_odd():
    target = approx.bi_jump_relu(0.3, margin=0.05)
    x = np.array([0.1, 0.25, 0.35, 0.8, 1.0])
    assert target(x).tolist() == [0, 0, 0.35, 0.8, 1.0]
    assert target(-x).tolist() == (-target(x)).tolist()
    fit = approx.minimax(target, (5, 4))
    assert "odd symmetry" in fit.message
    assert fit.rational(-x) == pytest.approx(-fit.rational(x), rel=1e-14)
    assert fit.rational(0.0) == 0
