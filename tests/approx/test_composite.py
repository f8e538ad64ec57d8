import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

import approx
from approx import CompositeSign, composite_sign
from approx.dyadic import precision


@pytest.mark.parametrize(
    ("options", "error"),
    [
        # the optima that are known for [1e-3, 1] (Amsel and others, arXiv 2505.16932; Zolotarev)
        ({"degrees": (5,) * 5}, 0.11345),
        ({"degrees": (5,) * 6}, 0.00092),
        ({"degrees": (3, 3), "form": "rational"}, 0.0189),
        ({"degrees": (3, 3, 3), "form": "rational"}, 4.22e-7),
    ],
)
def test_known_optima(options, error):
    chain = composite_sign(1e-3, **options)
    assert chain.error == pytest.approx(error, rel=5e-3)
    chain.verify()


@given(
    st.floats(-6, -0.05).map(lambda e: 10.0**e),
    st.lists(st.sampled_from([1, 3, 5, 7, 9]), min_size=1, max_size=4),
    st.sampled_from(["polynomial", "rational"]),
    st.sampled_from(["float64", "float32"]),
)
@settings(max_examples=40, deadline=None)
def test_the_promise_holds_and_is_sharp(lower, degrees, form, dtype):
    chain = composite_sign(lower, tuple(degrees), form, dtype=dtype)
    x = np.unique(np.r_[np.geomspace(lower, 1, 4001), np.linspace(lower, 1, 4001), lower, 1.0])
    errors = np.abs(chain(x) - 1)
    seen = np.max(errors)
    with precision(256):  # float64's own rounding is no part of the promise
        worst = [abs(chain(arb(v)) - 1) for v in x[np.argsort(-errors)[:20]].tolist()]
    assert all(e <= arb(chain.error) for e in worst)
    assert seen >= chain.error * (1 - 1e-2) - 1e-9  # the samples are dense, but not everywhere dense enough
    assert chain(-x) == pytest.approx(-chain(x), abs=1e-14)
    for (low, high), row in zip(chain.images, chain.coefficients(), strict=True):
        assert 0 < low <= high
        kept = [np.dtype(dtype).type(c) for c in row["num"]]
        assert kept == row["num"]


@pytest.mark.parametrize("degree", [1, 3, 5, 9])
def test_a_step_is_the_best_odd_polynomial(degree):
    fit = approx.minimax(approx.sign(0.2), (degree, 0))
    assert composite_sign(0.2, (degree,)).error == pytest.approx(fit.error, rel=1e-8)


