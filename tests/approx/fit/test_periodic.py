"""Even periodic functions: known best errors, and proofs in x."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

import approx
from approx import periodic


@given(st.floats(0.2, 4), st.integers(1, 5))
@settings(max_examples=10)
def test_a_pole_in_the_cosine_has_a_known_best_error(gap, m):
    """1/(a - c) on [-1, 1] by polynomials of degree m: (a - sqrt(a^2 - 1))^m/(a^2 - 1) (Chebyshev)."""
    a = 1 + gap
    fit = periodic(f"1/({a!r}-cos(x))", (m, 0))
    assert fit.converged
    assert fit.error == pytest.approx((a - np.sqrt(a * a - 1)) ** m / (a * a - 1), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "f", "options"),
    [
        ("exp(cos(x))", lambda x: np.exp(np.cos(x)), {}),
        ("exp(cos(3*x))", lambda x: np.exp(np.cos(3 * x)), {"period": "2*pi/3"}),
        ("log(2+cos(2*pi*x))", lambda x: np.log(2 + np.cos(2 * np.pi * x)), {"period": 1.0}),
        ("exp(sin(x))", lambda x: np.exp(np.sin(x)), {"centre": np.pi / 2}),
    ],
)
def test_the_error_is_the_same_in_every_period(text, f, options):
    fit = periodic(text, (3, 2), **options)
    assert fit.converged
    x = np.linspace(-20, 20, 40001)
    seen = float(np.max(np.abs(f(x) - fit(x))))
    assert seen == pytest.approx(fit.error, rel=1e-4)
    bounds = fit.certify()
    assert bounds.lower * (1 - 1e-9) <= fit.error <= bounds.upper <= fit.error * (1 + 1e-3)
    assert fit.levelled <= bounds.upper


def test_one_in_the_cosine_is_the_problem_on_the_interval():
    assert periodic("exp(cos(x))", (4, 3)).error == pytest.approx(
        approx.minimax(approx.exp(), (4, 3)).error, rel=1e-7
    )


def test_kinks():
    fit = periodic("max(cos(x),0)", (6, 6))
    assert fit.converged
    assert fit.error == pytest.approx(approx.minimax(approx.relu(), (6, 6)).error, rel=1e-6)
    with pytest.raises(ArithmeticError, match="kink"):
        periodic("abs(sin(x))", (4, 4)).certify()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: periodic("sin(x)", (2, 2)), r"even about centre=0.*approx\.aaa"),
        (lambda: periodic("exp(x)+exp(-x)", (2, 2)), "of period"),
        (lambda: periodic("cos(x)", (2, 2), period=-1), "period"),
        (lambda: periodic("cos(x)", (2, 2), centre=np.inf), "centre"),
        (lambda: periodic(approx.Target(np.cos), (2, 2)).certify(), "enclosure"),
    ],
)
def test_what_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("type", [(3, 2), (6, 6), (8, 8)])
@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("exp(sin(x))", {"centre": np.pi / 2}),
        ("exp(sin(x))", {"centre": "pi/2"}),
        ("exp(cos(x))", {"period": 2 * np.pi}),
        ("exp(cos(x))", {}),
        ("exp(cos(x-1/3))", {"centre": 1 / 3}),
    ],
)
def test_what_is_stated_holds_on_both_sides_of_the_centre(text, options, type):
    """Also where a float64 centre or period is not quite the function's own."""
    fit = periodic(text, type, **options)
    bounds = fit.certify()
    with mp.workdps(60):
        period = 2 * mp.pi if isinstance(fit.period, str) else mp.mpf(fit.period)
        centre = mp.pi / 2 if isinstance(fit.centre, str) else mp.mpf(fit.centre)
        f = {"exp(sin(x))": lambda x: mp.exp(mp.sin(x)), "exp(cos(x))": lambda x: mp.exp(mp.cos(x))}.get(
            text, lambda x: mp.exp(mp.cos(x - mp.mpf(1) / 3))
        )
        num, den = ([mp.mpf(int(c.p)) / int(c.q) for c in p.coeffs()] for p in fit.inner.rational.exact())
        seen = mp.mpf(0)
        for k in range(-300, 301):
            c = mp.cos(mp.pi * k / 300)
            r = mp.polyval(num[::-1], c) / mp.polyval(den[::-1], c)
            seen = max(seen, abs(f(centre + period * k / 600) - r))
    assert seen <= bounds.upper
    assert seen <= fit.error * (1 + 1e-3)
    assert fit.levelled <= bounds.upper
    assert bounds.upper <= fit.error * 1.1
    if options in ({}, {"centre": "pi/2"}):
        assert fit.converged


def test_what_is_met_exactly_is_proven():
    bounds = periodic("cos(3*x)", (3, 0)).certify()
    assert bounds.upper < 1e-29
    with pytest.raises(ArithmeticError, match="kink"):
        periodic("max(cos(x),0)", (5, 4)).certify()


def test_what_is_no_target_is_named_and_the_verdict_is_there():
    with pytest.raises(ValueError, match="expected an approx.Target"):
        periodic(np.cos, (2, 2))  # type: ignore[arg-type]
    fit = periodic("exp(cos(x))", (2, 2))
    assert fit.verdict is fit.inner.verdict
    assert fit.message == fit.inner.message
