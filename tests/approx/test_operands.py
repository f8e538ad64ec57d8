import numpy as np

from approx.operands import BFloat16, round_bfloat16


def test_bfloat16_rounds_to_nearest_even():
    x = np.array(
        [1, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 3.4e38, np.inf, np.nan], dtype=np.float32
    )
    expected = np.array([1, 1, 1, 1 + 2**-6, -1 - 2**-7, np.inf, np.inf, np.nan], dtype=np.float32)
    assert np.array_equal(round_bfloat16(x), expected, equal_nan=True)
    value = 1 / (BFloat16(np.array([3.0], dtype=np.float32)) + 0.0)
    assert value.value[0] == np.float32(0.333984375)
