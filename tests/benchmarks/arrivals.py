"""How often `minimax` arrives, and how often its peers: ordinary functions, all types up to a degree.

    python tests/benchmarks/arrivals.py OUT.jsonl            # types up to (8, 8): 25 functions, 2025 problems
    python tests/benchmarks/arrivals.py OUT.jsonl 4          # types up to (4, 4)

A fit is *late* if its verdict says that it did not arrive, *worse* if a smaller type has a smaller error, *false* if
its lower bound exceeds the error of any function of its type that was found, *degenerate* if a smaller type is best.
On the diagonal, types (n, n), n > 0, baryrat's BRASIL and SciPy's AAA (2001 Chebyshev points) are run too: they are
*near* if their error is within 1 % of the best one, *far* if not, *fails* if they raise, or have a pole inside.
One line of OUT is one function; a run that is repeated goes on after the last line.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import approx

FUNCTIONS = [
    ("x/(1+exp(-3*x))+exp(-x*x)", (-2.3, 1.9)),
    ("sin(4*x)*exp(-x*x/3)", (-0.7, 2.6)),
    ("(x+0.05)**1.5", (0, 2.2)),
    ("tan(x)", (-0.3, 1.4)),
    ("tanh(8*(x+0.4))-tanh(5*(x-0.9))/2", (-1.2, 1.7)),
    ("x*normal_cdf(2*x)", (-1.4, 2.7)),
    ("log(1.2+x**2)", (-0.6, 3.1)),
    ("1/(0.02+(x-0.2)**2)", (-1, 1.3)),
    ("sinh(x)", (-1, 3)),
    ("1/sqrt(x+0.3)", (0, 4)),
    ("exp(x)-x**3/4", (-2, 1.3)),
    ("cos(5*x+1)", (-0.8, 1.1)),
    ("erf(3*x-0.5)", (-0.9, 1.6)),
    ("sigmoid(12*(x-0.2))", (-1.3, 0.9)),
    ("exp(-6*(x-0.4)**2)-exp(-9*(x+0.7)**2)/2", (-1.5, 1.4)),
    ("log(x+0.02)", (0, 1.7)),
    ("x**0.7", (0, 3)),
    ("atan(7*x)+x/3", (-0.5, 1.9)),
    ("exp(sin(3*x))", (-0.6, 1.5)),
    ("x*exp(-2*x)", (0, 6)),
    ("sqrt(x+1.02)*sin(3*x)", (-1, 0.9)),
    ("1/(1+exp(-9*x))-1/(1+exp(4-5*x))", (-1.1, 2.2)),
    ("2**x*cos(3*x)", (-1.7, 0.8)),
    ("log(2+sin(5*x))", (-0.4, 1.2)),
    ("cosh(x)/(1+x**2)", (-1.2, 2.9)),
]


def ours(target: approx.Target, degree: int) -> list[dict[str, Any]]:
    """A record of each type."""
    found: list[dict[str, Any]] = []
    for m in range(degree + 1):
        for n in range(degree + 1):
            start = time.process_time()
            try:
                fit = approx.minimax(target, (m, n))
                record = {"error": fit.error, "levelled": fit.levelled, "verdict": fit.verdict.name}
            except RuntimeError:
                record = {"error": None, "levelled": 0.0, "verdict": "RAISED"}
            found.append({"type": [m, n], "seconds": time.process_time() - start, **record})
    return found


def peers(target: approx.Target, degree: int) -> list[dict[str, Any]]:
    """Errors of BRASIL and AAA on the diagonal; None where they fail."""
    import baryrat
    from scipy.interpolate import AAA

    a, b = target.hull
    look = (a + b) / 2 - (b - a) / 2 * np.cos(np.linspace(0, np.pi, 20001))
    points = (a + b) / 2 - (b - a) / 2 * np.cos(np.linspace(0, np.pi, 2001))

    def tried(make: Callable[[], Any]) -> tuple[float | None, float]:
        start = time.process_time()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                r = make()
                error = float(np.max(np.abs(target(look) - r(look))))
                poles: Any = r.poles() if callable(r.poles) else r.poles
        except Exception:  # whatever a peer raises: it has not arrived
            return None, time.process_time() - start
        inside = any(abs(p.imag) < 1e-12 and a <= p.real <= b for p in np.atleast_1d(poles))
        return (None if inside or not np.isfinite(error) else error), time.process_time() - start

    found: list[dict[str, Any]] = []
    for n in range(1, degree + 1):
        brasil, brasil_s = tried(lambda n=n: baryrat.brasil(target, (a, b), n))
        aaa, aaa_s = tried(lambda n=n: AAA(points, target(points), max_terms=n + 1, clean_up=False, rtol=0))
        found.append({"n": n, "BRASIL": brasil, "BRASIL s": brasil_s, "AAA": aaa, "AAA s": aaa_s})
    return found


def summary(lines: list[dict[str, Any]]) -> None:
    """Print the table, and the fits that did not go well."""
    total: Counter[str] = Counter()
    seconds: list[float] = []
    theirs: dict[str, Counter[str]] = {"BRASIL": Counter(), "AAA": Counter()}
    clocks: dict[str, list[float]] = {"BRASIL": [], "AAA": []}
    for line in lines:
        fits = {tuple(r["type"]): r for r in line["fits"]}
        errors = {t: np.inf if r["error"] is None else r["error"] for t, r in fits.items()}
        for (m, n), r in fits.items():
            least = min(errors[i, j] for i in range(m + 1) for j in range(n + 1))
            verdict = approx.Verdict[r["verdict"]] if r["error"] is not None else None
            marks = {
                "late": verdict is None or not verdict.converged,
                "degenerate": verdict is approx.Verdict.DEGENERATE,
                "worse": errors[m, n] > least * (1 + 1e-6),
                "false": r["levelled"] > least * (1 + 1e-9),
            }
            total.update(["fits", *(name for name, mark in marks.items() if mark)])
            seconds.append(r["seconds"])
            if marks["late"] or marks["worse"] or marks["false"]:
                print(f"{line['f']} on {line['domain']}, type {(m, n)}: {r}")
        for row in line["peers"]:
            best = errors[row["n"], row["n"]]
            if best < 1e-13:  # float64 cannot show it
                continue
            for name, counts in theirs.items():
                kind = "fails" if row[name] is None else "near" if row[name] <= 1.01 * best else "far"
                counts.update(["fits", kind])
                clocks[name].append(row[f"{name} s"])
    print(dict(total), f"median {np.median(seconds):.3f} s, all {sum(seconds):.0f} s")
    for name, counts in theirs.items():
        print(name, dict(counts), f"median {np.median(clocks[name]):.3f} s")


def main(out: Path, degree: int) -> None:
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {line["f"] for line in lines}
    for text, domain in FUNCTIONS:
        if text in done:
            continue
        target = approx.formula(text, domain)
        record = {"f": text, "domain": domain, "fits": ours(target, degree), "peers": peers(target, degree)}
        with out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        lines.append(record)
    summary(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8)
