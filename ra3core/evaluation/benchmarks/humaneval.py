"""HumanEval (Chen et al. 2021), in its official format and with its official semantics.

    program = prompt + completion + newline + test + newline + check(entry_point)

The prompt is not stripped. Rows: task_id, prompt, entry_point, canonical_solution, test. The judge does not run the
test beside the program: asserts on the entry point become inputs and expected outputs compared with ``==``, other test
code runs in a process of its own (ra3core/verifier/asserts.py). Helpers that the prompt defines are taken from the
prompt there, so a completion that redefines them gains nothing; in that alone this is stricter than the official
harness.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import Problem
from ra3core.verifier import Program, Script
from ra3core.verifier.asserts import convert

HUB_NAME = "openai/openai_humaneval"
FIELDS = ("task_id", "prompt", "entry_point", "test")
STOP = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(")


@dataclass(frozen=True)
class HumanEval:
    """164 functions to complete from signature and docstring."""

    problems: Sequence[Problem]
    name: str = "humaneval"
    stop: tuple[str, ...] = STOP

    @classmethod
    def load(cls, data: Path | None = None) -> HumanEval:
        """From a .jsonl or .jsonl.gz file in the official format, or from the hub.

        Raises UserError naming the line of a row that is no JSON object or lacks a field.
        """
        rows = _from_hub() if data is None else read_jsonl(data, FIELDS)
        problems = [_problem(row) for row in rows]
        if not problems:
            raise UserError(f"{data or HUB_NAME}: no tasks, expected at least one")
        if len({problem.id for problem in problems}) < len(problems):
            raise UserError(f"{data or HUB_NAME}: a task_id occurs twice, expected each once")
        return cls(problems)

    def prompt(self, problem: Problem) -> str:
        return problem.prompt

    def program(self, problem: Problem, completion: str) -> Program:
        return Program(f"{problem.prompt}{completion}\n", problem.entry_point, problem.tests, problem.script)


def _problem(row: Mapping[str, Any]) -> Problem:
    entry_point, test = row["entry_point"], row["test"]
    checks = convert(test, entry_point)
    if checks is not None:
        return Problem(row["task_id"], row["prompt"], entry_point, tuple(checks))
    script = Script(row["prompt"], f"{test}\ncheck({entry_point})\n")
    return Problem(row["task_id"], row["prompt"], entry_point, script=script)


def read_jsonl(path: Path, fields: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, gzipped or not, each with the text fields named.

    Raises UserError for a missing or unreadable file, and with its number for a line that is no JSON object or lacks a
    field.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected JSON lines")
    try:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable file of JSON lines ({error})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number} is not a JSON object")
        for name in fields:
            if not isinstance(row.get(name), str):
                raise UserError(f"{path}: line {number} has no text in field {name!r}")
        yield row


def _from_hub() -> list[dict[str, Any]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return [dict(row) for row in datasets.load_dataset(HUB_NAME, split="test")]
    except (OSError, DatasetsError) as error:
        raise UserError(f"{HUB_NAME}: cannot be loaded from the hub, pass a file with --data ({error})") from error
