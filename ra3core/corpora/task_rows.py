"""Rows of task sets with unit tests: what each public shape calls its question, tests and solutions.

    apps          question, input_output (inputs, outputs, fn_name), solutions, starter_code: APPS and TACO
    codecontests  description, public_tests / private_tests / generated_tests (input, output), solutions by language
    gym           responses_create_params.input, verifier_metadata.unit_tests: NeMo-Gym; no solutions
    kodcode       instruction or question, response or solution, test_code or test: functions named test_* with asserts
    mbpp          text or prompt, code, test_list, test_setup_code or test_imports: lines of asserts
    humaneval     prompt, entry_point, test, canonical_solution: a function check(candidate)
    plain         prompt, entry_point, tests (arguments and expected, or input and output), solution: one's own

Nothing here runs or judges anything: tests stay as the row has them (ra3core/evaluation/task_sets.py makes them tests).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ra3core.errors import UserError
from ra3core.task_set import Format

Row = Mapping[str, Any]

PYTHON3 = 3
"""CodeContests' number of the language."""

_INSTRUCTIONS = re.compile(r"\A.*?```python\n# Your code here\n```\s*", re.DOTALL)  # how to answer, ahead of NeMo-Gym's


@dataclass(frozen=True)
class TaskRow:
    """A task as its set has it.

    question: the statement. prompt: what a program begins with, where the set has it (HumanEval's signature and
    docstring). starter: code that the answer goes on with. entry_point: what the tests call; "" for a script, and where
    it has to be read from tests and solution. pairs: inputs and outputs, parallel lists; texts or lists of lines for a
    script, lists of arguments for a function. wrapped: a list of one element in the outputs may stand for the element
    (APPS). asserts: test code. imports, setup: code that it needs. shown: what the prompt tells about what is called.
    functions: the asserts stand in functions named test_*. references: whole programs.
    """

    id: str
    question: str
    prompt: str = ""
    starter: str = ""
    entry_point: str = ""
    pairs: Mapping[str, list[Any]] | None = None
    wrapped: bool = False
    asserts: str = ""
    imports: tuple[str, ...] = ()
    setup: str = ""
    shown: str = ""
    functions: bool = False
    references: tuple[str, ...] = ()


class Malformed(Exception):
    """A row that is not of its format; the message says how."""


def detect(row: Row, where: str) -> Format:
    """The format of a set by the fields of its first row. Raises UserError when it is none."""
    fields = set(row)
    for name, (required, _) in _FORMATS.items():
        if all(fields.intersection(alternatives) for alternatives in required):
            return name
    expected = ", ".join(f"{name} ({needs(name)})" for name in _FORMATS)
    raise UserError(f"{where} has the fields {', '.join(sorted(fields)) or 'none'}, expected those of {expected}")


def needs(format: Format) -> str:
    """The fields of a format, in words."""
    return ", ".join(" or ".join(alternatives) for alternatives in _FORMATS[format][0])


def parse(row: Row, format: Format, where: str) -> TaskRow:
    """A row of that format. where: becomes the id of a row without one. Raises Malformed."""
    required, read = _FORMATS[format]
    for alternatives in required:
        if not any(name in row for name in alternatives):
            raise Malformed(f"no field {' or '.join(alternatives)}")
    return read(row, where)


def _apps(row: Row, where: str) -> TaskRow:
    pairs = _json(row, "input_output")
    if not isinstance(pairs, dict):
        raise Malformed("field 'input_output' is no object of inputs and outputs")
    solutions = _json(row, "solutions") if row.get("solutions") else []
    name = pairs.get("fn_name") or ""
    if not isinstance(name, str) or (name and not name.isidentifier()):
        raise Malformed(f"fn_name is {name!r}, expected a function's name")
    return TaskRow(
        _id(row, where, "problem_id", "id", "name"),
        _text(row, "question"),
        starter=str(row.get("starter_code") or ""),
        entry_point=name,
        pairs=_parallel(pairs.get("inputs"), pairs.get("outputs")),
        wrapped=True,
        references=_texts(solutions, "solutions"),
    )


def _codecontests(row: Row, where: str) -> TaskRow:
    inputs: list[Any] = []
    outputs: list[Any] = []
    if row.get("input_file") or row.get("output_file"):
        raise Malformed("reads or writes files instead of standard input and output")
    for name in ("public_tests", "private_tests", "generated_tests"):
        tests = row.get(name) or {}
        if isinstance(tests, list):  # objects instead of columns
            tests = {part: [test.get(part) for test in tests] for part in ("input", "output")}
        inputs += tests.get("input") or []
        outputs += tests.get("output") or []
    found = row["solutions"] or {}
    if isinstance(found, list):
        found = {part: [one.get(part) for one in found] for part in ("language", "solution")}
    written = zip(found.get("language") or [], found.get("solution") or [], strict=True)
    solutions = [text for language, text in written if language in (PYTHON3, "PYTHON3")]
    return TaskRow(
        _id(row, where, "name"),
        _text(row, "description"),
        pairs=_parallel(inputs, outputs),
        references=_texts(solutions, "solutions"),
    )


