import numpy as np
import pytest
from flint import arb, arb_series, ctx
from scipy.optimize import linprog

import approx


def best_pinned_polynomial(f, x, degree: int, pins: dict[float, float]) -> float:
    """The least error on a grid, by a linear program."""
    V = np.vander(x, degree + 1)
    ones = np.ones((len(x), 1))
    rows = np.vstack([np.hstack([V, -ones]), np.hstack([-V, -ones])])
    right = np.r_[f(x), -f(x)]
    equal = np.hstack([np.vander(np.array(list(pins)), degree + 1), np.zeros((len(pins), 1))])
    solved = linprog(
        np.r_[np.zeros(degree + 1), 1.0],
        rows,
        right,
        equal,
        list(pins.values()),
        bounds=(None, None),
        method="highs",
    )
    return float(solved.fun)


@pytest.mark.parametrize(
    ("text", "f", "pins", "degree"),
    [
        ("exp(x)", np.exp, {0.0: 1.0}, 3),
        ("exp(x)", np.exp, {-1.0: float(np.exp(-1)), 1.0: float(np.exp(1))}, 4),
        ("cos(x)", np.cos, {0.0: 1.0}, 2),
        ("abs(x)", np.abs, {1.0: 1.0}, 6),
        ("exp(x)", np.exp, {2.0: 8.0}, 3),
    ],
)
def test_pinned_polynomials_are_the_best(text, f, pins, degree):
    target = approx.formula(text, (-1, 1), kinks=[0] if "abs" in text else [])
    fit = approx.minimax(target, (degree, 0), pinned=pins)
    for x, y in pins.items():
        assert fit.rational(x) == pytest.approx(y, rel=1e-15)
    best = best_pinned_polynomial(f, np.linspace(-1, 1, 3001), degree, pins)
    assert fit.converged
    assert best * (1 - 1e-9) <= fit.error <= best * (1 + 1e-4)  # the grid misses peaks
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-8)


def test_taylor_coefficients_fix_the_first_coefficients():
    fit = approx.minimax(approx.exp(), (5, 0), pinned={0: (1, 1, 0.5)})
    assert fit.rational.numerator[:3] == pytest.approx([1, 1, 0.5], rel=1e-15)
    assert fit.converged
    assert fit.error > approx.minimax(approx.exp(), (5, 0)).error


def test_pinned_rational_functions():
    target = approx.formula("atan(x)", (0, 8))
    free = approx.minimax(target, (3, 2))
    fit = approx.minimax(target, (3, 2), pinned={0: 0})
    assert fit.rational(0.0) == 0
    assert fit.rational.type == (3, 2)
    assert free.error < fit.error < 3 * free.error
    assert fit.levelled == pytest.approx(fit.error, rel=1e-8)


@pytest.mark.parametrize(
    ("text", "domain", "type", "pins"),
    [
        ("sin(x)", (-1, 1), (5, 2), {0: (0, 1)}),
        ("sin(x)", (-1, 1), (5, 2), {0: 0}),
        ("tanh(x)", (-1, 1), (5, 2), {0: (0, 1)}),
        ("sin(x)", (-1, 1), (5, 0), {1: float(np.sin(1))}),
        ("sin(x)", (0, 1), (3, 2), {0: (0, 1)}),
        ("log(x)", (0.5, 2), (4, 1), {1: (0, 1, -0.5)}),
        ("1 - cos(x)", (-1, 1), (6, 0), {1: float(1 - np.cos(1))}),
        ("cos(x)", (1, 2), (3, 0), {1: float(np.cos(1))}),  # its zero is no float64
    ],
)
def test_a_relative_error_is_finite_through_the_zeros_of_the_target(text, domain, type, pins):
    fit = approx.minimax(approx.formula(text, domain).with_weight("relative"), type, pinned=pins)
    assert fit.converged
    for x, y in pins.items():
        values = [arb(v) for v in np.atleast_1d(y).tolist()]
        cap, ctx.cap = ctx.cap, len(values)
        series = fit.rational(arb_series([x, 1]))
        ctx.cap = cap
        assert all(abs(series[k] - v) < 1e-14 for k, v in enumerate(values))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert fit.error * (1 - 1e-9) <= proof.upper <= fit.error * (1 + 1e-8)
    assert fit.error >= approx.minimax(fit.target, type).error * (1 - 1e-9)
    assert proof.upper <= fit.levelled * (1 + 1e-6)


@pytest.mark.parametrize(
    ("pins", "type", "says"),
    [
        ({0: (0, 1)}, (1, 1), "of the target's zeros"),
        ({0: 1e-12}, (3, 0), "vanishes"),
        ([(0, 1)], (3, 0), "{x: y}"),
    ],
)
def test_pins_beside_zeros_that_cannot_be_are_refused(pins, type, says):
    with pytest.raises(ValueError, match=says):
        approx.minimax(approx.formula("sin(x)").with_weight("relative"), type, pinned=pins)


@pytest.mark.parametrize(
    ("pins", "type", "says"),
    [
        ({}, (3, 2), "empty"),
        ({0: 1, 1: 2, -1: 3}, (2, 0), "numerator"),
        ({0.5: 1.6, 1: 2.7}, (2, 2), "numerator"),
        ({0.5: 2.0}, (3, 0), "not the target's"),
        ({0: ()}, (3, 0), "empty"),
    ],
)
def test_pins_that_cannot_be_are_refused(pins, type, says):
    with pytest.raises(ValueError, match=says):
        approx.minimax(approx.exp(), type, pinned=pins)
