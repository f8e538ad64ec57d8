"""Fixed coefficients, against linear programs on a grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import approx
from approx.dyadic import dyadic
from approx.forms import Monomial


def least_on_grid(f, x, type, fixed, w=None) -> float:
    """The least error on a grid of p/q with q > 0 there, by bisection over linear programs."""
    m, n = type
    w = np.ones(len(x)) if w is None else w
    names = [*(f"p{i}" for i in range(m + 1)), *(f"q{j}" for j in range(n + 1))]
    fixed = dict(fixed) if n else {"q0": 1, **fixed}
    P, Q = np.vander(x, m + 1, increasing=True), np.vander(x, n + 1, increasing=True)
    # w |f q - p| <= lam q, and q >= tau > 0, with tau as large as may be
    equal, values = np.eye(len(names) + 1)[[names.index(k) for k in fixed]], list(fixed.values())

    def slack(lam: float) -> float:
        rows = np.vstack(
            [
                np.hstack([s * -P * w[:, None], Q * (s * w * f(x) - lam)[:, None], 0 * x[:, None]])
                for s in (1, -1)
            ]
            + [np.hstack([0 * P, -Q, 1 + 0 * x[:, None]])]
        )
        bounds = [(-1e4, 1e4)] * len(names) + [(None, 1.0)]
        solved = linprog(
            [0] * len(names) + [-1], rows, np.zeros(len(rows)), equal, values, bounds=bounds, method="highs"
        )
        return -1.0 if solved.x is None else solved.x[-1]

    low, high = 0.0, 10.0
    while high - low > 1e-5 * high:
        middle = (low + high) / 2 if low == 0 and high > 1e-3 else (low * high) ** 0.5 if low else high / 4
        low, high = (low, middle) if slack(middle) > 1e-9 else (middle, high)
    return high


CASES = [
    ("exp(x)", (-1, 1), (3, 0), {"p0": 1}),
    (
        "exp(x)",
        (-1, 1),
        (4, 0),
        {"p1": 1},
    ),  # four alternations for four coefficients: there are many best ones
    ("exp(x)", (0.2, 1), (4, 0), {"p2": 0.5, "p3": 0.1}),
    ("sin(x)", (-1, 2), (3, 0), {"p1": 1, "p3": -1 / 6}),
    ("exp(x)", (-1, 1), (2, 2), {"q1": -0.5}),
    ("log1p(x)", (-0.25, 1), (2, 1), {"p0": 0, "p1": 1, "q0": 1}),
    ("exp(-8*x**2)", (-1, 2), (2, 3), {"p2": 0.25, "q0": 1}),
    ("sin(3*x)+tanh(4*x)", (-1.2, 1.7), (3, 2), {"p1": 1}),
]


@pytest.mark.parametrize(("text", "domain", "type", "fixed"), CASES)
def test_the_best_with_fixed_coefficients(text, domain, type, fixed):
    target = approx.formula(text, domain)
    fit = approx.minimax(target, type, fixed=fixed)
    assert fit.converged
    assert fit.levelled <= fit.error <= fit.levelled * (1 + 1e-8)
    best = least_on_grid(target, np.linspace(domain[0], domain[1], 401), type, fixed)
    assert best * (1 - 1e-4) <= fit.error <= best * (1 + 2e-3)  # the grid misses peaks
    assert isinstance(fit.rational.form, Monomial)
    held = {"p": fit.rational.form.num, "q": fit.rational.form.den}
    assert all(held[name[0]][int(name[1:])] == dyadic(value) for name, value in fixed.items())
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-8)
    assert proof.upper * (1 - 2e-6) <= proof.best_lower <= best * (1 + 2e-3)


@given(st.data())
@settings(max_examples=5, deadline=None)
def test_the_bound_is_below_every_function_of_the_family(data):
    a, b, c = (data.draw(st.floats(-2, 2)) for _ in range(3))
    target = approx.formula(f"sin(({a + 3})*x+({b}))+({c})*exp(-3*x*x)+sigmoid(6*x)", (-1.1, 0.9))
    m, n = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))
    names = data.draw(
        st.lists(st.sampled_from([f"p{i}" for i in range(m + 1)]), min_size=1, max_size=2, unique=True)
    )
    fixed = {name: round(data.draw(st.floats(-1, 1)), 3) for name in names} | ({"q0": 1} if n else {})
    try:
        fit = approx.minimax(target, (m, n), fixed=fixed)
    except RuntimeError:
        return  # it says that it found nothing
    assert fit.levelled <= fit.error
    best = least_on_grid(target, np.linspace(-1.1, 0.9, 161), (m, n), fixed)
    if not fit.converged:
        assert fit.levelled <= best * 1.05
    else:
        assert best * (1 - 1e-4) <= fit.error <= best * 1.05


def test_a_relative_error_through_a_zero_at_0():
    target = approx.formula("sin(x)", (-1.5, 1.5)).with_weight("relative")
    fit = approx.minimax(target, (7, 0), fixed={"p1": 1})
    assert fit.converged
    assert fit.rational.numerator[1] == 1
    x = np.linspace(1e-3, 1.5, 4001)
    assert np.max(np.abs(fit.rational(x) / np.sin(x) - 1)) == pytest.approx(fit.error, rel=1e-4)
    # sin(x)/x - 1 over x^2, x^4, x^6
    columns = x[:, None] ** np.array([2, 4, 6]) * (x / np.sin(x))[:, None]
    columns, right = 1e6 * columns, 1e6 * (1 - x / np.sin(x))  # the tolerance of the solver is absolute
    ones = np.ones((len(x), 1))
    rows = np.vstack([np.hstack([columns, -ones]), np.hstack([-columns, -ones])])
    best = linprog([0, 0, 0, 1], rows, np.r_[right, -right], bounds=(None, None), method="highs").fun
    assert 1e6 * fit.error == pytest.approx(best, rel=1e-4)
    with pytest.raises(ValueError, match="p0 = 0"):
        approx.minimax(target, (5, 0), fixed={"p0": 0.1})
    with pytest.raises(ValueError, match="only one at 0"):
        approx.minimax(
            approx.formula("(x-0.5)*exp(x)", (0, 1)).with_weight("relative"), (3, 1), fixed={"q0": 1}
        )


def test_in_a_format_and_with_many_digits():
    target = approx.formula("sin(x)", (-1, 1)).with_weight("relative")
    fit = approx.minimax(target, (5, 0), fixed={"p1": 1}, coefficients="float32")
    assert fit.rational.numerator[1] == 1
    assert fit.levelled < fit.error < 1.01 * fit.levelled
    assert all(v == np.float32(v) for v in fit.rational.numerator)
    deep = approx.minimax(approx.exp(), (5, 0), fixed={"p0": 1, "p1": 1}, digits=40)
    assert deep.converged
    assert deep.rational.bits > 130


def test_a_function_of_the_family_is_found():
    fit = approx.minimax(approx.formula("x**2/(1+x)", (0, 1)), (2, 1), fixed={"p2": 1})
    assert fit.verdict is approx.Verdict.EXACT
    assert fit.error < 1e-15


@pytest.mark.parametrize(
    ("fixed", "type", "says"),
    [
        ({}, (3, 2), "empty"),
        ({"p4": 1}, (3, 2), "no coefficient"),
        ({"a": 1}, (3, 2), "no coefficient"),
        ({"q0": 0}, (3, 0), "denominator is 0"),
        ({"p0": 0, "p1": 0, "p2": 0, "p3": 0}, (3, 2), "the function is 0"),
        ({"p0": 0, "p1": 0, "q0": 1, "q1": 0.5}, (1, 1), "the function is 0"),
        ({"p0": float("nan")}, (3, 2), "not finite"),
    ],
)
def test_coefficients_that_cannot_be_are_refused(fixed, type, says):
    with pytest.raises(ValueError, match=says):
        approx.minimax(approx.exp(), type, fixed=fixed)


def test_it_excludes_pins_and_poles():
    with pytest.raises(ValueError, match="excludes"):
        approx.minimax(approx.exp(), (3, 0), fixed={"p0": 1}, pinned={0: 1})
    with pytest.raises(ValueError, match="q0 = 1"):
        approx.minimax(approx.exp(), (3, 1), fixed={"p1": 1}, coefficients="float32")
