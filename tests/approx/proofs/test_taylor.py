from __future__ import annotations

import random

import numpy as np
import pytest
from flint import ctx, fmpq
from mpmath import mp, mpf

import approx
from approx.dyadic import dyadic
from approx.functions import Functions
from approx.proofs.taylor import models
from tests.approx.helpers import exact_mp

MODELLED = [
    (lambda s: s.exp(), mp.exp, -3, 3),
    (lambda s: s.erf() * s, lambda x: mp.erf(x) * x, -2, 5),
    (lambda s: 1 / (1 + 25 * s * s), lambda x: 1 / (1 + 25 * x * x), -1, 1),
    (lambda s: (s * 20).sin(), lambda x: mp.sin(20 * x), 0, 1),
    (Functions.sqrt, mp.sqrt, 0, 1),
    (lambda s: Functions.sqrt(1 - s * s), lambda x: mp.sqrt(1 - x * x), -1, 1),
]


@pytest.mark.parametrize("case", range(len(MODELLED)))
def test_models_hold_their_function(case: int):
    f, truth, a, b = MODELLED[case]
    tolerance = fmpq(1, 1 << 50)
    rng = random.Random(case)
    end = fmpq(a)
    with mp.workdps(50):
        for lo, hi, (m,) in models([f], fmpq(a), fmpq(b), [tolerance], 100):
            assert lo == end  # the boxes cover the interval
            end = hi
            assert m.radius <= tolerance
            for place in (0.0, 1.0, rng.random(), rng.random()):
                x = lo + (hi - lo) * dyadic(place)
                assert abs(truth(exact_mp(x)) - exact_mp(m.poly(x))) <= exact_mp(m.radius) + mpf(10) ** -45
    assert end == b
    assert ctx.cap == 10
    assert ctx.prec == 53


def test_a_series_that_is_undecided_proves_nothing():
    # a fold that is named in the wrong place: the enclosure knows, and the certificate is still true
    target = approx.formula("abs(x - 0.3)", (-1, 1), kinks=[0.5])
    fit = approx.minimax(approx.formula("abs(x - 0.3)", (-1, 1), kinks=[0.3]), (2, 2))
    proof = approx.certify(fit.rational, target, rel=1e-6)
    assert isinstance(proof, approx.Certificate)
    assert proof.lower <= fit.error * (1 + 1e-9) <= proof.upper * (1 + 2e-9)
    for text in ("max(x, 0.25)", "min(x, 0.25)"):
        target = approx.formula(text, (-1, 1), kinks=[0.5])
        rational = approx.Rational.from_monomial([0, 0.5])
        proof = approx.certify(rational, target, rel=1e-6)
        x = np.linspace(-1, 1, 4001)
        assert isinstance(proof, approx.Certificate)
        assert proof.upper >= np.max(np.abs(target(x) - rational(x)))
        assert proof.lower <= np.max(np.abs(target(x) - rational(x))) * (1 + 1e-3)
