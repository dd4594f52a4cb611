"""Tasks of a set with unit tests: what is asked of the model, and the program that is judged for its answer.

    docstring   the statement as a docstring that a program begins with (HumanEval's rows: signature and docstring); the
                model goes on, and the program is prompt and completion, not a character less
    chat        the statement as a user's message; the program is read out of the answer, as the benchmarks do

Judged is by ra3core.verifier: scripts by standard input and output, functions by calls, test code by asserts turned
into calls or run beside the program. A task file is rlvr_tasks.parquet, as the embedded suite's is; `read` takes both.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ra3core.corpora import demonstrations
from ra3core.corpora.demonstrations import Task
from ra3core.corpora.task_rows import Malformed, TaskRow
from ra3core.errors import UserError
from ra3core.evaluation import pytest_code
from ra3core.evaluation.benchmarks import apps, contest, extraction, mbpp
from ra3core.evaluation.benchmarks.mbpp import JudgedBy
from ra3core.verifier import Program, Script
from ra3core.verifier.asserts import DRIVER, convert

COLUMNS = ("id", "prompt", "chat", "entry_point", "steps", "cpu_seconds", "memory_mb", "weak", "row")
PACKAGES = ("numpy",)
"""What programs and tests of a set may import beside the standard library."""

_ANSWER = "Answer with the whole program in one ```python block."
_READS = "The program reads from standard input and writes to standard output."


@dataclass(frozen=True)
class SetTask(Task):
    """A task of a set. chat: `prompt` is a user's message. cpu_seconds: of a run by standard input, or of all calls.

    weak: the tests have to run inside the program's process.
    """

    row: TaskRow = field(default=TaskRow("", ""), compare=False)
    chat: bool = False
    cpu_seconds: float = 4.0
    memory_mb: int = 512
    weak: bool = False

    @functools.cached_property
    def judged_by(self) -> JudgedBy:
        """Tests or a script. Raises UserError or ValueError for what is none."""
        row = self.row
        if row.pairs is None:
            return _by_asserts(row, self.entry_point, self.weak)
        if self.entry_point:
            found = apps.calls(row.pairs, self.id, row.wrapped)
            return JudgedBy(tuple(replace(check, cpu_seconds=None) for check in found))
        return JudgedBy(tuple(replace(test, cpu_seconds=None) for test in apps.stdio(row.pairs, self.id)))

    def program(self, completion: str) -> Program:
        """What is judged for the model's completion or answer."""
        if not self.chat:
            return self.whole([self.prompt + completion])
        if self.row.pairs is not None:
            return self.whole(contest.readings(completion, self.entry_point))
        return self.whole(extraction.of_program(completion, self.entry_point))

    def whole(self, texts: Sequence[str], share: float = 1.0) -> Program:
        """What is judged for a whole program, of which `texts` are readings. share: of the time limit."""
        found, function = self.judged_by, self.entry_point
        if self.row.pairs is None:
            sources = [text + found.driver for text in texts]
        else:
            preamble = contest.IMPORTS if function else contest.LEAVE
            sources = [contest.assemble(preamble, text, function) for text in texts]
        return Program(
            sources[0],
            DRIVER if found.driver else function,
            found.tests,
            found.script,
            cpu_seconds=share * self.cpu_seconds,
            memory_mb=self.memory_mb,
            readings=tuple(sources[1:]),
        )

    @property
    def stub(self) -> str:
        """The emptiest program that has what the tests call."""
        if not self.entry_point:
            return ""
        return f"def {self.entry_point}(*arguments, **keywords):\n    pass\n"