@pytest.mark.parametrize("degree", [3, 5, 9])
def test_a_rational_step_is_zolotarevs(degree):
    error = composite_sign(0.01, (degree,), "rational").error
    assert error == pytest.approx(approx.zolotarev_error((degree - 1) // 2, 0.01), rel=1e-9)


def test_rational_chains_multiply_their_degrees():
    assert composite_sign(0.01, (3, 5), "rational").error == pytest.approx(
        approx.zolotarev_error(7, 0.01), rel=1e-6
    )


def test_no_other_chain_is_better():
    best = composite_sign(0.05, (3, 3)).error
    rng = np.random.default_rng(0)
    x = np.geomspace(0.05, 1, 2001)
    table = np.array([row["num"] for row in composite_sign(0.05, (3, 3)).coefficients()])
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(50):
            y = x
            for a, b in table * (1 + size * rng.normal(size=table.shape)):
                y = y * (a + b * y * y)
            # any scale of the result may be taken: the chain's own is the best one
            assert np.max(np.abs(y - 1)) >= best - 1e-12


def test_files_pickles_and_forgeries(tmp_path):
    chain = composite_sign(0.01, (5, 5), dtype="bfloat16", safety=0.01)
    chain.save(tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert CompositeSign.from_json(data) == chain
    assert pickle.loads(pickle.dumps(chain)) == chain
    data["images"][1][0] = (1.0).hex()
    with pytest.raises(ValueError, match="too small"):
        CompositeSign.from_json(data)
    with pytest.raises(ValueError, match="malformed"):
        CompositeSign.from_json({"kind": "composite_sign", "version": 1})


@pytest.mark.parametrize(
    ("form", "degrees"), [("polynomial", (5, 3)), ("squares", (5, 5)), ("rational", (5, 3))]
)
def test_the_exported_table_runs(form, degrees):
    chain = composite_sign(0.01, degrees, form)
    scope: dict = {}
    exec(chain.export("python", "f"), scope)
    x = np.linspace(0.01, 1, 101)
    assert scope["f"](x) == pytest.approx(chain(x), rel=1e-12)
    assert chain.rational()(x) == pytest.approx(chain(x), rel=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("form", "degrees"), [("polynomial", (5, 3)), ("squares", (5, 5)), ("rational", (5, 3))]
)
def test_what_is_measured_is_what_the_code_does(form, degrees, dtype):
    """The code runs on torch's own numbers of the format; the header says the largest error of it."""
    chain = composite_sign(0.05, degrees, form, dtype=dtype)
    found, scope = chain.measured(), {}
    source = chain.export("python", "f")
    exec(source, scope)
    assert f"{found.error:.3g}, the largest on" in source
    kind = getattr(torch, dtype)
    x = torch.unique(torch.from_numpy(np.geomspace(0.05, 1, 300_001)).to(kind))
    x = x[x.double() >= 0.05]
    # where bfloat16 divides, torch rounds the product before as well
    off = (1 - scope["f"](x).double()).abs().max()
    if dtype in ("bfloat16", "float16"):
        assert (found.exhaustive, found.inputs) == (True, len(x))
        assert float(off) == found.error
    else:
        assert float(off) <= 1.02 * found.error


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("lower", "steps"), [(1e-2, 5), (1e-3, 6), (1e-3, 7), (1e-4, 8), (1e-5, 9)])
def test_squares_keep_in_16_bits_what_they_promise(lower, steps, dtype):
    safety = {"bfloat16": 0.02, "float16": 0.005}[dtype]
    chain = composite_sign(lower, (5,) * steps, "squares", dtype=dtype, safety=safety)
    assert chain.measured().error <= chain.error
    powers = composite_sign(lower, (5,) * steps, dtype=dtype, safety=safety)
    assert chain.error <= powers.error * 1.2
    if lower < (1e-2 if dtype == "bfloat16" else 1e-3):
        assert powers.measured().error > powers.error
    assert CompositeSign.from_json(json.loads(json.dumps(chain.to_json()))) == chain


def test_squares_are_quintics_in_the_format():
    with pytest.raises(ValueError, match="quintics alone"):
        composite_sign(0.1, (5, 3), "squares")
    chain = composite_sign(0.1, (5, 5), dtype="bfloat16")
    with pytest.raises(ValueError, match="not a number of bfloat16"):
        replace(chain, form="squares").verify()


@pytest.mark.parametrize("form", ["polynomial", "squares"])
@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (9, 9)])
def test_the_matrix_sign_keeps_the_promise(shape, form):
    chain = composite_sign(1e-2, (5,) * 5, form)
    rng = np.random.default_rng(1)
    u, _, v = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    s = np.geomspace(1e-2, 1, min(shape))
    scope: dict = {}
    exec(chain.export("numpy", "polar"), scope)
    found = np.linalg.svd(scope["polar"](u * s @ v), compute_uv=False)
    assert np.max(np.abs(found - 1)) <= chain.error + 1e-10


def test_the_matrix_sign_in_bfloat16_keeps_the_promise():
    torch = pytest.importorskip("torch")
    # 0.02 is some five units of rounding of bfloat16 a step, for the products of each
    chain = composite_sign(1e-2, (5,) * 5, dtype="bfloat16", safety=0.02)
    scope: dict = {}
    exec(chain.export("torch", "polar"), scope)
    torch.manual_seed(0)
    for shape in ((24, 48), (48, 24)):
        x = torch.randn(shape, dtype=torch.float64)
        u, s, v = torch.linalg.svd(x, full_matrices=False)
        x = (u * torch.linspace(0.05, 1, len(s), dtype=torch.float64)) @ v
        found = torch.linalg.svdvals(scope["polar"](x.to(torch.bfloat16)).double())
        assert float((found - 1).abs().max()) <= chain.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lower": 0}, "lower"),
        ({"lower": 2}, "lower"),
        ({"degrees": (4,)}, "degrees"),
        ({"degrees": ()}, "degrees"),
        ({"form": "spline"}, "form"),
        ({"dtype": "float8"}, "dtype"),
        ({"safety": -0.1}, "safety"),
        ({"safety": 0.9}, "safety"),
        ({"lower": "1e-3"}, "lower='1e-3' must be a number"),
        ({"lower": None}, "lower"),
        ({"safety": "a"}, "safety='a' must be a number"),
    ],
)
def test_wrong_arguments_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        composite_sign(**options)
    with pytest.raises(ValueError, match="solves"):
        composite_sign(0.1, (3,), "rational").export("torch")


def test_the_command_line(approx_cli, tmp_path):
    code, out, _ = approx_cli("composite", "--degrees", "5,5", "--lower", "0.1", "-o", tmp_path / "c.json")
    assert code == 0
    assert repr(composite_sign(0.1, (5, 5)).error) in out
    assert (tmp_path / "c.json").exists()
    assert "x.mT" in approx_cli("composite", "--degrees", "5,5", "--to", "torch")[1]
    code, _, err = approx_cli("composite", "--degrees", "5,x")
    assert code == 2
    assert "--degrees" in err
