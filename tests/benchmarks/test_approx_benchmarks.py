"""Side by side with baryrat's BRASIL and SciPy's AAA: time and error against the truth.

    pytest tests/benchmarks --benchmark-only --benchmark-group-by=group

The group is the problem; `extra_info` holds the error and how far it is above the truth. The truth are best
errors from the literature where there are some (`LITERATURE`), else lower bounds on the best error, certified.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest

import approx

PROBLEMS = {
    "|x| (10,10)": (approx.absolute(), (10, 10)),
    "|x| (20,20)": (approx.absolute(), (20, 20)),
    "|x| (40,40)": (approx.absolute(), (40, 40)),
    "|x| (80,80)": (approx.absolute(), (80, 80)),
    "sqrt (10,10)": (approx.sqrt(), (10, 10)),
    "sqrt (20,20)": (approx.sqrt(), (20, 20)),
    "sqrt (40,40)": (approx.sqrt(), (40, 40)),
    "ReLU (9,8)": (approx.relu(), (9, 8)),
    "ReLU (19,18)": (approx.relu(), (19, 18)),
    "JumpReLU (9,8)": (approx.jump_relu(), (9, 8)),
    "JumpReLU (19,18)": (approx.jump_relu(), (19, 18)),
    "exp (4,4)": (approx.exp(), (4, 4)),
    "exp (9,8)": (approx.exp(), (9, 8)),
    "exp (19,18)": (approx.exp(), (19, 18)),
}
LITERATURE = {
    "|x| (40,40)": 1.56132885699e-8,
    "sqrt (20,20)": 1.56132885699e-8,
    "JumpReLU (9,8)": 4.678540127070067e-4,
}
SQUARE = [name for name, (_, (m, n)) in PROBLEMS.items() if m == n]


@cache
def truth(name: str) -> float:
    if name in LITERATURE:
        return LITERATURE[name]
    target, type = PROBLEMS[name]
    proof = approx.certify(approx.minimax(target, type).rational, target, type=type)
    assert isinstance(proof, approx.Certificate)
    assert 0 < proof.best_lower <= proof.upper <= proof.best_lower * (1 + 1e-8)
    return proof.best_lower


def largest(target: approx.Target, r) -> float:
    x = np.unique(
        np.concatenate(
            [
                np.r_[np.linspace(a, b, 50001), a + (b - a) * np.geomspace(1e-30, 1, 4001)]
                for a, b in target.domain
            ]
            + [np.r_[-1, 1][:, None].repeat(4001, 1).ravel() * np.tile(np.geomspace(1e-20, 1, 4001), 2)]
        )
    )
    x = x[np.logical_or.reduce([(x >= a) & (x <= b) for a, b in target.domain])]
    return float(np.max(np.abs(target(x) - r(x))))


def note(benchmark, name: str, error: float) -> None:
    benchmark.extra_info |= {"error": error, "above the truth": error / truth(name) - 1}


@pytest.mark.parametrize("name", PROBLEMS)
def test_minimax(benchmark, name):
    benchmark.group = name
    fit = benchmark.pedantic(approx.minimax, PROBLEMS[name], rounds=1, warmup_rounds=1)
    note(benchmark, name, fit.error)
    assert fit.converged
    assert fit.error == pytest.approx(truth(name), rel=1e-6)
    if name == "|x| (40,40)":
        assert benchmark.stats.stats.max <= 5


@pytest.mark.parametrize("name", SQUARE)
def test_minimax_to_brasils_tolerance(benchmark, name):
    benchmark.group = name
    fit = benchmark.pedantic(approx.minimax, PROBLEMS[name], {"tolerance": 1e-4}, rounds=1, warmup_rounds=1)
    note(benchmark, name, fit.error)
    assert fit.error == pytest.approx(truth(name), rel=2e-4)


@pytest.mark.filterwarnings("ignore:divide by zero")  # BRASIL's own, where its interpolant meets a node
@pytest.mark.parametrize("name", SQUARE)
def test_brasil(benchmark, name):
    benchmark.group = name
    baryrat = pytest.importorskip("baryrat")
    target, (n, _) = PROBLEMS[name]
    r = benchmark.pedantic(baryrat.brasil, (target, target.hull, n), rounds=1)
    note(benchmark, name, largest(target, r))


@pytest.mark.filterwarnings("ignore:AAA failed to converge")  # the type is given, and no tolerance
@pytest.mark.parametrize("name", PROBLEMS)
def test_aaa(benchmark, name):
    benchmark.group = name
    from scipy.interpolate import AAA

    target, (_, n) = PROBLEMS[name]
    x = np.concatenate([np.linspace(a, b, 2001) for a, b in target.domain])
    r = benchmark.pedantic(
        lambda: AAA(x, target(x), max_terms=n + 1, clean_up=False, rtol=0), rounds=1, warmup_rounds=1
    )
    note(benchmark, name, largest(target, r))


@pytest.mark.parametrize("name", ["ReLU (19,18)", "JumpReLU (19,18)", "exp (19,18)", "sqrt (20,20)"])
def test_certificate(benchmark, name):
    benchmark.group = name
    fit = approx.minimax(*PROBLEMS[name])
    certificate = benchmark.pedantic(approx.certify, (fit.rational, fit.target), rounds=1, warmup_rounds=1)
    note(benchmark, name, certificate.upper)
    assert certificate.best_lower <= certificate.upper <= certificate.best_lower * (1 + 1e-6)
    assert benchmark.stats.stats.max <= 2


def test_not_slower_than_brasil_where_it_succeeds(benchmark):
    """sqrt in type (40, 40) to a relative accuracy of 1e-4, both in this run."""
    baryrat = pytest.importorskip("baryrat")
    target = approx.sqrt()

    def clock(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def best_of_three() -> list[float]:
        """In turns: a shared machine has its moods."""
        pair = (
            partial(approx.minimax, target, (40, 40), tolerance=1e-4),
            partial(baryrat.brasil, target, (0, 1), 40),
        )
        return np.min([[clock(run) for run in pair] for _ in range(3)], axis=0).tolist()

    approx.minimax(target, (3, 3))
    ours, theirs = benchmark.pedantic(best_of_three, rounds=1)
    benchmark.extra_info |= {"ours": ours, "theirs": theirs}
    assert ours <= theirs
