from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import write_rows
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks.apps import _as_good
from ra3core.evaluation.benchmarks.contest import STOP, Contest, cpu_seconds, memory_mb
from ra3core.verifier import Check, StdioTest, Verifier

REAL = Path(os.environ.get("RA3_BENCHMARKS", "/nonexistent"))

SMALLEST = """\
import sys

given, expected, found = (open(name).read().split() for name in sys.argv[1:4])
divisor = int(found[0]) if len(found) == 1 and found[0].isdigit() else 0
print(1 if divisor > 1 and int(given[0]) % divisor == 0 else 0)
"""


def row(name: str = "1/A", **changes: Any) -> dict[str, Any]:
    base = {
        "id": name,
        "contest_id": "1",
        "index": "A",
        "title": "Sum",
        "description": "Add two numbers.",
        "input_format": "Two integers.",
        "output_format": "Their sum.",
        "interaction_format": None,
        "note": "It fits.",
        "examples": [{"input": "1 2\n", "output": "3\n"}],
        "time_limit": 2.0,
        "memory_limit": 256.0,
        "rating": 800,
        "tags": ["math"],
        "official_tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "5 -7\n", "output": "-2\n"}],
        "official_tests_complete": True,
        "input_mode": "stdio",
        "generated_checker": None,
        "executable": True,
        "generated_tests": 0,
    }
    return {**base, **changes}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        write_rows(rows, path)
        return path
    text = "".join(json.dumps(each) + "\n" for each in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def load(path: Path, rows: Iterable[dict[str, Any]], variant: str = "") -> Contest:
    benchmark = benchmarks.load(f"codeforces:{variant}", write(path, rows))
    assert isinstance(benchmark, Contest)
    return benchmark


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifierConfig(), packages=("numpy",)) as verifier:
        yield verifier


@pytest.mark.parametrize("name", ["cf.jsonl", "cf.jsonl.gz", "cf.parquet"])
def test_scripts_are_judged_by_official_tests(tmp_path: Path, verifier: Verifier, name: str) -> None:
    benchmark = load(tmp_path / name, [row(), row("1/B", time_limit=3.0)])
    problem = benchmark.problems[0]
    expected = [("1 2\n", "3\n"), ("5 -7\n", "-2\n")]
    assert problem.tests == tuple(StdioTest(*pair, lines=False, cpu_seconds=10.0) for pair in expected)
    right = [
        "# two numbers\nprint(sum(map(int, input().split())))\n```\n",
        "Add them.\n```python\nimport sys\na, b = map(int, sys.stdin.read().split())\nprint(a + b)\nexit()\n```",
        "import os, io\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\n"
        "a, b = map(int, input().split())\nos.write(1, b'%d' % (a + b))",
    ]
    wrong = ["print(3)", "print(sum(map(int, input().split())) + 1)", "return 3", "", "print(List)"]
    verdicts = verifier.judge(benchmark.program(problem, text) for text in right + wrong)
    assert [verdict.passed for verdict in verdicts] == [True] * len(right) + [False] * len(wrong)


def test_a_checker_accepts_any_right_answer(tmp_path: Path, verifier: Verifier) -> None:
    tests = [{"input": "12\n", "output": "2\n"}, {"input": "35\n", "output": "5\n"}]
    benchmark = load(tmp_path / "cf.jsonl", [row(official_tests=tests, generated_checker=SMALLEST)])
    (problem,) = benchmark.problems
    programs = [
        "n = int(input())\nprint(n)",
        "print({12: 6, 35: 7}[int(input())])",
        "print(2)",
        "print('x')",
        "print()",
    ]
    verdicts = verifier.judge(benchmark.solution(problem, text) for text in programs)
    assert [verdict.passed for verdict in verdicts] == [True, True, False, False, False]


def test_limits_are_scaled_for_python(tmp_path: Path) -> None:
    assert [cpu_seconds(limit) for limit in (None, 0.5, 1.0, 1.5, 4.0)] == [10.0, 5.0, 5.0, 7.5, 20.0]
    assert [memory_mb(limit) for limit in (None, 16.0, 256.0, 512.0)] == [640, 640, 640, 896]
    rows = [row("1/A", time_limit=1.5, memory_limit=512), row("1/B", time_limit=None, memory_limit=None)]
    benchmark = load(tmp_path / "cf.jsonl", rows)
    programs = [benchmark.program(problem, "print(1)") for problem in benchmark.problems]
    assert [program.memory_mb for program in programs] == [896, 640]
    assert [test.cpu_seconds for program in programs for test in program.tests[:1]] == [7.5, 10.0]  # type: ignore[union-attr]


