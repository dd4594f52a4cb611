from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Task, Test, write_tasks
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks.humaneval import STOP, HumanEval
from ra3core.verifier import Verifier

PLAIN = {
    "task_id": "HumanEval/900",
    "prompt": 'def double(x):\n    """ Twice x """\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n",
}
LOOPED = {
    "task_id": "HumanEval/901",
    "prompt": 'def helper(x):\n    return x + 1\n\n\ndef undo(x):\n    """ The inverse of helper """\n',
    "entry_point": "undo",
    "canonical_solution": "    return x - 1\n",
    "test": "def check(candidate):\n    for x in range(9):\n        assert candidate(helper(x)) == x\n",
}


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["he.jsonl", "he.jsonl.gz"])
def test_humaneval_in_its_official_format(tmp_path: Path, name: str) -> None:
    benchmark = benchmarks.load("humaneval", write(tmp_path / name, [PLAIN, LOOPED]))
    plain, looped = benchmark.problems
    assert benchmark.prompt(plain) == PLAIN["prompt"]
    assert [test.expected for test in plain.tests] == [4, 0]
    assert looped.script is not None
    completions = [
        (plain, PLAIN["canonical_solution"], True),
        (plain, "    return x + x\n\nx = 3", True),
        (plain, "    return 2", False),
        (plain, "", False),
        (looped, LOOPED["canonical_solution"], True),
        (looped, "    return x", False),
        (looped, "    return 0\n\ndef helper(x):\n    return 0\n", False),
    ]
    with Verifier(VerifierConfig()) as verifier:
        verdicts = verifier.judge(benchmark.program(problem, text) for problem, text, _ in completions)
    assert [v.passed for v in verdicts] == [right for _, _, right in completions]
    assert not any(v.weak for v in verdicts)


def test_no_stop_sequence_cuts_a_comment() -> None:
    assert not any("\n#".startswith(stop) or stop.startswith("\n#") for stop in STOP)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(PLAIN) + "\n{broken\n", "line 2 is not JSON"),
        (json.dumps(PLAIN) + "\n\n[1]\n", "line 3 is not a JSON object"),
        (json.dumps({**PLAIN, "test": None}) + "\n", "line 1 has no text in field 'test'"),
        (json.dumps({k: v for k, v in PLAIN.items() if k != "prompt"}) + "\n", "field 'prompt'"),
        ((json.dumps(PLAIN) + "\n") * 2, "occurs twice"),
        ("\n", "no tasks"),
    ],
)
def test_malformed_files_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "he.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        HumanEval.load(path)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        HumanEval.load(tmp_path / "none.jsonl")
    damaged = tmp_path / "he.jsonl.gz"
    damaged.write_bytes(b"not gzip")
    with pytest.raises(UserError, match="not a readable file"):
        HumanEval.load(damaged)
    with pytest.raises(UserError, match="expected one of embedded, humaneval"):
        benchmarks.load("humanevil")
    with pytest.raises(UserError, match="expected the folder"):
        benchmarks.load("embedded")


def test_embedded_tasks_are_judged_strictly(tmp_path: Path) -> None:
    task = Task("t", 'def f(a):\n    """Add."""', "f", (Test(([1],), [2]),), steps=2)
    write_tasks([task], tmp_path / "evaluation_tasks.parquet")
    benchmark = benchmarks.load("embedded", tmp_path)
    (problem,) = benchmark.problems
    assert (problem.id, problem.steps) == ("t", 2)
    bodies = ["\n    # add one\n    return [x + 1 for x in a]\n", "\n    return [x + 1.0 for x in a]\n"]
    with Verifier(VerifierConfig()) as verifier:
        verdicts = verifier.judge(benchmark.program(problem, body) for body in bodies)
    assert [v.passed for v in verdicts] == [True, False]
