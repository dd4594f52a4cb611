from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from real_files import failing_references, labelled, real

from ra3core.config import VerifierConfig
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.verifier import Verifier


def row(task: int, code: str, *tests: str, **more: Any) -> dict[str, Any]:
    return {
        "task_id": task,
        "text": f"Task {task}.",
        "code": code,
        "test_list": list(tests),
        "test_setup_code": "",
        "challenge_test_list": ["assert False"],
        **more,
    }


DOUBLE = row(11, "def double(x):\r\n  return 2 * x", "assert double(2) == 4", "assert double(0) == 0")
FOUND = row(12, "import re\ndef found(x):\n  return re.search('a', x)", "assert found('a')", "assert not found('b')")
NODE = row(
    13,
    "class Node:\n  def __init__(self, value):\n    self.value = value\ndef peek(node):\n  return node.value",
    "assert (peek(root)) == 3 ",
    test_setup_code="root = Node(3)",
)
WITHOUT = row(
    14,
    "def without(xs, kind):\n  return [x for x in xs if type(x) is not kind]",
    "assert without([1, 'a'], int) == ['a']",
)
SIZED = row(15, "import sys\ndef size(x):\n  return sys.getsizeof(x)", "assert size((1,)) == sys.getsizeof((1,))")
EXAMPLES = [row(i, f"def f{i}(x):\r\n  return x", f"assert f{i}(1) == 1", f"assert f{i}(2) == 2") for i in (2, 3, 4)]
TRAIN = row(700, "def late(x):\n  return x", "assert late(1) == 1")
ROWS = [*EXAMPLES, DOUBLE, FOUND, NODE, WITHOUT, SIZED, TRAIN]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(each) + "\n" for each in rows))
    return path


def test_variants_ask_what_they_say(tmp_path: Path) -> None:
    data = write(tmp_path / "mbpp.jsonl", ROWS)
    zero, shots, every = (benchmarks.load(f"mbpp{v}", data) for v in ("", ":3-shot", ":all"))
    assert [p.id for p in zero.problems] == [p.id for p in shots.problems] == ["11", "12", "13", "14", "15"]
    assert [p.id for p in zero.others] == ["2", "3", "4", "700"]
    assert (len(every.problems), len(every.others)) == (9, 0)
    assert zero.variant == "zero-shot docstring prompt, 5 test tasks (ids 11 to 510)"
    assert shots.variant == "3-shot (tasks 2, 3, 4), 5 test tasks (ids 11 to 510)"
    assert every.variant == "zero-shot docstring prompt, 9 tasks of all splits"
    assert zero.prompt(zero.problems[0]) == '"""\nTask 11.\nassert double(2) == 4\n"""\n'
    prompt = shots.prompt(shots.problems[0])
    assert prompt.startswith(
        "You are an expert Python programmer, and here is your task: Task 2. Your code should pass these tests:\n\n"
        "assert f2(1) == 1\nassert f2(2) == 2\n[BEGIN]\ndef f2(x):\n  return x\n[DONE]\n\nYou are an expert"
    )
    assert prompt.endswith(
        "here is your task: Task 11. Your code should pass these tests:\n\n"
        "assert double(2) == 4\nassert double(0) == 0\n[BEGIN]\n"
    )
    assert prompt.count("[DONE]") == 3
    assert shots.stop == ("[DONE]",)


def test_the_sanitized_file(tmp_path: Path) -> None:
    sanitized = {k: v for k, v in DOUBLE.items() if k not in ("text", "test_setup_code")}
    close = "assert math.isclose(double(1), 2, rel_tol=0.1)"
    sanitized |= {"prompt": "Double it.", "test_imports": ["import math"], "test_list": [close]}
    data = write(tmp_path / "sanitized-mbpp.json", [sanitized])
    benchmark = benchmarks.load("mbpp:sanitized", data)
    (problem,) = benchmark.problems
    assert benchmark.variant == "zero-shot docstring prompt, 1 sanitized tasks"
    assert problem.prompt == f'"""\nDouble it.\n{close}\n"""\n'
    with Verifier(VerifierConfig()) as verifier:
        verdicts = verifier.judge(
            benchmark.program(problem, f"def double(x):\n    return {value}\n") for value in ("2.1 * x", "3 * x")
        )
    assert [v.passed for v in verdicts] == [True, False]
    with pytest.raises(UserError, match="row 1 has no text in field 'text'"):
        benchmarks.load("mbpp", data)
    with pytest.raises(UserError, match="line 1 has no text in field 'prompt'"):
        benchmarks.load("mbpp:sanitized", write(tmp_path / "mbpp.jsonl", ROWS))


