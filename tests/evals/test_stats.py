"""Fronts, hypervolumes, what is read off a front, verdicts: against plain counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.measures import KL
from evals.stats import Estimate, at_l0, front, hypervolume, ratio_interval, verdict

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def test_matched_l0_is_read_off_the_front():
    fvu, k5 = [(10.0, 0.4), (40.0, 0.1)], [(10.0, 0.9), (40.0, 0.7)]
    # the middle, in logarithms of both
    assert at_l0(20.0, fvu, ratio=True) == pytest.approx(0.2)
    assert at_l0(20.0, k5, pareto=False) == pytest.approx(0.8)
    assert at_l0(20.0, [*fvu, (20.0, 0.9)], ratio=True) == pytest.approx(0.2)
    assert at_l0(43.0, fvu, ratio=True) == pytest.approx(0.4 * 4.3**-1)  # a little beyond its end
    assert at_l0(50.0, fvu, ratio=True) is None
    assert at_l0(20.0, fvu[:1], ratio=True) is None


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points):
    kept = {points[i] for i in front(points)}
    wanted = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert kept == wanted
    assert len(front(points)) == len(kept)


@given(POINTS)
def test_the_hypervolume_is_the_area_that_is_dominated(points):
    """Corners are integers, so that unit cells can be counted."""
    cells = [(x, y) for x in range(7) for y in range(7)]
    counted = sum(any(x >= a and y >= b for a, b in points) for x, y in cells)
    assert hypervolume(points, (7.0, 7.0)) == counted


def test_verdicts_need_three_seeds_and_more_than_chance_gives():
    assert verdict([-0.1, -0.1], more=False) == "open"
    assert verdict([-0.1, -0.11, -0.12], more=False) == "win"
    assert verdict([-0.1, -0.11, -0.12], more=True) == "loss"
    assert verdict([-0.3, 0.1, 0.05], more=False) == "tie"
    assert verdict([-0.1, -0.2, -0.3], more=False) == "tie"  # 3.5 standard errors of three seeds


@given(st.lists(st.floats(-1, 1), min_size=2), st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans())
def test_what_is_not_finite_wins_nothing(gaps, odd, more):
    assert verdict([odd, *gaps], more) == "open"


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_chance_alone_wins_in_few_cases(seeds):
    rng = np.random.default_rng(0)
    found = [verdict(rng.normal(size=seeds).tolist(), more=True) for _ in range(4000)]
    assert 0.035 < 1 - found.count("tie") / len(found) < 0.065


def test_estimates():
    three = Estimate.of([1.0, 2.0, 3.0])
    assert (three.mean, three.se, three.n) == (2.0, pytest.approx(1 / math.sqrt(3)), 3)
    assert Estimate.of([5.0]) == Estimate(5.0, None, 1)
    values = np.random.default_rng(0).normal(size=(4000, 5))
    spread = np.std([Estimate.of(list(row)).mean for row in values])
    assert np.mean([Estimate.of(list(row)).se or 0.0 for row in values]) == pytest.approx(spread, rel=0.1)


def test_the_interval_of_a_ratio_covers_the_truth():
    """Against resampling groups one by one; and over many texts it covers the truth about 95 % of the time."""
    rng = np.random.default_rng(0)

    def text(groups: int = 40) -> tuple[list[float], list[int]]:
        counts = rng.integers(5, 60, groups)
        sums = counts * (1.0 + 0.3 * rng.normal(size=groups))
        return sums.tolist(), counts.tolist()

    sums, counts = text()
    slow = []
    for _ in range(2000):
        pick = rng.integers(0, len(sums), len(sums))
        slow.append(sum(sums[i] for i in pick) / sum(counts[i] for i in pick))
    found = ratio_interval(sums, counts)
    assert found is not None
    ratio = sum(sums) / sum(counts)
    wider = (40 / 39) ** 0.5 * 2.0227 / 1.96  # Student's t with 39 degrees of freedom, from a table
    expected = ratio + wider * (np.quantile(slow, (0.025, 0.975)) - ratio)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)
    for groups in (2, 3, 5, 10, 40):  # few, too
        intervals = [ratio_interval(*text(groups), resamples=400) for _ in range(300)]
        covered = [one is not None and one.low <= 1 <= one.high for one in intervals]
        assert 0.88 < np.mean(covered) <= 0.99, groups


@given(size=st.integers(1, 50), empty=st.integers(0, 3))
def test_one_group_has_no_interval(size, empty):
    """However many groups of nothing stand beside it: a width of 0 would look like certainty."""
    assert ratio_interval([0.7 * size, *[0.0] * empty], [size, *[0] * empty]) is None


@given(apart=st.floats(1.0001, 1.2), beyond=st.floats(1.0, 1.1))
def test_a_slope_is_read_no_further_than_its_cells_lie_apart(apart, beyond):
    """Two cells of nearly one l0 differ by noise: a tenth further on it would be any figure."""
    found = at_l0(10.0 * apart * beyond, [(10.0, 0.4), (10.0 * apart, 0.3)], ratio=True)
    assert found is None or 0.4 * (0.3 / 0.4) ** 2 - 1e-9 <= found <= 0.3 + 1e-9


def test_a_figure_of_nothing_has_no_logarithm():
    assert at_l0(2.0, [(1.0, 1.0), (4.0, 0.0)], ratio=True) == pytest.approx(0.5)
    assert KL.difference(0.0, 0.0) == 0.0
    assert KL.difference(0.1, 0.0) == math.inf
