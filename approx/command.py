"""What the commands of the command line share: arguments that are read, results that are printed."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

import approx


def tell_version(app: typer.Typer, package: str) -> None:
    """Give an app the option --version."""

    def told(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{package} {approx.__version__}")
            raise typer.Exit

    @app.callback(help=app.info.help)
    def root(
        version: bool = typer.Option(
            False, "--version", callback=told, is_eager=True, help="Print the version, and end."
        ),
    ) -> None: ...


def degrees_of(text: str) -> tuple[int, int]:
    """The type that "9,8" names."""
    try:
        m, n = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"type {text!r}: expected two degrees such as 9,8") from None
    return m, n


def fixed_of(text: str) -> dict[str, float]:
    """The coefficients that "p1=1,q0=1" names."""
    try:
        parts = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in parts}
    except ValueError:
        raise ValueError(f"--fixed {text!r}: expected coefficients such as p1=1,q0=1") from None


def target_of(
    name: str,
    domain: str | None,
    theta: float | None,
    margin: float | None,
    delta: float | None,
    kinks: str | None,
) -> Any:
    """The built-in target of a name, or a formula.

    Args:
        name: the name, or the formula.
        domain: intervals as text.
        theta: threshold of a gate.
        margin: half-width of its gap.
        delta: half-width of the gap of sign.
        kinks: where a formula folds, as text.

    Returns:
        The target.

    Raises:
        ValueError: for a name, an option or a number that is not known.
    """
    from approx.formulas import formula
    from approx.primitives import PRIMITIVES

    given = {"theta": theta, "margin": margin, "delta": delta}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    if domain is not None:
        options["domain"] = intervals(domain)
    row = PRIMITIVES.get(name)
    takes = set(row.options) if row else set()
    for key in set(options) & set(given) - takes:
        raise ValueError(f"--{key} is not an option of target {name!r}")
    if row:
        if kinks is not None:
            raise ValueError(f"--kinks belongs to formulas; {name!r} knows its own")
        return row.make(**options)
    if name.isidentifier() and name != "x":
        raise ValueError(f"target {name!r} is not known: expected {', '.join(PRIMITIVES)}, or a formula in x")
    if kinks is not None:
        try:
            options["kinks"] = [float(k) for k in kinks.split(",")]
        except ValueError:
            raise ValueError(f"--kinks {kinks!r}: expected numbers such as 0 or -1,1") from None
    return formula(name, **options)


def weighted(target: Any, relative: bool, weight: str | None) -> Any:
    """The target with the weight that the options name.

    Args:
        target: the target.
        relative: whether the error is relative.
        weight: a formula in x.
    """
    if relative and weight is not None:
        raise ValueError("--relative and --weight exclude each other: the relative error is a weight too")
    if weight is not None:
        from approx.formulas import formula

        return target.with_weight(formula(weight, target.domain))
    return target.with_weight("relative") if relative else target


def intervals(text: str) -> list[tuple[float, float]]:
    """Intervals from "a,b;c,d", their ends being numbers or such as pi/2."""
    from approx.formulas import constant

    try:
        return [(constant(a), constant(b)) for a, b in (part.split(",") for part in text.split(";"))]
    except ValueError:
        raise ValueError(
            f"--domain {text!r}: expected a,b or a,b;c,d with numbers such as -1.5 or pi/2 (for [a, inf) there is "
            "approx.half_line in Python)"
        ) from None


#: Readers of chains, by the kind of their records
CHAINS = {"composite_sign": "CompositeSign", "composite_power": "CompositePower"}


def read(file: Path) -> tuple[Any, Any]:
    """(rational, certificate or None) out of a rational function's file or a certificate."""
    found = read_pieces(file)
    if not isinstance(found, list):
        return found
    raise ValueError(
        f"{file}: a table of pieces, a JSON list: approx export writes it as code; in Python each item of "
        "json.load(...) is read by approx.Rational.from_json, or by approx.Certificate.from_json where they are proven"
    )


def read_pieces(file: Path) -> tuple[Any, Any] | list[tuple[Any, Any]]:
    """What `read` reads; or a list of such pairs, left to right, out of a table of pieces."""
    from approx.files import read_json

    data = read_json(file)
    if not isinstance(data, list):
        return _read_one(data, str(file))
    found = [_read_one(record, f"{file}: item {number}") for number, record in enumerate(data)]
    ends = [rational.domain.hull for rational, _ in found]
    if not ends or any(left[1] > right[0] for left, right in pairwise(ends)):
        raise ValueError(
            f"{file}: a table of pieces holds one piece at least, each to the right of the one before"
        )
    return found


