"""Best approximation of samples: against continuous fits, linear programs, and data that are rational."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Samples, Verdict


def largest(samples, r) -> float:
    return float(np.max(np.abs(samples.w * (samples.y - r(samples.x)))))


@pytest.mark.parametrize(
    ("text", "domain"), [("exp(x)", (-1, 2)), ("abs(x - 0.3)", (-1, 1)), ("atan(5*x)", (-1, 2))]
)
@pytest.mark.parametrize("type", [(3, 2), (2, 3), (4, 0), (0, 3)])
def test_dense_samples_give_the_best_approximation(text, domain, type):
    kinks = [0.3] if "abs" in text else []
    target = approx.formula(text, domain, kinks=kinks)
    # without the ends of the sampling, fewer points: never more error than the function has
    x = np.unique(np.r_[np.linspace(domain[0], domain[1], 4001), kinks])
    whole = approx.minimax(target, type)
    fit = approx.minimax((x, target(x)), type)
    assert fit.converged
    assert fit.levelled <= whole.error * (1 + 1e-9)
    assert fit.error == pytest.approx(whole.error, rel=1e-3)
    assert largest(fit.target, fit.rational) == pytest.approx(fit.error, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_noise_has_a_bound_that_holds(seed, m, n, weighted):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-1, 2, 80))
    y = np.sin(2 * x) + 0.1 * rng.normal(size=80)
    samples = Samples(x, y, errors=rng.uniform(0.05, 0.2, 80) if weighted else None)
    fit = approx.minimax(samples, (m, n))
    assert largest(samples, fit.rational) == pytest.approx(fit.error, rel=1e-9)
    assert fit.levelled <= fit.error * (1 + 1e-12)
    assert not [p for p in fit.rational.poles() if p.imag == 0 and x[0] <= p.real <= x[-1]]
    # a smaller type cannot be below the bound, nor below the error if that is called best
    for smaller in ((m, 0), (max(m - 1, 0), n)):
        other = approx.minimax(samples, smaller)
        assert other.error >= fit.levelled * (1 - 1e-9)
        if fit.converged:
            assert other.error >= fit.error * (1 - 1e-6)


def test_rational_data_are_hit():
    x = np.linspace(0, 3, 50)
    fit = approx.minimax((x, (1 + 2 * x) / (3 + x + x**2)), (2, 2))
    assert fit.verdict is Verdict.EXACT
    assert fit.error < 1e-13


@given(st.floats(0, 15), st.integers(1, 5), st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_values_that_vary_in_their_last_digits(power, m, n):
    """Readings of a clock: what is best for y - c is best for y, where c is a function of the type."""
    x = np.linspace(0, 2, 60)
    y = 10.0**power + np.sin(3 * x)
    middle, unit = float(np.median(y)), float(np.spacing(np.max(np.abs(y))))
    if not np.all((y - middle) + middle == y):
        return
    n = min(m, n)
    fit, plain = approx.minimax((x, y), (m, n)), approx.minimax((x, y - middle), (m, n))
    assert largest(Samples(x, y), fit.rational) == pytest.approx(fit.error, rel=1e-6, abs=unit)
    assert fit.levelled <= plain.error * (1 + 1e-6)
    if fit.verdict is Verdict.EXACT:
        assert fit.error <= 8 * unit
    if plain.converged:
        assert fit.error <= plain.error * (1 + 1e-6) + 8 * unit


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_few_points_are_interpolated(m, n, seed):
    """Through m + n + 1 points of a function without poles near them goes a p/q."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0, 1, rng.integers(1, m + n + 2)))
    if len(x) < 2 or np.min(np.diff(x)) < 0.02:
        return
    fit = approx.minimax((x, np.exp(x)), (m, n))
    assert fit.verdict is Verdict.EXACT
    assert fit.error < 1e-13
    assert fit.rational.type[0] <= m
    assert fit.rational.type[1] <= n


def test_zero_is_best_where_it_alternates():
    x = np.linspace(-1, 1, 40)
    fit = approx.minimax((x, 1 / x), (0, 1))
    assert fit.converged
    assert fit.error == pytest.approx(39)
    assert fit.levelled == pytest.approx(39)


def test_a_million_samples_with_error_bars():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 10, 10**6))
    truth = (1 + x) / (2 + x**2)
    y, errors = truth + 1e-3 * rng.normal(size=len(x)), 1e-3
    fit = approx.least_squares((x, y, errors), (1, 2))
    assert fit.history[-1] >= 0
    # a thousandth of the noise: the parameters are known that well
    assert np.max(np.abs(fit.rational(x) - truth)) < 3e-5
    best = approx.minimax((x, truth, errors), (1, 1))
    assert best.converged
    assert best.levelled <= best.error <= best.levelled * (1 + 1e-8)


