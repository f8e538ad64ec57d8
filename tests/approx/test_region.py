"""Regions: their points lie where they should, and their balls hold them."""

import numpy as np
import pytest
from flint import acb
from hypothesis import given
from hypothesis import strategies as st

from approx import Region

REGIONS = [
    Region.disc(1 + 2j, 3),
    Region.circle(-1, 0.5),
    Region.arc(0.3, 2.9, 1j, 2),
    Region.segment(1 - 1j, 2 + 3j),
    Region.rectangle(-1 - 2j, 3 + 0.5j),
]


@pytest.mark.parametrize("region", REGIONS, ids=lambda r: r.name)
def test_points_lie_on_the_curve(region):
    z = region.sample(200)
    assert len(z) >= 190
    match region.name:
        case "disc" | "circle" | "arc":
            part = region.parts[0]
            assert np.abs(z - part.centre) == pytest.approx(part.radius)
        case "segment":
            assert np.imag((z - (1 - 1j)) / (1 + 4j)) == pytest.approx(0, abs=1e-12)
        case _:
            assert np.all((z.real == -1) | (z.real == 3) | (z.imag == -2) | (z.imag == 0.5))


@given(st.sampled_from(REGIONS), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_balls_hold_the_points(region, a, b, share):
    low, high = min(a, b), max(a, b)
    for part in region.parts:
        point = complex(part.at(np.array([low + share * (high - low)]))[0])
        gap = abs(part.ball(low, high) - acb(point))
        assert float(gap.lower()) < 1e-14


def test_what_lies_outside():
    disc, box = REGIONS[0], REGIONS[-1]
    assert disc.surely_outside(acb(1, 5.001))
    assert not disc.surely_outside(acb(1, 4.999))
    assert not disc.surely_outside(acb(1, 5))
    assert box.surely_outside(acb(3.001, 0))
    assert box.surely_outside(acb(0, -2.5))
    assert not box.surely_outside(acb(0, 0))
    assert not box.surely_outside(acb(3, 0.5))
