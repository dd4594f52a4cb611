"""The stage that makes RLVR's tasks of a set with unit tests (section `rlvr_tasks`; docs/task-sets.md).

The paper runs RLVR on 7.7 k coding tasks and says nothing about their choice. Ours: rows are read in the set's order; a
task goes on when it is well-formed, no copy of an earlier one, and gives no evaluation task away; when one of its
solutions passes its tests in half the time that the policy will have (else a right program could fail on a busy day);
when an empty solution does not pass them; and when its tests can be run outside the program, which could forge them
otherwise. What was dropped is counted by reason.

Alone: prepare_tasks(TaskSetConfig(source="file:tasks.jsonl"), Context({"data": Path("data")}, out, scratch)).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ra3core.config import VerifierConfig
from ra3core.corpora.decontamination import Report, clean, recheck
from ra3core.corpora.demonstrations import Task
from ra3core.corpora.held_out import evaluation_index
from ra3core.corpora.task_rows import Malformed, TaskRow, detect, parse
from ra3core.errors import UserError
from ra3core.evaluation import task_sets
from ra3core.evaluation.benchmarks import apps, contest, files
from ra3core.evaluation.grading import unconfined
from ra3core.evaluation.task_sets import SetTask
from ra3core.stage import Context, Metrics
from ra3core.task_set import TaskSetConfig
from ra3core.verifier import WORKERS, Verdict, Verifier

FILE = "rlvr_tasks.parquet"
VERIFIED = "verified.jsonl"  # in the scratch folder: what a killed attempt has found
BATCH = 64  # tasks verified at a time
TIME_SHARE = 0.5  # of the limit, for reference solutions

Row = Mapping[str, Any]


def prepare_tasks(config: TaskSetConfig, context: Context) -> Metrics:
    """Write rlvr_tasks.parquet and decontamination.json.

    Input "data" has the evaluation tasks; "source", where there is one, is the file or folder that config.source names.

    Metrics: tasks (kept), rows (read), tests, removed (by decontamination), dropped (by reason), tokens (of the kept
    prompts, an estimate). Raises UserError for a source that is missing or of another format, and when no task is left.
    """
    context.out.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    index, report, read = evaluation_index(config, context.inputs), Report(), _Reader(config, context)
    limits = {name: getattr(config, name) for name in ("cpu_seconds", "wall_seconds", "memory_mb", "require_isolation")}
    with Verifier(VerifierConfig(**limits), WORKERS, packages=task_sets.PACKAGES) as verifier:
        if verifier.missing:
            context.log.message(unconfined(verifier.missing))
        check = _Check(config, context, verifier, read.dropped)
        kept = list(check.good(read.tasks(), config.tasks, lambda tasks: clean(tasks, _prompt, index, report)))
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(read.dropped.items()))
        reasons += f", {report.removed.total()} contaminated" if report.removed else ""
        raise UserError(f"rlvr_tasks.source {config.source}: no task is left of {read.rows} ({reasons})")
    task_sets.write(kept, context.out / FILE)
    recheck((task.prompt for task in task_sets.read(context.out / FILE)), index, report)
    (context.out / "decontamination.json").write_text(
        json.dumps({"corpora": {"rlvr_tasks": report.as_dict()}}, indent=2, ensure_ascii=False) + "\n"
    )
    return {
        "tasks": len(kept),
        "rows": read.rows,
        "tests": sum(len(task.judged_by.tests) or 1 for task in kept),
        "removed": report.removed.total(),
        "dropped": dict(sorted(read.dropped.items())),
        "format": read.format,
        "tokens": report.tokens,
    }


def rows_of(source: str, given: Path | None = None) -> Iterator[tuple[str, Row]]:
    """Rows of a source, each with its place: "file:row" or "set:row". given: where it lies, if elsewhere.

    file: JSON lines or one JSON array (.gz too), parquet, or a folder of APPS problems. hub: streamed, split train
    unless named; or a folder that `datasets` opens. Raises UserError when it is missing or cannot be read.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "hub":
        name, _, split = rest.partition(":")
        shown = name if given is None else given.name
        yield from ((f"{shown}:{number}", row) for number, row in _hub_rows(str(given or name), split or "train"))
        return
    path = given or Path(rest).expanduser()
    if path.is_dir():
        yield from _folder_rows(path)
    elif path.suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        array = path.name.removesuffix(".gz").endswith(".json")
        found = files.read_json_array(path, {}) if array else files.read_jsonl(path, {})
        for number, row in enumerate(found, start=1):
            yield f"{path.name}:{number}", row


@dataclass
class _Reader:
    """Well-formed tasks of a source, each once. dropped: by reason."""

    config: TaskSetConfig
    context: Context
    rows: int = 0
    format: str = ""
    dropped: Counter[str] = field(default_factory=Counter)

    def tasks(self) -> Iterator[SetTask]:
        config, seen, ids = self.config, set(), set()
        memory = max(config.memory_mb, contest.memory_mb(None))
        chat = config.prompt == "chat"
        for place, row in rows_of(config.source, self.context.inputs.get("source")):
            self.rows += 1
            if not self.format:
                self.format = detect(row, place) if config.format == "auto" else config.format
            try:
                found = _fewer_tests(parse(row, self.format, place), config)  # type: ignore[arg-type]
                if not found.references and config.without_reference == "drop":
                    self.dropped["no_reference"] += 1
                    continue
                task = task_sets.make(found, chat=chat, cpu_seconds=config.cpu_seconds, memory_mb=memory)
            except Malformed as error:
                if not self.dropped["malformed"]:
                    self.context.log.message(f"{place} is left out, as others like it will be: {error}")
                self.dropped["malformed"] += 1
                continue
            text = " ".join(f"{found.question} {found.prompt}".lower().split())
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            if digest in seen:
                self.dropped["duplicate"] += 1
            elif task.weak and config.weak == "drop":
                self.dropped["weak"] += 1
            else:
                seen.add(digest)
                yield replace(task, id=place) if task.id in ids else task
                ids.add(task.id)
        if self.format and self.dropped["malformed"] == self.rows:
            raise UserError(f"rlvr_tasks.source {config.source}: no row is of format {self.format}")


