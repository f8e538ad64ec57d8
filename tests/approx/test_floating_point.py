import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

import approx
from approx import Rational
from approx import floating_point as evaluation
from approx.floating_point import BITS, count_inputs, every_input, known_dtype, measured, rounded, run, runs

GATE = approx.minimax(approx.jump_relu(), (15, 14)).rational


def test_monomials_in_x_are_useless_for_a_sharp_gate_in_float32():
    assert approx.evaluation_error(GATE.to("monomial", centre=0), "float32") > 1e-3
    assert approx.evaluation_error(GATE, "float32", approx.best_form(GATE, "float32")) < 1e-6


def test_best_form_is_the_best_measured():
    for dtype in evaluation.DTYPES:
        best = approx.evaluation_error(GATE, dtype, approx.best_form(GATE, dtype))
        assert best <= min(approx.evaluation_error(GATE, dtype, f) for f in evaluation.CONVERTIBLE)


def test_errors_scale_with_the_format():
    r = approx.minimax(approx.relu(), (5, 4)).rational
    errors = [approx.evaluation_error(r, d) for d in ("float64", "float32", "float16", "bfloat16")]
    assert errors[0] < 1e-15
    assert errors[0] < errors[1] < errors[2] < errors[3]
    assert approx.evaluation_error(r, np.float32) == approx.evaluation_error(r, "float32")


def test_the_measure_agrees_with_numpy():
    r = approx.minimax(approx.relu(), (5, 4)).rational
    x = np.float32(0.3)
    truth = float(r(arb(float(x))))
    assert abs(float(r(x)) - truth) <= approx.evaluation_error(r, "float32")


def test_overflow_is_an_infinite_error():
    assert approx.evaluation_error(Rational.from_monomial([1e6, 1], [1]), "float16") == np.inf


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="dtype"):
        known_dtype("float8")
    with pytest.raises(ValueError, match="form"):
        approx.evaluation_error(GATE, "float32", "spline")


def test_the_inputs_of_a_format_are_counted_and_enumerated():
    domain = approx.Domain([(-1.5, -0.25), (0, 0.1), (1, 2)])
    for dtype, step in (("float16", np.float16), ("float32", None), ("bfloat16", None)):
        if dtype == "float32":
            domain = approx.Domain([(1, 1 + 2**-10), (-(2.0**-148), 2.0**-148)])
            assert count_inputs(domain, dtype) == 2**13 + 1 + 5
        every = np.concatenate(list(every_input(domain, dtype, 1000)))
        assert len(every) == count_inputs(domain, dtype)
        assert np.all(np.diff(every) > 0)
        assert domain.contains(every).all()
        if step:
            whole = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(float)
            whole = whole[np.isfinite(whole)]
            assert np.array_equal(every, np.unique(whole[domain.contains(whole)]))
        if dtype == "bfloat16":
            assert np.array_equal(every, [rounded(x, dtype) for x in every])


def test_the_weight_belongs_to_the_fit():
    fit = approx.minimax(approx.exp((-20, 0)).with_weight("relative"), (5, 5))
    absolute, relative = approx.evaluation_error(fit.rational), approx.evaluation_error(fit)
    assert relative > absolute
    best = approx.best_form(fit)
    assert approx.evaluation_error(fit, form=best) < 1e-5
    assert approx.evaluation_error(fit, form="partial_fractions") > 1
    source = approx.export(fit, "python", "float32", name="f")
    scope: dict = {}
    exec(source, scope)
    x = np.linspace(-20, 0, 100001).astype(np.float32)
    seen = np.max(np.abs(1 - scope["f"](x).astype(float) / np.exp(x.astype(float))))
    assert seen <= 0.00916
    assert "relative error against the target 'exp' 9.15e-03, the largest measured on a sample of" in source
    with pytest.raises(ValueError, match="form='partial_fractions' .* use form='factored'"):
        approx.export(fit, "c", "float32", form="partial_fractions")


def test_a_header_states_the_error_over_all_inputs():
    fit = approx.minimax(approx.tanh((1.5, 1.625)), (3, 2))
    source = approx.export(fit, "python", "float32", name="f")
    scope: dict = {}
    exec(source, scope)
    x = np.arange(1 << 20, dtype=np.uint32) + np.array([1.5], np.float32).view(np.uint32)
    x = x.view(np.float32)
    seen = np.max(np.abs(scope["f"](x).astype(float) - np.tanh(x.astype(float))))
    assert "measured on all 1048577 numbers of float32 there" in source
    stated = float(source.split("at most ")[1].split(",")[0])
    assert seen <= stated <= 1.02 * seen


