import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approx.fit.equilibrium import equilibrium


@given(st.floats(-3, 3), st.floats(0.01, 5), st.integers(2, 60))
def test_of_one_interval_they_are_chebyshev_points(low, length, count):
    x = equilibrium([(low, low + length)], count)
    steps = np.pi * np.arange(count) / (count - 1)
    assert x == pytest.approx(low + length * (1 - np.cos(steps)) / 2, abs=1e-12)


@given(st.floats(1e-6, 0.95), st.integers(1, 40))
def test_squares_make_one_interval_of_two_symmetric_ones(a, half):
    # x^2 maps the measure of [-1, -a] u [a, 1] to that of [a^2, 1]
    count = 2 * half + 1
    x = equilibrium([(-1, -a), (a, 1)], count)
    angle = np.pi * np.arange(half) / half
    right = np.sqrt(a * a + (1 - a * a) * (1 + np.cos(angle)) / 2)
    assert x[:half] == pytest.approx(-right, abs=2e-3)
    assert x[half + 1 :] == pytest.approx(right[::-1], abs=2e-3)


@given(
    st.lists(st.floats(0.05, 2), min_size=5, max_size=9).filter(lambda v: len(v) % 2 == 1),
    st.integers(3, 200),
)
def test_points_lie_in_the_domain_and_ascend(lengths, count):
    ends = np.cumsum([-1.0, *lengths])
    domain = list(zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True))
    x = equilibrium(domain, count)
    assert np.all(np.diff(x) > 0)
    assert all(any(a <= s <= b for a, b in domain) for s in x)
    assert x[0] == ends[0]
    assert x[-1] == ends[-1]


def test_products_of_distances_are_as_large_on_each_interval():
    """The Fekete property: the potential of the points is level on the domain, and lower nowhere but there."""
    domain = [(-1.0, -0.3), (0.0, 0.2), (0.5, 1.0)]
    nodes = equilibrium(domain, 400)
    potential = [
        np.mean(np.log(np.abs(np.linspace(a, b, 37)[1:-1, None] + 1e-9 - nodes)), axis=1).mean()
        for a, b in domain
    ]
    assert np.ptp(potential) < 0.02
    gap = np.mean(np.log(np.abs(np.array([-0.15, 0.35])[:, None] - nodes)), axis=1)
    assert np.all(gap > max(potential) + 0.02)
