"""Relative errors through zeros of the target."""

import re
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, arb_series, ctx, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

import approx
from approx import Target
from approx.dyadic import dyadic, precision
from approx.floating_point import BITS, inputs, rounded, run
from approx.proofs.certificate import _beside_zeros
from approx.zeros import divided, multiplied, parted, zeros_of

HALF_PI = np.pi / 2
CASES = [
    ("sin(x)", (-HALF_PI, HALF_PI), (5, 0), mp.sin),
    ("tan(x)", (-0.7, 0.7), (3, 2), mp.tan),
    ("tanh(x)", (-3, 2), (5, 4), mp.tanh),
    ("erf(x)", (0, 2), (4, 3), mp.erf),
    ("expm1(x)", (-1 / 512, 1 / 512), (3, 0), mp.expm1),
    ("exp(x)-1", (-1, 1), (3, 3), mp.expm1),
    ("log1p(x)", (-0.2, 0.4), (3, 2), mp.log1p),
    ("log(x)", (0.5, 2), (3, 2), mp.log),
    ("x*normal_cdf(x)", (-2, 3), (5, 4), lambda x: x * mp.ncdf(x)),
    ("x*sigmoid(x)", (-3, 3), (5, 4), lambda x: x / (1 + mp.exp(-x))),
    ("1-cos(x)", (-1, 2), (4, 2), lambda x: 1 - mp.cos(x)),
    ("x*sin(x)*(x-1)", (-0.5, 1.5), (6, 1), lambda x: x * mp.sin(x) * (x - 1)),
]


