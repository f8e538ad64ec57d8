"""Certificates: a rational function, a target and proven bounds between them, in a file that replays."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from flint import arb, arb_series, fmpq, fmpq_poly

from approx.dyadic import dyadic, precision
from approx.family import Family, fixed_coefficients, sides_of, without_factor
from approx.files import read_json, write_json
from approx.fitted import Fitted, opened
from approx.primitives import target_from_json
from approx.proofs import duality
from approx.proofs.bounds import (
    Branch,
    Error,
    Point,
    alternation,
    branches,
    enough,
    improved,
    least,
    most,
    reference,
)
from approx.proofs.decimals import decimal, float_below, index, number, polynomial, rounded
from approx.proofs.real_roots import Root, isolate, separated
from approx.rational import Rational
from approx.target import Target, check_kind
from approx.zeros import Zero, divided, divided_rational, zeros_of

VERSION = 1
_MOST_POINTS = 140  # of a fit's reference that a levelled function is looked for on


class CertificateError(ValueError):
    """A certificate that is malformed, was altered, or claims what its data do not prove."""


@dataclass(frozen=True)
class Estimate:
    """What sampling suggests about a target that has no enclosure: nothing here is proven but the poles.

    `value` is the largest error seen on `samples` points in float64, at `x`. The true sup norm may be larger.
    """

    rational: Rational
    """The function."""
    target: Target
    """What it approximates."""
    value: float
    """The largest error seen."""
    x: float
    """Where it was seen."""
    samples: int
    """How many points were looked at."""
    pole_free: bool
    """Whether r has no pole on the convex hull of the domain: this is proven."""
    kind: str = "estimate"
    """What `to_json` would call it."""


@dataclass(frozen=True, repr=False)
class Certificate:
    """Proven: lower <= sup |w (f - r)| <= upper over the target's domain, and what else it says about r.

    type: the (m, n) that `best` is about.
    rel: the relative distance of the bounds, at most.
    bounds, best: exact (fmpq); `lower`, `upper` and `best_lower` are the floats rounded outwards.
    witness: (piece, x), where the error is at least the lower bound.
    poles: an interval around each distinct real pole in the convex hull of the domain. A pole in the domain
        itself makes both bounds infinite: `bounds` and `witness` are None then.
    best: no rational of type (m, n) or below, without poles on the hull, has an error below it. Proven by
        `points`, pairs (piece, x), m + n + 2 of them or fewer if `comparison` has fewer degrees, at which the
        error of `comparison` (num, den; None for r itself) alternates in sign and is at least `best` (de la
        Vallee-Poussin). Without such points `best` is 0; or 1, where the relative error is asked for of a target with
        more than m zeros: nothing but the zero function vanishes with it.
    """

    rational: Rational
    """The function."""
    target: Target
    """What it approximates."""
    type: tuple[int, int]
    """The (m, n) that `best` is about."""
    rel: fmpq
    """The relative distance of the bounds, at most."""
    bounds: tuple[fmpq, fmpq] | None
    """Exact bounds; None where a pole in the domain makes the error infinite."""
    witness: tuple[int, fmpq] | None
    """(piece, x), where the error is at least the lower bound; None with `bounds`."""
    poles: tuple[tuple[fmpq, fmpq], ...]
    """An interval around each distinct real pole in the convex hull of the domain."""
    best: fmpq
    """No rational of the type, without poles on the hull, has an error below it; 0 for nothing proven."""
    points: tuple[tuple[int, fmpq], ...]
    """Pairs (piece, x) at which the error alternates, the proof of `best`."""
    comparison: tuple[fmpq_poly, fmpq_poly] | None
    """(num, den) of the function that alternates there; None for r itself."""
    fixed: tuple[tuple[str, fmpq], ...] = ()
    """Coefficients by name: `best` is about functions with these alone, and its points prove it by duality."""
    kind: str = "certificate"
    """What files call it."""

    @property
    def lower(self) -> float:
        """The lower bound as a float, rounded down."""
        return math.inf if self.bounds is None else float_below(self.bounds[0])

    @property
    def upper(self) -> float:
        """The upper bound as a float, rounded up."""
        return math.inf if self.bounds is None else -float_below(-self.bounds[1]) + 0.0  # no -0

    @property
    def best_lower(self) -> float:
        """The bound on the best error as a float, rounded down."""
        return float_below(self.best)

    @property
    def pole_free(self) -> bool:
        """Whether r has no pole on the convex hull of the domain."""
        return not self.poles

    def __repr__(self) -> str:
        poles = f"{len(self.poles)} real poles" if self.poles else "pole-free"
        held = "".join(f", {name} = {value}" for name, value in self.fixed)
        return (
            f"<Certificate {self.lower!r} <= error <= {self.upper!r}, {poles}, "
            f"error of type {self.type}{held} >= {self.best_lower!r}>"
        )

    def to_json(self) -> dict[str, Any]:
        """A self-contained record. Raises ValueError for a target that cannot be written: a callable."""
        record = {
            "kind": self.kind,
            "version": VERSION,
            "rational": self.rational.to_json(),
            "target": self.target.to_json(),
            "type": list(self.type),
            "rel": str(self.rel),
            "bounds": self.bounds and [decimal(b) for b in self.bounds],
            "witness": self.witness and [self.witness[0], str(self.witness[1])],
            "poles": [[str(lo), str(hi)] for lo, hi in self.poles],
            "best": decimal(self.best),
            "points": [[piece, str(x)] for piece, x in self.points],
            "comparison": self.comparison and [[str(c) for c in p.coeffs()] for p in self.comparison],
        }
        if self.fixed:
            record["fixed"] = {name: str(value) for name, value in self.fixed}
        return record | {"sha256": _digest(record)}

    @classmethod
    def from_json(cls, data: Any) -> Certificate:
        """The inverse of `to_json`. It proves nothing: see `verify`.

        Args:
            data: the record, as `json` reads it.

        Raises:
            CertificateError: for a record that is malformed or was altered after it was written.
        """
        if not isinstance(data, dict) or data.get("kind") != "certificate":
            raise CertificateError("not a certificate: expected an object with kind = 'certificate'")
        if data.get("version") != VERSION:
            version = data.get("version")
            raise CertificateError(f"version {version!r} is not known: this release reads {VERSION}")
        if data.get("sha256") != _digest({k: v for k, v in data.items() if k != "sha256"}):
            raise CertificateError("the digest does not match: it was altered after it was written")
        try:
            bounds, witness, comparison = data["bounds"], data["witness"], data["comparison"]
            m, n = data["type"]
            found = cls(
                rational=Rational.from_json(data["rational"]),
                target=target_from_json(data["target"]),
                type=(index(m), index(n)),
                rel=number(data["rel"]),
                bounds=None if bounds is None else (number(bounds[0]), number(bounds[1])),
                witness=None if witness is None else (index(witness[0]), number(witness[1])),
                poles=tuple((number(lo), number(hi)) for lo, hi in data["poles"]),
                best=number(data["best"]),
                points=tuple((index(piece), number(x)) for piece, x in data["points"]),
                comparison=None
                if comparison is None
                else (polynomial(comparison[0]), polynomial(comparison[1])),
                fixed=tuple((str(name), number(value)) for name, value in data.get("fixed", {}).items()),
            )
            same = found.to_json() == data
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RecursionError) as error:
            raise CertificateError(f"malformed certificate: {type(error).__name__}: {error}") from None
        if not same:
            raise CertificateError("malformed certificate: it has fields or spellings unknown to its version")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate as JSON, whole or not at all.

        Args:
            path: the file.

        Raises:
            ValueError: as `to_json` does.
        """
        write_json(path, self.to_json())

    def verify(self) -> None:
        """Prove every claim anew from the exact data; a CertificateError names the claim that fails."""
        _verify_poles(self)
        plain = _divided(self.rational, self.target, self.type)
        parts = branches(plain.rational, plain.target)
        _verify_bounds(self, plain, parts)
        try:
            families = _families(plain, self.fixed, self.type) if self.fixed else []
        except ValueError as error:
            raise CertificateError(str(error)) from None
        if self.best <= 1 and not self.points and _shared(plain.zeros, self.target) > self.type[0]:
            return
        if self.fixed and self.best != 0:
            if not duality.proves(Error(plain.target, parts), families, self.points, self.best):
                raise CertificateError(
                    "the points do not prove its bound on functions with the fixed coefficients"
                )
        elif self.points or self.best != 0:
            if self.comparison:
                parts = [Branch(parts[0].a, parts[-1].b, *self.comparison)]
            found = alternation(Error(plain.target, parts), self.points, plain.type, self.rel)
            if _beside_zeros(found, plain.zeros, self.target, self.points) < self.best:
                raise CertificateError("the points of alternation do not prove its bound on the best error")


