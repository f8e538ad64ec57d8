"""Where a target turns or bends: seen by samples, and by balls where samples may miss it."""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakKeyDictionary

import numpy as np
from flint import arb, arb_series

from approx.granularity import grain
from approx.target import Target

_MOST, _LOOK = 1 << 17, 257
_CELLS, _MOST_CELLS = 64, 40  # of an interval in balls, at first; of those that are halved at once
_NARROWEST = 1e-10  # of an interval, a cell
_ENDLESS, _FEW = 2000, 3  # turns in a cell that tell nothing more; such cells that end the look
_SHARPER = 8.0  # times what samples show: a curvature that may hold more than they do
_STAYING = (
    0.55  # of the bends between samples at twice the distance, where a quarter is left of what was resolved
)
_UNSEEN = 1e-12  # of the target, what is left to its rounding
_INSIDE = np.linspace(0, 1, 17)


_SEEN: WeakKeyDictionary[Target, np.ndarray] = WeakKeyDictionary()


def landmarks(target: Target) -> np.ndarray:
    """Where a target or its weight turns or bends, as far as float64 shows it.

    The look gets finer until it shows nothing new, so that a target that oscillates is seen to. Where the target has
    an enclosure, ball arithmetic tells where it leaves what was seen: there the look begins anew.

    Args:
        target: the target.

    Returns:
        Points inside the domain, ascending; none of its ends and breaks.
    """
    if target not in _SEEN:
        functions = [target, target.weight] if isinstance(target.weight, Target) else [target]
        parts = target.domain.split(target.breaks)
        _SEEN[target] = np.concatenate(
            [np.unique(np.concatenate([_landmarks(f, a, b) for f in functions])) for a, b in parts]
        )
    return _SEEN[target]


def _landmarks(target: Target, a: float, b: float) -> np.ndarray:
    places, step = _turns(target, a, b)
    for low, high, cell in _hidden(target, a, b, step) if target.enclosed else []:
        new = _turns(target, low, high, int(_LOOK * (high - low) / cell))[0]
        places = np.r_[places[(places < low) | (places > high)], new]
    return places


