"""Both pencils give the levelled function: by its own equations, for every m - n, with weights."""

import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

from approx.dyadic import precision
from approx.fit import pencil
from approx.fit.pencil import Reference, alternating


def reference(m: int, n: int, rate: float, weighted: bool) -> Reference:
    count = m + n + 2
    t = [-(arb(k) / (count - 1)).cos_pi().mid() for k in range(count)]
    f = [(rate * x).exp().mid() for x in t]
    w = [(1 + x * x / 2).mid() if weighted else arb(1) for x in t]
    return Reference(t, f, w, [1] * count, arb(2) ** -200, 1e-13)


@given(st.integers(0, 9), st.integers(1, 9), st.floats(-2, 2).filter(lambda a: abs(a) > 0.1), st.booleans())
@settings(max_examples=40)
def test_both_agree_and_level(m, n, rate, weighted):
    with precision(640):
        at = reference(m, n, rate, weighted)
        one, two = pencil._from_differences(at, n, None), pencil._from_symmetric(at, n, None)
        assert one is not None
        assert two is not None
        assert abs(one.value - two.value) < abs(two.value) * arb(1e-11)
        # q through its values; (f - s lam/W) q must be a polynomial of degree m: differences of order m + 1 vanish
        basis = []
        for x in at.t:
            total = arb(0)
            for a, v in zip(one.support, one.q, strict=True):
                factor = v
                for b in one.support:
                    if b is not a:
                        factor *= (x - b) / (a - b)
                total += factor
            basis.append(total.mid())
        assert all(v > 0 for v in basis) or all(v < 0 for v in basis)
        values = [
            ((f - s * one.value / w) * q).mid()
            for f, s, w, q in zip(at.f, alternating(m + n + 2), at.weight, basis, strict=True)
        ]
        size = max(abs(one.value / w * q) for w, q in zip(at.weight, basis, strict=True))
        for start in range(n + 1):
            points, held = at.t[start : start + m + 2], values[start : start + m + 2]
            total, scale = arb(0), arb(0)
            for x, v in zip(points, held, strict=True):
                product = arb(1)
                for y in points:
                    if y is not x:
                        product *= x - y
                total += v / product
                scale += abs(1 / product)
            assert abs(total) < scale * size * arb(1e-9)


def test_a_guess_is_followed():
    with precision(640):
        at = reference(5, 5, 1.0, False)
        found = pencil._from_differences(at, 5, None)
        assert found is not None
        again = pencil._from_differences(at, 5, found.q)
        assert again is not None
        assert abs(again.value - found.value) < abs(found.value) * arb(1e-12)


def test_no_function_without_poles():
    with precision(256):
        at = reference(0, 1, 1.0, False)
        # c/q keeps one sign, and no level lam gives -1 - lam, lam, 1 - lam one
        at = Reference(at.t, [arb(v) for v in (-1, 0, 1)], at.weight, at.sides, at.negligible, 1e-13)
        with pytest.raises(pencil.NoLevel):
            pencil._from_symmetric(at, 1, None)
