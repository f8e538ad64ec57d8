from __future__ import annotations

import re
import sys
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from evals.measures import columns
from evals.report.names import Names
from evals.report.tables import Line, Table, show
from evals.report.text import cells_table, figures
from evals.results import write_result
from tests.evals.helpers import control, result, tuned


def test_names_leave_out_what_all_have_in_common():
    one = [result(), tuned()]
    assert Names(one).cell(one[1]) == "jump_relu gated"
    seeds = [tuned(seed=0), tuned(seed=1)]
    assert Names(seeds).cell(seeds[1]) == "jump_relu s1 gated"
    levels = [tuned(level=4), tuned(level=8)]
    assert Names(levels).within(levels[0]) == "gated l0_4"
    widths = [tuned(d_sae=16), tuned(d_sae=32)]
    assert Names(widths).group(widths[1]) == "jump_relu 32"


def test_a_table_of_cells(tmp_path, capsys):
    for r in (result(k1=0.5), tuned(), control()):
        write_result(tmp_path / "one", r)
    table = cells_table([tmp_path / "one"])
    assert [line.control for line in table.lines] == [False, False, True]
    assert table.lines[1].texts[table.headings.index("probe k=1")] == "–"
    show(table, markdown=True)
    lines = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[1].startswith("| --- | ---: |")
    two = cells_table([tmp_path / "one", tmp_path / "one"])
    assert two.headings[:2] == ["run", "variant"]
    assert len(two.lines) == 6


def test_figures_as_text():
    r = result(fvu=0.12345, l0=9.96)
    assert figures(r, columns([r]))[:3] == ["10.0", "1", "0.1235"]


def test_names_are_shown_as_they_are(capsys):
    """Square brackets are markup to the library that draws tables."""
    show(Table("of [bold]x[/]", ["a [b]", "c"], [Line(["run [old]", "1"])]))
    text = capsys.readouterr().out
    assert all(words in text for words in ("of [bold]x[/]", "a [b]", "run [old]"))


@given(
    st.integers(20, 200),
    st.lists(
        st.tuples(st.sampled_from(["variant", "l0", "FVU", "probe k=1"]), st.integers(1, 30)), min_size=1
    ),
    st.integers(0, 3),
)
def test_a_table_that_is_too_wide_stands_in_blocks(width, columns, rows):
    table = Table("title", [name for name, _ in columns], [Line(["x" * size for _, size in columns])] * rows)
    front = len(list(takewhile(bool, table.words)))
    blocks = table.blocks(width)
    for block in blocks:
        widths = [max(len(table.headings[i]), columns[i][1] * bool(rows)) + 3 for i in block]
        shared = len([i for i in block if i < front and i in blocks[0][:front]])
        assert sum(widths) < width or len(block) <= shared + 1
    assert sorted({i for block in blocks for i in block}) == list(range(len(columns)))
    assert all(block == sorted(block) for block in blocks)


def test_no_number_is_cut_in_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    for r in (result(k1=0.5), tuned(), control()):
        write_result(tmp_path / "one", r)
    table = cells_table([tmp_path / "one"])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    show(table)
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert max(map(len, printed.splitlines())) <= 80
    assert "\u2026" not in printed
    for text in (*table.headings, *(text for line in table.lines for text in line.texts)):
        assert text in printed
