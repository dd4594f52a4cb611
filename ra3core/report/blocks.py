"""What a report is made of, before it is HTML or Markdown.

Text is plain, with two marks: ``**strong**`` and `` `code` ``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["shown", "not shown", "against", "fact"]


@dataclass(frozen=True)
class Heading:
    """A section title; `anchor` is what the contents list links to."""

    text: str
    anchor: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text; a note is set smaller."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Statement:
    """One sentence of the findings with its verdict; `label` is the badge's text."""

    verdict: Verdict
    label: str
    text: str


@dataclass(frozen=True)
class Statements:
    items: tuple[Statement, ...]


@dataclass(frozen=True)
class Cell:
    """A table cell: `text`, `detail` set small below it (an interval), `mark` set beside it."""

    text: str
    detail: str = ""
    mark: str = ""

    @property
    def plain(self) -> str:
        """The cell on one line."""
        return " ".join(part for part in (self.text + self.mark, self.detail) if part)


@dataclass(frozen=True)
class Row:
    """Cells in the order of the table's columns.

    color: a swatch ahead of the first cell. rule: a line above the row, where a group of rows starts.
    """

    cells: tuple[Cell, ...]
    color: str | None = None
    rule: bool = False
    total: bool = False


@dataclass(frozen=True)
class Table:
    """name: used in tests and as the anchor. columns: titles; the first column is text, the others are figures.

    text_columns: indices of further columns that hold text.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    text_columns: tuple[int, ...] = ()
    compact: bool = False


@dataclass(frozen=True)
class Picture:
    """name: the file's stem. alt: what the picture shows, for those who do not see it."""

    name: str
    caption: str
    alt: str
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Example:
    """A demonstration before and after annotation; `rationale_lines` are positions among the lines of `after`."""

    title: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    rationale_lines: frozenset[int]


Block = Heading | Paragraph | Statements | Table | Picture | Example


@dataclass(frozen=True)
class Document:
    """title, a line below it, facts as (name, value) pairs, then the blocks."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...]


def cells(*texts: str) -> tuple[Cell, ...]:
    """Plain cells."""
    return tuple(Cell(text) for text in texts)


def match_rationales(before: Sequence[str], after: Sequence[str]) -> frozenset[int]:
    """Positions of the lines of `after` that are not in `before`, both in order.

    Raises ValueError when `after` is not `before` with lines put in between: expert lines must be copied as they are.
    """
    inserted: set[int] = set()
    expert = 0
    for position, line in enumerate(after):
        if expert < len(before) and line == before[expert]:
            expert += 1
        else:
            inserted.add(position)
    if expert < len(before):
        raise ValueError(f"line {expert + 1} is missing after annotation: {before[expert]!r}")
    return frozenset(inserted)
