from __future__ import annotations

import random

import pytest
from flint import ctx, fmpq
from mpmath import mp, mpf

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
