"""The polynomial exchange in float64: barycentric interpolation, Chebyshev coefficients, any degree to 2500.

The level on m + 2 points is explicit, and p is interpolated through the levelled values (Pachon and Trefethen,
BIT 49, 2009): no system is solved, and the exchange converges from any start (Remez 1934).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from scipy.fft import dct

from approx.fit.double_double import chebyshev_residual
from approx.fit.exchange import thinned
from approx.fit.grid import landmarks
from approx.target import Target

_SHARES = np.array([0.02, 0.1, 0.22, 0.36, 0.5, 0.64, 0.78, 0.9, 0.98])
_CELLS = 1 << 21  # entries of the largest matrix held at once


@dataclass(frozen=True)
class Polynomial:
    """A polynomial near the best one."""

    coefficients: np.ndarray
    """Chebyshev coefficients in t = (x - centre)/half over the hull, shape (m + 1,)."""
    reference: np.ndarray
    """Points where the error alternates, ascending, shape (m + 2,)."""
    level: float
    """The level on these points."""
    top: float
    """The largest error found."""
    history: list[float]
    """The level after each step."""


def polynomial(target: Target, m: int, base: Polynomial | None = None, iterations: int = 60) -> Polynomial:
    """The best polynomial as far as float64 tells.

    Args:
        target: the function to approximate.
        m: the degree.
        base: a polynomial that is near: then the best one for what remains of an enclosed target is found, to be added.
        iterations: the largest number of steps.

    Returns:
        The polynomial with its reference.
    """
    low, high = target.hull
    centre, half = (low + high) / 2, (high - low) / 2
    parts = target.domain.split(target.breaks)
    marks = np.r_[landmarks(target), [x for x in target.breaks if low < x < high]]

    rest = None if base is None else chebyshev_residual(target, base.coefficients)

    def value(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            f, w = target(x) if rest is None else rest(x), target.weight_at(x)
        return np.broadcast_to(np.asarray(f, float), x.shape), np.broadcast_to(np.asarray(w, float), x.shape)

    # symmetric points can have level 0, and evenly spread ones miss a target that oscillates
    starts = [lambda: _spread(target, m + 3)[:-1], lambda: _least_squares(target, m, marks, value)]
    reference, still = _spread(target, m + 2) if base is None else base.reference, 0
    history: list[float] = []
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None

    for _ in range(iterations):
        t = (reference - centre) / half
        if best is not None and not np.all(np.diff(t) > 0):  # points on either side of a jump, say
            break
        weights = _weights(t)
        f, w = value(reference)
        signs = np.where(np.arange(m + 2) % 2, -1.0, 1.0)
        level = float(np.sum(weights * f) / np.sum(weights * signs / w))
        values = f - signs * level / w
        history.append(abs(level))
        x = _between(reference, marks, parts)
        fx, wx = value(x)
        error = wx * (fx - _interpolate(t, values, weights, (x - centre) / half))
        # at the points themselves the error is what was asked for
        at = np.searchsorted(x, reference)
        error[at] = signs * level
        peaks = _peaks(x, error, parts)
        if not len(peaks):  # no error at all
            best = (0.0, 0.0, reference, values)
            break
        refined = _refined(x, error, peaks, parts)
        fr, wr = value(refined)
        er = wr * (fr - _interpolate(t, values, weights, (refined - centre) / half))
        kept = np.abs(er) >= np.abs(error[peaks])
        refined, er = np.where(kept, refined, x[peaks]), np.where(kept, er, error[peaks])
        top = float(np.max(np.abs(er)))
        still += 1
        if best is None or top - abs(level) < best[0] - best[1]:
            best, still = (top, abs(level), reference, values), 0
        noise = 1e-15 * float(np.max(np.abs(wx * fx)))
        if top - abs(level) <= max(1e-14 * top, noise) or top <= noise:
            break
        runs = _runs(refined, er)
        thin = thinned(runs, m + 2)
        new = None if thin is None else np.array([s for s, _ in thin])
        if new is None or np.array_equal(new, reference) or still == 8:
            if not starts or top - abs(level) < 1e-3 * top:
                break
            new, still = starts.pop()(), 0
            if new is None:
                break
        reference = new
    assert best is not None
    top, level, reference, values = best
    t = (reference - centre) / half
    nodes = np.cos(np.pi * np.arange(m + 1) / max(m, 1))
    at = _interpolate(t, values, _weights(t), nodes)
    coefficients: np.ndarray = np.asarray(dct(at, type=1)) / m if m > 0 else at  # pyright: ignore
    if m > 0:
        coefficients[[0, -1]] /= 2
    return Polynomial(coefficients, reference, level, top, history)


def _spread(target: Target, count: int) -> np.ndarray:
    """Chebyshev points of the domain, its gaps left out."""
    places = (1 - np.cos(np.pi * np.arange(count) / max(count - 1, 1))) / 2 * target.domain.length
    starts = np.cumsum([0.0, *(b - a for a, b in target.domain)])
    interval = np.clip(np.searchsorted(starts, places, side="right") - 1, 0, len(target.domain) - 1)
    low, high = np.array(target.domain).T
    return np.minimum(low[interval] + places - starts[interval], high[interval])


def _least_squares(
    target: Target, m: int, marks: np.ndarray, value: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray | None:
    """Where the error of the least-squares polynomial alternates highest; None where it does so too seldom."""
    if m > 400:
        return None
    low, high = target.hull
    x = np.unique(np.r_[_spread(target, 8 * (m + 2) + 4 * len(marks)), marks])
    f, w = value(x)
    t = (2 * x - low - high) / (high - low)
    # Chebyshev's own weight, so that the ends count as they do for the largest error
    root = np.sqrt(w / np.maximum(np.sqrt(np.maximum(1 - t * t, 0)), 1 / len(x)))
    columns = chebyshev.chebvander(t, m)
    c = np.linalg.lstsq(columns * root[:, None], f * root, rcond=None)[0]
    thin = thinned(_runs(x, w * (f - columns @ c)), m + 2)
    return None if thin is None else np.array([s for s, _ in thin])


def _weights(t: np.ndarray) -> np.ndarray:
    """Barycentric weights, in units of the largest."""
    logs, signs = np.empty(len(t)), np.where((len(t) - 1 - np.arange(len(t))) % 2, -1.0, 1.0)
    step = max(1, _CELLS // len(t))
    for i in range(0, len(t), step):
        rows = np.abs(t[i : i + step, None] - t)
        rows[np.arange(len(rows)), np.arange(i, i + len(rows))] = 1.0
        logs[i : i + step] = -np.sum(np.log(rows), axis=1)
    return signs * np.exp(logs - logs.max())


def _interpolate(t: np.ndarray, values: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The polynomial through (t, values) at other points, in blocks."""
    found = np.empty(len(at))
    step = max(1, _CELLS // len(t))
    for i in range(0, len(at), step):
        gaps = at[i : i + step, None] - t
        hit = gaps == 0
        gaps[hit] = 1.0
        rows = weights / gaps
        with np.errstate(all="ignore"):
            found[i : i + step] = rows @ values / np.sum(rows, axis=1)
        where, which = np.nonzero(hit)
        found[i + where] = values[which]
    return found


def _between(reference: np.ndarray, marks: np.ndarray, parts: list[tuple[float, float]]) -> np.ndarray:
    """The reference, the ends, the landmarks, and points between all of them."""
    found: list[np.ndarray] = [reference]
    for a, b in parts:
        inside = np.r_[a, reference[(reference > a) & (reference < b)], marks[(marks > a) & (marks < b)], b]
        knots = np.unique(inside)
        found += [knots, (knots[:-1, None] + np.diff(knots)[:, None] * _SHARES).ravel()]
    return np.unique(np.concatenate(found))


def _peaks(x: np.ndarray, error: np.ndarray, parts: list[tuple[float, float]]) -> np.ndarray:
    """Indices of the local extrema of the error on each part."""
    found: list[np.ndarray] = []
    for a, b in parts:
        inside = np.flatnonzero((x >= a) & (x <= b))
        e = error[inside]
        up = np.r_[True, e[1:] >= e[:-1]] & np.r_[e[:-1] >= e[1:], True]
        down = np.r_[True, e[1:] <= e[:-1]] & np.r_[e[:-1] <= e[1:], True]
        found.append(inside[(up & (e > 0)) | (down & (e < 0))])
    return np.unique(np.concatenate(found))


def _refined(
    x: np.ndarray, error: np.ndarray, peaks: np.ndarray, parts: list[tuple[float, float]]
) -> np.ndarray:
    """The top of the parabola through each inner peak and its neighbours."""
    fixed = {end for part in parts for end in part}
    k = np.clip(peaks, 1, len(x) - 2)
    left, right = x[k - 1] - x[k], x[k + 1] - x[k]
    with np.errstate(all="ignore"):
        rise, fall = (error[k - 1] - error[k]) / left, (error[k + 1] - error[k]) / right
        step = (rise * right - fall * left) / (left - right) / (2 * (fall - rise) / (right - left))
    inner = (k == peaks) & np.isfinite(step) & (step > left) & (step < right)
    inner &= ~np.isin(x[peaks], list(fixed))
    return np.where(inner, x[k] + np.where(inner, step, 0.0), x[peaks])


def _runs(x: np.ndarray, error: np.ndarray) -> list[tuple[float, float]]:
    """The highest peak of each run of one sign."""
    order = np.argsort(x, kind="stable")
    x, error = x[order], error[order]
    groups = np.split(np.arange(len(x)), np.flatnonzero(np.diff(np.sign(error)) != 0) + 1)
    best = [int(g[np.argmax(np.abs(error[g]))]) for g in groups]
    return [(float(x[k]), float(error[k])) for k in best if error[k] != 0]