def _gym(row: Row, where: str) -> TaskRow:
    parameters, tests = _json(row, "responses_create_params"), _json(row, "verifier_metadata")
    asked = parameters.get("input") if isinstance(parameters, dict) else None
    if isinstance(asked, list):
        asked = "\n\n".join(_text(message, "content") for message in asked)
    if not isinstance(asked, str):
        raise Malformed("no text or messages in field 'responses_create_params.input'")
    pairs = tests.get("unit_tests") if isinstance(tests, dict) else None
    if not isinstance(pairs, dict):
        raise Malformed("no inputs and outputs in field 'verifier_metadata.unit_tests'")
    question = _INSTRUCTIONS.sub("", asked)
    return TaskRow(_id(row, where, "hash_id"), question, pairs=_parallel(pairs.get("inputs"), pairs.get("outputs")))


def _kodcode(row: Row, where: str) -> TaskRow:
    return TaskRow(
        _id(row, where, "question_id"),
        _text(row, "instruction", "question"),
        asserts=_text(row, "test_code", "test"),
        functions=True,
        references=(_text(row, "response", "solution"),),
    )


def _mbpp(row: Row, where: str) -> TaskRow:
    tests = _texts(_json(row, "test_list"), "test_list")
    imports = _texts(_json(row, "test_imports"), "test_imports") if row.get("test_imports") else ()
    if not tests:
        raise Malformed("field 'test_list' is empty")
    return TaskRow(
        _id(row, where, "task_id"),
        _text(row, "text", "prompt"),
        asserts="\n".join(tests),
        imports=imports,
        setup=str(row.get("test_setup_code") or ""),
        shown=tests[0],
        references=(_text(row, "code"),),
    )


def _humaneval(row: Row, where: str) -> TaskRow:
    prompt, entry_point = _text(row, "prompt"), _text(row, "entry_point")
    solution = row.get("canonical_solution")
    return TaskRow(
        _id(row, where, "task_id"),
        prompt,
        prompt=prompt,
        entry_point=entry_point,
        setup=prompt,
        asserts=f"{_text(row, 'test')}\ncheck({entry_point})\n",
        references=(prompt + solution,) if isinstance(solution, str) and solution.strip() else (),
    )


def _plain(row: Row, where: str) -> TaskRow:
    tests, name = _json(row, "tests"), row.get("entry_point") or ""
    parts = ("arguments", "expected") if name else ("input", "output")
    if not isinstance(tests, list) or not all(isinstance(test, dict) and set(parts) <= set(test) for test in tests):
        raise Malformed(f"field 'tests' is no list of objects with {' and '.join(parts)}")
    inputs, outputs = ([test[part] for test in tests] for part in parts)
    solution = row.get("solution")
    return TaskRow(
        _id(row, where, "id"),
        _text(row, "prompt"),
        prompt=_text(row, "prompt") if name else "",
        entry_point=str(name),
        pairs=_parallel(inputs, outputs),
        references=(solution,) if isinstance(solution, str) and solution.strip() else (),
    )


_FORMATS: dict[Format, tuple[tuple[tuple[str, ...], ...], Callable[[Row, str], TaskRow]]] = {
    "apps": ((("question",), ("input_output",)), _apps),
    "codecontests": (
        (("description",), ("public_tests", "private_tests", "generated_tests"), ("solutions",)),
        _codecontests,
    ),
    "gym": ((("responses_create_params",), ("verifier_metadata",)), _gym),
    "mbpp": ((("text", "prompt"), ("code",), ("test_list",)), _mbpp),
    "humaneval": ((("prompt",), ("entry_point",), ("test",)), _humaneval),
    "kodcode": ((("instruction", "question"), ("response", "solution"), ("test_code", "test")), _kodcode),
    "plain": ((("prompt",), ("tests",)), _plain),
}
"""What each has, alternatives in brackets, and its reader. The first that fits is taken: particular shapes first."""


def _id(row: Row, where: str, *names: str) -> str:
    found = next((row[name] for name in names if isinstance(row.get(name), str | int) and row[name] != ""), where)
    return str(found)


def _text(row: Row, *names: str) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
    raise Malformed(f"no text in field {' or '.join(map(repr, names))}")


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"field {name!r} is no list of texts")
    return tuple(item for item in value if item.strip())


def _json(row: Row, name: str) -> Any:
    """A field that holds JSON, or what it stands for."""
    value = row.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"field {name!r} is not JSON ({error})") from error


def _parallel(inputs: Any, outputs: Any) -> dict[str, list[Any]]:
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise Malformed("inputs and outputs are no lists of one length")
    return {"inputs": inputs, "outputs": outputs}
