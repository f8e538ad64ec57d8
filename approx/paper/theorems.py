"""The constructions of the rational sparse autoencoder paper (arXiv 2606.14990), each with its proven bound.

Lemma 1 and Theorems 2 to 5 of its appendix, as far as their text is public; docs/approx/zolotarev.md states
each as it is proven here, with the constants, and says where this departs from the paper. For every result
there is one function that builds the object and one, ending in `_bound`, that gives the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from mpmath import mp
from scipy.spatial import ConvexHull

from approx.dyadic import dyadic
from approx.rational import Rational
from approx.zolotarev import zolotarev_error, zolotarev_map, zolotarev_sign

# -- Lemma 1: the sign off a gap


def sign(n: int, delta: float) -> Rational:
    """Lemma 1: the best approximation of sign on [-1, -delta] u [delta, 1], of type (2n+1, 2n).

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        delta: half-width of the gap around 0, inside (0, 1).

    Raises:
        ValueError: if n < 0 or delta is outside (0, 1).
    """
    return zolotarev_sign(n, delta)


def sign_bound(n: int, delta: float) -> float:
    """Lemma 1: max |sign - s| <= 4 exp(-pi^2 n / log(4/delta)).

    It follows from E < 4 Q and the nome's q > k^2 / 16, which give n + 1/2 in the place of n; the difference
    covers the rounding of the parameters.

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        delta: half-width of the gap around 0, inside (0, 1).
    """
    return 4 * math.exp(-(math.pi**2) * n / math.log(4 / delta))


def sign_size(eps: float, delta: float) -> int:
    """Lemma 1: the least n for which the bound on `sign(n, delta)` is eps: of order log(1/eps) log(1/delta).

    Args:
        eps: the wanted error.
        delta: half-width of the gap around 0, inside (0, 1).

    Raises:
        ValueError: unless eps > 0 and delta lies in (0, 1).
    """
    if not (eps > 0 and 0 < delta < 1):
        raise ValueError(f"eps={eps} must be positive and delta={delta} inside (0, 1)")
    return max(0, math.ceil(math.log(4 / eps) * math.log(4 / delta) / math.pi**2))


@dataclass(frozen=True)
class CompositeSign:
    """A sign approximation held as a chain of rational maps, innermost first: narrow and deep.

    Its exact function is `rational()`, of type (p, p - 1) with p the product of the layers' degrees; calling
    the chain is cheaper and more accurate. `error` is its uniform error on [-1, -delta] u [delta, 1].
    """

    layers: tuple[Rational, ...]
    """The maps, innermost first."""
    delta: float
    """Half-width of the gap."""
    error: float
    """The uniform error on [-1, -delta] u [delta, 1]."""

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def rational(self) -> Rational:
        """The chain as one Rational, exactly."""
        whole = self.layers[0]
        for layer in self.layers[1:]:
            whole = layer.compose(whole)
        return whole.with_domain([(-1, -self.delta), (self.delta, 1)])


def composite_sign(depth: int, delta: float, n: int = 1) -> CompositeSign:
    """`depth` maps of type (2n+1, 2n) whose composition is Zolotarev's function of type ((2n+1)^depth, ...).

    If Z_q has error E on the gap delta, then Z_q / (1 + E) maps [delta, 1] onto [L, 1], L = (1-E)/(1+E), and
    Z_p(.; L) of it is Z_pq(.; delta) (Akhiezer; Nakatsukasa and Freund 2016, Theorem 3; Lemma 1 of Boulle,
    Nakatsukasa and Townsend 2020).

    Args:
        depth: number of maps.
        delta: half-width of the gap around 0, inside (0, 1).
        n: each map has the type (2n+1, 2n).

    Raises:
        ValueError: if depth < 1, n < 1, delta is outside (0, 1), or fewer layers do as well.
    """
    if depth < 1 or n < 1:
        raise ValueError(f"depth={depth} and n={n} must be at least 1")
    layers = []
    with mp.workprec(2000):  # L is nearly 1 where E is tiny
        gap = mp.mpf(delta)
        for _ in range(depth - 1):
            layers.append(zolotarev_map(n, gap))
            error = zolotarev_error(n, gap, 2000)
            gap = (1 - error) / (1 + error)
            if float(gap) == 1:
                raise ValueError(f"depth={depth}: {len(layers)} layers reach double precision, use fewer")
        layers.append(zolotarev_sign(n, gap))
        return CompositeSign(tuple(layers), float(delta), zolotarev_error(n, gap))


# -- Theorem 2: ReLU


def relu(n: int) -> Rational:
    """Theorem 2: x (1 + s(x)) / 2 on [-1, 1] with s = `sign(n, delta)`, delta = 4 exp(-pi sqrt(n)).

    The gap balances the error outside it, |x| E / 2, with that inside, where 0 <= s(x) sign(x) <= 1. The
    type is (2n+2, 2n).

    Args:
        n: whole number >= 1.

    Raises:
        ValueError: if n < 1.
    """
    return _gated(sign(n, _relu_gap(n)), (-1, 1))


def relu_bound(n: int) -> float:
    """Theorem 2: max |relu - r| <= 2 exp(-pi sqrt(n)), so that size O(log^2(1/eps)) reaches eps.

    Args:
        n: whole number >= 1.
    """
    return _relu_gap(n) / 2


def composite_relu(depth: int) -> Callable[[Any], Any]:
    """Theorem 2 as a network of constant width: `relu((3^depth - 1) / 2)` with its sign as a
    `composite_sign`.

    Args:
        depth: number of maps of the sign.
    """
    s = composite_sign(depth, _relu_gap((3**depth - 1) // 2))
    return lambda x: x * (1 + s(x)) / 2


def _relu_gap(n: int) -> float:
    if n < 1:
        raise ValueError(f"n must be at least 1 (the sign has type (2n+1, 2n)), got {n}")
    return 4 * math.exp(-math.pi * math.sqrt(n))


def _gated(s: Rational, domain: Any) -> Rational:
    x = Rational.from_monomial([0, 1], domain=domain)
    return (x * (1 + s) / 2).with_domain(domain)


# -- Theorem 3: JumpReLU


def jump_relu(n: int, theta: float, margin: float) -> Rational:
    """Theorem 3: h (1 + s((h - theta) / c)) / 2 on [-1, 1] without theta -+ margin, c = 1 + |theta|.

    s = `sign(n, margin / c)`; the type is (2n+2, 2n).

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        theta: the threshold.
        margin: half-width of the gap that is left out around each jump.

    Raises:
        ValueError: if n < 0 or the gap does not lie inside (-1, 1).
    """
    s = zolotarev_sign(n, _jump_gap(theta, margin))
    shifted = Rational(s.form, s.domain, dyadic(theta), 1 + abs(dyadic(theta)))
    return _gated(shifted, [(-1, theta - margin), (theta + margin, 1)])


def jump_relu_bound(n: int, theta: float, margin: float) -> float:
    """Theorem 3: max |jump_relu - r| <= sign_bound(n, margin / (1 + |theta|)) / 2 off the margin.

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        theta: the threshold.
        margin: half-width of the gap that is left out around each jump.
    """
    return sign_bound(n, float(_jump_gap(theta, margin))) / 2


def _jump_gap(theta: float, margin: float) -> Fraction:
    """The gap of the sign, from the ends of the domain as they are rounded."""
    if not (margin > 0 and -1 < theta - margin < theta < theta + margin < 1):
        raise ValueError(f"theta={theta}, margin={margin}: the gap must lie inside (-1, 1), with margin > 0")
    below, at, above = map(Fraction, (theta - margin, theta, theta + margin))
    return min(at - below, above - at) / (1 + abs(at))


# -- Theorem 4: TopK with a supplied threshold


@dataclass(frozen=True)
class TopKGate:
    """z_i = h_i (1 + s((h_i - tau) / 2)) / 2 for h in [-1, 1]^d and a threshold tau in [-1, 1] that is given.

    This is not TopK: somebody must supply a tau that separates the k-th entry from the next by the margin.
    """

    sign: Rational
    """The approximation of the sign."""

    def __call__(self, h: np.ndarray, tau: Any) -> np.ndarray:
        """The code, float64 of the shape of `h`; `tau` broadcasts against h."""
        h = np.asarray(h, dtype=float)
        return h * (1 + self.sign((h - np.asarray(tau, dtype=float)) / 2)) / 2


def top_k_gate(n: int, margin: float) -> TopKGate:
    """Theorem 4: the gate that is close to h_i 1[h_i > tau] wherever |h_i - tau| >= margin.

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        margin: the distance of entries from the threshold that counts.

    Raises:
        ValueError: if n < 0 or margin is outside (0, 2).
    """
    if not 0 < margin < 2:
        raise ValueError(f"margin={margin} must lie in (0, 2): entries and threshold lie in [-1, 1]")
    return TopKGate(sign(n, margin / 2))


def top_k_bound(n: int, margin: float) -> float:
    """Theorem 4: max |z_i - h_i 1[h_i > tau]| <= sign_bound(n, margin / 2) / 2 where |h_i - tau| >=
    margin.

    Args:
        n: whole number >= 0; the type is (2n+1, 2n).
        margin: the distance of entries from the threshold that counts.
    """
    return sign_bound(n, margin / 2) / 2


# -- Theorem 5: what rationals do cheaply and piecewise linear functions do not


def bump(eta: float) -> Rational:
    """Theorem 5: eta^2 / (x^2 + eta^2) on [-1, 1], of type (0, 2).

    Args:
        eta: the width, in (0, 1].

    Raises:
        ValueError: unless 0 < eta <= 1.
    """
    if not 0 < eta <= 1:
        raise ValueError(f"eta={eta} must lie in (0, 1]")
    square = dyadic(eta) ** 2
    return Rational.from_monomial([square], [square, 0, 1])


def bump_bound(k: int) -> float:
    """Theorem 5: a k-piece linear function, continuous or not, is at least 0.0274 / k^2 away from any `bump`.

    So an error of eps needs k >= 0.165 / sqrt(eps) pieces, and a sum of W ReLU or JumpReLU units of one
    variable has at most W + 1. Proof: |bump''| >= m / eta^2 on |x| <= 0.36 eta; one of the k pieces covers a
    part of it at least 0.72 eta / k long, on which no line is closer than (0.72 / k)^2 m / 16.

    Args:
        k: number of linear pieces.

    Raises:
        ValueError: if k < 1.
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1: it counts linear pieces")
    w = 0.36
    return (2 * w / k) ** 2 * (2 - 6 * w * w) / (1 + w * w) ** 3 / 16


