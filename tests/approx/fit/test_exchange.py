import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp

import approx
from approx.fit.exchange import thinned
from tests.approx.helpers import alternates, meinardus


def test_levels_a_hundred_decades_down():
    # the eigenvalues of the levelled equations span as many, and their iteration starts at the wrong end
    fit = approx.minimax(approx.exp(), (26, 26))
    assert fit.converged
    assert fit.error == pytest.approx(meinardus(26), rel=0.05)


@pytest.mark.parametrize("type", [(40, 40), (24, 40), (45, 20)])
def test_high_types_of_exp(type):
    m, n = type
    fit = approx.minimax(approx.exp(), type)
    assert fit.converged
    assert fit.levelled == pytest.approx(fit.error, rel=1e-8)
    log = mp.loggamma(m + 1) + mp.loggamma(n + 1) - mp.loggamma(m + n + 1) - mp.loggamma(m + n + 2)
    assert fit.error == pytest.approx(float(mp.exp(log) / mp.mpf(2) ** (m + n)), rel=0.01)  # Braess 1984


def test_stahls_asymptotics():
    """|x| on [-1, 1] in type (n, n): 8 exp(-pi sqrt(n)), up to a factor that tends to 1 (Stahl 1992)."""
    fit = approx.minimax(approx.absolute(), (100, 100))
    assert fit.converged
    assert fit.error == pytest.approx(8 * math.exp(-math.pi * math.sqrt(100)), rel=0.15)


def test_errors_below_the_range_of_float64():
    fit = approx.minimax(approx.exp((-1e-3, 1e-3)), (34, 34))
    assert fit.converged
    assert fit.error == 5e-324
    assert fit.levelled == 0


def test_type_80_80():
    fit = approx.minimax(approx.absolute(), (80, 80))
    assert fit.converged
    assert fit.error <= fit.levelled * (1 + 1e-6)
    assert alternates(fit)
    assert len(fit.reference) >= 162


@given(st.lists(st.floats(0.1, 9), max_size=14), st.integers(1, 12))
def test_peaks_are_thinned_from_the_lowest_one(heights, count):
    runs = [(k, h if k % 2 else -h) for k, h in enumerate(heights)]
    left = list(runs)
    while len(left) > count:  # one by one, by a new search each time
        size = [abs(e) for _, e in left]
        low, last = size.index(min(size)), len(left) - 1
        if len(left) == count + 1:
            gone = [0 if size[0] < size[-1] else last]
        elif low in (0, last):
            gone = [low]
        else:
            gone = [low, low - 1 if size[low - 1] < size[low + 1] else low + 1]
        left = [run for k, run in enumerate(left) if k not in gone]
    assert thinned(runs, count) == (left if len(left) == count else None)
