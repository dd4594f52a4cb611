"""From documents to demonstrations: what is cut out of each, what is left out, and how often for which reason.

A document goes when its licence is not allowed (`licence`), when it is too large (`too_large`), when its head says that
a program wrote it (`generated`), and when it is not UTF-8 or not Python. Of what is cut out of it (python_source.py),
or given as prompt and lines, goes what is too long or too short, has an over-long line (`long_line`) or is mostly signs
and white space (`few_alphanumeric`). Rows whose lines hold a comment go too (`commented`): it could not be told from a
rationale.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from ra3core.corpora.demonstrations import Demonstration, comment_boundaries
from ra3core.corpora.python_source import Cutter
from ra3core.corpora.sources import Document, Reader, parse_source
from ra3core.errors import UserError
from ra3core.filters import FilterConfig

OF_DOCUMENTS = ("licence", "too_large", "generated", "not_utf8", "not_python", "duplicate_document")
"""Reasons that are counted by document; all others by demonstration."""

GENERATED = re.compile(
    r"@generated|(?:auto-?|automatically |machine )generated|generated (?:automatically|by)|do not edit"
)
HEAD_LINES = 20  # where a generator signs
SIGN = re.compile(r"[\W_]+")


@dataclass
class Snippets:
    """Cuts documents into demonstrations that pass the filters.

    max_lines: steps of the longest one. filters: none for the suite's own.
    counts: what was left out, by reason.
    """

    max_lines: int
    filters: FilterConfig | None
    counts: Counter[str] = field(default_factory=Counter)

    def admits(self, document: Document) -> bool:
        """Whether a document is one to look into; counted if not."""
        reason = document.problem or self._against(document)
        self.counts.update([reason] if reason else [])
        return not reason

    def of(self, document: Document) -> Iterator[Demonstration]:
        """The demonstrations of a document that passed `admits`, in order, copies included."""
        if document.demonstration is not None:
            found = iter([document.demonstration])
        elif document.source is not None:
            cutter = Cutter(self.max_lines, self.counts)
            cut = cutter.source(document.source, document.place)
            found = (replace(one, licence=document.licence) for one in cut) if document.licence else cut
        else:
            found = self._given(document)
        for demonstration in found:
            if reason := self._unfit(demonstration):
                self.counts[reason] += 1
            else:
                yield demonstration

    def _against(self, document: Document) -> str:
        filters, source = self.filters, document.source
        if filters is None:
            return ""
        allowed = {name.casefold() for name in filters.licences}
        if allowed and not {name.casefold() for name in document.licence.split(" AND ")} <= allowed:
            return "licence"
        if len(source or "") + len(document.prompt) + sum(map(len, document.lines)) > filters.max_characters:
            return "too_large"
        if filters.generated and source is not None and says_generated(source):
            return "generated"
        return ""

    def _unfit(self, demonstration: Demonstration) -> str:
        filters, lines = self.filters, demonstration.lines
        if not lines:
            return "no_body"
        if len(lines) > self.max_lines:
            return "too_long"
        if filters is None:
            return ""
        if len(lines) < filters.min_lines:
            return "too_short"
        text = demonstration.text
        if max(map(len, text.split("\n"))) > filters.max_line_length:
            return "long_line"
        if len(SIGN.sub("", text)) < filters.min_alphanumeric * len(text):
            return "few_alphanumeric"
        return ""

    def _given(self, document: Document) -> Iterator[Demonstration]:
        """The demonstration of a row with prompt and lines, if it can be one."""
        prompt, lines = document.prompt, document.lines
        try:
            boundaries = comment_boundaries(prompt, lines)
        except UserError:
            self.counts["not_python"] += 1
            return
        program = io.StringIO("\n".join((prompt, *lines)) + "\n")
        body = prompt.count("\n") + 2  # the first row of the body
        comments = (t for t in tokenize.generate_tokens(program.readline) if t.type == tokenize.COMMENT)
        if any(comment.start[0] >= body for comment in comments):
            self.counts["commented"] += 1
            return
        yield Demonstration(document.place, prompt, lines, boundaries, licence=document.licence)


def says_generated(source: str) -> bool:
    """Whether a comment at the head of a file says that a program wrote it; a docstring may speak of other things."""
    head = source.split("\n", HEAD_LINES)[:HEAD_LINES]
    return any(line.startswith("#") and GENERATED.search(line[:200].casefold()) for line in head)


def digest_of(text: str) -> int:
    """64 bits of a text: among 3.5 million, two different ones are taken for copies once in three million corpora."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def filters_of(source: str, filters: FilterConfig) -> FilterConfig | None:
    """The filters that hold for a source."""
    return None if parse_source(source)[0] == "embedded" else filters


def load_demonstrations(
    source: str, data: Path, max_lines: int, filters: FilterConfig | None = None
) -> Iterator[Demonstration]:
    """The demonstrations of a source as a stream, without copies, before near duplicates are looked for.

    data: the folder of the embedded suite. filters: the defaults where none are given.
    Raises UserError as `Reader` does, and when the source holds none.
    """
    snippets = Snippets(max_lines, filters_of(source, filters or FilterConfig()))
    seen: set[int] = set()
    for document in Reader(source, data):
        if snippets.admits(document):
            for demonstration in snippets.of(document):
                if (digest := digest_of(demonstration.text)) in seen:
                    snippets.counts["duplicate"] += 1
                    continue
                seen.add(digest)
                yield demonstration
    if not seen:
        raise nothing(source, snippets.counts)


def nothing(source: str, counts: Counter[str]) -> UserError:
    """The error for a source that holds no demonstration."""
    skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()) if n)
    return UserError(f"corpus.source {source}: holds no demonstration that can be used ({skipped or 'it is empty'})")