@pytest.mark.parametrize(
    ("text", "domain", "type", "f"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_it_is_the_best_and_proven(text, domain, type, f):
    target = approx.formula(text, domain).with_weight("relative")
    fit = approx.minimax(target, type)
    assert fit.converged
    assert fit.rational.type == type
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(proof.best_lower, rel=1e-8)
    assert fit.error == pytest.approx(proof.upper, rel=1e-8)
    approx.Certificate.from_json(proof.to_json()).verify()
    # against mpmath, close to the zeros too
    rng = np.random.default_rng(0)
    zeros = [zero.place for zero in zeros_of(target)]
    points = [
        *rng.uniform(domain[0], domain[1], 200),
        *(z + s * 10.0**-k for z in zeros for s in (-1, 1) for k in range(2, 12)),
    ]
    with mp.workdps(40):
        for x in points:
            if domain[0] <= x <= domain[1] and x not in zeros:
                truth, value = f(mp.mpf(float(x))), fit.rational(arb(float(x)))
                with precision(200):
                    value = mp.mpf(fit.rational(arb(float(x))).mid().str(40, radius=False))
                assert abs(1 - value / truth) <= proof.upper * (1 + 1e-12)
    assert all(fit.rational(z) == 0 for z in zeros)


def test_known_values():
    # the classical minimax sine of degree 5, and what a fit of sin(x)/x with its weight gives
    target = approx.formula("sin(x)", (-HALF_PI, HALF_PI)).with_weight("relative")
    assert approx.minimax(target, (5, 0)).error == pytest.approx(1.0817874e-4, rel=1e-6)
    weight = Target(lambda x: x * 0 + 1).weight
    assert weight is None
    sinc = Target(np.sinc, (-0.5, 0.5), lambda x: 1 / np.sinc(x))
    assert approx.minimax(sinc, (4, 0)).error == pytest.approx(1.0817874e-4, rel=1e-6)


def test_multiple_zeros_are_counted():
    (zero,) = zeros_of(approx.formula("1-cos(x)", (-1, 2)))
    assert (zero.place, zero.multiplicity) == (0.0, 2)
    found = zeros_of(approx.formula("x**3*(x-0.5)*exp(x)", (-1, 2)))
    assert [(z.place, z.multiplicity) for z in found] == [(0.0, 3), (0.5, 1)]


@given(st.floats(-0.5, 1.5), st.floats(0, 0.2))
@settings(max_examples=40, deadline=None)
def test_the_quotient_is_enclosed_everywhere(middle, radius):
    target = approx.formula("x*sin(x)*(x-1)", (-0.5, 1.5)).with_weight("relative")
    g = divided(target, zeros_of(target))
    ball = arb(middle, radius)
    with precision(100), mp.workdps(30):
        value = g(ball)
        cap, ctx.cap = ctx.cap, 4
        try:
            series = g(arb_series([ball, 1], 4))
        finally:
            ctx.cap = cap
        for share in (-1, -0.4, 0.1, 0.9):
            x = middle + share * radius
            exact = mp.sinc(mp.mpf(x))  # x sin(x) (x-1) / (x^2 (x-1))
            assert value.overlaps(arb(str(exact)))
            assert series[0].overlaps(arb(str(exact)))
            slope = mp.taylor(mp.sinc, mp.mpf(x), 1)[1]
            assert series[1].overlaps(arb(str(slope), 1e-9))


def test_a_numerator_of_too_small_a_degree_is_the_zero_function():
    fit = approx.minimax(approx.formula("1-cos(x)", (-1, 2)).with_weight("relative"), (1, 2))
    assert fit.error == 1
    assert fit.rational(0.7) == 0


@pytest.mark.parametrize(
    ("text", "type"),
    [("1-cos(x)", (1, 2)), ("(x-0.5)*exp(x)", (0, 3)), ("sin(3*x)", (1, 1)), ("x-sin(x)", (2, 0))],
)
def test_more_zeros_than_degrees_prove_that_zero_is_best(text, type, tmp_path):
    target = approx.formula(text, (-1, 2)).with_weight("relative")
    proof = approx.certify(approx.minimax(target, type))
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower == 1
    proof.save(tmp_path / "proof.json")
    assert approx.verify(tmp_path / "proof.json").best_lower == 1
    with pytest.raises(approx.CertificateError):
        replace(proof, best=fmpq(3, 2)).verify()
    enough = approx.certify(approx.minimax(target, (type[0] + 1, 0)), type=(type[0] + 1, 0))
    assert isinstance(enough, approx.Certificate)
    with pytest.raises(approx.CertificateError):  # a degree more can share all zeros
        replace(enough, best=fmpq(1), points=(), comparison=None).verify()


def test_exports_keep_the_relative_error():
    fit = approx.minimax(approx.tanh((-2, 2)).with_weight("relative"), (5, 4))
    scope: dict = {}
    exec(approx.export(fit, "python", "float32", name="f"), scope)
    x = np.r_[np.linspace(-2, 2, 10001), np.geomspace(1e-30, 1, 1000)].astype(np.float32)
    x = x[x != 0]
    assert np.max(np.abs(1 - scope["f"](x).astype(float) / np.tanh(x.astype(float)))) < 1e-6


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (approx.relu(), "weight"),
        (Target(np.sin), "weight"),
    ],
    ids=["relu", "callable"],
)
def test_what_cannot_have_a_finite_relative_error_is_refused(target, says):
    with pytest.raises(ValueError, match=says):
        approx.minimax(target.with_weight("relative"), (3, 2))


def test_a_rational_without_the_zero_has_no_finite_relative_error():
    target = approx.formula("sin(x)").with_weight("relative")
    with pytest.raises(ValueError, match="zero in its domain that the rational lacks"):
        approx.certify(approx.Rational.from_monomial([0.1, 1]), target)