@precision(53)
def certify(
    rational: Rational | Fitted,
    target: Target | None = None,
    *,
    rel: float = 1e-10,
    type: tuple[int, int] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Certificate | Estimate:
    """Prove bounds on sup |w (f - r)| over the target's domain.

    On a polynomial piece the error is a rational function with exact coefficients; the real roots of its
    derivative are isolated exactly, and the error is enclosed in ball arithmetic at each. On other pieces
    Taylor models with proven remainders stand in for the target. The bound on the best error is de la
    Vallee-Poussin's.

    Args:
        rational: the function, or a fit, which brings its target and its type.
        target: what it approximates; left out for a fit.
        rel: the relative distance between the two bounds, at most.
        type: the (m, n) that the bound on the best error is about; by default the type that the fit was
            given, or the exact type of `rational`.
        fixed: {"p1": 1}: coefficients of x^i that the functions have which the bound on the best error is about; by
            default those that the fit was given.

    Returns:
        A Certificate, or an Estimate when the target is a callable without an enclosure.

    Raises:
        ValueError: for a missing target, rel outside (0, 1), a weight that is infinite in the domain, or an
            enclosure that does not run on power series.
        ArithmeticError: where the target has no enclosure that is tight enough.

    Source:
        docs/approx/certificates.md.
    """
    near: Sequence[float] = ()
    if not isinstance(rational, Rational) and isinstance(rational, Fitted):
        near = [float(x) for x in getattr(rational, "reference", ())] if target is None else ()
        type = rational.type if type is None else type
        fixed = rational.fixed if fixed is None else fixed
    rational, target = opened(rational, target)
    if target is None:
        raise ValueError(
            "target is missing: give the fit itself, or the rational function and its target; a fit of samples has "
            "none, since nothing is known between them"
        )
    check_kind(target)
    if not 0 < rel < 1:
        raise ValueError(f"rel={rel} must lie in (0, 1): it is the relative distance between the bounds")
    width = dyadic(rel)
    kind = rational.type if type is None else (index(type[0]), index(type[1]))
    plain = _divided(rational, target, kind)
    parts = branches(plain.rational, plain.target)
    reach = parts[-1].b - parts[0].a
    poles = tuple((root.lo, root.hi) for root in separated(_poles(parts), reach / (1 << 60)))
    if not target.enclosed:
        return _estimate(rational, target, not poles)
    _check_weight(target)
    if _pole_in_domain(parts, target):
        return Certificate(rational, target, kind, width, None, None, poles, fmpq(0), (), None)

    error = Error(plain.target, parts)
    extrema = error.extrema(width)
    witness = max(extrema, key=lambda p: least(p.error))
    margin = width / 64  # a replay may round differently
    names = tuple((name, dyadic(value)) for name, value in (fixed or {}).items())
    if names:
        families = _families(plain, names, kind) if len(parts) == 1 else []
        best, points = duality.bound(error, families, extrema) if families else (fmpq(0), ())
        comparison = None
    else:
        best, points, comparison = _best(error, extrema, plain, width, near)
    best = _beside_zeros(best, plain.zeros, target, points) * (1 - margin)
    if _shared(plain.zeros, target) > kind[0]:
        best, points, comparison = fmpq(1), (), None
    digits = max(25, 5 - math.floor(math.log10(rel)))
    lower = rounded(least(witness.error) * (1 - margin), digits, -1)
    upper = rounded(max(most(p.error) for p in extrema) * (1 + margin), digits, 1)
    if upper - lower > width * upper:
        raise ArithmeticError(f"the bounds {float_below(lower)} and {float_below(upper)} come no closer")
    return Certificate(
        rational,
        target,
        kind,
        width,
        bounds=(lower, upper),
        witness=(witness.piece, witness.x),
        poles=poles,
        best=rounded(best, digits, -1),
        points=points if best else (),
        comparison=comparison,
        fixed=names,
    )


def _check_weight(target: Target) -> None:
    """Refuse a weight that does not run on balls: functions of numpy take a series for an array of its coefficients."""
    if not callable(target.weight):
        return
    middle = arb(sum(target.domain[0]) / 2)
    try:
        values = [target.weight_at(middle), target.weight_at(arb_series([middle, 1]))]
    except (TypeError, AttributeError, ValueError):
        values = [None]
    if not all(isinstance(value, arb | arb_series | int | float) for value in values):
        raise ValueError(
            f"weight= of target {target.name!r} runs on floats only, and a proof needs it on balls: give a formula, "
            'such as with_weight(approx.formula("exp(-x)", domain)), or a function that has nothing but operators'
        )


def _best(
    error: Error, extrema: list[Point], plain: _Divided, width: fmpq, near: Sequence[float]
) -> tuple[fmpq, tuple[tuple[int, fmpq], ...], tuple[fmpq_poly, fmpq_poly] | None]:
    """The bound on the best error of the type, the points that prove it, and what alternates there."""
    parts, top = error.branches, max(most(p.error) for p in extrema)
    chosen = reference(extrema, parts[0].den, enough(parts[0], plain.type)) if len(parts) == 1 else []
    points = tuple((p.piece, p.x) for p in chosen)
    best, comparison = alternation(error, points, plain.type, width), None
    if len(chosen) == sum(plain.type) + 2 and best < top * (1 - width):
        neighbour = improved(error, chosen, plain.type)
        levelled = (
            alternation(Error(plain.target, [neighbour]), points, plain.type, width) if neighbour else fmpq(0)
        )
        if neighbour and levelled > best:
            best, comparison = levelled, (neighbour.num, neighbour.den)
    if len(parts) == 1 and best < top * (1 - fmpq(1, 10**6)):
        # no levelled neighbour: where f alternates by itself, the zero function says more
        zero = Branch(parts[0].a, parts[0].b, fmpq_poly(), fmpq_poly([1]))
        own = Error(plain.target, [zero])
        with suppress(ArithmeticError):  # f may be too small almost everywhere for bounds of its peaks
            peaks = tuple(
                (p.piece, p.x) for p in reference(own.extrema(width), zero.den, enough(zero, plain.type))
            )
            if (bound := alternation(own, peaks, plain.type, width)) > best:
                best, points, comparison = bound, peaks, (zero.num, zero.den)
    seldom = len(parts) == 1 and best < top * (1 - fmpq(1, 10**6))
    if seldom and sum(plain.type) + 2 <= len(near) <= _MOST_POINTS:
        near = near[: sum(plain.type) + 2]
        # r with rounded coefficients alternates too seldom: what its fit was before does on its reference
        pieces = [
            next((k for k in range(len(error.pieces)) if error.on_piece(k, dyadic(x))), 0) for x in near
        ]
        for sign in (1, -1):
            given = [
                Point(piece, dyadic(x), arb(top) * (sign if k % 2 else -sign))
                for k, (piece, x) in enumerate(zip(pieces, near, strict=True))
            ]
            where = tuple((p.piece, p.x) for p in given)
            neighbour = improved(error, given, plain.type)
            if neighbour is None:
                continue
            bound = alternation(Error(plain.target, [neighbour]), where, plain.type, width)
            if bound > best:
                best, points, comparison = bound, where, (neighbour.num, neighbour.den)
    return best, points, comparison


@dataclass(frozen=True)
class _Divided:
    """The problem without the zeros that r and f share under a relative error: (f - r)/f = (g - R)/g."""

    rational: Rational
    target: Target
    type: tuple[int, int]
    zeros: tuple[Zero, ...]


def _divided(rational: Rational, target: Target, type: tuple[int, int]) -> _Divided:
    zeros = zeros_of(target) if target.weight == "relative" else ()
    if not zeros:
        return _Divided(rational, target, type, zeros)
    quotient = divided_rational(rational, zeros)
    if quotient is None:
        raise ValueError("weight='relative': the target has a zero in its domain that the rational lacks")
    # whoever has a finite relative error vanishes there too: R has as many degrees less
    total = sum(zero.multiplicity for zero in zeros)
    return _Divided(quotient, divided(target, zeros), (max(type[0] - total, 0), type[1]), zeros)


def _families(plain: _Divided, names: Sequence[tuple[str, fmpq]], type: tuple[int, int]) -> list[Family]:
    """All functions of the type with these coefficients, but for a common sign; none for zeros elsewhere than at 0."""
    fixed = fixed_coefficients(dict(names), type)
    if any(zero.exact != 0 for zero in plain.zeros):
        return []
    fixed = without_factor(fixed, sum(zero.multiplicity for zero in plain.zeros))
    low, high = plain.target.hull
    middle = (dyadic(low) + dyadic(high)) / 2
    return [Family.of(fixed, plain.type, side, middle) for side in sides_of(fixed, low, high)]


def _beside_zeros(
    best: fmpq, zeros: tuple[Zero, ...], target: Target, points: Sequence[tuple[int, fmpq]]
) -> fmpq:
    """What is left of a bound for functions that vanish somewhere in the gap of two floats that f's zero lies in.

    The bound is that of functions which vanish at the zero itself. Whoever has a relative error e < 1 changes sign in
    the gap, at one place or another; moved to the zero, it changes at each point by a share of eps at most, so that
    e + (1 + e) eps >= best.

    Args:
        best: The bound, from alternation.
        zeros: The zeros of the target that were divided out.
        target: The target.
        points: The points of alternation, (piece, x).
    """
    change = fmpq(1)
    for zero in zeros:
        beyond = np.nextafter(zero.place, np.inf if zero.beside > 0 else -np.inf)
        low, high = sorted((dyadic(zero.place), dyadic(float(beyond))))
        if zero.beside == 0 or low < dyadic(target.hull[0]) or high > dyadic(target.hull[1]):
            continue
        away = min((max(low - x, x - high) for _, x in points), default=fmpq(1))
        if away <= 0:
            return fmpq(0)
        change *= 1 + (high - low) / away
    return max((best - (change - 1)) / change, fmpq(0))


def _shared(zeros: tuple[Zero, ...], target: Target) -> int:
    """How many zeros of a target, with multiplicity, every function shares whose relative error is below 1."""
    low, high = map(dyadic, target.hull)
    return sum(zero.multiplicity for zero in zeros if low <= zero.exact <= high)


def verify(path: str | os.PathLike[str]) -> Certificate:
    """Replay the proof in a certificate file, from the file alone.

    Returns the certificate.

    Args:
        path: the file.

    Raises:
        CertificateError: if the file is malformed, was altered in any digit, or claims what its own data do
            not prove; FileNotFoundError if there is no such file.
    """
    try:
        data = read_json(path)
    except (ValueError, RecursionError) as error:
        raise CertificateError(str(error)) from None
    try:
        certificate = Certificate.from_json(data)
        certificate.verify()
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise CertificateError(f"{path}: {error}") from None
    return certificate


def _poles(parts: list[Branch], low: fmpq | None = None, high: fmpq | None = None) -> list[Root]:
    """The real poles in [low, high], by default on the hull; one where two branches meet counts once."""
    found: list[Root] = []
    for part in parts:
        a = part.a if low is None else max(part.a, low)
        b = part.b if high is None else min(part.b, high)
        if a <= b:
            found += [r for r in isolate(part.den, a, b) if not (found and r.lo == r.hi == found[-1].lo)]
    return found


def _pole_in_domain(parts: list[Branch], target: Target) -> bool:
    return any(_poles(parts, dyadic(a), dyadic(b)) for a, b in target.domain)


def _verify_poles(c: Certificate) -> None:
    parts = branches(c.rational, c.target)
    if len(_poles(parts)) != len(c.poles):
        raise CertificateError(f"it claims {len(c.poles)} real poles on the hull, which is not their number")
    if not all(left[1] < right[0] for left, right in pairwise(c.poles)):
        raise CertificateError("its intervals around poles are not apart and in order")
    for lo, hi in c.poles:
        if not parts[0].a <= lo <= hi <= parts[-1].b or len(_poles(parts, lo, hi)) != 1:
            raise CertificateError(f"there is not exactly one pole on the hull in [{lo}, {hi}]")


def _verify_bounds(c: Certificate, plain: _Divided, parts: list[Branch]) -> None:
    infinite = _pole_in_domain(parts, c.target)
    if infinite != (c.bounds is None) or infinite != (c.witness is None):
        raise CertificateError("a pole in the domain makes the error infinite, and nothing else does")
    if c.bounds is None or c.witness is None:
        return
    lower, upper = c.bounds
    if not (0 <= lower <= upper and 0 < c.rel < 1 and upper - lower <= c.rel * upper):
        raise CertificateError("its bounds are not as close as it claims")
    error = Error(plain.target, parts)
    if not (error.on_piece(*c.witness) and least(error.sharp(*c.witness, c.rel)) >= lower):
        raise CertificateError("the error at the witness does not reach the lower bound")
    if max(most(p.error) for p in error.extrema(c.rel)) > upper:
        raise CertificateError("the error exceeds the upper bound")


def _estimate(rational: Rational, target: Target, pole_free: bool, samples: int = 20001) -> Estimate:
    nodes = (1 - np.cos(np.linspace(0, np.pi, samples))) / 2  # they crowd at the ends, where errors peak
    x = np.concatenate([a + (b - a) * nodes for a, b in target.domain])
    with np.errstate(all="ignore"):
        error = np.abs(target.weight_at(x) * (target(x) - rational(x)))
    i = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    return Estimate(rational, target, float(error[i]), float(x[i]), len(x), pole_free)


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
