from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from evals.measures import ALIVE, L0
from evals.metrics.ground_truth import GroundTruth
from evals.report import figures
from evals.report.figures import Looks, limits, planes, sweet_zone
from evals.results import Level, Role
from evals.truth import TruthCell
from tests.evals.helpers import control, result, tuned


def test_the_sweet_zone_is_what_dominates_a_teacher():
    rng = np.random.default_rng(0)

    def figures(best: float = 1) -> dict[str, float]:
        drawn = {key: rng.uniform(best, 50) for key in ("l0", "mse", "fvu", "kl", "dce")}
        return {**drawn, "k1": rng.uniform(0.5, 1) - 0.005 * best, "alive": rng.uniform(0.3, 1) - 0.01 * best}

    cells = [result(**figures(best=20)) if i < 6 else tuned(**figures()) for i in range(300)]
    for axes in planes(cells):
        outline = Outline(np.column_stack(sweet_zone(cells, axes)))
        every = [axes.cost(r) for r in cells[:6]]
        teachers = [p for p in every if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in every)]
        inside = [outline.contains_point((axes.x.of(r), axes.y.of(r))) for r in cells[6:]]
        wanted = [any(x < a and y < b for a, b in teachers) for x, y in map(axes.cost, cells[6:])]
        assert inside == wanted
        assert any(inside)
        assert not all(inside)
    low, high = limits(cells, L0, log=True)
    assert low < min(map(L0.of, cells)) < max(map(L0.of, cells)) < high
    assert limits([result()], ALIVE, log=False) == (0.95, 1.002)
    low, high = limits([result(l0=31.9999), result(l0=32)], L0, log=True)
    assert low < 31.5 < 32.5 < high  # rounding does not fill the axis


def test_series_are_told_apart():
    cells = [result(), tuned(), control(), result(Role.START, "gated", "control")]
    looks = Looks(cells)
    assert [looks.name(r) for r in cells] == ["teacher", "gated", "control", "gated-init"]
    assert len({looks.style(r).symbol for r in cells}) == 4
    assert [looks.style(r).hollow for r in cells] == [False, False, False, True]
    alone = Looks([result(d_sae=16), result(d_sae=32)])
    assert alone.name(result(d_sae=32)) == "jump_relu 32"
    assert alone.style(result(d_sae=16)) != alone.style(result(d_sae=32))
    assert [title for title, _ in looks.panels(cells)] == ["jump_relu"]


def test_known_features_against_l0():
    """A figure a world: the mean over seeds at each level, and where the true l0 lies."""
    cells = [
        TruthCell(
            "top_k",
            8,
            Level("k", k),
            seed,
            None,
            Role.TEACHER,
            None,
            "",
            truth(k, 0.1 * k + 0.01 * seed),
            noise,
        )
        for k in (2, 4)
        for seed in (0, 1)
        for noise in (0.0, 0.5)
    ]
    (first, figure), (second, _) = figures.truths(cells)
    assert ("noise 0;" in first, "noise 0.5;" in second) == (True, True)
    (line,) = figure["data"]
    assert line["x"] == [2, 4]
    assert line["y"] == pytest.approx([0.205, 0.405])
    assert line["error_y"]["array"] == pytest.approx([0.005, 0.005])
    assert figure["layout"]["shapes"][0]["x0"] == 3.0


def truth(l0: float, f1: float) -> GroundTruth:
    figures_ = {f.name: 0.0 for f in fields(GroundTruth)} | {"l0": l0, "f1": f1, "true_l0": 3.0}
    return GroundTruth(**figures_)  # type: ignore[arg-type]


def test_series_are_told_apart_without_colour():
    filled = [figures._TEACHER, *figures._UPGRADES, *figures._CONTROLS, *figures._BESIDE]
    for marks in ([look.symbol for look in filled], [look.marker for look in filled]):
        assert len(set(marks)) == len(marks)
