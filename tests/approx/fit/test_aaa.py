"""Complex samples: frequency responses of known systems, and best errors on the circle that are known."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import AAA

import approx
from approx import aaa


def system(seed: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Poles in the left half-plane and residues, in conjugate pairs."""
    rng = np.random.default_rng(seed)
    p = -rng.uniform(0.05, 1, order // 2) + 1j * rng.uniform(0.5, 9, order // 2)
    rho = rng.normal(size=order // 2) + 1j * rng.normal(size=order // 2)
    return np.r_[p, p.conj()], np.r_[rho, rho.conj()]


def response(z: np.ndarray, poles: np.ndarray, residues: np.ndarray) -> np.ndarray:
    return np.sum(residues / (z[:, None] - poles), axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_a_system_is_found_from_its_response(seed):
    poles, residues = system(seed, 8)
    z = 1j * np.linspace(0.1, 10, 400)
    fit = aaa(z, response(z, poles, residues), 8, real=True)
    assert fit.error < 1e-9
    assert fit.stable
    for p, rho in zip(poles, residues, strict=True):
        k = int(np.argmin(np.abs(fit.poles - p)))
        assert abs(fit.poles[k] - p) < 1e-6
        assert abs(fit.residues[k] - rho) < 1e-5
    r = fit.rational((0.1, 10))
    assert np.max(np.abs(r(z) - fit(z))) < 1e-9
    # the function is real: conjugate points have conjugate values
    assert fit(z.conj()) == pytest.approx(fit(z).conj(), abs=1e-12)


def test_stable_poles_on_request():
    rng = np.random.default_rng(0)
    z = 1j * np.linspace(0.1, 10, 500)
    y = response(z, *system(3, 6)) + 0.03 * (rng.normal(size=500) + 1j * rng.normal(size=500))
    free, stable = (aaa(z, y, 12, real=True, stable=s) for s in (False, True))
    assert stable.stable
    assert not free.stable  # or the test would show nothing
    assert stable.error < 1.0


@pytest.mark.parametrize(("n", "pole"), [(3, 2.0), (4, -1.5)])
def test_lawson_brings_the_error_down(n, pole):
    z = np.exp(2j * np.pi * np.arange(400) / 400)
    y = np.sqrt(1 - z / pole)
    start, better = aaa(z, y, n, lawson=0), aaa(z, y, n, lawson=60)
    assert better.error <= start.error
    size = np.abs(y - better(z))
    # the error of a best approximation on a circle is nearly one of constant modulus
    assert size.max() < 1.2 * np.median(size)


def test_a_million_samples():
    poles, residues = system(7, 10)
    z = 1j * np.linspace(0.01, 20, 10**6)
    fit = aaa(z, response(z, poles, residues), real=True)
    assert fit.error < 1e-8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([1, 2], [1]), "one shape"),
        (([1, np.nan], [1, 2]), "finite"),
        (([1, 2, 3], [1, 2, 3], -1), "degree"),
    ],
)
def test_wrong_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        aaa(*arguments)
    x = np.linspace(0, 1, 50)
    with pytest.raises(ValueError, match="real=True"):
        aaa(x, np.exp(1j * x), 3).rational()
    with pytest.raises(ValueError, match=r"approx\.aaa"):
        approx.minimax((x, np.exp(1j * x)), (3, 3))


@pytest.mark.parametrize("real", [True, False])
def test_the_error_is_that_of_all_samples_where_points_repeat(real):
    """Two values at a point cannot both be met: the least error is half their distance."""
    z = 1j * np.linspace(0.1, 10, 300)
    y = 1 / (z + 1)
    order = np.random.default_rng(0).permutation(600)
    points, values = np.r_[z, z][order], np.r_[y, y + 0.1][order]
    fit = aaa(points, values, degree=3, real=real)
    assert fit.error == pytest.approx(float(np.max(np.abs(values - fit(points)))), rel=1e-9)
    assert fit.error == pytest.approx(0.05, rel=0.02)


@st.composite
def rationals(draw):
    """Coefficients of the polynomial part, poles in the left half-plane, residues, and the unit of the frequency."""
    polynomial = draw(st.lists(st.floats(0.1, 1), min_size=1, max_size=4))
    axis = [-float(k) for k in draw(st.lists(st.integers(1, 9), max_size=2, unique=True))]
    pairs = [complex(-0.5, k) for k in draw(st.lists(st.integers(1, 9), max_size=2, unique=True))]
    residues = [1.0] * len(axis) + [complex(1, 0.5)] * len(pairs)
    return (
        np.array(polynomial),
        np.array([*axis, *pairs, *np.conj(pairs)], dtype=complex),
        np.array([*residues, *np.conj(residues[len(axis) :])], dtype=complex),
        10.0 ** draw(st.integers(-9, 9)),
    )


