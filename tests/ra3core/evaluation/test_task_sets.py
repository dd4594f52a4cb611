"""Tasks of sets: what is asked, what is judged, and what of a set is kept."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Task, Test, write_rows, write_tasks
from ra3core.corpora.task_rows import Malformed, parse
from ra3core.errors import UserError
from ra3core.evaluation import task_sets
from ra3core.evaluation.prepare_tasks import prepare_tasks, rows_of
from ra3core.evaluation.task_sets import SetTask
from ra3core.stage import Context, Metrics, StageLog
from ra3core.task_set import TaskSetConfig
from ra3core.verifier import Verifier

SUM = "print(sum(map(int, input().split())))"


def script(name: str, question: str = "Print the sum of the numbers.", **changes: Any) -> dict[str, Any]:
    pairs = {"inputs": ["1 2\n", "4\n"], "outputs": ["3\n", "4\n"]}
    return {
        "id": name,
        "question": question,
        "input_output": json.dumps(pairs),
        "solutions": json.dumps([SUM]),
    } | changes


def function(name: str, question: str, tests: str, solution: str = "def add(a, b):\n    return a + b\n") -> dict:
    return {"question_id": name, "question": question, "solution": solution, "test": tests}


def make(row: dict[str, Any], format: str, chat: bool = False) -> SetTask:
    return task_sets.make(parse(row, format, "set:1"), chat=chat, cpu_seconds=2.0, memory_mb=640)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def verifier() -> Iterable[Verifier]:
    with Verifier(VerifierConfig(), 2, packages=task_sets.PACKAGES) as verifier:
        yield verifier


def passed(verifier: Verifier, task: SetTask, *completions: str) -> list[bool]:
    return [verdict.passed for verdict in verifier.judge([task.program(text) for text in completions])]


def test_a_script_goes_on_from_its_docstring(verifier: Verifier) -> None:
    task = make(script("s", 'Print the \\sum of """numbers""".'), "apps")
    assert task.prompt.startswith("r\"\"\"\nPrint the \\sum of '''numbers'''.\n") and task.prompt.endswith('\n"""')
    right, wrong = f"\n# add up\n{SUM}\n", "\nprint(3)\n"
    assert passed(verifier, task, right, wrong, "", f"\n{SUM}\nprint(", "\nexit()\n") == [True, *[False] * 4]
    verdict = verifier.judge([task.program("\nprint(3)\n")])[0]
    assert verdict.outcomes == ("passed", "wrong_answer")


def test_functions_of_every_kind(verifier: Verifier) -> None:
    starter = {"starter_code": "class Solution:\n    def add(self, a: List[int]) -> int:\n        "}
    pairs = {"fn_name": "add", "inputs": [[[1, 2]], [[]]], "outputs": [3, 0]}
    method = make(script("m", input_output=json.dumps(pairs), **starter), "apps")
    assert method.prompt.endswith("def add(self, a: List[int]) -> int:")
    assert passed(verifier, method, "\n        return sum(a)\n", "\n        return 3\n") == [True, False]

    tests = "import pytest\nfrom solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"
    plain = make(function("k", "Add.", tests), "kodcode")
    assert plain.judged_by.script is None and "def add(a, b):" in plain.prompt
    assert passed(verifier, plain, "\ndef add(a, b):\n    return a + b\n", "\ndef add(a, b):\n    return 4\n") == [
        True,
        False,
    ]

    more = (
        tests + "    with pytest.raises(TypeError):\n        add(1, 'a')\n    assert add(.1, .2) == pytest.approx(.3)\n"
    )
    more += (
        "\n@pytest.mark.parametrize('a, b', [(1, 1), (2, 3)])\ndef test_more(a, b):\n    assert add(a, b) == a + b\n"
    )
    run = make(function("r", "Add.", more), "kodcode")
    assert run.judged_by.script is not None and not run.weak
    silent = "\ndef add(a, b):\n    try:\n        return a + b\n    except TypeError:\n        return 0\n"
    only = "\ndef add(a, b):\n    return {(1, 2): 3, (.1, .2): .3, (1, 1): 2}[a, b]\n"
    assert passed(verifier, run, "\ndef add(a, b):\n    return a + b\n", silent, only) == [True, False, False]

    asserts = {"task_id": 1, "text": "Add.", "code": "def add(a, b):\n    return a + b\n", "test_setup_code": ""}
    mbpp = make({**asserts, "test_list": ["assert add(1, 2) == 3"]}, "mbpp")
    assert mbpp.prompt == '"""\nAdd.\n\nassert add(1, 2) == 3\n"""'
    assert passed(verifier, mbpp, "\ndef add(a, b):\n    return a + b\n", "\ndef add(a, b):\n    return a\n") == [
        True,
        False,
    ]


