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
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from ra3core.corpora.demonstrations import Demonstration, comment_boundaries, indentation, rows_inside_tokens
from ra3core.errors import UserError

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
    """Cuts functions out of sources, skips texts it has seen, and counts what it does.

    max_lines: body lines (steps) of the longest function kept.
    counts: files, kept, and what was skipped by reason (not_utf8, not_python, one_line, no_body, too_long,
        not_reproducible, duplicate).
    """

    max_lines: int
    counts: Counter[str] = field(default_factory=Counter)
    _seen: set[bytes] = field(default_factory=set)

    def folder(self, folder: Path) -> Iterator[Demonstration]:
        """Functions of every .py file below `folder`, by path and line; one file is in memory at a time.

        Raises UserError when there is no such folder or nothing in it gives a demonstration.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder, expected one with .py files")
        found = False
        for path in python_files(folder):
            for demonstration in self.file(path, path.relative_to(folder).as_posix()):
                found = True
                yield demonstration
        if not found:
            raise UserError(
                f"{folder}: expected at least one Python function of at most {self.max_lines} body lines, "
                f"found none in {self.counts['files']} .py files"
            )

    def file(self, path: Path, name: str) -> Iterator[Demonstration]:
        """Functions of one file; raises UserError when it cannot be read."""
        try:
            source = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            self.counts["files"] += 1
            self.counts["not_utf8"] += 1
            return
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        yield from self.source(source, name)

    def source(self, source: str, name: str) -> Iterator[Demonstration]:
        """Functions of one source text, in order; ids are `name:qualified name:line`."""
        self.counts["files"] += 1
        try:
            for placed in self.placed(source, name):
                if self.admit(placed.demonstration):
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

    def admit(self, demonstration: Demonstration) -> bool:
        """Whether a demonstration is neither too long nor a copy of an earlier one; counts it either way."""
        digest = blake2b(demonstration.text.encode(), digest_size=16).digest()
        if not demonstration.lines:
            reason = "no_body"
        elif len(demonstration.lines) > self.max_lines:
            reason = "too_long"
        else:
            reason = "duplicate" if digest in self._seen else "kept"
        self._seen.add(digest)
        self.counts[reason] += 1
        return reason == "kept"

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
        comments: defaultdict[int, list[str]] = defaultdict(list)  # step -> comments ahead of it and behind it
        for row in range(node.lineno, last + 1):
            code, comment = layout.code(row, node.col_offset, dedent_string=row in docstring_lines)
            if comment and row > head:
                comments[len(lines)].append(comment)
            if code is None:
                continue
            (prompt if row <= head else lines).append(code)
            rows += [row] if row > head else []
        if len(lines) > self.max_lines:
            return "too_long"
        text = "\n".join((*prompt, *lines)) + "\n"
        if not _same_function(text, node):
            return "not_reproducible"
        boundaries = comment_boundaries("\n".join(prompt), lines)
        demonstration = Demonstration(
            id=name,
            prompt="\n".join(prompt),
            lines=tuple(lines),
            boundaries=boundaries,
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
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        comments = {t.start[0]: (t.start[1], t.string) for t in tokens if t.type == tokenize.COMMENT}
        line_ends = [t.start[0] for t in tokens if t.type == tokenize.NEWLINE]
        return cls(source.split("\n"), comments, rows_inside_tokens(tokens), line_ends)

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
    """Whether `text` is the function `node`, decorators and the docstring's white space aside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
        return len(body) == 1 and isinstance(body[0], Function) and _plain(body[0]) == _plain(node)
    except NOT_PYTHON:
        return False


def _plain(node: Function) -> str:
    """The tree of a function as text; changes `node`."""
    node.decorator_list = []
    docstring = _docstring(node)
    if docstring is not None and isinstance(docstring.value, ast.Constant):
        docstring.value.value = " ".join(str(docstring.value.value).split())
    return ast.dump(node)


def _at_boundaries(comments: dict[int, list[str]], boundaries: tuple[int, ...]) -> dict[int, str]:
    """Comments by the nearest line at or ahead of theirs that a comment line may precede."""
    reference: defaultdict[int, list[str]] = defaultdict(list)
    for step in sorted(comments):
        index = bisect.bisect_right(boundaries, step)
        if index:
            reference[boundaries[index - 1]].extend(comments[step])
    return {step: " ".join(texts) for step, texts in reference.items()}
