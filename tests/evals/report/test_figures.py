from __future__ import annotations

import numpy as np
from matplotlib.path import Path as Outline

from evals.measures import ALIVE, L0
from evals.report.figures import Looks, limits, planes, sweet_zone
from evals.results import Role
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
