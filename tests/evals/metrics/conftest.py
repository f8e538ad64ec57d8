from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, n).tolist() for n in (20, 9, 14, 5, 17)]
