"""The command line: `approx fit | certify | verify | export | plot | composite | table | figures`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError:
    raise SystemExit('error: the command line needs typer: pip install "rsae[cli]"') from None

from approx.command import (
    degrees_of,
    fixed_of,
    pair,
    prove,
    read_pieces,
    replay,
    show,
    target_of,
    tell_version,
    weighted,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Best rational approximations, with proven error bounds.\n\n"
    "A TARGET is a built-in name (relu, absolute, sqrt, sign, gate, jump_relu, bi_jump_relu, exp, tanh, gelu, silu, "
    'sigmoid) or a formula in x such as "exp(-x**2)". '
    "A TYPE is m,n: the degrees of numerator and denominator.",
)
tell_version(app, "approx")

TargetName = Annotated[
    str, typer.Argument(metavar="TARGET", help="Built-in name, or a formula in x.", show_default=False)
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="Built-in name or formula; a certificate brings its own.")
]
Domain = Annotated[
    str | None,
    typer.Option(help='Interval "a,b", or a union "a,b;c,d". Default: the target\'s own, or -1,1.'),
]
Theta = Annotated[float | None, typer.Option(help="Threshold of gate, jump_relu and bi_jump_relu.")]
Margin = Annotated[float | None, typer.Option(help="Half-width of the gap around theta that is left out.")]
Delta = Annotated[float | None, typer.Option(help="Half-width of the gap of sign around 0.")]
Kinks = Annotated[str | None, typer.Option(help='Where a formula folds: "0" or "-1,1".')]
Relative = Annotated[bool, typer.Option("--relative", help="The relative error: the weight is 1/|f|.")]
Weight = Annotated[str | None, typer.Option(help="A positive formula in x: the error is w (f - r).")]
File = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="What `approx fit -o` wrote.", show_default=False)
]

METHODS = ("minimax", "remez", "least_squares", "smoothed_linf")


def _writable(path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Before the work is done, not after."""
    from approx.files import check_writable

    if path is None:
        return
    try:
        check_writable(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--output {str(path)!r}: {error}") from None
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"--output {str(path)!r}: the name must end in {', '.join(suffixes)}")


