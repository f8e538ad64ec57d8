"""Complex minimax: best errors that are known in closed form or by asymptotics, and bounds that hold on dense looks."""

import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special

import approx
from approx import Region, complex_minimax


def look(region: Region) -> np.ndarray:
    return region.sample(20011)


@pytest.mark.parametrize(("n", "pole"), [(0, 2.0), (5, 2.0), (3, -1.5), (4, 1.2 + 0.9j)])
def test_polynomials_for_a_pole_outside_the_disc(n, pole):
    """The best error of 1/(z - a) on the unit disc is 1/(|a|^n (|a|^2 - 1)) (Rivlin)."""
    fit = complex_minimax(lambda z: 1 / (z - pole), (n, 0), Region.disc())
    best = 1 / (abs(pole) ** n * (abs(pole) ** 2 - 1))
    assert fit.converged
    assert fit.levelled <= best * (1 + 1e-9) <= fit.error * (1 + 2e-9)
    assert fit.error == pytest.approx(best, rel=6e-3)


@pytest.mark.parametrize("type", [(3, 3), (4, 2), (2, 4), (5, 5)])
def test_exp_on_the_disc(type):
    """m! n!/((m+n)! (m+n+1)!) up to a factor that tends to 1; its error curve is nearly a circle (Trefethen 1984)."""
    m, n = type
    fit = complex_minimax("exp(x)", type, Region.disc())
    saff = math.factorial(m) * math.factorial(n) / (math.factorial(m + n) * math.factorial(m + n + 1))
    assert fit.error == pytest.approx(saff, rel=0.05)
    size = np.abs(np.exp(look(fit.region)) - fit(look(fit.region)))
    assert size.max() < 1.05 * size.min()
    bounds = fit.certify()
    assert bounds.lower * (1 - 1e-9) <= fit.error <= bounds.upper <= fit.error * (1 + 1e-3)
    assert bounds.pole_free
    assert fit.levelled <= bounds.upper


def test_a_power_is_not_approximated_by_lower_ones():
    fit = complex_minimax("x**4", (3, 0), Region.disc())
    assert fit.error == pytest.approx(1, rel=1e-9)
    assert fit.levelled == pytest.approx(1, rel=1e-9)


def test_a_segment_is_a_real_problem():
    """On an interval the best complex polynomial of a real function is real: the two solvers must agree."""
    real = approx.minimax(approx.exp((-1, 1)), (4, 0))
    fit = complex_minimax("exp(x)", (4, 0), Region.segment(-1, 1))
    assert fit.levelled <= real.error * (1 + 1e-9)
    assert fit.error >= real.levelled * (1 - 1e-9)
    assert fit.error == pytest.approx(real.error, rel=6e-3)


@pytest.mark.parametrize(
    ("text", "f", "type", "region"),
    [
        ("sqrt(x)", np.sqrt, (4, 4), Region.arc(-3 * math.pi / 4, 3 * math.pi / 4)),
        ("sqrt(x+1.2)", lambda z: np.sqrt(z + 1.2), (3, 2), Region.rectangle(-1 - 0.5j, 1 + 0.5j)),
        ("exp(x)+1/x", lambda z: np.exp(z) + 1 / z, (3, 3), Region.circle()),
        ("tan(x)", np.tan, (3, 4), Region.disc(0, 1.2)),
        ("log(x)", np.log, (3, 3), Region.disc(2, 1.5)),
        ("exp(x)", np.exp, (2, 5), Region.segment(-3j, 3j)),
    ],
)
def test_bounds_enclose_what_a_dense_look_finds(text, f, type, region):
    fit = complex_minimax(text, type, region)
    assert fit.converged
    z = look(region)
    seen = float(np.max(np.abs(f(z) - fit(z))))
    bounds = fit.certify()
    assert fit.levelled <= seen * (1 + 1e-9)
    assert seen <= bounds.upper
    assert bounds.upper <= seen * (1 + 1e-3)
    if region.filled:
        assert bounds.pole_free
        rng = np.random.default_rng(0)
        share = rng.uniform(size=500)
        inside = share * z[rng.integers(len(z), size=500)] + (1 - share) * np.mean(z)
        assert np.max(np.abs(f(inside) - fit(inside))) <= bounds.upper