@given(rationals(), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_proper_and_improper_functions_are_found(parts, real, stable, relative):
    """SciPy's AAA, an independent truth, holds the powers of z in its barycentric form."""
    polynomial, poles, residues, unit = parts
    s = 1j * np.linspace(0.1, 10, 250)
    y = np.polyval(polynomial[::-1], s) + response(s, poles, residues)
    degree = len(polynomial) - 1 + len(poles)
    weight = 1 / np.abs(y) if relative else None
    fit = aaa(s * unit, y, degree, tolerance=1e-13, real=real, stable=stable, weight=weight)
    size = float(np.max(np.abs(y)))
    # of 6250 random ones the largest were 1.8e-8 and 5.9e-10, in degree 9: the poles are eigenvalues
    assert fit.error < (3e-7 if relative else 1e-8 * size)
    between = (s[1:] + s[:-1]) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = AAA(s, y, rtol=1e-12, max_terms=degree + 1)
    assert np.max(np.abs(fit(between * unit) - other(between))) < 1e-6 * size
    if real:
        r = fit.rational((0.1 * unit, 10 * unit))
        assert np.max(np.abs(r(s * unit) - y)) < 1e-8 * size
    if stable:
        assert fit.stable


def test_an_impedance_keeps_its_resistance_and_its_inductance():
    omega = 2 * np.pi * np.geomspace(1e2, 1e9, 300)
    z = 1j * omega
    y = 0.05 + 1e-8 * z + 50 / (1 + 1e-10 * z)
    fit = aaa(z, y, real=True, stable=True, weight=1 / np.abs(y))
    assert np.real(fit.polynomial) == pytest.approx([0.05, 1e-8], rel=1e-4)
    assert fit.poles == pytest.approx([-1e10], rel=1e-6)
    assert fit.constant == fit.polynomial[0]
    r = fit.rational((omega[0], omega[-1]))
    assert r.type == (2, 1)
    scope: dict = {}
    exec(approx.export(r, "python", name="r"), scope)
    x = omega[::30]
    assert [scope["r"](v) for v in x] == pytest.approx(np.real(fit(x)).tolist(), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_in_noise_the_slope_is_no_far_pole(seed):
    rng = np.random.default_rng(seed)
    z = 1j * np.linspace(0.1, 10, 500)
    y = 2 + 0.1 * z + 1 / (z + 1) + 1e-3 * (rng.normal(size=500) + 1j * rng.normal(size=500))
    fit = aaa(z, y, 2, real=True)
    assert np.real(fit.polynomial) == pytest.approx([2, 0.1], abs=1e-2)
    assert fit.poles == pytest.approx([-1], abs=0.05)


def test_a_proper_function_stays_proper():
    """A pole far out is one, and a degree beyond the function's own adds no slope."""
    z = 1j * np.linspace(0.1, 10, 300)
    fit = aaa(z, 1 / (z + 1000) + 1 / (z + 1), 2, real=True)
    assert len(fit.polynomial) == 1
    assert np.sort(np.real(fit.poles)) == pytest.approx([-1000, -1], rel=1e-5)
    assert len(aaa(z, 1 / (z + 1), 6, real=True).polynomial) == 1


def test_close_real_poles_stay_real():
    """Rounding moves them off the axis by more than a pair of theirs lies apart from it."""
    z = 1j * np.linspace(0.1, 10, 400) * 1e-3
    poles = np.array([-0.26, -5.0, -3 + 4.2j, -1.3 + 7.3j, -2.8 + 7.8j])
    poles = np.r_[poles, poles[2:].conj()] * 1e-3
    fit = aaa(z, response(z, poles, np.ones(8)), 8, real=True)
    assert sorted(p.real for p in fit.poles if p.imag == 0) == pytest.approx([-5e-3, -0.26e-3], rel=1e-6)


def test_a_complex_weight_is_refused():
    z = 1j * np.linspace(0.1, 10, 20)
    with pytest.raises(ValueError, match="weight: expected real numbers"):
        aaa(z, 1 / (z + 1), 1, weight=z)


def test_the_tolerance_is_one_of_weighted_errors():
    z = 1j * np.linspace(0.1, 10, 250)
    poles = np.array([-1, -2, -0.5 + 1j, -0.5 - 1j, -0.5 + 7j, -0.5 - 7j])
    y = np.polyval([1, 1, 1, 1], z) + response(z, poles, np.ones(6))
    assert aaa(z, y, 9, weight=1 / np.abs(y)).error < 1e-10


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(2, 50), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_noise_below_the_tolerance_costs_no_poles(seed, pairs, above, real, stable):
    """AAA alone takes dozens, since it meets the noise of the samples that it takes."""
    rng = np.random.default_rng(seed)
    z = 1j * np.linspace(0.1, 10, 300)
    y = response(z, *system(seed, 2 * pairs))
    noise = 1e-3 * np.max(np.abs(y)) * (rng.normal(size=300) + 1j * rng.normal(size=300))
    tolerance = above * float(np.max(np.abs(noise))) / float(np.max(np.abs(y + noise)))
    fit = aaa(z, y + noise, tolerance=tolerance, real=real, stable=stable)
    assert len(fit.poles) + len(fit.polynomial) - 1 <= 2 * pairs
    assert fit.error <= tolerance * np.max(np.abs(y + noise))
