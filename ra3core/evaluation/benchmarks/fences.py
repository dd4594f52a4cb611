"""Fenced blocks of a chat answer, found by its text alone in time linear in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PYTHON = ("", "python", "python3", "py", "py3")
_FENCE = re.compile(r"([ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(`{3,}|~{3,})")


@dataclass(frozen=True)
class Block:
    """What a pair of fences holds. language: the first word after the fence that opens, in lower case."""

    language: str
    text: str

    @property
    def python(self) -> bool:
        """Whether the fence says that it is Python, or nothing."""
        return self.language in _PYTHON


@dataclass(frozen=True)
class Fence:
    """A line that opens or closes a block. mark: such as ```. word: what follows. indent: columns ahead of it."""

    mark: str
    word: str
    indent: int


def blocks(text: str) -> list[Block]:
    """Blocks between ``` or ~~~, without the indentation of their fence; one that is not closed runs to the end.

    A fence that closes is indented less than four columns more than the one that opened, as in Markdown, so fences
    inside a docstring do not count.
    """
    found: list[Block] = []
    opened: Fence | None = None
    body: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        here = fence(line)
        if opened is None:
            opened, body = here or _fence_after_text(line), []
            continue
        if here is not None and here.mark.startswith(opened.mark) and here.indent < opened.indent + 4:
            found.append(Block(opened.word, "\n".join(body)))
            opened, body = (here if here.word else None), []  # one with a word opens: the last was never closed
        elif here is None and line.rstrip().endswith(opened.mark):  # closed at the end of a line of code
            body.append(_dedented(line.rstrip().removesuffix(opened.mark), opened.indent))
            found.append(Block(opened.word, "\n".join(body)))
            opened = None
        else:
            body.append(_dedented(line, opened.indent))
    if opened is not None:
        found.append(Block(opened.word, "\n".join(body)))
    return found


def fence(line: str) -> Fence | None:
    """The fence that a line is, possibly as an item of a list."""
    match = _FENCE.match(line)
    if match is None or (match[2][0] == "`" and "`" in line[match.end() :]):
        return None
    words = line[match.end() :].split()
    return Fence(match[2], words[0].strip("{}.").lower() if words else "", len(match[1]))


def _fence_after_text(line: str) -> Fence | None:
    """A fence that opens a Python block at the end of a line of text."""
    ahead, mark, word = line.rpartition("```")
    word = word.strip().lower()
    return Fence(mark, word, 0) if ahead and word in _PYTHON[1:] else None


def _dedented(line: str, indent: int) -> str:
    """`line` without up to `indent` blanks."""
    return line[min(indent, len(line) - len(line.lstrip(" \t"))) :]
