"""The pages run as they are written, and their tables hold."""

import json
import re
from pathlib import Path

import pytest

from approx import CompositeSign, composite_sign

DOCS = Path(__file__).parents[2] / "docs" / "approx"
PAGES = sorted(page.stem for page in DOCS.glob("*.md") if "```python" in page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), flags=re.S)
    assert blocks
    if page == "optimisers":
        pytest.importorskip("torch").manual_seed(0)
    exec(compile("\n".join(blocks), f"{page}.md", "exec"), {})


def chains() -> list[CompositeSign]:
    return [
        CompositeSign.from_json(record)
        for record in json.loads((DOCS / "tables" / "matrix_sign_bfloat16.json").read_text())
    ]


def test_the_tables_of_matrix_signs_are_proven_again_and_printed_rightly():
    """`from_json` proves; here the printed numbers are compared."""
    found = {(chain.lower, len(chain.steps)): chain.error for chain in chains()}
    assert len(found) == 49
    printed = re.findall(r"^\| (1e-\d) \| (.*) \|$", (DOCS / "optimisers.md").read_text(), flags=re.M)
    assert len(printed) == 14
    for k, (lower, row) in enumerate(printed):
        for steps, text in zip(range(4, 11), row.split(" | "), strict=True):
            if k < 7 and steps % 3 == 0:
                error = composite_sign(float(lower), (5,) * steps).error
            elif k >= 7:
                error = found[float(lower), steps]
            else:
                continue
            assert float(text) == pytest.approx(error, rel=0.05, abs=5e-4)


def test_every_number_of_bfloat16_keeps_the_promise_of_the_tables():
    for chain in chains():
        found = chain.measured()
        assert found.exhaustive
        assert found.error <= chain.error


def test_random_matrices_in_bfloat16_keep_the_promise_of_the_tables():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for chain in chains():
        if chain.lower < 0.9e-3 and not (chain.lower > 0.9e-4 and len(chain.steps) >= 8):
            continue
        scope: dict = {}
        exec(chain.export("torch", "polar"), scope)
        for shape in ((24, 48), (32, 32)):
            u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
            # singular values that bfloat16 keeps to the 2 % that the table assumes
            x = (u * torch.linspace(0.1, 1, min(shape), dtype=torch.float64)) @ v
            found = torch.linalg.svdvals(scope["polar"](x.to(torch.bfloat16)).double())
            assert float((found - 1).abs().max()) <= chain.error
