import itertools

import numpy as np
import pytest

import approx
from approx.fit.grid import grid_mse

DENOMINATORS = ["standard", "safe", "safe-b"]


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("target", [approx.relu(), approx.jump_relu(), approx.gelu()], ids=lambda t: t.name)
def test_errors_fall_with_the_type_and_beat_minimax_in_the_mean(target, denominator):
    fits = [approx.least_squares(target, (k + 1, k), denominator) for k in (2, 4)]
    mse = [grid_mse(f.rational, target) for f in fits]
    assert all(b < a for a, b in itertools.pairwise(mse))
    for fit, value in zip(fits, mse, strict=True):
        assert value == pytest.approx(min(fit.history), rel=1e-6, abs=1e-30)
        best = approx.minimax(target, fit.type)
        if denominator == "standard":
            assert value <= grid_mse(best.rational, target) * (1 + 1e-9)
            assert fit.error >= best.levelled * (1 - 1e-9)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("fitter", [approx.least_squares, approx.smoothed_linf])
def test_no_larger_type_is_worse(fitter, denominator):
    target = approx.jump_relu()
    error = {}
    for type in itertools.product(range(4), range(3)):
        fit = fitter(target, type, denominator, grid=401)
        error[type] = (
            grid_mse(fit.rational, target, 401) if fitter is approx.least_squares else fit.history[-1]
        )
    for (m, n), value in error.items():
        for wider in ((m + 1, n), (m, n + 1), (m + 2, n + 2)):
            # the last power of the p-norm leaves a percent
            slack = 1e-6 if fitter is approx.least_squares or wider[0] == m + 2 else 2e-2
            assert error.get(wider, 0.0) <= value * (1 + slack), (m, n, wider)


def test_a_real_pole_stays_off_the_hull():
    for target in (approx.relu(), approx.formula("1/(1.0000001 - x)")):
        fit = approx.least_squares(target, (2, 1))
        assert not [p for p in fit.rational.poles() if p.imag == 0 and abs(p.real) <= 1]


def test_relu_at_the_papers_types_beats_its_best_published_fit():
    assert grid_mse(approx.least_squares(approx.relu(), (9, 8)).rational, approx.relu()) < 3.8e-7 / 10


def test_even_denominators_are_one_rational_function():
    fit = approx.least_squares(approx.relu(), (3, 2), "safe-b")
    assert fit.rational.type == (3, 2)


def test_safe_denominators_have_two_branches():
    fit = approx.least_squares(approx.jump_relu(), (3, 2), "safe")
    branches = fit.rational.branches()
    assert [(a, b) for a, b, _ in branches] == [(-1.0, 0.0), (0.0, 1.0)]
    for a, b, r in branches:
        x = np.linspace(a, b, 33)
        assert r(x) == pytest.approx(fit.rational(x), rel=1e-12)
    with pytest.raises(ValueError, match="branches"):
        fit.rational.exact()
    assert np.all(np.asarray(fit.rational(np.linspace(-50, 50, 999)) < 1e9))


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_results_survive_a_file(tmp_path, denominator):
    r = approx.least_squares(approx.jump_relu(), (3, 2), denominator).rational
    r.save(tmp_path / "r.json")
    assert approx.load(tmp_path / "r.json") == r


def test_agreement_with_a_direct_solution():
    # n = 0 is linear least squares: the answer is known
    fit = approx.least_squares(approx.exp(), (4, 0), grid=501)
    x = np.linspace(-1, 1, 501)
    assert fit.rational(x) == pytest.approx(np.polynomial.Polynomial.fit(x, np.exp(x), 4)(x), abs=1e-13)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="denominator"):
        approx.least_squares(approx.relu(), (3, 2), "safer")
    with pytest.raises(ValueError, match="grid"):
        approx.least_squares(approx.relu(), (3, 2), grid=7)


@pytest.mark.parametrize(
    ("target", "type"),
    [
        # their good poles are real, and several
        (approx.formula("1/sqrt(x)", (0.01, 1)), (4, 4)),
        (approx.formula("log(x)", (0.01, 10)), (5, 4)),
        (approx.sqrt(), (5, 4)),
        (approx.formula("x**0.3", (0.001, 2)), (3, 3)),
    ],
    ids=str,
)
def test_never_worse_than_the_minimax_fit_it_starts_from(target, type):
    best = approx.minimax(target, type)
    fit = approx.least_squares(target, type)
    assert grid_mse(fit.rational, target) <= grid_mse(best.rational, target) * (1 + 1e-2)
    assert not [p for p in fit.rational.poles() if p.imag == 0 and target.hull[0] <= p.real <= target.hull[1]]


@pytest.mark.parametrize(
    ("target", "type"),
    [
        (approx.formula("1/sqrt(x)", (0.01, 1)), (4, 4)),
        (approx.formula("log(x)", (0.01, 10)), (5, 4)),
        (approx.sqrt(), (5, 4)),
        (approx.formula("x**0.3", (1e-3, 1)), (3, 3)),
    ],
)
def test_several_real_poles_are_parameters(target, type):
    fit = approx.least_squares(target, type)
    assert fit.verdict is approx.Verdict.STATIONARY  # and not the minimax fit that it starts from
    assert np.sum(np.imag(fit.rational.poles()) == 0) > 1
    best = approx.minimax(target, type)
    assert grid_mse(fit.rational, target) < 0.9 * grid_mse(best.rational, target)
    assert fit.error >= best.levelled


@pytest.mark.parametrize("size", [900, 25000])
@pytest.mark.parametrize("type", [(3, 0), (2, 1)])
def test_the_history_ends_at_the_mean_square_of_the_result(size, type):
    """More than 20000 samples are searched by means of neighbours, without their scatter."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 1, size))
    y = np.exp(x) + 1e-3 * rng.normal(size=size)
    fit = approx.least_squares((x, y, 1e-3), type)
    assert fit.history[-1] == pytest.approx(float(np.mean(((y - fit.rational(x)) / 1e-3) ** 2)), rel=1e-9)
    assert min(fit.history) == pytest.approx(fit.history[-1], rel=1e-9)
