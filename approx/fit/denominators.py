"""Parametrised rational functions on a grid, shared by the least-squares, smoothed and distilling fitters.

A model has non-linear parameters theta (the denominator) and enters linearly in the rest (the numerator): the
variable projection of Golub and Pereyra (1973) removes the latter. Everything is in t = (x - centre)/half in
[-1, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import fmpq_poly
from numpy.polynomial import chebyshev
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear

from approx.dyadic import dyadic, to_float
from approx.fit.damped import minimised
from approx.fit.grid import Grid
from approx.forms import Monomial, SafePade, SafePadeB
from approx.rational import Rational

DENOMINATORS = ("standard", "safe", "safe-b")
_INSIDE = 1 - 2.0**-40  # keeps a real pole 1/a off the ends of the hull


class Model(ABC):
    """q(t; theta) > 0 on the grid, and the basis in which p/q is linear."""

    def __init__(self, grid: Grid, type: tuple[int, int]) -> None:
        self.grid, self.type = grid, type
        self.m, self.n = type

    @abstractmethod
    def basis(self, theta: np.ndarray) -> np.ndarray:
        """Columns phi_i(t; theta), shape (size, columns).

        Args:
            theta: parameters of the denominator, shape (k,).
        """

    @abstractmethod
    def slopes(self, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """d/dtheta of basis(theta) @ c, shape (size, len(theta)).

        Args:
            theta: parameters of the denominator, shape (k,).
            c: linear parameters, shape (columns,).
        """

    @abstractmethod
    def rational(self, theta: np.ndarray, c: np.ndarray) -> Rational:
        """The function that theta and c stand for, as a value.

        Args:
            theta: parameters of the denominator, shape (k,).
            c: linear parameters, shape (columns,).
        """

    @abstractmethod
    def start(self, rational: Rational) -> np.ndarray | None:
        """theta of a denominator like that of `rational`; None where there is none in this model.

        Args:
            rational: a function of the same domain.
        """

    @abstractmethod
    def extended(self, theta: np.ndarray, below: Model) -> np.ndarray:
        """theta of a model of smaller type, n - 2, n - 1 or n, with the new parameters where they leave the
        function as it is: but for a standard denominator of even n, whose poles are pairs, after n - 1.

        Args:
            theta: parameters of the smaller model.
            below: the smaller model.
        """

    def project(
        self, theta: np.ndarray, w: np.ndarray, f: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """c of the best fit to f (the target's values) for theta under weights w, and its sum of squares
        |w (f - phi c)|^2.

        Args:
            theta: parameters of the denominator.
            w: weights on the grid, shape (size,).
            f: values to fit, shape (size,).
        """
        phi = w[:, None] * self.basis(theta)
        norms = _norms(phi)
        r = _triangle(np.column_stack([phi / norms, w * (self.grid.f if f is None else f)]))
        return _solve(r[:-1, :-1], r[:-1, -1]) / norms, float(r[-1, -1] ** 2)

    def residual(self, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        """w (f - phi c) on the grid.

        Args:
            theta: parameters of the denominator.
            c: linear parameters, shape (columns,).
        """
        return self.grid.w * (self.grid.f - self.basis(theta) @ c)

    @staticmethod
    def reduced(columns: np.ndarray, rhs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A triangular (J, y) with the same least-squares solutions as columns d = rhs.

        Args:
            columns: shape (size, k).
            rhs: shape (size,).
        """
        r = _triangle(np.column_stack([columns, rhs]))
        return r[:-1, :-1], r[:-1, -1]

    def step(
        self, theta: np.ndarray, w: np.ndarray, c: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(J, y) of the Gauss-Newton problem min |J d - y| for the projected residual, both short: J is
        triangular.

        J is orthogonally equivalent to the part of w d(phi c)/dtheta that is orthogonal to phi (Kaufman
        1975).

        Args:
            theta: parameters of the denominator.
            w: weights on the grid, shape (size,).
            c: what `project` gave for them, where that is known.
        """
        c = self.project(theta, w)[0] if c is None else c
        phi, slopes = w[:, None] * self.basis(theta), w[:, None] * self.slopes(theta, c)
        r = _triangle(np.column_stack([phi / _norms(phi), slopes, w * self.grid.f]))
        k = phi.shape[1]
        return r[k:, k:-1], r[k:, -1]

    def minimise(
        self, theta: np.ndarray, w: np.ndarray, iterations: int = 300, tolerance: float = 1e-10
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """theta, c and the sum of squares of a local minimum, by Levenberg and Marquardt on the projected
        residual.

        Args:
            theta: the start.
            w: weights on the grid, shape (size,).
            iterations: the largest number of steps.
            tolerance: a step that lowers the sum by a smaller share is a calm one; three end the search.
        """
        rounding = len(w) * (np.finfo(float).eps * np.max(np.abs(w * self.grid.f), initial=0.0)) ** 2
        theta = minimised(Projected(self, w), theta, iterations, tolerance, calm=3, floor=rounding)
        with np.errstate(all="ignore"):
            c, value = self.project(theta, w)
        return theta, c, value

    def on(self, grid: Grid) -> Model:
        """The same model on another grid.

        Args:
            grid: points of the same interval.
        """
        other = copy(self)
        other.grid = grid
        return other

    def _place(self, form: Any) -> Rational:
        return Rational(form, self.grid.target.domain, dyadic(self.grid.centre), dyadic(self.grid.half))


@dataclass
class Projected:
    """The sum of squares of a model over theta alone, its linear parameters projected out."""

    model: Model
    """The model."""
    w: np.ndarray
    """Weights on its grid, shape (size,)."""
    last: tuple[np.ndarray, np.ndarray] | None = None
    """The theta of the last value, and its linear parameters: a step is taken from there."""

    def value(self, x: np.ndarray) -> float:
        """The sum of squares of the best fit for theta = x.

        Args:
            x: theta.
        """
        c, value = self.model.project(x, self.w)
        self.last = x, c
        return value

    def step(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Gauss-Newton problem there.

        Args:
            x: theta.
        """
        return self.model.step(x, self.w, self.last[1] if self.last and self.last[0] is x else None)


class Standard(Model):
    """Standard Pade without poles on the hull, by its poles: pairs u +- iv, and real poles 1/a, |a| < 1: one if n is
    odd, or as many as are asked for.

    theta = (u_1, log v_1, ..., a_1, ...). With m >= n - 1 the basis are partial fractions, which are
    well-conditioned for poles that cluster; else Chebyshev polynomials over q.
    """

    def __init__(self, grid: Grid, type: tuple[int, int], reals: int | None = None) -> None:
        super().__init__(grid, type)
        self.pairs = self.n // 2 if reals is None else (self.n - reals) // 2

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pairs = theta[: 2 * self.pairs].reshape(-1, 2)
        a = _INSIDE * np.tanh(theta[2 * self.pairs :])
        return pairs[:, 0], np.exp(np.clip(pairs[:, 1], -80, 80)), a

    def _q(self, theta: np.ndarray) -> np.ndarray:
        u, v, a = self._parts(theta)
        t = self.grid.t[:, None]
        return np.prod(((t - u) ** 2 + v**2) / (1 + u**2 + v**2), axis=1) * np.prod(1 - a * t, axis=1)

    def basis(self, theta: np.ndarray) -> np.ndarray:
        t = self.grid.t[:, None]
        if self.m < self.n - 1:
            return chebyshev.chebvander(self.grid.t, self.m) / self._q(theta)[:, None]
        u, v, a = self._parts(theta)
        d = t - u
        poly = chebyshev.chebvander(self.grid.t, self.m - self.n) if self.m >= self.n else t[:, :0]
        # t^k/(1 - a t) with the next power: neither dependent on the others nor lost as the pole 1/a moves out
        pole = t ** max(self.m - self.n + 1, 0) / (1 - a * t)
        return np.hstack([poly, v / (d**2 + v**2) * v, d / (d**2 + v**2) * v, pole])

    def slopes(self, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        u, v, a = self._parts(theta)
        t = self.grid.t[:, None]
        d = t - u
        out = np.empty((len(self.grid.t), len(theta)))
        k = len(u)
        if self.m < self.n - 1:
            r = (self.basis(theta) @ c)[:, None]
            norm = 1 + u**2 + v**2
            out[:, 0 : 2 * k : 2] = r * 2 * (d / (d**2 + v**2) + u / norm)
            out[:, 1 : 2 * k : 2] = -r * 2 * v**2 * (1 / (d**2 + v**2) - 1 / norm)
            out[:, 2 * k :] = r * t / (1 - a * t) * (_INSIDE - a**2 / _INSIDE)
            return out
        base = max(self.m - self.n + 1, 0)
        b, s = c[base : base + k], c[base + k : base + 2 * k]
        den = (d**2 + v**2) ** 2
        out[:, 0 : 2 * k : 2] = (b * 2 * d * v**2 + s * v * (d**2 - v**2)) / den
        out[:, 1 : 2 * k : 2] = (b * 2 * v**2 * d**2 + s * d * v * (d**2 - v**2)) / den
        out[:, 2 * k :] = c[base + 2 * k :] * t ** (base + 1) / (1 - a * t) ** 2 * (_INSIDE - a**2 / _INSIDE)
        return out

    def rational(self, theta: np.ndarray, c: np.ndarray) -> Rational:
        u, v, a = self._parts(theta)
        place = (self.grid.target.domain, dyadic(self.grid.centre), dyadic(self.grid.half))
        if self.m < self.n - 1:
            num = np.trim_zeros(chebyshev.cheb2poly(c), "b")
            if not len(num):
                return Rational.from_monomial([0.0], [1.0], *place)
            # the normalisation of q, by hand: prod (1 + u^2 + v^2) times prod (-1/a)
            zeros = np.roots(num[::-1])
            pairs = [(z.real, abs(z.imag)) if z.imag else float(z.real) for z in zeros if z.imag >= 0]
            active = a[a != 0]
            gain = num[-1] * np.prod(1 + u**2 + v**2) / np.prod(-active)
            poles = [*zip(u, v, strict=True), *(1 / active)]
            return Rational.from_factored(gain, pairs, poles, place[0], place[1], place[2])
        base, k = max(self.m - self.n + 1, 0), len(u)
        poly = chebyshev.cheb2poly(c[:base]) if base else np.zeros(0)
        b, s = c[base : base + k] * v**2, c[base + k : base + 2 * k] * v
        r = Rational.from_partial_fractions(poly, zip(s, b, u, v, strict=True), (), *place)
        if not len(a):
            return r
        num, den = r.form.exact()
        power = fmpq_poly([0, 1]) ** base
        for place_of, share in zip(a, c[base + 2 * k :], strict=True):
            linear = fmpq_poly([1, -dyadic(place_of)])
            num, den = num * linear + dyadic(share) * power * den, den * linear
        return Rational.from_monomial(num.coeffs() or [0], den.coeffs(), *place).to("factored")

    def start(self, rational: Rational) -> np.ndarray | None:
        poles = (rational.poles() - self.grid.centre) / self.grid.half
        pairs = sorted((p for p in poles if p.imag > 0), key=lambda p: p.imag)[: self.pairs]
        theta = [v for p in pairs for v in (p.real, np.log(p.imag))]
        # missing pairs start far out, where they change little
        theta += [0.1, np.log(3.0)] * (self.pairs - len(pairs))
        reals = self.n - 2 * self.pairs
        real = sorted((1 / p.real for p in poles if p.imag == 0 and abs(p.real) > 1), key=lambda a: -abs(a))[
            :reals
        ]
        theta += [float(np.arctanh(np.clip(a, -0.9999999999, 0.9999999999))) for a in real]
        theta += [0.05 * (k + 1) for k in range(reals - len(real))]
        return np.array(theta)

    def extended(self, theta: np.ndarray, below: Model) -> np.ndarray:
        if below.n == self.n:
            return theta
        if self.n % 2 and below.n == self.n - 1:
            return np.r_[theta, 0.0]
        k = 2 * (self.n // 2 - 1)
        # a new pair brings new columns and takes none away: any place does; the middle, of medium height, is
        # neutral
        return np.r_[theta[:k], 0.05, np.log(0.3), theta[k:]][: self.n]

    def linearised(self, rounds: int = 12) -> Rational:
        """The Sanathanan-Koerner iteration: min sum (w (p - f q)/q_last)^2 over p and q, repeated.

        Args:
            rounds: number of rounds.

        Returns:
            p/q; it may have poles on the hull.
        """
        P, Q = (chebyshev.chebvander(self.grid.t, k) for k in self.type)
        below, c = np.ones(len(self.grid.t)), np.zeros(self.m + 1 + self.n)
        for _ in range(rounds):
            w = self.grid.w / np.maximum(np.abs(below), 1e-12 * np.max(np.abs(below)))
            columns = w[:, None] * np.hstack([P, -self.grid.f[:, None] * Q[:, 1:]])
            norms = _norms(columns)
            c = np.linalg.lstsq(columns / norms, w * self.grid.f, rcond=1e-14)[0] / norms
            below = Q @ np.r_[1.0, c[self.m + 1 :]]
        place = (self.grid.target.domain, dyadic(self.grid.centre), dyadic(self.grid.half))
        return Rational.from_chebyshev(c[: self.m + 1], np.r_[1.0, c[self.m + 1 :]], *place)


class Safe(Model):
    """q = 1 + sum b_j |t|^j with b_j = exp(theta_j) (arXiv 2606.14990, eq. 3)."""

    def _poly(self) -> np.ndarray:
        # monomials: over a q that grows by many orders each has a place of its own, which Chebyshev's do not
        return np.vander(self.grid.t, self.m + 1, increasing=True)

    def _powers(self) -> np.ndarray:
        return np.abs(self.grid.t[:, None]) ** np.arange(1, self.n + 1)

    def _b(self, theta: np.ndarray) -> np.ndarray:
        b = np.exp(np.clip(theta, -100, 100))
        return np.where(b < 1e-17, 0.0, b)  # beside the 1 that q starts with

    def _q(self, theta: np.ndarray) -> np.ndarray:
        return 1 + self._powers() @ self._b(theta)

    def basis(self, theta: np.ndarray) -> np.ndarray:
        return self._poly() / self._q(theta)[:, None]

    def slopes(self, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        return -(self.basis(theta) @ c / self._q(theta))[:, None] * self._powers() * self._b(theta)

    def rational(self, theta: np.ndarray, c: np.ndarray) -> Rational:
        num = tuple(dyadic(v) for v in c)
        return self._place(SafePade(num, tuple(dyadic(v) for v in self._b(theta))))

    def start(self, rational: Rational) -> np.ndarray | None:
        b = np.abs(_in_t(rational, self.grid)[1 : self.n + 1])
        return _log(np.r_[b, np.zeros(self.n - len(b))])

    def extended(self, theta: np.ndarray, below: Model) -> np.ndarray:
        return np.r_[theta, np.full(self.n - below.n, theta.max(initial=0.0) - 38)]

    def linearised(self, rounds: int = 12) -> np.ndarray:
        """theta of the Sanathanan-Koerner iteration: min sum (w (p - f q)/q_last)^2 over p and b >= 0,
        repeated.

        Args:
            rounds: number of rounds.
        """
        f, q = self.grid.f, np.ones(len(self.grid.t))
        powers, poly = self._powers(), self._poly()
        b = np.zeros(self.n)
        for _ in range(rounds):
            w = self.grid.w / q
            # p is projected out, so that only the bounded unknowns are left, in a triangular system
            columns = w[:, None] * np.column_stack([poly, f[:, None] * powers])
            norms = _norms(columns)
            r = _triangle(np.column_stack([columns / norms, -w * f]))[self.m + 1 :, self.m + 1 :]
            b = lsq_linear(r[:, :-1], r[:, -1], (0, np.inf), method="bvls").x / norms[self.m + 1 :]
            q = 1 + powers @ b
        return _log(b)


class SafeB(Safe):
    """q = 1 + |sum b_j t^j|, theta = b."""

    def _powers(self) -> np.ndarray:
        return self.grid.t[:, None] ** np.arange(1, self.n + 1)

    def basis(self, theta: np.ndarray) -> np.ndarray:
        return self._poly() / (1 + np.abs(self._powers() @ theta))[:, None]

    def slopes(self, theta: np.ndarray, c: np.ndarray) -> np.ndarray:
        inner = self._powers() @ theta
        r = self.basis(theta) @ c
        return -(r / (1 + np.abs(inner)) * np.where(inner >= 0, 1, -1))[:, None] * self._powers()

    def rational(self, theta: np.ndarray, c: np.ndarray) -> Rational:
        num = tuple(dyadic(v) for v in c)
        return self._place(SafePadeB(num, tuple(dyadic(v) for v in theta)))

    def start(self, rational: Rational) -> np.ndarray | None:
        b = _in_t(rational, self.grid)[1 : self.n + 1]
        return np.r_[b, np.zeros(self.n - len(b))]

    def extended(self, theta: np.ndarray, below: Model) -> np.ndarray:
        return np.r_[theta, np.zeros(self.n - below.n)]


def _log(b: np.ndarray) -> np.ndarray:
    """log b, zeros raised to a millionth of the smallest other: the logarithm cannot leave 0."""
    return np.log(np.maximum(b, 1e-6 * np.min(b[b > 0], initial=1.0)))


def _triangle(matrix: np.ndarray) -> np.ndarray:
    """R of the QR factorisation of a tall matrix, by blocks.

    At this size the threads of the linear algebra library cost more than they bring, and small blocks start
    none.
    """
    size, columns = matrix.shape
    rows = max(2 * columns, 4000 // columns)
    blocks = -(-size // rows)
    padded = np.zeros((blocks * rows, columns))
    padded[:size] = np.where(np.isfinite(matrix), matrix, 1e150)
    r: Any = np.linalg.qr(padded.reshape(blocks, rows, columns), mode="r")
    return r[0] if blocks == 1 else _triangle(r.reshape(blocks * columns, columns))


def _norms(matrix: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.sum(matrix**2, axis=0))
    return np.where((norms > 0) & np.isfinite(norms), norms, 1.0)


def _solve(r: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Solve a triangular system; the shortest solution where it is singular to rounding."""
    diagonal = np.abs(np.diag(r))
    if np.all(diagonal > 1e-15 * diagonal.max(initial=0.0)):
        return solve_triangular(r, y)
    return np.linalg.lstsq(r, y, rcond=1e-15)[0]


def _in_t(rational: Rational, grid: Grid) -> np.ndarray:
    """Denominator coefficients in t, ascending, the first one 1 (or, where that is 0, the largest)."""
    if isinstance(rational.form, SafePade | SafePadeB):
        return np.array([1.0, *map(to_float, rational.form.b)])
    form = Rational.from_exact(
        *rational.exact(), rational.domain, "monomial", 53, grid.centre, grid.half
    ).form
    assert isinstance(form, Monomial)
    return np.array([to_float(c) for c in form.den])


def model(grid: Grid, type: tuple[int, int], denominator: str) -> Model:
    """The model of a denominator's name; raises ValueError for an unknown one.

    Args:
        grid: the sampled target.
        type: (m, n), the degrees of numerator and denominator.
        denominator: "standard", "safe" or "safe-b".
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"denominator={denominator!r}: expected one of {', '.join(map(repr, DENOMINATORS))}")
    return {"standard": Standard, "safe": Safe, "safe-b": SafeB}[denominator](grid, type)
