from flint import fmpq
from hypothesis import given
from hypothesis import strategies as st

from approx.dyadic import decode, dyadic, encode


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_dyadic_numbers_round_trip(value):
    assert decode(encode(dyadic(value))) == dyadic(value)
    assert decode(encode(dyadic(value) / 8)) == dyadic(value) / 8


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**20), st.integers(2, 80))
def test_rounding_to_bits_is_to_nearest(p, q, bits):
    exact, rounded = fmpq(p, q), dyadic(fmpq(p, q), bits)
    mantissa = abs(int(rounded.p)) >> (
        (abs(int(rounded.p)) & -abs(int(rounded.p))).bit_length() - 1 if p else 0
    )
    assert mantissa.bit_length() <= bits
    assert abs(rounded - exact) <= abs(exact) / fmpq(2**bits)
