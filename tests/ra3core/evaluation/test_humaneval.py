from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from real_files import labelled, real

from ra3core.config import VerifierConfig
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
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


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["he.jsonl", "he.jsonl.gz"])
def test_the_official_format(tmp_path: Path, name: str) -> None:
    benchmark = benchmarks.load("humaneval", write(tmp_path / name, [PLAIN, LOOPED]))
    plain, looped = benchmark.problems
    assert benchmark.variant == "zero-shot completion, 2 tasks"
    assert benchmark.prompt(plain) == PLAIN["prompt"]
    assert [test.expected for test in plain.tests] == [4, 0]  # type: ignore[union-attr]
    assert looped.script is not None
    completions = [
        (plain, PLAIN["canonical_solution"], True),
        (plain, "    return x + x\n\nx = 3", True),
        (plain, "    return x + x\n\nprint(double(input()))\n", True),
        (plain, "Sure:\n```python\ndef double(x):\n    # twice\n    return x * 2\n```\nThat is all.", True),
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
        whole = [
            PLAIN["prompt"] + PLAIN["canonical_solution"],
            "double = lambda x: x + x",
            "def dbl(x):\n    return 2 * x",
        ]
        verdicts = verifier.judge(benchmark.solution(plain, text) for text in whole)
        assert [v.passed for v in verdicts] == [True, True, False]


def test_malformed_files(tmp_path: Path) -> None:
    for row in ({**PLAIN, "test": None}, {k: v for k, v in PLAIN.items() if k != "test"}):
        with pytest.raises(UserError, match=r"he\.jsonl: line 2 has no text in field 'test'"):
            benchmarks.load("humaneval", write(tmp_path / "he.jsonl", [LOOPED, row]))
    with pytest.raises(UserError, match="'HumanEval/900' occurs twice"):
        benchmarks.load("humaneval", write(tmp_path / "he.jsonl", [PLAIN, PLAIN]))


def test_every_real_reference_passes() -> None:
    benchmark = benchmarks.load("humaneval", real("HumanEval.jsonl.gz"))
    assert len(benchmark.problems) == 164
    assert sum(problem.script is not None for problem in benchmark.problems) == 7
    with Verifier(VerifierConfig(), 2) as verifier:
        verdicts = verifier.judge(benchmark.program(p, p.row["reference"]) for p in benchmark.problems)
    assert all(v.passed and not v.weak for v in verdicts)


@pytest.mark.slow
def test_real_programs_get_the_verdicts_they_deserve() -> None:
    benchmark = benchmarks.load("humaneval", real("HumanEval.jsonl.gz"))
    problems = {problem.id: problem for problem in benchmark.problems}
    rows = labelled("positives.jsonl") + labelled("negatives.jsonl")
    with Verifier(VerifierConfig(), 2) as verifier:
        verdicts = verifier.judge(benchmark.program(problems[row["task_id"]], row["completion"]) for row in rows)
    for row, verdict in zip(rows, verdicts, strict=True):
        assert verdict.passed == (row["expected"] == "pass"), row
