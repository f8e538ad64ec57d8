"""Zolotarev's closed forms against each other, against proofs, and against numbers in the literature."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from flint import fmpq
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

import approx as target
from approx.dyadic import dyadic
from approx.proofs import Certificate, certify
from approx.proofs.real_roots import isolate
from approx.zolotarev import zolotarev_error, zolotarev_log_error, zolotarev_sign

gaps = st.floats(-12, -0.06).map(lambda e: 10**e)


def test_type_9_8_at_a_tenth():
    assert zolotarev_error(4, 0.1) == pytest.approx(2.342602176284903e-5, rel=1e-14)
    assert zolotarev_sign(4, 0.1).type == (9, 8)


@pytest.mark.parametrize("delta", [0.3, 1e-7, 1 - 1e-9])
def test_type_1_0_is_a_line_through_the_mean_of_its_ends(delta: float):
    # the best multiple of x for 1 on [d, 1] is 2/(1+d) x, with error (1-d)/(1+d)
    assert zolotarev_error(0, delta) == pytest.approx((1 - delta) / (1 + delta), rel=1e-14)
    assert zolotarev_sign(0, delta)(1.0) == pytest.approx(2 / (1 + delta), rel=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), gaps)
def test_the_proven_error_is_the_closed_form(n: int, delta: float):
    certificate = certify(zolotarev_sign(n, delta), target.sign(delta))
    assert isinstance(certificate, Certificate)
    closed = zolotarev_error(n, delta)
    assert certificate.pole_free
    assert certificate.best_lower <= closed * (1 + 1e-14)
    assert certificate.best_lower == pytest.approx(closed, rel=1e-9)
    assert closed * (1 - 1e-14) <= certificate.upper
    assert certificate.upper == pytest.approx(closed, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), gaps, st.integers(1, 6))
def test_composition_and_monotonicity(n: int, delta: float, k: int):
    p, q = 2 * n + 1, 2 * k + 1
    bits = 500  # (1-E)/(1+E) is nearly 1 when E is tiny
    with mp.workprec(bits):
        inner = zolotarev_error(k, delta, bits)
        outer = zolotarev_error(n, (1 - inner) / (1 + inner), bits)
        assert abs(outer / zolotarev_error((p * q - 1) // 2, delta, bits) - 1) < mp.mpf(10) ** -60
        assert zolotarev_error(n + 1, delta, bits) < zolotarev_error(n, delta, bits)
        assert zolotarev_error(n, delta * 1.1, bits) < zolotarev_error(n, delta, bits)


@pytest.mark.parametrize(("n", "delta"), [(3, 1e-100), (40, 1e-100), (5, 1e-300), (2, 1 - 1e-12)])
def test_extreme_gaps(n: int, delta: float):
    value = zolotarev_error(n, delta, 2400)
    assert 0 < value < 1
    # an independent route: E is the modulus of the nome Q^2, found by mpmath's theta functions
    with mp.workprec(2400):
        d = mp.mpf(delta)
        nome = mp.exp(-2 * mp.pi * (2 * n + 1) * mp.ellipk(d**2) / mp.ellipk((1 - d) * (1 + d)))
        theta = (mp.jtheta(2, 0, nome) / mp.jtheta(3, 0, nome)) ** 2
        assert abs(value / theta - 1) < mp.mpf(10) ** -300
    assert zolotarev_error(n, delta) == float(value)
    assert zolotarev_log_error(n, delta) == pytest.approx(float(mp.log(value)), rel=1e-14)


def test_an_underflowing_error_keeps_its_logarithm():
    assert zolotarev_error(1000, 0.5) == 0.0
    assert 0 < zolotarev_error(1000, 0.5, 100) < mp.mpf(10) ** -2133
    # log E = log 4 - pi N K/K' up to 4 Q^2
    ratio = float(mp.ellipk(0.25) / mp.ellipk(0.75))
    assert zolotarev_log_error(1000, 0.5) == pytest.approx(math.log(4) - math.pi * 2001 * ratio, rel=1e-13)


def test_gaps_may_be_given_exactly():
    exact = zolotarev_error(6, Fraction(1, 10), 200)
    assert exact == zolotarev_error(6, "0.1", 200)
    assert exact != zolotarev_error(6, 0.1, 200)  # the float is not a tenth


@given(st.integers(0, 10), st.floats(0.001, 0.9))
@settings(max_examples=30, deadline=None)
def test_the_sign_is_odd_and_increases_through_the_gap(n: int, delta: float):
    s = zolotarev_sign(n, delta)
    num, den = s.exact()
    slope = num.derivative() * den - num * den.derivative()
    assert isolate(slope, fmpq(0), dyadic(delta)) == []
    assert slope(fmpq(0)) > 0
    assert num(fmpq(0)) == 0
    assert num(dyadic(delta)) < den(dyadic(delta))
    x = np.linspace(0, 1, 101)
    assert np.array_equal(s(-x), -s(x))


@pytest.mark.parametrize(
    ("n", "delta", "name"),
    [(-1, 0.1, "n"), (0.5, 0.1, "n"), (2, 0, "delta"), (2, 1, "delta"), (2, "nan", "delta")],
)
def test_wrong_input_is_named(n, delta, name: str):
    for function in (zolotarev_error, zolotarev_log_error, zolotarev_sign):
        with pytest.raises(ValueError, match=f"^{name} must"):
            function(n, delta)
