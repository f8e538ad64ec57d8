"""What the documentation promises: every public name in the reference, with its parameters; every field with a line."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("approx", "rsae", "evals")


def public() -> list[tuple[str, str, str]]:
    found = []
    for package in PACKAGES:
        stub = (ROOT / package / "__init__.pyi").read_text()
        pattern = r"^from \.(\S+) import (\w+) as \w+"
        found += [(package, module, name) for module, name in re.findall(pattern, stub, flags=re.M)]
    return found


@pytest.mark.parametrize(("package", "module", "name"), public())
def test_a_public_name_says_what_it_is_and_names_its_parameters(package, module, name):
    thing = getattr(importlib.import_module(package), name)
    doc = inspect.getdoc(thing) or ""
    assert doc.strip(), f"{package}.{name} has no docstring"
    if inspect.isfunction(thing):
        wanted = [p for p in inspect.signature(thing).parameters if p not in ("self", "cls")]
        missing = [p for p in wanted if not re.search(rf"\b{re.escape(p)}\b", doc)]
        assert not missing, f"{package}.{name} does not say what {missing} is"


@pytest.mark.parametrize(("package", "module", "name"), public())
def test_every_field_of_a_public_dataclass_has_a_line_below_it(package, module, name):
    thing = getattr(importlib.import_module(package), name)
    if not is_dataclass(thing) or not inspect.isclass(thing):
        pytest.skip("no dataclass")
    (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(thing))).body
    assert isinstance(node, ast.ClassDef)
    told = {
        field.target.id
        for field, below in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }
    own = {f.name for f in fields(thing) if f.name in thing.__annotations__ and not f.name.startswith("_")}
    assert own <= told, f"{name}: no line below {sorted(own - told)}"


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
