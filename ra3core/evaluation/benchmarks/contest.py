"""What contest problems have in common, LiveCodeBench's and Codeforces': the answer is a whole program or a class.

Prompt: one solved example, then the problem, then an opened code fence, for models that complete text. The markers do
not begin with ``#`` (LiveCodeBench's own do), so that no stop sequence can cut a comment line. A chat model is better
given ``problem.row["question"]`` and no stop sequences; `readings` finds the program in its answer too.
"""

from __future__ import annotations

import re
import textwrap
from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from ra3core.evaluation.benchmarks.base import Benchmark, Decoding, Problem
from ra3core.evaluation.benchmarks.extraction import END_OF_TEXT, answer, blocks, cut
from ra3core.verifier import Program, StdioTest

STOP = ("\n```\n", "\nPROBLEM\n")
DECODING = Decoding(samples=10, temperature=0.2, top_p=0.95, max_new_tokens=2000)
"""LiveCodeBench's."""

_STARS = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
_MODULES = [name for name in _STARS if name not in ("builtins", "typing")]
IMPORTS = "".join(
    [f"from {name} import *\n" for name in _STARS]  # builtins late: pow, open and compile stay what they are
    + [f"import {name}\n" for name in _MODULES]
    + ["sys.setrecursionlimit(50_000)\n", "quit = exit\n"]
)
"""Names that LiveCodeBench's harness has ready for every program; answers rely on it (`List` in a signature)."""

LEAVE = "from sys import exit\nquit = exit\n"
"""What an interactive interpreter has, and the verifier's does not: contest programs end so."""

FACTOR, LEAST_CPU_SECONDS = 5.0, 5.0
"""Time limits are set for C++ and kept by the site for all languages. Programs that it accepts in Python are mostly run
by PyPy, several times as fast as CPython on loops; five seconds at least, for machines slower than its own."""
LEAST_MB, OVERHEAD_MB = 256, 384
"""Memory is counted as address space here, as touched pages by the site: 128 MB are the interpreter's with numpy, the
rest is room for the stack of a thread (threading.stack_size), which deep recursions reserve and hardly touch."""
_USUAL_SECONDS, _USUAL_MB = 2.0, 256.0

