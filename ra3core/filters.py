"""What of a source is worth learning from: the settings of `corpus.filters`.

Limits are those of public code corpora or stricter where a line is a step (docs/data.md); the suite's own
demonstrations are taken as they are.
"""

from __future__ import annotations

from pydantic import Field

from ra3core.section import Positive, Section, Share


class FilterConfig(Section):
    """What is left out, each reason counted; a demonstration is a function, a document the file or row it is from."""

    licences: list[str] = Field(default=[])  # names that may be used, such as mit; empty: all, and what has none
    generated: bool = True  # documents whose head says that a program wrote them
    max_characters: Positive = 1_000_000  # of a document
    max_line_length: Positive = 200  # characters of a demonstration's longest line
    min_alphanumeric: Share = 0.25  # of a demonstration's characters
    min_lines: Positive = 1  # steps of a demonstration
    near_duplicates: float | None = Field(default=0.8, gt=0, le=1)  # Jaccard similarity from which one of two goes
