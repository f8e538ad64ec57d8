import itertools

import pytest

import approx

DENOMINATORS = ["standard", "safe", "safe-b"]


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("target", [approx.relu(), approx.gelu()], ids=lambda t: t.name)
def test_close_to_the_best_and_never_below_it(target, denominator):
    fit, best = approx.smoothed_linf(target, (3, 2), denominator), approx.minimax(target, (3, 2))
    assert best.levelled * (1 - 1e-9) <= fit.error <= 1.03 * best.error
    assert all(b <= a for a, b in itertools.pairwise(fit.history))


def test_never_worse_than_least_squares():
    target = approx.jump_relu()
    for denominator in DENOMINATORS:
        fit, start = (
            approx.smoothed_linf(target, (3, 2), denominator),
            approx.least_squares(target, (3, 2), denominator),
        )
        assert fit.error <= start.error


def test_errors_fall_with_the_type():
    errors = [approx.smoothed_linf(approx.jump_relu(), (k + 1, k), "safe").error for k in (2, 4)]
    assert errors[1] < errors[0]


def test_a_kink_between_the_points_is_seen():
    # the grid crowds at the kink: an equally spaced one of 4001 points loses the error there from (9, 8) on
    fit, best = approx.smoothed_linf(approx.relu(), (9, 8)), approx.minimax(approx.relu(), (9, 8))
    assert fit.error < 1.02 * best.error
    assert fit.error == max(fit.error, fit.history[-1] * (1 - 1e-9))
    assert fit.error < fit.history[-1] * 1.01


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="denominator"):
        approx.smoothed_linf(approx.relu(), (3, 2), "none")