def _turns(target: Target, a: float, b: float, size: int = _LOOK) -> tuple[np.ndarray, float]:
    """Turns and bends between two points, and the step of the look that shows them, with `size` points at first."""
    seen = -1
    while True:
        x = a + (b - a) * ((np.arange(size) + 0.5) / size)
        f = _values(target, x)
        with np.errstate(all="ignore"):  # a place is rounded as well, to a part of a step
            rounded = 4 * size * np.spacing(max(abs(a), abs(b))) / (b - a)
            noise = 1e-12 * float(np.max(np.abs(f), initial=0.0))
            noise = max(noise, 6 * grain(target), rounded * float(np.max(np.abs(np.diff(f)), initial=0.0)))
        turns = [x[k // 2 + 1 : len(x)][_changes(np.diff(f, k), noise)] for k in (1, 2)]
        places = np.unique(np.concatenate(turns))
        # resolved: some points between neighbours, and no more of them than in the last look
        apart = np.min(np.diff(places), initial=np.inf) > 3 * (b - a) / size
        if (len(places) == seen and 12 * seen < size and apart) or size > _MOST:
            return places, (b - a) / size
        size, seen = 2 * size + 1, len(places)


def _values(target: Target, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(target(x), dtype=float), x.shape)


def _hidden(target: Target, a: float, b: float, step: float) -> list[tuple[float, float, float]]:
    """Cells where a target does what samples a step apart do not show, by halving those that may hold more.

    Ascending and apart, (low, high, width of the finest cell in it).
    """
    edges = np.linspace(a, b, _CELLS + 1)
    left, right, found = edges[:-1], edges[1:], list[tuple[float, float, float]]()
    low, high, around, endless = np.inf, -np.inf, np.zeros(_CELLS), 0
    # in cells of some floats samples are not where they should be
    narrowest = max(_NARROWEST * (b - a), 256 * float(np.spacing(max(abs(a), abs(b)))))
    while len(left) and right[0] - left[0] > narrowest:
        # rounding takes none beyond the end, where a jump may be
        f = _values(target, np.minimum(left[:, None] + (right - left)[:, None] * _INSIDE, right[:, None]))
        good = f[np.isfinite(f)]
        low, high = min(low, np.min(good, initial=np.inf)), max(high, np.max(good, initial=-np.inf))
        bottom, top = np.min(f, axis=1), np.max(f, axis=1)
        curvature = np.array(
            [_curvature(target, u, v) for u, v in zip(left.tolist(), right.tolist(), strict=True)]
        )
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.max(np.abs(np.diff(f, axis=1)), axis=1)
            ordered = np.sort(np.abs(np.diff(f, 2, axis=1)), axis=1)
            bends, others = ordered[:, -1], ordered[:, -4]  # of a sample that meets a peak three bends tell
            alone = bends > _SHARPER * others
            sudden = alone | ((around > 0) & (bends > _STAYING * around))
            sudden &= bends > _UNSEEN * np.maximum(np.abs(top), np.abs(bottom))  # and no rounding
            around = np.fmax(around / 4, np.where(alone, others, bends))
            curved = curvature * ((right - left) / (len(_INSIDE) - 1)) ** 2 - _SHARPER * around
            rounding = _UNSEEN * max(abs(low), abs(high))
            more = curved - rounding
            for k in np.flatnonzero(~(more <= 0)):  # a range takes longer than a curvature
                least, most = _range(target, float(left[k]), float(right[k]))
                more[k] = np.fmin(max(most - top[k], bottom[k] - least) - rounding, more[k])
            # what some of the finer samples show is still too narrow for them
            shown = (top - bottom > 0.05 * (high - low)) & (steps > 0.25 * (top - bottom)) | sudden
            shown &= right - left < step * (len(_INSIDE) - 1)
            shown &= top - bottom > _UNSEEN * np.maximum(np.abs(top), np.abs(bottom))  # and no rounding
            seen = shown.copy()
        # a single sample may meet what a finer look misses again: then halve on
        for k in np.flatnonzero(shown):
            start, end = max(a, 2 * left[k] - right[k]), min(b, 2 * right[k] - left[k])
            turns = len(_turns(target, start, end, 3 * _LOOK)[0])
            shown[k], endless = turns > 0, endless + (turns > _ENDLESS)
            found += [(start, end, right[k] - left[k])] if 0 < turns <= _ENDLESS else []
            if endless == _FEW:
                return _joined(sorted(found))
        more = np.where(shown, 0.0, np.where(seen, np.inf, np.nan_to_num(more, nan=np.inf)))
        split = np.argsort(-more)[: min(_MOST_CELLS, int(np.sum(more > 0)))]
        middle = (left[split] + right[split]) / 2
        left, right, around = (
            np.r_[left[split], middle],
            np.r_[middle, right[split]],
            np.tile(around[split], 2),
        )
    return _joined(sorted(found))


def _curvature(target: Target, a: float, b: float) -> float:
    """A bound of a target's curvature between two points; nan where there is none."""
    # an enclosure that knows no series, or a quotient by 0
    with suppress(AttributeError, TypeError, NotImplementedError, ValueError, ZeroDivisionError):
        series = target(arb_series([_between(a, b), 1], 3))
        return 2 * float(abs(series[2]).upper()) if isinstance(series, arb_series) else 0.0
    return np.nan


def _range(target: Target, a: float, b: float) -> tuple[float, float]:
    """A lower and an upper bound of a target between two points."""
    value = target(_between(a, b))
    return float(value.lower()), float(value.upper())


def _between(a: float, b: float) -> arb:
    return arb((a + b) / 2, (b - a) / 2)


def _joined(cells: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """The union of ascending cells, as cells that are apart."""
    found: list[tuple[float, float, float]] = []
    for low, high, width in cells:
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]), min(width, found[-1][2]))
        else:
            found.append((low, high, width))
    return found


def _changes(values: np.ndarray, noise: float) -> np.ndarray:
    """Indices before which the sign changes, values within the noise left out."""
    certain = np.flatnonzero(np.abs(values) > noise)
    return certain[1:][np.diff(np.sign(values[certain])) != 0]
