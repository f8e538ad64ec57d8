import json
import subprocess
import sys

import numpy as np
import pytest
from mpmath import mp

import approx


def test_export_states_the_error_against_the_target(approx_cli, tmp_path):
    """In its weight, and by it the form: between its two zeros a sine in float32 needs them subtracted in parts."""
    file = tmp_path / "sin.json"
    assert approx_cli("fit", "sin(x)", "--domain", "0,pi", "--relative", "--type", "6,0", "-o", file)[0] == 0
    target = ["--target", "sin(x)", "--domain", "0,pi", "--relative"]
    code, out, _ = approx_cli("export", file, "--dtype", "float32", *target)
    assert code == 0
    assert "relative error against the target 'sin(x)' 3." in out
    scope: dict = {}
    exec(out, scope)
    x = np.array([1e-20, 1e-4, 1, 2, 3, 3.1415, np.nextafter(np.float32(np.pi), np.float32(0))], np.float32)
    truth = [float(mp.sin(mp.mpf(float(v)))) for v in x]
    assert np.max(np.abs(scope["rational"](x) / truth - 1)) < 3.1e-5
    code, _, said = approx_cli("export", file, "--relative")
    assert code == 2
    assert "--target" in said


def test_fit_certify_verify_export_plot(approx_cli, tmp_path):
    file = tmp_path / "relu.json"
    code, out, _ = approx_cli("fit", "relu", "--type", "5,4", "--certify", "-o", file)
    assert code == 0
    assert "0.00425074235" in out
    assert "proven" in out
    assert approx_cli("verify", file)[0] == 0
    code, out, _ = approx_cli("export", file, "--to", "c", "--dtype", "float32")
    assert code == 0
    assert "float rational(float x)" in out
    code, out, _ = approx_cli("plot", file, "-o", tmp_path / "relu.png")
    assert code == 0
    assert (tmp_path / "relu.png").read_bytes()[:4] == b"\x89PNG"
    # the alternation points of the certificate are drawn, those of another target are not known
    assert approx_cli("plot", file, "-o", tmp_path / "relu.svg")[0] == 0
    assert approx_cli("plot", file, "-o", tmp_path / "other.svg", "--target", "silu")[0] == 0
    dots = [(tmp_path / name).read_text().count("<use") for name in ("relu.svg", "other.svg")]
    assert dots[0] >= dots[1] + 11


def test_a_changed_digit_fails(approx_cli, tmp_path):
    file = tmp_path / "relu.json"
    approx_cli("table", "relu", "3,2", "-o", file)
    text = file.read_text()
    file.write_text(text.replace("a", "b", 1) if "a" in text else text.replace("1", "2", 1))
    code, _, err = approx_cli("verify", file)
    assert code != 0
    assert "error" in err


def test_fit_writes_what_load_reads(approx_cli, tmp_path):
    file = tmp_path / "gauss.json"
    code, out, _ = approx_cli("fit", "exp(-x**2)", "--domain", "-3,3", "--type", "4,4", "-o", file)
    assert code == 0
    assert "even symmetry" in out
    assert approx.load(file).hull == (-3.0, 3.0)
    code, out, _ = approx_cli(
        "certify", file, "--target", "exp(-x**2)", "--domain", "-3,3", "-o", tmp_path / "proof.json"
    )
    assert code == 0
    assert json.loads((tmp_path / "proof.json").read_text())["kind"] == "certificate"
    assert approx_cli("certify", file)[0] == 2


@pytest.mark.parametrize("method", ["remez", "least_squares", "smoothed_linf"])
def test_methods(approx_cli, method):
    code, out, _ = approx_cli("fit", "exp", "--type", "2,2", "--method", method)
    assert "error" in out
    assert code in (0, 1)
    assert ("NO" in out) == (code == 1)


def test_gates_and_unions(approx_cli):
    assert (
        "0.0004678540127"
        in approx_cli("fit", "jump_relu", "--type", "9,8", "--theta", 0.1, "--margin", 0.01)[1]
    )
    fitted = approx_cli("fit", "bi_jump_relu", "--type", "9,8", "--theta", 0.1, "--margin", 0.01)[1]
    assert "0.0008870858326" in fitted
    assert approx_cli("fit", "absolute", "--domain", "-1,-0.5;0.5,1", "--type", "2,2")[0] == 0


