"""HumanEval (Chen et al. 2021), in its official format and with its official semantics.

    program = prompt + completion + newline + test + newline + check(entry_point)

The prompt is not stripped. Rows: task_id, prompt, entry_point, test, and canonical_solution, which is not needed.
The judge does not run the test beside the program: asserts on the entry point become inputs and expected outputs
compared with ``==``, other test code runs in a process of its own (ra3core/verifier/asserts.py). Helpers that the
prompt defines are taken from the prompt there, so a completion that redefines them gains nothing; in that alone this
is stricter than the official harness.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ra3core.evaluation.benchmarks import extraction
from ra3core.evaluation.benchmarks.base import Benchmark, Decoding, Problem
from ra3core.evaluation.benchmarks.files import no_variants, read_hub, read_rows, unique
from ra3core.verifier import Program, Script
from ra3core.verifier.asserts import convert

HUB_NAME = "openai/openai_humaneval"
FIELDS = {"task_id": str, "prompt": str, "entry_point": str, "test": str}
STOP = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(")
CPU_SECONDS = 10.0  # the official harness: 3 s of wall time


def load(data: Path | None, variant: str) -> HumanEval:
    """From a .jsonl or .jsonl.gz file in the official format, or from the hub."""
    no_variants("humaneval", variant)
    rows = read_hub(HUB_NAME, FIELDS) if data is None else read_rows(data, FIELDS)
    unique((row["task_id"] for row in rows), data or HUB_NAME)
    problems = [_problem(row) for row in rows]
    return HumanEval(
        name="humaneval",
        variant=f"zero-shot completion, {len(problems)} tasks",
        problems=problems,
        stop=STOP,
        decoding=Decoding(max_new_tokens=512),
    )


class HumanEval(Benchmark):
    """164 functions to complete from signature and docstring."""

    def program(self, problem: Problem, completion: str) -> Program:
        return _judged(problem, extraction.of_completion(problem.prompt, completion, problem.entry_point, self.stop))

    def solution(self, problem: Problem, text: str) -> Program:
        return _judged(problem, extraction.of_program(text, problem.entry_point, self.stop))


def _judged(problem: Problem, sources: tuple[str, ...]) -> Program:
    return Program(
        sources[0],
        problem.entry_point,
        problem.tests,
        problem.script,
        cpu_seconds=CPU_SECONDS,
        readings=sources[1:],
    )


def _problem(row: Mapping[str, Any]) -> Problem:
    entry_point, test, reference = row["entry_point"], row["test"], {"reference": row.get("canonical_solution")}
    checks = convert(test, entry_point)
    if checks is not None:
        return Problem(row["task_id"], row["prompt"], entry_point, tuple(checks), row=reference)
    script = Script(row["prompt"], f"{test}\ncheck({entry_point})\n")
    return Problem(row["task_id"], row["prompt"], entry_point, script=script, row=reference)
