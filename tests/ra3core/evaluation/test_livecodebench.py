from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import VerifierConfig
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import livecodebench
from ra3core.evaluation.benchmarks.contest import IMPORTS, STOP, Contest, assemble, readings
from ra3core.evaluation.benchmarks.livecodebench import unpickled_text
from ra3core.verifier import Check, StdioTest, Verdict, Verifier

WINDOW = "release_v1/2024-08-01/2025-05-01"


def cases(*pairs: tuple[str, str], kind: str = "stdin") -> list[dict[str, str]]:
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in pairs]


def packed(tests: Any, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests), protocol))).decode()


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    base = {
        "question_title": "Twice",
        "question_content": "Print twice the number.",
        "platform": "atcoder",
        "question_id": f"abc{number}",
        "contest_id": "abc",
        "contest_date": "2024-10-05T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases(("2\n", "4\n"))),
        "private_test_cases": packed(cases(("5\n", "10\n"), ("0.5", "1"))),
        "metadata": "{}",
    }
    return {**base, **changes}


CALL = row(
    2,
    platform="leetcode",
    question_content="Return the values with the largest first.",
    starter_code="class Solution:\n    def largest(self, values: List[int], k: int) -> List[int]:\n        ",
    public_test_cases=json.dumps(cases(("[1, 3, 2]\n2", "[3, 2]"), kind="functional")),
    private_test_cases=json.dumps(cases(("[1]\n1", "[1]"), kind="functional")),
    metadata=json.dumps({"func_name": "largest"}),
)


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(each) + "\n" for each in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def load(tmp_path: Path, *rows: dict[str, Any], variant: str = WINDOW) -> Contest:
    benchmark = benchmarks.load(f"livecodebench:{variant}", write(tmp_path / "test.jsonl", rows))
    assert isinstance(benchmark, Contest)
    return benchmark


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifierConfig(), packages=("numpy",)) as verifier:
        yield verifier


def verdicts(verifier: Verifier, benchmark: Contest, texts: Iterable[str], at: int = 0) -> list[Verdict]:
    return verifier.judge(benchmark.program(benchmark.problems[at], text) for text in texts)


@pytest.mark.parametrize("name", ["test.jsonl", "test.jsonl.gz"])
def test_scripts_are_judged_by_what_they_print(tmp_path: Path, verifier: Verifier, name: str) -> None:
    benchmark = benchmarks.load(f"livecodebench:{WINDOW}", write(tmp_path / name, [row()]))
    assert isinstance(benchmark, Contest)
    (problem,) = benchmark.problems
    program = benchmark.solution(problem, "print(2 * float(input()))")
    assert [(test.input, test.expected, test.cpu_seconds) for test in program.tests] == [  # type: ignore[union-attr]
        ("2\n", "4\n", 6.0),
        ("5\n", "10\n", 6.0),
        ("0.5", "1", 6.0),
    ]
    right = [
        "n = float(input())\n# twice as much\nprint(2 * n)\n```\n",
        "Read it first.\n```python\nprint(2 * float(stdin.read()))\n```\nFor the sample this prints\n```\n4.0\n```\n",
        "def main():\n    print(float(input()) * 2)\nif __name__ == '__main__':\n    main()\n    exit()",
        "from __future__ import annotations\nprint(' ', Counter([2 * float(input())]).most_common(1)[0][0])",
        "x = float(input())\nif x:\n    print(2 * x)\n    return\nprint(0)",
        "import numpy as np\nprint(2 * np.float64(open(0).read()) + pow(2, 3, 8))",
    ]
    wrong = ["print(4)", "", "The answer is two.", "print(2 * float(input()), 'done')", "print(2 * float(input())", "4"]
    found = verdicts(verifier, benchmark, right + wrong)
    assert [verdict.passed for verdict in found] == [True] * len(right) + [False] * len(wrong)


