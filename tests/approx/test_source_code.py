import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import approx
from approx import Rational, load
from approx.floating_point import WRITABLE, inputs, run
from approx.source_code import export

RELU = approx.minimax(approx.relu(), (5, 4)).rational
GATE = approx.minimax(approx.jump_relu(), (9, 8)).rational
SAFE = approx.least_squares(approx.jump_relu(), (3, 2), "safe").rational
X = np.linspace(-1, 1, 401)


def close(value, r: Rational, dtype: str) -> bool:
    eps = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    return bool(np.max(np.abs(np.asarray(value, dtype=float) - r(X))) < 60 * eps)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("r", [RELU, GATE, SAFE], ids=["relu", "gate", "safe"])
def test_python_source_runs(r, dtype):
    scope: dict = {}
    exec(export(r, "python", dtype, name="f"), scope)
    value = scope["f"](X.astype(dtype))
    assert value.dtype == dtype
    assert close(value, r, dtype)


@pytest.mark.parametrize("form", WRITABLE)
def test_every_form_can_be_written(form):
    scope: dict = {}
    exec(export(RELU, "python", form=form, force=True), scope)
    assert scope["rational"](X) == pytest.approx(RELU(X), abs=1e-12)


def compiled(source: str, dtype: str, folder: Path):
    (folder / "f.c").write_text(source)
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", "f.so", "f.c", "-lm"],
        cwd=folder,
        check=True,
    )
    f = ctypes.CDLL(str(folder / "f.so")).f
    f.restype = ctypes.c_double if dtype == "float64" else ctypes.c_float
    f.argtypes = [f.restype]
    return f


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("r", [RELU, GATE, SAFE], ids=["relu", "gate", "safe"])
def test_c_source_compiles_and_runs(tmp_path, r, dtype):
    f = compiled(export(r, "c", dtype, name="f"), dtype, tmp_path)
    assert close([f(v) for v in X], r, dtype)


TABLES = [
    approx.fit(approx.formula(text, domain), error, type)
    for text, domain, error, type in [
        ("exp(sin(3*x))", (-1, 2), 1e-2, (3, 0)),
        ("abs(x - 0.1)", (-1, 1), 1e-3, (1, 0)),
        ("exp(x)", (0, 1), 1e-3, (3, 1)),
        ("x/abs(x) + x**2", (-1, 1), 0.2, (1, 0)),
    ]
]


@pytest.mark.parametrize(
    ("table", "dtype"),
    [(TABLES[0], "float64"), *((table, "float32") for table in TABLES)],
    ids=["smooth-float64", "smooth", "fold", "one", "jump"],
)
def test_a_table_is_written_as_one_function(tmp_path, table, dtype):
    x = np.r_[np.random.default_rng(0).uniform(table.breaks[0], table.breaks[-1], 2000), table.breaks[1:-1]]
    x = np.unique(np.r_[x, np.nextafter(x, -np.inf), np.nextafter(x.astype(np.float32), -np.inf)]).astype(
        dtype
    )
    x = x[(x >= table.breaks[0]) & (x <= table.breaks[-1])]
    scope: dict = {}
    exec(table.export("python", dtype, name="f"), scope)
    value = scope["f"](x)
    assert value.dtype == dtype
    assert value.shape == x.shape
    # the table in float64 tells the piece, next to a jump as well
    assert value == pytest.approx(table(x), abs=200 * float(np.finfo(dtype).eps))
    exec(table.export("torch", dtype, name="f"), scope)
    points = torch.from_numpy(x).requires_grad_()
    found = scope["f"](points)
    assert torch.equal(found, torch.from_numpy(value))
    found.sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
    if shutil.which("cc"):
        f = compiled(table.export("c", dtype, name="f"), dtype, tmp_path)
        assert np.array_equal(np.array([f(v) for v in x.tolist()]), value.astype(float))
        assert np.isnan(f(np.nan))
        assert scope["f"](torch.tensor([np.nan])).isnan().all()


def test_a_table_states_the_largest_error_of_its_pieces_and_is_exact_in_sympy():
    table = TABLES[0]
    source = table.export("python", "float32")
    stated = [float(v) for v in re.findall(r"(\d\.\d\de[-+]\d+)[,.]", source)]
    assert stated[-1] == max(stated[:-1])
    assert len(stated) == len(table.pieces) + 1
    symbolic = table.export("sympy")
    for x in (-1, -0.3, float(table.breaks[3]), 1.9):
        assert float(symbolic.subs("x", x)) == pytest.approx(float(table(x)), abs=1e-13)
    with pytest.raises(ValueError, match="one function"):
        table.export("json")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_source_runs_and_differentiates(dtype):
    torch = pytest.importorskip("torch")
    scope: dict = {}
    exec(export(GATE, "torch", dtype, name="f"), scope)
    x = torch.tensor(X, dtype=getattr(torch, dtype), requires_grad=True)
    value = scope["f"](x)
    assert value.dtype == x.dtype
    assert close(value.detach().double().numpy(), GATE, dtype)
    value.sum().backward()
    if dtype == "float64":
        assert x.grad.numpy() == pytest.approx(GATE.derivative()(X), rel=1e-9, abs=1e-9)


