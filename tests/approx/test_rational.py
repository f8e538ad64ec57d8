import copy
import json

import numpy as np
import pytest
from flint import acb, arb, arb_series, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import Rational
from approx.dyadic import dyadic, precision
from approx.forms import SafePade
from tests.approx.helpers import changed

X = np.linspace(-1, 1, 41)
small = st.floats(-3, 3, allow_nan=False).map(lambda v: round(v, 6))
heights = st.floats(0.05, 3).map(lambda v: round(v, 6))
pairs = st.lists(st.tuples(small, small, small, heights), min_size=1, max_size=4, unique_by=lambda p: p[2:])
rationals = st.builds(Rational.from_partial_fractions, st.lists(small, max_size=2), pairs)


def exact_at(r: Rational, x: float) -> float:
    num, den = r.exact()
    value = num(dyadic(x)) / den(dyadic(x))
    return int(value.p) / int(value.q)


@given(rationals)
@settings(max_examples=40, deadline=None)
def test_held_form_and_exact_polynomials_are_one_function(r):
    assert [exact_at(r, x) for x in X[::8]] == pytest.approx(list(r(X[::8])), rel=1e-11, abs=1e-11)


@given(rationals)
@settings(max_examples=30, deadline=None)
def test_json_keeps_every_bit(r):
    long = r.to("factored", bits=200)
    for held in (r, long, r.derivative(), r.compose(long), r * 2 - long):
        assert Rational.from_json(json.loads(json.dumps(held.to_json()))) == held


@given(rationals, rationals)
@settings(max_examples=30, deadline=None)
def test_arithmetic_is_exact(r, s):
    x = 0.3125
    a, b = (
        r.exact()[0](dyadic(x)) / r.exact()[1](dyadic(x)),
        s.exact()[0](dyadic(x)) / s.exact()[1](dyadic(x)),
    )

    def at(q):
        return q.exact()[0](dyadic(x)) / q.exact()[1](dyadic(x))

    assert at(r + s) == a + b
    assert at(r - s) == a - b
    assert at(r * s) == a * b
    assert at(2 - r) == 2 - a
    if b != 0:
        assert at(r / s) == a / b
    assert at(r.compose(s)) == r.exact()[0](b) / r.exact()[1](b)


@given(rationals)
@settings(max_examples=30, deadline=None)
def test_derivative_agrees_with_the_power_series(r):
    for x in (-0.9, 0.2):
        series = r(arb_series([arb(x), 1], 3))
        assert r.derivative()(x) == pytest.approx(float(series[1]), rel=1e-9, abs=1e-9)
        assert r.derivative().derivative()(x) == pytest.approx(2 * float(series[2]), rel=1e-8, abs=1e-8)


@given(rationals)
@settings(max_examples=30, deadline=None)
def test_partial_fractions_in_x(r):
    moved = r.to("factored", bits=200)
    assert moved.partial_fractions()(X) == pytest.approx(r(X), rel=1e-9, abs=1e-9)
    assert np.all(moved.partial_fractions().v > 0)


def test_centre_and_scale_enter_exactly():
    r = Rational.from_partial_fractions([0.5], [(0, 1, 0.25, 0.5)], domain=(-8, 8), centre=1, scale=4)
    plain = Rational.from_partial_fractions([0.5], [(0, 1, 0.25, 0.5)])
    assert np.array_equal(r(1 + 4 * X), plain(X))
    assert np.allclose(sorted(r.poles(), key=lambda z: z.imag), [2 - 2j, 2 + 2j], rtol=0, atol=1e-15)
    assert r.denominator[0] == 1


def test_poles_zeros_type_and_coefficients():
    r = Rational.from_factored(2, [0.5, (0.0, 1.0)], [(0.25, 0.5), 3.0])
    assert r.type == (3, 3)
    assert np.allclose(r.zeros(), [0 - 1j, 0 + 1j, 0.5])
    assert np.allclose(r.poles(), [0.25 - 0.5j, 0.25 + 0.5j, 3])
    assert np.allclose(
        np.polyval(r.numerator[::-1], X) / np.polyval(r.denominator[::-1], X), r(X), rtol=1e-14
    )
    cancelled = Rational.from_factored(1, [0.5, 0.25], [0.5])
    assert cancelled.type == (1, 0)


def test_even_functions_stay_even():
    r = Rational.from_monomial([1, 0, 3, 0, 1], [2, 0, 5, 0, 2]).to("partial_fractions")
    assert np.array_equal(r(X), r(-X))
    assert np.all(r.partial_fractions().u == 0)


