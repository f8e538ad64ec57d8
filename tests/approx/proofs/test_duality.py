"""Bounds on the error of functions with fixed coefficients."""

import dataclasses

import numpy as np
import pytest
from flint import fmpq

import approx

CASES = [
    ("exp(x)", (-1, 1), (3, 1), {"p0": 1, "q0": 1}, None),
    ("cos(x)", (-1, 1), (4, 2), {"p0": 1, "q0": 1}, None),  # some points of a symmetric target have no part
    ("exp(x)", (1, 2), (1, 1), {"q1": -0.5}, None),  # either sign of q
    ("exp(x)", (-1, 1), (2, 2), {"p1": 0}, None),
    ("sin(x)", (-1.5, 1.5), (5, 0), {"p1": 1}, "relative"),
]


@pytest.mark.parametrize(("text", "domain", "type", "fixed", "weight"), CASES)
def test_no_function_with_the_coefficients_is_below_the_bound(text, domain, type, fixed, weight, tmp_path):
    target = approx.formula(text, domain).with_weight(weight)
    fit = approx.minimax(target, type, fixed=fixed)
    proof = approx.certify(fit)
    assert isinstance(proof, approx.Certificate)
    assert proof.best_lower > proof.upper * (1 - 1e-6)
    proof.save(tmp_path / "proof.json")
    assert approx.verify(tmp_path / "proof.json").fixed == proof.fixed
    raised = dataclasses.replace(proof, best=proof.best * (1 + fmpq(1, 1000)))
    with pytest.raises(approx.CertificateError, match="fixed coefficients"):
        raised.verify()
    # functions near the best one, and with the same coefficients
    rng = np.random.default_rng(1)
    num, den = fit.rational.numerator, fit.rational.denominator
    x = np.linspace(domain[0], domain[1], 400)
    w = target.weight_at(x)
    inside = np.isfinite(w)
    for _ in range(300):
        p, q = (c * (1 + 10.0 ** rng.uniform(-6, -1) * rng.normal(size=len(c))) for c in (num, den))
        for name, value in fixed.items():
            (p if name[0] == "p" else q)[int(name[1:])] = value
        r = np.polynomial.polynomial.polyval(x, p) / np.polynomial.polynomial.polyval(x, q)
        assert np.max(np.abs(w * (target(x) - r))[inside]) >= proof.best_lower * (
            1 - 1e-4
        )  # the grid misses peaks


def test_a_bound_from_a_function_that_is_not_the_best():
    target = approx.formula("exp(x)")
    best = approx.minimax(target, (3, 0), fixed={"p0": 1})
    c = best.rational.numerator * np.array([1, 1.001, 1, 0.998])
    proof = approx.certify(
        approx.Rational.from_monomial(c, [1], (-1, 1)), target, fixed={"p0": 1}, type=(3, 0)
    )
    assert isinstance(proof, approx.Certificate)
    assert 0.5 * best.error < proof.best_lower <= best.error * (1 + 1e-12) < 0.999 * proof.upper