def test_tests_that_would_run_inside_the_program_are_called_weak() -> None:
    solution = "class Queue:\n    def size(self):\n        return 0\n"
    task = make(function("q", "A queue.", "def test_size():\n    assert Queue().size() == 0\n", solution), "kodcode")
    assert task.weak and "class Queue:\n    def size(self):" in task.prompt
    with pytest.raises(Malformed, match="call nothing that the solution defines"):
        make(
            function("o", "Add.", "def add(a, b):\n    return 3\n\ndef test_add():\n    assert add(1, 2) == 3\n"),
            "kodcode",
        )


def test_a_chat_answer_is_read(verifier: Verifier) -> None:
    task = make(script("s"), "apps", chat=True)
    assert task.prompt.endswith("Answer with the whole program in one ```python block.")
    answer = f"The sum.\n```python\n{SUM}\n```\nDone."
    assert passed(verifier, task, answer, answer.replace("sum", "max"), "I do not know.") == [True, False, False]


def test_a_file_of_tasks_is_read_as_it_was_written(tmp_path: Path) -> None:
    tasks = [
        make(script("s"), "apps"),
        make(function("k", "Add.", "def test():\n    assert add(1, 2) == 3\n"), "kodcode"),
    ]
    task_sets.write(tasks, tmp_path / "set.parquet")
    found = task_sets.read(tmp_path / "set.parquet")
    assert found == tasks and [one.row for one in found if isinstance(one, SetTask)] == [one.row for one in tasks]
    suite = [Task("t", "def f(a):", "f", (Test((1,), 2),), 3)]
    write_tasks(suite, tmp_path / "suite.parquet")
    assert task_sets.read(tmp_path / "suite.parquet") == suite
    assert task_sets.packages(suite) == () and task_sets.packages(tasks) == ("numpy",)


# -- the stage ---------------------------------------------------------------------------------------------------------

HELD_OUT = "Print the letters of the given word one by one in the order in which they stand in the alphabet, a to z."