def test_functions_are_judged_by_what_they_return(tmp_path: Path, verifier: Verifier) -> None:
    benchmark = load(tmp_path, row(), CALL)
    problem = benchmark.problems[1]
    program = benchmark.solution(problem, "")
    assert program.tests[0] == Check(
        ([1, 3, 2], 2), [3, 2], comparison="equal", alternatives=((3, 2),), cpu_seconds=6.0
    )
    assert program.cpu_seconds == 18.0
    head = "class Solution:\n    def largest(self, values: List[int], k: int) -> List[int]:\n        "
    right = [
        f"{head}return sorted(values, reverse=True)[:k]\n```\n",
        f"{head}return tuple(nlargest(k, values))",
        f"Like this:\n```python\n{head}return heapq.nlargest(k, values)\n```\nTry it:\n```python\nprint(1)\n```",
        "def largest(values, k):\n    return [float(v) for v in sorted(values)[::-1][:k]]",
    ]
    wrong = [
        f"{head}return values[:k]",
        f"{head}return set(nlargest(k, values))",
        f"{head}return iter(nlargest(k, values))",
        f"{head}return [(v,) for v in nlargest(k, values)]",
        f"{head}return dict.fromkeys(nlargest(k, values))",
        f"{head}return str(nlargest(k, values))",
        "class Solution:\n    pass",
        "print([3, 2])",
    ]
    found = verdicts(verifier, benchmark, right + wrong, at=1)
    assert [verdict.passed for verdict in found] == [True] * len(right) + [False] * len(wrong)
    assert not any(verdict.weak for verdict in found)


def test_only_the_outermost_tuple_counts_as_a_list(tmp_path: Path, verifier: Verifier) -> None:
    tests = json.dumps(cases(("2", "[[1, 2]]"), kind="functional"))
    metadata = json.dumps({"func_name": "f"})
    changed = row(public_test_cases=tests, private_test_cases="[]", metadata=metadata, starter_code="def f(n):")
    right = ["[[1, 2]]", "([1, 2],)", "([np.int64(1), np.float64(2)],)"]
    wrong = ["[(1, 2)]", "((1, 2),)", "[[np.int64(1), np.int64(1)]]", "np.array([[1, 2]])"]
    bodies = [f"import numpy as np\ndef f(n):\n    return {body}" for body in right + wrong]
    found = verdicts(verifier, load(tmp_path, changed), bodies)
    assert [verdict.passed for verdict in found] == [True] * 3 + [False] * 4


def test_a_test_has_six_seconds_of_its_own(tmp_path: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "CPU_SECONDS", 0.4)
    slow = (
        "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\nprint(2 * float(input()))"
    )
    livecodebench._tests.cache_clear()
    within, beyond = verdicts(verifier, load(tmp_path, row()), [slow.format(0.2), slow.format(2)])
    livecodebench._tests.cache_clear()
    assert within.passed and within.cpu_seconds > 0.4  # three tests
    assert beyond.category == "timeout"


def test_deep_recursion_is_allowed(tmp_path: Path, verifier: Verifier) -> None:
    deep = "def f(n):\n    return 2 + f(n - 1) if n else 0\nf(30_000)\nprint(2 * float(input()))"
    assert verdicts(verifier, load(tmp_path, row()), [deep])[0].passed


def test_the_window_includes_both_its_days(tmp_path: Path) -> None:
    days = ["2024-07-31T23:59:59", "2024-08-01T00:00:00", "2025-05-01T23:30:00", "2025-05-02", "2023-01-01"]
    rows = [row(number, contest_date=day) for number, day in enumerate(days)]
    benchmark = load(tmp_path, *rows)
    assert [problem.id for problem in benchmark.problems] == ["abc1", "abc2"]
    assert [problem.id for problem in benchmark.others] == ["abc0", "abc3", "abc4"]
    assert "2024-08-01 to 2025-05-01" in benchmark.variant
    assert benchmark.decoding == benchmarks.Decoding(10, 0.2, 0.95, 2000)
    assert benchmark.program(benchmark.others[2], "print(1)").tests
    assert len(load(tmp_path, *rows, variant="release_v1").problems) == 5
    assert len(benchmarks.load("livecodebench", tmp_path / "test.jsonl").problems) == 2
    with pytest.raises(UserError, match="no problem of 2030"):
        load(tmp_path, *rows, variant="release_v1/2030-01-01/2030-02-01")