@app.command()
def fit(
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="Built-in name, or a formula in x.", show_default=False),
    ] = None,
    type: Annotated[
        str | None,
        typer.Option(help="m,n: the degrees of numerator and denominator.", show_default="5,4"),
    ] = None,
    error: Annotated[
        float | None,
        typer.Option(help="The wanted error: find the least type, or with --type the fewest pieces of it."),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="CSV file with columns x,y or x,y,error bar, in place of a TARGET.",
        ),
    ] = None,
    coefficients: Annotated[
        str | None,
        typer.Option(
            help="minimax: the best coefficients in float32, bfloat16, float16, or a number of bits."
        ),
    ] = None,
    fixed: Annotated[
        str | None,
        typer.Option(help='minimax: coefficients of x^i to hold, such as "p1=1,q0=1" for log1p.'),
    ] = None,
    digits: Annotated[
        int | None, typer.Option(help="minimax: number of right digits of the parameters.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "minimax",
    denominator: Annotated[
        str, typer.Option(help="standard, safe or safe-b: for least_squares and smoothed_linf.")
    ] = "standard",
    domain: Domain = None,
    theta: Theta = None,
    margin: Margin = None,
    delta: Delta = None,
    kinks: Kinks = None,
    relative: Relative = False,
    weight: Weight = None,
    poles: Annotated[str, typer.Option(help="minimax: free, or allow_in_gaps of a union.")] = "free",
    certify: Annotated[
        bool, typer.Option("--certify", help="Prove the error; -o then writes the certificate.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file to write.")] = None,
) -> None:
    """Fit a rational function.

    \b
    approx fit relu --type 9,8 --certify -o relu98.json
    approx fit "exp(-x**2)" --domain -3,3 --type 6,6
    approx fit jump_relu --theta 0.1 --margin 0.01 --type 9,8
    approx fit "sin(x)" --domain=-pi/4,pi/4 --relative --type 7,0 --coefficients float32
    approx fit "log1p(x)" --domain=-0.25,0.5 --type 3,2 --fixed p0=0,p1=1,q0=1
    approx fit "exp(x)" --error 1e-9
    approx fit --samples measured.csv --type 3,2

    \f
    Args:
        target: the function, by name or formula.
        type: the degrees, "m,n".
        error: the wanted error.
        samples: a file of samples.
        coefficients: the format of the coefficients.
        fixed: coefficients that are held, by name.
        digits: right digits of the parameters.
        method: the fitter.
        denominator: for least_squares and smoothed_linf.
        domain: the domain as text.
        theta: threshold of a gate.
        margin: half-width of its gap.
        delta: half-width of the gap of sign.
        kinks: where a formula folds.
        relative: minimise the relative error.
        weight: a formula.
        poles: the policy on poles in gaps.
        certify: prove the error.
        output: the file to write.
    """
    import approx

    _writable(output)
    if denominator != "standard" and method in ("minimax", "remez"):
        raise ValueError(f"--denominator belongs to least_squares and smoothed_linf; --method is {method!r}")
    for name, given in (
        ("poles", poles != "free"),
        ("coefficients", coefficients),
        ("fixed", fixed),
        ("digits", digits),
        ("error", error),
    ):
        if given and method != "minimax":
            raise ValueError(f"--{name} belongs to minimax; --method is {method!r}")
    if (target is None) == (samples is None):
        raise ValueError("give either a TARGET or --samples FILE.csv")
    if samples is not None:
        if any(o is not None for o in (domain, theta, margin, delta, kinks)) or certify:
            raise ValueError(
                "--samples brings its own points: no --domain, no options of a target, no --certify"
            )
        the_target = weighted(approx.Samples.read(samples), relative, weight)
    else:
        assert target is not None
        the_target = weighted(target_of(target, domain, theta, margin, delta, kinks), relative, weight)
    if error is not None:
        if coefficients or fixed or digits or poles != "free":
            raise ValueError(
                "--error finds the type of a plain fit: no --coefficients, --fixed, --digits or --poles beside it"
            )
        if type is not None:
            _table(the_target, error, degrees_of(type), certify, output)
            return
        result = approx.fit(the_target, error, progress=True)
    else:
        degrees = degrees_of("5,4" if type is None else type)
        if method == "minimax":
            held = int(coefficients) if coefficients and coefficients.isdigit() else coefficients
            result = approx.minimax(
                the_target,
                degrees,
                poles=poles,
                coefficients=held,
                fixed=None if fixed is None else fixed_of(fixed),
                digits=digits,
                progress=True,
            )
        elif method == "remez":
            result = approx.remez(the_target, degrees)
        elif method in METHODS:
            result = getattr(approx, method)(the_target, degrees, denominator, progress=True)
        else:
            raise ValueError(f"--method {method!r}: expected one of {', '.join(METHODS)}")
    _report(result, certify, output)
    if not result.converged:
        raise typer.Exit(1)


def _report(result: Any, certify: bool, output: Path | None) -> None:
    """Print a fit, prove it where that is asked for, and write it."""
    r = result.rational
    typer.echo(f"{result.method} of {result.target}, type {result.type}")
    typer.echo(f"  error       {result.error:.15g}")
    if result.levelled:
        typer.echo(
            f"  levelled    {result.levelled:.15g}  (no function of the type has a smaller error, up to rounding)"
        )
    typer.echo(f"  converged   {'yes' if result.converged else 'NO'}")
    typer.echo(
        f"  held as     {r.form.name}, {r.bits} bits, centre {float(r.centre):g}, scale {float(r.scale):g}"
    )
    if result.message:
        typer.echo(f"  note        {result.message}")
    proof = prove(r, result.target, result.type, result.fixed) if certify else None
    if output:
        (r if proof is None else proof).save(output)
        typer.echo(f"  written to  {output}")


def _table(target: Any, error: float, type: tuple[int, int], certify: bool, output: Path | None) -> None:
    """Print a table of pieces, and write it as a JSON list of rational functions or certificates."""
    import approx
    from approx.files import write_json

    found = approx.fit(target, error, type, progress=True)
    about = "no table has fewer" if found.fewest else "the fewest that were found"
    typer.echo(f"{len(found.pieces)} pieces of type {type} for {target}; {about}")
    for piece in found.pieces:
        typer.echo(f"  {piece.target.domain}  error {piece.error:.15g}")
    proofs = found.certify() if certify else []
    for proof in proofs:
        show(proof)
    if output:
        write_json(output, [r.to_json() for r in (proofs or [piece.rational for piece in found.pieces])])
        typer.echo(f"  written to  {output}")


@app.command("certify")
def certify_command(
    file: File,
    target: TargetOption = None,
    domain: Domain = None,
    theta: Theta = None,
    margin: Margin = None,
    delta: Delta = None,
    kinks: Kinks = None,
    relative: Relative = False,
    weight: Weight = None,
    type: Annotated[
        str | None, typer.Option(help="m,n of the bound on the best error; default: the exact type.")
    ] = None,
    fixed: Annotated[
        str | None,
        typer.Option(help='Coefficients of x^i, such as "p1=1,q0=1", that all functions of that bound have.'),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the certificate.")
    ] = None,
) -> None:
    """Prove the error of a rational function in FILE against a target.

    \b
    approx certify fit.json --target relu -o proof.json
    approx certify fit.json --target "log1p(x)" --domain=-0.25,0.5 --type 3,2 --fixed p0=0,p1=1,q0=1

    \f
    Args:
        file: what a fit or a proof wrote.
        target: the function, by name or formula.
        domain: the domain as text.
        theta: threshold of a gate.
        margin: half-width of its gap.
        delta: half-width of the gap of sign.
        kinks: where a formula folds.
        relative: the relative error.
        weight: a formula.
        type: the degrees, "m,n".
        fixed: coefficients that are held, by name.
        output: the file to write.
    """
    _writable(output)
    rational, the_target, _ = pair(file, target, domain, theta, margin, delta, kinks)
    the_target = weighted(the_target, relative, weight)
    held = fixed_of(fixed) if fixed else None
    proof = prove(rational, the_target, degrees_of(type) if type else rational.type, held)
    if output:
        proof.save(output)
        typer.echo(f"  written to  {output}")


@app.command()
def verify(file: File) -> None:
    """Replay the proofs in a file; the exit status is 2 when anything in them does not hold.

    The file holds a certificate, a chain of maps (approx composite), or a list of them: a table of pieces with proofs.

    \f
    Args:
        file: what a fit, a proof or a chain wrote.
    """
    proofs = replay(file)
    typer.echo(f"{file}: holds" + (f", all {len(proofs)} proofs" if len(proofs) > 1 else ""))
    for proof in proofs:
        show(proof)


@app.command()
def export(
    file: File,
    to: Annotated[str, typer.Option(help="python, c, torch, json or sympy.")] = "python",
    dtype: Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16.")] = "float64",
    name: Annotated[str, typer.Option(help="Name of the function.")] = "rational",
    form: Annotated[
        str | None, typer.Option(help="Form to write; default: the most accurate in the dtype.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write a form even if it is useless in the dtype.")
    ] = False,
    target: TargetOption = None,
    domain: Domain = None,
    theta: Theta = None,
    margin: Margin = None,
    delta: Delta = None,
    kinks: Kinks = None,
    relative: Relative = False,
    weight: Weight = None,
) -> None:
    """Write source code that evaluates the function in FILE, or the table of pieces.

    Its comment says the measured error. With the target, which a certificate brings along, that is the error against
    the target, in its weight; the form is chosen by it.

    \b
    approx export relu98.json --to c --dtype float32 > relu98.c
    approx export sin.json --to c --dtype float32 --target "sin(x)" --domain 0,pi --relative

    \f
    Args:
        file: what a fit or a proof wrote.
        to: the language.
        dtype: the format.
        name: of the function, or of the entry.
        form: the form to write.
        force: write a useless form too.
        target: the function, by name or formula.
        domain: the domain as text.
        theta: threshold of a gate.
        margin: half-width of its gap.
        delta: half-width of the gap of sign.
        kinks: where a formula folds.
        relative: the relative error.
        weight: a formula.
    """
    import approx
    from approx.source_code import export_pieces

    options = (domain, theta, margin, delta, kinks)
    found = read_pieces(file)
    read = found if isinstance(found, list) else [found]
    named = None if target is None else target_of(target, *options)
    proven = all(certificate for _, certificate in read)
    if named is None and (any(o is not None for o in options) or ((relative or weight) and not proven)):
        raise ValueError("--domain, --relative and the like say of which target: give --target beside them")
    pieces = []
    for rational, certificate in read:
        of = certificate.target if named is None and certificate else named
        pieces.append((rational, weighted(of, relative, weight) if of and (relative or weight) else of))
    if isinstance(found, list):
        source = export_pieces(pieces, to, dtype, name=name, form=form, force=force)
    else:
        source = approx.export(
            pieces[0][0], to, dtype, name=name, form=form, force=force, target=pieces[0][1]
        )
    typer.echo(str(source))


@app.command()
def plot(
    file: File,
    output: Annotated[Path, typer.Option("-o", "--output", help="Image: .png, .pdf or .svg.")] = Path(
        "error.png"
    ),
    target: TargetOption = None,
    domain: Domain = None,
    theta: Theta = None,
    margin: Margin = None,
    delta: Delta = None,
    kinks: Kinks = None,
    relative: Relative = False,
    weight: Weight = None,
) -> None:
    """Draw the error curve of the function in FILE, with the alternation points that its certificate holds.

    \b
    approx plot relu98.json -o relu98.png

    \f
    Args:
        file: what a fit or a proof wrote.
        output: the file to write.
        target: the function, by name or formula.
        domain: the domain as text.
        theta: threshold of a gate.
        margin: half-width of its gap.
        delta: half-width of the gap of sign.
        kinks: where a formula folds.
        relative: the relative error.
        weight: a formula.
    """
    from approx.dyadic import to_float
    from approx.plot import plot_error

    _writable(output, (".png", ".pdf", ".svg"))
    rational, the_target, known = pair(file, target, domain, theta, margin, delta, kinks)
    the_target = weighted(the_target, relative, weight)
    points = known.points if known and target is None else ()
    typer.echo(f"written to {plot_error(rational, the_target, output, [to_float(x) for _, x in points])}")


@app.command()
def table(
    name: Annotated[
        str | None, typer.Argument(help="relu, jump_relu, gate or sign.", show_default=False)
    ] = None,
    type: Annotated[str | None, typer.Argument(help="3,2 to 19,18.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the certificate here.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Fit and prove the whole table again.")] = False,
) -> None:
    """Show the shipped table of the paper's primitives, or one entry of it.

    \b
    approx table
    approx table relu 9,8 -o relu98.json

    \f
    Args:
        name: of the function, or of the entry.
        type: the degrees, "m,n".
        output: the file to write.
        rebuild: make the table again.
    """
    from approx.paper import table as tables

    _writable(output)
    if rebuild:
        typer.echo(f"written to {tables.rebuild()}")
    elif name is None:
        typer.echo("proven largest error of the best approximation")
        typer.echo("type     " + "".join(f"{n:>16}" for n in tables.PRIMITIVES))
        for degrees in tables.TYPES:
            row = "".join(f"{tables.table(n, degrees).upper:16.9e}" for n in tables.PRIMITIVES)
            typer.echo(f"{f'{degrees[0]},{degrees[1]}':9}{row}")
    else:
        if name not in tables.PRIMITIVES:
            raise ValueError(f"{name!r} is not in the table; choose from {', '.join(tables.PRIMITIVES)}")
        if type is None:
            raise ValueError(f"the type is missing: approx table {name} 9,8")
        entry = tables.table(name, degrees_of(type))
        show(entry)
        if output:
            entry.save(output)
            typer.echo(f"  written to  {output}")


@app.command()
def figures(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for figure1.png, figure3.png and figure3.json.")
    ] = Path("figures"),
    up_to: Annotated[int, typer.Option(min=2, max=18, help="Largest denominator degree.")] = 18,
) -> None:
    """Draw the paper's Figures 1 and 3 again: four fitters, and the best there is (20 minutes).

    \f
    Args:
        out: the folder to write into.
        up_to: the largest denominator degree.
    """
    from approx.paper.figures import figures as draw
    from approx.paper.table import TYPES

    for path in draw(out, [t for t in TYPES if t[1] <= up_to]):
        typer.echo(f"written to {path}")


