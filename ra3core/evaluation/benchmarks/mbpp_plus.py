"""MBPP+ (EvalPlus): 378 tasks of sanitized MBPP with some 40,000 more tests (evalplus.py beside this file).

    program = completion + newline          the prompt is a docstring: the sentence and one assert

The file's inputs are JSON, which has no tuples, sets and complex numbers. They are restored from its own `assertion`,
which holds the base inputs as Python literals, and from its `contract`, the asserts that inputs satisfy.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import evalplus, extraction
from ra3core.evaluation.benchmarks.base import Problem
from ra3core.evaluation.benchmarks.files import no_variants
from ra3core.evaluation.benchmarks.shapes import Shape
from ra3core.verifier import Check, Program
from ra3core.verifier.asserts import DRIVER, arguments

HUB_NAME, FILE_NAME = "evalplus/mbppplus", "MbppPlus-v0.2.0.jsonl.gz"
FIELDS = {**evalplus.FIELDS, "assertion": str, "contract": str}
STOP = (*evalplus.STOP, '\n"""', "\nassert")

# EvalPlus's own oracles, by task.
ANYTHING = ("Mbpp/164",)
AS_SETS = tuple(f"Mbpp/{i}" for i in (2, 7, 111, 140, 232, 249, 579, 769))
NOT_NONE = tuple(f"Mbpp/{i}" for i in (737, 787, 794))
COMBINATIONS_TASK, _MOST_ITEMS = "Mbpp/255", 1_000_000

# What the pairs of base inputs cannot tell, by task: as the official harness has it.
DEEP = ("Mbpp/580", "Mbpp/791")  # tuples at every depth, deeper than in the base inputs
SHALLOW = ("Mbpp/596",)  # the argument alone is a tuple, though the asserts have tuples inside it

_NOT_NONE_DRIVER = f"""
def {DRIVER}(*arguments):
    value = {{entry_point}}(*arguments)
    return value if value is True or value is False else value is not None
"""


def load(data: Path | None, variant: str) -> MBPPPlus:
    """From the official JSON lines, or from the hub if its data set holds inputs."""
    no_variants("mbpp-plus", variant)
    rows = evalplus.rows(data, HUB_NAME, FILE_NAME, FIELDS)
    problems = []
    for row in rows:
        given = inputs(row, f"{data or HUB_NAME}: task {row['task_id']!r}")
        problems.append(evalplus.problem(row, [each for each in given if not _huge(row["task_id"], each)]))
    return MBPPPlus(
        name="mbpp-plus",
        variant=f"zero-shot docstring prompt, {len(problems)} tasks, base and plus tests",
        problems=problems,
        stop=STOP,
        decoding=evalplus.DECODING,
    )


class MBPPPlus(evalplus.EvalPlus):
    """A completion is a whole program; the docstring ahead of it says nothing to Python and is left out."""

    def check(self, problem: Problem, arguments: tuple[Any, ...], expected: Any) -> Check:
        if problem.id in ANYTHING:
            return Check(arguments, expected, comparison="any")
        if problem.id in AS_SETS:
            return Check(arguments, set(expected), comparison="equal", view="set")
        check = super().check(problem, arguments, expected)
        if problem.id in ALTERNATIVES:
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # inputs that it is not defined for
                return replace(check, alternatives=(ALTERNATIVES[problem.id](*arguments),))
        return check

    def driver(self, problem: Problem) -> tuple[str, str]:
        if problem.id in NOT_NONE:  # match objects, which are no plain data
            return _NOT_NONE_DRIVER.format(entry_point=problem.entry_point), DRIVER
        return super().driver(problem)

    def program(self, problem: Problem, completion: str) -> Program:
        return self.judged(problem, extraction.of_completion("", completion, problem.entry_point, self.stop))

    def solution(self, problem: Problem, text: str) -> Program:
        return self.judged(problem, extraction.of_program(text, problem.entry_point, self.stop))


def inputs(row: Mapping[str, Any], where: str) -> list[tuple[Any, ...]]:
    """Base and plus inputs of a row as Python values.

    An argument of which the contract admits a list stays as JSON has it; one that it lets be complex is complex;
    the rest is as in the asserts. where: begins the message of the UserError for a row that does not fit together.
    """
    literals = arguments(row["assertion"], row["entry_point"])
    if literals is None or len(literals) != len(row["base_input"]):
        raise UserError(f"{where} has other calls in field 'assertion' than in 'base_input'")
    shapes: dict[int, Shape] = {}
    for given, literal in zip(row["base_input"], literals, strict=True):
        for number, pair in enumerate(zip(given, literal, strict=False)):
            shapes.setdefault(number, Shape(row["task_id"] in DEEP)).learn(*pair)
    admitted = [_admitted(row["contract"], name) for name in _parameters(row)]
    restored = []
    for given in [*row["base_input"], *row["plus_input"]]:
        values = []
        for number, value in enumerate(given):
            types = admitted[number] if number < len(admitted) else set()
            try:
                values.append(_restored(value, shapes.get(number, Shape()), types, row["task_id"] in SHALLOW))
            except (ValueError, TypeError) as error:
                raise UserError(f"{where} has an input unlike those in field 'assertion' ({error})") from error
        restored.append(tuple(values))
    return restored


def _restored(value: Any, shape: Shape, admitted: set[str], shallow: bool) -> Any:
    if "complex" in admitted:
        return complex(value)
    if {"list", "tuple"} <= admitted:
        return value
    return tuple(value) if shallow and tuple in shape.lists else shape.restore(value)


def _parameters(row: Mapping[str, Any]) -> list[str]:
    """The parameters' names of the reference's entry point."""
    signature = re.search(rf"def +{re.escape(row['entry_point'])} *\(([^)]*)\)", row["canonical_solution"])
    return [part.split(":")[0].split("=")[0].strip() for part in signature[1].split(",")] if signature else []


def _admitted(contract: str, name: str) -> set[str]:
    """The types that ``isinstance(name, ...)`` in the contract lists."""
    found = re.search(rf"isinstance\( *{re.escape(name)} *, *\(?([\w, ]*)\)?\)", contract)
    return {kind.strip() for kind in found[1].split(",")} if found else set()


def _huge(task: str, given: tuple[Any, ...]) -> bool:
    """Whether the answer has millions of items, up to a gigabyte: five plus inputs of one task."""
    if task != COMBINATIONS_TASK:
        return False
    items, length = given
    return min(len(items), length) > 0 and math.comb(len(items) + length - 1, length) * length > _MOST_ITEMS


def _padded_distance(first: int, second: int) -> int:
    """The sum of the digits' differences, the shorter number filled with zeros."""
    one, other = str(first), str(second)
    width = max(len(one), len(other))
    return sum(abs(int(a) - int(b)) for a, b in zip(one.zfill(width), other.zfill(width), strict=True))


def _pyramid_surface(base: float, height: float) -> int:
    """The surface when `height` is the pyramid's own, not that of its sides."""
    return round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))


ALTERNATIVES: Mapping[str, Callable[..., Any]] = {
    "Mbpp/295": lambda number: 0,
    "Mbpp/558": _padded_distance,
    "Mbpp/581": _pyramid_surface,
}
"""Tasks that EvalPlus gives a second right answer."""