@given(
    st.sampled_from(["exp(x)", "1/(1+x)", "sin(x)", "log1p(x)"]),
    st.floats(-3, 3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=8, deadline=None)
def test_a_sample_sees_nearly_the_largest_error(text, exponent, relative, symmetric, seed):
    """Against many numbers of other kinds: drawn by value, and by binade."""
    b = min(10.0**exponent, {"exp(x)": 10.0, "sin(x)": 1.5}.get(text, np.inf))
    a = -min(b, 0.25) if symmetric else 0.0
    fit = approx.minimax(
        approx.formula(text, (a, b)).with_weight("relative" if relative else None),
        (4, 4),
        coefficients="float32",
    )
    held = fit.rational.to(approx.best_form(fit, "float32", True))
    found = measured(held, "float32", fit.target)
    assert not found.exhaustive
    rng = np.random.default_rng(seed)
    x = (
        np.r_[rng.uniform(a, b, 300_000), b * 10 ** rng.uniform(-8, 0, 300_000)]
        .astype(np.float32)
        .astype(float)
    )
    x = x[(x >= a) & (x <= b)]
    error = np.abs(run(held, x, "float32") - fit.target(x)) * fit.target.weight_at(x)
    # rounding's few worst coincidences are met by chance, one in a million numbers
    assert np.sum(error > 1.1 * found.error) <= 3
    assert np.nanmax(error) <= 1.15 * found.error


@pytest.mark.parametrize("domain", [(0, 1e30), (-1e-30, 1e-30), (0.3, 5), [(-4, -2), (0, 7)]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_are_runs_in_every_binade(domain, dtype):
    domain = approx.Rational.from_monomial([1], [1], domain=domain).domain
    x = runs(approx.Rational.from_monomial([1], [1]), domain, dtype, 64)
    assert domain.contains(x).all()
    assert np.array_equal(x, [rounded(v, dtype) for v in x])
    for a, b in domain:
        largest = np.floor(np.log2(max(abs(a), abs(b)))) - 1
        for k in range(-100, int(largest) + 1, 7):
            end = np.array(2.0**k, dtype)
            if a < end / 2 and end * 2 < b:
                assert {
                    float(np.nextafter(end, 0, dtype=dtype)),
                    float(end),
                    float(np.nextafter(end, 2 * end)),
                } <= set(x)


def test_a_domain_without_a_number_of_the_format_is_told():
    with pytest.raises(ValueError, match="no number of it lies in"):
        approx.evaluation_error(approx.Rational.from_monomial([1, 1], [1], domain=(1e6, 1e7)), "float16")


@pytest.mark.filterwarnings("error")
def test_a_domain_beyond_a_format_warns_of_nothing():
    r = Rational.from_monomial([1, 1e-6], [1], domain=(0, 1e30))
    assert approx.evaluation_error(r, "float16") < 2**-9


@pytest.mark.parametrize(
    ("text", "domain", "type", "weight", "truth"),
    [
        ("log(1+x)", (-0.3, 0.5), (5, 4), "relative", mp.log1p),
        ("sqrt(1+x)-1", (-0.5, 1), (4, 4), "relative", lambda x: mp.sqrt(1 + x) - 1),
        ("exp(x)-1", (-1, 1), (5, 4), "relative", mp.expm1),
        # a fold beside the zero
        (
            "(exp(x)-1)*(1+abs(x-2**-10))",
            (-1, 1),
            (5, 4),
            "relative",
            lambda x: mp.expm1(x) * (1 + abs(x - mp.mpf(2) ** -10)),
        ),
        ("(exp(x)-1)/x", (0, 1), (5, 4), None, lambda x: mp.expm1(x) / x if x else mp.mpf(1)),
        ("x*3", (0, 1), (1, 0), None, lambda x: 3 * x),
        ("x*3", (0, 1), (1, 0), "relative", lambda x: 3 * x),
        ("1/(1+x**2)", (-1, 1), (0, 2), None, lambda x: 1 / (1 + x * x)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_truth_is_the_targets_and_not_its_rounding_or_what_is_left_where_it_cancels(
    text, domain, type, weight, truth, dtype
):
    target = approx.formula(text, domain).with_weight(weight)
    fit = approx.minimax(target, type)
    form = approx.best_form(fit, dtype, writable=True)
    held = fit.rational.to(form, bits=max(53, fit.rational.bits))
    stated = measured(held, dtype, target).error
    tiny = 10.0 ** -np.linspace(0, 30, 400)
    x = np.r_[np.linspace(domain[0], domain[1], 800), tiny[tiny < domain[1]], -tiny[-tiny > domain[0]]]
    x = x.astype(np.float32).astype(float) if dtype == "float32" else x
    with mp.workprec(400):
        off = [
            abs(mp.mpf(float(y)) - truth(mp.mpf(v)))
            for v, y in zip(x.tolist(), run(held, x, dtype), strict=True)
        ]
        if weight == "relative":
            off = [e / abs(truth(mp.mpf(v))) if e else e for v, e in zip(x.tolist(), off, strict=True)]
        seen = float(max(off))
    assert seen <= stated * 1.15  # a sample
    assert stated <= fit.error + (40 if form != "factored" else 12) * 2.0 ** -BITS[dtype]
