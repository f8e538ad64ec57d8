import pytest

import approx
from tests.approx.helpers import alternates


@pytest.mark.parametrize(
    ("target", "type"),
    [
        (approx.gate(0.785, 1.2e-4), (6, 5)),
        (approx.jump_relu(-0.755, margin=1.3e-4), (7, 6)),
        (approx.jump_relu(0.387, margin=1.4e-4), (2, 9)),
        (approx.gate(-0.58, 3.5e-4), (4, 3)),
        # kinks close to one end: the error peaks at the kink itself
        (approx.relu((-90.8009, 0.0638704)), (1, 5)),
        (approx.relu((-25.1976, 0.0506162)), (18, 17)),
        (approx.formula("abs(x - 0.3) + abs(x + 0.55)", kinks=[0.3, -0.55]), (10, 10)),
    ],
    ids=str,
)
def test_narrow_gaps_and_kinks_at_the_side(target, type):
    fit = approx.minimax(target, type)
    assert fit.converged
    assert alternates(fit)


@pytest.mark.parametrize("delta", [1e-15, 1e-60])
def test_domains_over_many_orders_of_magnitude(delta):
    fit = approx.minimax(approx.sign(delta), (9, 8))
    proof = approx.certify(fit.rational, fit.target)
    assert isinstance(proof, approx.Certificate)
    best = approx.zolotarev_error(4, delta)
    assert fit.error >= proof.lower * (1 - 1e-9)
    assert fit.error == pytest.approx(best, rel=1e-8 if fit.converged else 1e-6)