def test_a_release_is_the_first_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [row(1)])
    write(tmp_path / "test2.jsonl.gz", [row(2)])
    write(tmp_path / "test3.jsonl", [row(3)])
    loaded = [benchmarks.load(f"livecodebench:release_v{n}", tmp_path) for n in (1, 2, 3)]
    assert [len(benchmark.problems) for benchmark in loaded] == [1, 2, 3]
    with pytest.raises(UserError, match=r"test4\.jsonl: no such file"):
        benchmarks.load("livecodebench:release_v4", tmp_path)


@pytest.mark.parametrize(
    "variant", ["v6", "release_v7", "release_v6/2024-08-01", "release_v6/a/b", "release_v6/2025-01-01/2024-01-01"]
)
def test_other_variants_are_refused(tmp_path: Path, variant: str) -> None:
    with pytest.raises(UserError, match="livecodebench variant"):
        load(tmp_path, row(), variant=variant)


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_one_text_are_read(protocol: int) -> None:
    for text in ("[]", "é" * 300, "x" * 70_000):
        pickled = pickle.dumps(text, protocol)
        if protocol in (1, 2, 3, 4):
            assert unpickled_text(pickled) == text
        else:
            with pytest.raises(ValueError, match="UNICODE"):
                unpickled_text(pickled)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def encoded(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for data in (Hostile(trap), ["[]", Hostile(trap)], "[]"):
        pickled = pickle.dumps(data)
        if data == "[]":
            pickled = pickled[:-1] + pickle.dumps(Hostile(trap))  # after the text
        with pytest.raises(UserError, match="line 2, field 'private_test_cases'"):
            load(tmp_path, row(1), row(2, private_test_cases=encoded(pickled)))
    assert not trap.exists()


def test_unpacking_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livecodebench, "MAX_UNPACKED", 1000)
    bomb = row(private_test_cases=packed(cases(("0" * 100_000, "0"))))
    with pytest.raises(UserError, match="more than 1000 bytes"):
        load(tmp_path, bomb)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"private_test_cases": "not base64!"}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": base64.b64encode(b"not zlib").decode()}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": packed([])[:-12]}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": encoded(b"")}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": encoded(pickle.dumps("[]")[:-3])}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": encoded(pickle.dumps("[]") + b"x")}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": encoded(pickle.dumps(["[]"]))}, "line 1, field 'private_test_cases'"),
        ({"private_test_cases": encoded(pickle.dumps("[1"))}, "line 1 has no JSON in field 'private_test_cases'"),
        ({"private_test_cases": packed({})}, "expected a list"),
        ({"private_test_cases": packed([{"input": "1"}])}, "without text as input and output"),
        ({"private_test_cases": "[]", "public_test_cases": "[]"}, "has no test"),
        ({"private_test_cases": packed(cases(("1", "2"), kind="functional"))}, "not all of type 'stdin'"),
        ({"public_test_cases": "["}, "line 1 has no JSON in field 'public_test_cases'"),
        ({"public_test_cases": None}, "line 1 has no text in field 'public_test_cases'"),
        ({"contest_date": "yesterday"}, "'yesterday' in field 'contest_date'"),
        ({"metadata": "[]"}, "field 'metadata'"),
        ({"metadata": '{"func_name": "a.b; c"}'}, "expected a function's name"),
        ({"question_id": 3}, "no text in field 'question_id'"),
    ],
)
def test_malformed_rows_are_named_by_line_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, row(1, **changes))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_calls_must_be_json_and_ids_unique(tmp_path: Path) -> None:
    broken = {**CALL, "private_test_cases": packed(cases(("1\n\n", "1"), kind="functional"))}
    with pytest.raises(UserError, match="line 1 has a test whose input and output are not JSON"):
        load(tmp_path, broken)
    with pytest.raises(UserError, match="occurs twice"):
        load(tmp_path, row(), row())
    (tmp_path / "bad.jsonl").write_text(json.dumps(row()) + "\n\n{")
    with pytest.raises(UserError, match="line 3 is not JSON"):
        benchmarks.load("livecodebench", tmp_path / "bad.jsonl")
    with pytest.raises(UserError, match="no such file"):
        benchmarks.load("livecodebench", tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="not a readable file"):
        benchmarks.load("livecodebench", tmp_path / "bad.jsonl.gz")


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    benchmark = load(tmp_path, row())
    os.utime(tmp_path / "test.jsonl", ns=(0, 0))
    with pytest.raises(UserError, match="has changed"):
        benchmark.program(benchmark.problems[0], "print(1)")
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        benchmark.program(benchmark.problems[0], "print(1)")


