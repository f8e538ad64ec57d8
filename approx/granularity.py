"""How finely a callable is known: by its rounding, its steps, or its noise."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from approx.target import Target

# of an interval: even, and of no period
_PLACES = 0.02 + 0.96 * ((np.arange(1, 22) * 0.6180339887498949) % 1)
_BESIDE = np.arange(-8, 9)  # points about a place
_SCALES = 10.0 ** np.arange(-9, -2.9, 0.5)  # of an interval, between them
_NOISE = 1e-6  # of an interval: a function that gets no smoother below is noise
_STEPS, _SEEN, _HIGH = 64, 8, 0.1  # of a staircase: how many it has, are seen, and of its height, the highest

_TALL = 0.25  # of the largest change, one that counts

_KNOWN: WeakKeyDictionary[Target, float] = WeakKeyDictionary()


def grain(target: Target) -> float:
    """How far the values of a callable are from a smooth function's, in their unit; 0 for a target with an enclosure.

    It is the largest of its change from one float64 to the next, its noise, and half a step of a staircase, such as
    float16 returns. Second differences of a smooth function fall with the square of their step, those of noise do not;
    a staircase hardly moves but for changes that stand alone.

    Args:
        target: the function.
    """
    if target not in _KNOWN:
        _KNOWN[target] = 0.0 if target.enclosed else max(_grain(target, a, b) for a, b in target.domain)
    return _KNOWN[target]


def _grain(target: Target, a: float, b: float) -> float:
    x = a + (b - a) * (_PLACES[:, None, None] + _SCALES[:, None] * _BESIDE)
    x[..., 0] = np.nextafter(x[..., len(_BESIDE) // 2], b)
    with np.errstate(all="ignore"):
        f = np.broadcast_to(np.asarray(target(x), dtype=float), x.shape)
        rounding = np.median(np.abs(f[:, 0, 0] - f[:, 0, len(_BESIDE) // 2]))
        f = f[..., 1:]
        first, second = np.diff(f), np.abs(np.diff(f, 2))
        rough = np.quantile(second, 0.9, axis=(0, 2)) / 2
        noise = np.max(rough[:-1][(rough[:-1] > 0.5 * rough[1:]) & (_SCALES[:-1] <= _NOISE)], initial=0.0)
        # the steps of a short float are finer where the function is near 0
        changes = np.abs(first) > _TALL * np.max(np.abs(first), axis=(0, 2))[:, None]
        beside = np.pad(changes, ((0, 0), (0, 0), (1, 1)))
        alone = changes & ~beside[..., 2:] & ~beside[..., :-2]
        seen, count = changes.sum(axis=(0, 2)), alone.sum(axis=(0, 2))
        stairs = (count > 0.7 * seen) & (seen >= _SEEN) & (seen > _STEPS * _SCALES * first[:, 0].size)
        step = np.max(np.where(alone & stairs[:, None], np.abs(first), 0.0))
        step = step if step < _HIGH * (np.max(f) - np.min(f)) else 0.0
    known = np.array([rounding, noise, step / 2])
    return float(np.max(known[np.isfinite(known)], initial=0.0))


def last_place(target: Target) -> float:
    """A unit in the last place of the largest value of a weighted target.

    Args:
        target: the target.
    """
    x = np.concatenate([np.linspace(a, b, 201) for a, b in target.domain])
    return float(np.finfo(float).eps * np.max(np.abs(target.weight_at(x) * target(x))))
