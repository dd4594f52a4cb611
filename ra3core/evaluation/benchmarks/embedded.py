"""The embedded suite: labelled-step functions over integer lists, judged by strict comparison (docs/evaluation.md)."""

from __future__ import annotations

from pathlib import Path

from ra3core.corpora.demonstrations import read_tasks
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks.base import Benchmark, Problem
from ra3core.evaluation.benchmarks.files import no_variants
from ra3core.verifier import Program

FILE = "evaluation_tasks.parquet"


def load(data: Path | None, variant: str) -> Embedded:
    """The evaluation tasks of a data folder; UserError when the file is missing or holds none."""
    no_variants("embedded", variant)
    if data is None:
        raise UserError("benchmark embedded: has no data of its own, expected the folder of a data stage")
    tasks = read_tasks(data / FILE)
    if not tasks:
        raise UserError(f"{data / FILE}: no tasks, expected at least one")
    problems = [Problem(t.id, t.prompt, t.entry_point, t.tests, steps=t.steps) for t in tasks]
    return Embedded("embedded", f"zero-shot completion, {len(problems)} tasks", problems)


class Embedded(Benchmark):
    """program = prompt + completion; the completion begins with the newline that ends the docstring's line."""

    line_follows = True

    def program(self, problem: Problem, completion: str) -> Program:
        return Program(problem.prompt + completion, problem.entry_point, problem.tests)

    def solution(self, problem: Problem, text: str) -> Program:
        return Program(text, problem.entry_point, problem.tests)
