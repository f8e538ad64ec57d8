"""The basis of several intervals beside closed forms, and the polynomials that need it."""

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Rational, Verdict
from approx.dyadic import dyadic, precision
from approx.fit.equilibrium import equilibrium
from approx.fit.orthogonal import Orthonormal

DOMAINS = [
    [(2.0, 5.0)],
    [(-1.0, -0.3), (0.5, 1.0)],
    [(0.0, 0.01), (0.9, 1.0)],
    [(-1.0, -0.3), (0.0, 0.2), (0.5, 1.0)],
]


def points(domain, count):
    return np.concatenate([np.r_[np.linspace(a, b, count), a + 1e-9 * (b - a)] for a, b in domain])


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("m", [1, 40, 400])
def test_they_are_orthonormal_and_nowhere_large(domain, m):
    basis = Orthonormal.on(domain, m)
    x = equilibrium(domain, 6 * (m + 1))
    rows = basis.rows(x).astype(float)
    np.testing.assert_allclose(rows.T @ rows / len(x), np.eye(m + 1), atol=1e-8)
    assert np.max(np.abs(basis.rows(points(domain, 2000)))) < 4


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("m", [7, 120, 500])
def test_values_series_and_rounding_are_exact_arithmetics(domain, m):
    """The recurrence in many bits: `rows` are within `rounding`, and the Chebyshev series is the same polynomial."""
    basis = Orthonormal.on(domain, m)
    c = np.random.default_rng(m).normal(size=m + 1)
    unit = fmpq(1, 2) ** 40
    low, high = (dyadic(end) for end in basis.hull)
    series = basis.series(c, unit)
    assert len(series) == m + 1
    p = Rational.from_chebyshev(series, [1], domain, (low + high) / 2, (high - low) / 2)
    x = points(domain, 5)
    rows, values = basis.rows(x), basis.values(c, x)
    with precision(2000):
        for i, place in enumerate(x.tolist()):
            t = (2 * arb(place) - arb(low) - arb(high)) / (arb(high) - arb(low))
            before, q, total = arb(0), arb(1), arb(float(c[0]))
            for k in range(m):
                following = (t - arb(float(basis.alpha[k]))) * q - arb(float(basis.beta[k])) * before
                before, q = q, following / arb(float(basis.beta[k + 1]))
                total += arb(float(c[k + 1])) * q
                assert abs(float(q) - float(rows[i, k + 1])) <= basis.rounding + 1e-16
            assert abs(p(arb(place)) - total) < (m + 1) * arb(unit)
            assert abs(float(total) - values[i]) <= 1e-9
    np.testing.assert_allclose(
        basis.through(equilibrium(domain, m + 2), basis.values(c, equilibrium(domain, m + 2))), c, atol=1e-11
    )


@given(
    st.integers(30, 90),
    st.floats(1.2, 3),
    st.lists(st.floats(0.2, 1), min_size=3, max_size=3),
    st.booleans(),
    st.sampled_from([1e-100, 1.0, 1e100]),
)
@settings(max_examples=12, deadline=None)
def test_more_turns_than_degrees_beside_a_wide_gap(degree, share, lengths, three, scale):
    """The exchange creeps, and float64 holds no Chebyshev coefficients over the hull."""
    a, gap, b = lengths
    domain = [(0.0, a), (a + gap, a + gap + b)] + ([(a + gap + b + 0.3, a + gap + b + 0.5)] if three else [])
    turns = share * degree / (a + b) * np.pi
    target = approx.formula(
        f"{scale}*(sin({turns}*x) + 0.4*abs(x - {0.4 * a}) + cos({turns / 2}*x**2))", domain
    )
    fit = approx.minimax(target, (degree, 0))
    assert fit.verdict is Verdict.BEST, fit
    assert fit.error <= fit.levelled * (1 + 1e-9)
    chance = np.random.default_rng(degree)
    for low, high in domain:
        for x in chance.uniform(low, high, 20).tolist():
            with precision(400):
                assert abs(target(arb(x)) - fit.rational(arb(x))) <= fit.error * (1 + 1e-12)


def test_a_degree_of_hundreds_arrives():
    """Number 1 of the random polynomials (tests/benchmarks/polynomials.py): it was left at 24 % above its bound."""
    domain = [(-1.59691, -0.605168), (0.699268, 1.69101)]
    target = approx.formula("sin(430*x) + 0.5*abs(x + 1) + tanh(90*(x - 1.2))", domain)
    fit = approx.minimax(target, (240, 0))
    assert fit.verdict is Verdict.BEST
    assert fit.error == pytest.approx(fit.levelled, rel=1e-9)


def test_an_error_that_float64_does_not_see_beside_a_gap():
    """The exchange in arbitrary precision from points of the equilibrium measure, up to degree 700."""
    target = approx.formula("cos(17*x**2)", [(-0.75, 0.24), (0.64, 1.63)])
    assert approx.minimax(target, (120, 0)).verdict is Verdict.BEST
    high = approx.minimax(target, (710, 0))
    assert high.verdict in (Verdict.UNLEVELLED, Verdict.BEST)
    assert high.error < 1e-12


@pytest.mark.parametrize(
    ("text", "degree"),
    [("1+0*x", 800), ("x**2", 800), ("1e300*abs(x-0.7)", 200), ("1e-280*abs(x-0.7)", 200)],
)
def test_what_is_met_or_near_the_ends_of_float64_beside_a_gap(text, degree):
    fit = approx.minimax(approx.formula(text, DOMAINS[1]), (degree, 0))
    x = points(DOMAINS[1], 9)
    with precision(2000):
        seen = max(abs(fit.target(arb(v)) - fit.rational(arb(v))) for v in x.tolist())
        assert seen <= arb(fit.error) * (1 + 1e-12)
    assert fit.verdict is Verdict.BEST or fit.error < 1e-14