def test_table(approx_cli):
    code, out, _ = approx_cli("table")
    assert code == 0
    assert len(out.splitlines()) == 11
    assert approx_cli("table", "relu", "9,8")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "relu", "--type", "9"], "type"),
        (["fit", "relu", "--type", "-1,2"], "type"),
        (["fit", "relu", "--method", "magic"], "--method"),
        (["fit", "relu", "--domain", "1"], "--domain"),
        (["fit", "relu", "--domain", "1,-1"], "domain"),
        (["fit", "relu", "--denominator", "safe"], "--denominator"),
        (["fit", "relu", "-o", "/no/such/folder/r.json"], "--output"),
        (["fit", "relu", "--relative"], "weight"),
        (["fit", "1/x"], "domain"),
        (["fit", "relu", "--theta", "0.1"], "--theta"),
        (["fit", "relu", "--kinks", "0"], "--kinks"),
        (["fit", "softplus"], "not known"),
        (["fit", "__import__('os').system('true')"], "not known"),
        (["fit", "abs(x)", "--kinks", "zero"], "--kinks 'zero'"),
        (["fit", "relu", "--method", "remez", "--poles", "allow_in_gaps"], "--poles"),
        (["fit", "relu", "-o", "."], "is a folder"),
        (["plot", __file__, "-o", "error.bmpx"], "--output 'error.bmpx'"),
        (["plot", __file__], "test_cli.py is not a JSON file"),
        (["verify", __file__], "test_cli.py is not a JSON file"),
        (["table", "relu"], "type is missing"),
        (["table", "relu", "4,4"], "type"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(approx_cli, arguments, says):
    code, _, err = approx_cli(*arguments)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_it_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "approx.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("fit", "certify", "verify", "export", "plot", "table", "figures"):
        assert command in done.stdout


def test_constants_and_weights(approx_cli, tmp_path):
    file = tmp_path / "r.json"
    code, out, _ = approx_cli(
        "fit", "cos(x/3)", "--domain", "0,pi", "--type", "3,2", "--relative", "-o", file
    )
    assert code == 0
    assert "3.14159" in out
    arguments = ("certify", file, "--target", "cos(x/3)", "--domain", "0,pi")
    _, relative, _ = approx_cli(*arguments, "--relative")
    _, absolute, _ = approx_cli(*arguments)
    assert "|f - r|/|f|" in relative
    assert float(relative.split("<=")[-1].split()[0]) > float(absolute.split("<=")[-1].split()[0])
    _, weighted, _ = approx_cli(*arguments, "--weight", "1/cos(x/3)")
    assert "w |f - r|" in weighted
    assert weighted.split("<=")[-1][:10] == relative.split("<=")[-1][:10]
    assert approx_cli(*arguments, "--weight", "1", "--relative")[0] == 2
    proof = tmp_path / "proof.json"
    code, _, _ = approx_cli("fit", "exp(x)", "--weight", "exp(-x)", "--type", "2,1", "--certify", "-o", proof)
    assert code == 0
    code, out, _ = approx_cli("verify", proof)
    assert code == 0
    assert "holds" in out
    assert "w |f - r|" in out
    assert approx_cli("fit", "cos(x)", "--domain", "0,tau")[0] == 2


def test_fixed_coefficients(approx_cli, tmp_path):
    file = tmp_path / "log1p.json"
    options = ("--domain=-0.25,0.5", "--type", "3,2", "--fixed", "p0=0,p1=1,q0=1", "-o", file)
    code, out, _ = approx_cli("fit", "log1p(x)", *options)
    assert code == 0
    assert "fixed: p0 = 0, p1 = 1, q0 = 1" in out
    assert approx.load(file).numerator[:2].tolist() == [0, 1]
    target = ("--target", "log1p(x)", *options[:3])
    code, out, _ = approx_cli("certify", file, *target, "--fixed", "p0=0,p1=1,q0=1")
    assert code == 0
    assert "with p0 = 0, p1 = 1, q0 = 1" in out
    assert "with p0" not in approx_cli("certify", file, *target)[1]


def test_coefficients_samples_errors_and_pieces(approx_cli, tmp_path):
    code, out, _ = approx_cli(
        "fit", "exp(x)", "--domain", "0,1", "--type", "3,0", "--coefficients", "bfloat16"
    )
    assert code == 0
    assert "monomial" in out
    code, out, _ = approx_cli("fit", "exp", "--type", "3,2", "--digits", "40")
    assert code == 0
    code, out, _ = approx_cli("fit", "exp", "--error", "1e-9", "--certify")
    assert code == 0
    assert "type (4, 4)" in out
    table = tmp_path / "table.json"
    code, out, _ = approx_cli("fit", "exp", "--error", "1e-3", "--type", "2,0", "--certify", "-o", table)
    assert code == 0
    assert "no table has fewer" in out
    assert len(json.loads(table.read_text())) == out.count("proven")
    samples = tmp_path / "s.csv"
    samples.write_text("x,y\n" + "".join(f"{k / 20},{(1 + k / 20) ** -1}\n" for k in range(41)))
    code, out, _ = approx_cli("fit", "--samples", samples, "--type", "1,1")
    assert code == 0
    assert "EXACT" not in out
    assert "41 samples" in out
    code, out, _ = approx_cli("fit", "--samples", samples, "--type", "1,2", "--method", "least_squares")
    assert code == 0


def test_options_that_do_not_go_together(approx_cli, tmp_path):
    samples = tmp_path / "s.csv"
    samples.write_text("0,1\n1,2\n2,3\n")
    for arguments, says in (
        (("fit",), "TARGET or --samples"),
        (("fit", "exp", "--samples", samples), "TARGET or --samples"),
        (("fit", "--samples", samples, "--domain", "0,1"), "--samples brings"),
        (("fit", "exp", "--method", "remez", "--coefficients", "float32"), "--coefficients belongs"),
        (("fit", "exp", "--error", "1e-3", "--digits", "40"), "--error finds"),
        (("fit", "exp", "--coefficients", "float8"), "coefficients='float8'"),
        (("fit", "exp", "--fixed", "p0"), "--fixed 'p0'"),
        (("fit", "exp", "--type", "3,0", "--fixed", "p7=1"), "p7"),
    ):
        code, _, err = approx_cli(*arguments)
        assert code == 2
        assert says in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "x", "--domain", "0,1/0"], "--domain"),
        (["fit", "1/0+x"], "not a function"),
        (["fit", "exp(x)", "--fixed", "q0=0"], "q0 = 0"),
        (["fit", "exp(x)", "--type", ""], "type"),
    ],
)
def test_a_division_by_zero_is_told_as_what_it_is(approx_cli, arguments, says):
    code, _, err = approx_cli(*arguments)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_files_that_no_command_reads_are_named(approx_cli, tmp_path):
    table, chain = tmp_path / "table.json", tmp_path / "chain.json"
    assert approx_cli("fit", "exp(x)", "--error", "1e-2", "--type", "1,0", "-o", table)[0] == 0
    assert approx_cli("composite", "--degrees", "3", "--lower", "0.5", "-o", chain)[0] == 0
    for path, says in ((table, "a table of pieces"), (chain, "approx.CompositeSign.from_json")):
        for command in ("export",) * (path == chain) + ("plot", "certify"):
            code, _, err = approx_cli(command, path)
            assert code == 2
            assert says in err
            assert err.count("\n") == 1
    # what the lines say is so
    assert all(approx.Rational.from_json(piece) for piece in json.loads(table.read_text()))
    assert approx.CompositeSign.from_json(json.loads(chain.read_text())).error < 1


