"""Two more formats of contest tasks, for the grader of ra3core/evaluation/benchmarks/codeforces.py.

APPS (Hendrycks et al. 2021): a folder of problem folders, each with question.txt, input_output.json (inputs, outputs,
for functions fn_name), and maybe solutions.json and starter_code.py. A function's answer is right when it equals the
expected output, or the one element of an expected list; tuples count as lists. The official harness also takes the
first of several elements, and compares what is printed more loosely (as sets of rounded numbers): not done here.

NeMo-Gym: JSON lines with responses_create_params.input (the messages), verifier_metadata.unit_tests (inputs, outputs)
and hash_id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks.base import Problem
from ra3core.evaluation.benchmarks.contest import cpu_seconds, memory_mb, one_shot, question
from ra3core.evaluation.benchmarks.files import read_jsonl
from ra3core.verifier import Check, StdioTest

QUESTION, TESTS, SOLUTIONS, STARTER = "question.txt", "input_output.json", "solutions.json", "starter_code.py"
_LIMIT = cpu_seconds(None)
_MEMORY = memory_mb(None)


def read_folder(folder: Path) -> tuple[list[Problem], str]:
    """APPS problems in the order of their names, and the variant in words. Reference solutions are in row["solutions"].

    Raises UserError for a folder without problems and, naming the file, for one that is malformed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, expected one of problem folders with {QUESTION}")
    found = sorted(path.parent for path in folder.glob(f"*/{QUESTION}"))
    with_tests = [path for path in found if (path / TESTS).is_file()]
    problems = [problem for path in with_tests if (problem := _problem(path))]
    if not problems:
        raise UserError(f"{folder}: no folder with {QUESTION} and {TESTS}, expected at least one")
    missing = len(found) - len(problems)
    left_out = f", left out {missing} without tests" if missing else ""
    return problems, f"APPS, {folder.name}, {len(problems)} problems{left_out}, 1-shot"


def read_gym(path: Path) -> tuple[list[Problem], str]:
    """NeMo-Gym problems, and the variant in words. Raises UserError, naming the problem, for malformed data."""
    problems = []
    for row in read_jsonl(path, {"responses_create_params": dict, "verifier_metadata": dict, "hash_id": str}):
        where = f"{path}: {row['hash_id']}"
        text = _messages(row["responses_create_params"].get("input"), where)
        unit_tests = row["verifier_metadata"].get("unit_tests")
        tests = stdio(unit_tests, f"{where}, field 'verifier_metadata.unit_tests'")
        if not tests:
            raise UserError(f"{where} has no test in field 'verifier_metadata.unit_tests', expected at least one")
        asked = question(text)
        extra = {"question": text, "memory_mb": _MEMORY, "source": row.get("source")}
        problems.append(Problem(row["hash_id"], one_shot(asked, False), tests=tests, row=extra))
    if not problems:
        raise UserError(f"{path}: no tasks, expected at least one")
    return problems, f"NeMo-Gym, {path.name}, {len(problems)} problems, 1-shot"


def _problem(folder: Path) -> Problem | None:
    """None when there are no tests."""
    path = folder / TESTS
    pairs = _json(path)
    name = pairs.get("fn_name") if isinstance(pairs, dict) else None
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise UserError(f"{path} has {name!r} in field 'fn_name', expected a function's name")
    tests = calls(pairs, str(path)) if name else stdio(pairs, str(path))
    if not tests:
        return None
    starter = _text(folder / STARTER) if (folder / STARTER).is_file() else ""
    solutions = _json(folder / SOLUTIONS) if (folder / SOLUTIONS).is_file() else []
    if name and not starter.strip():
        starter = f"def {name}(*arguments):"
    asked = question(_text(folder / QUESTION), starter if name else "")
    extra = {"question": asked, "memory_mb": _MEMORY, "solutions": solutions}
    return Problem(folder.name, one_shot(asked, bool(name)), name or "", tests, row=extra)


def stdio(pairs: Any, where: str) -> tuple[StdioTest, ...]:
    """Tests of a script; inputs and outputs are texts, or lists of lines. Raises UserError that begins with `where`."""
    return tuple(
        StdioTest(_lines(given, where), _lines(expected, where), lines=False, cpu_seconds=_LIMIT)
        for given, expected in _zipped(pairs, where)
    )


def _lines(value: Any, where: str) -> str:
    if isinstance(value, list):
        return "\n".join(_lines(line, where) for line in value)
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UserError(f"{where} has an input or output that is no text, expected texts or lists of lines")
    return str(value)


def calls(pairs: Any, where: str, wrapped: bool = True) -> tuple[Check, ...]:
    """Tests of a function; inputs are lists of arguments. wrapped: a list of one element may stand for the element.

    Raises UserError that begins with `where`.
    """
    tests = []
    for given, expected in _zipped(pairs, where):
        if not isinstance(given, list):
            raise UserError(f"{where} has an input that is no list, expected a list of arguments a call")
        alternatives = _as_good(expected, wrapped)
        arguments = tuple(_with_numbers(value) for value in given)
        tests.append(
            Check(arguments, alternatives[0], comparison="equal", alternatives=alternatives[1:], cpu_seconds=_LIMIT)
        )
    return tuple(tests)


def _as_good(expected: Any, wrapped: bool = True) -> tuple[Any, ...]:
    """What a function may return where the file says `expected`; never empty.

    A one-element list may stand for its element. Lists may be tuples, and so may the elements of the wrapped one.
    """
    values = [expected]
    if wrapped and isinstance(expected, list) and len(expected) == 1:
        values.append(expected[0])
        if isinstance(expected[0], list) and all(isinstance(item, list) for item in expected[0]):
            values.append([tuple(item) for item in expected[0]])
    values = [_with_numbers(value) for value in values]
    return (*values, *(tuple(value) for value in values if isinstance(value, list)))


def _with_numbers(value: Any) -> Any:
    """JSON's keys are texts: those of an object whose keys are all numbers were numbers."""
    if not isinstance(value, dict) or not value:
        return value
    try:
        return {int(key): item for key, item in value.items()}
    except ValueError:
        return value


def _zipped(pairs: Any, where: str) -> list[tuple[Any, Any]]:
    if not isinstance(pairs, Mapping) or not all(isinstance(pairs.get(name), list) for name in ("inputs", "outputs")):
        raise UserError(f"{where} has no lists inputs and outputs")
    if len(pairs["inputs"]) != len(pairs["outputs"]):
        raise UserError(f"{where} has {len(pairs['inputs'])} inputs and {len(pairs['outputs'])} outputs")
    return list(zip(pairs["inputs"], pairs["outputs"], strict=True))


def _messages(value: Any, where: str) -> str:
    """The texts of a list of chat messages, or the one text."""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in value)
    ):
        return "\n\n".join(message["content"] for message in value)
    raise UserError(f"{where} has no text or messages in field 'responses_create_params.input'")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable text ({error})") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
