import json
import pickle

import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import CompositePower, chebyshev_bound, composite_inverse, composite_inverse_sqrt
from approx.dyadic import precision
from approx.floating_point import rounded

intervals = st.tuples(st.floats(1e-3, 1e3), st.floats(1.01, 1e3)).map(lambda v: (v[0], v[0] * v[1]))
MAKERS = {-1.0: composite_inverse, -0.5: composite_inverse_sqrt}


@given(
    intervals,
    st.sampled_from([-1.0, -0.5]),
    st.lists(st.sampled_from([3, 5, 7]), min_size=1, max_size=4),
    st.sampled_from(["float64", "float32", "bfloat16"]),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_the_error_is_a_bound(interval, power, degrees, dtype, data):
    try:
        chain = MAKERS[power](interval, tuple(degrees), dtype=dtype)
    except ValueError:
        assert dtype == "bfloat16"  # an image that reaches 0
        return
    a, b = interval
    places = [a, b, *np.geomspace(a, b, 40)[1:-1], data.draw(st.floats(a, b))]
    with precision(300):
        errors = [abs(1 - arb(x) ** arb(-power) * chain(arb(x))) for x in places]
        assert all(e <= arb(chain.error) for e in errors)
    assert all(rounded(c, dtype) == c for row in chain.coefficients() for c in row)


@given(intervals, st.lists(st.integers(2, 5), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_steps_for_the_inverse_make_chebyshevs_polynomial_of_the_product_of_the_degrees(interval, degrees):
    chain = composite_inverse(interval, tuple(degrees))
    a, b = interval
    best = chebyshev_bound(a, b, int(np.prod(degrees)))
    assert best * (1 - 1e-9) - 1e-14 <= chain.error <= best * (1 + 1e-6) + 1e-12


@given(intervals, st.lists(st.sampled_from([3, 5]), min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_steps_for_the_root_are_those_of_the_sign(interval, degrees):
    chain = composite_inverse_sqrt(interval, tuple(degrees))
    lower = float(np.sqrt(interval[0] / interval[1]))
    assert chain.error == pytest.approx(
        approx.composite_sign(lower, tuple(degrees)).error, rel=1e-6, abs=1e-12
    )


def test_a_wanted_error_is_reached_with_the_fewest_steps():
    for make, degree in ((composite_inverse, 2), (composite_inverse_sqrt, 3)):
        chain = make((0.01, 4), degree, error=1e-6)
        assert chain.error <= 1e-6
        assert make((0.01, 4), (degree,) * (len(chain.steps) - 1)).error > 1e-6
    with pytest.raises(ValueError, match="finer dtype"):
        composite_inverse((0.01, 4), 2, error=1e-6, dtype="bfloat16", safety=0.01)


def test_newton_and_schulz_take_more_steps():
    x, y, steps = np.geomspace(1e-3, 1, 2001), np.full(2001, 2 / 1.001), 0
    while np.max(np.abs(1 - x * y)) > 1e-6:
        y, steps = y * (2 - x * y), steps + 1
    assert len(composite_inverse((1e-3, 1), 2, error=1e-6).steps) < steps


def test_it_can_be_written_and_pickled_and_is_proven_when_it_is_read(tmp_path):
    chain = composite_inverse_sqrt((0.1, 3), (3, 5), dtype="float32", safety=1e-3)
    chain.save(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert CompositePower.from_json(data) == chain
    assert pickle.loads(pickle.dumps(chain)) == chain
    data["images"][0][1] = (1.0).hex()
    with pytest.raises(ValueError, match="too small"):
        CompositePower.from_json(data)
    with pytest.raises(ValueError, match="malformed"):
        CompositePower.from_json({"kind": "composite_power", "version": 1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"interval": (0, 1)}, "above 0"),
        ({"interval": (-1, 1)}, "above 0"),
        ({"degrees": (1,)}, "degrees"),
        ({"degrees": ()}, "degrees"),
        ({"degrees": (2, 2), "error": 0.1}, "one degree"),
        ({"error": 2}, "error"),
        ({"safety": 0.7}, "safety"),
        ({"dtype": "float8"}, "dtype"),
        ({"safety": None}, "safety"),
        ({"interval": (1e-100, 1e100), "degrees": 3, "error": 0.5}, "209 steps of degree 3 at least"),
    ],
)
def test_wrong_arguments_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        composite_inverse(**({"interval": (1, 2)} | options))
    with pytest.raises(ValueError, match="odd degrees"):
        composite_inverse_sqrt((1, 2), (4,))
