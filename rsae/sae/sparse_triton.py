"""Triton source of the sparse products; sparse_cuda.py launches it. Shapes: B bags, N entries, R rows, D columns,
F latents."""

# pyright: reportArgumentType=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def bag(index, rows, start, weight, out, D, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):
    """Weighted sums of rows: a program adds up a tile of one bag's columns, a few entries at a time.

    Args:
        index: The row of each entry, [N].
        rows: The rows, [R, D].
        start: Where each bag begins among the entries, [B + 1].
        weight: Of each entry, [N].
        out: What is written, [B, D].
        D: Columns.
        ENTRIES: That are read together.
        COLUMNS: Of a tile.
    """
    b = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < D
    last = tl.load(start + b + 1)
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(tl.load(start + b), last, ENTRIES):
        n = first + tl.arange(0, ENTRIES)
        there = n < last
        row = tl.load(index + n, mask=there, other=0)
        factor = tl.load(weight + n, mask=there, other=0.0).to(tl.float32)
        mask = there[:, None] & inside[None, :]
        some = tl.load(rows + row[:, None] * D + column[None, :], mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(factor[:, None] * some, axis=0)
    tl.store(out + b * D + column, total, mask=inside)


@triton.jit
def products(row, latent, x, W, out, N, D, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):
    """Products of vectors at places: a program takes some places, and adds up tiles of their columns.

    Args:
        row: The row of each place, [N].
        latent: The latent of each place, [N].
        x: A vector a row, [B, D].
        W: A vector a latent, [F, D].
        out: What is written, [N].
        N: Places.
        D: Columns.
        ENTRIES: Places of a program.
        COLUMNS: Of a tile.
    """
    n = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    there = n < N
    of_x = tl.load(row + n, mask=there, other=0)[:, None] * D
    of_W = tl.load(latent + n, mask=there, other=0)[:, None] * D
    total = tl.zeros((ENTRIES,), tl.float32)
    for first in range(0, D, COLUMNS):
        column = (first + tl.arange(0, COLUMNS))[None, :]
        mask = there[:, None] & (column < D)
        one = tl.load(x + of_x + column, mask=mask, other=0.0).to(tl.float32)
        other = tl.load(W + of_W + column, mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(one * other, axis=1)
    tl.store(out + n, total, mask=there)


@triton.jit
def largest(
    x,
    W,
    bias,
    out,
    B,
    F,
    D,
    ROWS: tl.constexpr,
    LATENTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    KEPT: tl.constexpr,
):
    """The largest of a tile of pre-activations x W + b, which are not written: each with its latent, as one number.

    Args:
        x: A token a row, [B, D].
        W: The encoder, a latent a row, [F, D].
        bias: Of each latent, [F].
        out: What is written, [B, tiles, KEPT]: the value's bits, in an order that integers keep, above the latent.
        B: Tokens.
        F: Latents.
        D: Columns.
        ROWS: Tokens of a tile.
        LATENTS: Of a tile.
        COLUMNS: That are multiplied together.
        KEPT: How many of each token, a power of 2.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    latent = tl.program_id(1) * LATENTS + tl.arange(0, LATENTS)
    h = tl.zeros((ROWS, LATENTS), tl.float32)
    for first in range(0, D, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        mask_x = (row < B)[:, None] & (column < D)[None, :]
        mask_W = (latent < F)[None, :] & (column < D)[:, None]
        one = tl.load(x + row.to(tl.int64)[:, None] * D + column[None, :], mask=mask_x, other=0.0)
        other = tl.load(W + latent.to(tl.int64)[None, :] * D + column[:, None], mask=mask_W, other=0.0)
        h = tl.dot(one, other, h, input_precision="ieee")
    h += tl.load(bias + latent, mask=latent < F, other=0.0)[None, :]
    h = tl.where((latent < F)[None, :], h, float("-inf"))
    h = tl.where(h == h, h, float("-inf"))  # what is no number has no order
    bits = h.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # negative floats grow as their bits shrink
    key = (bits.to(tl.int64) << 32) | latent.to(tl.int64)[None, :]
    best = tl.topk(key, KEPT)
    place = (row.to(tl.int64)[:, None] * tl.num_programs(1) + tl.program_id(1)) * KEPT
    tl.store(out + place + tl.arange(0, KEPT)[None, :], best, mask=(row < B)[:, None])
