import numpy as np
import pytest
from flint import arb

import approx
from approx import Rational
from approx import floating_point as evaluation
from approx.floating_point import known_dtype

GATE = approx.minimax(approx.jump_relu(), (15, 14)).rational


def test_monomials_in_x_are_useless_for_a_sharp_gate_in_float32():
    assert approx.evaluation_error(GATE.to("monomial", centre=0), "float32") > 1e-3
    assert approx.evaluation_error(GATE, "float32", approx.best_form(GATE, "float32")) < 1e-6


def test_best_form_is_the_best_measured():
    for dtype in evaluation.DTYPES:
        best = approx.evaluation_error(GATE, dtype, approx.best_form(GATE, dtype))
        assert best <= min(approx.evaluation_error(GATE, dtype, f) for f in evaluation.CONVERTIBLE)


def test_errors_scale_with_the_format():
    r = approx.minimax(approx.relu(), (5, 4)).rational
    errors = [approx.evaluation_error(r, d) for d in ("float64", "float32", "float16", "bfloat16")]
    assert errors[0] < 1e-15
    assert errors[0] < errors[1] < errors[2] < errors[3]
    assert approx.evaluation_error(r, np.float32) == approx.evaluation_error(r, "float32")


def test_the_measure_agrees_with_numpy():
    r = approx.minimax(approx.relu(), (5, 4)).rational
    x = np.float32(0.3)
    truth = float(r(arb(float(x))))
    assert abs(float(r(x)) - truth) <= approx.evaluation_error(r, "float32")


def test_overflow_is_an_infinite_error():
    assert approx.evaluation_error(Rational.from_monomial([1e6, 1], [1]), "float16") == np.inf


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="dtype"):
        known_dtype("float8")
    with pytest.raises(ValueError, match="form"):
        approx.evaluation_error(GATE, "float32", "spline")
