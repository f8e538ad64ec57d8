import itertools

import numpy as np
import pytest
from flint import arb
from hypothesis import example, given, settings
from hypothesis import strategies as st

import approx
from approx import Target, Verdict
from approx.dyadic import precision
from tests.approx.helpers import alternates, meinardus

# Best errors from independent sources: Varga, Ruttan and Carpenter (1991) for |x|; Zolotarev
# for sign; the asymptotics for exp (Meinardus) are tested apart.
KNOWN = [
    (approx.relu(), (3, 2), 2.184450634603818e-2),
    (approx.relu(), (5, 4), 4.250742352036915e-3),
    (approx.absolute(), (2, 2), 4.368901269207636e-2),
    (approx.absolute(), (40, 40), 1.56132885699e-8),
    (approx.sign(0.1), (9, 8), 2.342602176284903e-5),
    (approx.jump_relu(0.1, margin=0.01), (9, 8), 4.678540127070067e-4),
]


@pytest.mark.parametrize(("target", "type", "best"), KNOWN, ids=lambda v: getattr(v, "name", v))
def test_known_best_errors(target, type, best):
    fit = approx.minimax(target, type)
    digits = 1e-11 if len(f"{best:.16g}") > 16 else 1e-10
    assert fit.converged
    assert fit.error == pytest.approx(best, rel=max(digits, 5e-11))
    assert fit.levelled <= fit.error


TARGETS = [
    approx.relu(),
    approx.absolute(),
    approx.sqrt(),
    approx.sign(0.1),
    approx.sign(0.01),
    approx.gate(0.0, 0.01),
    approx.gate(0.1, 0.01),
    approx.jump_relu(0.1, margin=0.01),
    approx.bi_jump_relu(0.1, margin=0.01),
    approx.exp(),
    approx.tanh(),
    approx.gelu(),
    approx.silu(),
    approx.sigmoid(),
]


