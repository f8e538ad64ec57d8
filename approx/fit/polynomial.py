"""The polynomial exchange in float64: barycentric interpolation, Chebyshev coefficients, any degree to 2500.

The level on m + 2 points is explicit, and p is interpolated through the levelled values (Pachon and Trefethen,
BIT 49, 2009): no system is solved, and the exchange converges from any start (Remez 1934). Where it creeps, as for
targets with many more turns than degrees, linear programs on grids that gather the peaks take its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from flint import fmpq
from numpy.polynomial import chebyshev
from scipy.fft import dct

from approx.dyadic import dyadic
from approx.fit.double_double import Pair, in_unit
from approx.fit.equilibrium import equilibrium
from approx.fit.exchange import thinned
from approx.fit.interior import ChebyshevGrid, Grid, Listed, best_on_grid, level_proven
from approx.fit.orthogonal import Orthonormal
from approx.fit.remainder import Remainder
from approx.fit.series import Series
from approx.landmarks import landmarks
from approx.target import Target

_SHARES = np.array([0.02, 0.1, 0.22, 0.36, 0.5, 0.64, 0.78, 0.9, 0.98])
_CLOSE = 0.02 * 0.25 ** np.arange(1, 8)
_CELLS = 1 << 17  # entries of the largest matrix held at once, which a cache holds
_CREEPS = 1e-9  # of the error, the distance to the level that other ways are tried for
LARGEST = 700  # degree; above, coefficients in arbitrary precision take minutes
_SETTLED, _SPOILED = (
    1e-6,
    1e-3,
)  # of the error, what is between levelled values and a polynomial that is not theirs
_BESIDE = 0.02  # of the distance of points of a grid, what is between points that take each other's place
_LONG = 64  # points, from which on a polynomial through them is evaluated by its Chebyshev series


@dataclass(frozen=True)
class Polynomial:
    """A polynomial near the best one."""

    coefficients: np.ndarray
    """Chebyshev coefficients in t = (x - centre)/half over the hull, shape (m + 1,)."""
    reference: np.ndarray
    """Points where the error alternates, ascending, shape (m + 2,)."""
    level: float
    """The highest level met, a lower bound on the best error up to rounding."""
    top: float
    """The largest error found."""
    history: list[float]
    """The level after each step."""
    proven: float = 0.0
    """A lower bound on the best error by multipliers at more points than a reference has, rounding included, or 0."""
    settled: bool = False
    """Whether the reference is all but the best one: only float64's coefficients of its polynomial fall short."""
    exact: list[fmpq] | None = None
    """The Chebyshev coefficients, where float64 does not hold them; `coefficients` are then of another basis."""

    @property
    def rest(self) -> float:
        """How far the error is from the best one at most."""
        return self.top - max(self.level, self.proven)

    def joined(self, other: Polynomial) -> Polynomial:
        """The one with the least error, and the highest level of both.

        Args:
            other: a later one for the same problem.
        """
        near, high = min(self, other, key=lambda p: p.top), max(self, other, key=lambda p: p.level)
        history = [*self.history, *other.history]
        proven = max(self.proven, other.proven)
        return Polynomial(near.coefficients, high.reference, high.level, near.top, history, proven)