@dataclass
class _Check:
    """Runs solutions and stubs; a killed attempt's findings are used again."""

    config: TaskSetConfig
    context: Context
    verifier: Verifier
    dropped: Counter[str]

    def good(
        self, tasks: Iterable[SetTask], wanted: int, uncontaminated: Callable[[list[SetTask]], Iterable[SetTask]]
    ) -> Iterator[SetTask]:
        """The first `wanted` tasks that are `uncontaminated` and pass, with the solution that did; in order.

        No task behind them is read, so that what is counted is what was needed.
        """
        file = self.context.scratch / VERIFIED
        known: dict[str, list[Any]] = {}
        for line in file.read_text().splitlines() if file.is_file() else ():
            with suppress(ValueError):  # the last line of a killed attempt
                found = json.loads(line)
                known[found[0]] = found[1:]
        done, iterator = 0, iter(tasks)
        with file.open("a") as stream:
            while read := list(islice(iterator, min(BATCH, wanted))):
                batch = list(uncontaminated(read))
                unknown = [task for task in batch if task.id not in known]
                for task, found in zip(unknown, self._verify(unknown), strict=True):
                    known[task.id] = list(found)
                    stream.write(json.dumps([task.id, *found]) + "\n")
                stream.flush()
                done += len(batch)
                with self.context.log.progress("tasks verified", total=done, done=done):
                    pass
                for task in batch:
                    reason, reference = known[task.id]
                    if reason:
                        self.dropped[reason] += 1
                    else:
                        wanted -= 1
                        chosen = task.row.references[reference : reference + 1]
                        yield replace(task, row=replace(task.row, references=chosen))

    def _verify(self, tasks: list[SetTask]) -> list[tuple[str, int]]:
        """Why each is dropped ("" when it is not), and which of its references passed."""
        found: list[tuple[str, int]] = [("", 0)] * len(tasks)
        open_ = {n: "" for n, task in enumerate(tasks) if task.row.references}
        for number in range(self.config.references):
            running = {n: self._run(tasks[n], number) for n in open_ if number < len(tasks[n].row.references)}
            for n, verdict in running.items():
                result = verdict.result()
                if result.passed and (not result.weak or self.config.weak == "keep"):
                    found[n] = ("", number)
                    del open_[n]
                else:  # the first solution's reason counts
                    open_[n] = open_[n] or ("weak" if result.passed else f"reference_{result.category}")
        for n, reason in open_.items():
            found[n] = (reason, 0)
        if self.config.cannot_fail == "drop":
            left = [n for n, (reason, _) in enumerate(found) if not reason]
            stubs = {n: self.verifier.submit(tasks[n].whole([tasks[n].stub])) for n in left}
            for n, verdict in stubs.items():
                if verdict.result().passed:
                    found[n] = ("cannot_fail", 0)
        return found

    def _run(self, task: SetTask, number: int) -> Future[Verdict]:
        return self.verifier.submit(task.whole([task.row.references[number]], TIME_SHARE))


def _fewer_tests(row: TaskRow, config: TaskSetConfig) -> TaskRow:
    """The first tests that are not too large. Raises Malformed when all are."""
    if row.pairs is None:
        return row
    pairs = zip(row.pairs["inputs"], row.pairs["outputs"], strict=True)
    small = islice((pair for pair in pairs if len(json.dumps(pair)) <= config.test_bytes), config.max_tests)
    kept = list(small)
    if not kept:
        raise Malformed("no tests" if not row.pairs["inputs"] else f"no test of at most {config.test_bytes} bytes")
    return replace(row, pairs={"inputs": [given for given, _ in kept], "outputs": [expected for _, expected in kept]})


def _prompt(task: Task) -> str:
    return task.prompt


def _folder_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    """APPS problems, in the order of their names."""
    for question in sorted(folder.glob(f"*/{apps.QUESTION}")):
        row: dict[str, Any] = {"problem_id": question.parent.name}
        parts = (("question", apps.QUESTION), ("input_output", apps.TESTS), ("solutions", apps.SOLUTIONS))
        for name, part in (*parts, ("starter_code", apps.STARTER)):
            file = question.parent / part
            try:
                row[name] = file.read_text(encoding="utf-8") if file.is_file() else None
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{file}: not readable text ({error})") from error
        yield f"{folder.name}/{question.parent.name}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({' '.join(str(error).split())})") from error


def _hub_rows(name: str, split: str) -> Iterator[tuple[int, Row]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
        yield from enumerate(rows, start=1)  # pyright: ignore[reportReturnType]
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(f"hub:{name}: cannot be read ({' '.join(str(error).split())})") from error