def prepared(
    folder: Path, rows: list[dict[str, Any]], sink=lambda event: None, **settings: Any
) -> tuple[Metrics, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_tasks([Task("e", HELD_OUT, "f", (Test((1,), 1),))], folder / "evaluation_tasks.parquet")
    config = TaskSetConfig(source="file:rows.jsonl", **{"cpu_seconds": 1.0, **settings})
    inputs = {"data": folder, "source": folder / "rows.jsonl"}
    context = Context(inputs, folder / "out", folder / "scratch", log=StageLog(sink=sink))
    return prepare_tasks(config, context), folder / "out" / "rlvr_tasks.parquet"


BAD = {
    "malformed": script("a", "malformed", input_output="{"),
    "duplicate": script("b", "PRINT  the sum of the numbers."),
    "no_reference": script("c", "no solution", solutions=""),
    "reference_wrong_answer": script("d", "wrong solution", solutions=json.dumps(["print(3)"])),
    "reference_timeout": script("e", "slow solution", solutions=json.dumps(["while True: pass"])),
    "reference_syntax": script("f", "Python 2", solutions=json.dumps(["print 3"])),
    "cannot_fail": script("g", "nothing", input_output='{"inputs": ["1"], "outputs": [""]}', solutions='["input()"]'),
}


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    second = script("second", "two solutions", solutions=json.dumps(["print(3)", SUM]))
    contaminated = script("h", HELD_OUT, solutions=json.dumps([SUM]))
    said: list[str] = []
    metrics, file = prepared(
        tmp_path,
        [script("first"), second, contaminated, *BAD.values()],
        lambda event: said.append(event["text"]) if event["event"] == "message" else None,
    )
    assert metrics["dropped"] == dict.fromkeys(sorted(BAD), 1)
    assert metrics["removed"] == 1 and metrics["rows"] == 10 and metrics["tasks"] == 2
    tasks = task_sets.read(file)
    assert {task.id for task in tasks} == {"first", "second"}
    assert [task.row.references for task in tasks if isinstance(task, SetTask)] == [(SUM,)] * 2  # the one that passed
    assert sum("rows.jsonl:4 is left out" in text for text in said) == 1


def test_rules_can_be_lifted_and_the_number_capped(tmp_path: Path) -> None:
    rows = [script("first"), BAD["no_reference"], BAD["cannot_fail"], script("last", "one more")]
    metrics, _ = prepared(tmp_path / "all", rows, without_reference="keep", cannot_fail="keep")
    assert metrics["tasks"] == 4 and metrics["dropped"] == {}
    metrics, file = prepared(tmp_path / "one", rows, tasks=1, max_tests=1)
    assert [task.id for task in task_sets.read(file)] == ["first"] and metrics["tests"] == 1
    assert metrics["rows"] == 1 and metrics["dropped"] == {}  # the others were not needed
    metrics, _ = prepared(tmp_path / "two", rows, tasks=2)
    assert metrics["rows"] == 4 and metrics["dropped"] == {"cannot_fail": 1, "no_reference": 1}
    with pytest.raises(UserError, match=r"no task is left of 1 \(1 no_reference\)"):
        prepared(tmp_path / "none", [BAD["no_reference"]])
    with pytest.raises(UserError, match="no row is of format mbpp"):
        prepared(tmp_path / "other", [script("first")], format="mbpp")


def test_a_killed_attempt_goes_on(tmp_path: Path, monkeypatch) -> None:
    rows = [script(f"t{i}", f"Question {i}.") for i in range(8)]
    metrics, file = prepared(tmp_path, rows)
    assert [task.id for task in task_sets.read(file)] == [row["id"] for row in rows]
    monkeypatch.setattr(Verifier, "submit", None)  # nothing is run again
    assert prepared(tmp_path, rows)[0] == metrics


def test_rows_come_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [script("a"), script("b")]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "set.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    write_rows(rows, tmp_path / "set.parquet")
    for name in ("set.json", "set.jsonl.gz", "set.parquet"):
        assert [(place, row["id"]) for place, row in rows_of(f"file:{tmp_path / name}")] == [
            (f"{name}:1", "a"),
            (f"{name}:2", "b"),
        ]
    (tmp_path / "hub").mkdir()
    write_rows(rows, tmp_path / "hub" / "train.parquet")
    assert [row["id"] for _, row in rows_of(f"hub:{tmp_path / 'hub'}:train")] == ["a", "b"]
    folder = tmp_path / "apps" / "0001"
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text("Add.")
    (folder / "input_output.json").write_text(rows[0]["input_output"])
    (folder / "solutions.json").write_text(rows[0]["solutions"])
    [(place, row)] = rows_of(f"file:{tmp_path / 'apps'}")
    assert place == "apps/0001" and make(dict(row), "apps").id == "0001"
    for source in (f"file:{tmp_path / 'nothing.jsonl'}", f"file:{tmp_path / 'nothing.parquet'}"):
        with pytest.raises(UserError, match=r"no such file|No such file"):
            list(rows_of(source))


# -- real files --------------------------------------------------------------------------------------------------------

REAL = {
    "apps": ({}, 5, {}),
    "kodcode_verified_algorithm.json": (
        {},
        10,
        {"reference_exception": 1, "malformed": 2, "weak": 2, "reference_wrong_answer": 1},
    ),
    "kodcode_verified_leetcode.json": ({"weak": "keep"}, 15, {}),
    "nemogym_code_gen_example.jsonl": ({"without_reference": "keep"}, 5, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets(name: str, tmp_path: Path) -> None:
    """Which of them are kept; what is dropped was looked at one by one."""
    folder = os.environ.get("RA3_BENCHMARKS")
    if not folder:
        pytest.skip("RA3_BENCHMARKS names no folder")
    settings, kept, dropped = REAL[name]
    write_tasks([Task("e", HELD_OUT, "f", (Test((1,), 1),))], tmp_path / "evaluation_tasks.parquet")
    config = TaskSetConfig(source=f"file:{Path(folder) / name}", **settings)
    metrics = prepare_tasks(config, Context({"data": tmp_path}, tmp_path / "out", tmp_path / "scratch"))
    assert (metrics["tasks"], metrics["dropped"]) == (kept, dropped)