def test_barycentric_interpolates_and_is_exact():
    r = Rational.from_barycentric([-1, 0, 1], [1, 0, 1], [0.5, -1, 0.25])
    assert list(r(np.array([-1.0, 0.0, 1.0]))) == [1, 0, 1]
    assert exact_at(r, 0.3) == pytest.approx(r(0.3), rel=1e-14)
    assert r(np.array([5e-324, -1e-320, 1e-310])) == pytest.approx(0, abs=1e-300)  # where 1/t overflows
    # a node is a removable 0/0, whatever the formula runs on
    assert r(arb(0)) == 0
    assert r(fmpq(1)) == 1
    slopes = r.to("factored", bits=106).derivative()(np.array([-1.0, 0.0, 1.0, 0.3]))
    assert r.derivative()(np.array([-1.0, 0.0, 1.0, 0.3])) == pytest.approx(slopes, rel=1e-12)
    assert all(approx.evaluation_error(r, dtype) < 0.1 for dtype in ("float64", "float32", "bfloat16"))
    # without a weight a node is none
    assert Rational.from_barycentric([-1, 0, 1], [1, 5, 1], [0.5, 0, 0.25])(0.0) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_dtype_of_the_argument_decides(dtype):
    r = Rational.from_partial_fractions([0.1], [(0.1, 0.2, 0.3, 0.4)])
    assert r(X.astype(dtype)).dtype == dtype
    assert np.allclose(r(X.astype(dtype)), r(X), atol=30 * np.finfo(dtype).eps)
    assert r(1).shape == ()


def test_balls_enclose():
    r = Rational.from_partial_fractions([0.1], [(0.1, 0.2, 0.3, 0.4)])
    ball = r(arb(0.25, 0.001))
    assert all(ball.contains(r(fmpq(k, 1000))) for k in (249, 250, 251))
    assert abs(r(acb(0.25)).real - r(arb(0.25))) < 1e-14


@pytest.mark.parametrize("size", [2, 33, 200, 900])
def test_long_chebyshev_series_keep_their_digits_in_balls(size):
    """The radius of Clenshaw's recurrence grows as 2.4^degree: 200 terms at 128 bits said nothing."""
    c = np.random.default_rng(size).normal(size=size)
    r = Rational.from_chebyshev([dyadic(v) for v in c.tolist()], [1], (-1, 1), 0, 1)
    for point in (-1.0, -0.999, 0.0, 0.3, 1.0, 1.001):
        with precision(4000):
            terms = (arb(v) * arb(point).chebyshev_t(k) for k, v in enumerate(c.tolist()))
            truth = sum(terms, arb(0))
        with precision(128):
            value = r(arb(point))
        assert value.overlaps(truth)
        assert value.rad() < 1e-30 * size * float(abs(truth) + sum(abs(c)))


def test_files_round_trip_and_failures_name_the_file(tmp_path):
    r = Rational.from_partial_fractions([0.1], [(0.1, 0.2, 0.3, 0.4)])
    r.save(tmp_path / "r.json")
    assert approx.load(tmp_path / "r.json") == r
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    good = json.loads((tmp_path / "r.json").read_text())
    for change in (
        {"kind": "x"},
        {"version": 99},
        {"form": "spline"},
        {"domain": [["0x1p0", "0x0p0"]]},
        {"poly": 3},
        {"poly": ["nan"]},
        {"centre": ["1", 10**9]},
        {"pairs": [["0x1p0", {}, "0x1p0", "0x1p0"]]},
        {"scale": "0x0p0"},
    ):
        (tmp_path / "bad.json").write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=r"bad\.json"):
            approx.load(tmp_path / "bad.json")
    for key in ("domain", "form", "pairs"):
        (tmp_path / "bad.json").write_text(json.dumps({k: v for k, v in good.items() if k != key}))
        with pytest.raises(ValueError, match=key):
            approx.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not a JSON file"):
        approx.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    "r",
    [
        Rational.from_monomial([1, 2], [1, 0.5]),
        Rational.from_chebyshev([1, 2], [1, 0.5]),
        Rational.from_factored(2, [0.5, (0.1, 0.2)], [3]),
        Rational.from_partial_fractions([0.1], [(0.1, 0.2, 0.3, 0.4)], [(1, 2)]),
        Rational.from_barycentric([0, 1, 2], [1, 2, 4], [1, -2, 1]),
        Rational(SafePade((dyadic(1),), (dyadic(0.5), dyadic(2)))),
        Rational.from_monomial([1, 2]) / Rational.from_monomial([4]),
    ],
    ids=lambda r: r.form.name,
)
def test_a_record_that_is_changed_is_refused_or_is_a_function(r):
    for forged in changed(r.to_json()):
        try:
            read = Rational.from_json(copy.deepcopy(forged))
        except ValueError:
            continue
        assert any(den != 0 for _, den in (branch.exact() for _, _, branch in read.branches()))
        assert np.isfinite(read(np.linspace(-0.7, 0.8, 31))).any()


def test_malformed_parameters_are_refused():
    with pytest.raises(ValueError, match="den"):
        Rational.from_monomial([1], [0, 0])
    with pytest.raises(ValueError, match="finite"):
        Rational.from_monomial([np.nan])
    with pytest.raises(ValueError, match="distinct"):
        Rational.from_barycentric([0, 0], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="weights"):
        Rational.from_barycentric([0, 1], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="multiple pole"):
        Rational.from_monomial([1], [1, 0, 2, 0, 1]).to("partial_fractions")
    with pytest.raises(ValueError, match="form="):
        Rational.from_monomial([1, 2]).to("spline")
    with pytest.raises(ZeroDivisionError):
        _ = Rational.from_monomial([1]) / Rational.from_monomial([0])
    with pytest.raises(ValueError, match="dyadic"):
        dyadic(fmpq(1, 3))
