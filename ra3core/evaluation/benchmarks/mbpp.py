"""MBPP (Austin et al. 2021): short functions from one sentence and three asserts.

    program = completion + newline + the asserts of test_list

Rows of mbpp.jsonl: task_id (a number), text, code, test_list, test_setup_code, challenge_test_list; those of
sanitized-mbpp.json have prompt for text and test_imports for the setup. Challenge tests are not used in grading.
Variants, which are not comparable with one another:

    (none)      zero-shot, the sentence and the first assert in a docstring, the 500 test tasks (ids 11 to 510)
    3-shot      Google's prompt with tasks 2, 3 and 4 as examples, [BEGIN] and [DONE] around programs, the same tasks
    sanitized   zero-shot, the 427 tasks of sanitized-mbpp.json
    all         zero-shot, all 974 tasks
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import extraction
from ra3core.evaluation.benchmarks.base import Benchmark, Decoding, Problem
from ra3core.evaluation.benchmarks.files import read_hub, read_rows, unique
from ra3core.verifier import Check, Program, Script, StdioTest
from ra3core.verifier.asserts import DRIVER, convert, driven, parse

HUB_NAME = "google-research-datasets/mbpp"
HUB_SPLITS = ("prompt", "test", "validation", "train")
VARIANTS = ("", "3-shot", "sanitized", "all")
TEST_IDS = range(11, 511)
EXAMPLE_IDS = (2, 3, 4)
STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
BEGIN, DONE = "[BEGIN]", "[DONE]"
CPU_SECONDS = 20.0  # task 123's own reference takes about 7

_COMMON = {"task_id": int, "code": str, "test_list": list}
FIELDS = {**_COMMON, "text": str, "test_setup_code": str}
SANITIZED_FIELDS = {**_COMMON, "prompt": str, "test_imports": list}


def load(data: Path | None, variant: str) -> MBPP:
    """From mbpp.jsonl, for the variant `sanitized` from sanitized-mbpp.json, or from the hub."""
    if variant not in VARIANTS:
        raise UserError(f"benchmark mbpp:{variant}: expected one of {', '.join(VARIANTS[1:])}, or mbpp alone")
    sanitized = variant == "sanitized"
    fields = SANITIZED_FIELDS if sanitized else FIELDS
    if data is None:
        rows = read_hub(HUB_NAME, fields, "sanitized" if sanitized else "full", HUB_SPLITS)
    else:
        rows = read_rows(data, fields)
    source = data or HUB_NAME
    unique((row["task_id"] for row in rows), source)
    examples = _examples(rows, source) if variant == "3-shot" else ""
    problems = [_problem(row, examples, f"{source}: task {row['task_id']}") for row in rows]
    asked = [p for p in problems if variant in ("sanitized", "all") or int(p.id) in TEST_IDS]
    if not asked:
        raise UserError(f"{source}: no tasks with ids {TEST_IDS[0]} to {TEST_IDS[-1]}, expected at least one")
    which = {"sanitized": "sanitized tasks", "all": "tasks of all splits"}.get(variant, "test tasks (ids 11 to 510)")
    others = [p for p in problems if p not in asked]
    shots = "3-shot (tasks 2, 3, 4)" if variant == "3-shot" else "zero-shot docstring prompt"
    return MBPP(
        name="mbpp",
        variant=f"{shots}, {len(asked)} {which}",
        problems=asked,
        others=others,
        stop=(DONE,) if variant == "3-shot" else STOP,
        decoding=Decoding(max_new_tokens=512),
    )


@dataclass(frozen=True)
class MBPP(Benchmark):
    """A completion is a whole program; the docstring ahead of it says nothing to Python and is left out."""

    def program(self, problem: Problem, completion: str) -> Program:
        if DONE in self.stop:
            completion = extraction.cut(completion, (DONE,)).rpartition(BEGIN)[2]
        return _judged(problem, extraction.of_completion("", completion, problem.entry_point, self.stop))

    def solution(self, problem: Problem, text: str) -> Program:
        return _judged(problem, extraction.of_program(text, problem.entry_point))


def _judged(problem: Problem, sources: tuple[str, ...]) -> Program:
    driver = problem.row["driver"]
    sources = tuple(source + driver for source in sources)
    return Program(
        sources[0],
        DRIVER if driver else problem.entry_point,
        problem.tests,
        problem.script,
        cpu_seconds=CPU_SECONDS,
        readings=sources[1:],
    )


def _problem(row: Mapping[str, Any], examples: str, where: str) -> Problem:
    """where: begins the message of the UserError for tests that test nothing."""
    imports = row.get("test_imports", [])
    if not all(isinstance(line, str) for line in [*row["test_list"], *imports]) or not row["test_list"]:
        raise UserError(f"{where}: field 'test_list' or 'test_imports' holds something else than lines of text")
    tests, setup = "\n".join(row["test_list"]), row.get("test_setup_code", "")
    entry_point = entry_point_of(row["code"], row["test_list"], where)
    prompt = examples + _shot(row) if examples else f'"""\n{_text(row)}\n{row["test_list"][0]}\n"""\n'
    found = judged_by(tests, entry_point, imports, setup, row["code"])
    extra = {"reference": row["code"], "driver": found.driver}
    return Problem(str(row["task_id"]), prompt, entry_point, found.tests, found.script, row=extra)


class JudgedBy(NamedTuple):
    """What judges a program: tests, of the entry point or of what `driver`, code that goes after it, defines; or a
    script."""

    tests: tuple[Check, ...] | tuple[StdioTest, ...] = ()
    driver: str = ""
    script: Script | None = None


def judged_by(tests: str, entry_point: str, imports: Sequence[str], setup: str, reference: str) -> JudgedBy:
    """How lines of asserts are judged. imports, setup: code ahead of them. reference: a solution, whose imports they
    may use."""
    checks = None if setup else convert("\n".join([*imports, tests]), entry_point)
    if checks and not any(check.comparison in ("truthy", "falsy") for check in checks):
        return JudgedBy(tuple(checks))
    found = driven(tests, entry_point, setup)
    if found is not None:
        return JudgedBy(found.checks, found.code)
    return JudgedBy(script=Script("\n".join([*_imports(reference), *imports, setup]), tests))


def entry_point_of(code: str, tests: Sequence[str], where: str) -> str:
    """The function that the tests call: the outermost name called in the first assert that the reference defines."""
    try:
        body = parse(code).body
        calls = [node.func for node in ast.walk(parse(tests[0])) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: field 'code' or 'test_list' is not Python ({error})") from error
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {n.id for node in body if isinstance(node, ast.Assign) for n in node.targets if isinstance(n, ast.Name)}
    for name in calls:
        if isinstance(name, ast.Name) and name.id in defined:
            return name.id
    raise UserError(f"{where}: the first of 'test_list' calls no function that 'code' defines")


def _imports(code: str) -> list[str]:
    """The reference's import lines: what the tests may use of them."""
    return [ast.unparse(node) for node in parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]


def _text(row: Mapping[str, Any]) -> str:
    return row["text"] if "text" in row else row["prompt"]


def _shot(row: Mapping[str, Any]) -> str:
    tests = "\n".join(row["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {_text(row)} "
        f"Your code should pass these tests:\n\n{tests}\n{BEGIN}\n"
    )


def _examples(rows: Sequence[Mapping[str, Any]], source: object) -> str:
    by_id = {row["task_id"]: row for row in rows}
    missing = [str(i) for i in EXAMPLE_IDS if i not in by_id]
    if missing:
        raise UserError(f"{source}: no task {missing[0]}, expected tasks 2, 3 and 4 as examples")
    shown = (by_id[i] for i in EXAMPLE_IDS)
    return "".join(_shot(row) + row["code"].replace("\r\n", "\n") + f"\n{DONE}\n\n" for row in shown)
