"""A benchmark and its verifier: completions in, grades out. No torch: what `ra3 grade` needs, and every evaluation."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ra3core.artifacts import content_digest
from ra3core.config import VerifierConfig
from ra3core.evaluation.benchmarks import Benchmark, Problem
from ra3core.fingerprint import PACKAGE, source_digest
from ra3core.verifier import WORKERS, Verdict, Verifier


@dataclass(frozen=True)
class Grade:
    """A verdict on a sample.

    tests_passed: of `tests`, before the first that failed. base: whether it passed the benchmark's original tests,
    which come first; None where there are no others.
    """

    passed: bool
    category: str
    detail: str
    weak: bool
    tests: int
    tests_passed: int
    base: bool | None
    cpu_seconds: float
    wall_seconds: float
    output: str


def grade(problem: Problem, verdict: Verdict) -> Grade:
    """What a verdict says of a sample of `problem`."""
    outcomes = verdict.outcomes
    original = problem.row.get("base")
    base = None if original is None else all(outcome == "passed" for outcome in outcomes[:original])
    return Grade(
        passed=verdict.passed,
        category=verdict.category,
        detail=verdict.detail,
        weak=verdict.weak,
        tests=len(outcomes),
        tests_passed=outcomes.count("passed"),
        base=base,
        cpu_seconds=verdict.cpu_seconds,
        wall_seconds=verdict.wall_seconds,
        output=verdict.output,
    )


class Pending:
    """A grade to come; equal samples share one."""

    def __init__(self, problem: Problem, verdict: Future[Verdict]) -> None:
        self._problem = problem
        self._found: Future[Verdict] | Grade = verdict

    def result(self) -> Grade:
        """Wait for it."""
        if isinstance(self._found, Future):
            self._found = grade(self._problem, self._found.result())  # the outcomes of many tests are not kept
        return self._found


class Grader:
    """Judges samples of a benchmark in parallel; a context manager.

    tasks: ids of those that will be asked for, all by default; a benchmark that computes expected outputs computes them
    for these. cache: folder where it keeps them.
    Entering raises UserError when a protection is missing and the configuration requires them all.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        config: VerifierConfig,
        cache: Path,
        workers: int = WORKERS,
        tasks: Iterable[str] | None = None,
    ) -> None:
        if tasks is not None:
            asked = set(tasks)
            benchmark = replace(
                benchmark,
                problems=[problem for problem in benchmark.problems if problem.id in asked],
                others=[problem for problem in benchmark.others if problem.id in asked],
            )
        self._benchmark, self._cache = benchmark, cache
        self._verifier = Verifier(config, workers, packages=benchmark.packages)
        self._problems: dict[str, Problem] = {}

    def __enter__(self) -> Self:
        self._verifier.__enter__()
        try:
            self._benchmark = self._benchmark.prepared(self._verifier, self._cache)
        except BaseException:
            self._verifier.close()
            raise
        self._problems = by_id(self._benchmark)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._verifier.close()

    @property
    def missing(self) -> tuple[str, ...]:
        """Protections that this machine refuses, in words."""
        return self._verifier.missing

    def submit(self, task: str, text: str, whole: bool = False) -> Pending:
        """Judge a completion of the task's prompt, or a whole program, in the background."""
        problem = self._problems[task]
        program = (self._benchmark.solution if whole else self._benchmark.program)(problem, text)
        return Pending(problem, self._verifier.submit(program))


def by_id(benchmark: Benchmark) -> dict[str, Problem]:
    """Every task of a benchmark's file, those that are not asked included."""
    return {problem.id: problem for problem in (*benchmark.others, *benchmark.problems)}


def data_digest(benchmark: Benchmark, data: Path | None) -> str:
    """sha256 of what a benchmark's tasks came from: its file's bytes, its folder's files, else the tasks themselves."""
    if data is not None and data.is_file():
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if data is not None:
        return content_digest(data)
    tasks = [_canonical(problem) for problem in (*benchmark.problems, *benchmark.others)]
    return hashlib.sha256("\n".join(tasks).encode("utf-8", "surrogatepass")).hexdigest()


def grading_code(benchmark: Benchmark) -> str:
    """sha256 of the code that grades a benchmark's samples: when it changes, grades may."""
    own = inspect.getsourcefile(type(benchmark))
    files = [Path(__file__).resolve(), *([Path(own).resolve()] if own else [])]
    return hashlib.sha256("".join(source_digest(file, PACKAGE) for file in files).encode()).hexdigest()


def _canonical(value: Any) -> str:
    """A task's content as text that is the same in every process, whatever the order of its sets."""
    if is_dataclass(value):
        return _canonical([type(value).__name__, *(getattr(value, each.name) for each in fields(value))])
    if isinstance(value, Mapping):
        return f"dict({','.join(sorted(f'{_canonical(key)}:{_canonical(item)}' for key, item in value.items()))})"
    if isinstance(value, set | frozenset):
        return f"set({','.join(sorted(map(_canonical, value)))})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(_canonical, value))})"
    return repr(value)


def unconfined(missing: Iterable[str]) -> str:
    """What to tell where protections are missing."""
    return f"programs run without {', '.join(missing)}: this machine refuses it"