@pytest.mark.parametrize("type", [(3, 2), (5, 4), (9, 8), (15, 14), (19, 18)], ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_primitives_are_proven_best(target, type):
    fit = approx.minimax(target, type)
    m, n = fit.rational.type
    defect = min(type[0] - m, type[1] - n)
    assert fit.converged, fit.message
    assert m <= type[0]
    assert n <= type[1]
    assert len(fit.reference) >= sum(type) + 2 - defect
    assert alternates(fit)
    proof = approx.certify(fit.rational, target, type=type)
    assert isinstance(proof, approx.Certificate)
    assert proof.pole_free
    assert proof.lower * (1 - 1e-9) <= fit.error <= proof.best_lower * (1 + 1e-8)
    assert proof.upper <= proof.best_lower * (1 + 1e-8)


@pytest.mark.parametrize(
    ("target", "type"),
    [
        (approx.formula("0"), (3, 2)),
        (approx.formula("0"), (0, 0)),
        (approx.formula("x"), (1, 0)),
        (approx.relu((-1, 0)), (3, 2)),
        (approx.relu((-2, -1)), (0, 0)),
        (approx.formula("2"), (2, 2)),
    ],
    ids=str,
)
def test_zeros_and_lines(target, type):
    fit = approx.minimax(target, type)
    assert fit.converged
    assert fit.error == 0
    proof = approx.certify(fit.rational, target)
    assert isinstance(proof, approx.Certificate)
    assert proof.upper == 0


def test_errors_fall_with_the_type():
    errors = [approx.minimax(approx.jump_relu(), (k + 1, k)).error for k in range(0, 9)]
    assert all(b <= a for a, b in itertools.pairwise(errors))


def test_stahls_constant():
    # exp(pi sqrt(n)) E_nn(|x|) -> 8 (Stahl 1993), in powers of 1/sqrt(n): extrapolated to 0 (Varga, Ruttan
    # and Carpenter 1991)
    n = np.array([4, 8, 14, 20, 28, 36, 46])
    errors = np.array([approx.minimax(approx.absolute(), (k, k)).error for k in n])
    values = np.exp(np.pi * np.sqrt(n)) * errors
    assert np.all(np.diff(values) > 0)
    assert values[-1] < 8
    assert np.polynomial.Polynomial.fit(1 / np.sqrt(n), values, 6)(0) == pytest.approx(8, abs=2e-3)


def test_halphen_constant():
    # exp on a long stretch of the negative axis: the ratio of errors tends to 1/9.2890254919208 (Halphen)
    e = [approx.minimax(approx.exp((-4000, 0)), (n, n)).error for n in (4, 5)]
    assert e[0] / e[1] == pytest.approx(9.28902549, rel=0.02)


def test_meinardus_asymptotics_for_exp():
    for n in (4, 8):
        assert approx.minimax(approx.exp(), (n, n)).error == pytest.approx(meinardus(n), rel=0.15)


@given(st.integers(-300, 300), st.integers(-90, 90))
@settings(max_examples=8, deadline=None)
def test_scaling_by_powers_of_two_is_exact(value, place):
    a, b = 2.0**value, 2.0**place
    plain = approx.minimax(Target(np.abs, kinks=[0]), (4, 4))
    scaled = approx.minimax(Target(lambda x: a * np.abs(x / b), (-b, b), kinks=[0]), (4, 4))
    assert scaled.error == a * plain.error
    assert np.array_equal(scaled.reference, b * plain.reference)
    x = np.linspace(-1, 1, 23)
    assert np.array_equal(scaled.rational(b * x), a * plain.rational(x))


@given(st.integers(-900, 900), st.sampled_from([(2, 0), (2, 2), (0, 3), (0, 0)]))
@settings(max_examples=12, deadline=None)
def test_the_unit_of_a_weight_does_not_matter(power, type):
    """Errors in units of 2^-53 of f: with weights above 1e15 the zero function was taken for the best."""
    f = approx.formula("exp(x)", (0, 0.35))
    plain = approx.minimax(f.with_weight(approx.formula("exp(-x)", (0, 0.35))), type)
    unit = approx.minimax(f.with_weight(approx.formula(f"exp(-x)*2.0**{power}", (0, 0.35))), type)
    assert unit.verdict is plain.verdict is Verdict.BEST
    assert unit.error == pytest.approx(2.0**power * plain.error, rel=1e-9)
    assert unit.levelled == pytest.approx(2.0**power * plain.levelled, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "domain"), [("exp(-x)", (40, 45)), ("1/gamma(x)", (30, 32)), ("erfc(x)", (5, 6))]
)
def test_a_relative_error_is_one_with_the_weight_1_over_f(text, domain):
    f = approx.formula(text, domain)
    relative = approx.minimax(f.with_weight("relative"), (2, 1))
    weighted = approx.minimax(f.with_weight(approx.formula(f"1/({text})", domain)), (2, 1))
    assert relative.verdict is weighted.verdict is Verdict.BEST
    assert weighted.error == pytest.approx(relative.error, rel=1e-9)


def test_a_small_target_is_not_taken_for_nothing():
    t = approx.formula("1e-13*exp(x)", (0, 1)).with_weight("relative")
    assert approx.minimax(t, (0, 0)).error == pytest.approx(np.tanh(0.5))


@given(st.floats(0, 16), st.sampled_from([(1, 0), (3, 2), (2, 0)]), st.sampled_from([1.0, 1e-5]))
@settings(max_examples=15, deadline=None)
def test_what_is_said_of_callables_that_vary_in_their_last_digits(power, type, size):
    """Values as a clock gives them. A bound is one of lines and constants, too; EXACT is said within units of f."""
    high = 10.0**power

    def f(x):
        return high + size * np.exp(x)

    fit = approx.minimax(Target(f, (0, 1)), type)
    x = np.linspace(0, 1, 501)
    y = f(x) - high  # exact
    line = np.polynomial.chebyshev.chebfit(x, y, 1)
    errors = [np.ptp(y) / 2, np.max(np.abs(y - np.polynomial.chebyshev.chebval(x, line)))]
    unit = float(np.spacing(high + size * np.e))
    assert fit.levelled <= min(errors) + unit
    if fit.verdict is Verdict.EXACT:
        assert fit.error <= 8 * unit
        assert fit.levelled == 0
    # and the result is no worse than a constant
    assert fit.error <= errors[0] + unit


@given(st.floats(-100, 100))
@settings(max_examples=6, deadline=None)
def test_scaling_in_value(power):
    a = 10.0**power
    plain = approx.minimax(approx.absolute(), (4, 4)).error
    assert approx.minimax(Target(lambda x: a * np.abs(x)), (4, 4)).error == pytest.approx(a * plain, rel=1e-9)


