from __future__ import annotations

import approx as targets
from approx.proofs import Certificate, certify
from approx.proofs.bounds import Error, alternation, branches
from approx.zolotarev import zolotarev_sign


def test_alternation_counts_and_orders():
    s = zolotarev_sign(1, 0.1)
    c = certify(s, targets.sign(0.1))
    assert isinstance(c, Certificate)
    error, points = Error(c.target, branches(s, c.target)), c.points
    assert len(points) == 3 + 2 + 2
    assert alternation(error, points, (3, 2), c.rel) >= c.best > 0
    assert alternation(error, points[:-1], (3, 2), c.rel) == 0
    assert alternation(error, points[::-1], (3, 2), c.rel) == 0
    assert alternation(error, (*points[:-1], points[-2]), (3, 2), c.rel) == 0
    assert alternation(error, points, (3, 3), c.rel) == 0
    assert alternation(error, points, (2, 2), c.rel) == 0