def make(row: TaskRow, *, chat: bool, cpu_seconds: float, memory_mb: int) -> SetTask:
    """The task of a row. Raises Malformed when its tests are none."""
    weak, entry_point = False, row.entry_point
    try:
        if row.functions:
            if not row.references:
                raise Malformed("test functions without a solution: what they call is not known")
            code = pytest_code.read(row.asserts, row.references[0])
            if not code.called:
                raise Malformed("the tests call nothing that the solution defines")
            weak, entry_point = not code.function, code.called[0]
            row = replace(row, asserts=code.asserts if code.function else "", setup=code.script)
            row = replace(row, shown=f"Define:\n{code.signatures}")
        elif row.pairs is None and not entry_point:
            entry_point = mbpp.entry_point_of(row.references[0], row.asserts.split("\n"), row.id)
        task = SetTask(row.id, "", entry_point, (), 0, row, chat, cpu_seconds, memory_mb, weak)
        found = task.judged_by
    except (UserError, SyntaxError, ValueError, RecursionError, IndexError) as error:
        raise Malformed(" ".join(str(error).split())) from error
    if not found.tests and found.script is None:
        raise Malformed("no tests")
    return replace(task, prompt=chat_prompt(row) if chat else docstring_prompt(row))


def docstring_prompt(row: TaskRow) -> str:
    """The beginning of a program, without the line break that ends it."""
    if row.prompt:
        return row.prompt.rstrip()
    text = f"{row.question.strip()}\n\n{_asked(row)}".strip().replace('"""', "'''")
    docstring = f'{"r" if chr(92) in text else ""}"""\n{text}\n"""'
    return f"{docstring}\n{row.starter.rstrip()}" if row.starter.strip() else docstring


def chat_prompt(row: TaskRow) -> str:
    """A user's message."""
    starter = row.prompt or row.starter
    if starter.strip():
        question = "" if row.prompt else row.question
        return f"{contest.question(question, starter)}\n\n{_ANSWER}".strip()
    return f"{row.question.strip()}\n\n{_asked(row)}\n\n{_ANSWER}"


def _asked(row: TaskRow) -> str:
    """What the program has to offer to its tests."""
    if row.pairs is None:
        return row.shown
    if not row.entry_point:
        return _READS
    return "" if row.starter.strip() else f"Define the function {row.entry_point}."


def _by_asserts(row: TaskRow, entry_point: str, weak: bool) -> JudgedBy:
    if not row.functions and row.prompt:  # HumanEval's check
        checks = convert(row.asserts.removesuffix(f"check({entry_point})\n"), entry_point)
        return JudgedBy(tuple(checks)) if checks else JudgedBy(script=Script(row.setup, row.asserts))
    if not row.functions:
        return mbpp.judged_by(row.asserts, entry_point, row.imports, row.setup, row.references[0])
    if row.asserts and not weak:
        found = mbpp.judged_by(row.asserts, entry_point, (), "", row.references[0])
        if found.script is None:
            return found
    return JudgedBy(script=Script("", row.setup, inside=weak))


def write(tasks: Iterable[SetTask], path: Path) -> None:
    """The columns are COLUMNS; row is JSON."""
    demonstrations.write_rows(
        (
            {name: getattr(task, name) for name in COLUMNS[:-1]} | {"row": json.dumps(asdict(task.row))}
            for task in tasks
        ),
        path,
    )


def read(path: Path) -> list[Task]:
    """The tasks of a file of the embedded suite's, or of `write`."""
    rows = demonstrations.read_rows(path, ("id", "prompt", "entry_point", "steps"))
    if not rows or "row" not in rows[0]:
        return demonstrations.read_tasks(path)
    return [
        SetTask(**{name: row[name] for name in COLUMNS[:-1]}, tests=(), row=_row(json.loads(row["row"])))
        for row in rows
    ]


def _row(values: dict[str, Any]) -> TaskRow:
    lists = {name: tuple(values[name]) for name in ("imports", "references")}
    return TaskRow(**{**values, **lists})


def program(task: Task, completion: str) -> Program:
    """What is judged for a completion of any task's prompt."""
    if isinstance(task, SetTask):
        return task.program(completion)
    return Program(task.prompt + completion, task.entry_point, task.tests)


def packages(tasks: Iterable[Task]) -> tuple[str, ...]:
    """What programs for these tasks may import beside the standard library."""
    return PACKAGES if any(isinstance(task, SetTask) for task in tasks) else ()
