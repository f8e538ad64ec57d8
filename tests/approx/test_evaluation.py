import numpy as np
import pytest
from flint import arb

import approx
from approx import Rational, evaluation
from approx.evaluation import BFloat16, known_dtype, round_bfloat16

GATE = approx.minimax(approx.jump_relu(), (15, 14)).rational


def test_monomials_in_x_are_useless_for_a_sharp_gate_in_float32():
    assert GATE.to("monomial", centre=0).evaluation_error("float32") > 1e-3
    assert GATE.evaluation_error("float32", GATE.best_form("float32")) < 1e-6


def test_best_form_is_the_best_measured():
    for dtype in evaluation.DTYPES:
        best = GATE.evaluation_error(dtype, GATE.best_form(dtype))
        assert best <= min(GATE.evaluation_error(dtype, f) for f in evaluation.CONVERTIBLE)


def test_errors_scale_with_the_format():
    r = approx.minimax(approx.relu(), (5, 4)).rational
    errors = [r.evaluation_error(d) for d in ("float64", "float32", "float16", "bfloat16")]
    assert errors[0] < 1e-15
    assert errors[0] < errors[1] < errors[2] < errors[3]
    assert r.evaluation_error(np.float32) == r.evaluation_error("float32")


def test_the_measure_agrees_with_numpy():
    r = approx.minimax(approx.relu(), (5, 4)).rational
    x = np.float32(0.3)
    truth = float(r(arb(float(x))))
    assert abs(float(r(x)) - truth) <= r.evaluation_error("float32")


def test_overflow_is_an_infinite_error():
    assert Rational.from_monomial([1e6, 1], [1]).evaluation_error("float16") == np.inf


def test_bfloat16_rounds_to_nearest_even():
    x = np.array(
        [1, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 3.4e38, np.inf, np.nan], dtype=np.float32
    )
    expected = np.array([1, 1, 1, 1 + 2**-6, -1 - 2**-7, np.inf, np.inf, np.nan], dtype=np.float32)
    assert np.array_equal(round_bfloat16(x), expected, equal_nan=True)
    value = 1 / (BFloat16(np.array([3.0], dtype=np.float32)) + 0.0)
    assert value.value[0] == np.float32(0.333984375)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="dtype"):
        known_dtype("float8")
    with pytest.raises(ValueError, match="form"):
        GATE.evaluation_error("float32", "spline")