def polynomial(
    target: Target,
    m: int,
    remainder: Remainder | None = None,
    reference: np.ndarray | None = None,
    iterations: int = 100,
) -> Polynomial:
    """The best polynomial as far as float64 tells.

    Args:
        target: the function to approximate.
        m: the degree.
        remainder: what remains of it, in whose place the best polynomial for this is found, in its units.
        reference: points to begin with, shape (m + 2,).
        iterations: the largest number of steps.

    Returns:
        The polynomial with its reference.
    """
    low, high = target.hull
    parts = target.domain.split(target.breaks)
    marks = np.r_[landmarks(target), [x for x in target.breaks if low < x < high]]

    def value(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            f, w = (target if remainder is None else remainder.values)(x), target.weight_at(x)
        return np.broadcast_to(np.asarray(f, float), x.shape), np.broadcast_to(np.asarray(w, float), x.shape)

    look = _Look((low, high), parts, marks, value, len(target.domain) > 1)
    # symmetric points can have level 0, and evenly spread ones miss a target that oscillates
    starts = [
        lambda: equilibrium(target.domain, m + 3)[:-1],
        lambda: _least_squares(target, m, marks, value),
        lambda: _alternating(*look.peaks(equilibrium(target.domain, m + 2), np.zeros_like), m + 2),
    ]
    reference, still = equilibrium(target.domain, m + 2) if reference is None else reference, 0
    history: list[float] = []
    best: tuple[float, float, np.ndarray] | None = None
    noise, gap, rising = 0.0, np.inf, 0.0

    for _ in range(iterations):
        # two points on either side of a jump, say
        if best is not None and not np.all(np.diff(look.t(reference)[0]) > 0):
            break
        levelled = look.levelled(reference)
        level = abs(levelled.level)
        history.append(level)

        # at the points themselves the error is what was asked for
        places, error = look.peaks(reference, look.interpolant(levelled), levelled.signs * levelled.level)
        if not len(places):  # no error at all
            best = (0.0, 0.0, reference)
            break
        top = float(np.max(np.abs(error)))
        still += 1
        gap, before = top - level, gap
        if best is None or gap < best[0] - best[1]:
            best, still = (top, level, reference), 0
        elif level >= 1.0005 * max(history[:-1]):
            still = 0  # the level rises to the best error, however large p is between the points
        noise = 1e-15 * levelled.size
        if gap <= max(1e-14 * top, noise) or before / 4 < gap <= 1e-10 * top or top <= noise:
            break
        new = _alternating(places, error, m + 2)
        # a level that falls is rounding: p is larger between the points than float64 has digits
        if new is None or np.array_equal(new, reference) or still == 8 or level < 0.99 * rising:
            new, still, rising = None, 0, 0.0
            while new is None and starts and gap >= 1e-3 * top:
                new = starts.pop(0 if level < 1e-9 * top else -1)()
            if new is None:
                break
        else:
            rising = level
        reference = new
    assert best is not None
    found = _expanded(look, best[2], m, history, noise)
    if found.rest <= max(_CREEPS * found.top, 100 * noise):
        return found
    if len(target.domain) > 1 and (found.rest > _SPOILED * found.top or np.isinf(found.top)):
        return _on_union(target, m, look, best[0], best[2], history, noise)
    if m <= LARGEST and best[0] - best[1] <= _SETTLED * best[0] and found.rest > _SPOILED * found.top:
        return replace(found, reference=best[2], level=best[1], settled=True)
    other = _on_grids(target, m, look, noise)
    if other is not None:
        found = found.joined(other)
        if found.rest > max(_CREEPS * found.top, 100 * noise):
            found = found.joined(_expanded(look, found.reference, m, [], noise))
    return found


@dataclass(frozen=True)
class _Levelled:
    """The polynomial of degree len(x) - 2 whose weighted errors on a reference are level and -level by turns."""

    x: np.ndarray
    barycentric: np.ndarray
    w: np.ndarray
    signs: np.ndarray
    level: float
    values: np.ndarray
    size: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """Its values at other points."""
        return _interpolate(self.x, self.values, self.barycentric, x)


@dataclass(frozen=True)
class _Look:
    """What is approximated, and where peaks of an error are looked for."""

    hull: tuple[float, float]
    parts: list[tuple[float, float]]
    marks: np.ndarray
    value: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    gaps: bool = False

    def t(self, x: np.ndarray) -> Pair:
        """x in the variable of the Chebyshev series."""
        return in_unit(x, self.hull)

    def series(self, c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The polynomial with Chebyshev coefficients c, as a function of x."""
        values = Series(c)
        return lambda x: values(*self.t(x))

    def levelled(self, x: np.ndarray) -> _Levelled:
        """The levelled polynomial on a reference."""
        barycentric, signs = _weights(x), np.where(np.arange(len(x)) % 2, -1.0, 1.0)
        f, w = self.value(x)
        level = float(np.sum(barycentric * f) / np.sum(barycentric * signs / w))
        return _Levelled(x, barycentric, w, signs, level, f - signs * level / w, float(np.max(np.abs(w * f))))

    def coefficients(self, levelled: _Levelled) -> np.ndarray:
        """Chebyshev coefficients of a levelled polynomial, sharp to float64, shape (m + 1,).

        Barycentric interpolation magnifies the rounding of the values by Lebesgue's constant of the points. What that
        leaves of the values is taken off by interpolating it in turn.
        """
        x, m = levelled.x, len(levelled.x) - 2
        # m + 1 points have a polynomial: without the one where the rounding of the others weighs least
        kept = np.arange(m + 2) != np.argmax(np.abs(levelled.barycentric) / levelled.w)
        reduced = (levelled.barycentric * (x - x[~kept]))[kept]
        low, high = self.hull
        nodes = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * np.arange(m + 1) / max(m, 1))
        c, before = np.zeros(m + 1), np.inf
        for _ in range(3):
            rest = (levelled.values - Series(c)(*self.t(x)))[kept]
            if not (off := float(np.max(np.abs(rest)))) < before:
                break  # so large between the points that its series loses the values
            before = off
            more = _interpolate(x[kept], rest, reduced, nodes)
            if m > 0:
                more = np.asarray(dct(more, type=1)) / m  # pyright: ignore
                more[[0, -1]] /= 2
            c = c + more
        return c

    def interpolant(self, levelled: _Levelled) -> Callable[[np.ndarray], np.ndarray]:
        """A levelled polynomial as a function of x."""
        if len(levelled.x) > _LONG and not self.gaps:
            p = self.series(self.coefficients(levelled))
            off = np.max(levelled.w * np.abs(p(levelled.x) - levelled.values))
            # in a gap, or between points that are far apart, it may be so large that its series loses the rest
            if off <= 1e-3 * abs(levelled.level) + 1e-12 * levelled.size:
                return p
        return levelled.at

    def peaks(
        self, x: np.ndarray, p: Callable[[np.ndarray], np.ndarray], known: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Peaks of the error of p, and the error there.

        Args:
            x: points between which to look.
            p: a polynomial.
            known: its error at these points, where that is known better.
        """

        def error(x: np.ndarray) -> np.ndarray:
            f, w = self.value(x)
            return w * (f - p(x))

        all = _between(x, self.marks, self.parts)
        e = error(all)
        if known is not None:
            e[np.searchsorted(all, x)] = known
        k = _peaks(all, e, self.parts)
        top, height = all[k], e[k]
        ends = [end for part in self.parts for end in part]
        inner = (k > 0) & (k < len(all) - 1) & ~np.isin(top, ends)
        k, low, high = k[inner], all[k[inner] - 1], all[k[inner] + 1]
        heights = e[k - 1], e[k + 1]
        # a parabola through neighbours at unequal distances is off by its cubic term: a second one, through closer ones
        for share in (0.25, None):
            at, before = top[inner], height[inner]
            with np.errstate(invalid="ignore"):  # both may be infinite
                rise, fall = heights[0] - before, heights[1] - before
            new = _vertex(low - at, high - at, rise, fall) + at
            found = error(new)
            higher = found * np.sign(before) >= np.abs(before)
            top[inner], height[inner] = np.where(higher, new, at), np.where(higher, found, before)
            if share is not None:
                at = top[inner]
                near = share * np.minimum(at - low, high - at)
                low, high = at - near, at + near
                heights = error(low), error(high)
        return top, height


def _on_union(
    target: Target,
    m: int,
    look: _Look,
    top: float,
    reference: np.ndarray,
    history: list[float],
    noise: float,
) -> Polynomial:
    """The best polynomial where float64 holds no Chebyshev coefficients of it, which is so large in the gaps.

    Args:
        target: the function to approximate.
        m: the degree.
        look: what is known of it.
        top: the error that the exchange reached.
        reference: its reference.
        history: its levels.
        noise: the error that float64 does not see.
    """
    # float64 sees nothing of the error: points of the right density are all but the best
    if top <= 1e3 * noise and m <= LARGEST:
        return Polynomial(np.zeros(m + 1), equilibrium(target.domain, m + 2), 0.0, top, history, settled=True)
    basis = Orthonormal.on(target.domain, m)
    found = _expanded(look, reference, m, history, noise, basis)
    if found.rest > max(_CREEPS * found.top, 100 * noise) and m <= LARGEST:
        other = _on_grids(target, m, look, noise, basis=basis)
        if other is not None:
            found = found.joined(other)
            found = found.joined(_expanded(look, found.reference, m, [], noise, basis))
    unit = dyadic(max(found.top, noise)) * fmpq(1, 2) ** (40 + (m + 1).bit_length())
    settled = found.rest <= max(_SETTLED * found.top, 100 * noise)
    return replace(found, exact=basis.series(found.coefficients, unit), settled=settled)


def _expanded(
    look: _Look,
    reference: np.ndarray,
    m: int,
    history: list[float],
    noise: float,
    basis: Orthonormal | None = None,
) -> Polynomial:
    """The levelled polynomial on a reference, or on one after it, in a basis (Chebyshev's, if none is given)."""
    best: Polynomial | None = None
    while True:
        levelled = look.levelled(reference)
        if basis is None:
            with np.errstate(all="ignore"):
                c = look.coefficients(levelled)
            if not np.all(np.isfinite(c)):  # so large beside the points
                return best or Polynomial(np.zeros(m + 1), reference, abs(levelled.level), np.inf, history)
            p = look.series(c)
        else:
            c = basis.through(levelled.x, levelled.values)
            p = partial(basis.values, c)
        places, error = look.peaks(reference, p)
        top = float(np.max(np.abs(error), initial=0.0))
        found = Polynomial(c, reference, min(abs(levelled.level), top), top, history)
        if best is not None and not found.top - found.level < best.top - best.level:
            return best
        best, following = found, _alternating(places, error, m + 2)
        if following is None or top - found.level <= max(_CREEPS / 2 * top, 30 * noise):
            return best
        reference = following


def _alternating(x: np.ndarray, error: np.ndarray, count: int) -> np.ndarray | None:
    """The next reference: the highest peaks that alternate; None where there are fewer."""
    thin = thinned(_runs(x, error), count) if len(x) else None
    return None if thin is None else np.array([s for s, _ in thin])


def _on_grids(
    target: Target, m: int, look: _Look, noise: float, rounds: int = 12, basis: Orthonormal | None = None
) -> Polynomial | None:
    """The best polynomial on grids that take in the peaks of its error, until it has no higher ones."""
    ends = np.array([e for part in look.parts for e in part])
    base = x = np.unique(np.r_[equilibrium(target.domain, 4 * (m + 2)), look.marks, ends])
    size = float(np.max(np.abs(np.prod(look.value(x), axis=0))))
    best: Polynomial | None = None
    new, added, enough, idle = x[:0], x[:0], 1e-3, 0
    for _ in range(rounds):
        if len(new):
            nearest = new[np.clip(np.searchsorted(new, added), 1, len(new) - 1) - np.array([[1], [0]])]
            place = np.clip(np.searchsorted(base, added), 1, len(base) - 1)
            apart = np.min(np.abs(nearest - added), axis=0) > _BESIDE * (base[place] - base[place - 1])
            added = np.r_[added[apart], new]
        x = np.unique(np.r_[base, added])
        x = x[np.r_[True, np.diff(look.t(x)[0]) > 0]]
        f, w = look.value(x)
        if not (size > 0 and np.all(np.isfinite(f)) and np.all(np.isfinite(w)) and len(x) > m + 2):
            break
        sharp: Grid
        if basis is None:
            grid = sharp = ChebyshevGrid(look.t(x), w, m)
        else:
            rows = basis.rows(x)
            grid, sharp = Listed(rows.astype(float), w), Listed(rows, w, basis.rounding)
        solved = best_on_grid(grid, f / size, enough)
        c = solved.c * size
        p = look.series(c) if basis is None else partial(basis.values, c)
        on_grid = float(np.max(np.abs(w * (f - p(x)))))
        if on_grid <= 1e5 * noise:  # float64 solves no program whose answer it hardly sees
            break
        places, error = look.peaks(x, p)
        top = float(np.max(np.abs(error)))
        # a program is solved no better than its grid is worth: early ends of the path lie well inside
        missed = top / on_grid - 1
        before, enough = enough, max(1e-3 * enough, 1e-11) if missed <= enough else enough
        reference = _alternating(places, error, m + 2)
        level = 0.0 if reference is None else level_below(reference, *look.value(reference))
        found = Polynomial(c, x[: m + 2] if reference is None else reference, level, top, [level])
        last, best = best, found if best is None else best.joined(found)
        wanted = solved.gap < 10 * _CREEPS and best.rest > _CREEPS / 2 * best.top
        if wanted and (basis is not None or not look.gaps):
            proven = level_proven(solved.y, sharp, f / size, best.coefficients / size, best.top / size) * size
            best = replace(best, proven=max(best.proven, proven))
        idle = 0 if last is None or best.rest < 0.9 * last.rest or enough < before else idle + 1
        if idle == 3 or best.rest <= max(_CREEPS / 2 * best.top, 30 * noise):
            break
        new = np.array([s for s, e in _runs(places, error) if abs(e) > 0.6 * on_grid])
    return best


def level_below(x: np.ndarray, f: np.ndarray, w: np.ndarray) -> float:
    """A lower bound on max w |f - p| over points for every p of degree len(x) - 2, rounding of this sum included.

    sum_k v_k p(x_k) = 0 for v_k = 1/prod (x_k - x_i): so |sum v f| <= E sum |v|/w. Computed v_k are off by shares of
    `lost`, which weigh p there, |p| <= |f| + E/w.

    Args:
        x: distinct points, ascending.
        f: values there.
        w: weights, positive.
    """
    if not np.all(np.diff(x) > 0):
        return 0.0
    v = _weights(x)
    lost = 1e-15 * len(x)  # a difference, a product and a sum for each point
    top, size = float(np.abs(np.sum(v * f))), float(np.sum(np.abs(v * f)))
    return float(max(top - lost * size, 0.0) / (np.sum(np.abs(v) / w) * (1 + lost)))


def _least_squares(
    target: Target, m: int, marks: np.ndarray, value: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray | None:
    """Where the error of the least-squares polynomial alternates highest; None where it does so too seldom."""
    if m > 400:
        return None
    low, high = target.hull
    x = np.unique(np.r_[equilibrium(target.domain, 8 * (m + 2) + 4 * len(marks)), marks])
    f, w = value(x)
    t = (2 * x - low - high) / (high - low)
    # Chebyshev's own weight, so that the ends count as they do for the largest error
    root = np.sqrt(w / np.maximum(np.sqrt(np.maximum(1 - t * t, 0)), 1 / len(x)))
    columns = chebyshev.chebvander(t, m)
    c = np.linalg.lstsq(columns * root[:, None], f * root, rcond=None)[0]
    return _alternating(x, w * (f - columns @ c), m + 2)


def _weights(x: np.ndarray) -> np.ndarray:
    """Barycentric weights of points, in units of the largest."""
    t = x / 2.0 ** np.ceil(np.log2(x[-1] - x[0]))  # differences of neighbours keep their digits
    size, fold = len(t), 4 if np.min(np.diff(t)) > 1e-75 else 1  # so many factors do not underflow
    columns, step = -(-size // fold), max(1, _CELLS // size)
    products, exponents = np.empty(size), np.empty(size, int)
    for i in range(0, size, step):
        rows = np.ones((min(step, size - i), fold * columns))
        np.subtract(t[i : i + step, None], t, out=rows[:, :size])
        rows[np.arange(len(rows)), np.arange(i, i + len(rows))] = 1.0
        # sums of logarithms would lose as many digits as they have before the point
        mantissas, powers = np.frexp(np.prod(rows.reshape(len(rows), fold, columns), axis=1))
        products[i : i + step], exponents[i : i + step] = np.prod(mantissas, axis=1), np.sum(powers, axis=1)
    mantissas, powers = np.frexp(1 / products)
    powers -= exponents
    weights = np.ldexp(mantissas, powers - powers.max())
    return weights / np.max(np.abs(weights))


def _interpolate(x: np.ndarray, values: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The polynomial through (x, values), x ascending, at other points, in blocks.

    The second barycentric formula loses digits far from the points, to a division by 0; the first does not (M. Webb,
    L. N. Trefethen, P. Gonnet, SIAM J. Sci. Comput. 34, 2012).
    """
    sums, both = np.empty((len(at), 2)), np.c_[values, np.ones(len(x))]
    step, largest = max(1, _CELLS // len(x)), int(np.argmax(np.abs(weights)))
    with np.errstate(all="ignore"):
        for i in range(0, len(at), step):
            sums[i : i + step] = (weights / (at[i : i + step, None] - x)) @ both
        term, others = weights[largest] / (at - x[largest]), np.delete(x, largest)
        far = np.flatnonzero(np.abs(sums[:, 1]) < 1e-4 * np.abs(term))
        for i in range(0, len(far), step):
            some = far[i : i + step]
            ratios = (x[largest] - others) / (at[some, None] - others)
            size = np.exp(np.maximum(np.sum(np.log(np.abs(ratios)), axis=1), -400.0))  # 1e-174
            sums[some, 1] = term[some] * np.prod(np.sign(ratios), axis=1) * size
        found = sums[:, 0] / sums[:, 1]
    nearest = np.minimum(np.searchsorted(x, at), len(x) - 1)
    hit = x[nearest] == at
    found[hit] = values[nearest[hit]]
    lost = np.isnan(found)  # beside a point by less than float64 divides by
    found[lost] = np.interp(at[lost], x, values)
    return found


def _between(reference: np.ndarray, marks: np.ndarray, parts: list[tuple[float, float]]) -> np.ndarray:
    """The reference, the ends, the landmarks, and points between all of them."""
    found: list[np.ndarray] = [reference]
    for a, b in parts:
        inside = np.r_[a, reference[(reference > a) & (reference < b)], marks[(marks > a) & (marks < b)], b]
        knots = np.unique(inside)
        found += [knots, (knots[:-1, None] + np.diff(knots)[:, None] * _SHARES).ravel()]
        # a peak beside an end, or beside a fold, has no neighbour on its other side
        found += [a + (knots[1] - a) * _CLOSE, b - (b - knots[-2]) * _CLOSE]
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


def _vertex(left: np.ndarray, right: np.ndarray, rise: np.ndarray, fall: np.ndarray) -> np.ndarray:
    """Where the parabola through (0, 0), (left, rise) and (right, fall) has its vertex, or the end nearer to it."""
    with np.errstate(all="ignore"):
        rise, fall = rise / left, fall / right
        step = (rise * right - fall * left) / (left - right) / (2 * (fall - rise) / (right - left))
    return np.where(np.isfinite(step), np.clip(step, left, right), 0.0)


def _runs(x: np.ndarray, error: np.ndarray) -> list[tuple[float, float]]:
    """The highest peak of each run of one sign."""
    order = np.argsort(x, kind="stable")
    x, error = x[order], error[order]
    groups = np.split(np.arange(len(x)), np.flatnonzero(np.diff(np.sign(error)) != 0) + 1)
    best = [int(g[np.argmax(np.abs(error[g]))]) for g in groups]
    return [(float(x[k]), float(error[k])) for k in best if error[k] != 0]
