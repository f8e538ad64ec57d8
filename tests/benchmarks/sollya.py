"""Beside Sollya, the libm authors' tool (Debian package `sollya`): coefficients in a format, remez, supnorm.

    pytest tests/benchmarks/sollya.py -s

Each error is certified by `approx`, whoever found the coefficients. Seconds are those on the clock; Sollya's hold its
start.
"""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

import approx

pytestmark = pytest.mark.skipif(shutil.which("sollya") is None, reason="sollya is not installed")

BITS = {"float32": 24, "bfloat16": 8}
# formula, domain, powers, relative; Sollya divides by f, so its domain leaves a zero at 0 out
KERNELS = [
    ("sin(x)", (2**-20, 0.785398), (1, 3, 5, 7), True),
    ("cos(x)", (0.0, 0.785398), (0, 2, 4, 6), True),
    ("exp(x)", (-0.34657, 0.34657), (0, 1, 2, 3, 4, 5), True),
    ("log1p(x)", (2**-20, 0.41421), (1, 2, 3, 4, 5, 6), True),
    ("atan(x)", (2**-20, 0.41421), (1, 3, 5, 7), True),
    ("tanh(x)", (2**-20, 0.5), (1, 3, 5, 7), True),
    ("erf(x)", (2**-20, 0.84), (1, 3, 5, 7, 9), True),
    ("exp(-x^2)", (-1.0, 1.0), (0, 2, 4, 6), False),
    ("1/(1+x)", (0.0, 1.0), (0, 1, 2, 3, 4), False),
    ("sqrt(1+x)", (0.0, 1.0), (0, 1, 2, 3), False),
]


def sollya(script: str) -> tuple[list[str], float]:
    """The lines that a script prints, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run(["sollya"], input=script, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.split("\n"), time.perf_counter() - start


def polynomial(command: str, degree: int) -> tuple[list[float] | None, float]:
    """The coefficients of the polynomial that a command makes; None where it fails."""
    prints = "".join(f"print(coeff(p,{i}));" for i in range(degree + 1))
    lines, seconds = sollya(f"verbosity=0!; display=hexadecimal!; p={command}; {prints}\nquit;")
    try:
        return [float.fromhex(line) for line in lines if line.strip()][: degree + 1], seconds
    except ValueError:
        return None, seconds


def upper(coefficients: list[float], target: approx.Target) -> float:
    proof = approx.certify(approx.Rational.from_monomial(coefficients, [1], target.domain), target)
    assert isinstance(proof, approx.Certificate)
    return proof.upper


def target_of(text: str, domain: tuple[float, float], relative: bool) -> approx.Target:
    target = approx.formula(text.replace("^", "**"), domain)
    return target.with_weight("relative") if relative else target


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize(("text", "domain", "powers", "relative"), KERNELS)
def test_coefficients_in_a_format(text, domain, powers, relative, dtype):
    target = target_of(text, domain, relative)
    kind = "relative" if relative else "absolute"
    command = (
        f"fpminimax({text}, [|{','.join(map(str, powers))}|], [|{BITS[dtype]}...|], "
        f"[{domain[0]!r};{domain[1]!r}], {kind})"
    )
    theirs, their_seconds = polynomial(command, powers[-1])
    start = time.perf_counter()
    missing = {f"p{i}": 0 for i in range(powers[-1] + 1) if i not in powers}
    ours = approx.minimax(target, (powers[-1], 0), coefficients=dtype, fixed={"q0": 1, **missing})
    seconds = time.perf_counter() - start
    rounded = approx.minimax(target, (powers[-1], 0), fixed={"q0": 1, **missing})
    their_error = float("inf") if theirs is None else upper(theirs, target)
    print(
        f"\n| {text} | {dtype} | {rounded.error:.4g} | {ours.error:.4g} | {their_error:.4g} "
        f"| {seconds:.2f} | {their_seconds:.2f} |"
    )
    assert ours.error <= 1.01 * their_error


@pytest.mark.parametrize("degree", [5, 10, 20])
@pytest.mark.parametrize(("text", "domain"), [("exp(x)", (-1.0, 1.0)), ("atan(5*x)", (-0.7, 1.0))])
def test_remez(text, domain, degree):
    target = approx.formula(text, domain)
    start = time.perf_counter()
    ours = approx.minimax(target, (degree, 0))
    seconds = time.perf_counter() - start
    lines, their_seconds = sollya(
        f"verbosity=0!; p=remez({text}, {degree}, [{domain[0]!r};{domain[1]!r}]); "
        f"s=supnorm(p, {text}, [{domain[0]!r};{domain[1]!r}], absolute, 2^(-40)); print(sup(s));\nquit;"
    )
    theirs = float(lines[0])
    print(
        f"\n| {text} ({degree},0) | {ours.error:.6g} | {theirs / ours.error - 1:.1e} "
        f"| {seconds:.2f} | {their_seconds:.2f} |"
    )
    assert ours.error <= theirs * (1 + 1e-9)


@pytest.mark.parametrize(("text", "domain", "powers", "relative"), KERNELS)
def test_supnorm(text, domain, powers, relative):
    target = target_of(text, domain, relative)
    missing = {f"p{i}": 0 for i in range(powers[-1] + 1) if i not in powers}
    fit = approx.minimax(target, (powers[-1], 0), coefficients="float32", fixed={"q0": 1, **missing})
    start = time.perf_counter()
    proof = approx.certify(fit)
    seconds = time.perf_counter() - start
    assert isinstance(proof, approx.Certificate)
    terms = "+".join(f"({c.hex()})*x^{i}" for i, c in enumerate(map(float, fit.rational.numerator)) if c)
    kind = "relative" if relative else "absolute"
    lines, their_seconds = sollya(
        f"verbosity=0!; s=supnorm({terms}, {text}, [{domain[0]!r};{domain[1]!r}], {kind}, 2^(-40)); "
        "display=hexadecimal!; print(inf(s)); print(sup(s));\nquit;"
    )
    low, high = (float.fromhex(line) for line in lines[:2])
    print(
        f"\n| {text} | {proof.lower:.12g} | {proof.upper:.12g} | {low:.12g} | {high:.12g} "
        f"| {seconds:.2f} | {their_seconds:.2f} |"
    )
    assert proof.lower <= high
    assert low <= proof.upper
