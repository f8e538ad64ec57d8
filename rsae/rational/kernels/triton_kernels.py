"""Triton source of the rational activation; cuda.py launches it. Parameters are laid out as `reference.Shape` says."""

# pyright: reportArgumentType=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _row(parameters, k, F, column, inside):
    return tl.load(parameters + k * F + column, mask=inside, other=1.0)[None, :]


@triton.jit
def _horner(t, parameters, first, n, F, column, inside):
    """sum_{j < n} c_j t^j and its derivative."""
    value = tl.zeros_like(t)
    slope = tl.zeros_like(t)
    for i in range(n):
        slope = value + slope * t
        value = _row(parameters, first + n - 1 - i, F, column, inside) + value * t
    return value, slope


@triton.jit
def _denominator(t, parameters, P: tl.constexpr, Q: tl.constexpr, ABSOLUTE: tl.constexpr, F, column, inside):
    """1 / Q(t), dQ/dt, and what multiplies x^j in dQ/db_j: x and the outer sign."""
    x = tl.abs(t) if ABSOLUTE == 1 else t
    inner, inner_slope = _horner(x, parameters, P + 1, Q, F, column, inside)
    total = x * inner
    slope = inner + x * inner_slope
    outer = tl.full(t.shape, 1.0, tl.float32)
    if ABSOLUTE == 1:
        slope = slope * tl.where(t > 0, 1.0, tl.where(t < 0, -1.0, 0.0))
    if ABSOLUTE == 2:
        outer = tl.where(total > 0, 1.0, tl.where(total < 0, -1.0, 0.0))
    return 1.0 / (1.0 + outer * total), outer * slope, x, outer


@triton.jit
def forward(
    h,
    out,
    parameters,
    B,
    F,
    PAIRS: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """phi of a tile.

    Args:
        h: Pre-activations, [B, F].
        out: What is written, [B, F].
        parameters: As `reference.Shape` lays them out, [., F].
        B: Rows.
        F: Latents.
        PAIRS: Pole pairs; 0 for the Pade forms.
        P: Degree of the numerator.
        Q: Degree of the denominator.
        ABSOLUTE: Which denominator; see `reference.Shape`.
        ROWS: Of a tile.
        COLUMNS: Of a tile.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < F
    place = row.to(tl.int64)[:, None] * F + column[None, :]
    mask = (row < B)[:, None] & inside[None, :]
    n: tl.constexpr = 2 + 4 * PAIRS if PAIRS else P + 1 + Q
    t = tl.load(h + place, mask=mask, other=0.0).to(tl.float32) * _row(parameters, n, F, column, inside)
    if PAIRS:
        r = _row(parameters, 0, F, column, inside) + _row(parameters, 1, F, column, inside) * t
        for j in range(2, 2 + PAIRS):
            s = t - _row(parameters, j + 2 * PAIRS, F, column, inside)
            top = _row(parameters, j + PAIRS, F, column, inside) + _row(parameters, j, F, column, inside) * s
            r += top / (s * s + _row(parameters, j + 3 * PAIRS, F, column, inside))
    else:
        numerator, _ = _horner(t, parameters, 0, P + 1, F, column, inside)
        inverse, _, _, _ = _denominator(t, parameters, P, Q, ABSOLUTE, F, column, inside)
        r = numerator * inverse
    tl.store(out + place, _row(parameters, n + 1, F, column, inside) * r, mask=mask)


@triton.jit
def backward(
    h,
    grad,
    grad_h,
    parameters,
    sums,
    B,
    F,
    COUNT,
    PAIRS: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradients of a tile: to h, and sums over its rows to the parameters.

    Args:
        h: Pre-activations, [B, F].
        grad: Gradient of the output, [B, F].
        grad_h: What is written, [B, F].
        parameters: As `reference.Shape` lays them out, [., F].
        sums: What is written: each program's part of the parameters' gradient.
        B: Rows.
        F: Latents.
        COUNT: Parameters a latent.
        PAIRS: Pole pairs; 0 for the Pade forms.
        P: Degree of the numerator.
        Q: Degree of the denominator.
        ABSOLUTE: Which denominator; see `reference.Shape`.
        ROWS: Of a tile.
        COLUMNS: Of a tile.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < F
    place = row.to(tl.int64)[:, None] * F + column[None, :]
    mask = (row < B)[:, None] & inside[None, :]
    n: tl.constexpr = 2 + 4 * PAIRS if PAIRS else P + 1 + Q
    scale = _row(parameters, n, F, column, inside)
    height = _row(parameters, n + 1, F, column, inside)
    x = tl.load(h + place, mask=mask, other=0.0).to(tl.float32)
    g_out = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
    t = x * scale
    g = g_out * height
    to = sums + tl.program_id(0).to(tl.int64) * COUNT * F + column
    if PAIRS:
        slope = tl.zeros_like(t) + _row(parameters, 1, F, column, inside)
        r = _row(parameters, 0, F, column, inside) + slope * t
        tl.store(to, tl.sum(g, axis=0), mask=inside)
        tl.store(to + F, tl.sum(g * t, axis=0), mask=inside)
        for j in range(2, 2 + PAIRS):
            alpha = _row(parameters, j, F, column, inside)
            s = t - _row(parameters, j + 2 * PAIRS, F, column, inside)
            inverse = 1.0 / (s * s + _row(parameters, j + 3 * PAIRS, F, column, inside))
            q = (_row(parameters, j + PAIRS, F, column, inside) + alpha * s) * inverse
            d = (alpha - 2.0 * s * q) * inverse
            r += q
            slope += d
            tl.store(to + j * F, tl.sum(g * inverse * s, axis=0), mask=inside)
            tl.store(to + (j + PAIRS) * F, tl.sum(g * inverse, axis=0), mask=inside)
            tl.store(to + (j + 2 * PAIRS) * F, -tl.sum(g * d, axis=0), mask=inside)
            tl.store(to + (j + 3 * PAIRS) * F, -tl.sum(g * inverse * q, axis=0), mask=inside)
    else:
        numerator, numerator_slope = _horner(t, parameters, 0, P + 1, F, column, inside)
        inverse, q_slope, y, outer = _denominator(t, parameters, P, Q, ABSOLUTE, F, column, inside)
        r = numerator * inverse
        slope = (numerator_slope - r * q_slope) * inverse
        power = g * inverse
        for j in range(P + 1):
            tl.store(to + j * F, tl.sum(power, axis=0), mask=inside)
            power = power * t
        power = -g * inverse * r * outer * y
        for j in range(Q):
            tl.store(to + (P + 1 + j) * F, tl.sum(power, axis=0), mask=inside)
            power = power * y
    tl.store(grad_h + place, g * slope * scale, mask=mask)
    tl.store(to + n * F, tl.sum(g * slope * x, axis=0), mask=inside)
    tl.store(to + (n + 1) * F, tl.sum(g_out * r, axis=0), mask=inside)