@pytest.mark.parametrize(
    ("text", "domain", "type", "f"),
    [
        ("sin(x)", (1, 4), (5, 0), mp.sin),
        ("sin(x)", (-1, 7), (7, 4), mp.sin),
        ("log(x) - 1", (2, 4), (3, 2), lambda x: mp.log(x) - 1),
        ("exp(x) - 2", (0, 1), (3, 1), lambda x: mp.exp(x) - 2),
    ],
)
def test_zeros_between_two_floats(text, domain, type, f):
    target = approx.formula(text, domain).with_weight("relative")
    fit = approx.minimax(target, type)
    assert fit.converged
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert fit.error == pytest.approx(proof.upper, rel=1e-8)
    approx.Certificate.from_json(proof.to_json()).verify()
    # every float64 of the domain is in it, the neighbours of the zeros too
    inside = [(b, c) for b, c in fit.target.domain.gaps]
    assert inside
    assert all(c == np.nextafter(b, c) for b, c in inside)
    with mp.workdps(60):
        for x in [x for gap in inside for x in gap] + list(np.linspace(domain[0], domain[1], 50)):
            with precision(400):
                value = mp.mpf(fit.rational(arb(float(x))).mid().str(70, radius=False))
            assert abs(1 - value / f(mp.mpf(float(x)))) <= fit.error * (1 + 1e-9) + mp.mpf(2) ** -52


@pytest.mark.parametrize(
    ("text", "domain", "type", "f"),
    [
        ("sin(x)", (0, np.pi), (4, 2), mp.sin),
        ("sin(x)", (-np.pi, np.pi), (7, 0), mp.sin),
        ("cos(x)", (0, HALF_PI), (5, 0), mp.cos),
        ("exp(x) - 2", (np.log(2), 2), (3, 0), lambda x: mp.exp(x) - 2),
        ("exp(x) - 2", (np.nextafter(np.log(2), 1), 2), (3, 0), lambda x: mp.exp(x) - 2),
        ("sin(x)", [(0, np.pi), (4, 5)], (6, 0), mp.sin),
    ],
)
def test_zeros_just_beyond_an_end(text, domain, type, f):
    """pi is no float64: sin(x) on (0, pi) ends beside its zero, and the last float64 has a relative error too."""
    fit = approx.minimax(approx.formula(text, domain).with_weight("relative"), type)
    assert fit.converged
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert fit.error == pytest.approx(proof.upper, rel=1e-8)
    assert proof.best_lower == pytest.approx(fit.error, rel=1e-8)
    approx.Certificate.from_json(proof.to_json()).verify()
    with mp.workdps(60):
        for x in [*fit.target.domain.edges, *np.linspace(*fit.target.domain[0], 50)]:
            if (truth := f(mp.mpf(float(x)))) != 0:
                with precision(400):
                    value = mp.mpf(fit.rational(arb(float(x))).mid().str(70, radius=False))
                assert abs(1 - value / truth) <= fit.error * (1 + 1e-9)


def test_float64_keeps_the_relative_error_next_to_a_zero_that_is_no_float():
    fit = approx.minimax(approx.formula("sin(x)", (2, 4)).with_weight("relative"), (7, 0))
    below, above = fit.target.domain.gaps[0]
    x = np.array([below, above, below - 1e-12, above + 1e-9])
    with mp.workdps(40):
        truth = [float(mp.sin(mp.mpf(v))) for v in x.tolist()]
    assert np.max(np.abs(fit.rational(x) / truth - 1)) <= fit.error + 1e-15
    scope: dict = {}
    exec(approx.export(fit, "python"), scope)
    assert np.max(np.abs(scope["rational"](x) / truth - 1)) <= fit.error + 1e-14


def test_a_bound_gives_up_what_another_zero_in_the_gap_could_gain():
    """sin has its zero between two floats: r may vanish at either of them, and the points see a share of the gap."""
    target = approx.minimax(approx.formula("sin(x)", (2, 4)).with_weight("relative"), (5, 0)).target
    (low, high), points = target.domain.gaps[0], [(0, fmpq(5, 2)), (0, fmpq(7, 2))]
    best, gap = fmpq(1, 1000), dyadic(high) - dyadic(low)
    change = 1 + gap / (fmpq(7, 2) - dyadic(high))
    zeros = zeros_of(target)
    assert _beside_zeros(best, zeros, target, points) == (best - (change - 1)) / change < best
    assert _beside_zeros(best, zeros, target, [*points, (0, dyadic(low))]) == 0
    assert _beside_zeros(best, (), approx.formula("sin(x)", (1, 2)).with_weight("relative"), points) == best


