"""Triton source of the pursuit; pursuit_cuda.py launches it. Shapes: B tokens, C candidates, F latents, D columns."""

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _times(G, c):
    """G c for a symmetric matrix, [C]."""
    return tl.sum(G * c[None, :], axis=1)


@triton.jit
def _solved(c, on, G, a, energy, steps, SIGNED: tl.constexpr):
    """Steps of conjugate gradients on the places `on`, never worse than c; with the error that is left."""
    b = a - _times(G, c)
    error = energy - tl.sum(c * (a + b), axis=0)
    g = tl.where(on, b, 0.0)
    p, square, new = g, tl.sum(g * g, axis=0), c
    for _ in range(steps):
        y = _times(G, p)
        alpha = square / tl.maximum(tl.sum(p * y, axis=0), 1.17549435e-38)
        new += alpha * p
        g = tl.where(on, g - alpha * y, 0.0)
        last = square
        square = tl.sum(g * g, axis=0)
        p = g + square / tl.maximum(last, 1.17549435e-38) * p
    if not SIGNED:
        new = tl.maximum(new, 0.0)
    found = energy - tl.sum(new * (2 * a - _times(G, new)), axis=0)
    better = found <= error
    return tl.where(better, new, c), tl.where(better, found, error)


@triton.jit
def pursue(
    x,
    W,
    pool,
    code,
    count,
    out,
    D,
    C,
    steps,
    rounds,
    candidates,
    eta,
    SIGNED: tl.constexpr,
    PLACES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The pursuit of a token among its candidates: all is known from their Gram matrix and their products with x.

    Args:
        x: Centred activations, [B, D].
        W: Unit decoder rows, [F, D].
        pool: Candidates of each token, [B, C], the open ones among them.
        code: The plain code at them, [B, C]; 0 where a gate is shut.
        count: How many gates of each token are open, [B].
        out: The pursued code at the candidates, written, [B, C].
        D: Columns.
        C: Candidates.
        steps: Of conjugate gradients in each solve.
        rounds: Decisions of the gate after the first.
        candidates: That a token looks at, unless more of its gates are open.
        eta: Step of the decision.
        SIGNED: Whether the code uses both signs.
        PLACES: C or more, a power of 2.
        COLUMNS: That are multiplied together.
    """
    b = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, PLACES)
    there = place < C
    latent = tl.load(pool + b * C + place, mask=there, other=0)
    c = tl.load(code + b * C + place, mask=there, other=0.0)
    G = tl.zeros((PLACES, PLACES), tl.float32)
    a = tl.zeros((PLACES,), tl.float32)
    energy = 0.0
    for first in range(0, D, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        mask = there[:, None] & (column < D)[None, :]
        some = tl.load(W + latent[:, None] * D + column[None, :], mask=mask, other=0.0)
        part = tl.load(x + b * D + column, mask=column < D, other=0.0)
        G = tl.dot(some, tl.trans(some), G, input_precision="tf32x3")
        a += tl.sum(some * part[None, :], axis=1)
        energy += tl.sum(part * part, axis=0)
    wanted = tl.load(count + b).to(tl.int32)
    inside = there & (place < tl.maximum(wanted, candidates))
    c, error = _solved(c, c != 0, G, a, energy, steps, SIGNED)
    for _ in range(rounds):
        score = c + eta * (a - _times(G, c))
        size = tl.where(inside, tl.abs(score) if SIGNED else score, float("-inf"))
        before = place[None, :] < place[:, None]
        larger = (size[None, :] > size[:, None]) | ((size[None, :] == size[:, None]) & before)
        keep = inside & (tl.sum(larger.to(tl.int32), axis=1) < wanted)
        if not SIGNED:
            keep = keep & (score > 0)
        other, found = _solved(tl.where(keep, score, 0.0), keep, G, a, energy, steps, SIGNED)
        c = tl.where(found <= error, other, c)
        error = tl.minimum(found, error)
    tl.store(out + b * C + place, c, mask=there)