def test_least_squares_of_few_samples_is_a_minimum():
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(-1, 1, 200))
    y = 1 / (1 + 8 * x**2) + 0.01 * rng.normal(size=200)
    fit = approx.least_squares((x, y), (2, 2))
    mse = np.mean((y - fit.rational(x)) ** 2)
    assert mse <= np.mean((y - 1 / (1 + 8 * x**2)) ** 2)
    assert fit.converged
    assert fit.error == pytest.approx(np.max(np.abs(y - fit.rational(x))))


def test_repeated_points_are_no_obstacle():
    x = np.repeat(np.linspace(0, 1, 30), 3)
    y = np.exp(x) + np.tile([-0.01, 0, 0.01], 30)
    fit = approx.minimax((x, y), (2, 0))
    assert fit.error >= 0.01 * (1 - 1e-9)
    assert fit.levelled <= fit.error
    assert approx.least_squares((x, y), (4, 0)).error == pytest.approx(0.01, rel=0.1)


def test_what_belongs_to_functions_is_refused():
    x = np.linspace(0, 1, 20)
    with pytest.raises(ValueError, match="samples"):
        approx.minimax((x, x), (1, 0), digits=50)
    with pytest.raises(ValueError, match="nothing is known between"):
        approx.certify(approx.minimax((x, x**2), (1, 0)))
    with pytest.raises(ValueError, match="as many points"):
        approx.least_squares((x[:5], x[:5]), (3, 2))
    assert "rational" in approx.export(approx.minimax((x, np.exp(x)), (2, 1)), "python")


@given(st.integers(0, 99), st.booleans())
@settings(max_examples=15, deadline=None)
def test_measurements_that_are_repeated_bound_the_error(seed, weighted):
    """No function meets two values at a point: half of their distance (as weighted) is a lower bound."""
    rng = np.random.default_rng(seed)
    x = np.repeat(np.linspace(0, 1, 9), 4)
    y = np.exp(x) + rng.normal(size=len(x)) * np.repeat(np.r_[1.0, np.full(8, 0.02)], 4)
    errors = np.repeat(rng.uniform(0.5, 2, 9), 4) if weighted else np.ones(len(x))
    fit = approx.minimax((x, y, errors), (3, 1))
    spread = max((y[k : k + 4].max() - y[k : k + 4].min()) / 2 / errors[k] for k in range(0, len(x), 4))
    assert fit.levelled >= spread * (1 - 1e-12)
    assert fit.error == pytest.approx(float(np.max(np.abs(y - fit.rational(x)) / errors)), rel=1e-9)
    if fit.error <= spread * (1 + 1e-9):
        assert fit.converged


def test_samples_of_a_kink_are_met_as_well_as_they_can_be():
    """The linear programs end elsewhere in this type; the best of a smaller one leads there."""
    x = np.linspace(-1, 1, 1001)
    fit = approx.minimax((x, np.maximum(x, 0)), (9, 8))
    assert fit.verdict is Verdict.BEST
    assert fit.error < approx.minimax(approx.relu(), (9, 8)).error  # which is the best at all points
    assert fit.levelled == pytest.approx(fit.error, rel=1e-9)


@given(
    st.floats(-300, 300),
    st.floats(-300, 300),
    st.sampled_from([(3, 2), (2, 2), (4, 0)]),
    st.sampled_from([float, np.float32]),
    st.booleans(),
    st.floats(-1e5, 1e5),
)
@settings(max_examples=30, deadline=None)
def test_convergence_does_not_depend_on_units_formats_and_repetition(
    y_unit, x_unit, type, kind, twice, offset
):
    offset = offset if kind is float else offset / 1e5  # float32 leaves a staircase of a larger one
    x = np.linspace(0, 1, 100).astype(kind).astype(float)
    y = (np.exp(x) + offset).astype(kind).astype(float)
    if twice:
        x, y = np.r_[x, x], np.r_[y, y]
    fit = approx.minimax((x * 10.0**x_unit, y * 10.0**y_unit), type)
    assert fit.converged
    if kind is float:
        plain = approx.minimax(approx.Samples(x, y), type)
        assert fit.error / 10.0**y_unit == pytest.approx(plain.error, rel=1e-6, abs=1e-15 * np.max(np.abs(y)))
