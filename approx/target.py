"""Targets: the functions to be approximated, with their domain, weight, kinks and jumps.

One definition serves float64 arrays, high-precision fitting and rigorous enclosures, so that the three
cannot drift apart: each piece of a target between two breaks is one analytic expression, written against
the `Functions` that exist for numpy arrays and for flint's arb, acb and arb_series alike.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flint import acb, acb_series, arb, arb_series, fmpq, fmpq_poly

from approx.domain import Domain
from approx.dyadic import dyadic, precision
from approx.functions import BALLS

Expression = Callable[[Any], Any]


@dataclass(frozen=True)
class Piece:
    """A part [a, b] of a target's domain on which it is one analytic expression.

    `piece(x)` runs on float arrays, arb, acb and arb_series. `polynomial` is the exact polynomial, where it
    is one.
    """

    a: fmpq
    """Left end."""
    b: fmpq
    """Right end."""
    expression: Expression
    """The function on float arrays, arb, acb and arb_series."""
    polynomial: fmpq_poly | None = None
    """The exact polynomial, where it is one."""

    def __call__(self, x: Any) -> Any:
        if self.polynomial is None:
            return self.expression(x)
        if isinstance(x, BALLS):
            return _horner(self.polynomial.coeffs(), x)
        return _horner([float(c) for c in self.polynomial.coeffs()], np.asarray(x, dtype=float))


def _horner(coefficients: list[Any], x: Any) -> Any:
    value = 0 * x
    for c in reversed(coefficients):
        value = value * x + c
    return value


Branch = Expression | fmpq_poly
_CLOSE = 1e-8  # relative: how far an enclosure may be from f in double precision


class Target:
    """A function to approximate, on an interval or a union of intervals.

    Args:
        f: callable on float64 arrays of any shape.
        domain: (a, b), or [(a, b), (c, d), ...] for a union with gaps.
        weight: positive callable on arrays, or "relative" for 1/|f|; the fitters minimise max |w (f - r)|.
        kinks: points where f folds; pieces, sampling and proofs split there.
        jumps: points where f jumps; they split like kinks.
        name: what messages call it.
        enclose: the same function on `flint.arb` and, for certificates, `flint.arb_series`: without it fits
            stop at double precision and bounds are estimates.

    Raises:
        ValueError: for a malformed domain, another kind of weight, or kinks and jumps that are not finite.
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        domain: Any = (-1, 1),
        weight: Callable[[Any], Any] | str | None = None,
        kinks: Iterable[float] = (),
        jumps: Iterable[float] = (),
        name: str = "user",
        enclose: Expression | None = None,
    ) -> None:
        if not callable(f):
            raise ValueError(
                "f must be callable on float arrays; for a formula use approx.formula('exp(-x**2)')"
            )
        if not (weight is None or callable(weight) or (isinstance(weight, str) and weight == "relative")):
            raise ValueError(
                f"weight={weight!r}: expected a callable, 'relative' or None"
                + (
                    f"; for a formula give approx.formula({weight!r}, domain)"
                    if isinstance(weight, str)
                    else "; a constant weight changes nothing but the unit of the error"
                )
            )
        self.domain = Domain(domain)
        self.weight = weight
        self.kinks = tuple(points(kinks, "kinks"))
        self.jumps = tuple(points(jumps, "jumps"))
        self.name = name
        self.params: dict[str, Any] | None = None
        self._f = f
        self._scalar = False
        self._make: Callable[..., Target] | None = None
        self._given: dict[str, Any] | None = None
        self._branches: list[Branch] | None = enclose and [enclose] * (len(self.breaks) + 1)
        if enclose is not None:
            self._compare()

    def _compare(self) -> None:
        """Refuse an enclosure that is not one of f."""
        x = np.array(
            [a + (b - a) * u for a, b in self.domain.split(self.breaks) for u in (0.13, 0.37, 0.71, 0.94)]
        )
        values = [float(np.asarray(self(x[k : k + 1]))[0]) for k in range(len(x))]
        close = 1e-6 if self._single() else _CLOSE
        # by its rounding float64 loses the digits of what cancels
        rounding = arb(1e-12) * max((abs(v) for v in values if np.isfinite(v)), default=0.0)
        for at, value in zip(x.tolist(), values, strict=True):
            with precision(128):  # far from 0 a sine has lost most of 53 bits
                ball = self(arb(at))
            if isinstance(ball, float):
                raise ValueError(
                    f"enclose= gives a {type(ball).__name__} for a ball, flint.arb, and what it rounds off is lost: "
                    "write it by operators and the ball's own functions, x.sin() for one"
                )
            ball = arb(ball)
            off, enough = (
                abs(ball - value),
                arb(close) * (abs(arb(value)) + abs(ball)) + rounding + arb(1e-300),
            )
            if np.isfinite(value) and not off.lower() <= enough.upper():
                raise ValueError(
                    f"enclose= is another function than f: at x = {at!r} it is {ball.str(10)}, and f is {value!r}"
                )

    def _single(self) -> bool:
        """Whether f computes in less than double precision."""
        try:
            kind = np.asarray(self._f(np.array([sum(self.domain[0]) / 2]))).dtype
        except (TypeError, ValueError, RuntimeError):  # f takes scalars alone
            return False
        return kind.kind == "f" and kind.itemsize < 8

    @classmethod
    def of_branches(
        cls,
        name: str,
        f: Callable[[Any], Any],
        branches: Sequence[Branch],
        domain: Any,
        make: Callable[..., Target],
        *,
        params: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
        kinks: Iterable[float] = (),
        jumps: Iterable[float] = (),
    ) -> Target:
        """A target that a file can name: one expression a piece between its breaks.

        Args:
            name: the name in files.
            f: callable on float64 arrays.
            branches: what f is between its breaks, left to right: an exact polynomial, or a callable on
                float arrays, `arb` and `arb_series`.
            domain: as for `Target`.
            make: the function of `params` and `domain`, which is taken whole, that makes this target.
            params: its parameters in files.
            given: those that make it on another domain, where they are fewer.
            kinks: points where f folds.
            jumps: points where f jumps.

        Returns:
            The target.

        Raises:
            ValueError: unless there is one branch more than there are breaks.
        """
        made = cls(f, domain, kinks=kinks, jumps=jumps, name=name)
        made.params, made._branches, made._make = dict(params or {}), list(branches), make
        made._given = None if given is None else dict(given)
        if len(made._branches) != len(made.breaks) + 1:
            raise ValueError("a target needs one branch more than it has breaks")
        return made

    @property
    def text(self) -> str:
        """The formula as it was typed; the name of what is none."""
        return str((self.params or {}).get("text", self.name))

    @cached_property
    def breaks(self) -> tuple[float, ...]:
        """Kinks and jumps, ascending."""
        return tuple(sorted({*self.kinks, *self.jumps}))

    @property
    def hull(self) -> tuple[float, float]:
        """The convex hull of the domain."""
        return self.domain.hull

    @property
    def enclosed(self) -> bool:
        """Whether the target can be evaluated in ball arithmetic."""
        return self._branches is not None

    def __call__(self, x: Any) -> Any:
        """f at x.

        Args:
            x: a float or an array of floats; or arb, acb or arb_series, for which the branch is taken that
                the midpoint lies in.

        Returns:
            float64 of the shape of `x`, or a ball.
        """
        if isinstance(x, BALLS):
            return self._branch_at(x)(x)
        x = np.asarray(x)
        if x.dtype.kind == "c" and np.any(x.imag != 0):
            raise ValueError(f"target {self.name!r} takes real numbers: x has an imaginary part")
        x = np.array(x.real, dtype=float)  # a copy: a callable may write into it
        if self._scalar:
            return _one_by_one(self._f, x)
        try:
            return _array(self._f(x))
        except (TypeError, ValueError):
            if not x.ndim:
                raise
            value = _one_by_one(
                self._f, x
            )  # math.exp, or a function with an `if`: it takes single floats only
            self._scalar = True
            return value

    @cached_property
    def _expressions(self) -> list[Expression]:
        return [_run(branch) for branch in self._known_branches()]

    def _branch_at(self, x: Any) -> Expression:
        if not self.breaks:
            return self._expressions[0]
        point = x[0] if isinstance(x, arb_series | acb_series) else x
        at = float((point.real if isinstance(point, acb) else point).mid())
        return self._expressions[bisect_left(self.breaks, at)]

    def _known_branches(self) -> list[Branch]:
        if self._branches is None:
            raise ValueError(f"target {self.name!r} has no version for ball arithmetic: give enclose=")
        return self._branches

    @cached_property
    def _pieces(self) -> list[Piece]:
        found: list[Piece] = []
        for a, b in self.domain.split(self.breaks):
            branch = self._known_branches()[bisect_right(self.breaks, a)]
            polynomial = branch if isinstance(branch, fmpq_poly) else None
            found.append(Piece(dyadic(a), dyadic(b), _run(branch), polynomial))
        return found

    def pieces(self) -> list[Piece]:
        """The analytic pieces, left to right, split at gaps, kinks and jumps.

        At a jump inside the domain each side has its own limit, so an error measured over the pieces is the
        supremum.

        Returns:
            The pieces.

        Raises:
            ValueError: for a callable without `enclose=`.
        """
        return list(self._pieces)

    def weight_at(self, x: Any) -> Any:
        """The weight at x.

        Args:
            x: floats or balls.

        Returns:
            The weight there, 1 where the target has none.
        """
        if self.weight is None:
            return np.ones_like(np.asarray(x, dtype=float)) if not isinstance(x, BALLS) else 0 * x + 1
        if callable(self.weight):
            if isinstance(x, BALLS):
                return self.weight(x)
            x = np.array(x, dtype=float)
            try:
                return _array(self.weight(x))
            except (TypeError, ValueError):
                if not x.ndim:
                    raise
                return _one_by_one(self.weight, x)
        return 1 / abs(self(x))

    def with_domain(self, domain: Any) -> Target:
        """The same function on another domain.

        Args:
            domain: as for `Target`.

        Returns:
            The new target.
        """
        low, high = Domain(domain).hull
        if self._make and self.params is not None and not (self.hull[0] <= low and high <= self.hull[1]):
            # folds, and limits at points where a formula has no value, are known on its domain alone
            return _remade(self._make, self._given or self.params, domain, self.weight)
        other = _restored({k: v for k, v in vars(self).items() if k != "_pieces"})
        other.domain = Domain(domain)
        return other

    def with_weight(self, weight: Callable[[Any], Any] | str | None) -> Target:
        """The same function with another weight.

        Args:
            weight: as for `Target`.

        Returns:
            The new target.
        """
        other = _restored(vars(self))
        other.weight = Target(self._f, weight=weight).weight
        return other

    def to_json(self) -> dict[str, Any]:
        """The record of a built-in target or a formula: name, parameters, domain and weight.

        Returns:
            What `json` can write.

        Raises:
            ValueError: for a user's callable as target or weight: a file cannot hold code.
        """
        if self.params is None:
            raise ValueError(
                f"target {self.name!r} is a callable and cannot be written: use a formula or a built-in"
            )
        weight = self.weight
        if isinstance(weight, Target) and weight.params is not None:
            weight = weight.with_weight(None).to_json()  # its values count, and not how well they are fitted
        if callable(weight):
            raise ValueError(
                f"weight= of target {self.name!r} is a callable and cannot be written: use a formula, a built-in, "
                "'relative' or None"
            )
        return {
            "name": self.name,
            "params": {k: _encode(v) for k, v in self.params.items()},
            "domain": [[a.hex(), b.hex()] for a, b in self.domain],
            "weight": weight,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """A built-in or a formula is pickled as the call that makes it, any other as its callables allow."""
        if self._make is None:
            state = {k: v for k, v in vars(self).items() if k not in ("_pieces", "_expressions")}
            return _restored, (state,)
        return _remade, (self._make, self.params, tuple(self.domain), self.weight), {"_given": self._given}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        params = dict(self.params or {})
        text = params.pop("text", None)
        told = ", ".join(f"{k}={v!r}" for k, v in params.items())
        name = f"{self.name}({told})" if text is None else f"{text}, {told}" if told else text
        return f"{name} on {self.domain}"


def points(given: Iterable[float], name: str) -> list[float]:
    """Points of a list, ascending.

    Raises:
        ValueError: for anything but finite numbers in a list: a weight, perhaps, in their place.
    """
    try:
        found = sorted(float(x) for x in given)
    except (TypeError, ValueError):
        found = [np.nan]
    if not np.all(np.isfinite(found)):
        raise ValueError(
            f"{name}={given!r}: expected a list of points, finite numbers as in {name}=[0.5]; "
            "a weight is given by .with_weight()"
        )
    return found


def _one_by_one(f: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    return np.array([f(float(v)) for v in x.ravel()], dtype=float).reshape(x.shape)


def _array(value: Any) -> Any:
    """What a callable gave, as numpy has it: lists, and tensors without their gradient."""
    if isinstance(value, np.ndarray | np.generic | float | int):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value  # numpy has no bfloat16
    return np.asarray(value)


def _restored(state: dict[str, Any]) -> Target:
    target = Target.__new__(Target)
    target.__dict__.update(state)
    return target


def _remade(make: Callable[..., Target], params: dict[str, Any], domain: Any, weight: Any) -> Target:
    return make(**params, domain=domain).with_weight(weight)


def check_kind(target: Any) -> None:
    """Refuse what is not a Target.

    Args:
        target: the argument that a user gave.

    Raises:
        ValueError: unless it is a Target.
    """
    if not isinstance(target, Target):
        raise ValueError(
            f"target= is a {type(target).__name__}: expected an approx.Target such as approx.relu(), "
            "approx.formula('exp(-x**2)') or approx.Target(f, domain=(-1, 1)); minimax and least_squares take samples, "
            "too, as a pair of arrays (x, y)"
        )


def _encode(value: Any) -> Any:
    return (
        [v.hex() for v in value]
        if isinstance(value, list)
        else value
        if isinstance(value, str)
        else value.hex()
    )


def _run(branch: Branch) -> Expression:
    if not isinstance(branch, fmpq_poly):
        return branch
    coefficients = branch.coeffs()
    return lambda x: _horner(coefficients, x)
