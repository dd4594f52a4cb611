"""Which tasks RLVR trains on: the embedded suite's, or those of a set with unit tests (docs/task-sets.md)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ra3core.section import NonNegative, Positive, Section, Share

Format = Literal["auto", "apps", "codecontests", "gym", "kodcode", "mbpp", "humaneval", "plain"]
"""Shapes of rows (ra3core/corpora/task_rows.py); apps is TACO's too."""

Rule = Literal["drop", "keep"]


class RLVRTasksConfig(Section):
    """Where tasks come from, what they ask, and which are good enough. Only `source` counts for the embedded suite."""

    source: str = "embedded"  # embedded | file:PATH | hub:NAME[:SPLIT]
    format: Format = "auto"
    prompt: Literal["docstring", "chat"] = "docstring"  # a program to go on with, or a user's message to a chat model
    tasks: Positive = 8_000  # kept at most
    max_tests: Positive = 20  # the first ones of a task
    test_bytes: Positive = 100_000  # a larger test is left out
    references: Positive = 3  # of a task's solutions, tried until one passes
    cpu_seconds: float = Field(default=4.0, gt=0)  # of a test by standard input, or of all calls of a program
    without_reference: Rule = "drop"  # tasks without a solution: nobody has seen their tests passed
    cannot_fail: Rule = "drop"  # tasks whose tests an empty solution passes
    weak: Rule = "drop"  # tasks whose tests have to run in the program's own process, which could forge them

    @model_validator(mode="after")
    def _known_source(self) -> Self:
        scheme, _, rest = self.source.partition(":")
        if self.source != "embedded" and not (scheme in ("file", "hub") and rest):
            raise ValueError(f"source {self.source!r}: expected embedded, file:PATH or hub:NAME[:SPLIT]")
        return self


class TaskSetConfig(RLVRTasksConfig):
    """What the stage is given: the section with what a run's `corpus` and `verifier` say."""

    ngram: Positive = 13
    max_overlap: Share = 0.5
    boilerplate: Share = 0.05
    wall_seconds: float = Field(default=20.0, gt=0)
    memory_mb: NonNegative = 512
    require_isolation: bool = False
