import copy
from itertools import pairwise

import numpy as np
import pytest
from flint import arb

from approx import composite_inverse, composite_inverse_sqrt, composite_sign
from approx.dyadic import precision
from tests.approx.helpers import changed

CHAINS = {
    "sign": lambda: composite_sign(0.1, (3, 5), dtype="float32", safety=0.01),
    "rational": lambda: composite_sign(0.1, (3, 3), "rational"),
    "inverse": lambda: composite_inverse((0.5, 3), (2, 3), safety=0.01),
    "root": lambda: composite_inverse_sqrt((0.5, 3), (3, 3), dtype="bfloat16"),
}


def largest_error(chain):
    """The largest error on many points, without the rounding of the arithmetic."""
    if chain.kind == "composite_sign":
        x = np.geomspace(chain.lower, 1, 60)
        x, power = np.r_[-x, x], 0
    else:
        low, high = chain.interval
        x, power = np.geomspace(low, high, 60), -chain.power
    with precision(200):
        scales = [arb(v) ** arb(power) if power else arb(np.sign(v)) for v in x.tolist()]
        return max(abs(1 - s * chain(arb(v))) for s, v in zip(scales, x.tolist(), strict=True))


@pytest.mark.parametrize("name", CHAINS)
def test_a_record_that_is_changed_is_refused_or_its_claim_is_true(name):
    chain = CHAINS[name]()
    record = chain.to_json()
    read, refusals = 0, []
    for forged in changed(record):
        try:
            other = type(chain).from_json(copy.deepcopy(forged))
        except ValueError as error:
            refusals.append(str(error))
            continue
        read += 1
        assert largest_error(other) <= arb(other.error)
        assert other.error == forged["error"]
        assert other.coefficients() == forged["coefficients"]
        assert all(a < b for a, b in pairwise([0, *other.images[0]]))
    assert all(chain.kind.replace("_", " ") in text and "\n" not in text for text in refusals)
    assert read > 0  # the domains of the steps are no part of a claim
    assert type(chain).from_json(record) == chain


@pytest.mark.parametrize("name", CHAINS)
def test_images_that_were_narrowed_by_a_negative_safety_are_refused(name):
    chain = CHAINS[name]()
    record = chain.to_json()
    inner = [(a + (1 - a) / 3, b - (b - 1) / 3) for a, b in chain.images]
    record |= {"safety": (-0.2).hex(), "images": [[a.hex(), b.hex()] for a, b in inner]}
    with pytest.raises(ValueError, match="safety"):
        type(chain).from_json(record)
