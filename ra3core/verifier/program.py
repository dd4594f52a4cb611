"""What is judged, by what tests, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ra3core.corpora.demonstrations import Test

Category = Literal["passed", "wrong_answer", "exception", "syntax", "timeout", "memory", "crash", "forbidden"]
"""Why a program failed. `crash`: its process died or broke the protocol; `forbidden`: it ended with the error of
something that the sandbox refuses (network, files, processes); a missing entry point is an exception."""

Outcome = Literal["passed", "wrong_answer", "exception", "timeout", "memory", "crash", "forbidden", "not_run"]

Comparison = Literal["strict", "equal", "close", "allclose", "truthy", "falsy", "same", "any", "not_none", "root"]
"""How an output is held against the expected value (ra3core/verifier/compare.py)."""

View = Literal["", "tuple", "list", "set", "sorted", "len", "str"]
"""What is applied to the output first, by the judge."""


@dataclass(frozen=True)
class Check(Test):
    """A test with keyword arguments and a comparison of its own; a plain `Test` is compared strictly."""

    __test__ = False

    keywords: Mapping[str, Any] = field(default_factory=dict)
    comparison: Comparison = "strict"
    view: View = ""
    tolerance: float = 0.0  # absolute
    relative: float = 0.0
    alternatives: tuple[Any, ...] = ()  # other values that are as good as the expected one
    cpu_seconds: float | None = None  # of this call alone


@dataclass(frozen=True)
class StdioTest:
    """One run of the whole program as a script: standard input in, standard output back.

    Outputs match when their stripped lines are equal, or, line by line, their words or decimal numbers; without
    `lines` when the words of the whole are, wherever lines end; with a `checker` (Python source, run confined as
    ``checker.py input.txt correct_output.txt solution_output.txt``) when it prints 1.
    """

    input: str
    expected: str
    checker: str = ""
    lines: bool = True
    cpu_seconds: float | None = None  # of this run; the program's by default


@dataclass(frozen=True)
class Script:
    """Test code that runs on the judge's side: in a sandboxed process of its own, where the entry point is a
    stand-in whose calls are answered by the program's process with plain values.

    setup: code run first, such as the prompt whose helpers the tests use; the program cannot redefine them there.
    code: the tests; an AssertionError is a wrong answer.
    inside: run `code` in the program's own process instead (what it cannot do otherwise: pass functions or objects
        to and fro). The program could then forge the result, so the verdict says `weak`.
    """

    setup: str
    code: str
    inside: bool = False


@dataclass(frozen=True)
class Program:
    """A program and what judges it: `tests`, a `script`, or both (the tests first).

    source: what is run. readings: other ways to read the same answer (cut at a stop sequence, with the prompt ahead of
        it); the first of source and readings that compiles is judged, the rest is not looked at.
    entry_point: a function's name, or Class.method of a class that is instantiated without arguments; "" with stdio.
    tests: all calls, or all stdio.
    exhaustive: run every test even after one has failed.
    cpu_seconds, wall_seconds, memory_mb: limits instead of the configured ones; with stdio, of each run.
    """

    source: str
    entry_point: str = ""
    tests: Sequence[Test] | Sequence[StdioTest] = ()
    script: Script | None = None
    exhaustive: bool = False
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    memory_mb: int | None = None
    readings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """What a trusted program (a reference solution) answers: a value and CPU seconds for each call of its tests."""

    values: tuple[Any, ...]
    cpu_seconds: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """The judge's finding.

    outcomes: one for each of the program's tests (a script counts as one more).
    cpu_seconds: of the program's process, wall_seconds: until the verdict.
    detail: one line: the exception, or what was wrong. output: the start of what the program printed.
    weak: the tests ran inside the program's process, which could have forged them.
    """

    passed: bool
    category: Category
    outcomes: tuple[Outcome, ...] = ()
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    detail: str = ""
    output: str = ""
    weak: bool = False