def _read_one(data: Any, place: str) -> tuple[Any, Any]:
    from approx.proofs import Certificate
    from approx.rational import Rational

    kind = data.get("kind") if isinstance(data, dict) else None
    if kind in CHAINS:
        raise ValueError(
            f"{place}: a chain of maps; in Python approx.{CHAINS[kind]}.from_json(json.load(...)) reads and proves it, "
            "as approx verify does"
        )
    try:
        if kind == "certificate":
            certificate = Certificate.from_json(data)
            return certificate.rational, certificate
        return Rational.from_json(data), None
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def pair(file: Path, target: str | None, *options: Any) -> tuple[Any, Any, Any]:
    """The rational function in a file, the target that is named or that its certificate holds, and the
    certificate.
    """
    rational, certificate = read(file)
    if target is None and certificate is None:
        raise ValueError(
            "--target is missing: a file with a rational function alone does not say what it approximates"
        )
    if target is None and any(o is not None for o in options):
        raise ValueError("--domain, --theta, --margin, --delta and --kinks need --target beside them")
    return rational, certificate.target if target is None else target_of(target, *options), certificate


def prove(rational: Any, target: Any, type: tuple[int, int], fixed: Any = None) -> Any:
    """Certify, print and return the certificate.

    Args:
        rational: the function.
        target: what it approximates.
        type: the (m, n) of the bound on the best error.
        fixed: coefficients of the functions that the bound is about.
    """
    import approx

    proof = approx.certify(rational, target, type=type, fixed=fixed)
    if not isinstance(proof, approx.Certificate):
        raise ValueError(
            f"target {target.name!r} has no enclosure: only an estimate, {proof.value:.6g}, can be given"
        )
    show(proof)
    return proof


def replay(file: Path) -> list[Any]:
    """What a file proves, every claim of it proven anew: a certificate, a chain, or a list of those."""
    import approx
    from approx.files import read_json

    data = read_json(file)
    found = []
    for number, record in enumerate(data if isinstance(data, list) else [data]):
        kind = record.get("kind") if isinstance(record, dict) else None
        place = f"{file}: item {number}" if isinstance(data, list) else str(file)
        try:
            if kind in CHAINS:
                found.append(getattr(approx, CHAINS[kind]).from_json(record))
            elif kind == "certificate" or not isinstance(data, list):
                found.append(approx.Certificate.from_json(record))
                found[-1].verify()
            else:
                raise ValueError("it proves nothing; a table of pieces has proofs where --certify wrote it")
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise approx.CertificateError(f"{place}: {error}") from None
    if not found:
        raise approx.CertificateError(f"{file}: an empty list, which proves nothing")
    return found


def show(proof: Any) -> None:
    """Print what a certificate or a chain proves."""
    if hasattr(proof, "images"):
        show_chain(proof)
    else:
        show_certificate(proof)


def show_chain(chain: Any) -> None:
    """Print what a chain proves, its steps and what they map to."""
    sign = hasattr(chain, "lower")
    where = f"{chain.lower:g} <= |x| <= 1" if sign else "{:g} <= x <= {:g}".format(*chain.interval)
    typer.echo(f"{len(chain.steps)} steps for {where}, coefficients in {chain.dtype}")
    error = "|sign(x) - chain(x)|" if sign else f"|x**{-chain.power:g} chain(x) - 1|"
    rounded = f", if each step rounds by at most {chain.safety!r}" if chain.safety else ""
    typer.echo(f"  proven      {error} <= {chain.error!r}{rounded}")
    for row, (low, high) in zip(chain.coefficients(), chain.images, strict=True):
        told = row
        if isinstance(row, dict):
            told = str(row["num"]) + (f" / {row['den']}" if len(row["den"]) > 1 else "")
        typer.echo(f"  {told}  ->  [{low:.9g}, {high:.9g}]")


def show_certificate(certificate: Any) -> None:
    """Print what a certificate proves."""
    weight = certificate.target.weight
    error = "|f - r|" if weight is None else "|f - r|/|f|" if weight == "relative" else "w |f - r|"
    typer.echo(f"  proven      {certificate.lower!r} <= sup {error} <= {certificate.upper!r}")
    typer.echo(f"  pole-free   {'yes' if certificate.pole_free else 'NO'}, on the convex hull of the domain")
    held = (
        " with " + ", ".join(f"{name} = {value}" for name, value in certificate.fixed)
        if certificate.fixed
        else ""
    )
    best = f"no type {certificate.type} function{held} has an error below {certificate.best_lower!r}"
    if not certificate.best_lower:
        tiny = certificate.upper <= 2 * math.ulp(0.0)
        best = f"nothing is proven: {'the error is below all floats' if tiny else 'too few alternations'}"
    typer.echo(f"  best        {best}")
