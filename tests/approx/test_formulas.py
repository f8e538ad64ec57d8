import pickle
from itertools import pairwise

import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy.special import erfc, gamma, gammaln

import approx
from approx.dyadic import dyadic, precision
from approx.formulas import constant


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "x**x",
        "x.real",
        "open(x)",
        "1/x",
        "lambda: 0",
        "y",
        "exp(x, x)",
        "x if x else 1",
        "",
        "x***2",
        "x**0.3",
        "exp(x=1)",
        "'a'",
        "True",
    ],
)
def test_formulas_are_parsed_and_never_run_as_code(text):
    with pytest.raises(ValueError, match="formula"):
        approx.formula(text)


@pytest.mark.parametrize(
    ("text", "f"),
    [
        ("x**2 - 3*x/4 + 1", lambda x: x**2 - 3 * x / 4 + 1),
        ("-x**-1.5", lambda x: -(x**-1.5)),
        ("2", lambda x: 2 + 0 * x),
        ("sinh(x)*cosh(x) - tan(x)/atan(x)", lambda x: np.sinh(x) * np.cosh(x) - np.tan(x) / np.arctan(x)),
        ("x**0.3 + (1 + x)**-1.7", lambda x: x**0.3 + (1 + x) ** -1.7),
        ("2**x - 0.5**(x*x)", lambda x: 2**x - 0.5 ** (x * x)),
        ("erfc(x) + expm1(x)*log1p(x) - log2(x)", lambda x: erfc(x) + np.expm1(x) * np.log1p(x) - np.log2(x)),
        ("asin(x/2)*acos(x/2) + asinh(-x)", lambda x: np.arcsin(x / 2) * np.arccos(x / 2) - np.arcsinh(x)),
        (
            "acosh(x + 1) - atanh(x/2)/log10(x + 2)",
            lambda x: np.arccosh(x + 1) - np.arctanh(x / 2) / np.log10(x + 2),
        ),
        ("gamma(x) + lgamma(x)", lambda x: gamma(x) + gammaln(x)),
        ("e*log(x) + sqrt(pi)", lambda x: np.e * np.log(x) + np.sqrt(np.pi)),
    ],
)
def test_formulas_mean_what_they_say(text, f):
    target = approx.formula(text, domain=(0.5, 1.25))
    x = np.linspace(0.5, 1.25, 9)
    assert target(x) == pytest.approx(f(x), rel=1e-14)
    assert [float(target(arb(v))) for v in x] == pytest.approx(list(f(x)), rel=1e-13)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu"])
def test_a_built_in_is_a_function_of_formulas(name):
    """Of any argument, with its folds, its zeros and its proof."""
    built_in, written = getattr(approx, name)((-3, 2)), approx.formula(f"{name}(x)", (-3, 2))
    x = np.linspace(-3, 2, 301)
    np.testing.assert_array_equal(written(x), built_in(x))
    assert approx.minimax(written, (4, 4)).error == approx.minimax(built_in, (4, 4)).error
    inner = approx.formula(f"1 + {name}(2*{name}(x) - 1)", (-1, 2))
    np.testing.assert_allclose(inner(x[x > -1]), 1 + built_in(2 * built_in(x[x > -1]) - 1), rtol=1e-13)
    fit = approx.minimax(inner, (4, 4))
    certificate = approx.certify(fit)
    assert isinstance(certificate, approx.Certificate)
    assert certificate.lower <= fit.error * (1 + 1e-9)
    assert certificate.upper <= fit.error * (1 + 1e-3)
    assert str(inner).startswith(f"1 + {name}(2*{name}(x) - 1)")