def test_prompts_show_an_example_of_the_same_kind(tmp_path: Path) -> None:
    benchmark = load(tmp_path, row(), CALL)
    script, call = (benchmark.prompt(problem) for problem in benchmark.problems)
    assert script.count("PROBLEM\n") == call.count("PROBLEM\n") == 2
    assert script.endswith("SOLUTION\n```python\n") and "standard input" in script
    assert call.count("class Solution:") == 3 and CALL["starter_code"] in call
    assert "\n```\n" in script[: script.rindex("PROBLEM")]  # the example ends where the stop sequence stands
    assert not any("\n#".startswith(stop) or stop.startswith("\n#") for stop in STOP)


def test_the_examples_in_the_prompts_are_right(verifier: Verifier, tmp_path: Path) -> None:
    from ra3core.evaluation.benchmarks.contest import _CALL_ANSWER, _STDIN_ANSWER

    tests = cases(("6\n3 5 8 2 4 4\n", "3"), ("1\n7\n", "1"), ("4\n1 2 3 4\n", "4"))
    calls = cases(('["noon", "on", "onion"]\n"n"', "2"), kind="functional")
    metadata = json.dumps({"func_name": "countTwice"})
    benchmark = load(
        tmp_path,
        row(1, public_test_cases=json.dumps(tests), private_test_cases="[]"),
        row(2, public_test_cases=json.dumps(calls), private_test_cases="[]", metadata=metadata),
    )
    assert verdicts(verifier, benchmark, [_STDIN_ANSWER])[0].passed
    assert verdicts(verifier, benchmark, [_CALL_ANSWER], at=1)[0].passed


def test_completions_are_read_as_code_or_as_answers() -> None:
    assert readings("x = 1\nprint(x)\n```\n\nPROBLEM\nNext")[0] == "x = 1\nprint(x)\n"
    assert readings("# a thought\nprint(1)")[0] == "# a thought\nprint(1)"
    assert readings("Sure:\n```python\nprint(1)\n```\nOutput:\n```\n1\n```")[0] == "print(1)"
    assert readings("<think>\n```python\nprint(0)\n```</think>```python\nprint(1)\n```")[0] == "print(1)"
    assert readings("First\n```python\nprint(0)\n```\nBetter\n```python\nprint(1)\n```")[0] == "print(1)"
    assert readings("### first\nprint(1)\n\n### Question\nYou are given n")[-1] == "### first\nprint(1)\n"
    assert readings("") == ("",)


def test_preamble_leaves_builtins_alone() -> None:
    scope: dict[str, Any] = {}
    exec(assemble(IMPORTS, "kept = (open, pow, compile, sum, max, abs, input, print)"), scope)
    assert scope["kept"] == (open, pow, compile, sum, max, abs, input, print)
    assert scope["math"].gcd is scope["gcd"] and scope["List"] and scope["inf"]


def test_stdin_tests_are_stdio_tests(tmp_path: Path) -> None:
    benchmark = load(tmp_path, row())
    assert isinstance(benchmark.program(benchmark.problems[0], "").tests[0], StdioTest)
