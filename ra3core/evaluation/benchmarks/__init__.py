"""Benchmarks: problems with prompts, how a completion becomes a program, what judges it, where a completion stops.

A benchmark is a file here with a `load` function and a line in `load` below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ra3core.corpora.demonstrations import Test
from ra3core.errors import UserError
from ra3core.verifier import Program, Script

NAMES = ("embedded", "humaneval")


@dataclass(frozen=True)
class Problem:
    """One task of a benchmark; `tests` or `script` judges it. steps groups results (0 where it does not apply)."""

    id: str
    prompt: str
    entry_point: str
    tests: tuple[Test, ...] = ()
    script: Script | None = None
    steps: int = 0


class Benchmark(Protocol):
    """What generation and grading need to know.

    stop: a completion ends ahead of the first of these; never at a comment line.
    """

    @property
    def name(self) -> str: ...

    @property
    def problems(self) -> Sequence[Problem]: ...

    @property
    def stop(self) -> tuple[str, ...]: ...

    def prompt(self, problem: Problem) -> str:
        """The text that a model completes."""
        ...

    def program(self, problem: Problem, completion: str) -> Program:
        """What is judged for a completion."""
        ...


def load(name: str, data: Path | None = None) -> Benchmark:
    """A benchmark by name, from `data` (the embedded suite's folder, another benchmark's file) or from the hub.

    Raises UserError when there is no such benchmark, or its data are missing or malformed.
    """
    from ra3core.evaluation.benchmarks import embedded, humaneval

    if name == "embedded":
        if data is None:
            raise UserError("benchmark embedded: expected the folder that holds evaluation_tasks.parquet")
        return embedded.Embedded.load(data)
    if name == "humaneval":
        return humaneval.HumanEval.load(data)
    raise UserError(f"benchmark {name!r}: expected one of {', '.join(NAMES)}")
