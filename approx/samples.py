"""`Samples`: a function that is known at points only, as measurements give it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from approx.domain import Domain
from approx.target import Target


class Samples(Target):
    """Values y at points x, real, in any order; `minimax` and `least_squares` take them as they take a target.

    Points may be repeated. Called as a function, it is the broken line through the samples, which is good for pictures
    and for nothing else: no error between the samples is ever claimed.

    Args:
        x: the points, shape (size,).
        y: the values there, shape (size,).
        errors: the error bar of each value, shape (size,) or one for all: the weight is 1/errors.
        weight: the weight of each value, shape (size,); or a callable; or "relative" for 1/|y|. Not beside `errors`.

    Raises:
        ValueError: for arrays of other shapes, numbers that are complex or not finite, weights that are not positive,
            or fewer than two different points.
    """

    def __init__(self, x: Any, y: Any, errors: Any = None, weight: Any = None) -> None:
        if any(np.ma.is_masked(a) for a in (x, y, errors, weight)):
            raise ValueError("samples: some are masked; leave them out, as x[~y.mask] and y.compressed() do")
        x, y = np.asarray(x), np.asarray(y)
        if x.dtype.kind == "c" or y.dtype.kind == "c":
            raise ValueError("samples: complex points or values are fitted by approx.aaa(z, y)")
        if x.ndim != 1 or x.shape != y.shape or x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
            raise ValueError(
                f"samples: expected real arrays x and y of one shape (size,), got {x.dtype} {x.shape} and "
                f"{y.dtype} {y.shape}"
            )
        order = np.argsort(x, kind="stable")
        self.x: np.ndarray = x.astype(float)[order]
        self.y: np.ndarray = y.astype(float)[order]
        if not (np.all(np.isfinite(self.x)) and np.all(np.isfinite(self.y))):
            raise ValueError("samples: x and y must be finite numbers; leave the others out")
        if not len(x) or self.x[0] == self.x[-1]:
            raise ValueError("samples: expected at least two different points x")
        if errors is not None and weight is not None:
            raise ValueError("samples: give errors= or weight=, not both: the weight is 1/errors")
        if errors is not None:
            with np.errstate(divide="ignore"):
                weight = 1 / _each(errors, "errors", len(x))
        self.w: np.ndarray = self._weights(weight, order)
        knots, first = np.unique(self.x, return_index=True)
        super().__init__(
            lambda at: np.interp(at, knots, self.y[first]),
            (float(self.x[0]), float(self.x[-1])),
            None if weight is None else lambda at: np.interp(at, knots, self.w[first]),
            name="samples",
        )

    def _weights(self, weight: Any, order: np.ndarray) -> np.ndarray:
        if weight is None:
            return np.ones(len(self.x))
        with np.errstate(divide="ignore"):
            if isinstance(weight, str) and weight == "relative":
                found = 1 / np.abs(self.y)
            elif callable(weight):
                found = np.broadcast_to(np.asarray(weight(self.x), dtype=float), self.x.shape)
            else:
                found = _each(weight, "weight", len(order))[order]
        if not np.all(np.isfinite(found) & (found > 0)):
            raise ValueError(
                "samples: weights must be finite and positive (a relative error is not, where y is 0; nor is an error "
                "bar of 0)"
            )
        return found

    def with_weight(self, weight: Callable[[Any], Any] | str | None) -> Samples:
        """The same samples with another weight.

        Args:
            weight: a callable, "relative" or None.

        Returns:
            The new samples.
        """
        return Samples(self.x, self.y, weight=weight)

    def with_domain(self, domain: Any) -> Samples:
        """The samples that lie in a domain, with their weights.

        Args:
            domain: as for `Target`.

        Returns:
            The new samples.
        """
        inside = Domain(domain).contains(self.x)
        return Samples(self.x[inside], self.y[inside], weight=None if self.weight is None else self.w[inside])

    def __reduce__(self) -> tuple[Any, ...]:
        weighted = {} if self.weight is None else {"weight": self.w}
        return _remade, (self.x, self.y, weighted)

    def __str__(self) -> str:
        return f"{len(self.x)} samples on {self.domain}"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Samples:
        """Samples from a CSV file with the columns x, y and, where there is a third, the error bars.

        Args:
            path: the file, in UTF-8; a first line of words alone is a heading, lines that begin with # are comments.

        Returns:
            The samples.

        Raises:
            ValueError: naming the file and the line, for anything else.
        """
        rows: list[list[float]] = []
        heading = False
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                lines = [(n, row) for n, row in enumerate(csv.reader(file), 1) if "".join(row).strip()]
        except (UnicodeError, csv.Error) as error:
            raise ValueError(f"{path}: not readable as CSV ({error}); save it as UTF-8") from None
        for number, row in lines:
            if row[0].lstrip().startswith("#"):
                continue
            numbers = [_number(cell) for cell in row]
            if not (rows or heading) and all(value is None for value in numbers) and all(map(str.strip, row)):
                heading = True
                continue
            if None in numbers or not np.all(np.isfinite(found := [v for v in numbers if v is not None])):
                raise ValueError(
                    f"{path}, line {number}: expected finite numbers with commas between, found {','.join(row)!r}"
                )
            rows.append(found)
            if len(row) not in (2, 3):
                raise ValueError(
                    f"{path}, line {number}: expected x,y or x,y,error, found {len(row)} columns"
                )
            if len(row) != len(rows[0]):
                raise ValueError(
                    f"{path}, line {number}: expected {len(rows[0])} columns as in the lines before, found {len(row)}"
                )
        if not rows:
            raise ValueError(f"{path} holds no samples: expected lines x,y or x,y,error")
        columns = np.array(rows).T
        return cls(columns[0], columns[1], errors=columns[2] if len(columns) == 3 else None)


def _each(given: Any, name: str, size: int) -> np.ndarray:
    """One number for each sample."""
    try:
        found = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"samples: {name}={given!r:.80}: expected real numbers") from None
    if found.shape not in ((), (1,), (size,)):
        raise ValueError(f"samples: {name}= has shape {found.shape}; expected ({size},), one number a sample")
    return np.broadcast_to(found, (size,))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _remade(x: np.ndarray, y: np.ndarray, weighted: dict[str, Any]) -> Samples:
    return Samples(x, y, **weighted)


def opened_target(target: Any) -> Any:
    """A pair (x, y), or (x, y, errors), as samples; anything else as it is.

    Args:
        target: the argument that a user gave a fitter.
    """
    if isinstance(target, tuple | list) and len(target) in (2, 3):
        return Samples(*target)
    return target
