"""A lower bound on the error of all p/q with some fixed coefficients, where nothing need alternate.

The p/q of a family are (p, q) = (p_0, q_0) + sum_j c_j (p_j, q_j), q > 0 on the hull of the domain. Let t_k be points
with signs s_k, lam a level, and y_k >= 0 multipliers, not all 0, with

    sum_k y_k (s_k w_k (f q_j - p_j) - lam q_j)(t_k) = 0  for all j.

Then sum_k y_k (s_k w_k (f q - p) - lam q)(t_k) is the same number C for all p/q of the family. If C > 0, none of them
has all its errors at the t_k below lam. The multipliers of as many points as equations are the solution of a linear
system in balls: that proves them. A point may take part with either sign: then two small multipliers of it, one of each
sign, leave their difference free, which a symmetric target needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, fmpq
from scipy.linalg import qr
from scipy.optimize import nnls

from approx.dyadic import precision
from approx.family import Family
from approx.proofs.bounds import Error, Point

_BELOW = (
    0.0,
    *(10.0**-k for k in range(10, 1, -1)),
    0.03,
    0.1,
    0.2,
    0.3,
    0.5,
    0.7,
)  # the error, levels to prove
_ABOVE = (0.0, *(10.0**-k for k in range(10, 1, -1)))  # the level, others that do as well
_BITS = 320
_LEAST = arb(2) ** -40  # of a multiplier that is certain
_PAIR = arb(2) ** -60  # of each of the two at a point with either sign


@dataclass(frozen=True)
class _Row:
    """s w (f q_j - p_j) and q_j at a point, first of the base, then of each free pair."""

    above: list[arb]
    below: list[arb]


def _rows(error: Error, family: Family, points: Sequence[tuple[int, fmpq]]) -> list[_Row]:
    pairs = [family.base, *family.free]
    found: list[_Row] = []
    for piece, x in points:
        f, w = error.given(piece, x, _BITS)
        sign = 1 if error.at(piece, x, _BITS) > 0 else -1
        found.append(
            _Row([sign * w * (f * arb(q(x)) - arb(p(x))) for p, q in pairs], [arb(q(x)) for _, q in pairs])
        )
    return found


def proves(error: Error, families: Sequence[Family], points: Sequence[tuple[int, fmpq]], level: fmpq) -> bool:
    """Whether points show that no function of the families has an error below a level.

    Args:
        error: the error of a function, whose signs at the points are those of the proof.
        families: all functions in question, with q > 0; without any, nothing is proven.
        points: (piece, x), one more than the family has free coefficients.
        level: the level.
    """
    if not families or not level > 0 or not all(error.on_piece(*point) for point in points):
        return False
    with precision(_BITS):
        for family in families:
            if len(points) != len(family.free) + 1:
                return False
            rows = _rows(error, family, points)
            if not any(_positive(rows, arb(level) * arb(1 + more)) for more in _ABOVE):
                return False
    return True


def _positive(rows: list[_Row], lam: arb) -> bool:
    """Whether the multipliers at a level are certain not to be negative, and C is positive."""
    sure = set(range(len(rows)))
    y = _multipliers(rows, lam, sure)
    if y is not None and not all(v > _LEAST for v in y):
        sure = {k for k in sure if y[k] > _LEAST}
        y = _multipliers(rows, lam, sure)
    if y is None:
        return False
    total = arb(0)
    for k, (v, row) in enumerate(zip(y, rows, strict=True)):
        if not (v > 0 if k in sure else abs(v) <= 2 * _PAIR):
            return False
        total += v * row.above[0] - (v if k in sure else 2 * _PAIR) * lam * row.below[0]
    return bool(total > 0)


def _multipliers(rows: list[_Row], lam: arb, sure: set[int]) -> list[arb] | None:
    """y at the points that are sure; at the others, which have two, their difference."""
    columns = [
        [a - lam * b for a, b in zip(row.above[1:], row.below[1:], strict=True)] + [arb(1)]
        if k in sure
        else [*row.above[1:], arb(0)]
        for k, row in enumerate(rows)
    ]
    pairs = [row for k, row in enumerate(rows) if k not in sure]
    right = [
        sum((2 * _PAIR * lam * row.below[j] for row in pairs), arb(0)) for j in range(1, len(rows[0].below))
    ]
    try:
        return arb_mat(columns).transpose().solve(arb_mat(len(rows), 1, [*right, arb(1)])).entries()
    except ZeroDivisionError:
        return None


def bound(
    error: Error, families: Sequence[Family], extrema: Sequence[Point]
) -> tuple[fmpq, tuple[tuple[int, fmpq], ...]]:
    """The highest level that points among the extrema of an error prove for families, and these points; 0 for none.

    Args:
        error: the error of a function of the families.
        families: all functions in question, with q > 0.
        extrema: its extrema.
    """
    heights = [abs(p.error).mid().fmpq() for p in extrema]
    for less in _BELOW:
        level = max(heights) * (1 - fmpq(*less.as_integer_ratio()))
        high = [p for p, height in zip(extrema, heights, strict=True) if height > level]
        points = _support(error, families[0], high, list(extrema), level) if level > 0 else None
        if points is not None and proves(error, families, points, level):
            return level, points
    return fmpq(0), ()


def _support(
    error: Error, family: Family, high: list[Point], all: list[Point], level: fmpq
) -> tuple[tuple[int, fmpq], ...] | None:
    """Points with multipliers at a level, by least squares in float64, and others that make the system a square one."""
    count = len(family.free) + 1
    with precision(_BITS):
        rows = _rows(error, family, [(p.piece, p.x) for p in all])
    above, below = (np.array([[float(v) for v in part(row)] for row in rows]) for part in _PARTS)
    matrix = (above - float(arb(level)) * below)[:, 1:].T
    units = np.max(np.abs(matrix), axis=1, initial=0.0) + 1e-300
    matrix, sides = matrix / units[:, None], above[:, 1:].T / units[:, None]
    at = [all.index(p) for p in high]
    if not at:
        return None
    y, rest = nnls(np.vstack([matrix[:, at], np.ones(len(at))]), np.r_[np.zeros(count - 1), 1.0])
    chosen = [at[k] for k in np.flatnonzero(y > 1e-9)]
    if rest > 1e-6 or not chosen or len(chosen) > count:
        return None
    if len(chosen) < count:
        taken = np.linalg.svd(np.vstack([matrix[:, chosen], np.ones(len(chosen))]), full_matrices=False)[0]
        others = [k for k in range(len(all)) if k not in chosen]
        columns = np.vstack([sides[:, others], np.zeros(len(others))])
        columns = columns - taken @ (taken.T @ columns)
        order = qr(columns, mode="r", pivoting=True)[-1]
        chosen += [others[int(k)] for k in order[: count - len(chosen)]]
    return tuple((all[k].piece, all[k].x) for k in sorted(chosen)) if len(chosen) == count else None


_PARTS = (lambda row: row.above, lambda row: row.below)
