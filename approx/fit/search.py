"""From a wanted error to the least type, or to the fewest pieces of a given type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from tqdm import tqdm

from approx.dyadic import precision
from approx.fit.minimax import minimax
from approx.fit.result import Fit, check_type
from approx.fitted import opened
from approx.proofs import Certificate, certify
from approx.samples import Samples, opened_target
from approx.source_code import export_pieces
from approx.target import Target, check_kind

SHAPES = ("rational", "polynomial")
_LARGEST = 240  # m + n, where the search for a type ends
_CLOSE = 1e-3  # how sharply, relative to the domain, the end of a piece is found


@dataclass(frozen=True, eq=False)
class Piecewise:
    """A table of fits side by side, each best on its interval."""

    pieces: tuple[Fit, ...]
    """The fits, left to right; the domain of each target is its interval."""
    fewest: bool
    """Whether no table of this type with fewer pieces has the wanted error, up to the rounding of the fits' bounds."""

    @property
    def breaks(self) -> np.ndarray:
        """The ends of the intervals, ascending, shape (pieces + 1,)."""
        starts = [fit.target.hull[0] for fit in self.pieces]
        return np.array([*starts, self.pieces[-1].target.hull[1]])

    @property
    def error(self) -> float:
        """The largest error of a piece."""
        return max(fit.error for fit in self.pieces)

    def __call__(self, x: Any) -> np.ndarray:
        """The table at x, floats of any shape; an end between two pieces belongs to the right one."""
        x = np.asarray(x, dtype=float)
        which = np.clip(np.searchsorted(self.breaks, x, side="right") - 1, 0, len(self.pieces) - 1)
        value = np.empty(x.shape)
        for k, fit in enumerate(self.pieces):
            value[which == k] = fit.rational(x[which == k])
        return value

    def export(self, to: str, dtype: Any = "float64", *, name: str = "rational", force: bool = False) -> Any:
        """Source of a function `name(x)` that looks for the piece of x and evaluates it.

        Args:
            to: "python", "c", "torch" or "sympy".
            dtype: "float64", "float32", "bfloat16" or "float16".
            name: what the function is called; those of the pieces are `name_0` and so on.
            force: write a form even if it is useless in `dtype`.

        Returns:
            The source, or a sympy.Piecewise.

        Raises:
            ValueError: as `approx.export` does, and for "json".
        """
        return export_pieces([opened(fit) for fit in self.pieces], to, dtype, name=name, force=force)

    def certify(self) -> list[Certificate]:
        """A certificate of each piece.

        Raises:
            ValueError: for a target without an enclosure.
        """
        proofs = [certify(fit) for fit in self.pieces]
        found = [proof for proof in proofs if isinstance(proof, Certificate)]
        if len(found) < len(proofs):
            raise ValueError(f"target {self.pieces[0].target.name!r} has no enclosure: give enclose=")
        return found


@overload
def fit(
    target: Any, error: float, type: None = None, *, shape: str = "rational", progress: bool = False
) -> Fit: ...


@overload
def fit(
    target: Any, error: float, type: tuple[int, int], *, shape: str = "rational", progress: bool = False
) -> Piecewise: ...


@precision(53)
def fit(
    target: Any,
    error: float,
    type: tuple[int, int] | None = None,
    *,
    shape: str = "rational",
    progress: bool = False,
) -> Fit | Piecewise:
    """The least type whose best approximation has a wanted error; or the fewest pieces of a given type.

    Without a type: types grow along (0, 0), (1, 0), (1, 1), (2, 1), (2, 2), ..., each of which holds the one before, or
    along (0, 0), (1, 0), (2, 0), ... The first whose error is small enough is returned. `fit.detail` names the last
    that is not and the bound on its error, which shows that no smaller one does.

    With a type, from left to right: each piece is as long as the error allows, to a thousandth of its length. The best
    error grows with the interval, so that a table can have fewer pieces only by these shares; `fewest` says whether
    bounds exclude it.

    Args:
        target: the function to approximate (or samples, without a type).
        error: the wanted largest error, weighted as the target says.
        type: (m, n) of each piece.
        shape: "rational" or "polynomial": the types to search.
        progress: show a progress bar; with a low type and a small error there may be hundreds of pieces, of some 0.1 s.

    Returns:
        A `Fit`; or, with a type, a `Piecewise`. `certify` proves either.

    Raises:
        ValueError: for an error that is not positive, a shape that is not known, or a domain with gaps for pieces.
        RuntimeError: if no type, or no piece, reaches the error.
    """
    target = opened_target(target)
    if not (isinstance(error, int | float | np.number) and 0 < error < np.inf):
        raise ValueError(f"error={error!r} must be a positive number")
    if shape not in SHAPES:
        raise ValueError(f"shape={shape!r}: expected one of {', '.join(SHAPES)}")
    check_kind(target)
    if type is not None:
        return _pieces(target, error, check_type(type), progress)
    return _least(target, error, shape, progress)