def test_time_and_memory_are_limited_a_test(
    tmp_path: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ra3core.evaluation.benchmarks.contest.LEAST_CPU_SECONDS", 0.1)
    benchmark = load(tmp_path / "cf.jsonl", [row(time_limit=0.08)])
    loop = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"
    answer = "print(sum(map(int, input().split())))"
    deep = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
        "def f(n): return n and f(n - 1)\n"
        f"def main():\n    f(50_000)\n    {answer}\n"
        "thread = threading.Thread(target=main)\nthread.start()\nthread.join()"
    )
    texts = [loop.format(0.25) + answer, loop.format(3) + answer, "x = bytearray(700 << 20)\n" + answer]
    verdicts = verifier.judge(benchmark.solution(benchmark.problems[0], text) for text in texts)
    assert [verdict.category for verdict in verdicts] == ["passed", "timeout", "memory"]
    benchmark = load(tmp_path / "cf.jsonl", [row(time_limit=1.0)])
    assert verifier.judge([benchmark.solution(benchmark.problems[0], deep)])[0].passed


def test_problems_that_cannot_be_judged_are_counted(tmp_path: Path) -> None:
    rows = [
        row("1/A"),
        row("1/B", interaction_format="Ask up to ten questions."),
        row("1/C", input_mode="file"),
        row("1/D", executable=False),
        row("1/E", official_tests=[]),
        row("1/F", official_tests=None),
        row("1/G", official_tests_complete=False),
        {k: v for k, v in row("1/H").items() if k not in ("executable", "input_mode", "official_tests_complete")},
    ]
    benchmark = load(tmp_path / "cf.jsonl", rows)
    assert [problem.id for problem in benchmark.problems] == ["1/A", "1/G", "1/H"]
    for words in (
        "3 problems",
        "2 without official tests",
        "1 interactive",
        "1 with input from files",
        "1 whose accepted solutions fail the tests",
        "1 of the problems have only a part",
    ):
        assert words in benchmark.variant
    verifiable = load(
        tmp_path / "cf.jsonl", [*rows, row("1/I", official_tests_complete=False, generated_tests=3)], "verifiable"
    )
    assert [problem.id for problem in verifiable.problems] == ["1/A", "1/I"]
    assert [problem.id for problem in verifiable.others] == ["1/G", "1/H"]
    with pytest.raises(UserError, match="0 problems, left out 1 interactive"):
        load(tmp_path / "cf.jsonl", rows[1:2])


def test_the_prompt_states_the_problem(tmp_path: Path) -> None:
    benchmark = load(tmp_path / "cf.jsonl", [row()])
    prompt = benchmark.prompt(benchmark.problems[0])
    for part in ("Add two numbers.", "Two integers.", "Their sum.", "Example input:\n1 2", "It fits."):
        assert part in prompt
    assert prompt.endswith("SOLUTION\n```python\n")
    assert benchmark.stop == STOP and benchmark.decoding == benchmarks.Decoding(10, 0.2, 0.95, 2000)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": 5}, "no text in field 'id'"),
        ({"description": None}, "0 problems, left out 1 without a statement"),
        ({"time_limit": "2"}, "'2' in field 'time_limit'"),
        ({"memory_limit": -1}, "-1 in field 'memory_limit'"),
        ({"official_tests": [{"input": "1"}]}, "field 'official_tests'"),
        ({"official_tests": {"input": "1", "output": "2"}}, "field 'official_tests'"),
        ({"examples": [1]}, "field 'examples'"),
        ({"generated_checker": 1}, "field 'generated_checker'"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / "cf.jsonl", [row(**changes)])
    assert str(tmp_path / "cf.jsonl") in str(caught.value)


def test_other_variants_and_missing_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="codeforces variant 'hard'"):
        load(tmp_path / "cf.jsonl", [row()], "hard")
    with pytest.raises(UserError, match="occurs twice"):
        load(tmp_path / "cf.jsonl", [row(), row()])
    for variant in ("apps", "gym"):
        with pytest.raises(UserError, match="with --data"):
            benchmarks.load(f"codeforces:{variant}")
        with pytest.raises(UserError, match="no such"):
            benchmarks.load(f"codeforces:{variant}", tmp_path / "none")


# -- APPS and NeMo-Gym -------------------------------------------------------------------------------------------------


def task(folder: Path, name: str, pairs: Any, **files: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "question.txt").write_text("Add the numbers.")
    if pairs is not None:
        (folder / name / "input_output.json").write_text(json.dumps(pairs))
    for file, text in files.items():
        (folder / name / file.replace("_json", ".json").replace("_py", ".py")).write_text(text)
    return folder


def apps(folder: Path) -> Contest:
    benchmark = benchmarks.load("codeforces:apps", folder)
    assert isinstance(benchmark, Contest)
    return benchmark


