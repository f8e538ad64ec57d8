"""A table for reading: in the terminal, in a file, or as Markdown."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import takewhile

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

#: Columns of words; all others are numbers
_WORDS = (
    "run",
    "set",
    "letter",
    "latent",
    "explanation",
    "variant",
    "setting",
    "family",
    "place",
    "costs no more",
    "costs more",
    "difference",
    "control",
    "against",
)
#: In a file or a pipe a table is as wide as it needs
_FILE_WIDTH = 1000


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    texts: list[str]
    """By column."""
    control: bool = False
    """Whether it is a control's, which stands out."""


@dataclass(frozen=True)
class Table:
    """A table for reading."""

    title: str
    """What it shows."""
    headings: list[str]
    """By column."""
    lines: list[Line]
    """From top to bottom."""

    @property
    def words(self) -> list[bool]:
        """By column: whether it holds words."""
        return [heading in _WORDS for heading in self.headings]

    def blocks(self, width: int) -> list[list[int]]:
        """Columns by number, in blocks that fit side by side into a width; the words in front stand in each of them.

        Args:
            width: In characters.
        """
        rows = [self.headings, *(line.texts for line in self.lines)]
        widths = [
            max(map(cell_len, column)) + 3 for column in zip(*rows, strict=True)
        ]  # with a rule and two spaces
        front = [i for i, _ in takewhile(lambda column: column[1], enumerate(self.words))]
        if sum(widths[i] for i in front) > width / 2:
            front = front[:1]
        found = [list(front)]
        for i in range(len(front), len(widths)):
            if len(found[-1]) > len(front) and sum(widths[j] for j in (*found[-1], i)) >= width:
                found.append(list(front))
            found[-1].append(i)
        return found


def show(table: Table, markdown: bool = False) -> None:
    """Print a table; one that is wider than the terminal in blocks of columns, one below the other.

    Args:
        table: The table.
        markdown: As Markdown, not for the terminal.
    """
    if markdown:
        rules = ["---" if words else "---:" for words in table.words]
        for texts in (table.headings, rules, *(line.texts for line in table.lines)):
            print("| " + " | ".join(texts) + " |")
        return
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    for number, columns in enumerate(table.blocks(console.width)):
        # names of directories may hold what rich takes for markup
        rich = RichTable(title=None if number else escape(table.title), title_justify="left")
        for i in columns:
            rich.add_column(escape(table.headings[i]), justify="left" if table.words[i] else "right")
        for line in table.lines:
            rich.add_row(*(escape(line.texts[i]) for i in columns), style="bold" if line.control else None)
        console.print(rich)
