import copy
import json
import pickle

import numpy as np
import pytest
import torch
from flint import acb, arb, arb_series, fmpq, fmpq_poly

import approx
from approx import Target
from approx.primitives import target_from_json

BUILT_IN = [
    approx.relu(),
    approx.absolute((-2, 1)),
    approx.sqrt(),
    approx.sign(0.1),
    approx.gate(0.1, 0.01),
    approx.jump_relu(0.1, margin=0.01),
    approx.bi_jump_relu(0.1, margin=0.01),
    approx.exp((-1, 2)),
    approx.tanh(),
    approx.gelu(),
    approx.silu(),
    approx.sigmoid(),
    approx.formula("exp(-x**2) + 1.5*abs(x - 0.5)/(2 + cos(pi*x))", kinks=[0.5]),
]


@pytest.mark.parametrize("target", BUILT_IN, ids=lambda t: t.name)
def test_floats_balls_and_series_are_one_definition(target):
    for piece in target.pieces():
        for k in range(1, 8):
            x = piece.a + (piece.b - piece.a) * fmpq(k, 8)
            middle = float(arb(x).mid())
            ball = piece(arb(middle))
            expected = float(target(middle))
            assert float(ball) == pytest.approx(expected, rel=1e-13, abs=1e-15)
            assert float(target(arb(middle))) == pytest.approx(expected, rel=1e-13, abs=1e-15)
            assert float(piece(np.array([middle]))[0]) == pytest.approx(expected, rel=1e-13, abs=1e-15)
            assert float(piece(acb(middle)).real) == pytest.approx(expected, rel=1e-13, abs=1e-15)
            series = piece(arb_series([arb(middle), 1], 2))
            h = 1e-6 * max(1.0, abs(middle))
            slope = (float(piece(arb(middle) + h)) - float(piece(arb(middle) - h))) / (2 * h)
            assert float(series[0]) == pytest.approx(expected, rel=1e-13, abs=1e-15)
            assert float(series[1]) == pytest.approx(slope, rel=1e-5, abs=1e-5)
            wide = piece(arb(middle, 1e-3 * float(piece.b - piece.a)))
            assert wide.contains(piece(arb(middle)))


def test_pieces_are_exact():
    left, right = approx.jump_relu(0.1, margin=0.01).pieces()
    assert left.polynomial == fmpq_poly([])
    assert right.polynomial == fmpq_poly([0, 1])
    assert (left.b, right.a) == tuple(fmpq(*v.as_integer_ratio()) for v in (0.1 - 0.01, 0.1 + 0.01))
    assert [p.polynomial for p in approx.absolute().pieces()] == [fmpq_poly([0, -1]), fmpq_poly([0, 1])]
    assert approx.exp().pieces()[0].polynomial is None
    assert len(approx.relu((0, 1)).pieces()) == 1


