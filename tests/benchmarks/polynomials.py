"""Polynomials of high degree: `python tests/benchmarks/polynomials.py [DEGREE ...]`, one line a target and degree.

Printed: the target, the degree, processor seconds, the verdict, the error and its lower bound.
"""

import sys
import time

import approx

TARGETS = {
    "abs(x)": (-1, 1),
    "abs(x-0.3)": (-1, 1),
    "abs(x-0.3)+max(0,x)": (-1, 1.2),
    "sqrt(abs(x))": (-1, 1),
    "sqrt(x)": (0, 1),
    "x**(1/3)": (0, 1),
    "x**0.3": (0, 1),
    "exp(x)": (-1, 1),
    "sin(x)": (-1, 1),
    "sin(50*x)": (-1, 1),
    "sin(200*x)": (-1, 1),
    "sin(600*x)": (-1, 1),
    "tanh(50*x)": (-1, 1),
    "tanh(80*(x-0.2))": (-1, 1),
    "1/(1+25*x**2)": (-1, 1),
    "1/sqrt(x+1.001)": (-1, 1),
}


def main(degrees: list[int]) -> None:
    approx.minimax(approx.formula("exp(x)"), (70, 0))  # imports do not count
    for text, domain in TARGETS.items():
        for degree in degrees:
            start = time.process_time()
            fit = approx.minimax(approx.formula(text, domain), (degree, 0))
            seconds = time.process_time() - start
            print(
                f"{text:20} {degree:5} {seconds:7.2f} {fit.verdict.name} {fit.error:.9e} {fit.levelled:.9e}",
                flush=True,
            )


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [500, 1000, 2000])
