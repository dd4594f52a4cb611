"""HumanEval+ (EvalPlus): HumanEval's 164 functions with some 123,000 more tests (evalplus.py beside this file).

program = stripped prompt + newline + completion + newline
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ra3core.evaluation.benchmarks import evalplus, extraction
from ra3core.evaluation.benchmarks.base import Problem
from ra3core.evaluation.benchmarks.files import no_variants
from ra3core.verifier import Check, Program
from ra3core.verifier.asserts import DRIVER

HUB_NAME, FILE_NAME = "evalplus/humanevalplus", "HumanEvalPlus-v0.1.10.jsonl.gz"
STOP = (*evalplus.STOP, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")
ROOT_TASK = "HumanEval/32"
"""Its answer is any root of a polynomial, to the file's tolerance."""
LARGE = ("HumanEval/15", "HumanEval/130")
"""Their answers, a text and a list of numbers, come to more than 100 MB; the judge gets and compares their digests."""

_DIGEST_DRIVER = f"""
def {DRIVER}(*arguments):
    import array, hashlib
    value = {{entry_point}}(*arguments)
    data = value.encode() if type(value) is str else array.array("d", value).tobytes()
    return [type(value).__name__, len(value), hashlib.sha256(data).hexdigest()]
"""


def load(data: Path | None, variant: str) -> HumanEvalPlus:
    """From the official JSON lines, or from the hub if its data set holds inputs."""
    no_variants("humaneval-plus", variant)
    rows = evalplus.rows(data, HUB_NAME, FILE_NAME, evalplus.FIELDS)
    problems = [evalplus.problem(row, [tuple(x) for x in [*row["base_input"], *row["plus_input"]]]) for row in rows]
    return HumanEvalPlus(
        name="humaneval-plus",
        variant=f"zero-shot completion of the stripped prompt, {len(problems)} tasks, base and plus tests",
        problems=problems,
        stop=STOP,
        decoding=evalplus.DECODING,
    )


class HumanEvalPlus(evalplus.EvalPlus):
    """Functions to complete from signature and docstring."""

    def check(self, problem: Problem, arguments: tuple[Any, ...], expected: Any) -> Check:
        if problem.id == ROOT_TASK:
            return Check(arguments, expected, comparison="root", tolerance=problem.row["atol"])
        return super().check(problem, arguments, expected)

    def driver(self, problem: Problem) -> tuple[str, str]:
        if problem.id in LARGE:
            return _DIGEST_DRIVER.format(entry_point=problem.entry_point), DRIVER
        return super().driver(problem)

    def program(self, problem: Problem, completion: str) -> Program:
        sources = extraction.of_completion(problem.prompt, completion, problem.entry_point, self.stop)
        return self.judged(problem, sources)

    def solution(self, problem: Problem, text: str) -> Program:
        return self.judged(problem, extraction.of_program(text, problem.entry_point, self.stop))
