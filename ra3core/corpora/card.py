"""The data card: what demonstrations a model was trained on, on one page, from what the stages counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ra3core.config import CorpusConfig
from ra3core.corpora.collect import Tally
from ra3core.corpora.decontamination import EvaluationIndex, Report
from ra3core.corpora.snippets import OF_DOCUMENTS

CARD = "data_card.md"
LICENCES = 30  # shown by name
UNKNOWN = "(none named)"

REASONS = {
    "licence": "licence not on the allow-list",
    "too_large": "more than `filters.max_characters` characters",
    "generated": "a comment at its head says that a program wrote it",
    "not_utf8": "not UTF-8",
    "not_python": "does not parse as Python",
    "duplicate_document": "copy of an earlier document",
    "one_line": "function on one line",
    "no_body": "nothing but a docstring",
    "not_reproducible": "would not parse to the same tree without its comments",
    "too_long": "more than `max_lines` lines",
    "too_short": "fewer than `filters.min_lines` lines",
    "long_line": "a line of more than `filters.max_line_length` characters",
    "few_alphanumeric": "less than `filters.min_alphanumeric` of it letters and digits",
    "commented": "a given line holds a comment, which could not be told from a rationale",
    "duplicate": "copy of an earlier demonstration",
    "near_duplicate": "at least `filters.near_duplicates` like an earlier demonstration",
}
"""Every reason for which something is left out, in the order in which they are looked for; near copies come last."""


def data_card(
    config: CorpusConfig, collection: Mapping[str, Any], tally: Tally, report: Report, index: EvaluationIndex, seed: int
) -> str:
    """Markdown. collection: collection.json. tally: of what was drawn. report: of the collection, rechecked."""
    drawn = tally.as_dict()
    limit = collection["limit"]
    lines = [
        "# Data card: demonstrations",
        "",
        f"{drawn['demonstrations']:,} of {collection['demonstrations']:,} demonstrations, drawn uniformly with seed "
        f"{seed}: {drawn['lines']:,} lines, {drawn['tokens']:,} tokens (words, numbers and single signs).",
        "",
        "## Source",
        "",
        *_table(
            ("", ""),
            [
                ("source", f"`{config.source}`"),
                ("SHA-256 of its files", f"`{collection['digest']}`" if collection["digest"] else "not known"),
                ("documents read", f"{collection['documents']:,}"),
                ("reading ended at", f"`corpus.{limit}` = {getattr(config, limit):,}" if limit else "its end"),
            ],
        ),
        "",
        "## Licences",
        "",
        f"Allowed: {', '.join(config.filters.licences) or 'all, and none named'}.",
        "",
        *_table(("licence", "collected", "drawn"), _licences(collection["licences"], drawn["licences"])),
        "",
        "## What was left out",
        "",
        *_table(("reason", "of", "count"), _left_out(collection["counts"])),
        "",
        "## Contamination",
        "",
        *_contamination(report, index),
        "",
        "## Lengths",
        "",
        "Demonstrations drawn, by lines and by tokens (at most, and more than half of that).",
        "",
        *_table(("lines", "demonstrations"), _bins(drawn["histograms"]["lines"])),
        "",
        *_table(("tokens", "demonstrations"), _bins(drawn["histograms"]["tokens"])),
    ]
    return "\n".join(lines) + "\n"


def _licences(collected: Mapping[str, int], drawn: Mapping[str, int]) -> list[tuple[str, ...]]:
    shown = [(name, count, drawn.get(name, 0)) for name, count in list(collected.items())[:LICENCES]]
    rest = [(count, drawn.get(name, 0)) for name, count in list(collected.items())[LICENCES:]]
    if rest:
        shown.append((f"{len(rest)} others", sum(count for count, _ in rest), sum(count for _, count in rest)))
    return [(_cell(name or UNKNOWN), f"{count:,}", f"{of_drawn:,}") for name, count, of_drawn in shown]


def _left_out(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    known = [(name, words, counts[name]) for name, words in REASONS.items() if counts.get(name)]
    rows = [
        (f"`{name}`: {words}", "documents" if name in OF_DOCUMENTS else "functions", f"{n:,}")
        for name, words, n in known
    ]
    return rows or [("nothing", "", "0")]


def _contamination(report: Report, index: EvaluationIndex) -> list[str]:
    held_out = index.sizes or {"embedded": len(index.ids)}
    removed = report.benchmarks if index.sizes else {"embedded": report.removed.total()}
    found = report.as_dict()
    return [
        f"Of {report.documents:,} demonstrations, {found['removed']:,} gave an evaluation task away and were removed "
        f"({', '.join(f'{reason} {n}' for reason, n in found['removed_by'].items())}). What was drawn was checked once "
        f"more as written: {report.rechecked:,}, none contaminated. The largest overlap kept is "
        f"{report.largest_kept:.2f} of a text's {index.ngram}-grams; above {index.max_overlap} is contamination.",
        "",
        *_table(
            ("benchmark", "texts held out", "demonstrations removed"),
            [(name, f"{count:,}", f"{removed.get(name, 0):,}") for name, count in held_out.items()],
        ),
    ]


def _bins(histogram: Mapping[str, int]) -> list[tuple[str, ...]]:
    return [(f"{int(most):,}", f"{count:,}") for most, count in histogram.items()]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
