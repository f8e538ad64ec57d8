"""Polynomials of high degree: `python tests/benchmarks/polynomials.py [DEGREE ...]`, one line a target and degree.

`python tests/benchmarks/polynomials.py --random COUNT [FIRST]` takes random targets instead, by their number.

Printed: the target, the degree, processor seconds, the verdict, the error and its lower bound.
"""

import random
import sys
import time
from collections.abc import Iterator

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


def random_target(number: int) -> tuple[approx.Target, int]:
    """A sum or a product of one to four waves, chirps, Gaussians, sigmoids, powers, folds and roots, and a degree."""
    chance = random.Random(number)
    a = chance.uniform(-2, 1)
    b = a + 10 ** chance.uniform(-0.5, 0.7)
    degree = int(10 ** chance.uniform(0, 3.3))
    turns = degree / (b - a) * 3

    def term() -> str:
        height, at = chance.uniform(-2, 2), chance.uniform(a, b)
        rate = turns * 10 ** chance.uniform(-1.3, 0.6)
        return f"({height:.4f})*" + chance.choice(
            [
                f"sin({rate:.4f}*x+{at:.4f})",
                f"cos({rate / (abs(a) + abs(b)):.4f}*x**2)",
                f"exp(-{rate**2:.4f}*(x-({at:.5f}))**2)",
                f"tanh({rate:.4f}*(x-({at:.5f})))",
                f"abs(x-({at:.5f}))**{chance.uniform(0.2, 3):.3f}",
                f"abs(x-({at:.5f}))",
                f"sqrt(x-({a:.6f})+1e-6)",
                f"max(0,sin({rate / 10:.4f}*x+{at:.4f}))",
            ]
        )

    terms = [term() for _ in range(chance.randint(1, 4))]
    text = chance.choice(["+", "+", "+", "*"]).join(f"({t})" for t in terms)
    kind = chance.random()
    if kind < 0.1:
        text = f"1e{chance.choice([-100, 100])}*({text})"
    middle, gap = (a + b) / 2, (b - a) * chance.uniform(0.01, 0.3)
    domain = [(a, middle - gap), (middle + gap, b)] if chance.random() < 0.05 else (a, b)
    target = approx.formula(text, domain)
    return (
        target.with_weight(approx.formula("1/(2+x**2)", domain)) if chance.random() < 0.1 else target
    ), degree


def cases(arguments: list[str]) -> Iterator[tuple[approx.Target, int]]:
    """What is asked for."""
    if arguments[:1] == ["--random"]:
        count, first = int(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 0
        yield from (random_target(number) for number in range(first, first + count))
    else:
        degrees = [int(a) for a in arguments] or [500, 1000, 2000]
        yield from ((approx.formula(text, domain), m) for text, domain in TARGETS.items() for m in degrees)


def main(arguments: list[str]) -> None:
    approx.minimax(approx.formula("exp(x)"), (70, 0))  # imports do not count
    for target, degree in cases(arguments):
        start = time.process_time()
        fit = approx.minimax(target, (degree, 0))
        seconds = time.process_time() - start
        print(
            f"{target.name:20} {degree:5} {seconds:7.2f} {fit.verdict.name} {fit.error:.9e} {fit.levelled:.9e}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
