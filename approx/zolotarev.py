"""Zolotarev's best rational approximations of the sign function, in closed form.

On [-1, -delta] u [delta, 1] the best approximation of sign by rationals of type (2n+1, 2n) is odd, positive
for x > 0 and its error has 4n+4 alternating extrema; zeros, poles and error are elliptic functions of delta
(E. I. Zolotarev 1877; N. I. Akhiezer, Elements of the Theory of Elliptic Functions, section 50; Y.
Nakatsukasa and R. W. Freund, SIAM Review 58, 2016).
"""

from __future__ import annotations

from typing import Any

from flint import fmpq
from mpmath import mp

from approx.rational import Rational


def zolotarev_error(n: int, delta: Any, precision: int | None = None) -> Any:
    """The least `max |sign(x) - r(x)|` on [-1, -delta] u [delta, 1] over rationals r of type (2n+1, 2n).

    With K = K(delta), K' = K(sqrt(1 - delta^2)) and Q = exp(-pi (2n+1) K / K'),
    E = 4 Q prod_{j>=1} ((1 + Q^(4j)) / (1 + Q^(4j-2)))^4, which is below 4 Q.

    The float is correctly rounded but for ties, and 0.0 where E underflows; with `precision` the result is an mpf
    of that many correct bits, which never underflows (see also `zolotarev_log_error`).

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        delta: half-width of the gap, inside (0, 1): int, float, fraction, decimal string or mpf.
        precision: bits of the result; None for a float.

    Raises:
        ValueError: if n < 0 or delta is outside (0, 1).
    """
    with mp.workprec((precision or 53) + 30):
        gap = _checked(n, delta)
        error = _modulus(_nome(n, gap) ** 2)
    if precision is None:
        return float(error)
    with mp.workprec(precision):
        return +error


def zolotarev_log_error(n: int, delta: Any) -> float:
    """The natural logarithm of `zolotarev_error(n, delta)`, finite where that underflows.

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        delta: half-width of the gap around 0, inside (0, 1).
    """
    with mp.workprec(100):
        return float(mp.log(_modulus(_nome(n, _checked(n, delta)) ** 2)))


def zolotarev_sign(n: int, delta: Any, bits: int | None = None) -> Rational:
    """The best approximation of sign on [-1, -delta] u [delta, 1] among rationals of type (2n+1, 2n).

    s(x) = C x prod_j (x^2 + c_{2j}) / (x^2 + c_{2j-1}) with c_i = (delta sc(i K' / (2n+1); k'))^2 and
    k'^2 = 1 - delta^2, in factored form: odd, without a real pole. Its parameters have `bits` bits: 53 by
    default (float64), or more where rounding would raise an error that small by over 1e-10 of itself.

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        delta: half-width of the gap around 0, inside (0, 1).
        bits: bits of each parameter; None for as many as the error needs.

    Raises:
        ValueError: if n < 0 or delta is outside (0, 1).
    """
    edge = float(_checked(n, delta))
    return _function(n, delta, bits, [(-1.0, -edge), (edge, 1.0)])


def zolotarev_map(n: int, delta: Any, bits: int | None = None) -> Rational:
    """Z / (1 + E), Z = `zolotarev_sign(n, delta)` and E its error: it maps [delta, 1] onto [(1-E)/(1+E), 1].

    Maps of this kind compose: with L = (1-E)/(1+E), zolotarev_sign(m, L) of it is Zolotarev's function of
    degree (2m+1)(2n+1) for delta. Its domain is [-1, 1].

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        delta: half-width of the gap around 0, inside (0, 1).
        bits: bits of each parameter; None for as many as the error needs.

    Raises:
        ValueError: if n < 0 or delta is outside (0, 1).
    """
    return _function(n, delta, bits, (-1.0, 1.0), normalised=True)


def _function(n: int, delta: Any, bits: int | None, domain: Any, normalised: bool = False) -> Rational:
    with mp.workprec(120):
        gap = _checked(n, delta)
        if bits is None:
            bits = max(53, 37 - int(mp.floor(mp.log(_modulus(_nome(n, gap) ** 2), 2))))
        # k'^2 = 1 - delta^2 must keep its distance from 1
        work = bits + 64 + 2 * max(0, -int(mp.floor(mp.log(gap, 2))))
    with mp.workprec(work):
        gap = _checked(n, delta)
        moduli = _moduli(n, gap)
        poles, zeros = moduli[::2], moduli[1::2]
        # the value at 1, the last point of the alternation
        gain = mp.mpf(1) if normalised else 1 + _modulus(_nome(n, gap) ** 2)
        for zero, pole in zip(zeros, poles, strict=True):
            gain *= (1 + pole**2) / (1 + zero**2)
        return Rational.from_factored(
            _rounded(gain, bits),
            [0, *((0, _rounded(v, bits)) for v in zeros)],
            [(0, _rounded(v, bits)) for v in poles],
            domain,
        )


def _moduli(n: int, gap: Any) -> list[Any]:
    """delta sc(i K' / (2n+1); k') for i = 1 .. 2n: in turn the moduli of the poles and the zeros of s."""
    m = (1 - gap) * (1 + gap)
    quarter = mp.ellipk(m)
    return [gap * mp.ellipfun("sc", i * quarter / (2 * n + 1), m=m) for i in range(1, 2 * n + 1)]


def _rounded(x: Any, bits: int) -> fmpq:
    with mp.workprec(bits):
        mantissa, exponent = (+x).man_exp
    return fmpq(mantissa << exponent) if exponent >= 0 else fmpq(mantissa, 1 << -exponent)


def _checked(n: int, delta: Any) -> Any:
    if n < 0 or n != int(n):
        raise ValueError(f"n must be a whole number >= 0 (the type is (2n+1, 2n)), got {n}")
    gap = mp.mpf(int(delta.p)) / int(delta.q) if isinstance(delta, fmpq) else mp.mpmathify(delta)
    if not (mp.isfinite(gap) and 0 < gap < 1):
        raise ValueError(f"delta must lie in (0, 1): half the width of the gap around the jump, got {delta}")
    return gap


def _nome(n: int, gap: Any) -> Any:
    """Q = exp(-pi (2n+1) K / K'), both integrals from the arithmetic-geometric mean."""
    ratio = mp.agm(1, gap) / mp.agm(1, mp.sqrt((1 - gap) * (1 + gap)))
    return mp.exp(-mp.pi * (2 * n + 1) * ratio)


def _modulus(q: Any) -> Any:
    """The elliptic modulus of the nome q, 4 sqrt(q) prod_j ((1 + q^(2j)) / (1 + q^(2j-1)))^4."""
    k, power = 4 * mp.sqrt(q), q
    while power > mp.eps / 16:
        k *= ((1 + power * q) / (1 + power)) ** 4
        power *= q * q
    return k