def test_softplus_is_what_it_is():
    x = np.linspace(-30, 30, 101)
    np.testing.assert_allclose(approx.formula("softplus(x)", (-30, 30))(x), np.logaddexp(0, x), rtol=1e-13)
    with pytest.raises(ValueError, match="relu is not analytic|max is not analytic"):
        approx.complex_minimax("relu(x)", (2, 2), approx.Region.disc())


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("x**0.3", (0.01, 2)),
        ("2**x", (-3, 1)),
        ("erfc(x)", (-1, 2)),
        ("expm1(x)/2", (-1, 1)),
        ("log1p(x)", (-0.5, 2)),
        ("asin(x)", (-1, 1)),
        ("acos(x)", (0, 1)),
        ("asinh(x)", (-3, 5)),
        ("asinh(1e4*x)", (-1, 0.5)),
        ("acosh(x)", (1, 3)),
        ("atanh(x)", (-0.9, 0.5)),
        ("log10(x)", (1, 10)),
        ("gamma(x)", (0.5, 4)),
        ("lgamma(x)", (0.5, 4)),
    ],
)
def test_powers_and_their_kin_are_fitted_and_proven(text, domain):
    fit = approx.minimax(approx.formula(text, domain), (3, 2))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert fit.converged
    assert proof.best_lower == pytest.approx(fit.error, rel=1e-8)
    approx.Certificate.from_json(proof.to_json()).verify()


@pytest.mark.parametrize(
    ("text", "domain", "kinks"),
    [
        ("max(x, 0)", (-1, 1), [0]),
        ("min(max(6*x, 0), 1)", (-1, 1), [0, 1 / 6]),
        ("max(x, x*x)", (-0.5, 1.5), [0, 1]),
    ],
)
def test_max_and_min_are_fitted_and_proven(text, domain, kinks):
    target = approx.formula(text, domain, kinks=kinks)
    x = np.linspace(domain[0], domain[1], 101)
    assert target(x) == pytest.approx(eval(text, {"x": x, "max": np.maximum, "min": np.minimum}))
    fit = approx.minimax(target, (4, 4))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-8)
    assert approx.formula(text, domain).kinks == pytest.approx(kinks, abs=1e-15)


@given(st.lists(st.floats(-1.9, 1.9), min_size=1, max_size=4, unique=True), st.floats(0.1, 5))
def test_folds_are_found(places, slope):
    """Where they are apart; a fold outside of the domain, or in a gap, is none."""
    places = sorted(round(p, 2) for p in places)
    if any(b - a < 0.05 for a, b in pairwise(places)):
        return
    text = "+".join(f"abs({slope:.3f}*(x-({p})))" for p in places)
    inside = [p for p in places if -1 < p < 0.2 or 0.5 < p < 1.5]
    target = approx.formula(f"exp(x)+{text}", [(-1, 0.2), (0.5, 1.5)])
    assert target.kinks == pytest.approx(inside, abs=1e-15)
    assert approx.formula("abs(x*x)").kinks == ()


@pytest.mark.parametrize("text", ["pi", "-pi/2", "1e-3", "2**0.5"])
def test_constants(text):
    assert constant(text) == pytest.approx(eval(text, {"pi": np.pi}))
    for wrong in ("x", "pi(", "os.system", "1 if 1 else 2"):
        with pytest.raises(ValueError, match="formula|not a number"):
            constant(wrong)


@pytest.mark.parametrize(
    ("text", "domain", "f"),
    [
        ("sin(x)/x", (-2, 2), lambda x: mp.sinc(x)),
        ("(1-exp(-x))/x", (0, 100), lambda x: -mp.expm1(-x) / x if x else mp.mpf(1)),
        (
            "exp((1-cos(x))/x**2)+1",
            (-1, 2),
            lambda x: mp.exp((1 - mp.cos(x)) / x**2 if x else mp.mpf(0.5)) + 1,
        ),
        (
            "(x-0.5)/(exp(x-0.5)-1)",
            (-1, 2),
            lambda x: (x - 0.5) / mp.expm1(x - 0.5) if x != 0.5 else mp.mpf(1),
        ),
    ],
)
def test_removable_singularities_are_removed(text, domain, f):
    target = approx.formula(text, domain)
    places = [*np.linspace(domain[0], domain[1], 17), 0.0, 0.5, 1e-3, 1e-9, 1e-200, 0.5 + 1e-12]
    with mp.workdps(450):
        for x in (float(v) for v in places if domain[0] <= v <= domain[1]):
            exact = f(mp.mpf(x))
            assert float(target(np.array([x]))[0]) == pytest.approx(float(exact), rel=1e-12)
            assert target(arb(x)).overlaps(arb(mp.nstr(exact, 60), 1e-50))
    fit = approx.minimax(target, (3, 2))
    assert fit.converged
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower == pytest.approx(fit.error, rel=1e-6)