def test_weights():
    t = approx.exp().with_weight("relative")
    assert t.weight_at(np.array([0.5]))[0] == pytest.approx(np.exp(-0.5))
    assert float(t.weight_at(arb(0.5))) == pytest.approx(np.exp(-0.5))
    assert target_from_json(t.to_json()).weight == "relative"
    with pytest.raises(ValueError, match="weight= of target 'exp' is a callable"):
        t.with_weight(np.cos).to_json()
    with pytest.raises(
        ValueError, match=r"weight='exp\(-x\)': .*; for a formula give approx.formula\('exp\(-x\)', domain"
    ):
        approx.exp().with_weight("exp(-x)")
    with pytest.raises(ValueError, match="constant weight"):
        approx.exp().with_weight(2.0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "weight",
    [
        approx.formula("2 + x*abs(x - 0.3)", (-1, 3)),
        approx.formula("2 + x", kinks=[0.5]),
        approx.sigmoid((-9, 9)),
        approx.exp([(-1, 0), (0.5, 1)]),
        approx.exp().with_weight("relative"),
    ],
    ids=str,
)
def test_a_weight_that_is_a_target_is_written_as_one(weight):
    t = approx.formula("sin(x)").with_weight(weight)
    record = t.to_json()
    again = target_from_json(json.loads(json.dumps(record)))
    assert again.to_json() == record
    assert str(again.weight) == str(weight)
    x = np.linspace(-1, 1, 101)
    assert np.array_equal(again.weight_at(x), t.weight_at(x))
    assert again.weight_at(arb("0.3")).overlaps(t.weight_at(arb("0.3")))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: approx.sign(0), "delta"),
        (lambda: approx.sign(1.5), "delta"),
        (lambda: approx.gate(0.995, 0.01), "theta"),
        (lambda: approx.jump_relu(0.1, margin=0), "margin"),
        (lambda: approx.jump_relu(0.1, margin=-1), "margin"),
        (lambda: approx.jump_relu(0.1, domain=(1, 2)), r"inside \(1.0, 2.0\)"),
        (lambda: approx.bi_jump_relu(0.1, margin=0.1), "theta"),
        (lambda: approx.bi_jump_relu(0.1, margin=0), "margin"),
        (lambda: approx.bi_jump_relu(0.1, domain=(0, 1)), r"inside \(0.0, 1.0\)"),
        (lambda: approx.sqrt((-1, 1)), "domain"),
        (lambda: Target("exp(x)"), "formula"),  # pyright: ignore[reportArgumentType]
        (lambda: Target(np.exp, kinks=[np.nan]), "kinks"),
        (lambda: Target(np.exp, kinks=0.5), r"kinks=0\.5: expected a list"),  # pyright: ignore[reportArgumentType]
        (
            lambda: approx.formula("exp(x)", (0, 1), "relative"),  # pyright: ignore[reportArgumentType]
            "kinks='relative'.*with_weight",
        ),
        (lambda: approx.formula("exp(x)", (0, 1), jumps=["x"]), "jumps="),  # pyright: ignore[reportArgumentType]
        (lambda: Target(np.exp).pieces(), "enclose"),
        (lambda: Target(np.exp)(arb(1)), "enclose"),
        (lambda: Target(np.exp).to_json(), "written"),
        (lambda: target_from_json({"name": "relu"}), "malformed"),
        (lambda: target_from_json(approx.exp().to_json() | {"weight": {"name": "relu"}}), "malformed"),
        (lambda: target_from_json({"name": "os.system", "params": {}, "domain": []}), "malformed"),
    ],
)
def test_wrong_input_names_the_argument(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_a_users_enclosure_is_used():
    t = Target(np.cos, domain=(0, 1), enclose=lambda x: x.cos())
    assert float(t.pieces()[0](arb(0.5))) == pytest.approx(np.cos(0.5))


def test_an_enclosure_of_another_function_is_refused():
    with pytest.raises(ValueError, match="another function"):
        Target(np.cos, enclose=lambda x: x.sin())
    with pytest.raises(ValueError, match="weight=2"):
        Target(np.cos, weight=2.0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_fits_certificates_and_targets_are_pickled_and_copied(copied):
    fit = approx.minimax(approx.jump_relu().with_weight(None), (5, 4))
    proof = approx.certify(fit)
    fit.rational.exact()  # what is kept by the way is no hindrance
    fit.target.pieces()
    assert copied(fit.rational) == fit.rational
    assert copied(fit).rational == fit.rational
    assert copied(fit).target.to_json() == fit.target.to_json()
    copied(proof).verify()
    copied(approx.certify(approx.minimax(approx.exp(), (3, 2)))).verify()
    around = approx.complex_minimax("exp(x)", (2, 2), approx.Region.disc())
    assert copied(around)(0.3j) == around(0.3j)
    assert copied(around).certify().upper == around.certify().upper
    assert (fit == copied(fit), fit == fit) == (False, True)  # by identity: arrays have no truth
    relative = approx.formula("exp(x)").with_weight("relative")
    assert copied(relative).to_json() == relative.to_json()


def test_complex_input_is_computed_or_refused():
    r = approx.Rational.from_monomial([1, 1], [2, 0, 1])
    assert r(1j) == (1 + 1j) / (2 + (1j) ** 2)
    assert r(np.array([0.5, 1j]))[1] == r(1j)
    with pytest.raises(ValueError, match="not real"):
        approx.Rational.from_barycentric([0, 1], [1j, 2], [1, -1])
    with pytest.raises(ValueError, match="imaginary"):
        approx.exp()(np.array([1j]))
    safe = approx.least_squares(approx.relu(), (3, 1), "safe").rational
    with pytest.raises(ValueError, match="complex"):
        safe(1j)


def test_a_callable_that_gives_a_list_is_one_of_arrays():
    target = Target(lambda x: [v * v + 1 for v in np.atleast_1d(x)])
    assert np.array_equal(target(np.array([1.0, 2.0])), [2.0, 5.0])
    assert approx.minimax(target.with_weight("relative"), (2, 1)).error < 1e-12


@pytest.mark.parametrize("kind", ["f", "weight"])
@pytest.mark.parametrize(
    "made",
    [
        lambda x: np.exp(x, out=x),
        lambda x: torch.exp(torch.as_tensor(x)),
        lambda x: torch.exp(torch.as_tensor(x).requires_grad_()),
    ],
    ids=["in place", "torch", "torch with gradients"],
)
def test_callables_may_write_into_x_and_give_tensors(made, kind):
    plain, other = (
        approx.Target(g, weight=None) if kind == "f" else approx.Target(np.cos, weight=g)
        for g in (np.exp, made)
    )
    assert approx.minimax(other, (2, 1)).error == pytest.approx(approx.minimax(plain, (2, 1)).error, rel=1e-9)
    x = np.linspace(-1, 1, 5)
    _ = other(x), other.weight_at(x)
    assert np.array_equal(x, np.linspace(-1, 1, 5))


def test_short_tensors_are_arrays():
    t = approx.Target(lambda x: torch.exp(torch.as_tensor(x).bfloat16()))
    assert t(np.array([0.0, 1.0])) == pytest.approx([1.0, np.e], rel=2**-8)
