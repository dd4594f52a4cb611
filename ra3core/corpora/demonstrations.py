"""Demonstrations, tasks, and rationales woven into them.

A demonstration is a prompt (signature and docstring) and an expert's body, cut into steps a_1..a_T; a step is
one line (section 4 of the paper). A rationale z_t is a Python comment line ahead of step t:

    s_t            everything before step t
    ``<act>``      a newline, then the expert's line
    ``<think>``    a newline, then ``#``: a rationale, a newline, then the expert's line

so an annotated demonstration is still a Python program and needs no new tokens. `annotate` and `strip` are exact
inverses on the expert's bytes.
"""

from __future__ import annotations

import io
import json
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ra3core.errors import UserError

COMMENT = "#"
COLUMNS = ("id", "prompt", "lines", "boundaries", "reference")
_PLAIN = (tokenize.NAME, tokenize.OP, tokenize.NUMBER)


@dataclass(frozen=True)
class Demonstration:
    """One prompt with an expert's answer.

    prompt: text up to the first step, without the newline that ends it.
    lines: the expert's steps, each without its newline, byte for byte, indentation included.
    boundaries: indices t of the lines ahead of which a comment line leaves the program's meaning unchanged
        (not inside a string, not after a backslash, not ahead of a blank line).
    reference: rationales a human or the generator wrote, by line index; never shown to a model that is being
        trained, kept for comparison.
    licence: of the code, as its source names it; "" where it names none.
    """

    id: str
    prompt: str
    lines: tuple[str, ...]
    boundaries: tuple[int, ...]
    reference: Mapping[int, str] = field(default_factory=dict)
    licence: str = ""

    @property
    def text(self) -> str:
        """The whole program, ending in a newline."""
        return "\n".join((self.prompt, *self.lines)) + "\n"


@dataclass(frozen=True)
class Annotated:
    """A demonstration with rationales: line index t -> the text after ``# `` (one line, not empty)."""

    demonstration: Demonstration
    rationales: Mapping[int, str]

    def __post_init__(self) -> None:
        allowed = set(self.demonstration.boundaries)
        for index, rationale in self.rationales.items():
            if index not in allowed:
                raise ValueError(f"{self.demonstration.id}: no comment may stand ahead of line {index}")
            if not rationale.strip() or len(rationale.splitlines()) != 1:
                raise ValueError(f"{self.demonstration.id}: a rationale is one non-empty line, got {rationale!r}")

    @property
    def rationale_lines(self) -> tuple[int, ...]:
        """Positions of the rationale lines among the lines of the annotated body."""
        return tuple(t + n for n, t in enumerate(sorted(self.rationales)))

    @property
    def body(self) -> tuple[str, ...]:
        """Expert lines and rationale lines in order."""
        lines: list[str] = []
        for t, line in enumerate(self.demonstration.lines):
            if t in self.rationales:
                lines.append(rationale_line(line, self.rationales[t]))
            lines.append(line)
        return tuple(lines)

    @property
    def text(self) -> str:
        """The whole annotated program, ending in a newline."""
        return "\n".join((self.demonstration.prompt, *self.body)) + "\n"


def indentation(line: str) -> str:
    """The white space that a line starts with."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def rationale_line(expert_line: str, rationale: str) -> str:
    """The comment line that stands ahead of `expert_line`, at its indentation."""
    return f"{indentation(expert_line)}{COMMENT} {rationale.strip()}"


def annotate(demonstration: Demonstration, rationales: Mapping[int, str]) -> Annotated:
    """Put rationales ahead of the expert's lines; the lines themselves are copied byte for byte."""
    return Annotated(demonstration, dict(rationales))


def strip(body: Sequence[str], rationale_lines: Iterable[int]) -> tuple[str, ...]:
    """The expert's lines again: `strip(a.body, a.rationale_lines) == a.demonstration.lines`."""
    drop = set(rationale_lines)
    return tuple(line for i, line in enumerate(body) if i not in drop)


def comment_boundaries(prompt: str, lines: Sequence[str]) -> tuple[int, ...]:
    """Indices of the body lines ahead of which a comment line does not change the program.

    Raises UserError when the program does not tokenise as Python.
    """
    source = "\n".join((prompt, *lines)) + "\n"
    first = prompt.count("\n") + 1  # number of lines that the prompt takes
    try:
        blocked = rows_inside_tokens(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise UserError(f"not a Python program: {error}") from error
    for row, line in enumerate(source.split("\n"), start=1):
        if line.endswith("\\"):
            blocked.add(row + 1)
    return tuple(t for t, line in enumerate(lines) if line.strip() and first + t + 1 not in blocked)


def rows_inside_tokens(tokens: Iterable[tokenize.TokenInfo]) -> set[int]:
    """Rows (from 1) of a source that start inside a token, which can only be a string.

    Raises SyntaxError where the tokeniser met something that is no token.
    """
    inside: set[int] = set()
    open_strings: list[int] = []  # rows on which the f-strings that are open start: tokens of their own from 3.12 on
    for kind, text, start, end, _ in tokens:
        if kind in _PLAIN:
            continue  # names, operators and numbers lie on one row: most of all tokens
        name = tokenize.tok_name[kind]
        if name == "ERRORTOKEN" and not text.isspace():  # Python 3.11 goes on, later ones raise
            raise SyntaxError(f"unexpected {text!r} in line {start[0]}")
        if name in ("FSTRING_START", "TSTRING_START"):
            open_strings.append(start[0])
        first = open_strings.pop() if name in ("FSTRING_END", "TSTRING_END") else start[0]
        if name not in ("NEWLINE", "NL", "INDENT", "DEDENT"):
            inside.update(range(first + 1, end[0] + 1))
    return inside


@dataclass(frozen=True)
class Test:
    """One call of the entry point: positional arguments and the value expected, both plain Python data."""

    __test__ = False  # not a pytest class
    arguments: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True)