@pytest.mark.parametrize("text", ["1/x", "sin(x)/x**2", "cos(x)/x"])
def test_other_singularities_are_refused(text):
    with pytest.raises(ValueError, match="not finite"):
        approx.formula(text, (-1, 1))


def test_a_power_that_is_written_otherwise():
    with pytest.raises(ValueError, match=r"x\*\*2"):
        approx.formula("1 + x^2")


LIMITS = [
    ("exp(-1/x)", (0, 1), lambda x: mp.exp(-1 / x)),
    ("exp(-1/x**2)", (-1, 2), lambda x: mp.exp(-1 / x**2)),
    ("exp(1 - 1/(1-x**2))", (-1, 1), lambda x: mp.exp(1 - 1 / (1 - x**2))),
    ("1/(1+exp(1/x))", (0, 3), lambda x: 1 / (1 + mp.exp(1 / x))),
    ("tanh(1/x) - erf(2/x)", (0, 2), lambda x: mp.tanh(1 / x) - mp.erf(2 / x)),
    ("x*log(x)", (0, 1), lambda x: x * mp.log(x)),
    ("-x*log2(x)-(1-x)*log2(1-x)", (0, 1), lambda x: -(x * mp.log(x) + (1 - x) * mp.log(1 - x)) / mp.log(2)),
    ("2*sqrt(x)*log(x/3)", (0, 1), lambda x: 2 * mp.sqrt(x) * mp.log(x / 3)),
    ("x**2*log(abs(x))", (-1, 2), lambda x: x**2 * mp.log(abs(x))),
    ("x*log(abs(x))", (-1, 1), lambda x: x * mp.log(abs(x))),
    ("x**2*log10(x) + asin(x/2)", (0, 2), lambda x: x**2 * mp.log10(x) + mp.asin(x / 2)),
    ("x*log(-x)", (-1, 0), lambda x: x * mp.log(-x)),
    ("(-x)**(-x)", (-1, 0), lambda x: (-x) ** (-x)),
    ("(x-1)*log(1-x)", (0, 1), lambda x: (x - 1) * mp.log(1 - x)),
    ("x**3*log2(-2*x)**2", (-2, 0), lambda x: x**3 * (mp.log(-2 * x) / mp.log(2)) ** 2),
    ("(1-2*x)*log(abs(2*x-1))", (0, 2), lambda x: (1 - 2 * x) * mp.log(abs(2 * x - 1))),
    ("x*log(x)**2", (0, 1), lambda x: x * mp.log(x) ** 2),
    ("sqrt(x)*log2(2*x)**3", (0, 2), lambda x: mp.sqrt(x) * (mp.log(2 * x) / mp.log(2)) ** 3),
    ("exp(-1/x)*sin(5*x)", (0, 2), lambda x: mp.exp(-1 / x) * mp.sin(5 * x)),
    ("x**x", (0, 2), lambda x: x**x),
    ("x**(-x)/3", (0, 2), lambda x: x ** (-x) / 3),
]


@pytest.mark.parametrize(("text", "domain", "f"), LIMITS)
def test_a_formula_has_its_limits_where_a_part_of_it_is_infinite(text, domain, f):
    """The bump function, entropies, x^x: float64 gives nan there, and balls do too."""
    target = approx.formula(text, domain)
    beside = mp.mpf(2) ** -300
    for place in {0.0, *domain}:
        with mp.workprec(700):
            value = float(f(place + beside if place < domain[1] else place - beside))
        assert float(target(np.array([place]))[0]) == pytest.approx(value, rel=1e-14, abs=1e-15)
        with precision(128):
            assert float(target(arb(place))) == pytest.approx(value, rel=1e-14, abs=1e-15)