def test_json_is_what_load_reads(tmp_path):
    (tmp_path / "r.json").write_text(export(GATE, "json"))
    assert load(tmp_path / "r.json") == GATE
    assert json.loads(approx.export(GATE, "json"))["kind"] == "rational"


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_takes_the_shape_of_its_argument(value):
    scope: dict = {}
    exec(export(Rational.from_monomial([value]), "python", "float32", name="f"), scope)
    got = scope["f"](X.astype("float32"))
    assert got.dtype == np.float32
    assert np.array_equal(got, np.full(X.shape, value, dtype="float32"))


def test_sympy_is_exact():
    sympy = pytest.importorskip("sympy")
    expression = export(RELU, "sympy")
    num, den = RELU.exact()
    value = num(1) / den(1)
    assert expression.subs("x", 1) == sympy.Rational(int(value.p), int(value.q))
    with pytest.raises(ValueError, match="branches"):
        export(SAFE, "sympy")


def test_barycentric_forms_are_written_as_others():
    nodes = np.array([-1, -0.25, 0, 0.5, 1])
    r = Rational.from_barycentric(nodes, RELU(nodes), [1, -3, 4, -3, 1])
    for held in (r, r.compose(Rational.from_monomial([0, 1]))):
        scope: dict = {}
        exec(export(held, "python"), scope)
        assert scope["rational"](nodes) == pytest.approx(RELU(nodes), abs=1e-13)
    with pytest.raises(ValueError, match="form='barycentric' divides by zero.*use form="):
        export(RELU, "c", form="barycentric")


def test_a_useless_form_is_refused():
    sharp = approx.minimax(approx.jump_relu(), (15, 14)).rational.to("monomial", centre=0)
    with pytest.raises(ValueError, match=r"wrong by .* use form='"):
        export(sharp, "c", "float32", form="monomial")
    assert "monomial" in export(sharp, "c", "float32", form="monomial", force=True)
    scope: dict = {}
    exec(export(sharp, "python", "float32", name="f"), scope)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"to": "fortran"}, "to="),
        ({"to": "c", "dtype": "float16"}, "dtype"),
        ({"to": "python", "dtype": "bfloat16"}, "dtype"),
        ({"to": "c", "name": "1f"}, "name"),
        ({"to": "c", "form": "spline"}, "form"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        export(RELU, **arguments)


@pytest.mark.parametrize("to", ["torch", "python"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", WRITABLE)
@pytest.mark.parametrize(
    ("text", "domain", "type"),
    [("2**x", (0, 1), (0, 3)), ("1/sqrt(x)", (0.1, 1), (3, 2)), ("1/(1+exp(x))", (0, 4), (2, 3))],
    ids=["reciprocal", "root", "sigmoid"],
)
def test_the_code_computes_bit_for_bit_what_its_header_was_measured_on(to, dtype, form, text, domain, type):
    """A header that says "measured on all numbers" is of this code, not of one like it."""
    if (to, dtype) == ("python", "bfloat16"):
        pytest.skip("numpy has no such type")
    import torch

    r = approx.minimax(approx.formula(text, domain), type).rational.to(form)
    scope: dict = {}
    exec(export(r, to, dtype, form=form, force=True), scope)
    x = inputs(r, r.domain, dtype, count=4001)
    given = torch.from_numpy(x).to(getattr(torch, dtype)) if to == "torch" else x.astype(dtype)
    got = np.asarray(scope["rational"](given).double() if to == "torch" else scope["rational"](given), float)
    np.testing.assert_array_equal(got, run(r, x, dtype))


@pytest.mark.parametrize("form", WRITABLE)
@pytest.mark.parametrize(
    ("text", "type"), [("exp(x)", (3, 2)), ("sin(x)", (5, 4)), ("2", (0, 0)), ("1/x", (2, 3))]
)
def test_every_line_of_the_code_is_used(text, type, form):
    fit = approx.minimax(approx.formula(text, (0.5, 1)), type)
    try:
        code = export(fit, "c", form=form)
    except ValueError:  # no partial fractions of a polynomial
        return
    for name in re.findall(r"const double (t\d+) =", code):
        assert len(re.findall(rf"\b{name}\b", code)) > 1, name


@pytest.mark.parametrize("low", [1e-3, 1e-6, 1e-9])
def test_a_target_that_is_rational_is_held_in_ordinary_numbers(low):
    """1/x with degrees to spare came out over a common factor beyond float64, so that arrays gave nan."""
    fit = approx.minimax(approx.formula("1/x", (low, 1)).with_weight("relative"), (2, 3))
    x = np.geomspace(low, 1, 99)
    assert np.max(np.abs(x * fit.rational(x) - 1)) < 1e-15
    assert "float rational(float x)" in export(fit, "c", "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", ["sin(x)", "erf(x)", "tanh(x)", "x/(1 + x)"])
@pytest.mark.parametrize("near", [1e-12, 1e-3])
@pytest.mark.parametrize("type", [(5, 0), (3, 2)])
def test_a_relative_error_is_kept_beside_a_zero_just_outside(text, near, type, dtype):
    """The distance from the middle of the domain has lost the digits that the value there is made of."""
    fit = approx.minimax(approx.formula(text, (near, 1)).with_weight("relative"), type)
    scope: dict = {}
    exec(export(fit, "python", dtype, name="f"), scope)
    x = np.geomspace(near * (1 + 1e-6), 1, 500).astype(dtype)
    wrong = np.max(np.abs(scope["f"](x).astype(float) / fit.target(x.astype(float)) - 1))
    assert wrong <= fit.error * (1 + 1e-9) + 20 * np.finfo(dtype).eps
