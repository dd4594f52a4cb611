"""Demonstrations from Python source: any function is a prompt (signature, docstring) and steps (its body lines).

The paper mid-trains on 3.5 M Python snippets, one line a step (section 4); it does not say how they were cut. Here:

- A function runs from its ``def`` to its last line. Decorators are left out: a prompt then looks as an evaluation
  task's does, and its body is the same with or without them.
- The prompt is the signature and, where there is one, the docstring; every later line of code is a step.
- Methods are dedented and stand as functions; nested functions stay inside their parent.
- Comments are removed, because a model that is to find its own rationales must not see human ones; they are kept in
  `Demonstration.reference`. Blank lines outside strings are layout, not steps, and go too.
- What is left must parse to the very tree the function had, or the function is skipped and counted.
"""

from __future__ import annotations

import ast
import bisect
import io
import os
import tokenize
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ra3core.corpora.demonstrations import Demonstration, indentation, rows_inside_tokens

NOT_OWN = frozenset({"__pycache__", "site-packages", "dist-packages"})  # folders that hold no source of the project

# What parsing raises: a null byte is a ValueError, too deep nesting a RecursionError or the parser's MemoryError.
NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Placed:
    """A demonstration, and where its lines stand in the source. rows: of each line, from 1."""

    demonstration: Demonstration
    rows: tuple[int, ...]


@dataclass
class Cutter:
    """Cuts functions out of sources and counts what it skips.

    max_lines: body lines (steps) of the longest function kept.
    counts: what was skipped, by reason (not_python, one_line, no_body, too_long, not_reproducible).
    """

    max_lines: int
    counts: Counter[str] = field(default_factory=Counter)

    def source(self, source: str, name: str) -> Iterator[Demonstration]:
        """Functions of one source text, in order; ids are `name:qualified name:line`."""
        try:
            for placed in self.placed(source, name):
                yield placed.demonstration
        except NOT_PYTHON:
            self.counts["not_python"] += 1

    def placed(self, source: str, name: str) -> Iterator[Placed]:
        """Functions of one source text with their places in it, copies and all; ids as above.

        Raises what NOT_PYTHON lists, ahead of the first function, for what is no Python.
        """
        source = normalise_newlines(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are the author's business
            functions = list(_functions(ast.parse(source).body))
        layout = _Layout.of(source)
        for qualified, node in functions:
            placed = self._cut(f"{name}:{qualified}:{node.lineno}", node, layout)
            if isinstance(placed, str):
                self.counts[placed] += 1
            else:
                yield placed

    def _cut(self, name: str, node: Function, layout: _Layout) -> Placed | str:
        """The demonstration of one function, or the reason why it gives none."""
        head = layout.logical_line_end(node.lineno)
        docstring = _docstring(node)
        first_statement = node.body[0]
        if first_statement.lineno <= head:
            return "one_line"
        if docstring is not None:
            head = layout.logical_line_end(docstring.lineno)
            if len(node.body) == 1:
                return "no_body"
            if node.body[1].lineno <= head:
                return "one_line"
        docstring_lines = range(docstring.lineno + 1, (docstring.end_lineno or 0) + 1) if docstring else range(0)
        last = node.end_lineno or head
        prompt: list[str] = []
        lines: list[str] = []
        rows: list[int] = []
        boundaries: list[int] = []
        comments: defaultdict[int, list[str]] = defaultdict(list)  # step -> comments ahead of it and behind it
        for row in range(node.lineno, last + 1):
            code, comment = layout.code(row, node.col_offset, dedent_string=row in docstring_lines)
            if comment and row > head:
                comments[len(lines)].append(comment)
            if code is None:
                continue
            if row <= head:
                prompt.append(code)
                continue
            if row not in layout.in_string and not (lines and lines[-1].endswith("\\")):  # as comment_boundaries has it
                boundaries.append(len(lines))
            lines.append(code)
            rows.append(row)
        if len(lines) > self.max_lines:
            return "too_long"
        text = "\n".join((*prompt, *lines)) + "\n"
        if not _same_function(text, node):
            return "not_reproducible"
        demonstration = Demonstration(
            id=name,
            prompt="\n".join(prompt),
            lines=tuple(lines),
            boundaries=tuple(boundaries),
            reference=_at_boundaries(comments, boundaries),
        )
        return Placed(demonstration, tuple(rows))


def normalise_newlines(source: str) -> str:
    """The source with every line ended by one line feed, as Python itself reads it."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def python_files(folder: Path) -> list[Path]:
    """The .py files below a folder, sorted by relative path; hidden folders and installed packages are left out."""
    files: list[tuple[str, Path]] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_OWN]
        paths = (Path(parent, name) for name in names if name.endswith(".py"))
        files += [(path.relative_to(folder).as_posix(), path) for path in paths if path.is_file()]
    return [path for _, path in sorted(files)]


@dataclass(frozen=True)
class _Layout:
    """Where the comments, strings and logical lines of a source are; rows count from 1 as in `ast`."""

    rows: list[str]
    comments: dict[int, tuple[int, str]]  # row -> column and text of the comment that ends it
    in_string: set[int]  # rows that start inside a string
    line_ends: list[int]  # rows on which a logical line ends

    @classmethod
    def of(cls, source: str) -> _Layout:
        comments: dict[int, tuple[int, str]] = {}
        line_ends: list[int] = []

        def noted() -> Iterator[tokenize.TokenInfo]:
            for token in tokenize.generate_tokens(io.StringIO(source).readline):
                if token[0] == tokenize.COMMENT:
                    comments[token[2][0]] = token[2][1], token[1]
                elif token[0] == tokenize.NEWLINE:
                    line_ends.append(token[2][0])
                yield token

        in_string = rows_inside_tokens(noted())
        return cls(source.split("\n"), comments, in_string, line_ends)

    def logical_line_end(self, row: int) -> int:
        """The row on which the logical line that starts on `row` ends."""
        return self.line_ends[bisect.bisect_left(self.line_ends, row)]

    def code(self, row: int, columns: int, dedent_string: bool) -> tuple[str | None, str]:
        """A row without its comment and without the first `columns` of indentation, and the comment's text.

        None for the code of a row that has none. Rows inside a string keep their indentation, which is part of the
        string's value, unless the string is the docstring.
        """
        line = self.rows[row - 1]
        comment = ""
        if row in self.comments:
            column, text = self.comments[row]
            line, comment = line[:column].rstrip(), " ".join(text.strip("#").split())
        if row in self.in_string and not dedent_string:
            return line, comment
        if not line.strip():
            return ("" if row in self.in_string else None), comment
        return line[min(columns, len(indentation(line))) :], comment


def _functions(statements: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Qualified names and nodes of the functions in order, those inside functions left out."""
    for statement in statements:
        if isinstance(statement, Function):
            yield prefix + statement.name, statement
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body, f"{prefix}{statement.name}.")
        else:  # functions under `if`, `try`, `with` and the like
            for block in ("body", "handlers", "cases", "orelse", "finalbody"):
                for inner in getattr(statement, block, ()):
                    nested = [inner] if isinstance(inner, ast.stmt) else inner.body
                    yield from _functions(nested, prefix)


