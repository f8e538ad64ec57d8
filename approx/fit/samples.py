"""Best approximation of samples: linear programs on a few points, exchanged against all, then levelled exactly.

Few of the samples decide. Differential correction (`correction.py`) finds the best function on a subset; the samples
where it is worst join the subset, until none is worse. The exchange among the samples (`exchange.py`) then levels the
error on m + n + 2 of them, at high precision: so a lower bound belongs to the result, by de la Vallee-Poussin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from flint import arb, fmpq_poly
from numpy.polynomial import chebyshev

from approx.dyadic import dyadic, precision
from approx.fit.correction import Points, best_at
from approx.fit.exchange import Failure, Level, Problem, Start, thinned
from approx.fit.grid import Grid, sample
from approx.fit.result import Fit, Verdict
from approx.granularity import grain
from approx.rational import Rational
from approx.samples import Samples
from approx.target import Target

_BITS = 128
_FEW = 400  # points of the first subset
_MORE = 64  # points that join at a time
_ROUNDS = 30
_ROUNDED = 4 * np.finfo(float).eps  # of the values
_SPREAD = 1e-4  # of the values, below which they are looked at without their middle
_LONGEST = 24  # points that are interpolated exactly, where digits grow with each step
_ROUGH = 1e-10  # of a callable's size, where an exchange does not end at it as at float64's rounding
_FELT = 1e-2  # of an error, the roughness that spoils an exchange


@dataclass(frozen=True)
class _Candidate:
    rational: Rational
    error: float
    bound: float
    reference: np.ndarray


def best_of_samples(
    samples: Samples, type: tuple[int, int], tolerance: float, neighbours: bool = True
) -> Fit:
    """The best approximation at samples without a real pole between the first and the last of them.

    Args:
        samples: what to approximate.
        type: (m, n), the degrees of numerator and denominator.
        tolerance: relative excess of the error over the lower bound at which it counts as best.
        neighbours: where the linear programs end elsewhere, start from the best of smaller types, too.

    Returns:
        The fit; its error is the largest at the samples.

    Raises:
        RuntimeError: if no function was found.
    """
    m, n = type
    size = float(np.max(np.abs(samples.w * samples.y), initial=0.0))
    starts = _zero(samples, type), _interpolating(samples, type), _centred(samples, type, tolerance)
    found = [candidate for candidate in starts if candidate is not None]
    done = bool(found) and _is_best(found, 0.0, size, tolerance)
    pair = None if done else _corrected(samples, m, n, max(1e-6, tolerance))
    history: list[float] = []
    if pair is not None:
        low, high = samples.hull
        centre, half = (dyadic(low) + dyadic(high)) / 2, (dyadic(high) - dyadic(low)) / 2
        plain = Rational.from_chebyshev(*pair, samples.domain, centre, half)
        error = _error(samples, plain)
        reference = _reference(samples, error, m + n + 2)
        found.append(_judged(samples, plain, type, error, reference))
        if min(c.error for c in found) > _ROUNDED * size:
            for k in range(min(m, n) + 1):
                start = _reference(samples, error, m + n + 2 - 2 * k)
                levelled = None if start is None else _exchanged(samples, type, k, start, tolerance, history)
                if levelled is not None:
                    found.append(levelled)
                    if _reached(levelled.error, levelled.bound, size, tolerance):
                        break
    if not found:
        raise RuntimeError(
            f"minimax({samples!r}, {type}): the linear programs found no function without a pole"
        )
    apart = _apart(samples)
    if neighbours and not _is_best(found, apart, size, tolerance):
        for less in range(1, min(m, n, 2) + 1):
            smaller = best_of_samples(samples, (m - less, n - less), tolerance, False)
            found.append(_Candidate(smaller.rational, smaller.error, 0.0, smaller.reference))
            start = _stretched(samples, smaller.reference, m + n + 2) if smaller.converged else None
            levelled = None if start is None else _exchanged(samples, type, 0, start, tolerance, history)
            found += [] if levelled is None else [levelled]
            if _is_best(found, apart, size, tolerance):
                break
    best = min(found, key=lambda c: c.error)
    bound = min(max(apart, *(c.bound for c in found)), best.error)
    verdict, detail = Verdict.UNLEVELLED, ""
    # some units more where nothing says that no function is nearer
    if best.error <= (1 if bound > best.error / 2 else 8) * _ROUNDED * size:
        verdict, bound = Verdict.EXACT, 0.0
    elif _reached(best.error, bound, size, tolerance):
        levelled = len(best.reference) == m + n + 2 or bound <= apart
        verdict = Verdict.BEST if levelled else Verdict.DEGENERATE
    else:
        detail = f"the error is {best.error / bound - 1:.1e} (relative) above the bound" if bound else ""
    return Fit(
        best.rational, best.error, best.reference, verdict, history, "minimax", samples, type, bound, detail
    )


def _is_best(found: list[_Candidate], apart: float, size: float, tolerance: float) -> bool:
    """Whether the smallest error is the largest bound, or none at all."""
    error, bound = min(c.error for c in found), max(apart, *(c.bound for c in found))
    return error <= _ROUNDED * size or _reached(error, bound, size, tolerance)


def _reached(error: float, bound: float, size: float, tolerance: float) -> bool:
    """Whether an error is the bound, but for the tolerance and for what float64 rounds off y and the parameters."""
    return error <= bound * (1 + max(1e-9, tolerance)) + _ROUNDED * size


def _stretched(samples: Samples, reference: np.ndarray, count: int) -> np.ndarray | None:
    """As many indices, as densely placed as a reference of fewer; None where these are too near to each other."""
    if len(reference) < 2:
        return None
    at = np.searchsorted(samples.x, reference)
    places = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(at)), at).round().astype(int)
    return places if np.all(np.diff(samples.x[places]) > 0) else None


def _apart(samples: Samples) -> float:
    """What samples at one point cost every function, of which it can meet one: a lower bound of the error."""
    first = np.flatnonzero(np.r_[True, np.diff(samples.x) > 0])
    low, high = np.minimum.reduceat(samples.y, first), np.maximum.reduceat(samples.y, first)
    largest = 0.0
    for k in np.flatnonzero(high > low):
        here = slice(first[k], first[k + 1] if k + 1 < len(first) else None)
        y, w = samples.y[here], samples.w[here]
        ends = w[np.argmin(y)], w[np.argmax(y)]
        largest = max(largest, float((high[k] - low[k]) / sum(1 / e for e in ends)))
    return largest * (1 - 1e-14)


def _corrected(samples: Samples, m: int, n: int, enough: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The best p/q as far as linear programs tell, as Chebyshev series over the hull."""
    low, high = samples.hull
    t = np.clip((2 * samples.x - low - high) / (high - low), -1, 1)
    whole = Points(t, samples.y, samples.w, np.ones(len(t)))
    few = _FEW + 10 * (m + n)
    shares = (1 - np.cos(np.linspace(0, np.pi, few))) / 2
    chosen = np.unique(
        np.r_[
            np.searchsorted(t, 2 * shares - 1).clip(0, len(t) - 1),
            (shares * (len(t) - 1)).astype(int),
            np.argmax(samples.y),
            np.argmin(samples.y),
        ]
        if len(t) > few
        else np.arange(len(t))
    )
    # between the samples q has to stay positive too
    positive = chebyshev.chebvander(np.cos(np.linspace(0, np.pi, 8 * n + 2)), n) if n else np.zeros((0, 1))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    start = _polynomial(whole, m, n)
    for _ in range(_ROUNDS):
        part = Points(t[chosen], whole.f[chosen], whole.w[chosen], whole.side[chosen])
        pair = best_at(part, start, positive)
        if pair is None:
            break
        p, q = pair
        poles = _roots(q)
        if len(poles):
            positive = np.vstack([positive, chebyshev.chebvander(poles, n)])
            continue
        error = np.abs(whole.error(p, q))
        top, reached = float(np.max(error)), float(np.max(error[chosen]))
        if best is None or top < best[0]:
            best = (top, p, q)
        if top <= reached * (1 + enough) or not np.isfinite(top):
            break
        start = pair
        worse = np.flatnonzero(error > reached * (1 + 1e-7))
        # the worst of each neighbourhood first: the rest of a peak adds nothing
        order = worse[np.argsort(-error[worse])]
        kept: list[int] = []
        near = 1e-3 * np.sqrt(len(chosen)) / len(chosen)
        for k in order:
            if all(abs(t[k] - t[j]) > near for j in kept):
                kept.append(int(k))
            if len(kept) == _MORE:
                break
        chosen = np.unique(np.r_[chosen, kept])
    return None if best is None else best[1:]