def test_huge_domains():
    assert approx.minimax(approx.relu((-1e30, 1e30)), (5, 4)).error == pytest.approx(
        4.250742352036915e27, rel=1e-10
    )


@given(st.floats(-0.7, 0.7), st.floats(1e-3, 0.1), st.floats(1.05, 2))
@settings(max_examples=10, deadline=None)
def test_gates_get_harder_as_the_gap_closes_and_easier_with_the_type(theta, margin, wider):
    close = [approx.minimax(approx.jump_relu(theta, margin=margin), (k + 1, k)) for k in (2, 4, 6)]
    assert all(fit.converged for fit in close)
    assert all(b.error <= a.error * (1 + 1e-9) for a, b in itertools.pairwise(close))
    wide = approx.minimax(approx.jump_relu(theta, margin=wider * margin), (5, 4))
    assert wide.error <= close[1].error * (1 + 1e-9)


def test_the_zero_function_can_be_best():
    fit = approx.minimax(approx.formula("atan(20*x)"), (0, 2))
    assert fit.converged
    assert "degenerate" in fit.message
    assert fit.error == pytest.approx(np.arctan(20), rel=1e-12)
    # three alternations prove it of type (1, n): the difference to another has only its numerator's zeros
    t = approx.formula("sin(3*x)", (-0.58, 1.8))
    fit = approx.minimax(t, (1, 3))
    proof = approx.certify(fit.rational, t, type=(1, 3))
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower == pytest.approx(1, rel=1e-9)
    assert len(proof.points) == 3


def test_nested_domains():
    wide = approx.minimax(approx.exp((-2, 1)), (3, 2)).error
    assert approx.minimax(approx.exp((-1, 1)), (3, 2)).error < wide
    assert approx.minimax(approx.exp([(-2, -1), (0, 1)]), (3, 2)).error <= wide


def test_reflection():
    left, right = (
        approx.minimax(approx.exp((-1, 2)), (3, 3)),
        approx.minimax(approx.formula("exp(-x)", (-2, 1)), (3, 3)),
    )
    x = np.linspace(-1, 2, 17)
    assert right.error == pytest.approx(left.error, rel=1e-9)
    assert right.rational(-x) == pytest.approx(left.rational(x), rel=1e-12)


@pytest.mark.parametrize("type", [(0, 0), (3, 0), (0, 3), (5, 2), (2, 5), (4, 4)])
def test_any_type(type):
    fit = approx.minimax(approx.exp(), type)
    assert fit.converged
    assert alternates(fit)
    assert len(fit.reference) == sum(type) + 2


def test_relative_error():
    fit = approx.minimax(approx.exp().with_weight("relative"), (3, 3))
    x = np.linspace(-1, 1, 2001)
    assert np.max(np.abs(1 - fit.rational(x) / np.exp(x))) == pytest.approx(fit.error, rel=1e-5)
    assert alternates(fit)


def test_a_smaller_type_error_means_more_bits():
    fit = approx.minimax(approx.exp(), (9, 8))
    assert fit.error == pytest.approx(4.909368638209557e-26, rel=1e-9)
    assert fit.rational.bits > 53
    assert "bits" in fit.message


@pytest.mark.parametrize(
    ("text", "domain", "type", "own"),
    [
        ("1/(1 + 25*x**2)", (-1, 1), (5, 4), (0, 2)),
        ("x**-2", (1, 3), (4, 3), (0, 2)),  # a double pole, and degrees to spare
        ("x**-3", (1, 3), (6, 5), (0, 3)),
        ("(1 + x)/(2 + x)**2", (-1, 1), (5, 5), (1, 2)),
        ("x**2 + 1/3", (-1, 1), (4, 4), (2, 0)),
    ],
)
def test_rational_targets_are_found_exactly(text, domain, type, own):
    fit = approx.minimax(approx.formula(text, domain), type)
    assert fit.converged
    assert fit.error < 1e-15
    assert "itself" in fit.message
    assert fit.rational.type == own


