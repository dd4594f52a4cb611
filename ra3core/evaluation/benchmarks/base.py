"""What every benchmark says about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Program, Script, StdioTest, Verifier


@dataclass(frozen=True)
class Decoding:
    """How the benchmark is officially sampled; what `ra3 evaluate` does unless told otherwise."""

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Problem:
    """One task; `tests` or `script` judges it.

    id: as the benchmark's own file has it (MBPP's numbers as text). steps: groups results (0 where it does not apply).
    row: what else the benchmark needs of its own record.
    """

    id: str
    prompt: str
    entry_point: str = ""
    tests: tuple[Test, ...] | tuple[StdioTest, ...] = ()
    script: Script | None = None
    steps: int = 0
    row: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Benchmark(ABC):
    """What generation and grading need to know.

    name: as in NAMES. variant: the convention in words, stated beside every result ("zero-shot, 500 test tasks").
    problems: what is asked. others: further tasks of the same file, which samples to be graded may name.
    stop: a completion ends ahead of the first of these; never at a comment line.
    line_follows: a prompt is a program's beginning without the line break that ends it, with which completions begin.
    packages: what programs may import beside the standard library.
    """

    name: str
    variant: str
    problems: Sequence[Problem]
    others: Sequence[Problem] = ()
    stop: tuple[str, ...] = ()
    decoding: Decoding = Decoding()
    packages: tuple[str, ...] = ()
    line_follows: ClassVar[bool] = False

    def prompt(self, problem: Problem) -> str:
        """The text that a model completes."""
        return problem.prompt

    @abstractmethod
    def program(self, problem: Problem, completion: str) -> Program:
        """What is judged for a completion of the prompt, a chat answer included."""

    @abstractmethod
    def solution(self, problem: Problem, text: str) -> Program:
        """What is judged for a whole program."""

    def texts(self) -> dict[str, str]:
        """What no training document may give away: every problem's question by its id, and its reference solution,
        where the benchmark's file has one, without the question if that stands ahead of it."""
        found = {}
        for problem in self.problems:
            found[problem.id] = problem.row.get("question") or self.prompt(problem)
            if isinstance(reference := problem.row.get("reference"), str):
                found[f"{problem.id}/solution"] = reference.strip().removeprefix(problem.prompt.strip()).strip("\n")
        return found

    def prepared(self, verifier: Verifier, cache: Path) -> Benchmark:
        """The benchmark with expected outputs for all its problems; some compute them from reference solutions, and
        keep them in `cache`."""
        return self