def test_right_programs_pass_and_wrong_ones_fail_none_weakly(tmp_path: Path) -> None:
    benchmark = benchmarks.load("mbpp:3-shot", write(tmp_path / "mbpp.jsonl", ROWS))
    double, found, node, without, sized = benchmark.problems
    node_class = NODE["code"].split("def")[0] + "def" + NODE["code"].split("def")[1]
    programs = [
        (double, "def double(x):\n    return x + x\n[DONE]\n\nYou are an expert", True),
        (double, "[BEGIN]\ndef double(x):\n    return x + x\n[DONE]", True),
        (
            double,
            "def helper(x):\n    return x\n\ndef double(x):\n    return helper(x) + x\n\nprint(double(input()))",
            True,
        ),
        (double, "def double(x):\n    return x", False),
        (found, FOUND["code"], True),
        (found, "def found(x):\n    return [x] if 'a' in x else []", True),
        (found, "def found(x):\n    return object()", False),
        (found, "def found(x):\n    return None", False),
        (node, NODE["code"], True),
        (node, node_class + "def peek(node):\n    return 4\n", False),
        (node, "def peek(node):\n    return 3\n", False),  # as officially: it has to define Node
        (without, WITHOUT["code"], True),
        (without, "def without(xs, kind):\n    return xs", False),
        (sized, SIZED["code"], True),
        (sized, "def size(x):\n    return 1", False),
    ]
    with Verifier(VerifierConfig()) as verifier:
        verdicts = verifier.judge(benchmark.program(problem, text) for problem, text, _ in programs)
        assert not failing_references(verifier, benchmark, [*benchmark.problems, *benchmark.others])
    assert [v.passed for v in verdicts] == [right for _, _, right in programs], [v.detail for v in verdicts]
    assert not any(v.weak for v in verdicts)


def test_the_programs_that_are_driven_never_see_what_is_expected(tmp_path: Path) -> None:
    benchmark = benchmarks.load("mbpp", write(tmp_path / "mbpp.jsonl", ROWS))
    for problem in benchmark.problems[1:4]:
        program = benchmark.solution(problem, "pass")
        assert program.source != "pass\n"
        assert "==" not in program.source
        assert program.entry_point != problem.entry_point


@pytest.mark.parametrize(
    ("rows", "variant", "message"),
    [
        ([{**DOUBLE, "task_id": "11"}], "", "line 1 has no integer in field 'task_id'"),
        ([{**DOUBLE, "test_list": "assert"}], "", "line 1 has no list in field 'test_list'"),
        ([{**DOUBLE, "test_list": [1]}], "", "task 11: field 'test_list'"),
        ([{**DOUBLE, "test_list": []}], "", "task 11: field 'test_list'"),
        (
            [{**DOUBLE, "test_list": ["assert other(2) == 4"]}],
            "",
            "task 11: the first of 'test_list' calls no function",
        ),
        ([{**DOUBLE, "code": "def"}], "", "task 11: field 'code' or 'test_list' is not Python"),
        ([DOUBLE, DOUBLE], "", "task_id 11 occurs twice"),
        ([TRAIN], "", "no tasks with ids 11 to 510"),
        ([DOUBLE], ":3-shot", "no task 2, expected tasks 2, 3 and 4"),
    ],
)
def test_malformed_files(tmp_path: Path, rows: list[dict[str, Any]], variant: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        benchmarks.load(f"mbpp{variant}", write(tmp_path / "mbpp.jsonl", rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "name", "count"), [("all", "mbpp.jsonl.gz", 974), ("sanitized", "sanitized-mbpp.json", 427)]
)
def test_every_real_reference_passes(variant: str, name: str, count: int) -> None:
    benchmark = benchmarks.load(f"mbpp:{variant}", real(name))
    assert len(benchmark.problems) == count
    with Verifier(VerifierConfig(), 2) as verifier:
        assert not failing_references(verifier, benchmark, benchmark.problems)


@pytest.mark.slow
def test_real_programs_get_the_verdicts_they_deserve() -> None:
    benchmark = benchmarks.load("mbpp", real("mbpp.jsonl.gz"))
    assert (len(benchmark.problems), len(benchmark.others)) == (500, 474)
    problems = {problem.id: problem for problem in (*benchmark.problems, *benchmark.others)}
    rows = labelled("positives_mbpp.jsonl") + labelled("negatives_mbpp.jsonl")
    with Verifier(VerifierConfig(), 2) as verifier:
        verdicts = verifier.judge(benchmark.solution(problems[str(r["task_id"])], r["program"]) for r in rows)
    for each, verdict in zip(rows, verdicts, strict=True):
        assert verdict.passed == (each["expected"] == "pass"), each
