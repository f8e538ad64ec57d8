import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import approx
from approx import Target
from approx.fit.result import check_target


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


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("1/x", (1e-20, 1)),
        ("log(x)", (1, 1e100)),
        ("log(x)", (1e-200, 1)),
        ("1/(1 + x)", (0, 1e20)),
        ("atan(x)", (0, 1e20)),
        ("atan(x)", (-1e200, 1e200)),
        ("log(x)", (1, 1 + 2**-52)),
        ("exp(x)", (1, 1 + 2**-47)),
        ("tanh(1e300*x)", (-1, 1)),
    ],
)
def test_a_function_that_turns_over_many_decades_or_few_floats_does_not_jump(text, domain):
    check_target(approx.formula(text, domain))


@pytest.mark.parametrize("place", [0.0, 1.0, -1e-30, 1e-15, 1 / 3, 1e10])
@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_a_jump_anywhere_is_told(place, slope):
    def f(x):
        return np.sign(x - place) + slope * x / (abs(place) + 1)

    domain = (-abs(place) - 1, abs(place) + 1.5)
    with pytest.raises(ValueError, match="jumps near"):
        check_target(approx.Target(f, domain))
    check_target(approx.Target(f, domain, jumps=[place]))


@pytest.mark.parametrize(
    ("text", "domain", "says"),
    [
        ("abs(x)", (0, 1e308), "overflows"),
        ("abs(x)", (-1.7e308, 1.7e308), "overflows"),
        ("atan(x)", (0, 1e307), "overflows"),
        ("exp(-x)", (0, 1e12), "end before"),
        ("exp(-x)", (0, 1e20), "end before"),
    ],
)
def test_domains_that_no_fit_gets_through_are_refused(text, domain, says):
    with pytest.raises(ValueError, match=says):
        approx.minimax(approx.formula(text, domain), (2, 2))


def test_a_long_domain_is_fitted():
    assert approx.minimax(approx.formula("exp(-x)", (0, 1e10)), (2, 2)).error == pytest.approx(
        0.00735867, rel=1e-6
    )


@pytest.mark.parametrize("kind", ["f", "weight"])
@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: np.sum(np.exp(x)),
        lambda x: np.exp(x) / np.max(np.exp(x)),
        lambda x: np.where(np.size(x) > 1, 1 + x**2, np.nan),
        lambda x: np.cumsum(np.ones_like(x)),
        lambda x: 2 + np.exp(x) - np.mean(np.exp(x)),
    ],
    ids=["sum", "max", "nan alone", "cumsum", "mean"],
)
def test_what_mixes_its_points_is_refused(mixing, kind):
    target = approx.Target(mixing) if kind == "f" else approx.Target(np.exp, weight=mixing)
    with pytest.raises(ValueError, match="mixes its points"):
        approx.minimax(target, (2, 2))


def test_constants_and_noise_do_not_mix_their_points():
    rng = np.random.default_rng(0)
    assert approx.minimax(approx.Target(lambda x: 3.0), (1, 1)).error == 0
    noisy = approx.Target(lambda x: np.exp(x) + 1e-3 * rng.normal(size=np.shape(x)))
    assert approx.minimax(noisy, (2, 2)).error < 1e-2


@pytest.mark.parametrize(
    "text",
    ["1/(x-{c})**2", "(x-{c})**2", "abs(x-{c})", "(x-{c})**2 - 1e-5", "2+(x-{c})/abs(x-{c})"],
)
@given(c=st.floats(-0.9, 1.2))
@example(c=1.7e-225)
@settings(max_examples=10, deadline=None)
def test_weights_without_a_finite_positive_value_everywhere_are_refused(text, c):
    """A pole, a zero, a dip below 0 and a jump, wherever they lie; a grid of some points met them by chance."""
    weight = approx.formula(text.format(c=c), (-1, 1.3))
    for w in (weight, lambda x: weight(x)):
        with pytest.raises(ValueError, match="weight"):
            approx.minimax(approx.formula("exp(x)", (-1, 1.3)).with_weight(w), (3, 2))


@given(st.floats(-0.9, 1.2), st.floats(-8, 0), st.floats(1, 300))
@settings(max_examples=10, deadline=None)
def test_small_and_steep_weights_are_weights(c, power, steep):
    f = approx.formula("exp(x)", (-1, 1.3))
    for text in (f"10.0**{power}+(x-{c})**2", f"exp({steep}*x)", f"1+{steep}*exp(-(20*(x-{c}))**2)"):
        weight = approx.formula(text, (-1, 1.3))
        check_target(f.with_weight(weight))
        check_target(f.with_weight(lambda x, weight=weight: weight(x)))


def test_a_weight_of_single_floats_is_one():
    f = approx.formula("exp(x)", (-1, 1))
    each, array = (approx.minimax(f.with_weight(w), (3, 2)) for w in (math.exp, np.exp))
    assert each.error == pytest.approx(array.error, rel=1e-6)


def test_who_takes_no_weight_says_so():
    f = approx.formula("exp(cos(x))", (0, 7)).with_weight(approx.formula("exp(3*cos(x))", (0, 7)))
    with pytest.raises(ValueError, match="has a weight, and periodic takes none"):
        approx.periodic(f, (2, 2))
    with pytest.raises(ValueError, match="has a weight, and half_line takes none"):
        approx.half_line(approx.formula("exp(-x)", (0, 1)).with_weight("relative"), 4)
    with pytest.raises(ValueError, match="has a weight, and complex_minimax takes none"):
        approx.complex_minimax(f, (2, 2), approx.Region.disc())