class Task:
    """A prompt to complete and the tests that judge the completion.

    steps: number of steps of the plan (0 where the idea does not apply); results are grouped by it.
    """

    id: str
    prompt: str
    entry_point: str
    tests: tuple[Test, ...]
    steps: int = 0


# -- files: parquet through `datasets`, tests and rationales as JSON text so that every row has one flat schema ----


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows as one parquet file; equal rows give equal bytes."""
    import datasets

    datasets.Dataset.from_list([dict(row) for row in rows]).to_parquet(str(path))


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read a parquet file that `write_rows` wrote.

    Raises UserError when the file is missing, is not parquet, or lacks one of `columns`.
    """
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a parquet file")
    try:
        table = parquet.read_table(path)
    except Exception as error:
        raise UserError(f"{path}: not a readable parquet file ({error})") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing, found {', '.join(table.column_names)}")
    return table.to_pylist()


def write_demonstrations(demonstrations: Iterable[Demonstration], path: Path) -> None:
    """Columns: id, prompt, lines (list of str), boundaries (list of int), reference (JSON object), and licence if some
    have one."""
    demonstrations = list(demonstrations)
    licensed = any(d.licence for d in demonstrations)
    write_rows((demonstration_row(d, licensed) for d in demonstrations), path)


def read_demonstrations(path: Path) -> list[Demonstration]:
    """The demonstrations of a file that `write_demonstrations` wrote."""
    return [demonstration_of(row) for row in read_rows(path, COLUMNS)]


def write_annotated(annotated: Iterable[Annotated], path: Path) -> None:
    """As `write_demonstrations`, with `rationales` (JSON object: line index -> text)."""
    annotated = list(annotated)
    licensed = any(a.demonstration.licence for a in annotated)
    rows = (demonstration_row(a.demonstration, licensed) | {"rationales": _dump(a.rationales)} for a in annotated)
    write_rows(rows, path)


def read_annotated(path: Path) -> list[Annotated]:
    """The annotated demonstrations of a file that `write_annotated` wrote."""
    rows = read_rows(path, (*COLUMNS, "rationales"))
    return [annotate(demonstration_of(row), _load(row["rationales"])) for row in rows]


def write_tasks(tasks: Iterable[Task], path: Path) -> None:
    """Columns: id, prompt, entry_point, steps, tests (JSON list of {arguments, expected})."""
    write_rows(
        (
            {
                "id": task.id,
                "prompt": task.prompt,
                "entry_point": task.entry_point,
                "steps": task.steps,
                "tests": json.dumps([asdict(test) for test in task.tests]),
            }
            for task in tasks
        ),
        path,
    )


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file that `write_tasks` wrote."""
    return [
        Task(
            id=row["id"],
            prompt=row["prompt"],
            entry_point=row["entry_point"],
            steps=row["steps"],
            tests=tuple(Test(tuple(t["arguments"]), t["expected"]) for t in json.loads(row["tests"])),
        )
        for row in read_rows(path, ("id", "prompt", "entry_point", "steps", "tests"))
    ]


def demonstration_row(demonstration: Demonstration, licensed: bool = True) -> dict[str, Any]:
    """One row of a file; licensed: with the column licence."""
    row: dict[str, Any] = {
        "id": demonstration.id,
        "prompt": demonstration.prompt,
        "lines": list(demonstration.lines),
        "boundaries": list(demonstration.boundaries),
        "reference": _dump(demonstration.reference),
    }
    return row | {"licence": demonstration.licence} if licensed else row


def demonstration_of(row: Mapping[str, Any]) -> Demonstration:
    """The demonstration of such a row."""
    return Demonstration(
        id=row["id"],
        prompt=row["prompt"],
        lines=tuple(row["lines"]),
        boundaries=tuple(row["boundaries"]),
        reference=_load(row["reference"]),
        licence=row.get("licence", ""),
    )


def _dump(rationales: Mapping[int, str]) -> str:
    return json.dumps({str(t): rationales[t] for t in sorted(rationales)})


def _load(text: str) -> dict[int, str]:
    return {int(t): rationale for t, rationale in json.loads(text).items()}
