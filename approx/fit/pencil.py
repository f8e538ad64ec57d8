"""The levelled function on a reference: a pencil (A - lam B) v = 0 of size n + 1, v being q on n + 1 support points.

For N = m + n + 2 points t_k and signs s_k = sign(w_k), w_k = 1/prod_{i != k} (t_k - t_i), the levelled system
f(t_k) - p(t_k)/q(t_k) = s_k lam / W(t_k) says that (f - s lam / W) q is a polynomial of degree m on the
points: its divided differences against any polynomial of degree n vanish. Two choices of these polynomials:

- The Lagrange basis on the support gives a symmetric pencil, B positive definite. (In an orthogonal basis: Pachon and
  Trefethen 2009; Filip, Nakatsukasa, Trefethen and Beckermann, SIAM J. Sci. Comput. 40, 2018, section 4.) Rayleigh
  quotients converge cubically, from any start. It takes (m + n) n^2 products to set up.
- Products of t - x over most points x outside the support leave few terms in each sum. For m = n these are Loewner's
  matrices, A_kj = (f(x_k) - f(t_j))/(x_k - t_j) and B_kj likewise of s/W, as in AAA; for m > n divided differences of
  order m - n + 1; for m < n the remaining rows are moments. It takes n^2 products: the choice for large n.

At most one eigenvector has no sign change of q on the points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from flint import acb_mat, arb, arb_mat, ctx
from scipy.linalg import eigh, eigh_tridiagonal

_LARGE = 16  # n; from there on the sparse pencil comes first


@dataclass(frozen=True)
class Reference:
    """A target on N = m + n + 2 points."""

    t: list[arb]
    """The points, ascending, exact."""
    f: list[arb]
    """Values there."""
    weight: list[arb]
    """W there, positive."""
    sides: list[int]
    """The sign that q has to have there."""
    negligible: arb
    """What counts as rounding of f."""
    accuracy: float
    """The share of the level to which it is wanted."""

    def support(self, n: int) -> list[int]:
        """Indices of the n + 1 support points.

        Args:
            n: degree of the denominator.
        """
        return spread(n + 1, len(self.t))


@dataclass(frozen=True)
class Levelled:
    """A levelled function, by its level and its denominator."""

    value: arb
    """lam."""
    support: list[arb]
    """n + 1 of the points."""
    q: list[arb]
    """Values of the denominator there."""


class NoLevel(ArithmeticError):
    """No eigenvector has the right signs."""


def levelled(reference: Reference, n: int, guess: list[arb] | None) -> Levelled | None:
    """The pole-free levelled function with a denominator of degree n.

    Args:
        reference: the points and the values.
        n: degree of the denominator.
        guess: values of a denominator on `reference.support(n)` that is near, if one is known.

    Returns:
        The function, or None where the working precision does not do.

    Raises:
        NoLevel: if there is none.
    """
    if n >= _LARGE:
        found = _from_differences(reference, n, guess)
        if found is not None or ctx.prec < 8 * n:  # which is cheaper with more bits
            return found
    return _from_symmetric(reference, n, guess)


# -- divided differences of few terms


def _from_differences(reference: Reference, n: int, guess: list[arb] | None) -> Levelled | None:
    t, m = reference.t, len(reference.t) - n - 2
    chosen = reference.support(n)
    inside = set(chosen)
    others = [k for k in range(len(t)) if k not in inside]
    nodes, x = [t[k] for k in chosen], [t[k] for k in others]
    inverse = [[(1 / (a - b)).mid() for b in nodes] for a in x]
    cauchy = arb_mat(inverse)
    divide = _divided_differences(x, m - n) if m > n else None

    def differences(values: list[arb]) -> arb_mat:
        at = [values[k] for k in chosen]
        rows = [
            [((values[k] - v) * c).mid() for v, c in zip(at, row, strict=True)]
            for k, row in zip(others, inverse, strict=True)
        ]
        if divide is not None:
            return _mids(divide * arb_mat(rows))
        rows += [[(v * b**k).mid() for v, b in zip(at, nodes, strict=True)] for k in range(n - m)]
        return arb_mat(rows)

    # unknown are q(t_j)/prod_{i != j} (t_j - t_i)
    slopes = [_product(a - b for b in nodes if b is not a) for a in nodes]
    A = differences(reference.f)
    B = differences([s / w for s, w in zip(alternating(len(reference.t)), reference.weight, strict=True)])
    ones = arb_mat(n + 1, 1, [(1 / c).mid() for c in slopes])
    if min(reference.sides) > 0 and top(A * ones) <= reference.negligible * top(B * ones):
        return Levelled(arb(0), nodes, [arb(1)] * (n + 1))  # a polynomial of degree m fits the points
    # q(x_k) = prod_j (x_k - t_j) sum_j v_j/(x_k - t_j)
    parity = [1 if (len(nodes) - sum(bool(b < a) for b in nodes)) % 2 == 0 else -1 for a in x]

    values = _values(reference, (chosen, others), slopes, inverse)
    order = (*chosen, *others)
    signed = [alternating(len(t))[k] * reference.f[k] * reference.weight[k] for k in order]
    for start in _starts(A, B, ones, values, guess and [g / c for g, c in zip(guess, slopes, strict=True)]):
        found = _quotients(A, B, values, signed, start, reference.accuracy)
        if found is None:
            continue
        lam, v = found
        q = [(a * c).mid() for a, c in zip(v.entries(), slopes, strict=True)]
        between = [s * a for s, a in zip(parity, (cauchy * v).entries(), strict=True)]
        at = [reference.sides[k] * a for k, a in zip((*chosen, *others), (*q, *between), strict=True)]
        if all(a > 0 for a in at) or all(a < 0 for a in at):
            return Levelled(lam, nodes, q)
    return None


def _divided_differences(x: list[arb], order: int) -> arb_mat:
    """The matrix that takes values at x to their divided differences of an order."""
    rows = len(x) - order
    matrix = arb_mat(rows, len(x))
    for k in range(rows):
        window = x[k : k + order + 1]
        for i, a in enumerate(window):
            matrix[k, k + i] = (1 / _product(a - b for b in window if b is not a)).mid()
    return matrix


_KRYLOV = 20  # steps of Lanczos' iteration
_RITZ = 4  # vectors of it that are tried


def _starts(
    A: arb_mat, B: arb_mat, ones: arb_mat, values: arb_mat, guess: list[arb] | None
) -> Iterator[arb_mat]:
    """The last denominator; then the vectors of the smallest |lam| by Lanczos' iteration, from a constant one.

    The inverse of the pencil is self-adjoint for the inner product of the symmetric one, sum |w_k| q(t_k)^2 / W(t_k).

    Args:
        A: left matrix.
        B: right matrix.
        ones: the vector of q = 1.
        values: from a vector to sqrt(|w_k| / W(t_k)) q(t_k), shape (m + n + 2, n + 1).
        guess: the last denominator's vector.
    """
    if guess is not None:
        yield arb_mat(len(guess), 1, guess)
    try:
        # |lam| that fall steeply, as those of analytic functions do, need two steps
        first = _unit(A.solve(B * _unit(ones), algorithm="approx"))
        second = _unit(A.solve(B * first, algorithm="approx"))
        if max(abs(a - b) for a, b in zip(first.entries(), second.entries(), strict=True)) < 0.01:
            yield second
        X = _mids(A.solve(B, algorithm="approx"))
    except ZeroDivisionError:
        return
    v, diagonal, beside = ones, [], []
    basis: list[tuple[arb_mat, arb_mat]] = []
    for _ in range(min(_KRYLOV, A.nrows())):
        at = _mids(values * v)
        for u, seen in basis:
            overlap = (seen.transpose() * at)[0, 0].mid()
            v, at = v - u * overlap, at - seen * overlap
        length = (at.transpose() * at)[0, 0].sqrt().mid()
        if not (length.is_finite() and length > 0):
            break
        basis.append((_mids(v * (1 / length)), _mids(at * (1 / length))))
        if len(basis) > 1:
            beside.append(length)
        v = _mids(X * basis[-1][0])
        diagonal.append(((values * v).transpose() * basis[-1][1])[0, 0].mid())
    largest = max((abs(x) for x in (*diagonal, *beside)), default=arb(0))
    if not largest > 0:
        return
    alpha, beta = (np.array([float(x / largest) for x in series]) for series in (diagonal, beside))
    ritz, vectors = eigh_tridiagonal(alpha, beta[: len(alpha) - 1])
    for i in np.argsort(-np.abs(ritz))[:_RITZ]:
        parts = [u * arb(float(c)) for (u, _), c in zip(basis, vectors[:, i], strict=True)]
        yield sum(parts[1:], parts[0])


def _quotients(
    A: arb_mat, B: arb_mat, values: arb_mat, signed: list[arb], v: arb_mat, accuracy: float
) -> tuple[arb, arb_mat] | None:
    """Rayleigh quotient iteration with the quotients of the symmetric pencil (cubic); None if it does not settle."""
    close = arb(1e-2 * accuracy ** (2 / 3))  # the quotient's error is the square of the vector's

    def quotient() -> arb:
        squares = [(e * e).mid() for e in (values * v).entries()]
        return (
            sum((s * e for s, e in zip(signed, squares, strict=True)), arb(0)) / sum(squares, arb(0))
        ).mid()

    lam = quotient()
    for _ in range(24):
        try:
            v = _unit((A - lam * B).solve(B * v, algorithm="approx"))
        except ZeroDivisionError:  # lam is an eigenvalue to the last bit
            return lam, v
        previous, lam = lam, quotient()
        if not (lam.is_finite() and lam != 0):
            return None
        if abs(lam - previous) <= abs(lam) * close:
            return lam, v
    return None


def _values(
    reference: Reference, indices: tuple[list[int], list[int]], slopes: list[arb], inverse: list[list[arb]]
) -> arb_mat:
    """From a vector to sqrt(|w_k| / W(t_k)) q(t_k): first on the support, then on the other points."""
    nodes, x = ([reference.t[k] for k in part] for part in indices)
    reach = [_product(a - b for b in x) for a in nodes], [_product(a - b for b in nodes) for a in x]
    own = [_product(a - b for b in x if b is not a) for a in x]
    weights = [
        (1 / (abs(c * d) * reference.weight[k])).sqrt()
        for c, d, k in zip((*slopes, *reach[1]), (*reach[0], *own), (*indices[0], *indices[1]), strict=True)
    ]
    between = [
        [(w * c * a).mid() for a in row]
        for w, c, row in zip(weights[len(nodes) :], reach[1], inverse, strict=True)
    ]
    return arb_mat(_diagonal([w * c for w, c in zip(weights, slopes, strict=False)]).tolist() + between)


# -- the symmetric pencil


def _from_symmetric(reference: Reference, n: int, guess: list[arb] | None) -> Levelled | None:
    ts, signs, f, w = reference.t, alternating(len(reference.t)), reference.f, reference.weight
    scale = [(1 / abs(_product(a - b for b in ts if b is not a))).mid() for a in ts]
    support = [ts[i] for i in reference.support(n)]
    node = [_product(x - y for y in support if y is not x) for x in support]
    # q = sum_j v_j prod_{i != j} (t - x_i)/(x_j - x_i): the Lagrange basis on the support
    rows = []
    for t in ts:
        if any(t is x for x in support):
            rows.append([arb(t is x) for x in support])
        else:
            full = _product(t - x for x in support)
            rows.append([(full / ((t - x) * d)).mid() for x, d in zip(support, node, strict=True)])
    phi = arb_mat(rows)
    b = [c / v for c, v in zip(scale, w, strict=True)]
    columns = [
        sum((r[j] * r[j] * c for r, c in zip(rows, b, strict=True)), arb(0)).rsqrt() for j in range(n + 1)
    ]
    phi = _mids(phi * _diagonal(columns))
    A = _mids(
        phi.transpose() * (_diagonal([s * c * x for s, c, x in zip(signs, scale, f, strict=True)]) * phi)
    )
    B = _mids(phi.transpose() * (_diagonal(b) * phi))
    ones = arb_mat(n + 1, 1, [(1 / c).mid() for c in columns])
    if min(reference.sides) > 0 and top(A * ones) <= reference.negligible * top(B * ones):
        return Levelled(arb(0), support, [arb(1)] * (n + 1))  # a polynomial of degree m fits the points
    start = guess and [(q / c).mid() for q, c in zip(guess, columns, strict=True)]
    for vector in _candidates(A, B, start):
        found = _rayleigh(A, B, vector, reference.accuracy)
        if found is None:
            return None
        lam, v = found
        at = [side * x for side, x in zip(reference.sides, (phi * v).entries(), strict=True)]
        if all(x > 0 for x in at) or all(x < 0 for x in at):
            return Levelled(lam, support, [(x * c).mid() for x, c in zip(v.entries(), columns, strict=True)])
    raise NoLevel("no levelled function without poles on this reference")


def _candidates(A: arb_mat, B: arb_mat, guess: list[arb] | None) -> Iterator[arb_mat]:
    """Start vectors for the eigenvalue iteration: the last denominator, then float64's eigenvectors by
    |lam|.
    """
    size = A.nrows()
    if guess is not None:
        yield arb_mat(size, 1, guess)
    if ctx.prec > 256:
        # the eigenvalues are decades apart, beyond float64: inverse iteration finds the smallest in a step or two
        with suppress(ZeroDivisionError):
            v = arb_mat(size, 1, [1] * size)
            for _ in range(2):
                v = _unit(A.solve(B * v, algorithm="approx"))
            if all(x.is_finite() for x in v.entries()):
                yield v
    try:
        values, vectors = eigh(_as_floats(A), _as_floats(B))
        order = np.argsort(np.abs(values))
        yield from (arb_mat(size, 1, [arb(float(x)) for x in vectors[:, i]]) for i in order)
    except (np.linalg.LinAlgError, ValueError):  # B is not positive definite, or not finite, in float64
        try:
            values, vectors = acb_mat(B.solve(A, algorithm="approx")).eig(right=True, algorithm="approx")
        except ZeroDivisionError:
            return
        for i in np.argsort([abs(float(x.real)) for x in values]):
            yield _unit(arb_mat(size, 1, [vectors[j, int(i)].real for j in range(size)]))


def _rayleigh(A: arb_mat, B: arb_mat, v: arb_mat, accuracy: float) -> tuple[arb, arb_mat] | None:
    """Rayleigh quotient iteration on A v = lam B v (cubic: the pencil is symmetric); None if it does not
    settle.
    """
    previous, close = None, min(arb(2) ** -60, arb(accuracy), key=float)
    for _ in range(200):  # the eigenvalues may span a hundred decades, and the start be at the wrong end
        Bv = B * v
        lam = ((v.transpose() * (A * v))[0, 0] / (v.transpose() * Bv)[0, 0]).mid()
        if not lam.is_finite():
            return None
        if previous is not None and abs(lam - previous) <= abs(lam) * close:
            return lam, v
        try:
            v = _unit((A - lam * B).solve(Bv, algorithm="approx"))
        except ZeroDivisionError:  # lam is an eigenvalue to the last bit
            return lam, v
        if not all(x.is_finite() for x in v.entries()):
            return None
        previous = lam
    return None


# -- small things


def spread(count: int, total: int) -> list[int]:
    """`count` of `total` indices, evenly spread and away from the ends.

    Args:
        count: how many.
        total: of how many.
    """
    return [int((i + 0.5) * total / count) for i in range(count)]


def top(matrix: arb_mat) -> arb:
    """The largest |entry|.

    Args:
        matrix: any matrix.
    """
    return max((abs(x) for x in matrix.entries()), key=float)


def alternating(total: int) -> list[int]:
    """Signs of prod_{i != k} (t_k - t_i) for ascending t, the last one positive.

    Args:
        total: how many.
    """
    return [1 if (total - 1 - k) % 2 == 0 else -1 for k in range(total)]


def _product(factors: Iterator[arb]) -> arb:
    value = arb(1)
    for factor in factors:
        value *= factor
    return value.mid()


def _diagonal(entries: list[arb]) -> arb_mat:
    size = len(entries)
    matrix = arb_mat(size, size)
    for i, x in enumerate(entries):
        matrix[i, i] = x.mid()
    return matrix


def _mids(matrix: arb_mat) -> arb_mat:
    return arb_mat(matrix.nrows(), matrix.ncols(), [x.mid() for x in matrix.entries()])


def _as_floats(matrix: arb_mat) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in matrix.tolist()])


def _unit(v: arb_mat) -> arb_mat:
    entries = [x.mid() for x in v.entries()]
    largest = max(abs(x) for x in entries)
    return arb_mat(len(entries), 1, [(x / largest).mid() for x in entries])