def test_a_zero_that_rounding_hides_is_found():
    """In float64 the sign of f changes five numbers away from the zero."""
    text = "sigmoid(30.80*(x-(0.104)))+-1.02*atan(3.34*(x-(-0.70)))+exp(-0.388*x)"
    target = approx.formula(text, (-1.65, 1.82)).with_weight("relative")
    fit = approx.minimax(target, (3, 2))
    places = [zero.place for zero in zeros_of(fit.target)]
    with mp.workdps(40):

        def f(x):
            return (
                1 / (1 + mp.exp(-30.80 * (x - 0.104)))
                - 1.02 * mp.atan(3.34 * (x + 0.70))
                + mp.exp(-0.388 * x)
            )

        truths = [float(mp.findroot(f, guess)) for guess in (-0.18, 0.07)]
    assert places == pytest.approx(truths, rel=1e-15)
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower > proof.upper * (1 - 1e-9)


@st.composite
def products(draw):
    """Zeros, and a domain that holds them: about 0, beside it, or narrow and far away."""
    centre, reach = draw(st.sampled_from([(0.0, 1.0), (0.6, 1.0), (-2.0, 3.0), (1000.0, 1.0), (-70.0, 0.5)]))
    places = draw(st.lists(st.integers(-99, 98), min_size=1, max_size=4, unique=True))
    zeros = [centre + reach * place / 100 for place in places]
    text = "*".join(f"(x - ({zero!r} + sqrt(2)/300))" for zero in zeros)
    return text, (centre - reach, centre + reach), [zero + 2**0.5 / 300 for zero in zeros]


@given(products(), st.sampled_from(list(BITS)))
@settings(max_examples=100, deadline=None)
def test_every_format_keeps_the_relative_error_beside_each_of_several_zeros(product, dtype):
    text, domain, zeros = product
    one = approx.Rational.from_monomial([1], [1], domain)
    r = multiplied(one, zeros_of(parted(approx.formula(text, domain))), 400)
    unit = 2.0 ** -BITS[dtype]
    beside = [rounded(zero * (1 + step * unit), dtype) for zero in zeros for step in range(-6, 7)]
    x = np.unique([*inputs(r, r.domain, dtype), *beside])
    x = x[r.domain.contains(x)]
    exact = [r(fmpq(*v.as_integer_ratio())) for v in x.tolist()]
    want = np.array([int(v.p) / int(v.q) for v in exact])
    error = np.abs(run(r, x, dtype) / want - 1)
    if dtype == "float16":  # whose smallest numbers have few bits
        error = error[np.abs(want) > 2**-8]
    assert error.max(initial=0) <= 4 * (len(zeros) + 1) * unit


@pytest.mark.parametrize(
    ("text", "domain", "type"),
    [
        ("exp(x)-3*x", (0.2, 2), (5, 2)),
        ("log(x)-x/3", (1.2, 3), (5, 1)),
        ("cos(x)-x", (0, 1.5), (6, 0)),
    ],
)
def test_a_target_that_cancels_at_its_zeros_is_exported_in_float64(text, domain, type):
    """Its values in float64 are all rounding there, and so would be the weight."""
    fit = approx.minimax(approx.formula(text, domain).with_weight("relative"), type)
    assert approx.evaluation_error(fit, "float64") < 1e-14
    source = approx.export(fit, "python")
    stated = float(re.search(r" ([0-9.e+-]+), the largest measured on a sample", source)[1])  # type: ignore[index]
    assert stated == pytest.approx(fit.error, rel=0.01)


