"""The shipped table: best approximations of the paper's primitives at the types of its Figure 3, each proven.

One certificate a file, as `approx.certify` writes it; `approx table --rebuild` makes them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from tqdm import tqdm

from approx.primitives import gate, jump_relu, relu, sign
from approx.proofs import Certificate, certify
from approx.target import Target

TYPES = [(2 * k + 1, 2 * k) for k in range(1, 10)]
PRIMITIVES: dict[str, Callable[[], Target]] = {
    "relu": relu,
    "jump_relu": lambda: jump_relu(0.1, margin=0.01),
    "gate": lambda: gate(0.0, 0.01),
    "sign": lambda: sign(0.1),
}


def table(name: str, type: tuple[int, int]) -> Certificate:
    """The best approximation of a primitive with its certificate: `.rational`, `.target`, `.lower`, `.upper`,
    `.best_lower`.

    name: "relu", "jump_relu" (theta 0.1, margin 0.01), "gate" (theta 0, margin 0.01) or "sign" (delta 0.1).
    type: (3, 2), (5, 4), ..., (19, 18).

    Reading does not replay the proof: `approx.table(...).verify()` does.

    Args:
        name: "relu", "jump_relu" (theta 0.1, margin 0.01), "gate" (theta 0, margin 0.01) or "sign" (delta
            0.1).
        type: (3, 2), (5, 4), ..., (19, 18).

    Raises:
        ValueError: for other names and types.
    """
    if name not in PRIMITIVES:
        raise ValueError(
            f"name={name!r}: the table has {', '.join(PRIMITIVES)}; use approx.minimax for others"
        )
    if tuple(type) not in TYPES:
        raise ValueError(
            f"type={type!r}: the table has (3, 2), (5, 4), ..., (19, 18); use approx.minimax for others"
        )
    text = resources.files("approx.paper").joinpath("data", _file(name, type)).read_text()
    return Certificate.from_json(json.loads(text))


def _file(name: str, type: tuple[int, int]) -> str:
    return f"{name}_{type[0]}_{type[1]}.json"


def rebuild(folder: str | Path | None = None, progress: bool = True) -> Path:
    """Fit and prove every entry again and write it into `folder`, by default the package's own. Returns the
    folder.

    Args:
        folder: where to write; by default the folder of the package.
        progress: show a progress bar.

    Raises:
        RuntimeError: when a fit is not the best approximation.
    """
    from approx.fit.minimax import minimax

    folder = Path(str(resources.files("approx.paper").joinpath("data"))) if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    todo = [(name, type) for name in PRIMITIVES for type in TYPES]
    for name, type in tqdm(todo, desc="table", disable=not progress):
        fit = minimax(PRIMITIVES[name](), type)
        if not fit.converged:
            raise RuntimeError(f"{name} {type}: {fit.message}")
        proof = certify(fit.rational, fit.target, type=type)
        assert isinstance(proof, Certificate)
        proof.save(folder / _file(name, type))
    return folder
