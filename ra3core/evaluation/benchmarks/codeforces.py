"""Codeforces problems, data set open-r1/codeforces: standard input in, standard output back, checkers where several
answers are right.

A row has official_tests, and generated_checker (Python source, run as ``checker.py input.txt correct_output.txt
solution_output.txt``, prints 1 or 0) where comparing outputs would be wrong. Left out and counted: interactive
problems, problems with files, those whose accepted solutions failed the tests (executable is false), those without
official tests (a statement's examples are passed by many a wrong program) or without a statement.

The same grader takes two other formats of such tasks (ra3core/evaluation/benchmarks/apps.py):

    ra3 evaluate MODEL --benchmark codeforces --data FILE
    ra3 evaluate MODEL --benchmark codeforces:apps --data FOLDER
    ra3 evaluate MODEL --benchmark codeforces:gym --data FILE
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3core.corpora import demonstrations
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import apps
from ra3core.evaluation.benchmarks.base import Problem
from ra3core.evaluation.benchmarks.contest import (
    IMPORTS,
    LEAVE,
    Contest,
    cpu_seconds,
    memory_mb,
    one_shot,
    question,
)
from ra3core.evaluation.benchmarks.files import checked, read_hub, read_jsonl, unique
from ra3core.verifier import StdioTest

HUB_NAME = "open-r1/codeforces"
FIELDS = {"id": str}
VARIANTS = ("", "verifiable", "apps", "gym")


@dataclass(frozen=True)
class Codeforces(Contest):
    """Whole programs, run as they are: the site puts nothing ahead of a program."""

    preamble: str = LEAVE
    in_function: bool = False


def load(data: Path | None, variant: str) -> Codeforces:
    """From a .jsonl, .jsonl.gz or .parquet file with the data set's fields, or its test split on the hub.

    variant: "verifiable" asks only what the data set's configuration of that name has (executable problems whose
    official tests are complete or that have generated tests); the rest can be graded. "apps" and "gym" read the other
    formats, which only a file gives.
    Raises UserError for another variant and for malformed data, by row.
    """
    if variant not in VARIANTS:
        raise UserError(f"codeforces variant {variant!r}: expected none, {', '.join(VARIANTS[1:])}")
    if variant in ("apps", "gym"):
        if data is None:
            raise UserError(f"codeforces:{variant}: expected its data with --data")
        problems, words = apps.read_folder(data) if variant == "apps" else apps.read_gym(data)
        unique((problem.id for problem in problems), data, "id")
        return Codeforces("codeforces", words, problems, preamble=IMPORTS, in_function=True)
    return _official(data, variant == "verifiable")


def _official(data: Path | None, verifiable: bool) -> Codeforces:
    left_out: Counter[str] = Counter()
    asked: list[Problem] = []
    others: list[Problem] = []
    incomplete = 0
    for where, row in _rows(data, verifiable):
        reason = _why_not(row)
        if reason:
            left_out[reason] += 1
        elif verifiable and not _is_verifiable(row):
            others.append(_problem(row, where))
        else:
            asked.append(_problem(row, where))
            incomplete += row.get("official_tests_complete") is False
    source = data or HUB_NAME
    unique((problem.id for problem in (*asked, *others)), source, "id")
    found = f"{len(asked)} problems"
    if left_out:
        found += f", left out {', '.join(f'{n} {reason}' for reason, n in left_out.most_common())}"
    if not asked:
        raise UserError(f"{source}: {found}, expected at least one that can be judged")
    if incomplete:
        found += f"; {incomplete} of the problems have only a part of their official tests"
    name = "verifiable, " if verifiable else ""
    return Codeforces("codeforces", f"{name}{data.name if data else 'test split'}, {found}, 1-shot", asked, others)


def _rows(data: Path | None, verifiable: bool) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Rows with where each stands."""
    if data is None:
        rows = read_hub(HUB_NAME, FIELDS, "verifiable" if verifiable else "default")
        return [(f"{HUB_NAME}: test row {number}", row) for number, row in enumerate(rows, start=1)]
    if data.suffix == ".parquet":
        rows = demonstrations.read_rows(data, tuple(FIELDS))
        return [(w, checked(row, FIELDS, w)) for n, row in enumerate(rows, 1) for w in (f"{data}: row {n}",)]
    return [(f"{data}: problem {row['id']}", row) for row in read_jsonl(data, FIELDS)]


def _why_not(row: Mapping[str, Any]) -> str:
    """Why a problem cannot be asked or judged; "" when it can."""
    if not str(row.get("description") or "").strip():
        return "without a statement"
    if str(row.get("interaction_format") or "").strip():
        return "interactive"
    if (row.get("input_mode") or "stdio") != "stdio":
        return "with input from files"
    if row.get("executable") is False:
        return "whose accepted solutions fail the tests"
    if not row.get("official_tests"):
        return "without official tests"
    return ""


def _is_verifiable(row: Mapping[str, Any]) -> bool:
    return bool(row.get("executable") and (row.get("official_tests_complete") or row.get("generated_tests")))


def _problem(row: Mapping[str, Any], where: str) -> Problem:
    limit = cpu_seconds(_number(row, "time_limit", where))
    memory = memory_mb(_number(row, "memory_limit", where))
    checker = row.get("generated_checker") or ""
    if not isinstance(checker, str):
        raise UserError(f"{where} has no text in field 'generated_checker', expected Python source or null")
    tests = tuple(
        StdioTest(test["input"], test["output"], checker, lines=False, cpu_seconds=limit)
        for test in _pairs(row, "official_tests", where)
    )
    asked = question(_statement(row, where))
    extra = {"question": asked, "memory_mb": memory}
    extra |= {name: row.get(name) for name in ("contest_id", "index", "title", "rating", "tags")}
    return Problem(row["id"], one_shot(asked, False), tests=tests, row=extra)


def _statement(row: Mapping[str, Any], where: str) -> str:
    """The problem as its page has it."""
    parts = [str(row.get("title") or ""), str(row["description"])]
    for heading, field in (("Input", "input_format"), ("Output", "output_format")):
        parts.append(f"{heading}\n{row[field]}" if row.get(field) else "")
    for example in _pairs(row, "examples", where):
        parts.append(f"Example input:\n{example['input'].strip()}\n\nExample output:\n{example['output'].strip()}")
    parts.append(f"Note\n{row['note']}" if row.get("note") else "")
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _pairs(row: Mapping[str, Any], field: str, where: str) -> list[Mapping[str, str]]:
    pairs = row.get(field) or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, dict) and isinstance(pair.get("input"), str) and isinstance(pair.get("output"), str)
        for pair in pairs
    ):
        raise UserError(f"{where} has no list of texts input and output in field {field!r}")
    return pairs


def _number(row: Mapping[str, Any], field: str, where: str) -> float | None:
    value = row.get(field)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        raise UserError(f"{where} has {value!r} in field {field!r}, expected a number above 0")
    return float(value)
