"""The embedded suite: labelled-step functions over integer lists, judged by strict comparison (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ra3core.corpora.demonstrations import read_tasks
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import Problem
from ra3core.verifier import Program

FILE = "evaluation_tasks.parquet"


@dataclass(frozen=True)
class Embedded:
    """program = prompt + completion; the completion begins with the newline that ends the docstring's line."""

    problems: Sequence[Problem]
    name: str = "embedded"
    stop: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> Embedded:
        """The evaluation tasks of a data folder; UserError when the file is missing or holds none."""
        tasks = read_tasks(folder / FILE)
        if not tasks:
            raise UserError(f"{folder / FILE}: no tasks, expected at least one")
        return cls([Problem(t.id, t.prompt, t.entry_point, t.tests, steps=t.steps) for t in tasks])

    def prompt(self, problem: Problem) -> str:
        return problem.prompt

    def program(self, problem: Problem, completion: str) -> Program:
        return Program(problem.prompt + completion, problem.entry_point, problem.tests)
