"""How a completion or a chat answer is read: candidate sources, of which the sandbox runs the first that compiles.

By the text alone: nothing here parses Python, for the text is hostile and this is the judge's process; for the same
reason every pattern takes time linear in the text. What the official harness would run comes first, so whatever is
right there is right here; the further readings only matter where that does not compile: a fenced block, the text up to
where it runs on or breaks off, the code without the prose around it. No reading cuts at a comment line.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from ra3core.evaluation.benchmarks.fences import Block, blocks, fence

END_OF_TEXT = ("<|endoftext|>", "<|endofmask|>", "</s>")
"""Ends of text as some tokenizers write them."""

MAX_SOURCES = 24
_MAX_CUTS = 8
_THOUGHT = "</think>"
_RUN_ON = "\nprint("

_WORD = re.compile(r"[A-Za-z_]\w*")
_FUNCTION = re.compile(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", re.MULTILINE)
_IMPORT = re.compile(r"^(?:import|from)[ \t](.*)", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^([A-Za-z_][^=\n(]*)=(?!=)", re.MULTILINE)
_WHOLE_IMPORT = re.compile(r"\n(?:import[ \t]+\w[\w., \t]*|from[ \t]+[\w.]+[ \t]+import[ \t]+[\w*(][^\n]*)(?=\n|$)")
_COMPOUND = re.compile(r"\n(?=(?:async|def|class)[ \t]|(?:if|for|while|with)[ \t(]|try[ \t]*:|@)")
_BODY = re.compile(r"^[ \t]+\S|^return\b", re.MULTILINE)
_CODE = re.compile(
    r"import[ \t]+\w|from[ \t]+\S+[ \t]+import\b|(?:async[ \t]+)?def[ \t]+\w+[ \t]*[(\[]|class[ \t]+\w+[ \t]*[(\[:]|@\w"
    r"|(?:async[ \t]+)?(?:if|for|while|with|try|else|elif|except|finally)\b.*:[ \t]*(?:#.*)?$"
    r"|[A-Za-z_][\w.\[\], ]*(?::[^=]+)?=[^=]|[)\]}#\"']"
)


def of_completion(prompt: str, text: str, entry_point: str, stop: Iterable[str] = ()) -> tuple[str, ...]:
    """Candidate sources for what a model wrote after `prompt`: never none, at most MAX_SOURCES.

    First prompt + text + newline, ended where it only runs on to print; a fenced block that defines the entry point
    comes after the prompt too, whose docstring makes its own function whole and whose imports and helpers stay; a
    block that does not define it is taken for the body.
    """
    return _distinct(_completion(prompt, answer(text), entry_point, tuple(stop)))


def of_program(text: str, entry_point: str, stop: Iterable[str] = ()) -> tuple[str, ...]:
    """Candidate sources for a whole program, possibly inside a chat answer: first the text itself."""
    text = answer(text)
    return _distinct([text, *of_completion("", text, entry_point, stop)])


def answer(text: str) -> str:
    """The text after the last thought."""
    return text.rpartition(_THOUGHT)[2]


def defines(code: str, name: str) -> bool:
    """Whether some line at the margin binds the name (of Class.method the class), as far as the text tells."""
    name = re.escape(name.partition(".")[0])
    binding = rf"^(?:(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b|{name}[ \t]*=(?!=))"
    return re.search(binding, code, re.MULTILINE) is not None


def without_run_on(text: str, prompt: str = "") -> str:
    """`text` up to a print at the margin, when nothing after it binds a name that the code ahead of it uses."""
    end = text.find(_RUN_ON)
    if end < 0 or not text[:end].strip():
        return text
    tail = text[end:]
    bound = [*_FUNCTION.findall(tail), *_IMPORT.findall(tail), *_ASSIGNMENT.findall(tail)]
    names = {word for part in bound for word in _WORD.findall(part)} - {"import", "as"}
    return text if names & set(_WORD.findall(prompt + text[:end])) else text[: end + 1]


def shortened(text: str, stop: Iterable[str]) -> Iterator[str]:
    """`text` without its end: up to an end-of-text mark, then up to each of the last places where it may have run on or
    broken off, longest first, last up to the first such place.

    The places are those of `stop`, compound statements at the margin, and a string there that never ends. A whole
    import line is none: what it brings may be needed.
    """
    whole = cut(text, END_OF_TEXT)
    if whole != text:
        yield whole
    places = {match.start() for match in _COMPOUND.finditer(whole)}
    places |= set(_places(whole, [*(s for s in stop if s.startswith("\n") and not s.startswith("\n#")), _RUN_ON]))
    places -= {match.start() for match in _WHOLE_IMPORT.finditer(whole)}
    last = whole.rstrip().rfind("\n")
    while last > 0 and whole[last + 1] in " \t\r\n#)]}":
        last = whole.rfind("\n", 0, last)
    if last > 0 and _unfinished(whole[last:]):
        places.add(last)
    places |= {whole.rfind(f"\n{quotes}") for quotes in ('"""', "'''") if whole.count(quotes) % 2}
    first = len(whole) - len(whole.lstrip())
    ordered = sorted((place for place in places if place > first), reverse=True)
    for place in dict.fromkeys([*ordered[:_MAX_CUTS], *ordered[-1:]]):
        yield whole[: place + 1]


