"""Callables that are rough: steps, noise and short floats are seen, and fitted for what they are."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import approx
from approx.granularity import grain

SMOOTH = [
    np.exp,
    np.arctan,
    lambda x: np.sin(1000 * x),
    lambda x: np.sin(1e5 * x),
    lambda x: np.maximum(x, 0),
    lambda x: np.clip(8 * x, 0, 1),  # constant but for an eighth
    lambda x: np.exp(-((1e3 * np.sin(50 * x)) ** 2)),  # a comb of narrow peaks
    lambda x: np.interp(x, np.linspace(-1, 1, 101), np.exp(np.linspace(-1, 1, 101))),
    lambda x: np.sign(np.sin(40 * x)),  # steps that are as high as the function: jumps
    lambda x: 0 * x,
]


@pytest.mark.parametrize("f", SMOOTH)
def test_smooth_functions_have_no_grain_but_their_rounding(f):
    x = np.linspace(-1, 1, 1_000_001)
    slope = np.max(np.abs(np.diff(f(x)))) / (x[1] - x[0]) if f is not SMOOTH[-2] else 0.0
    assert grain(approx.Target(f)) < 4e-16 * (1 + slope)


def test_enclosed_targets_have_none():
    assert grain(approx.formula("exp(x)")) == 0


@given(st.floats(-7, -2), st.floats(-3, 3), st.floats(0.1, 10))
@settings(deadline=None, max_examples=50)
def test_steps_are_seen(exponent, low, length):
    step = 10.0**exponent
    target = approx.Target(
        lambda x: step * np.round(np.exp((x - low) / length) / step), domain=(low, low + length)
    )
    assert 0.2 * step <= grain(target) <= 2 * step


@given(st.floats(-9, -2), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_noise_is_seen(exponent, seed):
    size = 10.0**exponent
    noise = np.random.default_rng(seed)
    target = approx.Target(lambda x: np.exp(x) + noise.uniform(-size, size, np.shape(x)))
    assert 0.2 * size <= grain(target) <= 3 * size


@pytest.mark.parametrize(("bits", "dtype"), [(10, np.float16), (23, np.float32)])
def test_short_floats_are_seen(bits, dtype):
    for f in (lambda x: np.exp(x).astype(dtype), lambda x: np.exp(np.asarray(x, dtype))):
        assert 2.0 ** -(bits + 2) < grain(approx.Target(f)) < 2.0 ** (2 - bits)


@given(
    st.sampled_from(["float16", "float32", "float16 of x", "table"]),
    st.tuples(st.floats(-3, 3), st.floats(0.5, 4), st.floats(-0.5, 0.5)),
    st.integers(100, 3000),
)
@settings(deadline=None, max_examples=100)
def test_roughness_is_about_the_distance_from_the_smooth_function(how, shape, size):
    shift, rate, growth = shape

    def smooth(x):
        return np.sin(rate * x + shift) + growth * np.exp(x)

    def rough(x):
        x = np.asarray(x, dtype=float)
        if how == "table":
            return smooth(np.round(x * size) / size)
        if how == "float16 of x":
            return smooth(x.astype(np.float16).astype(float))
        return smooth(x).astype(how).astype(float)

    x = np.linspace(-1, 1, 200_001)
    away = np.max(np.abs(rough(x) - smooth(x)))
    assert 0.3 * away < grain(approx.Target(rough)) < 4 * away


ROUGH = {
    "round": lambda y, size: size * np.round(y / size),
    "floor": lambda y, size: size * np.floor(y / size),
    "float16": lambda y, size: y.astype(np.float16),
    "float32": lambda y, size: y.astype(np.float32),
}


@given(
    st.sampled_from(sorted(ROUGH)),
    st.floats(-6, -2),
    st.tuples(st.integers(0, 4), st.integers(0, 3)),
    st.tuples(st.floats(-2, 2), st.floats(0.5, 3)),
)
@example("round", -3.0, (3, 2), (0.0, 1.0))
@example("float16", -3.0, (3, 2), (0.0, 1.0))
@example(
    "float16", -2.0, (2, 3), (0.9085558365502728, 2.114670728838104)
)  # with much finer steps near its zero
@settings(deadline=None, max_examples=15)
def test_fits_of_rough_callables_end_and_are_as_good_as_their_values(how, exponent, type, shape):
    shift, rate = shape
    size = 10.0**exponent

    def smooth(x):
        return np.sin(rate * x + shift) + 0.3 * np.exp(x)

    def rough(x):
        return np.asarray(ROUGH[how](smooth(np.asarray(x, dtype=float)), size), dtype=float)

    fit = approx.minimax(approx.Target(rough), type)
    x = np.random.default_rng(0).uniform(-1, 1, 100_000)
    seen = np.max(np.abs(rough(x) - fit.rational(x)))
    away = np.max(np.abs(rough(x) - smooth(x)))
    best = approx.minimax(approx.Target(smooth), type)
    assert seen <= fit.error * 1.05 + 0.5 * away
    assert fit.levelled <= fit.error
    assert fit.levelled <= best.error + away * (1 + 1e-9)  # the smooth one's best does as well
    assert fit.error <= 1.1 * (best.error + away)
    if away > 0.1 * fit.error:
        assert not fit.converged
        assert "rough" in fit.message


def test_a_rough_callable_on_a_union_with_a_weight():
    target = approx.Target(
        lambda x: np.round(np.exp(x), 3), domain=[(-1, -0.2), (0.1, 1)], weight=lambda x: 2 + x
    )
    fit = approx.minimax(target, (2, 2))
    x = np.r_[np.linspace(-1, -0.2, 50_000), np.linspace(0.1, 1, 50_000)]
    assert np.max((2 + x) * np.abs(np.round(np.exp(x), 3) - fit.rational(x))) <= 1.05 * fit.error
    assert fit.rational.domain == target.domain
    assert fit.target is target
    assert 0 < fit.levelled <= fit.error < 1.2 * fit.levelled
