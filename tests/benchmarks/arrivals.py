"""How often `minimax` arrives: ordinary functions on ordinary intervals, all types up to a degree.

    python tests/benchmarks/arrivals.py            # types up to (8, 8), about two minutes
    python tests/benchmarks/arrivals.py 4          # types up to (4, 4)

A fit is *late* if its verdict says that it did not arrive, *worse* if a smaller type has a smaller error, *false* if
its lower bound exceeds the error of any function of its type that was found.
"""

from __future__ import annotations

import sys
import time

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
]


def main(degree: int) -> None:
    total = {"fits": 0, "late": 0, "worse": 0, "false": 0}
    start = time.perf_counter()
    for text, domain in FUNCTIONS:
        target = approx.formula(text, domain)
        fits: dict[tuple[int, int], tuple[float, float, str]] = {}
        for m in range(degree + 1):
            for n in range(degree + 1):
                try:
                    fit = approx.minimax(target, (m, n))
                    fits[m, n] = (fit.error, fit.levelled, "" if fit.converged else fit.verdict.name)
                except RuntimeError:
                    fits[m, n] = (np.inf, 0.0, "RAISED")
        for (m, n), (error, bound, verdict) in fits.items():
            least = min(fits[i, j][0] for i in range(m + 1) for j in range(n + 1))
            late, worse, false = bool(verdict), error > least * (1 + 1e-6), bound > least * (1 + 1e-9)
            total["fits"] += 1
            for name, found in zip(("late", "worse", "false"), (late, worse, false), strict=True):
                total[name] += found
            if late or worse or false:
                print(f"{text} on {domain}, type {(m, n)}: error {error:.6g}, bound {bound:.6g}, {verdict}")
    print(total, f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