def piecewise_linear_error(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """The least max |y_i - g(x_i)| over functions g of k linear pieces, not necessarily continuous.

    x increasing, y: float arrays of shape (n,). Greedy (each piece as long as it can be) inside bisection on
    the error, to 1e-6 relative.

    Args:
        x: increasing, shape (n,).
        y: values, shape (n,).
        k: number of pieces.

    Raises:
        ValueError: for other shapes or k < 1.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if k < 1 or x.ndim != 1 or x.shape != y.shape or np.any(np.diff(x) <= 0):
        raise ValueError("x must increase, y have its shape (n,), and k be at least 1")

    def enough(error: float) -> bool:
        start = 0
        for _ in range(k):
            low, high = start + 1, len(x) + 1  # the end of a piece that fits, and of one that does not
            while high - low > 1:
                middle = (low + high) // 2
                fits = line_error(x[start:middle], y[start:middle]) <= error
                low, high = (middle, high) if fits else (low, middle)
            start = low
            if start >= len(x):
                return True
        return False

    low, high = 0.0, line_error(x, y)
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def line_error(x: np.ndarray, y: np.ndarray) -> float:
    """The least max |y_i - a - b x_i| over lines: half the least vertical width of the convex hull.

    Args:
        x: increasing, shape (n,).
        y: values, shape (n,).
    """
    if len(x) <= 2:
        return 0.0
    flat = y - np.interp(x, x[[0, -1]], y[[0, -1]])
    if np.all(flat == 0):
        return 0.0
    hull = ConvexHull(np.column_stack([x, flat])).vertices
    px, py = x[hull], flat[hull]
    dx, dy = np.roll(px, -1) - px, np.roll(py, -1) - py
    slopes = np.sort(dy[dx != 0] / dx[dx != 0])

    def width(i: int) -> float:
        return float(np.ptp(py - slopes[i] * px))

    # the width is convex and piecewise linear in the slope, with its breaks at the slopes of the hull's edges
    low, high = 0, len(slopes) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if width(middle) <= width(middle + 1) else (middle + 1, high)
    return width(low) / 2