def cut(text: str, stop: Iterable[str]) -> str:
    """`text` up to the first of the strings in `stop`."""
    return text[: min((place for s in stop if (place := text.find(s)) >= 0), default=len(text))]


def _completion(prompt: str, text: str, entry_point: str, stop: tuple[str, ...]) -> Iterator[str]:
    fenced = blocks(text)
    if not fenced:
        yield prompt + without_run_on(text, prompt)
    yield prompt + text
    text = text.replace("\r\n", "\n")
    head = _ahead_of_closing_fence(text, entry_point, bool(prompt))
    if fenced and head is None:
        yield from _of_blocks(prompt, fenced, entry_point)
    text = text if head is None else head
    whole = defines(text, entry_point)
    for part in (text, *shortened(text, stop)):
        if prompt or not whole or defines(part, entry_point):
            yield prompt + part
    if whole:
        code = _without_prose(text)
        for part in (code, *shortened(code, stop)):
            if prompt:
                yield f"{prompt}\n{part}"
            if defines(part, entry_point):
                yield part
    if head is not None:
        yield from _of_blocks(prompt, fenced, entry_point)


def _of_blocks(prompt: str, fenced: list[Block], entry_point: str) -> Iterator[str]:
    """Sources of the blocks that define the entry point, the last one first; else of those that may be its body."""
    python = [block.text for block in fenced if block.python] or [block.text for block in fenced]
    python = [code if defines(code, entry_point) else _at_the_margin(code, entry_point) for code in python]
    whole = [_with_helpers(python, i) for i, code in enumerate(python) if defines(code, entry_point)][-MAX_SOURCES:]
    if whole:
        for code in reversed(whole):
            if prompt:
                yield f"{prompt}\n{code}"
            yield code
        for code in shortened(whole[-1], ()):
            if defines(code, entry_point):
                yield f"{prompt}\n{code}" if prompt else code
        return
    longest = sorted(python, key=len, reverse=True)
    if not prompt:
        yield from longest
        return
    bodies = [code for code in reversed(python) if _BODY.search(code)]
    for code in (*bodies, *longest):
        yield prompt + code
        yield prompt + textwrap.indent(textwrap.dedent(code), "    ")
        yield f"{prompt}    {code.lstrip()}"  # the first line has lost its indentation


def _at_the_margin(code: str, entry_point: str) -> str:
    """`code`, moved to the margin when it defines the entry point there."""
    moved = textwrap.dedent(code)
    return moved if defines(moved, entry_point) else code


def _with_helpers(python: list[str], number: int) -> str:
    """The block of that number, after those ahead of it that define what it uses and does not define itself."""
    code = python[number]
    used = set(_WORD.findall(code)) - set(_FUNCTION.findall(code))
    ahead = python[max(0, number - _MAX_CUTS) : number]
    return "\n".join([*(other for other in ahead if used & set(_FUNCTION.findall(other))), code])


def _ahead_of_closing_fence(text: str, entry_point: str, prompted: bool) -> str | None:
    """The code ahead of the first fence when that fence can only close what a chat prompt had opened."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        found = fence(line)
        if found is not None:
            head = "\n".join(lines[:number])
            code = defines(head, entry_point) or (prompted and head.lstrip("\n")[:1] in (" ", "\t"))
            return head if code and not found.word else None
    return None


def _without_prose(text: str) -> str:
    """The lines of `text` that look like code: those at the margin that do, and what is indented below them."""
    kept, keep = [], False
    for line in cut(text, END_OF_TEXT).split("\n"):
        if line[:1] not in ("", " ", "\t"):
            keep = _CODE.match(line) is not None
        if keep:
            kept.append(line)
    return "\n".join(kept)


def _places(text: str, stop: Iterable[str]) -> Iterator[int]:
    for each in stop:
        place = text.find(each)
        while place >= 0:
            yield place
            place = text.find(each, place + 1)


def _unfinished(code: str) -> bool:
    """Whether more brackets open than close, roughly."""
    return sum(code.count(c) for c in "([{") > sum(code.count(c) for c in ")]}")


def _distinct(sources: Iterable[str]) -> tuple[str, ...]:
    """Each once, in order, ended by a newline."""
    found: dict[str, None] = {}
    for source in sources:
        found[source if source.endswith("\n") else source + "\n"] = None
        if len(found) == MAX_SOURCES:
            break
    return tuple(found)