def _polynomial(points: Points, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The polynomial of least squares over q = 1."""
    step = max(1, len(points.t) // 20000)
    t, f, w = points.t[::step], points.f[::step], points.w[::step]
    p = np.linalg.lstsq(chebyshev.chebvander(t, m) * w[:, None], w * f, rcond=None)[0]
    return p, np.r_[1.0, np.zeros(n)]


def _roots(q: np.ndarray) -> np.ndarray:
    """The real roots of a Chebyshev series in [-1, 1], and places between two of them where it is below 0."""
    trimmed = np.trim_zeros(q, "b")
    if len(trimmed) < 2:
        return np.zeros(0)
    roots = chebyshev.chebroots(trimmed)
    real = np.sort(roots.real[(np.abs(roots.imag) < 1e-9) & (np.abs(roots.real) <= 1)])
    if not len(real):
        return real
    return np.unique(np.r_[real, (real[1:] + real[:-1]) / 2])


def _error(samples: Samples, rational: Rational) -> np.ndarray:
    """w (y - r) at all samples in float64."""
    return samples.w * (samples.y - rational(samples.x))


def _reference(samples: Samples, error: np.ndarray, count: int) -> np.ndarray | None:
    """Indices of `count` samples at which the error alternates highest; None where there are fewer."""
    if not np.all(np.isfinite(error)):
        return None
    groups = np.split(np.arange(len(error)), np.flatnonzero(np.diff(np.sign(error)) != 0) + 1)
    runs = [(int(g[np.argmax(np.abs(error[g]))]),) for g in groups]
    thin = thinned([(k, float(error[k])) for (k,) in runs if error[k] != 0], count)
    if thin is None:
        return None
    places = np.array([k for k, _ in thin])
    return places if np.all(np.diff(samples.x[places]) > 0) else None


def _exact_errors(samples: Samples, rational: Rational, places: np.ndarray) -> list[arb]:
    with precision(_BITS + rational.bits):
        return [
            arb(float(samples.w[k])) * (arb(float(samples.y[k])) - rational(arb(float(samples.x[k]))))
            for k in places
        ]


def _judged(
    samples: Samples,
    rational: Rational,
    type: tuple[int, int],
    error: np.ndarray,
    reference: np.ndarray | None,
) -> _Candidate:
    """The largest error, in balls, and what the alternation proves about the type."""
    worst = np.argsort(-np.abs(error))[:256]
    top = max((float(abs(e).upper()) for e in _exact_errors(samples, rational, worst)), default=0.0)
    (m, n), (mu, nu) = type, rational.type
    needed = max(mu + n, m + nu) + 2
    bound = 0.0
    if mu <= m and nu <= n:
        if reference is None or len(reference) < needed:
            reference = _reference(samples, error, needed)
        if reference is not None:
            bound = min(float(abs(e).lower()) for e in _exact_errors(samples, rational, reference)) * (
                1 - 1e-14
            )
    places = samples.x[reference] if reference is not None else np.zeros(0)
    return _Candidate(rational, top if np.all(np.isfinite(error)) else np.inf, bound, places)


def _exchanged(
    samples: Samples,
    type: tuple[int, int],
    defect: int,
    start: np.ndarray,
    tolerance: float,
    history: list[float],
) -> _Candidate | None:
    """The exchange among the samples for the type (m - defect, n - defect); None where it does not get anywhere."""
    m, n = type[0] - defect, type[1] - defect
    best: _Candidate | None = None
    places, seen = start, set[tuple[int, ...]]()
    for _ in range(40):
        if tuple(places) in seen:
            break
        seen.add(tuple(places))
        level = _levelled(samples, (m, n), places)
        rational = None if level is None else _held(samples, *_expanded(level))
        if level is None or rational is None:
            break
        error = _error(samples, rational)
        history.append(abs(float(level.value)))
        found = _judged(samples, rational, type, error, places)
        if best is None or found.error < best.error:
            best = found
        if found.error <= found.bound * (1 + max(1e-9, tolerance)):
            break
        moved = _reference(samples, error, m + n + 2)
        if moved is None:
            break
        places = moved
    return best


def _zero(samples: Samples, type: tuple[int, int]) -> _Candidate | None:
    """The zero function, where it alternates: m + 2 times make it the best of the type."""
    error = samples.w * samples.y
    reference = _reference(samples, error, type[0] + 2)
    if reference is None:
        return None
    zero = Rational.from_monomial([0], [1], samples.domain)
    bound = float(np.min(np.abs(error[reference]))) * (1 - 1e-14)
    return _Candidate(zero, float(np.max(np.abs(error))), bound, samples.x[reference])


def _centred(samples: Samples, type: tuple[int, int], tolerance: float) -> _Candidate | None:
    """The best of y - c, and c added: of values that vary in their last digits the programs see nothing else."""
    (m, n), middle = type, float(samples.y.min() / 2 + samples.y.max() / 2)
    spread = float(np.ptp(samples.y))
    # else c is no function of the type, or the difference rounds
    if m < n or not 0 < spread <= _SPREAD * abs(middle):
        return None
    weight = None if samples.weight is None else samples.w
    best = best_of_samples(Samples(samples.x, samples.y - middle, weight=weight), type, tolerance)
    p, q = best.rational.exact()
    rational = _held(samples, p + dyadic(middle) * q, q)
    if rational is None:
        return None
    candidate = _judged(samples, rational, type, _error(samples, rational), None)
    return replace(candidate, bound=max(best.levelled, candidate.bound), reference=best.reference)


def _interpolating(samples: Samples, type: tuple[int, int]) -> _Candidate | None:
    """The p/q through all samples, where there are m + n + 1 at most: a step of Euclid's algorithm (Cauchy)."""
    (m, n), (x, first) = type, np.unique(samples.x, return_index=True)
    if len(x) > min(m + n + 1, _LONGEST) or np.any(
        samples.y[first][np.searchsorted(x, samples.x)] != samples.y
    ):
        return None
    whole, p = fmpq_poly([1]), fmpq_poly()  # Newton's form
    for place, value in zip(map(dyadic, x.tolist()), map(dyadic, samples.y[first].tolist()), strict=True):
        p += whole * ((value - p(place)) / whole(place))
        whole *= fmpq_poly([-place, 1])
    last, before, q = whole, fmpq_poly(), fmpq_poly([1])
    while q.degree() <= n:
        if p.degree() <= m and all(q(dyadic(place)) != 0 for place in x.tolist()):
            rational = _held(samples, p, q)
            if rational is not None:
                return _judged(samples, rational, type, _error(samples, rational), None)
        if p.degree() < 0:
            break
        quotient, rest = divmod(last, p)
        last, p, before, q = p, rest, q, before - quotient * q
    return None


def _levelled(samples: Samples, type: tuple[int, int], places: np.ndarray) -> Level | None:
    """The levelled function on some of the samples."""
    points = [arb(float(samples.x[k])) for k in places]

    def looked_up(values: np.ndarray) -> Callable[[list[arb]], list[arb]]:
        table = {float(samples.x[k]): arb(float(values[k])) for k in places}
        return lambda xs: [table[float(x)] for x in xs]

    ends = [(arb(samples.hull[0]), arb(samples.hull[1]))]
    problem = Problem(looked_up(samples.y), looked_up(samples.w), ends)
    with precision(_BITS):
        try:
            return problem.solve(Start(points, problem.frame(points), _BITS), *type)
        except (Failure, ZeroDivisionError):
            return None


def _expanded(level: Level) -> tuple[fmpq_poly, fmpq_poly]:
    """p and q in x."""
    with precision(max(level.expand, _BITS)):
        c, h = level.frame.centre.fmpq(), level.frame.half.fmpq()
        back = fmpq_poly([-c / h, 1 / h])
        num, den = (fmpq_poly([k.fmpq() for k in poly.coeffs()])(back) for poly in (level.p, level.q))
    return num, den


def _held(samples: Samples, num: fmpq_poly, den: fmpq_poly) -> Rational | None:
    """p/q in float64 parameters, in the form that the fewest digits are lost in; None for a pole at the samples."""
    low, high = map(dyadic, samples.hull)
    middle, half = (low + high) / 2, (high - low) / 2
    forms = [("chebyshev", middle, half)]
    if den.degree() > 0:
        simple = num.degree() >= den.degree() - 1 and den.gcd(den.derivative()).degree() == 0
        forms = [
            *([("partial_fractions", middle, half)] if simple else []),
            ("factored", middle, half),
            *forms,
        ]
    made = [
        Rational.from_exact(num, den, samples.domain, name, 53, centre=centre, scale=scale)
        for name, centre, scale in forms
    ]
    tops = [float(np.max(np.abs(_error(samples, r)))) for r in made]
    rational = made[int(np.argmin(np.nan_to_num(tops, nan=np.inf)))]
    inside = [p for p in rational.poles() if p.imag == 0 and samples.hull[0] <= p.real <= samples.hull[1]]
    return None if inside else rational


_LOOK, _LOOKS = 20000, 4  # points of a callable that is rough, and how often they are looked at
_ENOUGH = 1e-3  # of its error
_CLOSE = 1.1  # of the error at the samples, that at more points


def of_rough(target: Target, type: tuple[int, int], tolerance: float) -> Fit | None:
    """The best approximation at samples of a callable whose values are rough; None where its error hides that.

    An exchange looks for smooth peaks, and a staircase or noise has none. The bound of the samples holds for the
    callable, which has the values that it returns.

    Args:
        target: the callable.
        type: (m, n), the degrees of numerator and denominator.
        tolerance: relative excess of the error over the lower bound at which it counts as best.
    """
    rough = grain(target)
    if rough == 0:
        return None
    grid = Grid.at(target, sample(target, _FEW * 4))
    if not rough > _ROUGH * float(np.max(np.abs(grid.f))):
        return None
    look, best = Grid.at(target, sample(target, _LOOK)), None
    for _ in range(_LOOKS):
        fit = best_of_samples(
            Samples(grid.x, grid.f, weight=grid.w), type, max(tolerance, _ENOUGH), neighbours=False
        )
        if rough * float(np.max(grid.w)) < _FELT * fit.error:
            return None
        rational = replace(fit.rational, domain=target.domain)
        errors = np.abs(look.w * (look.f - rational(look.x)))
        error = max(fit.error, float(np.max(errors)))
        if best is None or error < best.error:
            detail = f"its values are rough by {rough:.1e}: the best at {len(grid.x)} points of its domain"
            best = replace(
                fit, rational=rational, error=error, target=target, verdict=Verdict.ROUNDING, detail=detail
            )
        if error < _CLOSE * fit.error:
            break
        # it swings between the points, where a pole is near
        worst = look.x[np.argsort(-errors)[:_FEW]]
        grid = Grid.at(target, np.unique(np.r_[grid.x, worst]))
    return best