def test_apps_scripts_and_functions(tmp_path: Path, verifier: Verifier) -> None:
    task(tmp_path, "0000", {"inputs": ["1\n2\n", ["3", "4"]], "outputs": ["3\n", ["7"]]}, solutions_json='["pass"]')
    task(tmp_path, "0001", {"fn_name": "add", "inputs": [[[1, 2]], [[3]]], "outputs": [[3], 3]})
    task(tmp_path, "0002", {"inputs": [], "outputs": []})
    task(tmp_path, "0003", None)
    benchmark = apps(tmp_path)
    assert [problem.id for problem in benchmark.problems] == ["0000", "0001"]
    assert "left out 2 without tests" in benchmark.variant
    script, function = benchmark.problems
    assert script.row["solutions"] == ["pass"]
    assert "def add(" in benchmark.prompt(function)
    programs = [
        (script, "print(int(input()) + int(input()))", True),
        (script, "if True:\n    print(int(input()) + int(input()))\n    return", True),
        (script, "print(3)", False),
        (function, "def add(values):\n    return sum(values)", True),
        (function, "class Solution:\n    def add(self, values: List[int]) -> int:\n        return sum(values)", True),
        (function, "def add(values):\n    return [sum(values)]", False),
        (function, "def add(values):\n    return 3\n    yield", False),
        (function, "def plus(values):\n    return sum(values)", False),
    ]
    verdicts = verifier.judge(benchmark.solution(problem, text) for problem, text, _ in programs)
    assert [verdict.passed for verdict in verdicts] == [right for _, _, right in programs]


def test_what_an_apps_function_may_return() -> None:
    assert _as_good(5) == (5,)
    assert _as_good([5]) == ([5], 5, (5,))
    assert _as_good([1, 2]) == ([1, 2], (1, 2))
    assert _as_good([[1, 2]]) == ([[1, 2]], [1, 2], ([1, 2],), (1, 2))
    assert [(1,), (2,)] in _as_good([[[1], [2]]])
    assert {1: "a"} in _as_good([{"1": "a"}])
    assert _as_good({"1": 2, "x": 3}) == ({"1": 2, "x": 3},)


def test_apps_objects_have_numbers_as_keys(tmp_path: Path) -> None:
    task(tmp_path, "1", {"fn_name": "f", "inputs": [[{"1": 2}, {"a": 1}]], "outputs": [1]})
    (test,) = apps(tmp_path).problems[0].tests
    assert isinstance(test, Check) and test.arguments == ({1: 2}, {"a": 1})


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "no lists inputs and outputs"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [None], "outputs": ["1"]}, "is no text"),
        ({"fn_name": "f", "inputs": ["1"], "outputs": ["1"]}, "expected a list of arguments"),
        ({"fn_name": "f()", "inputs": [[1]], "outputs": [1]}, "expected a function's name"),
    ],
)
def test_malformed_apps_tasks_are_named(tmp_path: Path, pairs: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        apps(task(tmp_path, "0007", pairs))
    assert "0007" in str(caught.value)
    with pytest.raises(UserError, match="at least one"):
        apps(tmp_path / "0007")


def gym(path: Path, **changes: Any) -> Contest:
    tests = {"unit_tests": {"inputs": ["1\n2\n"], "outputs": ["3\n"]}}
    messages = [{"role": "user", "content": "Add the numbers."}]
    base = {"responses_create_params": {"input": messages}, "verifier_metadata": tests, "hash_id": "f00"}
    benchmark = benchmarks.load("codeforces:gym", write(path, [{**base, **changes}]))
    assert isinstance(benchmark, Contest)
    return benchmark


def test_gym_rows(tmp_path: Path, verifier: Verifier) -> None:
    benchmark = gym(tmp_path / "gym.jsonl")
    (problem,) = benchmark.problems
    assert problem.id == "f00" and "Add the numbers." in problem.prompt
    texts = ["```python\nprint(int(input()) + int(input()))\n```", "print(4)"]
    assert [v.passed for v in verifier.judge(benchmark.program(problem, text) for text in texts)] == [True, False]
    for changes, message in (
        ({"verifier_metadata": {}}, "f00, field 'verifier_metadata.unit_tests' has no lists"),
        ({"verifier_metadata": {"unit_tests": {"inputs": [], "outputs": []}}}, "has no test"),
        ({"responses_create_params": {"input": [1]}}, "no text or messages"),
        ({"hash_id": None}, "line 1 has no text in field 'hash_id'"),
    ):
        with pytest.raises(UserError, match=message):
            gym(tmp_path / "gym.jsonl", **changes)


@pytest.mark.skipif(not (REAL / "apps").is_dir(), reason="RA3_BENCHMARKS names no folder with apps/")
def test_reference_solutions_of_real_apps_tasks_pass(verifier: Verifier) -> None:
    benchmark = apps(REAL / "apps")
    programs = [
        benchmark.solution(problem, text) for problem in benchmark.problems for text in problem.row["solutions"]
    ]
    verdicts = verifier.judge(programs)
    assert len(verdicts) > 50
    assert [verdict.detail for verdict in verdicts if not verdict.passed] == []


@pytest.mark.skipif(not (REAL / "nemogym_code_gen_example.jsonl").is_file(), reason="RA3_BENCHMARKS is not set")
def test_real_gym_tasks_load() -> None:
    benchmark = benchmarks.load("codeforces:gym", REAL / "nemogym_code_gen_example.jsonl")
    assert sum(len(problem.tests) for problem in benchmark.problems) > len(benchmark.problems) > 0
