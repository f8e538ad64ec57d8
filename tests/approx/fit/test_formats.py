"""Coefficients in a format: never worse than rounding, and near the best that an exhaustive search finds."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx.floating_point import rounded
from approx.rational import Rational


def parameters(r: Rational) -> list[float]:
    return [float(c.p) / float(c.q) for c in r.form.parameters()]


def one_by_one(fit: approx.Fit, dtype: str) -> float:
    """The error of the real coefficients, rounded."""
    num, den = fit.rational.numerator, fit.rational.denominator
    r = Rational.from_monomial([rounded(c, dtype) for c in num], [rounded(c, dtype) for c in den])
    x = np.linspace(*fit.target.hull, 20000)  # without 0
    return float(np.max(np.abs(fit.target.weight_at(x) * (fit.target(x) - r(x)))))


@given(
    st.sampled_from(["exp(x)", "atan(2*x)", "log(1.5+x)", "1/(1.2+x)", "cos(x)"]),
    st.sampled_from(["float32", "bfloat16", "float16"]),
    st.tuples(st.integers(1, 5), st.integers(0, 2)),
)
@settings(max_examples=8, deadline=None)
def test_never_worse_than_rounding_and_held_in_the_format(text, dtype, type):
    target = approx.formula(text, (-1, 1))
    real = approx.minimax(target, type)
    fit = approx.minimax(target, type, coefficients=dtype)
    assert all(rounded(c, dtype) == c for c in parameters(fit.rational))
    assert fit.error <= one_by_one(real, dtype) * (1 + 1e-6)  # a grid misses the very peak
    assert fit.levelled <= real.error * (1 + 1e-9) <= fit.error * (1 + 2e-9)
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-7)


@pytest.mark.parametrize(("text", "bits"), [("exp(x)", 4), ("cos(3*x)", 5), ("log(2+x)", 4)])
def test_near_the_best_of_an_exhaustive_search(text, bits):
    target = approx.formula(text, (0, 1))
    fit = approx.minimax(target, (2, 0), coefficients=bits)
    real = approx.minimax(target, (2, 0)).rational.numerator
    x = np.linspace(0, 1, 401)
    units = [2.0 ** (np.frexp(c)[1] - bits) for c in real]
    choices = [np.round(c / u) * u + np.arange(-3, 4) * u for c, u in zip(real, units, strict=True)]
    best = min(np.max(np.abs(target(x) - (a + b * x + c * x * x))) for a, b, c in product(*choices))
    assert fit.error <= best * (1 + 1e-3)


def test_it_gains_where_rounding_is_bad():
    target = approx.formula("sin(x)", (-0.7853981633974483, 0.7853981633974483)).with_weight("relative")
    real = approx.minimax(target, (7, 0))
    fit = approx.minimax(target, (7, 0), coefficients="float32")
    assert not any(fit.rational.numerator[::2])
    assert fit.error < one_by_one(real, "float32") / 1.5
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-7)


@pytest.mark.parametrize(
    ("text", "type", "coefficients", "weight"),
    [
        ("exp(x)", (4, 0), "bfloat16", None),
        ("sin(x)", (5, 0), "float16", "relative"),
        ("tanh(3*x)", (5, 4), "bfloat16", None),
        ("abs(x)", (4, 4), 9, None),
        ("log(2+x)", (6, 0), 10, None),
    ],
)
def test_the_bound_of_real_coefficients_is_proven(text, type, coefficients, weight):
    """Rounded coefficients level nothing: the certificate proved 0."""
    fit = approx.minimax(approx.formula(text).with_weight(weight), type, coefficients=coefficients)
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    proof.verify()
    assert proof.best_lower == pytest.approx(fit.levelled, rel=1e-8)
    assert proof.best_lower < proof.lower


def test_more_coefficients_are_no_worse():
    target = approx.formula("tanh(x)", (-4, 4))
    errors = [approx.minimax(target, type, coefficients="bfloat16").error for type in ((5, 4), (7, 6))]
    assert errors[1] <= errors[0]


def test_wrong_formats_are_named():
    for wrong in ("float8", 1, 60):
        with pytest.raises(ValueError, match="coefficients="):
            approx.minimax(approx.exp(), (3, 0), coefficients=wrong)
    with pytest.raises(ValueError, match="overflows"):
        approx.minimax(approx.formula("1e6*exp(x)", (0, 1)), (3, 0), coefficients="float16")


@pytest.mark.parametrize("type", [(1, 1), (2, 2)])
def test_a_candidate_that_overflows_is_none(type):
    """The error hardly feels the higher coefficients on so short a domain, so that steps of the search are huge."""
    fit = approx.minimax(approx.formula("cos(x)", (0, 1e-5)), type, coefficients="float16")
    assert all(rounded(c, "float16") == c for c in parameters(fit.rational))
    assert fit.error <= 1e-10


@pytest.mark.parametrize(("text", "high"), [("cos(x)", np.pi / 2), ("sin(x)", np.pi)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_zero_that_no_coefficients_of_the_format_meet_is_named(text, high, dtype):
    target = approx.formula(text, (0, high)).with_weight("relative")
    with pytest.raises(ValueError, match=f"vanishes with the target at .*{high:g}"):
        approx.minimax(target, (2, 0) if dtype == "float16" else (3, 0), coefficients=dtype)


@pytest.mark.parametrize(
    ("text", "high", "powers", "fpminimax"),
    [("sin(x)", 0.785398, (1, 3, 5, 7), 2.120e-5), ("erf(x)", 0.84, (1, 3, 5, 7, 9), 2.996e-3)],
)
def test_coefficients_may_grow_out_of_their_last_place(text, high, powers, fpminimax):
    """In 8 bits small coefficients make up for the rounding of large ones: they become several times larger."""
    missing = {f"p{i}": 0 for i in range(powers[-1]) if i not in powers}
    target = approx.formula(text, (2**-20, high)).with_weight("relative")
    fit = approx.minimax(target, (powers[-1], 0), coefficients="bfloat16", fixed={"q0": 1, **missing})
    assert fit.error <= fpminimax  # of Sollya 8.0
