import numpy as np
import pytest
from flint import arb, fmpq, fmpq_poly
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx.operands import BFloat16, Quotient, round_bfloat16
from approx.proofs.bounds import _is
from approx.target import Piece


def test_bfloat16_rounds_to_nearest_even():
    x = np.array(
        [1, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 3.4e38, np.inf, np.nan], dtype=np.float32
    )
    expected = np.array([1, 1, 1, 1 + 2**-6, -1 - 2**-7, np.inf, np.inf, np.nan], dtype=np.float32)
    assert np.array_equal(round_bfloat16(x), expected, equal_nan=True)
    value = 1 / (BFloat16(np.array([3.0], dtype=np.float32)) + 0.0)
    assert value.value[0] == np.float32(0.333984375)


def test_a_quotient_is_what_its_arithmetic_says():
    x = fmpq_poly([0, 1])
    shown = Quotient.of(lambda x: 1 - (x**2 - 0.25) / (3 - x) / 2, fmpq(0))
    assert shown is not None
    assert shown.num * (2 * (3 - x)) == shown.den * (2 * (3 - x) - (x**2 - fmpq(1, 4)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.exp(),
        lambda x: np.sqrt(x),
        lambda x: x * arb(2),
        lambda x: 1 / (0 * x),
        lambda x: x**5000,
    ],
)
def test_what_is_no_quotient_shows_none(function):
    assert Quotient.of(function, fmpq(0)) is None


_NUMBERS = st.integers(-9, 9)


@settings(max_examples=40)
@given(
    st.lists(_NUMBERS, min_size=1, max_size=4),
    st.lists(_NUMBERS, max_size=3),
    st.sampled_from([None, "relative"]),
)
def test_a_rational_formula_is_proven_to_be_its_own_approximation(p, q, weight):
    low = sum(map(abs, q)) + 1  # without poles on [-1, 1], and without zeros
    p = [sum(map(abs, p)) + 1, *p]
    num, den = ("+".join(f"({c})*x**{k}" for k, c in enumerate(cs)) for cs in (p, [low, *q]))
    target = approx.formula(f"({num})/({den})")
    target = target if weight is None else target.with_weight(weight)
    r = approx.Rational.from_monomial(p, [low, *q])
    proven = approx.certify(r, target)
    assert isinstance(proven, approx.Certificate)
    assert (proven.lower, proven.upper, proven.pole_free) == (0, 0, True)
    proven.verify()
    other = approx.Rational.from_monomial([p[0] + 1e-12, *p[1:]], [low, *q])
    worse = approx.certify(other, target)
    assert isinstance(worse, approx.Certificate)
    assert worse.lower > 0


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("abs(x)", (1, 0)),
        ("max(x, 0)", (1, 0)),
        ("min(2*x, 1-x)/(2+abs(x))", (1, 1)),
        ("abs(x**2-0.25)", (2, 0)),
    ],
)
def test_folded_pieces_that_are_met_exactly_are_proven_so(text, type):
    table = approx.fit(approx.formula(text), 1e-12, type)
    for proof in table.certify():
        assert proof.upper < 1e-12
        proof.verify()


@pytest.mark.parametrize(("end", "is_one"), [(fmpq(9, 10), True), (fmpq(1), False)])
def test_a_sign_that_changes_inside_a_piece_proves_nothing(end, is_one):
    piece = Piece(fmpq(-1), end, lambda x: abs(x - fmpq(9, 10)))
    assert _is(piece, fmpq_poly([fmpq(9, 10), -1]), fmpq_poly([1])) == is_one