def test_chains_and_tables_are_proven_again(approx_cli, tmp_path):
    chain, table, file = (tmp_path / name for name in ("chain.json", "table.json", "x.json"))
    assert approx_cli("composite", "--degrees", "3,3", "--lower", "0.1", "-o", chain)[0] == 0
    assert approx_cli("fit", "exp(x)", "--error", "1e-2", "--type", "1,0", "--certify", "-o", table)[0] == 0
    approx.composite_inverse_sqrt((0.1, 1), (3, 3)).save(file)
    for path, says in (
        (chain, "|sign(x) - chain(x)| <= "),
        (file, "|x**0.5 chain(x) - 1| <= "),
        (table, "proofs"),
    ):
        code, out, _ = approx_cli("verify", path)
        assert code == 0
        assert f"{path}: holds" in out
        assert says in out
    pieces = json.loads(table.read_text())
    assert f"all {len(pieces)} proofs" in out
    # a claim that does not hold, wherever it stands
    record = json.loads(chain.read_text())
    altered: list[tuple[object, str]] = [
        (record | {"error": record["error"] / 2}, "x.json: not a composite sign: its 'error'"),
        ([record, record | {"error": 0.1}], "x.json: item 1: not a composite sign"),
        ([*pieces[:-1], pieces[-1] | {"rel": "0x1p-3"}], f"x.json: item {len(pieces) - 1}: "),
        ([pieces[0]["rational"]], "x.json: item 0: it proves nothing"),
        ([], "x.json: an empty list"),
        ([3], "x.json: item 0: it proves nothing"),
        (3, "x.json: not a certificate"),
    ]
    for data, says in altered:
        file.write_text(json.dumps(data))
        code, _, err = approx_cli("verify", file)
        assert code == 2
        assert says in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("proof", [[], ["--certify"]])
def test_a_table_of_pieces_is_written_as_code(approx_cli, tmp_path, proof):
    file = tmp_path / "table.json"
    assert approx_cli("fit", "exp(x)", "--type", "1,0", "--error", "0.05", *proof, "-o", file)[0] == 0
    code, out, _ = approx_cli("export", file, "--name", "f")
    assert code == 0
    scope: dict = {}
    exec(out, scope)
    x = np.linspace(-1, 1, 999)
    assert np.max(np.abs(scope["f"](x) - np.exp(x))) < 0.0501
    assert ("'exp(x)'" in out) == bool(proof)
    assert "'exp(x)'" in approx_cli("export", file, "--target", "exp(x)")[1]
    code, _, said = approx_cli("plot", file)
    assert code
    assert "approx export" in said
    records = json.loads(file.read_text())
    file.write_text(json.dumps(records[::-1]))
    assert "to the right" in approx_cli("export", file)[2]
    file.write_text("[]")
    assert "one piece at least" in approx_cli("export", file)[2]
