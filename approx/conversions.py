"""From two polynomials over Q to a form, each parameter rounded to a number of bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from flint import acb, arb, arb_poly, ctx, fmpq, fmpq_poly

from approx.dyadic import dyadic, power_of_two_above, precision, to_float
from approx.forms import Barycentric, Chebyshev, Factored, Form, Monomial, PartialFractions, horner


def parameters(values: Iterable[Any]) -> tuple[fmpq, ...]:
    """Numbers as exact dyadics.

    Args:
        values: ints, floats, fmpq or arbs.
    """
    return tuple(dyadic(v) for v in values)


def reduced(num: fmpq_poly, den: fmpq_poly) -> tuple[fmpq_poly, fmpq_poly]:
    """num/den in lowest terms, with den(0) = 1, or leading coefficient 1 where den(0) = 0.

    Args:
        num: numerator.
        den: denominator, not 0.

    Returns:
        (num, den) without common factors.

    Raises:
        ValueError: if `den` is the zero polynomial.
    """
    if not den:
        raise ValueError("the denominator is the zero polynomial")
    common = num.gcd(den)
    if common.degree() > 0:
        num, den = num // common, den // common
    norm = den[0] if den[0] != 0 else den[den.degree()]
    return num / norm, den / norm


def roots(poly: fmpq_poly, bits: int) -> list[tuple[arb, ...]]:
    """Roots with multiplicity to `bits` relative bits: (u,) for a real one, (u, v) with v > 0 for a pair u
    +- iv.

    Args:
        poly: a polynomial over Q.
        bits: relative bits of each root.
    """
    found: list[tuple[arb, ...]] = []
    if poly.degree() < 1:
        return found
    if poly.degree() % 2 == 0 and all(c == 0 for c in poly.coeffs()[1::2]):
        return sorted(_square_roots(roots(fmpq_poly(poly.coeffs()[::2]), bits + 20), bits + 40), key=_place)
    if poly.degree() >= _MANY and (real := _real_roots(poly, bits)) is not None:
        return [(x,) for x in real]
    with precision(bits + 20):
        pairs: Any = poly.numer().complex_roots()
        for root, multiplicity in pairs:
            if root.imag == 0:
                found += [(root.real.mid(),)] * multiplicity
            elif root.imag > 0:
                # an even polynomial's pairs lie on the imaginary axis exactly
                real = arb(0) if root.real.contains(0) else root.real.mid()
                found += [(real, root.imag.mid())] * multiplicity
    return sorted(found, key=_place)


_MANY = 16  # roots; fewer are found at once in any case
_MAX_WORK = 1 << 14  # bits


class _Values:
    """A polynomial and its derivative in balls, at any precision."""

    def __init__(self, poly: fmpq_poly) -> None:
        self.poly = poly
        self.held: dict[int, tuple[arb_poly, arb_poly]] = {}

    def at(self, work: int) -> tuple[arb_poly, arb_poly]:
        if work not in self.held:
            with precision(work):
                held = arb_poly(self.poly)
                self.held[work] = held, held.derivative()
        return self.held[work]

    def sign(self, x: arb, work: int = 256) -> int:
        """The sign at x, 0 where it takes more than 2^14 bits to tell."""
        while work <= _MAX_WORK:
            with precision(work):
                value = self.at(work)[0](x)
            if not value.contains(0):
                return 1 if value > 0 else -1
            work *= 2
        return 0

    def root(self, low: arb, high: arb, bits: int) -> arb | None:
        """The root between two points of different signs to `bits` relative bits, proven by its own two signs."""
        x, rises, work = ((low + high) / 2).mid(), self.sign(high), 256
        while work <= _MAX_WORK:
            with precision(work):
                close = abs(x) * arb(2) ** -(bits + 2)
                value, slope = self.at(work)
                for _ in range(60):
                    at = value(x)
                    if at.contains(0):
                        break  # the precision is used up
                    low, high = (low, x) if bool(at > 0) == (rises > 0) else (x, high)
                    new = (x - at / slope(x)).mid()
                    if not (low < new and new < high):
                        new = ((low + high) / 2).mid()
                    step, x = abs(new - x), new
                    if step < close:
                        break
                ends = [value((x + s * close).mid()) * rises for s in (-1, 1)]
                if ends[0] < 0 and ends[1] > 0:
                    return x
            work *= 2
        return None


def _real_roots(poly: fmpq_poly, bits: int) -> list[arb] | None:
    """The roots, ascending, where all are real, simple and of one sign, as for fits of square roots; else None.

    There are no others than as many proven changes of sign as the degree is.
    """
    n, coefficients = poly.degree(), poly.coeffs()
    side = next(
        (
            s
            for s in (-1, 1)
            if all(c * coefficients[n] * (-s) ** (n - k) > 0 for k, c in enumerate(coefficients))
        ),
        0,
    )
    if side == 0:
        return None
    values = _Values(poly)
    with precision(64):
        # |x_k| lies between 1/sum 1/|x_k| and sum |x_k|
        ends = [abs(arb(coefficients[k]) / arb(coefficients[k + 1])).log() for k in (0, n - 1)]
        for count in (8 * n, 32 * n):
            points = [
                (side * (ends[0] + (ends[1] - ends[0]) * k / count).exp()).mid() for k in range(-1, count + 2)
            ]
            points.sort(key=float)
            signs = [values.sign(x) for x in points]
            brackets = [k for k in range(len(points) - 1) if signs[k] * signs[k + 1] < 0]
            if len(brackets) == n:
                break
        else:
            return None
    found = [values.root(points[k], points[k + 1], bits) for k in brackets]
    certain = [x for x in found if x is not None]
    return certain if len(certain) == n else None


def _place(root: tuple[arb, ...]) -> tuple[float, float]:
    return float(root[0]), float(root[-1])


def _square_roots(squares: list[tuple[arb, ...]], bits: int) -> list[tuple[arb, ...]]:
    """Roots of an even polynomial from those of the polynomial in the square, of half the degree."""
    found: list[tuple[arb, ...]] = []
    with precision(bits):
        for root in squares:
            if len(root) == 2:
                z = acb(*root).sqrt()
                found += [(z.real.mid(), z.imag.mid()), (-z.real.mid(), z.imag.mid())]
            elif root[0] < 0:
                found.append((arb(0), (-root[0]).sqrt().mid()))
            else:
                x = root[0].sqrt().mid()
                found += [(-x,), (x,)]
    return found


def complex_roots(poly: fmpq_poly) -> np.ndarray:
    """The roots with multiplicity, complex128, by real then imaginary part.

    Args:
        poly: a polynomial over Q.
    """
    found = roots(poly, 64)
    values = [
        complex(float(r[0]), s * float(r[1]) if len(r) == 2 else 0.0)
        for r in found
        for s in (-1, 1)[-len(r) :]
    ]
    return np.array(values, dtype=complex)


def held_poles(form: Form, centre: fmpq, scale: fmpq) -> np.ndarray | None:
    """The poles in x = centre + scale t where a form holds them, complex128, by real then imaginary part.

    Args:
        form: the form, in t.
        centre: x where t is 0.
        scale: what is 1 in t.

    Returns:
        The poles, or None where they have to be computed.
    """
    held: list[tuple[fmpq, ...]] = []
    if isinstance(form, PartialFractions):
        if not all(any(pair[:2]) for pair in form.pairs) or any(rho == 0 for rho, _ in form.real):
            return None
        held = [*(pair[2:] for pair in form.pairs), *((a,) for _, a in form.real)]
    elif isinstance(form, Factored):
        if form.gain == 0 or {*form.zeros} & {*form.poles}:
            return None
        held = [*form.poles]
    else:
        return None
    found: list[complex] = []
    for root in held:
        real, imag = to_float(centre + scale * root[0]), abs(to_float(scale * root[1])) if root[1:] else 0.0
        found += [complex(real, -imag), complex(real, imag)] if imag else [complex(real)]
    return np.array(sorted(found, key=lambda z: (z.real, z.imag)), dtype=complex)


def _to_monomial(num: fmpq_poly, den: fmpq_poly, bits: int) -> Form:
    return Monomial(_rounded(num.coeffs() or [fmpq(0)], bits), _rounded(den.coeffs(), bits))


def _to_chebyshev(num: fmpq_poly, den: fmpq_poly, bits: int) -> Form:
    return Chebyshev(_rounded(chebyshev_series(num), bits), _rounded(chebyshev_series(den), bits))


def chebyshev_series(poly: fmpq_poly) -> list[fmpq]:
    """The Chebyshev coefficients of a polynomial in t.

    Args:
        poly: the polynomial.
    """
    # t = (z + 1/z)/2 makes T_k (z^k + z^-k)/2
    m = max(poly.degree(), 0)
    whole = _homogeneous(poly.coeffs(), fmpq_poly([fmpq(1, 2), 0, fmpq(1, 2)]))
    return [whole[m], *(2 * whole[m + k] for k in range(1, m + 1))]


def _homogeneous(c: list[fmpq], u: fmpq_poly) -> fmpq_poly:
    """sum_k c_k u^k z^(m - k), k = 0..m, by halves."""
    if len(c) <= 1:
        return fmpq_poly(c)
    half, z = len(c) // 2, fmpq_poly([0, 1])
    return _homogeneous(c[:half], u) * z ** (len(c) - half) + _homogeneous(c[half:], u) * u**half


def _to_factored(num: fmpq_poly, den: fmpq_poly, bits: int) -> Form:
    gain = num[max(num.degree(), 0)] / den[den.degree()]
    if not num:
        return Factored(fmpq(0), (), ())

    def factors(p: fmpq_poly) -> tuple[tuple[fmpq, ...], ...]:
        return tuple(_rounded(root, bits) for root in roots(p, bits))

    return Factored(dyadic(gain, bits), factors(num), factors(den))


def to_partial_fractions(num: fmpq_poly, den: fmpq_poly, bits: int) -> PartialFractions:
    """Partial fractions of num/den.

    Args:
        num: numerator.
        den: denominator.
        bits: to how many bits each parameter is rounded.
    """
    if den.gcd(den.derivative()).degree() > 0:
        raise ValueError("the function has a multiple pole: partial fractions here hold simple poles only")
    poly, rest = divmod(num, den)
    parts: dict[int, list[list[acb]]] = {}

    def at(work: int) -> list[list[acb]]:
        """den, its derivative and the rest in balls: exact coefficients of thousands of bits are read once."""
        if work not in parts:
            parts[work] = [_balls(p) for p in (den, den.derivative(), rest)]
        return parts[work]

    pairs, real = [], []
    # cancellation in rest(p)/den'(p) costs at most the bits that the ball's radius tells: raise until it is
    # small
    for root in roots(den, bits):
        work = bits + 64
        while True:
            with precision(work):
                below, slope, above = at(work)
                p = acb(*_polished(below, slope, root))
                residue = horner(above, p) / horner(slope, p)
                good = residue.rel_accuracy_bits() > bits + 8
                if good or work > 64 * bits + 4096:
                    break
            work *= 2
        with precision(work):
            if len(root) == 1:
                real.append(_rounded((residue.real, p.real), bits))
            else:
                # rho/(t-p) + conj = (2 Re(rho) (t-u) - 2 Im(rho) v) / ((t-u)^2 + v^2)
                pairs.append(_rounded((2 * residue.real, -2 * residue.imag * p.imag, p.real, p.imag), bits))
    return PartialFractions(_rounded(poly.coeffs(), bits), tuple(pairs), tuple(real))


def to_barycentric(num: fmpq_poly, den: fmpq_poly, bits: int, low: float, high: float) -> Barycentric:
    """Interpolation at Leja points of [low, high] for the weight 1/|den|: they crowd where the poles are near.

    Args:
        num: numerator.
        den: denominator.
        bits: to how many bits each parameter is rounded.
        low: left end of the interval of the nodes.
        high: its right end.
    """
    count = max(num.degree(), den.degree(), 0) + 1
    real, imag = np.array(
        [(float(r[0]), float(r[1]) if len(r) == 2 else 0.0) for r in roots(den, 53)] or [(0.0, 1.0)]
    ).T
    nearest = np.clip(real, low, high)
    steps = np.multiply.outer([-1.0, 1.0], 2.0 ** np.arange(-2, 60))[..., None] * np.hypot(
        real - nearest, imag
    )
    close = np.ravel(nearest + steps)
    places = np.unique(np.clip(np.r_[np.linspace(low, high, 50 * count), close], low, high))
    with precision(bits + 20 * count):
        coefficients = [arb(c) for c in den.coeffs()]
        sizes = [abs(horner(coefficients, arb(x))) for x in places]
        usable = np.array([bool(size > 0) for size in sizes])
        attraction = np.array([float(s.log()) if ok else 0.0 for s, ok in zip(sizes, usable, strict=True)])
    places, attraction = places[usable], attraction[usable]
    nodes, score = [places[0]], np.zeros(len(places))
    with np.errstate(divide="ignore"):
        for k in range(1, count):
            score += np.log(np.abs(places - nodes[-1]))
            nodes.append(places[np.argmax(score - k / count * attraction)])
    at = sorted(map(dyadic, nodes))
    weights = [den(x) / math.prod((x - y for y in at if y != x), start=fmpq(1)) for x in at]
    unit = power_of_two_above(dyadic(max(map(abs, weights)), bits))
    values = _rounded((num(x) / den(x) for x in at), bits)
    return Barycentric(tuple(at), values, _rounded((w / unit for w in weights), bits))


def _polished(poly: list[acb], slope: list[acb], root: Sequence[arb]) -> tuple[arb, ...]:
    """A root refined by Newton's method to the working precision (midpoints: the result is not a proof)."""
    p = acb(*root)
    for _ in range(8):
        step = horner(poly, p) / horner(slope, p)
        p = acb((p - step).real.mid(), (p - step).imag.mid())
        if abs(step) < abs(p) * arb(2) ** (-3 * ctx.prec // 4):  # quadratic: the next is below rounding
            break
    return p.real, p.imag


def _balls(poly: fmpq_poly) -> list[acb]:
    return [acb(c) for c in poly.coeffs()] or [acb(0)]


def _rounded(values: Iterable[Any], bits: int) -> tuple[fmpq, ...]:
    return tuple(dyadic(v, bits) for v in values)


_FROM_EXACT: dict[str, Callable[[fmpq_poly, fmpq_poly, int], Form]] = {
    "monomial": _to_monomial,
    "chebyshev": _to_chebyshev,
    "factored": _to_factored,
    "partial_fractions": to_partial_fractions,
}


def converted(num: fmpq_poly, den: fmpq_poly, form: str, bits: int) -> Form:
    """num/den in a form other than the barycentric one.

    Args:
        num: numerator, without a factor in common with `den`.
        den: denominator.
        form: "monomial", "chebyshev", "factored" or "partial_fractions".
        bits: to how many bits each parameter is rounded.

    Returns:
        The form.

    Raises:
        ValueError: for another name, or partial fractions of a function with a multiple pole.
    """
    if form not in _FROM_EXACT:
        raise ValueError(f"form={form!r}: expected one of {', '.join(_FROM_EXACT)}, barycentric")
    return _FROM_EXACT[form](num, den, bits)
