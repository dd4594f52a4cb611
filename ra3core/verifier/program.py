"""What is judged, by what tests, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ra3core.corpora.demonstrations import Test

Category = Literal["passed", "wrong_answer", "exception", "syntax", "timeout", "memory", "crash"]
"""Why a program failed. `crash`: its process died or broke the protocol; a missing entry point is an exception."""

Outcome = Literal["passed", "wrong_answer", "exception", "timeout", "memory", "crash", "not_run"]

Comparison = Literal["strict", "equal", "close", "truthy", "falsy", "same"]
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

    exhaustive: run every test even after one has failed.
    cpu_seconds, wall_seconds: limits instead of the configured ones.
    """

    source: str
    entry_point: str
    tests: Sequence[Test] = ()
    script: Script | None = None
    exhaustive: bool = False
    cpu_seconds: float | None = None
    wall_seconds: float | None = None


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