@given(
    st.complex_numbers(min_magnitude=1.3, max_magnitude=4),
    st.complex_numbers(max_magnitude=2),
    st.integers(0, 3),
    st.integers(0, 2),
)
@settings(max_examples=10)
def test_no_function_that_exists_is_below_the_bound(pole, rate, m, n):
    def f(z: np.ndarray) -> np.ndarray:
        return np.exp(rate * z) / (z - pole)

    fit = complex_minimax(f, (m, n), Region.disc(), tolerance=0.05)
    z = look(fit.region)
    # interpolation in roots of unity, and the fit itself
    at = 0.9 * np.exp(2j * np.pi * np.arange(m + 1) / (m + 1))
    other = np.polyfit(at, f(at), m)
    for g in (fit(z), np.polyval(other, z)):
        assert fit.levelled <= np.max(np.abs(f(z) - g)) * (1 + 1e-9) + 1e-13


@given(
    st.complex_numbers(min_magnitude=1.3, max_magnitude=4),
    st.integers(0, 4),
    st.integers(1, 4),
    st.floats(-3, 3),
)
@settings(max_examples=10)
@example(-3.404946607998709, 3, 4, -2.2481283713153575)
@example(2.8042713737282643, 3, 4, 0.9321069036228256)
def test_a_function_of_a_smaller_type_is_found(pole, m, n, scale):
    fit = complex_minimax(lambda z: 10**scale / (z - pole), (m, n), Region.disc())
    z = look(fit.region)
    assert fit.converged
    assert np.max(np.abs(10**scale / (z - pole) - fit(z))) <= 1e-12 * 10**scale / (abs(pole) - 1)


def test_poles_and_residues():
    fit = complex_minimax("exp(x)+1/(x-0.25)", (6, 3), Region.circle())
    k = int(np.argmin(np.abs(fit.poles - 0.25)))
    assert fit.poles[k] == pytest.approx(0.25, abs=1e-3)
    assert fit.residues[k] == pytest.approx(1, abs=1e-2)
    assert abs(fit(fit.zeros[0])) < 1e-6 * np.max(np.abs(fit(look(fit.region))))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: complex_minimax("exp(x)", (2, 2), cast(Any, "disc")), "Region"),
        (lambda: complex_minimax("abs(x)", (2, 2), Region.disc()), "not analytic"),
        (lambda: complex_minimax("1/x", (2, 2), Region.segment(0, 1)), "not finite"),
        (lambda: complex_minimax(cast(Any, 3), (2, 2), Region.disc()), "callable"),
        (lambda: complex_minimax("exp(x)", (2, 2), Region.disc(), tolerance=0), "tolerance"),
        (lambda: complex_minimax(np.exp, (2, 2), Region.disc()).certify(), "enclosure"),
        (lambda: Region.disc(0, -1), "radius"),
        (lambda: Region.arc(0, 7), "turn"),
        (lambda: Region.segment(1, 1), "different"),
        (lambda: Region.rectangle(1, 0), "corner"),
        (lambda: Region.disc(complex("nan")), "finite"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("dip", [1e-6, 1e-8, 1e-13])
@pytest.mark.parametrize("text", ["sqrt(x)", "log(x)", "x**0.3", "log2(x)", "x**x"])
def test_no_bound_across_a_branch_cut_that_no_sample_sees(text, dip):
    """The arc dips below the negative axis near -2, where f jumps."""
    region = Region.arc(-0.9, 5.1, centre=-2 + (1 - dip) * 1j, radius=1)
    with pytest.raises((ArithmeticError, ValueError)):
        complex_minimax(text, (2, 2), region).certify()


@pytest.mark.parametrize(
    "text", ["sqrt(x)", "asin(x)", "acos(x)", "atan(x)", "asinh(x)", "atanh(x)", "log1p(x)"]
)
def test_no_bound_on_a_circle_around_a_branch_point(text):
    with pytest.raises((ArithmeticError, ValueError)):
        complex_minimax(text, (2, 2), Region.circle(0, 1.5)).certify()


@pytest.mark.parametrize(
    ("text", "region", "type"),
    [
        ("sqrt(x)", approx.Region.arc(-3.1, 3.1), (4, 4)),
        ("exp(x)", approx.Region.disc(), (3, 3)),
        ("erf(x)", approx.Region.rectangle(-1 - 1j, 1 + 1j), (5, 4)),
        ("1/(x-1.2)", approx.Region.segment(-1, 1), (3, 0)),
    ],
)
def test_the_error_is_that_of_a_dense_look(text, region, type):
    fit = approx.complex_minimax(text, type, region)
    z = region.sample(200_001)
    f = {"sqrt(x)": np.sqrt, "exp(x)": np.exp, "erf(x)": special.erf, "1/(x-1.2)": lambda z: 1 / (z - 1.2)}[
        text
    ]
    assert np.max(np.abs(f(z) - fit(z))) == pytest.approx(fit.error, rel=1e-7)
