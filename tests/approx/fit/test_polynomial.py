from fractions import Fraction
from math import prod

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Verdict
from approx.dyadic import precision
from approx.fit.error import level_in_balls
from approx.fit.polynomial import _interpolate, _Look, _weights, level_below

chirps = st.tuples(st.floats(-1, 1), st.floats(1, 12)).map(lambda v: f"({v[0]:.3f})*sin({v[1]:.3f}*x*x)")
squares = st.tuples(st.floats(-1, 1), st.floats(2, 40)).map(lambda v: f"({v[0]:.3f})*sin({v[1]:.3f}*x)**2")
folds = st.tuples(st.floats(-1, 1), st.floats(1, 9)).map(lambda v: f"({v[0]:.3f})*abs(sin({v[1]:.3f}*x))")
waves = st.lists(st.one_of(chirps, squares, folds), min_size=1, max_size=3).map("+".join)


@given(waves, st.floats(-4, 0), st.floats(0.5, 4), st.integers(10, 60))
@settings(max_examples=8, deadline=None)
def test_polynomials_for_targets_with_many_turns_arrive(text, low, high, degree):
    fit = approx.minimax(approx.formula(text, (low, high)), (degree, 0))
    assert fit.verdict.converged
    assert fit.levelled <= fit.error * (1 + 1e-9)
    x = np.linspace(low, high, 20001)
    seen = float(np.max(np.abs(fit.target(x) - fit.rational(x))))
    assert seen <= fit.error * (1 + 1e-9) + 1e-13


def test_a_level_that_a_few_points_make_up_is_proven():
    fit = approx.minimax(approx.formula("sin(x)**2+sin(x**2)", (-10, 10)), (50, 0))
    assert fit.verdict is Verdict.BEST
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower > proof.upper * (1 - 1e-9)


@pytest.mark.parametrize("degree", [100, 300, 500, 1000, 2000])
def test_peaks_between_points_at_unequal_distances_are_met(degree):
    fit = approx.minimax(approx.formula("abs(x)"), (degree, 0))
    assert fit.verdict is Verdict.BEST
    # Varga and Carpenter (1985): 2 n E_2n of |x| tends to this number, from below as the square of 1/n
    assert degree * fit.error == pytest.approx(0.28016949902386913 - 0.0439675 / (degree / 2) ** 2, abs=3e-8)
    assert fit.levelled == pytest.approx(fit.error, rel=1e-9)


def test_sqrt_in_degree_n_is_abs_in_degree_2n():
    degree = 500
    whole, half = (
        approx.minimax(approx.formula("abs(x)"), (2 * degree, 0)),
        approx.minimax(approx.formula("sqrt(x)", (0, 1)), (degree, 0)),
    )
    assert whole.verdict is half.verdict is Verdict.BEST
    assert half.error == pytest.approx(whole.error, rel=2e-9)


