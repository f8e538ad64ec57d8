"""Certificates: sound before tight, replayable, and impossible to alter unnoticed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_series, fmpq, fmpq_poly
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

import approx as targets
from approx.dyadic import dyadic, precision
from approx.fit.minimax import minimax
from approx.forms import SafePade
from approx.proofs import Certificate, CertificateError, Estimate, certify, verify
from approx.rational import Rational
from approx.target import Target
from approx.zolotarev import zolotarev_error, zolotarev_sign
from tests.approx.helpers import exact_mp, sturm

# -- an independent reading of the same objects, in mpmath


TRUTH: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: max(x, mpf(0)),
    "absolute": abs,
    "sqrt": mp.sqrt,
    "sign": mp.sign,
    "exp": mp.exp,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "gelu": lambda x: x * mp.ncdf(x),
}


def error_mp(rational: Rational, t: Target, piece: int, x: fmpq) -> Any:
    """|w (f - r)| at an exact point, r exactly and f in mpmath; one-sided at a jump, as the piece is."""
    num, den = rational.exact()
    if den(x) == 0:
        return mp.inf
    r, polynomial = exact_mp(num(x) / den(x)), t.pieces()[piece].polynomial
    f = exact_mp(polynomial(x)) if polynomial is not None else TRUTH[t.name](exact_mp(x))
    if isinstance(t.weight, Target):
        with precision(256):
            return abs(f - r) * exact_mp(arb(t.weight(arb(x))).mid().fmpq())
    return abs(f - r) / (abs(f) if t.weight == "relative" else 1)


def worst_of(rational: Rational, t: Target, count: int = 60, seed: int = 0) -> Any:
    """The largest error at many points, more of them near the ends of the pieces."""
    rng = random.Random(seed)
    worst = mpf(0)
    for i, piece in enumerate(t.pieces()):
        places = [rng.random() for _ in range(count)]
        places += [10.0 ** -rng.uniform(1, 18) for _ in range(count // 2)]
        places += [1 - p for p in places] + [0.0, 1.0]
        for place in places:
            x = piece.a + (piece.b - piece.a) * dyadic(place)
            worst = max(worst, error_mp(rational, t, i, x))
    return worst


def check(rational: Rational, t: Target, seed: int = 0, **options: Any) -> Certificate:
    """Certify, and hold every claim against sampling."""
    c = certify(rational, t, **options)
    assert isinstance(c, Certificate)
    if c.bounds is None or c.witness is None:
        assert c.lower == c.upper == math.inf
        assert not c.pole_free
        return c
    assert c.bounds[1] - c.bounds[0] <= c.rel * c.bounds[1]
    assert c.best <= c.bounds[1]
    with mp.workdps(60):
        lower, upper = map(exact_mp, c.bounds)
        assert c.lower <= lower <= upper <= c.upper
        assert worst_of(rational, t, seed=seed) <= upper
        # the lower bound is attained, by an independent evaluation
        assert error_mp(rational, t, *c.witness) >= lower
    return c


# -- soundness on random rationals

numbers = st.one_of(
    st.integers(-4, 4).map(float),
    st.floats(-3, 3, allow_nan=False),
    st.floats(-12, -1).map(lambda e: 10**e),
)
coefficients = st.lists(numbers, min_size=1, max_size=7)
EVERYTHING = [
    targets.relu(),
    targets.relu((-3, 0.5)),
    targets.absolute((-2, 1)),
    targets.sqrt(),
    targets.sqrt((0, 3)),
    targets.sqrt((0.01, 2)),
    targets.sign(0.1),
    targets.gate(0.2, 0.05),
    targets.gate(0.2).with_domain((-1, 1)),
    targets.jump_relu(0.1, 0.01),
    targets.jump_relu(-0.3).with_domain((-1, 1)),
    targets.exp(),
    targets.exp((-4, 4)),
    targets.tanh((-3, 3)),
    targets.sigmoid((-5, 5)),
    targets.silu(),
    targets.gelu((-4, 4)),
    targets.exp().with_weight("relative"),
    targets.sigmoid().with_weight("relative"),
    targets.sqrt((0.25, 2)).with_weight("relative"),
    targets.absolute((0.5, 2)).with_weight("relative"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(EVERYTHING),
    coefficients,
    coefficients,
    st.sampled_from([1e-3, 1e-10, 1e-30]),
    st.integers(0, 9),
)
def test_sampling_never_leaves_the_enclosure(
    t: Target, num: list[float], den: list[float], rel: float, seed: int
):
    assume(any(den))
    c = check(Rational.from_monomial(num, den), t, seed, rel=rel)
    assert len(c.poles) == sturm(c.rational.exact()[1], *map(dyadic, t.hull))
    Certificate.from_json(c.to_json()).verify()


def test_a_peak_between_samples_is_found():
    # two poles 1e-40 from the domain, where no grid looks; the Taylor models are made to its measure
    r = Rational.from_factored(1, [], [(dyadic(0.7123456), dyadic(1e-40))])
    for t in (targets.exp(), targets.sqrt((0.25, 2)).with_weight("relative"), targets.relu()):
        assert check(r, t).upper > 1e79


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([targets.relu(), targets.sign(0.1), targets.tanh(), targets.sqrt()]),
    st.floats(-1, 1),
    st.floats(-30, -1),
    st.booleans(),
    st.integers(1, 2),
)
def test_near_poles(t: Target, at: float, exponent: float, touching: bool, power: int):
    """Denominators ((x - at)^2 + eps^2)^power: no pole, however near; eps = 0 is a pole, exactly."""
    eps = dyadic(0.0 if touching else 10**exponent)
    factor = fmpq_poly([dyadic(at) ** 2 + eps**2, -2 * dyadic(at), 1])
    coefficients = (factor**power).coeffs()
    r = Rational.from_monomial([fmpq(1), fmpq(1, 2)], coefficients)
    c = check(r, t)
    inside = t.hull[0] <= at <= t.hull[1]
    assert c.pole_free == (not (touching and inside))
    if touching and inside:
        assert len(c.poles) == 1
        assert c.poles[0][0] <= dyadic(at) <= c.poles[0][1]
        assert (c.upper == math.inf) == any(a <= at <= b for a, b in t.domain)
    elif not touching and any(a < at < b for a, b in t.domain):
        assert c.upper >= 0.4 / float(eps) ** (2 * power)


@pytest.mark.parametrize("end", [-1.0, 1.0])
@pytest.mark.parametrize(("offset", "free"), [(-1, False), (0, False), (1, True)])
def test_a_pole_at_the_end_of_the_domain(end: float, offset: int, free: bool):
    pole = dyadic(end) * (1 + fmpq(offset, 1 << 300))
    c = check(Rational.from_monomial([1], [-pole, 1]), targets.relu())
    assert c.pole_free is free


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([targets.relu(), targets.tanh(), targets.sign(0.1), targets.exp((0.5, 1))]),
    st.lists(st.floats(-2, 2), min_size=1, max_size=5),
    st.lists(st.floats(0, 3), min_size=1, max_size=4),
    st.sampled_from([-0.75, 0.0, 0.3, 2.0]),
)
def test_safe_pade_functions_are_proven_branch_by_branch(t: Target, num: list, b: list, centre: float):
    form = SafePade(tuple(map(dyadic, num)), tuple(map(dyadic, b)))
    r = Rational(form, t.domain, dyadic(centre), fmpq(-1))
    c = certify(r, t)
    assert isinstance(c, Certificate)
    assert c.pole_free
    assert c.best_lower <= c.upper
    x = np.concatenate([np.linspace(*interval, 401) for interval in t.domain])
    sides = np.nextafter(0.0, [-1, 1]) if t.kinks else []  # not on the kink, where the sides meet
    u = -(np.concatenate([x, sides]) - centre)
    errors = abs(t(-u + centre) - np.polyval(num[::-1], u) / np.polyval([*b[::-1], 1], abs(u)))
    assert np.max(errors) <= c.upper * (1 + 1e-12) + 1e-12
    assert c.lower <= np.max(errors) + 0.2  # 401 points find it to a modulus of continuity
    Certificate.from_json(c.to_json()).verify()


def test_a_pole_in_a_gap_is_reported_and_the_error_is_finite():
    r = Rational.from_monomial([0, 1], [-0.01, 0, 1])  # poles at +-0.1 in floats: inside the gap of 0.2
    c = check(r, targets.sign(0.2))
    assert not c.pole_free
    assert [round(float(lo), 9) for lo, _ in c.poles] == [-0.1, 0.1]
    assert math.isfinite(c.upper)
    assert check(r, targets.sign(0.05)).upper == math.inf


def test_a_common_factor_is_no_pole():
    r = Rational.from_monomial([-0.25, 1], [-0.25, 1])
    c = check(r, targets.relu())
    assert c.pole_free
    assert c.upper == pytest.approx(1, abs=1e-9)


def test_a_zero_that_the_target_and_the_rational_share():
    # (x - (x + x^2/10)) / x = -x/10
    c = check(Rational.from_monomial([0, 1, dyadic(0.1)]), targets.relu((0.25, 1)).with_weight("relative"))
    assert c.upper == pytest.approx(0.1, abs=1e-10)
    c = certify(Rational.from_monomial([0, 1, dyadic(0.1)]), targets.relu((0, 1)).with_weight("relative"))
    assert isinstance(c, Certificate)
    assert c.upper == pytest.approx(0.1, abs=1e-10)


@pytest.mark.parametrize("t", [targets.relu((0.25, 1)), targets.formula("x")])
def test_no_error_at_all(t: Target):
    c = certify(Rational.from_monomial([0, 1]), t)
    assert isinstance(c, Certificate)
    assert c.lower == c.upper == c.best_lower == 0


@pytest.mark.parametrize("weight", [None, "relative", targets.formula("exp(-x)", (1, 3))], ids=str)
def test_no_error_at_all_is_proven_where_the_formula_says_so(weight: Any):
    same = certify(Rational.from_monomial([1], [0, 1]), targets.formula("1/x", (1, 3)).with_weight(weight))
    assert isinstance(same, Certificate)
    assert same.lower == same.upper == 0
    with pytest.raises(ArithmeticError, match="seems to be 0"):  # models of exp(log x) show no quotient
        certify(Rational.from_monomial([0, 1]), targets.formula("exp(log(x))", (1, 3)).with_weight(weight))


@pytest.mark.parametrize("scale", [1e-100, 1e-9, 1e30, 1e300])
@pytest.mark.parametrize("name", ["relu", "sqrt", "absolute", "sign"])
def test_the_scale_of_the_domain_does_not_matter(name: str, scale: float):
    make = {
        "relu": lambda s: (targets.relu((-s, s)), [0.1, 0.5, 0.4]),
        "sqrt": lambda s: (targets.sqrt((0, s)), [0.2, 1]),
        "absolute": lambda s: (targets.absolute((-s, 2 * s)), [0.1, 0, 1]),
        "sign": lambda s: (targets.sign(0.1).with_domain([(-s, -s / 8), (s / 8, s)]), [0, 2]),
    }
    t, coefficients = make[name](scale)
    unit, _ = make[name](1.0)
    # powers of two scale exactly; sqrt of the scale is the same only to rounding
    power = {"sign": 0.0, "sqrt": 0.5}.get(name, 1.0)
    value = float(scale) ** power
    c = check(Rational.from_monomial([a * value for a in coefficients], [1.0], t.domain, scale=scale), t)
    same = check(Rational.from_monomial(coefficients), unit)
    assert c.upper / value == pytest.approx(same.upper, rel=1e-9)


# -- tightness, and numbers that others have found


def test_rel_is_met():
    s = zolotarev_sign(3, 0.1)
    for rel in (1e-3, 1e-10, 1e-30):
        c = check(s, targets.sign(0.1), rel=rel)
        assert c.bounds is not None
        assert c.bounds[1] - c.bounds[0] <= dyadic(rel) * c.bounds[1]
    c = check(Rational.from_monomial([1, 0.5], [1, -0.5]), targets.exp(), rel=1e-30)
    assert c.bounds is not None
    # the error of the (1,1) Pade approximant of exp at 1 is 3 - e
    with mp.workdps(60):
        assert exact_mp(c.bounds[0]) <= 3 - mp.e <= exact_mp(c.bounds[1])


def test_the_best_line_to_the_exponential():
    # e^x on [-1, 1] by a line: slope sinh 1, error (e^-1 - ... )/2 in closed form
    with mp.workdps(40):
        slope = mp.sinh(1)
        middle = mp.log(slope)
        offset = (mp.cosh(1) + slope - slope * middle) / 2
        error = mp.e - slope - offset
    c = check(Rational.from_monomial([float(offset), float(slope)]), targets.exp())
    assert c.type == (1, 0)
    assert c.best_lower <= error <= c.upper
    assert c.best_lower == pytest.approx(float(error), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_chebyshev_polynomials(n: int):
    # x^n - T_n / 2^(n-1): the best polynomial of degree n - 1, with error 2^(1-n)
    t = targets.formula(f"x**{n}")
    chebyshev = np.polynomial.chebyshev.cheb2poly([0] * n + [1]) / 2.0 ** (n - 1)
    best = Rational.from_monomial([*(-chebyshev[:-1]), 0.0])
    c = certify(best, t, type=(n - 1, 0))
    assert isinstance(c, Certificate)
    assert c.lower <= 2.0 ** (1 - n) <= c.upper
    assert c.best_lower == pytest.approx(2.0 ** (1 - n), rel=1e-9)
    assert c.best_lower <= 2.0 ** (1 - n)


def bracket(t: Target, kind: tuple[int, int]) -> Certificate:
    c = check(minimax(t, kind).rational, t)
    assert c.type == kind
    assert c.pole_free
    return c


KNOWN = [
    # R. S. Varga, A. Ruttan, A. J. Carpenter, Numerical results on best uniform rational approximation of |x|
    # on [-1, 1], Math. USSR Sbornik 74 (1993)
    (targets.absolute(), (2, 2), "0.0436890126920763615708559"),
    (targets.absolute(), (4, 4), "0.00850148470407382930"),
    (targets.absolute(), (6, 6), "0.00228210600972525948"),
    (targets.absolute(), (8, 8), "0.000736563614030703056"),
    (targets.sqrt(), (4, 4), "0.000736563614030703056"),
    # half of that
    (targets.relu(), (3, 2), "0.02184450634603818078542795"),
    (targets.relu(), (5, 4), "0.00425074235203691465"),
    # Zolotarev
    (targets.sign(0.1), (9, 8), "2.342602176284903e-5"),
    # found by other methods than the ones here
    (targets.jump_relu(0.1, 0.01), (9, 8), "4.678540127070067e-4"),
]


@pytest.mark.parametrize(("t", "kind", "value"), KNOWN, ids=lambda item: str(item))
def test_literature_constants_lie_in_the_bracket(t: Target, kind: tuple[int, int], value: str):
    c = bracket(t, kind)
    with mp.workdps(30):
        # the last digit that is quoted may be off
        assert exact_mp(c.best) <= mpf(value) * (1 + mpf(10) ** -15)
        assert mpf(value) * (1 - mpf(10) ** -15) <= exact_mp(c.bounds[1])  # type: ignore[index]
    assert c.best_lower == pytest.approx(float(value), rel=1e-9)
    assert c.upper == pytest.approx(float(value), rel=1e-9)


@pytest.mark.parametrize(
    ("t", "kind"),
    [
        (targets.exp(), (9, 8)),
        (targets.tanh(), (9, 8)),
        (targets.gelu((-8, 8)), (9, 8)),
        (targets.sigmoid((-20, 20)), (9, 8)),
        (targets.silu(), (5, 4)),
        (targets.jump_relu(0.1, 0.001), (15, 14)),
        (targets.bi_jump_relu(0.1, 0.01), (9, 8)),
        (targets.gate(-0.5, 0.01), (9, 8)),
        (targets.relu(), (19, 18)),
    ],
    ids=lambda item: str(item),
)
def test_fits_are_proven_best_however_small_the_error(t: Target, kind: tuple[int, int]):
    c = bracket(t, kind)
    assert c.best_lower == pytest.approx(c.upper, rel=1e-7)


def test_stahl():
    # e^(pi sqrt n) E_nn(|x|) grows to 8 (H. Stahl, Math. USSR Sbornik 76, 1993)
    lower, upper = [], []
    for n in (4, 8, 16, 32):
        c = bracket(targets.absolute(), (n, n))
        lower.append(math.exp(math.pi * math.sqrt(n)) * c.best_lower)
        upper.append(math.exp(math.pi * math.sqrt(n)) * c.upper)
    assert all(a < b for a, b in zip(upper, lower[1:], strict=False))
    assert 6 < lower[-1] < upper[-1] < 8


def test_halphen():
    # E_nn(exp; (-inf, 0]) falls like 9.28903^-n; W. J. Cody, G. Meinardus, R. S. Varga, J. Approx. Theory 2
    # (1969) give E_11 = 6.683e-2, E_22 = 7.359e-3, E_33 = 7.994e-4, E_44 = 8.653e-5, which no part exceeds
    errors = []
    for n, whole in ((1, 6.684e-2), (2, 7.360e-3), (3, 7.995e-4), (4, 8.654e-5)):
        c = bracket(targets.exp((-3000, 0)), (n, n))
        assert 0.99 * whole < c.best_lower
        assert c.upper < whole
        errors.append(c.upper)
    assert errors[2] / errors[3] == pytest.approx(9.28903, rel=5e-3)


# -- the bound on the best error


def test_a_fit_brings_its_target_and_its_type():
    fit = minimax(targets.absolute(), (3, 2))
    proof = certify(fit)
    assert isinstance(proof, Certificate)
    assert proof.target is fit.target
    assert proof.type == (3, 2)
    assert proof.best_lower == pytest.approx(fit.error, rel=1e-8)
    other = certify(fit, targets.relu())
    assert isinstance(other, Certificate)
    assert other.lower > 0.4


def test_a_poor_fit_still_proves_what_is_best():
    # Zolotarev's function with a larger gain alternates still, and its levelled neighbour proves the optimum
    s, best = zolotarev_sign(4, 0.01), zolotarev_error(4, 0.01)
    num, den = s.exact()
    worse = Rational.from_exact(num * (1 + dyadic(best) / 2), den, s.domain)
    c = check(worse, targets.sign(0.01))
    assert c.comparison is not None
    assert c.upper > 1.4 * best
    assert c.best_lower <= best * (1 + 1e-14)
    assert c.best_lower == pytest.approx(best, rel=0.02)


def test_a_larger_type_is_not_proven_by_too_few_points():
    s = zolotarev_sign(2, 0.1)
    # its error alternates 12 times, and num q - p den has degree max(5 + n, m + 4)
    for kind, needed in (((5, 4), 11), ((6, 4), 12), ((6, 5), 12), ((7, 5), 13), ((6, 6), 13), ((4, 4), 13)):
        proven = needed <= 12
        c = certify(s, targets.sign(0.1), type=kind)
        assert isinstance(c, Certificate)
        assert (c.best_lower > 0) == proven
        assert len(c.points) == (needed if proven else 0)
        c.verify()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.floats(0.02, 0.5), st.lists(st.floats(-1, 1), min_size=12, max_size=12))
def test_no_competitor_beats_the_bound(n: int, delta: float, noise: list[float]):
    """Any pole-free rational of the type has at least the error that the certificate says none can beat."""
    s = zolotarev_sign(n, delta)
    proof = certify(s, targets.sign(delta))
    num, den = s.exact()
    size = fmpq(1, 20)
    top = num + fmpq_poly(
        [dyadic(z) * size * (1 + abs(num[i])) for i, z in enumerate(noise[: num.degree() + 1])]
    )
    bottom = den + fmpq_poly(
        [dyadic(z) * size * abs(den[i]) for i, z in enumerate(noise[-den.degree() - 1 :])]
    )
    rival = certify(Rational.from_exact(top, bottom, s.domain), targets.sign(delta))
    assert isinstance(proof, Certificate)
    assert isinstance(rival, Certificate)
    if rival.pole_free:
        assert rival.upper >= proof.best_lower
        assert rival.best_lower <= zolotarev_error(n, delta) * (1 + 1e-14)


# -- files


@pytest.fixture(scope="module")
def examples() -> list[Certificate]:
    made = [
        certify(zolotarev_sign(2, 0.1), targets.sign(0.1)),
        certify(Rational.from_monomial([0.1, 0.5, 0.4], [1.0]), targets.relu()),
        certify(Rational.from_monomial([1, 0.5], [1, -0.5]), targets.exp()),
        certify(Rational.from_monomial([0, 1], [-0.01, 0, 1]), targets.sign(0.2)),
        certify(Rational.from_monomial([1], [0, 1]), targets.relu()),
        certify(Rational.from_monomial([1.0, 0.6], [1.0]), targets.exp().with_weight("relative")),
        certify(
            Rational.from_monomial([1.0, 0.6], [1.0]),
            targets.exp().with_weight(targets.formula("exp(-2*x) + abs(x - 0.25)")),
        ),
    ]
    assert any(c.comparison for c in made if isinstance(c, Certificate))
    return [c for c in made if isinstance(c, Certificate)]


def test_a_file_replays_by_itself(examples: list[Certificate], tmp_path: Path):
    for i, c in enumerate(examples):
        path = tmp_path / f"{i}.json"
        c.save(path)
        again = verify(path)
        assert again.to_json() == c.to_json()
        assert (again.lower, again.upper, again.best_lower) == (c.lower, c.upper, c.best_lower)
        assert again.pole_free == c.pole_free
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{i}.json" for i in range(len(examples))]


def leaves(item: Any, path: tuple = ()) -> list[tuple[tuple, Any]]:
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    found = [leaf for key, value in pairs for leaf in leaves(value, (*path, key))]
    return found if isinstance(item, dict | list) else [(path, item)]


def changed(data: Any, rng: random.Random) -> tuple[Any, tuple]:
    """A copy of a record with one digit, number or word of it altered."""
    path, value = rng.choice([leaf for leaf in leaves(data) if leaf[0] != ("sha256",)])
    if isinstance(value, str) and any(ch.isdigit() for ch in value):
        i = rng.choice([i for i, ch in enumerate(value) if ch.isdigit()])
        value = value[:i] + rng.choice([d for d in "0123456789" if d != value[i]]) + value[i + 1 :]
    elif isinstance(value, str):
        value = value + "x"
    elif isinstance(value, int):
        value = value + rng.choice([-1, 1])
    else:
        value = "1"
    result = copy.deepcopy(data)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result, path


def signed(data: Any) -> Any:
    """The record with its digest made right again: what a forger would do."""
    record = {k: v for k, v in data.items() if k != "sha256"}
    return record | {"sha256": hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()}


def test_every_changed_digit_is_noticed(examples: list[Certificate], tmp_path: Path):
    path = tmp_path / "c.json"
    for c in examples:
        text = json.dumps(c.to_json())
        digits = [i for i, ch in enumerate(text) if ch.isdigit()]
        for i in random.Random(1).sample(digits, 150):
            path.write_text(text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :])
            with pytest.raises(CertificateError):
                verify(path)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 6), st.integers(0, 10**6))
def test_a_forged_certificate_fails_or_speaks_the_truth(examples: list[Certificate], which: int, seed: int):
    """With the digest made right only the proof stands in the way: what passes it must still be true."""
    data, path = changed(examples[which].to_json(), random.Random(seed))
    try:
        forged = Certificate.from_json(signed(data))
        forged.verify()
    except CertificateError:
        return
    assert path[0] in {
        "rational",
        "target",
        "bounds",
        "best",
        "points",
        "poles",
        "witness",
        "rel",
        "type",
        "comparison",
    }
    if forged.bounds is not None:
        with mp.workdps(60):
            assert worst_of(forged.rational, forged.target, 30) <= exact_mp(forged.bounds[1])
        # nothing true is far from what certify finds anew
        anew = certify(forged.rational, forged.target, rel=float(forged.rel), type=forged.type)
        assert isinstance(anew, Certificate)
        assert anew.bounds is not None
        assert forged.bounds[0] <= anew.bounds[1]
        assert anew.bounds[0] <= forged.bounds[1]
        assert len(anew.poles) == len(forged.poles)


@pytest.fixture(scope="module")
def relative() -> list[dict[str, Any]]:
    """Records of fits in the relative error: of targets without a zero, with one at 0, inside, and at an end."""
    domains = [("exp(x)", (-1, 1)), ("sin(x)", (-1, 1)), ("sin(x)", (2, 4)), ("cos(x)", (0, math.pi / 2))]
    chosen = [targets.formula(text, domain).with_weight("relative") for text, domain in domains]
    fits = [minimax(target, type) for target in chosen for type in ((5, 0), (3, 2), (0, 0))]
    proofs = [certify(fit) for fit in fits]
    return [proof.to_json() for proof in proofs if isinstance(proof, Certificate)]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 11),
    st.dictionaries(st.sampled_from(["p0", "p1", "p9", "q0", "q1", "x"]), st.sampled_from(["0", "1", "1/3"])),
    st.sampled_from(["1e-30", "0.5", "1", "1.1", "1e6"]),
    st.booleans(),
)
def test_no_claim_about_fixed_coefficients_is_taken_on_trust(
    relative, which: int, fixed, best: str, bare: bool
):
    """A function of the kind may have no smaller error than the file says that all have."""
    data = relative[which] | {"best": best} | ({"fixed": fixed} if fixed else {})
    data |= {"points": [], "comparison": None} if bare else {}
    try:
        forged = Certificate.from_json(signed(data))
        forged.verify()
    except CertificateError:
        return
    num, den = forged.rational.exact()
    scale = den[0] if den[0] != 0 else 1
    held = {f"{name}{k}": c / scale for name, p in (("p", num), ("q", den)) for k, c in enumerate(p.coeffs())}
    if all(held.get(name, 0) == value for name, value in forged.fixed):
        assert forged.bounds is not None
        assert forged.best <= forged.bounds[1]
    assert all(name in ("p0", "p1", "q0", "q1") for name, _ in forged.fixed)


CLAIMS = {
    "upper bound": lambda d: d["bounds"].__setitem__(1, d["bounds"][0]),
    "witness": lambda d: d["witness"].__setitem__(1, "1/2"),
    "as close": lambda d: d.__setitem__("bounds", [d["bounds"][0], "1"]),
    "best error": lambda d: d.__setitem__("best", d["bounds"][1]),
    "points of alternation": lambda d: d["points"].pop(),
    "not their number": lambda d: d["poles"].append(["0", "1/10"]),
    "infinite": lambda d: (d.__setitem__("bounds", None), d.__setitem__("witness", None)),
    "fields or spellings": lambda d: d["rational"].__setitem__("note", "1"),
    "TypeError": lambda d: d.__setitem__("points", 3),
    "lacks": lambda d: d["rational"].pop("scale"),
    "IndexError": lambda d: d.__setitem__("bounds", []),
    "KeyError: 'rel'": lambda d: d.pop("rel"),
    "is not a number": lambda d: d.__setitem__("best", 0.5),
    "whole number": lambda d: d.__setitem__("type", [3, -1]),
    "malformed": lambda d: d["target"].__setitem__("name", "nothing"),
}


@pytest.mark.parametrize("message", CLAIMS)
def test_the_failing_claim_is_named(examples: list[Certificate], tmp_path: Path, message: str):
    data = copy.deepcopy(examples[0].to_json())
    CLAIMS[message](data)
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(signed(data)))
    with pytest.raises(CertificateError, match=f"forged.json.*{message}"):
        verify(path)


@pytest.mark.parametrize(
    "poles",
    [
        [["0", "1/16"], ["1/16", "1/8"]],  # one pole twice, the other not at all
        [["1/17", "1/15"], ["-1/15", "-1/17"]],
        [["-1/15", "-1/17"], ["1/15", "1/17"]],
        [["-1/15", "-1/17"], ["1/15", "1/14"]],
        [["-1/15", "1/15"]],
        [],
    ],
)
def test_poles_cannot_be_hidden(poles: list):
    r = Rational.from_monomial([0, 1], [dyadic(-1 / 256), 0, 1])  # +-1/16
    c = certify(r, targets.sign(0.2))
    assert isinstance(c, Certificate)
    assert len(c.poles) == 2
    Certificate.from_json(signed(c.to_json() | {"poles": [["-1/15", "-1/17"], ["1/17", "1/15"]]})).verify()
    with pytest.raises(CertificateError, match="pole"):
        Certificate.from_json(signed(c.to_json() | {"poles": poles})).verify()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON file"),
        ("{", "not a JSON file"),
        ("[1, 2]", "not a certificate"),
        ('{"kind": "certificate", "version": 99}', "version 99"),
        ('{"kind": "certificate", "version": 1}', "digest"),
        (json.dumps(Rational.from_monomial([1]).to_json()), "not a certificate"),
    ],
)
def test_malformed_files_say_what_is_wrong(tmp_path: Path, text: str, message: str):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(CertificateError, match=f"broken.json.*{message}"):
        verify(path)


def test_a_half_written_file_is_never_seen(examples: list[Certificate], tmp_path: Path):
    path = tmp_path / "c.json"
    examples[0].save(path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(CertificateError, match="not a JSON file"):
        verify(path)
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "absent.json")


# -- targets that others define


def test_a_bare_callable_gets_an_estimate_that_says_so():
    e = certify(Rational.from_monomial([1.0, 1.0]), Target(np.exp))
    assert isinstance(e, Estimate)
    assert e.kind == "estimate"
    assert e.value == pytest.approx(math.e - 2)
    assert e.x == 1
    assert e.pole_free
    for proven in ("lower", "upper", "best_lower", "save"):
        assert not hasattr(e, proven)
    with_pole = certify(Rational.from_monomial([1.0], [0.1, 1.0]), Target(np.exp))
    assert isinstance(with_pole, Estimate)
    assert not with_pole.pole_free


def test_a_callable_with_an_enclosure_is_proven_but_not_written(tmp_path: Path):
    t = Target(np.exp, enclose=lambda x: x.exp())
    c = certify(Rational.from_monomial([1, 0.5], [1, -0.5]), t)
    assert isinstance(c, Certificate)
    assert c.lower <= 3 - math.e <= c.upper
    with pytest.raises(ValueError, match="callable"):
        c.save(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_may_be_any_positive_function():
    t = targets.exp().with_weight(lambda x: 2 + x)
    c = certify(Rational.from_monomial([1, 0.5], [1, -0.5]), t)
    assert isinstance(c, Certificate)
    assert c.upper == pytest.approx(3 * (3 - math.e), rel=1e-9)
    x = np.linspace(-1, 1, 10001)
    assert np.max((2 + x) * np.abs(np.exp(x) - (1 + x / 2) / (1 - x / 2))) <= c.upper


def test_what_cannot_be_proven_raises():
    r = Rational.from_monomial([1.0, 1.0])
    with pytest.raises(ValueError, match=r"fit\.rational"):
        certify("fit", targets.relu())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="target is missing"):
        certify(r)
    with pytest.raises(ValueError, match=r"approx\.Target"):
        certify(r, np.exp)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArithmeticError, match="seems to be 0"):
        certify(Rational.from_monomial([2, -1]), targets.formula("exp(log(2 - x))"))
    with pytest.raises(ValueError, match="rel=0"):
        certify(r, targets.relu(), rel=0)
    with pytest.raises(ValueError, match="arb_series"):
        certify(r, Target(np.exp, enclose=lambda x: arb(float(x)).exp()))
    with pytest.raises(ValueError, match="lost terms"):
        certify(
            r,
            Target(
                np.exp,
                enclose=lambda x: x.exp() + arb_series([0], 2) if isinstance(x, arb_series) else x.exp(),
            ),
        )
    with pytest.raises(ValueError, match="relative"):
        certify(r, targets.relu().with_weight("relative"))
    with pytest.raises(ValueError, match="relative"):
        certify(r, targets.absolute().with_weight("relative"))
    with pytest.raises(ValueError, match=r"relative.*zero"):
        certify(r, targets.tanh((-1, 2)).with_weight("relative"))
    with pytest.raises(ValueError, match="rational lacks"):
        certify(r, targets.formula("x**2", (-1, 2)).with_weight("relative"), rel=1e-3)
    with pytest.raises(ValueError, match="positive"):
        certify(r, targets.exp().with_weight(lambda x: x - 3))
    with pytest.raises(ValueError, match="whole number"):
        certify(r, targets.relu(), type=(-1, 2))


def test_a_weight_on_floats_only_is_refused_by_its_name():
    target = targets.formula("exp(x)").with_weight(lambda x: np.exp(-x))
    with pytest.raises(ValueError, match="formula"):
        certify(minimax(target, (2, 1)))
    target = targets.formula("exp(x)").with_weight(targets.formula("exp(-x)"))
    proof = certify(minimax(target, (2, 1)))
    assert isinstance(proof, Certificate)
    assert proof.best_lower > proof.upper * (1 - 1e-8)


def test_the_zero_function_bounds_types_that_no_fit_of_reaches():
    # |f| is 1.02681243479378 at atan(log(2)/3)/3, where f has the other sign than at the right end
    fit = minimax(targets.formula("2**x*cos(3*x)", (-1.7, 0.8)), (0, 3))
    proof = certify(fit, type=(0, 5))
    assert isinstance(proof, Certificate)
    assert proof.best_lower == pytest.approx(1.02681243479378, rel=1e-9)
    proof.verify()


def test_a_relative_error_over_forty_decades():
    target = targets.formula("exp(-12*(x+0.8)**2)", (-0.8, 1.9)).with_weight("relative")
    proof = certify(Rational.from_monomial([1, 1], [1, 2, 5], (-0.8, 1.9)), target, rel=1e-4)
    assert isinstance(proof, Certificate)
    x = np.linspace(-0.8, 1.9, 2001)
    seen = np.max(np.abs((1 + x) / (1 + 2 * x + 5 * x * x) / target(x) - 1))
    assert seen <= proof.upper <= seen * (1 + 1e-3)


def test_values_of_more_bits_than_a_machine_has():
    """exp(-10^13) at 0, beside sin(0): no number of the proof holds it."""
    fit = minimax(targets.formula("sin(x)+exp(-1e14*(x-0.3)**2)"), (3, 0))
    proof = certify(fit)
    assert isinstance(proof, Certificate)
    assert proof.lower <= fit.error * (1 + 1e-9) <= proof.upper * (1 + 1e-8)
