import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approx.domain import Domain


@pytest.mark.parametrize("domain", [(1, 0), (0, 0), [(0, 1), (1, 2)], (0, np.inf), [], "ab", [(0, 1, 2)]])
def test_malformed_domains_are_refused(domain):
    with pytest.raises(ValueError, match="domain"):
        Domain(domain)


def test_a_domain_is_the_tuple_of_its_intervals():
    d = Domain([(1, 2), (-1, 0.5)])
    assert d == ((-1.0, 0.5), (1.0, 2.0))
    assert d.hull == (-1, 2)
    assert d.edges == (-1, 0.5, 1, 2)
    assert d.gaps == ((0.5, 1),)
    assert d.length == 2.5
    assert d.contains([-1, 0.75, 1.5, 3]).tolist() == [True, False, True, False]
    assert str(d) == "[-1, 0.5] u [1, 2]"
    assert d.split([0, 0.7, 1.25, 5]) == [(-1, 0), (0, 0.5), (1, 1.25), (1.25, 2)]
    assert d.without(0, 1.5) == ((-1, 0), (1.5, 2))
    assert Domain(d) is d


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8, unique=True), st.floats(-10, 10))
def test_parts_and_gaps_fill_the_hull(ends, place):
    ends = sorted(ends)[: len(ends) // 2 * 2]
    d = Domain(list(zip(ends[::2], ends[1::2], strict=True)))
    assert d.length + sum(b - a for a, b in d.gaps) == pytest.approx(d.hull[1] - d.hull[0])
    assert sum(b - a for a, b in d.split([place])) == pytest.approx(d.length)
    assert d.contains(d.edges).all()
    assert pickle.loads(pickle.dumps(d)) == d