def test_what_only_float64_overflows_is_computed_at_once(monkeypatch):
    """Bounds of all parts cost thirty times as much: a look at thousands of points took minutes."""

    def never(*args):
        raise AssertionError("no limit is needed here")

    target = approx.formula("sin(2*log(1+exp(2000*(x-1))))", (0, 2))
    monkeypatch.setattr("approx.formulas.enclosure", never)
    x = np.linspace(0, 2, 1001)
    with mp.workprec(100):
        expected = [float(mp.sin(2 * mp.log(1 + mp.exp(2000 * (mp.mpf(v) - 1))))) for v in x]
    np.testing.assert_allclose(target(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("text", "domain", "f"), LIMITS)
@given(data=st.data())
def test_bounds_around_such_a_point_hold(text, domain, f, data):
    target = approx.formula(text, domain)
    near = st.floats(0, 1).map(lambda u: u**9)  # share of the way, most of it close to an end or to 0
    start = data.draw(st.sampled_from([domain[0], 0.0, domain[1]]))
    end = data.draw(st.sampled_from([v for v in (domain[0], domain[1]) if v != start]))
    low, high, at = (start + (end - start) * data.draw(near) for _ in range(3))
    low, high = min(low, high, at), max(low, high, at)
    with mp.workprec(200):
        if at in (0, *domain):
            return
        true = f(mp.mpf(at))
        ball = target(arb(low).union(arb(high)))
        assert (
            not ball.is_finite()
            or abs(ball.mid() - arb(true)) <= ball.rad() + arb(abs(true)) * 2**-40 + 1e-60
        )


@pytest.mark.parametrize(("text", "domain", "f"), LIMITS)
def test_functions_with_such_limits_are_fitted_and_proven(text, domain, f):
    fit = approx.minimax(approx.formula(text, domain), (2, 2))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert fit.converged
    assert proof.best_lower == pytest.approx(fit.error, rel=1e-7)
    approx.Certificate.from_json(proof.to_json()).verify()


@pytest.mark.parametrize(
    "text", ["1/x", "sin(x)/sqrt(x)**3", "log(x)/x", "sqrt(x)/x", "exp(1/x)", "x**(-x-1)"]
)
def test_what_has_no_limit_is_refused(text):
    with pytest.raises(ValueError, match="not finite"):
        approx.formula(text, (0, 1))


def test_a_relative_error_needs_a_zero_that_a_polynomial_can_have():
    for text in ("x*log(x)", "exp(-1/x)"):
        with pytest.raises(ValueError, match=r"zero at x = 0\.0"):
            approx.minimax(approx.formula(text, (0, 1)).with_weight("relative"), (3, 3))


def test_values_too_small_for_a_rational_number_are_proven():
    """exp(-1e25) as an exact rational ended the process."""
    fit = approx.minimax(approx.formula("exp(-1/x)", (1e-25, 1)), (2, 2))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == pytest.approx(fit.error, rel=1e-9)


def test_balls_beyond_the_domain_are_enclosed_too():
    """A formula's bounds are those of its domain there, and of the whole ball elsewhere."""
    f = approx.formula("exp(-(x-20)**2)", (0, 1))
    for high in (1.0, 25.0, 1e3, 1e12):
        ball = f(arb(0).union(arb(high)))
        assert all(ball.overlaps(f(arb(x))) for x in np.linspace(0, high, 101))
    assert f(arb(0).union(arb(100))).contains(1)
    wider = f.with_domain((0, 100))
    fit = approx.minimax(wider, (4, 4))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    x = np.linspace(0, 100, 100_001)
    assert np.max(np.abs(wider(x) - fit.rational(x))) <= proof.upper * (1 + 1e-9)


@given(
    st.floats(-0.95, 0.95),
    st.floats(3, 10),
    st.floats(0.2, 0.8),
)
def test_folds_of_narrow_peaks_are_found(place, digits, height):
    """|peak - height| folds on both sides of a peak, however narrow it is."""
    steep = 10**digits
    f = approx.formula(f"abs(exp(-{steep!r}*(x-{place!r})**2)-{height!r})")
    off = np.sqrt(-np.log(height) / steep)
    assert f.breaks == pytest.approx((place - off, place + off), rel=1e-9)


def test_a_formula_on_a_wider_domain_finds_its_folds_and_limits_there():
    assert approx.formula("abs(x-2)", (0, 1)).with_domain((0, 3)).kinks == (2.0,)
    assert approx.formula("sin(x)/x", (1, 2)).with_domain((-1, 2))(np.array([0.0])) == 1.0


@given(st.floats(-0.9, 0.9), st.floats(1.1, 2.9))
@settings(deadline=None, max_examples=20)
def test_a_wider_domain_has_its_own_folds(near, far):
    """The folds that were found are those of one domain; those that a user names hold on each."""
    near, far = round(near, 3), round(far, 3)
    target = approx.formula(f"abs(x-({near})) + abs(x-({far}))", (-1, 1))
    assert target.kinks == (near,)
    for one in (target, pickle.loads(pickle.dumps(target)), target.with_weight("relative")):
        assert one.with_domain((-1, 3)).kinks == (near, far)
    assert approx.formula("abs(x)", (-1, 1), kinks=(0.5,)).with_domain((-1, 3)).kinks == (0.5,)


@pytest.mark.parametrize(
    "text", ["x/abs(x)", "abs(x)/x + x", "(x-0)/abs(x)", "max(x, 0)/x", "exp(x)*x/abs(x)"]
)
def test_a_fold_with_two_limits_is_a_jump(text):
    assert approx.formula(text, (-1, 1.5)).jumps == (0.0,)


@pytest.mark.parametrize(
    "text", ["abs(x)", "x*abs(x)", "sqrt(abs(x))", "x/sqrt(abs(x))", "max(x, 0)", "x/abs(x)**0.99"]
)
def test_a_fold_with_one_limit_is_a_kink(text):
    target = approx.formula(text, (-1, 1.5))
    assert (target.kinks, target.jumps) == ((0.0,), ())


@given(
    st.sampled_from(
        [
            ("1/(1-log({t}))", 0.0),
            ("exp(1/log({t}))", 1.0),
            ("1/log({t})**2", 0.0),
            ("{t}**0.01", 0.0),
            ("{t}*log({t})", 0.0),
            ("{t}**{t}", 1.0),
            ("1/(1+exp(1/{t}))", 0.0),
            ("erf(1/{t})", 1.0),
        ]
    ),
    st.sampled_from([0.0, 0.3, 1.0, -2.7]),
    st.sampled_from([1.0, 0.5, 7.0]),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_limit_at_an_end_is_what_it_is_however_slowly_the_formula_nears_it(text, place, scale, mirrored):
    """1/(1 - log x) is 4e-5 still where x is 10^-10000."""
    inner = f"({place}-x)" if mirrored else f"(x-({place}))"
    inner = inner if scale == 1 else f"({inner}/{scale})"
    domain = (place - scale / 3, place) if mirrored else (place, place + scale / 3)
    target = approx.formula(text[0].format(t=inner), domain)
    assert float(target(place)) == pytest.approx(text[1], abs=1e-15)  # a single float, too
    ball = target(arb(place))
    assert ball.contains(arb(text[1]))
    assert ball.rad() < 1e-14
    fit = approx.minimax(target, (2, 2))
    num, den = fit.rational.exact()
    assert abs(float(num(dyadic(place)) / den(dyadic(place))) - text[1]) <= fit.error * (1 + 1e-9)


@pytest.mark.parametrize("exponent", [0.003, 0.005, 0.02])
def test_no_error_is_missed_between_points_that_are_orders_of_magnitude_apart(exponent):
    fit = approx.minimax(approx.formula(f"x**{exponent}", (0, 1)), (5, 4))
    num, den = fit.rational.exact()
    with precision(128):
        for k in range(1, 6000):
            x = dyadic(float(10.0 ** (-k / 20)))
            if x:
                value = (arb(x).log() * arb(dyadic(exponent))).exp()
                assert abs(value - arb(num(x) / den(x))) <= fit.error * (1 + 1e-9)
