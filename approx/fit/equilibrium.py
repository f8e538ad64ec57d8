"""Points that are spread over a union of intervals as the peaks of its Chebyshev polynomials are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NODES = 512  # of Gauss's rule across a gap
_SHORT = 1024  # cells of an interval, at least


def equilibrium(domain: Sequence[tuple[float, float]], count: int) -> np.ndarray:
    """Points with equal shares of the equilibrium measure of a union of intervals between them; Chebyshev's for one.

    Polynomials on a union grow in its gaps, by a factor for each degree, if their points are spread in another way.

    Args:
        domain: the intervals, ascending.
        count: how many points.

    Returns:
        The points, ascending, both ends of the hull among them, shape (count,).

    Source:
        H. Widom, Adv. Math. 3 (1969), section 14: the measure has the density |q|/sqrt|h|, h the product of x minus
        each end, q of one degree less than there are intervals, with the integral 0 of q/sqrt|h| across each gap.
    """
    a, b = np.array(domain, dtype=float).T
    count_of, centre, half = len(a), (a[0] + b[-1]) / 2, (b[-1] - a[0]) / 2
    ends = np.ravel([a, b], order="F")

    def weights(x: np.ndarray, k: int) -> np.ndarray:
        """1/sqrt of the distances to all ends but the k-th and the one after it."""
        others = np.delete(ends, [k, k + 1])
        return np.exp(-np.sum(np.log(np.abs(x[:, None] - others) / half), axis=1) / 2)

    def across(k: int, angle: np.ndarray) -> np.ndarray:
        """Points between the k-th end and the one after it."""
        return (ends[k] + ends[k + 1]) / 2 - (ends[k + 1] - ends[k]) / 2 * np.cos(angle)

    def powers(x: np.ndarray) -> np.ndarray:
        return np.vander((x - centre) / half, count_of)

    gauss, cells = (np.arange(_NODES) + 0.5) * np.pi / _NODES, max(4 * count, _SHORT)
    gaps = [across(k, gauss) for k in range(1, 2 * count_of - 1, 2)]
    means = np.array([weights(x, 2 * k + 1) @ powers(x) for k, x in enumerate(gaps)]).reshape(-1, count_of)
    q = np.r_[1.0, np.linalg.solve(means[:, 1:], -means[:, 0])]
    middles = [across(k, (np.arange(cells) + 0.5) * np.pi / cells) for k in range(0, 2 * count_of, 2)]
    masses = np.array([weights(x, 2 * k) * np.abs(powers(x) @ q) for k, x in enumerate(middles)])
    sums = np.r_[0.0, np.cumsum(masses.ravel())]
    place = np.interp(np.arange(count) * (sums[-1] / max(count - 1, 1)), sums, np.arange(len(sums)) / cells)
    interval = np.minimum(place.astype(int), count_of - 1)
    angle = np.pi * (place - interval)
    x = (a[interval] + b[interval]) / 2 - (b[interval] - a[interval]) / 2 * np.cos(angle)
    x = np.clip(x, a[interval], b[interval])
    x[-1], x[0] = ends[-1], ends[0]
    return x
