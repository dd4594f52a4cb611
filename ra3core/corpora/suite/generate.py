"""Writes data/: the embedded suite, deterministic to the byte from its configuration.

Plans are drawn first for evaluation; no training plan contains one of them, not even as a contiguous part.

    web.parquet                programs of 1 to 3 known skills; `commented` of them carry comments, a quarter of which
                               are bad (generic, label only, or wrong)
    outlines.parquet           docstring and rationales without code, all skills, 1 to 5 steps
    demonstrations.parquet     comment-free programs of 1 to 4 steps, all skills
    rlvr_tasks.parquet         prompts with tests, 2 to 4 steps
    evaluation_tasks.parquet   prompts with tests, 2 to 5 steps, plans that occur nowhere else
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from ra3core.config import DataConfig
from ra3core.corpora.demonstrations import Task, write_demonstrations, write_rows, write_tasks
from ra3core.corpora.suite.programs import ENTRY_POINT, Plan, Program, make_tests, write_program
from ra3core.corpora.suite.skills import KNOWN, SKILLS
from ra3core.stage import Metrics, StageLog

ALL = tuple(range(len(SKILLS)))
EVALUATION_STEPS = (2, 3, 4, 5)
RLVR_STEPS = (2, 3, 4)
DEMONSTRATION_STEPS = (1, 2, 3, 4)
WEB_STEPS = (1, 2, 2, 3, 3)
OUTLINE_STEPS = (1, 2, 3, 4, 5)
GENERIC = ("do the next step", "process the list", "update the values", "now the next part", "build the result")


def generate(config: DataConfig, folder: Path, log: StageLog | None = None) -> Metrics:
    """Fill `folder` with the suite's files; returns their row counts."""
    log = log or StageLog()
    folder.mkdir(parents=True, exist_ok=True)
    held_out: set[Plan] = set()
    counts: dict[str, int] = {}
    with log.progress("data", total=5) as advance:
        tasks = list(
            _tasks(Random(f"{config.seed}/evaluation"), EVALUATION_STEPS, config.evaluation_tasks, "eval", set())
        )
        held_out = {plan for plan, _ in tasks}
        write_tasks((task for _, task in tasks), folder / "evaluation_tasks.parquet")
        counts["evaluation_tasks"] = len(tasks)
        advance(1)

        per_length = -(-config.rlvr_tasks // len(RLVR_STEPS))
        tasks = list(_tasks(Random(f"{config.seed}/rlvr"), RLVR_STEPS, per_length, "rlvr", held_out))[
            : config.rlvr_tasks
        ]
        write_tasks((task for _, task in tasks), folder / "rlvr_tasks.parquet")
        counts["rlvr_tasks"] = len(tasks)
        advance(1)

        rng = Random(f"{config.seed}/demonstrations")
        programs = (_program(rng, ALL, DEMONSTRATION_STEPS, held_out) for _ in range(config.demonstrations))
        demonstrations = [program.demonstration(f"demo-{i:05d}") for i, program in enumerate(programs)]
        write_demonstrations(demonstrations, folder / "demonstrations.parquet")
        counts["demonstrations"] = len(demonstrations)
        advance(1)

        rng = Random(f"{config.seed}/outlines")
        outlines = [_program(rng, ALL, OUTLINE_STEPS, held_out).outline() for _ in range(config.outlines)]
        write_rows(({"text": text} for text in outlines), folder / "outlines.parquet")
        counts["outlines"] = len(outlines)
        advance(1)

        rng = Random(f"{config.seed}/web")
        web = [_web_document(rng, held_out, config.commented) for _ in range(config.web_documents)]
        write_rows(({"text": text} for text in web), folder / "web.parquet")
        counts["web"] = len(web)
        advance(1)
    description = {"suite": "labelled steps", "config": config.model_dump(), "rows": counts}
    (folder / "suite.json").write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")
    return dict(counts)


def contains(plan: Plan, parts: set[Plan]) -> bool:
    """Whether a contiguous part of `plan` (or all of it) is one of `parts`."""
    return any(plan[i:j] in parts for i in range(len(plan)) for j in range(i + 2, len(plan) + 1))


def _plan(rng: Random, skills: Sequence[int], steps: int, held_out: set[Plan]) -> Plan:
    """A plan of distinct skills that contains no held-out plan."""
    while True:
        plan = tuple(rng.sample(skills, steps))
        if not contains(plan, held_out):
            return plan


def _program(rng: Random, skills: Sequence[int], lengths: Sequence[int], held_out: set[Plan]) -> Program:
    return write_program(_plan(rng, skills, rng.choice(lengths), held_out), rng)


def _tasks(
    rng: Random, lengths: Sequence[int], count: int, prefix: str, held_out: set[Plan]
) -> Iterator[tuple[Plan, Task]]:
    """`count` tasks of every length, plans all different."""
    for steps in lengths:
        plans: set[Plan] = set()
        while len(plans) < count:
            plan = _plan(rng, ALL, steps, held_out)
            tests = None if plan in plans else make_tests(plan, rng)
            if tests is None:
                continue
            prompt = write_program(plan, rng).prompt
            yield plan, Task(f"{prefix}-{steps}-{len(plans):04d}", prompt, ENTRY_POINT, tests, steps)
            plans.add(plan)


def _web_document(rng: Random, held_out: set[Plan], commented: float) -> str:
    """A program of known skills, as someone on the web might have written it."""
    program = _program(rng, KNOWN, WEB_STEPS, held_out)
    if rng.random() >= commented:
        return program.text([None] * len(program.plan))
    return program.text([_comment(rng, rationale) for rationale in program.rationales])


def _comment(rng: Random, rationale: str) -> str | None:
    """Three quarters good; the rest missing, generic, the label alone, or about another step."""
    draw = rng.random()
    if draw < 0.75:
        return rationale
    label = rationale.split()[0]
    if draw < 0.80:
        return None
    if draw < 0.87:
        return rng.choice(GENERIC)
    if draw < 0.93:
        return label
    return f"{label} {rng.choice(SKILLS[rng.choice(ALL)].phrasings)}"