def test_powers_that_cancel_leave_no_rounding_behind():
    domain = [
        (-1.4902131644898846, -1.3499870062814292),
        (-1.0307685601362793, -0.6992777035367066),
        (-0.24, 0.9),
    ]
    t = approx.formula("1/(1 + 25*x**2)", domain)
    num, den = approx.minimax(t, (5, 4)).rational.exact()
    assert [int(c) for c in num.coeffs()] == [1]
    assert [int(c) for c in den.coeffs()] == [1, 0, 25]


def test_float64_callables_stop_honestly():
    fit = approx.minimax(Target(np.exp), (9, 8))
    assert not fit.converged
    assert "enclose" in fit.message
    assert fit.error < 1e-13
    assert approx.minimax(Target(np.exp), (3, 2)).error == pytest.approx(
        approx.minimax(approx.exp(), (3, 2)).error
    )


def test_what_cannot_be_reached_is_not_called_converged():
    fit = approx.minimax(approx.formula("sin(30*x)"), (9, 8))
    assert not fit.converged or fit.error >= 1 - 1e-9
    assert fit.message


def test_a_pole_in_a_gap_only_on_request():
    free = approx.minimax(approx.sign(0.1), (8, 9))
    allowed = approx.minimax(approx.sign(0.1), (8, 9), poles="allow_in_gaps")
    assert not [p for p in free.rational.poles() if p.imag == 0 and abs(p.real) <= 1]
    assert [p for p in allowed.rational.poles() if p.imag == 0 and abs(p.real) < 0.1]
    # sign = 1/sign: with the pole, type (8, 9) does what (9, 8) does without
    assert allowed.error == pytest.approx(approx.zolotarev_error(4, 0.1), rel=1e-9)
    assert free.error > 3 * allowed.error


def test_sign_is_zolotarevs():
    for n, delta in ((1, 0.1), (4, 0.1), (7, 0.01)):
        fit = approx.minimax(approx.sign(delta), (2 * n + 1, 2 * n))
        assert fit.error == pytest.approx(approx.zolotarev_error(n, delta), rel=2e-9)
        x = np.linspace(delta, 1, 33)
        assert fit.rational(x) == pytest.approx(
            approx.zolotarev_sign(n, delta)(x), abs=1e-3 * fit.error + 1e-14
        )


@pytest.mark.filterwarnings("ignore:AAA failed")
def test_agreement_with_other_methods():
    from scipy.interpolate import AAA

    x = np.linspace(-1, 1, 2001)
    for target, n in ((approx.exp(), 3), (approx.formula("1/(1.5 + sin(3*x))"), 4)):
        best = approx.minimax(target, (n, n))
        near = np.max(np.abs(target(x) - AAA(x, target(x), max_terms=n + 1, rtol=0)(x)))
        assert best.levelled < near < 20 * best.error
    baryrat = pytest.importorskip("baryrat")
    error = baryrat.brasil(np.sqrt, (0, 1), 8, info=True)[1].error
    assert approx.minimax(approx.sqrt(), (8, 8)).error == pytest.approx(error, rel=2e-4)


@pytest.mark.parametrize(
    ("target", "type"),
    [(approx.absolute(), (40, 40)), (approx.gelu(), (9, 8)), (approx.sign(0.01), (12, 7))],
    ids=str,
)
def test_a_certificate_says_that_it_is_best(target, type):
    fit = approx.minimax(target, type)
    proof = approx.certify(fit.rational, target, type=type)
    assert isinstance(proof, approx.Certificate)
    assert proof.pole_free
    assert proof.lower <= fit.error * (1 + 1e-10)
    assert proof.upper <= proof.best_lower * (1 + 1e-8)


@pytest.mark.parametrize("steep", [1e8, 1e12])
def test_what_is_met_beside_a_pole_is_met_to_the_digits_of_float64(steep):
    fit = approx.minimax(approx.formula(f"1/(1+{steep:.0f}*(x-0.3)**2)"), (3, 2))
    assert fit.verdict is Verdict.EXACT
    assert fit.error < 1e-14  # coefficients of float64 left 1.5e-9 and 3e-6
    with precision(200):
        x = arb(0.3) + arb(1e-6)
        exact = 1 / (1 + arb(steep) * (x - arb(0.3)) ** 2)
        assert abs(fit.rational(x) - exact) < 1e-14


@pytest.mark.parametrize("digits", ["50", 50.5, 0, 151])
def test_digits_are_a_whole_number(digits):
    with pytest.raises(ValueError, match=r"digits=.*: expected 1 to 150"):
        approx.minimax(approx.exp(), (2, 2), digits=digits)