def _docstring(node: Function) -> ast.Expr | None:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first
    return None


def _same_function(text: str, node: Function) -> bool:
    """Whether `text` is the function `node`, decorators and the docstring's white space aside; changes `node`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
        return len(body) == 1 and isinstance(body[0], Function) and _equal(_plain(body[0]), _plain(node))
    except NOT_PYTHON:
        return False


def _plain(node: Function) -> Function:
    node.decorator_list = []
    docstring = _docstring(node)
    if docstring is not None and isinstance(docstring.value, ast.Constant):
        docstring.value.value = " ".join(str(docstring.value.value).split())
    return node


def _equal(one: object, other: object) -> bool:
    """Whether two syntax trees, or what stands in their fields, are the same, positions aside.

    As `ast.dump(one) == ast.dump(other)`, in a fifth of the time.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, ast.AST):
        return all(_equal(getattr(one, name, None), getattr(other, name, None)) for name in one._fields)
    if isinstance(one, list):
        assert isinstance(other, list)
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _at_boundaries(comments: dict[int, list[str]], boundaries: Sequence[int]) -> dict[int, str]:
    """Comments by the nearest line at or ahead of theirs that a comment line may precede."""
    reference: defaultdict[int, list[str]] = defaultdict(list)
    for step in sorted(comments):
        index = bisect.bisect_right(boundaries, step)
        if index:
            reference[boundaries[index - 1]].extend(comments[step])
    return {step: " ".join(texts) for step, texts in reference.items()}