def test_a_steep_target_is_levelled_to_float64():
    """tanh(80(x - 0.2)): angles that are rounded, and weights by logarithms, left 5e-9 of the error."""
    fit = approx.minimax(approx.formula("tanh(80*(x-0.2))"), (500, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.levelled > fit.error * (1 - 1e-9)
    assert len(fit.history) < 20


def test_what_float64_hardly_sees_on_two_intervals_is_left_to_arbitrary_precision():
    """Linear programs on grids of rounding took minutes."""
    fit = approx.minimax(approx.formula("abs(x)", [(-1, -0.3), (0.2, 1)]), (100, 0))
    assert fit.verdict is Verdict.BEST
    # on symmetric domains within and around it |x| = sqrt(x^2)
    below, above = (approx.minimax(approx.formula("sqrt(x)", (a * a, 1)), (50, 0)).error for a in (0.3, 0.2))
    assert below < fit.levelled <= fit.error * (1 + 1e-12) < above


@pytest.mark.parametrize("degree", [100, 1000])
def test_zero_is_best_for_what_turns_often_enough(degree):
    fit = approx.minimax(approx.formula("sin(3000*x)"), (degree, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.error == pytest.approx(1, rel=1e-9)
    assert fit.levelled > 1 - 1e-9


def test_a_polynomial_that_is_huge_between_its_points_is_summed_beside_them():
    """On the way its series, of terms up to 1e13, lost the errors of 5e-4 that the next points are found by."""
    text = "-0.758*sin(31.856*x)**2+0.227*abs(sin(6.51*x))+0.594/(1+251*x**2)"
    fit = approx.minimax(approx.formula(text, (-0.8035381334662404, 2.3200882413800734)), (1000, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.levelled > fit.error * (1 - 1e-9)


def test_many_folds_arrive_however_large_the_polynomials_are_on_the_way():
    """Errors of 1e7 on the way made the exchange give up, while its level rose with each step."""
    fit = approx.minimax(
        approx.formula("abs(sin(6.29*x))", (-1.9962863003348006, 2.1887305702720274)), (800, 0)
    )
    assert fit.verdict is Verdict.BEST
    assert fit.levelled > fit.error * (1 - 1e-9)


turns = st.tuples(st.floats(0.3, 1), st.floats(0.5, 1.5), st.floats(0, 3))
extra = st.sampled_from(
    ["", "+sqrt(x+1)", "+0.3*abs(x-0.21)", "+tanh(300*(x-0.4))", "+0.4*exp(-200*(x+0.3)**2)"]
)


@given(turns, extra, st.floats(1, 1.5), st.integers(60, 250))
@settings(max_examples=3, deadline=None)
def test_targets_that_turn_about_as_often_as_the_degree_arrive(turn, more, high, degree):
    """Errors of the size of the target, multipliers of many decades: levels fell by rounding, and it was given up."""
    a, share, phase = turn
    text = f"{a:.3f}*sin({share * degree * 2 / (1 + high):.2f}*x+{phase:.2f}){more}"
    fit = approx.minimax(approx.formula(text, (-1, high)), (degree, 0))
    assert fit.verdict.converged
    assert fit.levelled <= fit.error * (1 + 1e-9)
    x = np.linspace(-1, high, 20001)
    assert float(np.max(np.abs(fit.target(x) - fit.rational(x)))) <= fit.error * (1 + 1e-9) + 1e-13


@pytest.mark.parametrize("scale", ["1e100", "1e-100"])
def test_turns_arrive_at_any_scale(scale):
    target = approx.formula(f"{scale}*sin(150*x+1)", (-1, 1.3))
    fit = approx.minimax(target, (150, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.error == pytest.approx(float(scale), rel=0.1)


def test_a_spike_of_waves_arrives_in_a_high_degree():
    """Most peaks of the error hardly count: the exchange met fewer points than it needs, and began anew."""
    fit = approx.minimax(approx.formula("0.514*sin(1090.51*x)*exp(-519.3*(x-0.14)**2)"), (500, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.levelled > fit.error * (1 - 1e-9)


def test_a_level_on_points_bounds_every_polynomial():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-1, 1, 9))
    f, w = np.exp(x), 1 + x**2
    bound = level_below(x, f, w)
    basis = np.vander(x, 8)
    for _ in range(200):
        p = basis @ rng.normal(size=8)
        assert np.max(w * np.abs(f - p)) >= bound
    best = np.linalg.solve(np.c_[basis, (-1.0) ** np.arange(9) / w], f)
    assert abs(best[-1]) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize(
    ("f", "height"), [(lambda x: x * np.exp(1 - x), 1.0), (lambda x: -np.sqrt(x) * np.exp((1 - x) / 2), 1.0)]
)
@pytest.mark.parametrize("right", [1.6, 3.0, 9.0])
def test_a_peak_far_from_where_it_is_looked_for_is_found_or_neared(f, height, right):
    """Neighbours at unequal distances: sqrt in degree 2000 stayed 2e-7 below its highest peak, one step beside it."""
    for at in np.linspace(0.5, 1.5, 101):
        look = _Look((0.0, 10.0), [(0.0, 10.0)], np.array([]), lambda x: (f(x), np.ones_like(x)))
        _, found = look.peaks(np.array([0.0, at, right]), np.zeros_like)
        assert np.abs(found).max() == pytest.approx(height, rel=1e-4)


@given(st.integers(2, 60), st.floats(0, 4), st.floats(1e-3, 1), st.integers(0, 2**32 - 1))
def test_interpolation_is_sharp_off_its_points_too(count, beyond, spread, seed):
    random = np.random.default_rng(seed)
    x = np.unique(np.round(random.uniform(-1, 1, count) ** 3 * 2**20)) * 2.0**-20 * spread
    values = random.uniform(0.5, 1, len(x))
    at = spread * np.array([-1 - beyond, 1 + beyond, *random.uniform(-1, 1, 3)])
    at = at[~np.isin(at, x)]
    points = [fmpq(*v.as_integer_ratio()) for v in x.tolist()]
    for place, found in zip(at.tolist(), _interpolate(x, values, _weights(x), at).tolist(), strict=True):
        t, sum, size = fmpq(*place.as_integer_ratio()), fmpq(0), fmpq(0)
        for own, value in zip(points, values.tolist(), strict=True):
            term = fmpq(*value.as_integer_ratio())
            for other in points:
                if other != own:
                    term *= (t - other) / (own - other)
            sum, size = sum + term, size + abs(term)
        assert abs(fmpq(*found.as_integer_ratio()) - sum) <= size * fmpq(1, 10**12)


@given(st.floats(0.2, 0.8), st.floats(0.05, 0.9), st.floats(5, 60), st.integers(31, 130))
@settings(max_examples=6, deadline=None)
def test_squares_on_two_intervals_are_halves_of_degrees_on_one(a, fold, turn, half):
    """Points of Chebyshev's on both were no start in high degrees, and float64 cannot hold the result in a gap."""
    inside = a * a + (1 - a * a) * fold
    text = "abs({x}-{inside:.4f})+0.1*sin({turn:.3f}*{x})"
    whole = approx.formula(text.format(x="x**2", inside=inside, turn=turn), [(-1, -a), (a, 1)])
    # a fold at sqrt(inside) is a fold of each half
    part = approx.formula(text.format(x="x", inside=inside, turn=turn), (a * a, 1))
    both, one = approx.minimax(whole, (2 * half, 0)), approx.minimax(part, (half, 0))
    assert both.verdict is one.verdict is Verdict.BEST
    assert both.error == pytest.approx(one.error, rel=3e-9)


def test_a_filter_below_float64s_digits_arrives():
    """A low pass of -160 dB: what was left was rounded in units of 1, not of itself."""
    domain = [(-1, 0.3), (0.34, 1)]
    fit = approx.minimax(approx.formula("abs(x-0.32)/(x-0.32)", domain), (700, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.rational.bits > 53
    x = np.concatenate([np.linspace(a, b, 3001) for a, b in domain])
    assert np.max(np.abs(fit.target(x) - fit.rational(x))) == pytest.approx(fit.error, rel=1e-3)


def test_a_chirp_whose_multipliers_span_all_digits_is_proven():
    """No m + 2 points prove more than 6e-8 of the error; the multipliers of the linear program do."""
    text = "0.8564*abs(x-2.07512)**2.293-0.6116*cos(387.399*x**2)"
    fit = approx.minimax(approx.formula(text, (-0.353916, 2.16173)), (292, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.levelled > fit.error * (1 - 1e-9)
    x = np.linspace(-0.353916, 2.16173, 40001)
    assert np.max(np.abs(fit.target(x) - fit.rational(x))) <= fit.error * (1 + 1e-9)


def test_what_float64_cannot_evaluate_is_said():
    """The best polynomial is 1e40 in the gaps: its coefficients are, and their sum in float64 is noise."""
    fit = approx.minimax(
        approx.formula("sqrt(x+2)+sin(60*x)", [(-2, -1.5), (-0.2, 0.4), (1.2, 2.0)]), (250, 0)
    )
    assert fit.verdict is Verdict.BEST
    assert np.max(np.abs(fit.target(fit.reference) - fit.rational(fit.reference))) > 1e3
    assert "take flint.arb and more bits" in fit.message
    with precision(512):
        values = [abs(float(fit.target(arb(x)) - fit.rational(arb(x)))) for x in (-1.9, 0.1, 1.3)]
    assert max(values) <= fit.error * (1 + 1e-9)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1e-100, 1.0, 1e100]))
@settings(max_examples=30, deadline=None)
def test_the_level_in_balls_is_the_levels_bound_without_rounding(m, seed, scale):
    """Any m + 2 points bound the best error from below: in float64 with what rounding may take, in balls exactly."""
    target = approx.formula(f"{scale}*(abs(x-0.3) + sin(9*x))", (-1, 1.2)).with_weight(
        approx.formula("1/(2+x**2)", (-1, 1.2))
    )
    x = np.sort(np.random.default_rng(seed).uniform(-1, 1.2, m + 2))
    f, w = target(x), target.weight_at(x)
    rough, sharp = level_below(x, f, w), level_in_balls(target, x)
    assert rough <= sharp * (1 + 1e-14)
    assert sharp <= approx.minimax(target, (m, 0)).error * (1 + 1e-14)
    # independently: the multipliers of the points, in rational numbers
    points = [Fraction(v) for v in x.tolist()]
    v = [1 / prod((p - q for q in points if q != p), start=Fraction(1)) for p in points]
    wanted = abs(sum(a * Fraction(b) for a, b in zip(v, f.tolist(), strict=True))) / sum(
        abs(a) / Fraction(b) for a, b in zip(v, w.tolist(), strict=True)
    )
    assert sharp == pytest.approx(float(wanted), rel=1e-6, abs=1e-14 * scale)


def test_a_sharp_filter_of_a_high_degree_is_proven():
    """What float64 proves of its level was 2.4e-9 (relative) below it: the level in balls is not."""
    target = approx.formula("abs(x-0.305)/(x-0.305)", [(-1, 0.3), (0.31, 1)])
    fit = approx.minimax(target, (1900, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.error <= fit.levelled * (1 + 1e-9)