@given(
    st.sampled_from(["abs(x - {c}) - {h}", "max(x - {c}, {h}) - 2*{h}", "abs(x - {c})**0.7 - {h}"]),
    st.floats(-0.4, 0.4),
    st.floats(0.1, 0.5),
    st.sampled_from([(4, 0), (3, 2), (2, 3)]),
)
@settings(deadline=None, max_examples=6)
def test_zeros_beside_a_kink_are_factored_out(text, c, h, type):
    target = approx.formula(text.format(c=c, h=h), (-1.5, 1.5)).with_weight("relative")
    fit = approx.minimax(target, type)
    assert fit.converged, fit.message
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-6)
    assert 0.999 * fit.error <= proof.best_lower <= fit.error * (1 + 1e-9)


@given(st.integers(1, 999), st.integers(1, 999), st.sampled_from([(2, 0), (2, 2), (3, 0), (3, 6), (2, 4)]))
@settings(deadline=None, max_examples=4)
def test_a_rational_with_a_decimal_zero_is_exact(a, b, type):
    """Its zero is no float64, and f/z is known to the digits of its place: that is no best error."""
    target = approx.formula(f"x*({a / 100}*x - {b / 1000})", (-1.5, 0.6)).with_weight("relative")
    fit = approx.minimax(target, type)
    assert fit.verdict is approx.Verdict.EXACT
    assert fit.levelled == 0


@given(
    st.sampled_from(["sin(x)", "tan(x)", "log1p(x)", "expm1(x)", "erf(x)"]),
    st.floats(-30, -3),
    st.sampled_from([(3, 2), (4, 2), (5, 2)]),
)
@settings(deadline=None, max_examples=10)
def test_beside_a_zero_a_fit_has_its_type_and_its_error_on_arrays(text, power, type):
    low = 10.0**power
    target = approx.formula(text, (low, 1)).with_weight("relative")
    fit = approx.minimax(target, type)
    assert fit.rational.type <= type
    assert fit.rational.type[1] <= type[1]
    x = np.geomspace(low, 1, 2001).clip(low, 1)
    assert np.max(np.abs(fit.rational(x) / target(x) - 1)) <= fit.error * (1 + 1e-3) + 1e-14


def test_a_zero_at_a_kink_is_refused():
    with pytest.raises(ValueError, match="weight must be finite and positive"):
        approx.minimax(approx.formula("abs(x - 0.25)*(x - 0.5)", (-1, 1)).with_weight("relative"), (3, 3))


@pytest.mark.parametrize(
    "text", ["exp(-100*x) + sin(x - 3)", "exp(-(8*(x - 6))**2)/10 + tanh(x - 3)", "sin(x - 3) - exp(-200*x)"]
)
def test_a_zero_may_be_close_to_a_float(text):
    """Closer than the digits of the work: at the float beside it the relative error is that of r's distance."""
    fit = approx.minimax(approx.formula(text, (2, 5.5)).with_weight("relative"), (2, 1))
    assert fit.converged, fit.message
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower >= 0.999 * fit.error


@given(st.floats(0.005, 0.02))
@settings(deadline=None, max_examples=4)
def test_no_zero_of_many_is_left_over(shift):
    """The parts between zeros are looked at as closely as the whole was, until no more are seen."""
    target = approx.formula(f"sin(1/(x + {shift}))", (0, 1)).with_weight("relative")
    fit = approx.minimax(target, (3, 3))
    assert fit.verdict is approx.Verdict.DEGENERATE
    assert fit.error == 1


@pytest.mark.parametrize("power", [3, 7, 8, 10, 12, 14])
def test_a_zero_far_from_0_where_floats_are_far_apart(power):
    """Its distance from the float beside it is felt at all of them."""
    low = 10.0**power
    fit = approx.minimax(approx.formula("sin(x)", (low, low + 3)).with_weight("relative"), (5, 0))
    assert fit.converged, fit.message
    x = low + np.linspace(0.01, 2.99, 400)
    truth = np.array([float(arb(float(v)).sin()) for v in x]) if power < 4 else np.sin(x)
    exact = fit.rational.exact()[0]
    got = np.array([float(arb(exact(dyadic(float(v))))) for v in x])
    assert np.max(np.abs(got / truth - 1)) <= fit.error * (1 + 1e-6) + 1e-12
