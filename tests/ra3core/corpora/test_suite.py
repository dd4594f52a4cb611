"""The embedded suite: its programs are right, its plans are held out, its bytes are reproducible."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from random import Random

import pytest

from ra3core.config import DataConfig
from ra3core.corpora.demonstrations import annotate, comment_boundaries, read_demonstrations, read_rows, read_tasks
from ra3core.corpora.suite.generate import contains, generate
from ra3core.corpora.suite.programs import apply_plan, draw_inputs, make_tests, run_program
from ra3core.corpora.suite.skills import KNOWN, NOVEL, SKILLS

CONFIG = DataConfig(web_documents=400, outlines=200, demonstrations=120, rlvr_tasks=30, evaluation_tasks=8)
SKILL = {phrase: i for i, skill in enumerate(SKILLS) for phrase in skill.phrasings}


def plan_of(prompt: str) -> tuple[int, ...]:
    """The plan that a prompt describes, read back from its text."""
    steps, order = prompt.split("Steps: ")[1].split(". ", 1)
    definitions = {step[0]: SKILL[step[2:]] for step in steps.split("; ")}
    last = re.match(r"Return (\w)", order)
    labels = [v for v in "bcdefghjk" if last and v <= last[1]] if last else re.findall(r"\b[A-Z]\b", order)
    return tuple(definitions[label] for label in labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate(CONFIG, folder)
    return folder


@pytest.mark.parametrize("number", range(len(SKILLS)), ids=[skill.name for skill in SKILLS])
def test_implementations_of_a_skill_agree_and_leave_their_input_alone(number: int) -> None:
    skill, rng = SKILLS[number], Random(number)
    for values in [values for _ in range(50) for values in draw_inputs(rng, 4)]:
        results = []
        for implementation in range(len(skill.code)):
            argument = list(values)
            body = "\n".join(skill.block(implementation, "a", "b"))
            results.append(run_program(f"def f(a):\n{body}\n    return b\n", argument))
            assert argument == values
        assert all(result == results[0] for result in results)


def test_skills_differ_pairwise() -> None:
    rng = Random(0)
    inputs = [values for _ in range(20) for values in draw_inputs(rng, 6)]
    behaviours = {tuple(tuple(apply_plan((skill,), values)) for values in inputs) for skill in range(len(SKILLS))}
    assert len(behaviours) == len(SKILLS)


def test_tests_notice_a_missing_step() -> None:
    rng = Random(3)
    plan = (0, 8, 12)
    tests = make_tests(plan, rng)
    assert tests is not None
    for i in range(len(plan)):
        shorter = plan[:i] + plan[i + 1 :]
        assert any(apply_plan(shorter, list(test.arguments[0])) != test.expected for test in tests)
    assert make_tests((8, 8), rng) is None  # sorting twice is sorting once: no input can tell


def test_the_expert_solves_its_own_prompt(data: Path) -> None:
    rng = Random(1)
    for demonstration in read_demonstrations(data / "demonstrations.parquet"):
        plan = plan_of(demonstration.prompt)
        for values in draw_inputs(rng, 3):
            assert run_program(demonstration.text, list(values)) == apply_plan(plan, values)
        assert [SKILL[text[2:]] for _, text in sorted(demonstration.reference.items())] == list(plan)
        assert ast.dump(ast.parse(annotate(demonstration, demonstration.reference).text)) == ast.dump(
            ast.parse(demonstration.text)
        )
        assert demonstration.boundaries == comment_boundaries(demonstration.prompt, demonstration.lines)


def test_evaluation_plans_occur_nowhere_else(data: Path) -> None:
    tasks = read_tasks(data / "evaluation_tasks.parquet")
    held_out = {plan_of(task.prompt) for task in tasks}
    assert len(held_out) == len(tasks) == 4 * CONFIG.evaluation_tasks
    assert {len(plan) for plan in held_out} == {2, 3, 4, 5}
    prompts = [task.prompt for task in read_tasks(data / "rlvr_tasks.parquet")]
    prompts += [demonstration.prompt for demonstration in read_demonstrations(data / "demonstrations.parquet")]
    for name in ("web", "outlines"):
        prompts += [row["text"][: row["text"].index('"""\n') + 3] for row in read_rows(data / f"{name}.parquet")]
    assert len(prompts) > 700
    assert not any(contains(plan_of(prompt), held_out) for prompt in prompts)


def test_novel_skills_are_in_demonstrations_and_in_no_web_program(data: Path) -> None:
    web = {skill for row in read_rows(data / "web.parquet") for skill in plan_of(row["text"].split('"""\n')[0] + '"""')}
    shown = {skill for d in read_demonstrations(data / "demonstrations.parquet") for skill in plan_of(d.prompt)}
    assert web == set(KNOWN)
    assert shown == set(KNOWN) | set(NOVEL)


def test_commented_share(data: Path) -> None:
    texts = [row["text"] for row in read_rows(data / "web.parquet")]
    assert abs(sum("# " in text for text in texts) / len(texts) - CONFIG.commented) < 0.05


def test_bytes_depend_on_the_configuration_alone(data: Path, tmp_path: Path) -> None:
    generate(CONFIG, tmp_path / "again")
    generate(CONFIG.model_copy(update={"seed": 1}), tmp_path / "other")
    for path in data.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes(), path.name
