"""A run whose page is looked at, and the page as a browser reads it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.evals.conftest import SUITE, evals

_VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Elements with an id, table rows and list items, as text; whatever does not nest is an error."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.rows: list[tuple[dict[str, str | None], str]] = []
        self.items: list[str] = []
        self._ids: list[str | None] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag in _VOID:
            return
        self.open.append(tag)
        self._ids.append(dict(attrs).get("id"))
        if tag == "tr":
            self.rows.append((dict(attrs), ""))
        if tag == "li":
            self.items.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._ids.pop()

    def handle_data(self, data):
        for name in filter(None, self._ids):
            self.texts[name] = self.texts.get(name, "") + data
        if "tr" in self.open:
            attributes, text = self.rows.pop()
            self.rows.append((attributes, text + " " + data))
        if "li" in self.open:
            self.items[-1] += data


@pytest.fixture(scope="session")
def report_run(tmp_path_factory, host_directory):
    """Two families, one of them signed, two levels, one seed; words that would break a page that did not escape."""
    directory = tmp_path_factory.mktemp("report")
    text = directory / "text.jsonl"
    words = ["</script><b>", "&amp;", "river", "stone", "'light\"", "zeta", "wave"]
    rng = np.random.default_rng(0)
    rows = [{"text": " ".join(rng.choice(words, 10))} for _ in range(160)]
    text.write_text("\n".join(map(json.dumps, rows)))
    task = directory / "task.csv"
    task.write_text(
        "\n".join(["text,label", *(f"{'red' if i % 2 else 'blue'} {i},{i % 2}" for i in range(120))])
    )
    suite = SUITE.format(host=host_directory, text=text, task=task)
    for old, new in (
        ('"top_k"', '"sign_aware_gated"'),
        ("[0, 1]", "[0]"),
        ("[tune]", '[upgrades.soft]\ntype = [3, 2]\nvariant = "soft"\n[tune]'),
    ):
        suite = suite.replace(old, new)
    file = directory / "suite.toml"
    # `soft` has no gate for the signed family: a suite of its own in the same directory
    signed, unsigned = suite.replace('"jump_relu", ', ""), suite.replace(', "sign_aware_gated"', "")
    for text_ in (re.sub(r"\[upgrades.soft\][^[]*(\[3, 2\])[^[]*", "", signed), unsigned):
        file.write_text(text_)
        done = evals("run", file, "--out", directory / "run")
        assert done.returncode == 0, done.stderr
    return directory / "run"


@pytest.fixture(scope="session")
def page(report_run):
    done = evals("report", report_run, "--figures", report_run / "figures")
    assert done.returncode == 0, done.stderr
    return Page((report_run / "report.html").read_text())