def _least(target: Target, error: float, shape: str, progress: bool) -> Fit:
    def tried(total: int) -> Fit | None:
        kind = (total - total // 2, total // 2) if shape == "rational" else (total, 0)
        if total not in known:
            bar.update()
            try:
                known[total] = minimax(target, kind)
            except RuntimeError:
                known[total] = None
        return known[total]

    def enough(total: int) -> bool:
        found = tried(total)
        return found is not None and found.error <= error

    def stuck(total: int) -> bool:
        """Whether what is left of samples is noise: four times the parameters have not halved the error."""
        now, before = known.get(total), known.get(total // 4)
        return (
            noisy
            and total >= 16
            and now is not None
            and before is not None
            and now.error > 0.5 * before.error
        )

    noisy = isinstance(target, Samples)
    # as many parameters as points pass through all of them
    most = min(_LARGEST, len(target.x) - 2) if isinstance(target, Samples) else _LARGEST
    known: dict[int, Fit | None] = {}
    with tqdm(desc="fit", disable=not progress, leave=False, delay=2) as bar:
        high = 1
        while not enough(high):
            if high >= most or stuck(high):
                best = min((f.error for f in known.values() if f is not None), default=np.inf)
                reason = ", and hardly falls: what is left looks like noise" if stuck(high) else ""
                reached = f"up to m + n = {high}; the best is {best:.3g}{reason}"
                raise RuntimeError(f"fit({target}): error {error:g} is not reached {reached}")
            high = min(2 * high, most)
        low = high // 2 if high > 1 else -1  # not enough, or no type at all
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
    found, below = known[high], known.get(low)
    assert found is not None
    if below is None:
        return found
    note = f"type {below.type} reaches {below.error:.6g}, and nothing of it is below {below.levelled:.6g}"
    return replace(found, detail="; ".join(part for part in (found.detail, note) if part))


def _pieces(target: Target, error: float, type: tuple[int, int], progress: bool) -> Piecewise:
    if isinstance(target, Samples) or len(target.domain) > 1:
        given = "samples" if isinstance(target, Samples) else f"domain={list(target.domain)}"
        raise ValueError(
            f"{given}: a table of pieces is made of a function on one interval; give error= or type= alone"
        )
    left, b = target.hull
    guess, ends = b, _ends(target)
    found: list[Fit] = []
    with tqdm(total=b - left, desc="pieces", disable=not progress, leave=False, delay=2) as bar:
        while left < b:
            found.append(_longest(target, left, guess, error, type, ends))
            right = found[-1].target.hull[1]
            bar.update(right - left)
            left, guess = ends.get(right, right), 2 * right - left
    return Piecewise(tuple(found), _fewest(found, error, target, type))


def _ends(target: Target) -> dict[float, float]:
    """Where a piece may end beside each break, and the next begins then: at a kink; on either side of a jump."""
    found: dict[float, float] = {}
    for c in target.breaks:
        below, above = (float(np.nextafter(c, to)) for to in (-np.inf, np.inf))
        if c not in target.jumps:
            found[c] = c
        else:  # what f is there belongs to one side
            at_below, at, at_above = np.broadcast_to(np.asarray(target(np.array([below, c, above]))), 3)
            end, start = (below, c) if abs(at - at_above) <= abs(at - at_below) else (c, above)
            found[end] = start
    return found


_DEEP, _FALL = 1e-6, 0.7  # a piece so much shorter has this share of the error at most, unless f jumps


def _longest(
    target: Target, left: float, guess: float, error: float, type: tuple[int, int], ends: dict[float, float]
) -> Fit:
    """The fit on the longest interval from `left` on whose error is small enough, to a share of its length."""
    # no piece goes on beyond a jump of more than both sides' errors
    apart = [end for end, start in ends.items() if left < end and _parted(target, end, start, error)]
    b = min(apart, default=target.hull[1])
    good, bad = _to_a_break(target, left, [*(end for end in ends if left < end < b), b], error, type)
    if good is not None and good.target.hull[1] == b:
        return good
    reached = left if good is None else good.target.hull[1]
    right, tries = min(guess, b) if bad is None else reached + (bad - reached) / 2, 0
    errors: list[tuple[float, float]] = []
    while True:
        one = _tried(target, left, right, type)
        if one is not None and one.error <= error:
            good = one
            if right == b:
                return good
        else:
            bad = right
        length = right - left
        if length <= 64 * np.spacing(max(abs(left), abs(right))):
            raise RuntimeError(
                f"fit({target}): no piece of type {type} that begins at {left!r} has an error of {error:g}: "
                "some neighbouring floats already have more"
            )
        errors.append((length, np.inf if one is None else one.error))
        reached = left if good is None else good.target.hull[1]
        if good is not None and bad is not None and bad - reached <= _CLOSE * (bad - left):
            return good
        if good is None and (place := _stuck(errors)) is not None:
            raise RuntimeError(
                f"fit({target}): no piece of type {type} that begins at {left!r} has an error of {error:g}: on "
                f"{place[0]:.1e} it has {place[1]:.3g}, and hardly less on shorter ones; if f jumps there, name the "
                "place in jumps="
            )
        # the error grows about as the power m + n + 1 of the length
        if one is not None and one.error > 0:
            length *= (error * (1 - _CLOSE / 4) / one.error) ** (1 / (sum(type) + 1))
        if bad is None:
            right = min(b, left + min(max(length, 1.1 * (right - left)), 8 * (right - left)))
        else:
            edge = 0.05 * (bad - reached)
            guess = left + length
            # at first by the power, then by halves; of a length that may be anything, by eighths
            middle = reached + (bad - reached) / (8 if good is None else 2)
            right = guess if reached + edge < guess < bad - edge and tries < 6 else middle
        tries += 1


def _parted(target: Target, end: float, start: float, error: float) -> bool:
    """Whether a target jumps between two points by more than a continuous function can follow it."""
    sides = np.array([end, start])
    f, weight = np.asarray(target(sides), dtype=float), np.asarray(target.weight_at(sides), dtype=float)
    return bool(abs(f[1] - f[0]) > error * np.sum(1 / weight) * (1 + 1e-9))


def _to_a_break(
    target: Target, left: float, ends: list[float], error: float, type: tuple[int, int]
) -> tuple[Fit | None, float | None]:
    """The fit up to the last of some ends that a piece from `left` on reaches, and the first that it does not."""
    if len(ends) == 1:
        return None, None
    good: Fit | None = None
    low, high, step = -1, len(ends), 1
    while high - low > 1:  # as far as doubled steps go, then by halves
        k = min(low + step, len(ends) - 1) if high == len(ends) else (low + high) // 2
        one = _tried(target, left, ends[k], type)
        if one is not None and one.error <= error:
            good, low, step = one, k, 2 * step
        else:
            high = k
    return good, ends[high] if high < len(ends) else None


def _stuck(errors: list[tuple[float, float]]) -> tuple[float, float] | None:
    """The last length and error, where the error hardly fell over many lengths."""
    length, last = errors[-1]
    before = [error for other, error in errors if other * _DEEP > length]
    return (length, last) if before and last > _FALL * min(before) else None


def _tried(target: Target, a: float, b: float, type: tuple[int, int]) -> Fit | None:
    try:
        return minimax(target.with_domain((a, b)), type)
    except RuntimeError:
        return None


def _fewest(found: list[Fit], error: float, target: Target, type: tuple[int, int]) -> bool:
    """Whether the bounds of fits show that no table has fewer pieces.

    Let L_0 < L_1 < ... be such that nothing of the type has the wanted error on any [L_(k-1), L_k]. By induction the
    k-th piece of any table ends before L_k: so a table with as many pieces as there are L_k above L_0 does not get
    beyond the last. They are looked for just beyond the ends of the pieces that were found.
    """
    left, b = target.hull
    start = left
    for fit in found[:-1]:
        right = fit.target.hull[1]
        step, drift = 1.1 * _CLOSE * (right - start), left - start
        for _ in range(6):
            beyond = right + drift + step
            if beyond >= b:
                return False
            one = _tried(target, left, beyond, type)
            if one is not None and one.levelled > error:
                break
            step *= 2
        else:
            return False
        start, left = right, beyond
    return True