@pytest.mark.parametrize("start", [1e4, 1e6, 1e8, 1e9])
@pytest.mark.parametrize("type", [(3, 3), (4, 4), (2, 1)])
def test_a_callable_far_from_0_claims_no_bound_that_its_formula_is_below(start, type):
    """It is known at floats alone, and these are far apart there."""
    known = approx.minimax(approx.formula(f"exp(x-{start!r})", (start, start + 1)), type)
    fit = approx.minimax(approx.Target(lambda x: np.exp(x - start), (start, start + 1)), type)
    assert fit.levelled <= known.error * (1 + 1e-9)
    if fit.converged:
        assert fit.error <= known.error * 1.05


def test_a_domain_of_a_few_thousand_floats_ends():
    fit = approx.minimax(approx.Target(lambda x: np.exp((x - 1) * 1e12), (1, 1 + 1e-12)), (3, 3))
    assert not fit.converged
    assert fit.error < 1e-3


@pytest.mark.parametrize(
    "text",
    [
        "1e-9+exp(-1e9*(x-0.3)**2)",
        "2+exp(-1e12*(x-0.3)**2)",
        "tanh(1e9*(x-0.3))-tanh(1e9*(x-0.300001))",
        "abs(exp(-1e9*(x-0.3)**2)-0.5)",
        "1/3+exp(-1e14*(x-0.3)**2)",
    ],
)
def test_what_a_narrow_feature_hides_is_never_exact(text):
    """A constant but for a part of the domain that no reference of six points meets."""
    fit = approx.minimax(approx.formula(text), (3, 2))
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert fit.verdict is not Verdict.EXACT
    assert fit.levelled <= proof.upper
    if fit.converged:
        assert proof.lower * (1 - 1e-9) <= fit.error <= proof.upper * (1 + 1e-9)


@pytest.mark.parametrize("type", [(3, 2), (5, 5), (6, 4)])
@pytest.mark.parametrize("f", [np.exp, np.sin, np.arctan])
def test_a_callable_in_float32_ends_at_its_rounding(f, type):
    """Its values are a staircase in float64: nothing is claimed below the height of a step."""
    known = approx.minimax(Target(f, (-1, 1.5)), type)
    fit = approx.minimax(Target(lambda x: f(np.asarray(x).astype(np.float32)), (-1, 1.5)), type)
    x = np.linspace(-1, 1.5, 1_000_001)
    away = np.max(np.abs(f(x.astype(np.float32)) - f(x)))
    assert fit.levelled <= known.error * (1 + 1e-6) + away
    assert fit.error <= 1.1 * (known.error + away)
    assert not (fit.converged and known.error < 1e-8)


@pytest.mark.parametrize(
    ("text", "domain", "type"),
    [("cos(15*x)+x**3", (-1, 1.1), (6, 4)), ("sin(9*x)+exp(x)/2", (-1, 1.3), (3, 3))],
)
def test_what_turns_more_often_than_its_degrees_has_a_bound(text, domain, type):
    """Smaller functions on the way alternate often enough to prove that nothing lowers the waves by much."""
    fit = approx.minimax(approx.formula(text, domain), type)
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert 0.85 * fit.error < fit.levelled <= proof.upper


@pytest.mark.parametrize("weight", [None, "relative"])
@pytest.mark.parametrize(("more", "less"), [(0, 0), (1, 1)])
@pytest.mark.parametrize(
    ("text", "type"),
    [("1/x", (0, 1)), ("1/(x*x-0.25)", (0, 2)), ("x/(x*x-0.25)", (1, 2)), ("2+1/(x+0.5)", (1, 1))],
)
def test_poles_in_gaps_are_no_fault_where_they_are_allowed(text, type, more, less, weight):
    target = approx.formula(text, [(-2, -1), (1, 3)]).with_weight(weight)
    fit = approx.minimax(target, (type[0] + more, type[1] + less), poles="allow_in_gaps")
    assert fit.verdict is Verdict.EXACT
    assert fit.converged
    assert fit.rational.type == type


