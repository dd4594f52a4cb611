"""From a plan (an ordered tuple of skills) to a program of the embedded suite.

    def f(a):
        \"\"\"Steps: D sort rising; A keep even; F drop zeros. Run A to b, D to c.\"\"\"
        b = []
        for x in a:
            ...

The docstring defines named steps in shuffled order, with one distractor. In the *labelled* wording it then says which
step to run into which variable (or ``Let b be A, c be D.``): to write a block, one has to look up the label of the next
variable, then its definition, then the code, serial look-ups that a comment ``# A keep even`` writes down. In the
*direct* wording (half of the programs) the steps are named after the variables that they fill, ``Steps: c sort rising;
b keep even; h drop zeros. Return c.``: one look-up less, so a program can be written without a comment as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from ra3core.corpora.demonstrations import Demonstration, Test
from ra3core.corpora.suite.skills import INDENT, SKILLS

Plan = tuple[int, ...]

LABELS = "ABCDEFGHJKLM"
VARIABLES = "abcdefghjk"  # the input, then one list for every step
DIRECT = 0.5  # share of prompts in the direct wording
ENTRY_POINT = "f"


@dataclass(frozen=True)
class Program:
    """A plan written out: prompt, one block of lines for every step, and the reference rationale of each block."""

    plan: Plan
    prompt: str
    blocks: tuple[tuple[str, ...], ...]
    rationales: tuple[str, ...]

    @property
    def last_line(self) -> str:
        """The return statement."""
        return f"{INDENT}return {VARIABLES[len(self.plan)]}"

    def demonstration(self, identifier: str) -> Demonstration:
        """The expert's program, comment-free; the reference rationales stand beside it."""
        lines: list[str] = []
        reference: dict[int, str] = {}
        for block, rationale in zip(self.blocks, self.rationales, strict=True):
            reference[len(lines)] = rationale
            lines += block
        lines.append(self.last_line)
        return Demonstration(identifier, self.prompt, tuple(lines), tuple(range(len(lines))), reference)

    def text(self, comments: Sequence[str | None]) -> str:
        """The program with a comment (or none) ahead of each block."""
        lines = [self.prompt]
        for block, comment in zip(self.blocks, comments, strict=True):
            if comment is not None:
                lines.append(f"{INDENT}# {comment}")
            lines += block
        return "\n".join([*lines, self.last_line]) + "\n"

    def outline(self) -> str:
        """The docstring under a header of its own, then the rationales alone."""
        header = self.prompt.replace(f"def {ENTRY_POINT}(", "def outline(", 1)
        return "\n".join([header, *(f"{INDENT}# {rationale}" for rationale in self.rationales)]) + "\n"


def write_program(plan: Plan, rng: Random) -> Program:
    """Draw wording, labels, phrasings, distractor and implementations for a plan of distinct skills."""
    distractor = rng.choice([skill for skill in range(len(SKILLS)) if skill not in plan])
    outputs = VARIABLES[1 : len(plan) + 1]
    direct = rng.random() < DIRECT
    names = [*outputs, rng.choice(VARIABLES[len(plan) + 1 :])] if direct else rng.sample(LABELS, len(plan) + 1)
    labels = dict(zip([*plan, distractor], names, strict=True))
    phrase = {skill: rng.choice(SKILLS[skill].phrasings) for skill in labels}
    listed = list(labels)
    rng.shuffle(listed)
    steps = "; ".join(f"{labels[skill]} {phrase[skill]}" for skill in listed)
    if direct:
        order = f"Return {outputs[-1]}"
    elif rng.random() < 0.5:
        order = "Run " + ", ".join(f"{labels[skill]} to {output}" for skill, output in zip(plan, outputs, strict=True))
    else:
        order = "Let " + ", ".join(f"{output} be {labels[skill]}" for skill, output in zip(plan, outputs, strict=True))
    prompt = f'def {ENTRY_POINT}({VARIABLES[0]}):\n{INDENT}"""Steps: {steps}. {order}."""'
    blocks = tuple(
        tuple(SKILLS[skill].block(rng.randrange(len(SKILLS[skill].code)), VARIABLES[i], VARIABLES[i + 1]))
        for i, skill in enumerate(plan)
    )
    return Program(plan, prompt, blocks, tuple(f"{labels[skill]} {phrase[skill]}" for skill in plan))


def run_program(text: str, argument: list[int]) -> list[int]:
    """Call the entry point of a program that this module wrote (trusted text: ours, never a model's)."""
    namespace: dict = {}
    exec(text, namespace)
    return namespace[ENTRY_POINT](argument)


def draw_inputs(rng: Random, count: int) -> list[list[int]]:
    """Lists of 0 to 9 integers of -9..9; the first is never short."""
    lengths = [7, *(rng.randrange(3, 10) for _ in range(count - 2)), 0]
    return [[rng.randrange(-9, 10) for _ in range(length)] for length in lengths[:count]]


def make_tests(plan: Plan, rng: Random, count: int = 8, attempts: int = 50) -> tuple[Test, ...] | None:
    """Tests of a plan that notice when any one step is left out; None when no drawn inputs do."""
    for _ in range(attempts):
        inputs = draw_inputs(rng, count)
        expected = [apply_plan(plan, values) for values in inputs]
        shorter = [plan[:i] + plan[i + 1 :] for i in range(len(plan))]
        if all(any(apply_plan(s, v) != e for v, e in zip(inputs, expected, strict=True)) for s in shorter):
            return tuple(Test((values,), value) for values, value in zip(inputs, expected, strict=True))
    return None


def apply_plan(plan: Plan, values: list[int]) -> list[int]:
    """What the plan makes of a list: its first implementations, run."""
    for skill in plan:
        values = _function(skill)(list(values))
    return values


_functions: dict[int, Callable[[list[int]], list[int]]] = {}


def _function(skill: int) -> Callable[[list[int]], list[int]]:
    if skill not in _functions:
        namespace: dict = {}
        body = "\n".join(SKILLS[skill].block(0, "a", "b"))
        exec(f"def run(a):\n{body}\n{INDENT}return b", namespace)
        _functions[skill] = namespace["run"]
    return _functions[skill]
