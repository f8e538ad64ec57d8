from concurrent.futures import ThreadPoolExecutor

from flint import ctx, fmpq
from hypothesis import given
from hypothesis import strategies as st

import approx
from approx.dyadic import decode, dyadic, encode, precision


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


def test_threads_have_the_precision_of_their_own_work():
    """flint's precision belongs to all threads of a process: one waits for another, and results are the same."""
    problems = [("exp(x)", (5, 5)), ("abs(x - 0.3)", (4, 4)), ("sqrt(x + 1)", (4, 4)), ("tanh(9*x)", (3, 4))]

    def solved(problem):
        fit = approx.minimax(approx.formula(problem[0], (-1, 1)), problem[1])
        proof = approx.certify(fit)
        assert isinstance(proof, approx.Certificate)
        return fit.error, fit.levelled, proof.best_lower

    alone = [solved(problem) for problem in problems]
    before = ctx.prec
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(solved, problems * 3))
    assert together == alone * 3
    assert ctx.prec == before


def test_the_precision_of_the_caller_changes_no_fit():
    def fitted():
        return approx.minimax(approx.formula("exp(x)", (-1, 1)), (3, 3)).rational

    usual = fitted()
    with precision(200):
        assert fitted() == usual