@given(
    st.floats(-0.9, 0.9),
    st.floats(0.01, 2),
    st.sampled_from([(0, 0), (3, 2), (5, 4), (6, 0), (2, 5)]),
    st.sampled_from([None, "exp(x)"]),
)
@settings(deadline=None, max_examples=5)
def test_no_fit_is_claimed_to_follow_a_jump(place, height, type, weight):
    """No continuous function has less than half of it, and a smooth rest leaves that to be reached."""
    place = round(place, 3)
    text = f"(x-({place}))"
    target = approx.formula(f"sin(x)/9 + {height!r}*{text}/abs{text}", (-1, 1))
    assert target.jumps == (place,)
    target = target if weight is None else target.with_weight(approx.formula(weight, (-1, 1)))
    least = height * (1 if weight is None else np.exp(place))
    fit = approx.minimax(target, type)
    assert fit.levelled <= fit.error
    assert fit.error >= least * (1 - 1e-9)
    if type != (0, 0):
        assert fit.levelled >= least * (1 - 1e-9)
        assert fit.error <= 1.5 * least


def test_a_large_type_that_cannot_follow_a_wave_says_so_at_once():
    """64 half-waves need degree 62 at least: below, the zero function is best, and each try took 20 s."""
    fit = approx.minimax(approx.formula("sin(100*x)", (-1, 1)), (60, 60))
    assert fit.verdict is Verdict.DEGENERATE
    assert fit.error == pytest.approx(1, rel=1e-12)


@given(st.floats(38, 60), st.sampled_from([(3, 3), (4, 4), (4, 3)]))
@settings(deadline=None, max_examples=2)
def test_what_a_part_of_the_domain_costs_is_a_bound_for_the_whole(length, type):
    """Relative to exp nothing does on a long interval; continuation stops at a part of it, which says so."""
    part = approx.minimax(approx.exp((0, 30)).with_weight("relative"), type)
    fit = approx.minimax(approx.exp((0, length)).with_weight("relative"), type)
    assert part.converged
    assert part.error <= fit.error <= 1 + 1e-9
    assert part.error * 0.99 <= fit.levelled <= fit.error


def dense(target):
    """Points of the domain, closer together towards its ends."""
    low, high = target.hull
    near = (high - low) * np.logspace(-9, -1, 500)
    return np.unique(np.r_[np.linspace(low, high, 5001), low + near, high - near])


@given(st.floats(4, 12), st.floats(4, 6), st.floats(0.02, 0.2), st.sampled_from([(6, 1), (3, 2), (4, 0)]))
@example(7.65, np.log10(3.84e5), 0.1, (6, 1))
@settings(deadline=None, max_examples=2)
def test_no_bound_of_a_relative_error_is_above_that_of_zero(size, steep, tail, type):
    """Targets that fall by tens of decades. A walk of an unweighted problem on the way is no bound for the weighted."""
    f = f"exp({size}*atan({10**steep:.3g}*(x - 3.49)) + {tail:.3g}/(x - 3.4885))"
    target = approx.formula(f, domain=(3.489, 3.499)).with_weight("relative")
    fit = approx.minimax(target, type)
    x = dense(target)
    assert fit.levelled <= 1
    assert np.max(np.abs(1 - fit.rational(x) / target(x))) <= fit.error * (1 + 1e-9) <= 1 + 1e-8


@pytest.mark.parametrize(
    ("f", "domain", "type"),
    [
        ("exp(-6.43*x + sqrt(x - 1.212)*0.1)", (1.213, 9.8558), (8, 7)),
        ("exp(x)", (-20, 0), (5, 5)),
        ("exp(x)", (-30, 0), (0, 8)),
        ("erfc(x)", (0, 6), (6, 6)),
        ("gamma(x)", (1, 9), (5, 4)),
        ("exp(-x**2)", (-4, 4), (8, 8)),
        ("sqrt(x)", (1e-6, 1), (8, 8)),
    ],
)
def test_a_relative_error_is_kept_where_the_target_is_small(f, domain, type):
    """The form is chosen by what its rounding costs beside the weight: float64 arrays have the error that is said."""
    target = approx.formula(f, domain=domain).with_weight("relative")
    fit = approx.minimax(target, type)
    assert fit.rational.bits == 53
    x = dense(target)
    assert np.max(np.abs(1 - fit.rational(x) / target(x))) <= fit.error * (1 + 1e-6) + 1e-13
