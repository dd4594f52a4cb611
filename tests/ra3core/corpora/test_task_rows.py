"""Rows of every shape become the same kind of task row; what is malformed says how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ra3core.corpora.task_rows import Malformed, detect, parse
from ra3core.errors import UserError

ROWS: dict[str, dict[str, Any]] = {
    "apps": {
        "problem_id": 7,
        "question": "Add.",
        "solutions": json.dumps(["print(sum(map(int, input().split())))", " "]),
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        "starter_code": "",
    },
    "codecontests": {
        "name": "add",
        "description": "Add.",
        "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
        "private_tests": {"input": [], "output": []},
        "generated_tests": {"input": ["4 4\n"], "output": ["8\n"]},
        "solutions": {"language": [2, 3], "solution": ["int main() {}", "print(sum(map(int, input().split())))"]},
    },
    "gym": {
        "responses_create_params": {
            "input": [{"role": "user", "content": "Think.\n```python\n# Your code here\n```\n\nAdd."}]
        },
        "verifier_metadata": {"unit_tests": {"inputs": ["1 2\n"], "outputs": ["3\n"]}},
        "hash_id": "abc",
    },
    "kodcode": {
        "question_id": "K1",
        "question": "Add.",
        "solution": "def add(a, b):\n    return a + b\n",
        "test": "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
    },
    "mbpp": {
        "task_id": 11,
        "text": "Add.",
        "code": "def add(a, b):\n    return a + b\n",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
        "test_setup_code": "",
    },
    "humaneval": {
        "task_id": "H/0",
        "prompt": 'def add(a, b):\n    """Add."""\n',
        "entry_point": "add",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
        "canonical_solution": "    return a + b\n",
    },
    "plain": {
        "id": "p",
        "prompt": 'def add(a, b):\n    """Add."""',
        "entry_point": "add",
        "tests": [{"arguments": [1, 2], "expected": 3}],
        "solution": "def add(a, b):\n    return a + b\n",
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_a_shape_is_known_by_its_fields(name: str) -> None:
    assert detect(ROWS[name], "set:1") == name
    row = parse(ROWS[name], name, "set:1")  # type: ignore[arg-type]
    assert row.id in ("7", "add", "abc", "K1", "11", "H/0", "p") and "Add." in row.question
    assert "Think" not in row.question  # NeMo-Gym's way of asking for an answer
    assert (row.pairs is None) == (name in ("kodcode", "mbpp", "humaneval"))
    assert len(row.references) == (name != "gym")


def test_what_the_shapes_hold() -> None:
    contests = parse(ROWS["codecontests"], "codecontests", "")
    assert contests.pairs == {"inputs": ["1 2\n", "4 4\n"], "outputs": ["3\n", "8\n"]}
    assert contests.references == ("print(sum(map(int, input().split())))",)  # the one in Python 3
    assert parse(ROWS["humaneval"], "humaneval", "").references[0].endswith('"""\n    return a + b\n')
    assert parse({**ROWS["apps"], "problem_id": None}, "apps", "set:9").id == "set:9"
    script = {"prompt": "Add.", "tests": [{"input": "1", "output": "1"}]}
    assert parse(script, "plain", "x").pairs == {"inputs": ["1"], "outputs": ["1"]}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("apps", {"input_output": "{"}, "field 'input_output' is not JSON"),
        ("apps", {"input_output": '{"inputs": ["1"], "outputs": []}'}, "no lists of one length"),
        ("apps", {"question": " "}, "no text in field 'question'"),
        ("apps", {"solutions": "[1]"}, "'solutions' is no list of texts"),
        ("codecontests", {"input_file": "in.txt"}, "files instead of standard input"),
        ("gym", {"verifier_metadata": {}}, "'verifier_metadata.unit_tests'"),
        ("mbpp", {"test_list": []}, "'test_list' is empty"),
        ("plain", {"tests": [{"input": ""}]}, "arguments and expected"),
    ],
)
def test_malformed_rows_say_how(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse({**ROWS[name], **changes}, name, "set:1")  # type: ignore[arg-type]


def test_rows_of_no_shape_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^set:1 has the fields a, b, expected those of apps \(question, "):
        detect({"a": 1, "b": 2}, "set:1")