@app.command()
def composite(
    lower: Annotated[float, typer.Option(help="Left end of the interval of |x|, inside (0, 1).")] = 1e-3,
    degrees: Annotated[str, typer.Option(help="The odd degree of each step, innermost first.")] = "5,5,5,5,5",
    form: Annotated[
        str,
        typer.Option(
            help="polynomial; squares: quintics that do not cancel in 16 bits; or rational: maps of type (d, d - 1)."
        ),
    ] = "polynomial",
    dtype: Annotated[
        str, typer.Option(help="Format of the coefficients: float64, float32, bfloat16 or float16.")
    ] = "float64",
    safety: Annotated[float, typer.Option(help="Relative rounding that each step may have.")] = 0.0,
    to: Annotated[
        str | None,
        typer.Option(help="Print the source: json, python, numpy or torch.", show_default="a table"),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file to write.")] = None,
) -> None:
    """Make a chain of odd maps for the sign, or the matrix sign, and prove its error.

    \b
    approx composite --lower 1e-3 --degrees 5,5,5,5,5
    approx composite --degrees 3,3,3 --form rational --to python
    approx composite --form squares --dtype bfloat16 --safety 0.05 --to torch

    \f
    Args:
        lower: left end of the interval.
        degrees: the degrees as text.
        form: the kind of map.
        dtype: the format of the coefficients.
        safety: the rounding that is allowed for.
        to: the language to print.
        output: the file to write.
    """
    import approx

    _writable(output)
    try:
        numbers = tuple(int(d) for d in degrees.split(","))
    except ValueError:
        raise ValueError(f"--degrees {degrees!r}: expected odd numbers such as 5,5,5") from None
    chain = approx.composite_sign(lower, numbers, form, dtype=dtype, safety=safety)
    if to:
        typer.echo(chain.export(to))
    else:
        show(chain)
    if output:
        chain.save(output)
        typer.echo(f"  written to  {output}", err=bool(to))  # beside a source it would be a part of it


def main() -> None:
    """Run the command line; a wrong input is one line on stderr and exit status 2, a failed computation 1."""
    try:
        app()
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (ArithmeticError, RuntimeError, OSError, ImportError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