_METHOD = """
if hasattr(globals().get("Solution"), "{0}"):
    {0} = Solution().{0}
"""
_WITHOUT_NUMPY = """
def {0}(*arguments, function={0}):
    def plain(value):
        if type(value) in (list, tuple):
            return type(value)(map(plain, value))
        return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value

    return plain(function(*arguments))
"""
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
_IMPORT = re.compile(r"^(?:import|from) .*$", re.MULTILINE)
_RETURN = re.compile(r"^[ \t]*return\b", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```+[ \t]*([^\n]*)$", re.MULTILINE)
_CODE = re.compile(r"[=(]|^(?:import|from) ", re.MULTILINE)  # prose and sample data may compile too: Answer, or 5

_OFFICIAL_STOP = "\n### Question"

_READS = "The program reads from standard input and writes to standard output."
_STDIN_QUESTION = """\
A shop notes what it sold each day. Given the number of days n and then, on one line, n integers, print the length of \
the longest run of consecutive days on which sales went up from one day to the next. A single day is a run of length 1.

Example input:
6
3 5 8 2 4 4

Example output:
3"""
_STDIN_ANSWER = """\
n = int(input())
sales = list(map(int, input().split()))
best = run = 1
for i in range(1, n):
    run = run + 1 if sales[i] > sales[i - 1] else 1
    best = max(best, run)
print(best)"""
_CALL_QUESTION = """\
Given a list of words and a letter, return how many of the words contain the letter at least twice.

Example: words = ["noon", "on", "onion"], letter = "n" gives 2."""
_CALL_STARTER = """\
class Solution:
    def countTwice(self, words: List[str], letter: str) -> int:
        """
_CALL_ANSWER = """\
class Solution:
    def countTwice(self, words: List[str], letter: str) -> int:
        return sum(word.count(letter) >= 2 for word in words)"""


@dataclass(frozen=True)
class Contest(Benchmark, ABC):
    """Programs that are judged by what they print, or functions and methods by what they return.

    preamble: put ahead of every program. in_function: a script that does not compile because it returns is run as a
    function's body, which is what the harnesses of LiveCodeBench and APPS make of every script.
    Of a problem, `entry_point` is the function's or method's name ("" when the program is a script), row["question"]
    its text with what is to be written, row["memory_mb"] the limit.
    """

    stop: tuple[str, ...] = STOP
    decoding: Decoding = DECODING
    packages: tuple[str, ...] = ("numpy",)
    preamble: str = IMPORTS
    in_function: bool = True

    def tests(self, problem: Problem) -> Sequence[Any]:
        """What judges the problem; a benchmark too big for memory reads it here."""
        return problem.tests

    def program(self, problem: Problem, completion: str) -> Program:
        return self._program(problem, readings(completion, problem.entry_point))

    def solution(self, problem: Problem, text: str) -> Program:
        return self._program(problem, dict.fromkeys((text, *readings(text, problem.entry_point))))

    def _program(self, problem: Problem, texts: Iterable[str]) -> Program:
        tests = self.tests(problem)
        texts = list(texts)
        if self.in_function and not problem.entry_point:
            texts += [as_function(text) for text in texts if _RETURN.search(text)]
        source, *others = (assemble(self.preamble, text, problem.entry_point) for text in texts)
        memory = problem.row["memory_mb"]
        if isinstance(tests[0], StdioTest):
            return Program(source, tests=tests, readings=tuple(others), memory_mb=memory)
        # one process answers all calls: the sum of their limits, and one more for what runs before the first
        total = sum(test.cpu_seconds for test in tests) + tests[0].cpu_seconds
        return Program(
            source,
            problem.entry_point,
            tests,
            cpu_seconds=total,
            wall_seconds=total + 20,
            memory_mb=memory,
            readings=tuple(others),
        )


def cpu_seconds(time_limit: float | None) -> float:
    """The limit of a test, in CPU seconds, for a problem's limit in seconds."""
    return max(LEAST_CPU_SECONDS, FACTOR * (time_limit or _USUAL_SECONDS))


def memory_mb(memory_limit: float | None) -> int:
    """The limit on address space for a problem's limit in MB."""
    return ceil(max(LEAST_MB, memory_limit or _USUAL_MB)) + OVERHEAD_MB


def assemble(preamble: str, text: str, function: str = "") -> str:
    """The program to run: imports from the future first, the preamble, the text.

    A method of a class Solution is made reachable as the function of its name, since answers may be either; numbers of
    numpy in what it returns become Python's, to which they are equal.
    """
    future = "".join(f"{line}\n" for line in _FUTURE.findall(text))
    source = f"{future}{preamble}{_FUTURE.sub('', text)}\n"
    if function:
        source += _METHOD.format(function)
        source += _WITHOUT_NUMPY.format(function) if "numpy" in text else ""
    return source


def as_function(text: str) -> str:
    """A script as the body of a function that is called, its imports ahead of it."""
    imports = "".join(f"{line}\n" for line in _IMPORT.findall(text))
    return f"{imports}def script():\n{textwrap.indent(_IMPORT.sub('', text), ' ')}\n\nscript()\n"


def readings(completion: str, function: str = "") -> tuple[str, ...]:
    """The programs that a completion may mean, the likeliest first; the first that compiles is judged, alone.

    Ahead of a bare fence that closes the prompt's own: what a base model writes. Else the last block marked as Python,
    the last one marked as nothing (of those that define the function, if any does), the text itself, and the text up
    to another question in LiveCodeBench's format, for samples that were drawn without its stop sequence.
    """
    text = cut(answer(completion), (*END_OF_TEXT, STOP[1]))
    found = []
    fence = _FENCE.search(text)
    if fence and not fence[1]:
        found.append(text[: fence.start()])
    fenced = blocks(text)
    for languages in (("python", "python3", "py", "py3"), ("",)):
        codes = [block.text for block in fenced if block.language in languages and _CODE.search(block.text)]
        found += ([code for code in codes if re.search(rf"\bdef {function}\b", code)] or codes)[-1:]
    found += [text, cut(text, (_OFFICIAL_STOP,))]
    return tuple(dict.fromkeys(each for each in found if _CODE.search(each))) or (text,)


def question(text: str, starter: str = "") -> str:
    """A problem's text with what is to be written."""
    task = f"Complete this starter code.\n```python\n{starter}\n```" if starter.strip() else _READS
    return f"{text.strip()}\n\n{task}"


def one_shot(asked: str, starter: bool) -> str:
    """The prompt for a model that completes text: a solved example of the same kind, then the question."""
    if starter:
        example, answer = question(_CALL_QUESTION, _CALL_STARTER), _CALL_ANSWER
    else:
        example, answer = question(_STDIN_QUESTION), _STDIN_ANSWER
    return (
        "Programming problems, each with a correct solution in Python 3.\n\n"
        f"PROBLEM\n{example}\n\nSOLUTION\n```python\n{answer}\n```\n\n"
        f"PROBLEM\n{asked}\n\nSOLUTION\n```python\n"
    )
